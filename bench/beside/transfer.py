"""transfer.py - rows of the Transfer Engine: `mooncake bench transfer` beside iperf3 and memcpy, our Python package beside the
existing wheel.

iperf3 carries the same number of streams with `-l 1M`. The wheel runs with and without its connection pool; the better one counts.
Ours checksums every byte that crosses a socket, they do not.
"""
import glob
import json
import os
import subprocess

from beside.kit import PEER, Goal, Missing, Row, Sample, need, run, shown

PAIR = os.path.join(os.path.dirname(os.path.abspath(__file__)), "engine_pair.py")
IPERF_PORT = 15201


# ---- contenders ----

def ours(key, transport, op, size, batch=1, threads=1):
    """`mooncake bench transfer`; beside it the memcpy of that size which the command measures in the same process just before."""
    def contender(place):
        words = [place.mooncake(), "bench", "transfer", "--transport", transport, "--op", op, "--size", size, "--batch", str(batch),
                 "--threads", str(threads), "--seconds", str(place.seconds), "--json"]
        raw = json.loads(run(words))
        samples = {"ours": Sample(raw[key], raw["cpu_s_per_gb"], shown(words), raw)}
        if transport == "auto" and op == "read":
            samples["first read"] = Sample(raw["first_read_us"], None, "the consumer reads a batch for the first time", None, "us")
        if key == "gbytes_per_s":
            samples["memcpy"] = Sample(raw["memcpy_gbytes_per_s"], None, "in the same process", None)
        return samples
    return contender


def iperf3(streams):
    def contender(place):
        program = need("iperf3", "iperf3")
        server_words = [program, "-s", "-1", "-p", str(IPERF_PORT), "-B", "127.0.0.1", "--forceflush"]
        with subprocess.Popen(server_words, stdout=subprocess.PIPE, text=True) as server:
            next(line for line in server.stdout if "listening" in line)
            words = [program, "-c", "127.0.0.1", "-p", str(IPERF_PORT), "-l", "1M", "-P", str(streams), "-t", str(max(round(place.seconds), 1)), "-J"]
            end = json.loads(run(words))["end"]
            server.stdout.read()
        gbytes = end["sum_received"]["bytes"] / 1e9
        use = end["cpu_utilization_percent"]
        cpu = (use["host_total"] + use["remote_total"]) / 100 * end["sum_received"]["seconds"]
        return {"iperf3": Sample(end["sum_received"]["bits_per_second"] / 8e9, cpu / gbytes, shown(words), end["sum_received"])}
    return contender


class Pair:
    """The two processes of engine_pair.py."""

    def __init__(self, python, env, opts):
        self.env = {**os.environ, **env}
        self.words = [python, PAIR]
        self.target = self.start(["target"])
        self.opts = {**opts, **{key: value for key, value in self.line(self.target).items() if key != "pid"}}

    def start(self, more):
        return subprocess.Popen([*self.words, *more], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                                env=self.env)

    def line(self, process):
        for line in process.stdout:  # the existing wheel logs to standard output too
            if line.startswith("{"):
                return json.loads(line)
        raise RuntimeError(f"{shown(self.words)} ended with {process.wait()} and printed nothing")

    def measure(self, look=None):
        """What the initiator printed, with the CPU time of both; look(pid, pid) is called while both live."""
        initiator = self.start(["initiator", json.dumps(self.opts)])
        try:
            result = self.line(initiator)
            if look:
                result["look"] = look(self.target.pid, initiator.pid)
            self.target.stdin.close()
            result["cpu_s"] += self.line(self.target)["cpu_s"]
        finally:
            for process in (initiator, self.target):
                process.stdin.close()
                process.kill()
                process.wait()
        return result


def pair_env(place, name, tcp):
    """Interpreter and environment of one contender."""
    if name == "ours":
        if not glob.glob(os.path.join(place.package, "mooncake", "engine*.so")):
            raise Missing(f"no package mooncake in {place.package} (meson target python, needs python3-dev)")
        return place.python, {"PYTHONPATH": place.package, **({"MC_FORCE_TCP": "1"} if tcp else {})}
    if not os.access(place.peer, os.X_OK):
        raise Missing(f"no {place.peer} (an environment with the peer's wheel: python3 -m venv, "
                      "pip install mooncake-transfer-engine-non-cuda; apt install libibverbs1 librdmacm1 libnuma1 libcurl4)")
    pool = {"MC_TCP_ENABLE_CONNECTION_POOL": "1"} if name == "peer-pool" else {}
    return place.peer, {"MC_FORCE_TCP": "1", "MC_LOG_LEVEL": "ERROR", **pool}


def python(name, key, tcp=True, **opts):
    """engine_pair.py: name is ours, peer or peer-pool."""
    def contender(place):
        interpreter, env = pair_env(place, name, tcp)
        raw = Pair(interpreter, env, {"seconds": place.seconds, **opts}).measure()
        words = [*(f"{k}={v}" for k, v in env.items()), os.path.basename(interpreter), PAIR, "initiator", json.dumps(opts)]
        return {name: Sample(raw[key], raw["cpu_s"] / raw["gbytes"], shown(words), raw)}
    return contender


def python_all(key, **opts):
    return [python(name, key, **opts) for name in ("ours", "peer", "peer-pool")]


def slices(name, size, batch, scatter):
    """Seconds of one call that moves the same bytes in `batch` slices."""
    def contender(place):
        interpreter, env = pair_env(place, "ours", True)
        opts = {"op": "write", "size": size, "batch": batch, "count": 3, "scatter": scatter}
        raw = Pair(interpreter, env, opts).measure()
        return {name: Sample(raw["p50_us"] / 1e6, raw["cpu_s"] / raw["gbytes"], shown([PAIR, "initiator", json.dumps(opts)]), raw)}
    return contender


def sockets(*pids):
    """TCP connections between the processes: descriptors that are established sockets, per process."""
    with open("/proc/net/tcp", encoding="ascii") as file:
        established = {fields[9] for fields in map(str.split, file) if fields[3] == "01"}
    counts = []
    for pid in pids:
        links = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
        counts.append(sum(link.startswith("socket:[") and link[8:-1] in established for link in links))
    return counts


def million(tcp):
    """10^6 transfers of 64 KiB: connections of a process, and how much its memory grew after the first tenth."""
    def contender(place):
        interpreter, env = pair_env(place, "ours", tcp)
        opts = {"op": "write", "size": 65536, "batch": 1, "count": max(int(1e6 * place.scale), 100)}
        raw = Pair(interpreter, env, opts).measure(sockets)
        words = shown([PAIR, "initiator", json.dumps(opts)])
        grown = raw["rss_kib"][-1] / raw["rss_kib"][0]
        return {"ours": Sample(max(raw["look"]), raw["cpu_s"] / raw["gbytes"], words, raw), "growth": Sample(grown, None, words, None)}
    return contender


# ---- rows ----

def bounds(factor_iperf=None, factor_peer=None, least=True):
    goals = [Goal(least, factor_iperf, "iperf3")] if factor_iperf else []
    return goals + ([Goal(least, factor_peer, PEER)] if factor_peer else [])


def tcp_rows():
    for op in ("write", "read"):
        for streams in (1, 4):
            yield Row(f"tcp-4m-{streams}-{op}", f"tcp {op}, 4 MiB, {streams} stream{'s' * (streams > 1)}", "GB/s",
                      [ours("gbytes_per_s", "tcp", op, "4M", threads=streams), iperf3(streams)], bounds(0.80))
        yield Row(f"tcp-64k-8-{op}", f"tcp {op}, 64 KiB x 8 per batch", "GB/s",
                  [ours("gbytes_per_s", "tcp", op, "64K", batch=8), iperf3(1)], bounds(0.70))
        yield Row(f"tcp-64k-8-{op}-python", f"tcp {op}, 64 KiB x 8 per batch, from Python", "GB/s",
                  python_all("gbytes_per_s", op=op, size=65536, batch=8), bounds(None, 1.3))
        yield Row(f"tcp-4k-8-{op}", f"tcp {op}, 4 KiB x 8 per batch, p50", "us",
                  [ours("p50_us", "tcp", op, "4K", batch=8)], [Goal(False, 60)])
        yield Row(f"tcp-4k-{op}-python", f"tcp {op}, single 4 KiB from Python, p50", "us",
                  python_all("p50_us", op=op, size=4096, batch=1), bounds(None, 0.8, least=False))
        for size, short in ((4096, "4k"), (65536, "64k")):
            yield Row(f"tcp-threads-{short}-{op}", f"tcp {op}, 4 threads on one engine, {short[:-1]} KiB, from Python", "GB/s",
                      python_all("gbytes_per_s", op=op, size=size, batch=1, threads=4), bounds(None, 2.5))


def slice_rows():
    yield Row("tcp-slices", "tcp write, 500 MB as 270,000 slices beside 500", "s",
              [slices("ours", 1850, 270_000, True), slices("500 slices", 999_000, 500, True)], [Goal(False, 3, "500 slices")])
    yield Row("tcp-slices-adjacent", "the same, slices that lie side by side at both ends", "s",
              [slices("ours", 1850, 270_000, False), slices("500 slices", 999_000, 500, False)], [Goal(False, 3, "500 slices")])


def host_rows():
    for op in ("read", "write"):
        yield Row(f"host-4k-{op}", f"one host {op}, 4 KiB, p50", "us", [ours("p50_us", "auto", op, "4K")], [Goal(False, 15)])
        for size, factor in (("64K", 0.5), ("1M", 0.8), ("16M", 0.8)):
            yield Row(f"host-{size.lower()}-{op}", f"one host {op}, {size[:-1]} {size[-1]}iB", "GB/s",
                      [ours("gbytes_per_s", "auto", op, size)], [Goal(True, factor, "memcpy")])


def million_rows():
    for way in ("tcp", "auto"):
        yield Row(f"million-{way}", f"10^6 transfers of 64 KiB ({way}): connections; growth of memory after a tenth", "",
                  [million(way == "tcp")], [Goal(False, 64), Goal(False, 1.02, of="growth")], rounds=1)


ROWS = [*tcp_rows(), *slice_rows(), *host_rows(), *million_rows()]
