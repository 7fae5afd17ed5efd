#!/usr/bin/env python3
"""standalone.py - goal: engines without memory of their own work beside a mooncake_client, which outlives them and may itself be
killed and come back. Method: the programs themselves, and clients of this process."""
import ctypes
import os
import signal
import subprocess

from cluster import MIB, Master, Memory, Process, equal, run, wait_for
from mooncake.store import MooncakeDistributedStore, MooncakeHostMemAllocator


class Standalone(Process):
    def __init__(self, master, *flags, port=0):
        super().__init__(os.environ["MOONCAKE_CLIENT"], f"--port={port}", "--http_port=0", "--master_server_address", master.address, *flags)
        words = dict(word.split("=") for word in self.line().split()[1:])
        self.address, self.admin, self.segment = words["client"], words["admin"], words["segment"]


def dummy(address, pool=16 * MIB):
    store = MooncakeDistributedStore()
    equal(store.setup_dummy(pool, 16 * MIB, address), 0)
    return store


def test_sglang_standalone():
    """Memory from the host allocator, setup_dummy, then as ever; a second engine finds what the first has left."""
    with Master() as master, Standalone(master, "--global_segment_size", "256MB", "--local_buffer_size=0") as client:
        allocator = MooncakeHostMemAllocator()
        pool = allocator.alloc(8 * MIB)
        store = dummy(client.address)
        equal(store.health_check(), 0)
        equal(store.register_buffer(pool, 8 * MIB), 0)
        memory = Memory(4 * MIB)
        memory.write(0, os.urandom(4 * MIB))
        equal(store.put("warm", memory.read(0, 4096)), 0)
        equal(store.get("warm"), memory.read(0, 4096))
        equal(store.batch_put_from(["a", "b"], [memory.at(0), memory.at(MIB)], [MIB, 3 * MIB]), [0, 0])
        store.close()
        other = dummy(client.address)
        equal(other.batch_is_exist(["a", "b", "c"]), [1, 1, 0])
        equal(other.batch_get_into(["b"], [pool], [8 * MIB]), [3 * MIB])
        equal(ctypes.string_at(pool, 3 * MIB), memory.read(MIB, 3 * MIB))
        equal(master.http("/get_all_segments"), (200, client.segment + "\n"))
        first, second = other.alloc_from_mem_pool(MIB + 1), other.alloc_from_mem_pool(MIB)
        assert first and second >= first + MIB + 1 and first % 4096 == 0
        equal(other.alloc_from_mem_pool(16 * MIB), 0)
        ctypes.memset(first, 7, MIB)
        equal((other.put_from("p", first, MIB), other.get("p") == bytes([7]) * MIB), (0, True))
        other.close()
        equal(other.alloc_from_mem_pool(1), 0)
        allocator.free(pool)


def test_it_is_killed_and_comes_back():
    with Master() as master:
        with Standalone(master, "--global_segment_size=64MB") as client:
            store = dummy(client.address)
            equal(store.put("k", bytes(MIB)), 0)
            equal(client_http(master, client, "/health")[0], 200)
            client.send(signal.SIGKILL)
            wait_for("the miss", lambda: store.is_exist("k") == 0)
            equal(wait_for("no room", lambda: store.put("l", b"v")), -200)
        port = int(client.address.rsplit(":", 1)[1])
        with Standalone(master, "--global_segment_size=64MB", port=port) as back:
            wait_for("its memory", lambda: store.put("l", b"v") == 0)
            equal((store.get("l"), dummy(back.address).get("l")), (b"v", b"v"))
            equal(back.end(), 0)  # SIGTERM
        store.close()


def client_http(master, client, path):
    return master.http(path, at=client.admin)


def test_refusals():
    program = os.environ["MOONCAKE_CLIENT"]
    store = MooncakeDistributedStore()
    os.environ["MC_RPC_CONNECT_TIMEOUT_MS"] = "200"
    equal((store.setup_dummy(MIB, MIB, "127.0.0.1:1"), store.setup_dummy(MIB, MIB, "not an address:x")), (-900, -600))
    with Master() as master:
        equal(store.setup_dummy(MIB, MIB, master.address), -900)  # somebody else lives there
        equal(store.setup_dummy(MIB, MIB, master.admin), -900)
        equal(store.put("k", b"v"), -600)
        for flags, word in ((["--enable_offload"], "not there yet"), (["--host=0.0.0.0"], "every interface"), (["--protocl=tcp"], "protocol"),
                            (["--global_segment_size=lots"], "expected bytes")):
            done = subprocess.run([program, *flags], check=False, capture_output=True, text=True, timeout=20)
            equal((done.returncode, word in done.stderr), (2, True))
        done = subprocess.run([program, "--port=0", "--http_port=0", "--master_server_address=127.0.0.1:1"], check=False, capture_output=True,
                              text=True, timeout=20)
        equal((done.returncode, "peer down" in done.stderr), (1, True))
    del os.environ["MC_RPC_CONNECT_TIMEOUT_MS"]
    store_of_nobody = MooncakeDistributedStore()
    equal(store_of_nobody.alloc_from_mem_pool(1), 0)


if __name__ == "__main__":
    run(globals())
