#!/usr/bin/env python3
"""modules.py - goal: what stands on mooncake.store in pure Python does what the existing modules do: BufferPool, async_store,
mooncake_config, the REST service; and importing any of them needs no master and works in every order. Method: a real master; subprocesses for imports."""
import asyncio
import gc
import importlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time

from cluster import MIB, Master, Process, equal, raises, run, store_of
import mooncake
from mooncake import BufferPool
from mooncake.async_store import MooncakeDistributedStoreAsync
from mooncake.mooncake_config import MooncakeConfig
from mooncake.store import MooncakeDistributedStore


def test_imports():
    """In both orders, each alone; nothing is dialled and no thread is made."""
    modules = ["mooncake.store", "mooncake.async_store", "mooncake.buffer_pool", "mooncake.mooncake_config", "mooncake.mooncake_store_service", "mooncake"]
    for names in (modules, modules[::-1], *([name] for name in modules)):
        code = "".join(f"import {name}\n" for name in names) + "import threading, os; print(len(os.listdir('/proc/self/task')))"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=30)
        equal((done.returncode, done.stdout, done.stderr), (0, "1\n", ""))


def test_absent_modules():
    """What is for GPUs is not there as a name either: engines test for an ImportError. Structured objects are named when they are asked for."""
    for name in ("shared_segment", "allocator", "pg", "mooncake_ep_buffer"):
        raises(ImportError, importlib.import_module, f"mooncake.{name}")
    structured = importlib.import_module("mooncake.structured_object_store")
    assert "MooncakeBundleTransfer" in raises(NotImplementedError, lambda: structured.MooncakeBundleTransfer)
    assert not [name for _, _, names in os.walk(os.path.dirname(mooncake.__file__)) for name in names if name.endswith((".h", ".hpp"))]


def test_pool_lends_and_takes_back():
    with Master() as master:
        store = store_of(master)
        raises(RuntimeError, BufferPool, MooncakeDistributedStore())
        raises(RuntimeError, BufferPool, None)
        pool = BufferPool(store, max_bytes=4 * MIB, alignment=64, block_on_exhaustion=False)
        with pool.acquire(1000) as lease:
            equal((lease.size, lease.ptr % 64, len(lease.buffer)), (1000, 0, 1000))
            lease.buffer[:5] = b"hello"
            equal((store.put_from("k", lease.ptr, 5), store.get("k")), (0, b"hello"))
            equal(store.get_into("k", lease.ptr + 500, 500), 5)
            equal(bytes(lease.buffer[500:505]), b"hello")
        equal(lease.release(), None)
        assert "closed" in raises(RuntimeError, lambda: lease.ptr)
        leases = [pool.acquire(65536) for _ in range(64)]
        assert "exhausted" in raises(RuntimeError, pool.acquire, 1)
        assert "capacity" in raises(RuntimeError, pool.acquire, 1 << 60)
        assert "capacity" in raises(RuntimeError, pool.acquire, 5 * MIB)
        raises(TypeError, pool.acquire, -1)
        del leases[:]  # the destructor gives back
        gc.collect()
        with pool.acquire(4 * MIB):  # and idle ones of another size make room
            pass
        lease = pool.acquire(10)
        view = lease.buffer
        assert "views exist" in raises(RuntimeError, lease.release)
        assert "active leases" in raises(RuntimeError, pool.close)
        del lease
        gc.collect()
        view[:2] = b"ok"  # still there
        assert "active leases" in raises(RuntimeError, pool.close)
        view.release()
        del view
        gc.collect()
        equal((pool.close(), pool.close()), (None, None))
        assert "closed" in raises(RuntimeError, pool.acquire, 1)
        for wrong in ({"alignment": 3}, {"alignment": 0}, {"min_size_class": 0}):
            raises(RuntimeError, BufferPool, store, **wrong)
        store.close()


def test_pool_waits():
    with Master() as master:
        store = store_of(master, segment=0)
        pool = BufferPool(store, max_bytes=65536, alignment=64, prewarm_size=65536, prewarm_count=1)
        lease = pool.acquire(100)
        assert "timed out" in raises(RuntimeError, pool.acquire, 1, timeout=0.05)
        assert "exhausted" in raises(RuntimeError, pool.acquire, 1, block=False)
        got = []
        waiter = threading.Thread(target=lambda: got.append(pool.acquire(1)))
        waiter.start()
        time.sleep(0.01)  # in wait, most likely; the outcome is the same if not
        lease.release()
        waiter.join(10)
        equal(len(got), 1)
        got[0].release()
        wrong = []

        def borrow(number):
            for _ in range(50):
                with pool.acquire(64) as mine:
                    mine.buffer[:] = bytes([number]) * 64
                    if bytes(mine.buffer) != bytes([number]) * 64:
                        wrong.append(number)

        threads = [threading.Thread(target=borrow, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        equal(wrong, [])
        pool.close()
        store.close()


def test_async_store():
    async def use(master):
        store = MooncakeDistributedStoreAsync()
        equal(await store.async_setup("localhost", "P2PHANDSHAKE", 64 * MIB, MIB, "tcp", "", master.address), 0)
        results = await asyncio.gather(*(store.async_put(f"k{i}", bytes([i])) for i in range(50)))
        equal(results, [0] * 50)
        equal(await asyncio.gather(*(store.async_get(key=f"k{i}") for i in range(50))), [bytes([i]) for i in range(50)])
        equal((store.get("k1"), await store.async_batch_is_exist(["k1", "none"])), (b"\1", [1, 0]))
        raises(AttributeError, lambda: store.async_no_such_call)
        raises(AttributeError, lambda: store.no_such_call)
        equal(await store.async_close(), 0)

    with Master() as master:
        asyncio.run(use(master))


def test_config():
    saved = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("MOONCAKE_") and name != "MOONCAKE_LOG"}
    try:
        assert "MOONCAKE_MASTER" in raises(ValueError, MooncakeConfig.load_from_env)
        os.environ["MOONCAKE_MASTER"] = "m:1"
        config = MooncakeConfig.load_from_env()
        equal((config.local_hostname, config.metadata_server, config.global_segment_size, config.local_buffer_size, config.protocol,
               config.master_server_address, config.tenant_id), ("localhost", "P2PHANDSHAKE", 3355443200, 1 << 30, "tcp", "m:1", "default"))
        os.environ["MOONCAKE_GLOBAL_SEGMENT_SIZE"] = "4 GB"
        equal(MooncakeConfig.load_from_env().global_segment_size, 4 << 30)
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "config.json")
            for settings, result in (({"local_hostname": "h", "metadata_server": "P2PHANDSHAKE", "master_server_address": "a:1",
                                       "local_buffer_size": "512MB", "enable_ssd_offload": "true"}, (512 * MIB, True)),
                                     ({"metadata_server": "P2PHANDSHAKE"}, None)):
                with open(path, "w", encoding="utf-8") as file:
                    json.dump(settings, file)
                if result:
                    config = MooncakeConfig.from_file(path)
                    equal((config.local_buffer_size, config.enable_ssd_offload), result)
                else:
                    assert "local_hostname" in raises(ValueError, MooncakeConfig.from_file, path)
            os.environ["MOONCAKE_CONFIG_PATH"] = path
            assert "local_hostname" in raises(ValueError, MooncakeConfig.load_from_env)
    finally:
        for name in ("MOONCAKE_MASTER", "MOONCAKE_GLOBAL_SEGMENT_SIZE", "MOONCAKE_CONFIG_PATH"):
            os.environ.pop(name, None)
        os.environ.update(saved)


def test_rest_service():
    with Master() as master, tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "config.json")
        with open(path, "w", encoding="utf-8") as file:
            json.dump({"local_hostname": "localhost", "metadata_server": "P2PHANDSHAKE", "master_server_address": master.address,
                       "global_segment_size": "64MB", "local_buffer_size": "16MB"}, file)
        command = [sys.executable, "-m", "mooncake.mooncake_store_service", "--config", path, "--port=0", "-Dtenant_id=rest"]
        with Process(*command, stderr=subprocess.DEVNULL) as service:
            at = dict(word.split("=") for word in service.line().split()[1:])["http"]

            def ask(path, method="GET", body=None):
                return master.http(path, method, body, at)

            equal(ask("/api/put", "PUT", b'{"key": "a/b c", "value": "hello"}'), (200, '{"status": "success"}'))
            equal((ask("/api/get/a%2Fb%20c"), ask("/api/get/a/b c".replace(" ", "%20"))), ((200, "hello"),) * 2)
            equal(ask("/api/put", "PUT", b'{"key": "a"}'), (400, '{"error": "Missing key or value"}'))
            equal((ask("/api/put", "PUT", b"notjson")[0], ask("/api/put", "PUT", b"[1]")[0]), (500, 400))
            equal(ask("/api/get/none"), (404, '{"error": "Key not found"}'))
            equal((ask("/api/exist/a%2Fb%20c"), ask("/api/exist/none")), ((200, '{"exists": true}'), (200, '{"exists": false}')))
            equal(ask("/api/remove/none", "DELETE"), (500, '{"error": "Remove operation failed"}'))
            equal(ask("/api/remove_all", "DELETE"), (200, '{"status": "success removed 0 keys"}'))  # it is promised to somebody
            code, text = ask("/api/mount", "POST", b'{"size": 16777216}')
            ids = json.loads(text)["segment_ids"]
            equal((code, len(ids), ask("/api/mount", "POST", b"{}")[0], ask("/api/unmount", "POST", b"{}")[0]), (200, 1, 400, 400))
            equal(ask("/api/unmount", "POST", json.dumps({"segment_ids": ids}).encode()), (200, '{"status": "success"}'))
            equal(ask("/api/unmount", "POST", json.dumps({"segment_ids": ids[0]}).encode()), (500, '{"error": "Unmount and free failed, ret=-1"}'))
            with tempfile.NamedTemporaryFile(dir="/dev/shm") as shared:
                shared.truncate(8 << 20)
                asked = {"name": os.path.basename(shared.name), "size": 8 << 20}
                code, text = ask("/api/mount_shm", "POST", json.dumps(asked).encode())
                equal((code, ask("/api/mount_shm", "POST", json.dumps({**asked, "name": "../x"}).encode())[0]), (200, 400))
                equal(ask("/api/mount_shm", "POST", json.dumps(asked).encode()), (500, '{"error": "Mount failed, ret=-1"}'))  # once
                equal(ask("/api/unmount_shm", "POST", text.encode()), (200, '{"status": "success"}'))
            equal((ask("/api/reconfigure", "POST", b"{}")[0], ask("/nothing")[0], ask("/api/get/")[0]), (501, 404, 404))
            equal(store_of(master, tenant_id="rest").get("a/b c"), b"hello")
            equal(service.end(), 0)
        os.environ["MC_RPC_CONNECT_TIMEOUT_MS"] = "100"
        done = subprocess.run([*command, "-Dmaster_server_address=127.0.0.1:1", "--max-wait-time=0.2"], check=False, timeout=20, capture_output=True)
        del os.environ["MC_RPC_CONNECT_TIMEOUT_MS"]
        equal(done.returncode, 1)


if __name__ == "__main__":
    run(globals())
