#!/usr/bin/env python3
"""programs.py - goal: transfer_engine_bench, transfer_engine_topology_dump and mooncake_http_metadata_server take the flags of the
existing ones, say what they do not take, and do their work between processes. Method: the programs themselves."""
import json
import os
import re
import subprocess

import cluster
from cluster import Process, equal, run

NAMES = {name: os.environ[name.upper()] for name in ("transfer_engine_bench", "transfer_engine_topology_dump",
                                                     "mooncake_http_metadata_server")}
SMALL = ["--buffer_size=8388608", "--block_size=4096", "--batch_size=16", "--threads=3", "--duration=1"]


def call(name, *flags, env=None):
    done = subprocess.run([NAMES[name], *flags], check=False, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL,
                          env={**os.environ, **(env or {})})
    return done.returncode, done.stdout, done.stderr


def refused(name, *flags):
    code, out, words = call(name, *flags)
    equal((code, out), (2, ""))
    return words


def ready(process):
    return dict(word.split("=", 1) for word in process.line().split()[1:])


class Target(Process):
    def __init__(self, *flags, env=None):
        super().__init__(NAMES["transfer_engine_bench"], "--mode=target", "--buffer_size", "8MB", *flags, env=env)
        self.segment = ready(self)["segment"]


def completed(text):
    found = re.fullmatch(r"Test completed: duration ([0-9.]+), batch count ([0-9]+), throughput ([0-9.]+) (\S+)/s\n", text)
    assert found, text
    return float(found[1]), int(found[2]), found[3], found[4]


def test_bench_reads_and_writes():
    """What is counted went over: the throughput of the last line is batches by bytes by time, in the unit asked for."""
    for force in ("0", "1"):
        env = {"MC_FORCE_TCP": force}
        with Target("--protocol=tcp", "--use_vram=false", env=env) as target:
            for operation, unit, size in (("read", "MiB", 1 << 20), ("write", "Gb", 1e9 / 8)):
                code, out, words = call("transfer_engine_bench", f"--segment_id={target.segment}", f"--operation={operation}",
                                        "--metadata_server=P2PHANDSHAKE", "--protocol=tcp", "--report_unit", unit,
                                        "--report_precision=6", *SMALL, env=env)
                equal((code, words), (0, ""))
                seconds, batches, rate, name = completed(out)
                assert name == unit and len(rate.split(".")[1]) == 6 and 1 <= seconds < 20 and batches >= 3, out
                assert abs(float(rate) * size * seconds / (batches * 16 * 4096) - 1) < 0.01, out
            equal(target.end(), 0)


def test_bench_fails_by_name():
    with Target() as target:
        code, out, words = call("transfer_engine_bench", f"--segment_id={target.segment}", "--buffer_size=1GB", "--block_size=64MB",
                                "--batch_size=8", "--threads=1", "--duration=1", "--init_mem=false")
        assert code == 1 and out == "" and "has not registered 1073741824 bytes" in words, (code, out, words)
        target.end()
    code, out, words = call("transfer_engine_bench", f"--segment_id={target.segment}", *SMALL)
    assert code == 1 and out == "" and f"{target.segment}: peer down" in words, (code, out, words)
    code, out, words = call("transfer_engine_bench", "--mode=target", "--protocol=rdma")
    assert code == 1 and "rdma" in words, words
    code, out, words = call("transfer_engine_bench", "--mode=target", "--metadata_server=redis://127.0.0.1:1")
    assert code == 1 and "redis" in words, words


def test_bench_flags():
    for flags, word in ((["--segmnt_id=a"], "did you mean 'segment_id'"), (["--use_vram=true"], "memory of devices"),
                        (["--use_vram"], "not there yet"), (["--backend=tent"], "second engine"), (["--operation=copy"], "read or write"),
                        (["--mode=both"], "initiator or target"), (["--report_unit=furlong"], "GiB"), ([], "which target"),
                        (["--segment_id=a", "--threads=100000"], "1 to 1024"), (["--threads", "many"], "whole number"),
                        (["--segment_id=a", "--buffer_size=1MB"], "do not fit"), (["--buffer_size=0"], "at least a byte"),
                        (["--segment_id=a", "--batch_size=0"], "65536"), (["initiator"], "no flag")):
        words = refused("transfer_engine_bench", *flags)
        assert word in words, (flags, words)
    code, out, words = call("transfer_engine_bench", "--help", "--nic_priority_matrix=x")
    assert code == 0 and "--segment_id" in out and "without effect" in out and "use_vram" in out, out
    code, out, words = call("transfer_engine_bench", "--device_name=mlx5_0", "--auto_discovery", "--segment_id=127.0.0.1:1", *SMALL)
    assert code == 1 and "without effect here: device_name, auto_discovery" in words, words


def test_topology():
    code, out, words = call("transfer_engine_topology_dump", "--backend=te")
    nodes = json.loads(out)
    assert code == 0 and words == "" and nodes and all(name.startswith("cpu:") and lists == [[], []] for name, lists in nodes.items()), out
    code, again, words = call("transfer_engine_topology_dump", "--device-name", "mlx5_0")
    assert (code, again) == (0, out) and "without effect here: device_name" in words, words
    for flags, word in ((["--backend=tent"], "second engine"), (["--use-custom-topo"], "from a file"),
                        (["--custom-topo-json=/tmp/x"], "from a file"), (["--devise-name=x"], "device_name")):
        assert word in refused("transfer_engine_topology_dump", *flags)


def test_metadata_server():
    """Alone, as python -m mooncake.http_metadata_server starts it, and two engines that find each other by it."""
    with Process(NAMES["mooncake_http_metadata_server"], "--port=0", "--log-level=DEBUG", stderr=subprocess.DEVNULL) as server:
        at = ready(server)["metadata"]
        ask = cluster.Master.http
        equal((ask(None, "/health", at=at)[0], ask(None, "/metadata", at=at)[0], ask(None, "/metadata?key=k", at=at)[0]), (200, 200, 404))
        equal((ask(None, "/metadata?key=k", "PUT", b"v", at)[0], ask(None, "/metadata?key=k", at=at)), (200, (200, "v")))
        service = f"--metadata_server=http://{at}/metadata"
        with Target(service, "--local_server_name=127.0.0.1:23901") as target:
            equal(target.segment, "127.0.0.1:23901")
            code, out, words = call("transfer_engine_bench", service, "--local_server_name=127.0.0.1:23902",
                                    f"--segment_id={target.segment}", *SMALL)
            equal((code, words), (0, ""))
            assert completed(out)[1] > 0
        equal(server.end(), 0)
    for flags, word in ((["--prot=1"], "did you mean 'port'"), (["--host=0.0.0.0"], "every interface"), (["--port=70000"], "65535")):
        assert word in refused("mooncake_http_metadata_server", *flags)


if __name__ == "__main__":
    run(globals())
