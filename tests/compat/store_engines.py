#!/usr/bin/env python3
"""store_engines.py - goal: the call sequences of the engines that use the Store run as they are written there, with the return values
those engines test for. Method: each sequence re-enacted from consumers.md with ctypes buffers in place of tensors: sub-range
addresses, odd alignment, config objects that are changed after the call, calls that nobody waits for any more."""
import asyncio
import ctypes
import os
import threading

from cluster import MIB, Client, Master, Memory, equal, run, store_of, wait_for
from mooncake.engine import TransferEngine
from mooncake.store import MooncakeDistributedStore, MooncakeHostMemAllocator, ReplicateConfig


def filled(memory, seed):
    memory.write(0, (bytes([seed]) + os.urandom(4093)) * (memory.size // 4094))
    return memory


# ---- vLLM's MooncakeStoreConnector ----

def test_vllm_store_connector():
    """One storage per layer, keys per block, K and V of each layer as pieces; a second instance loads what the first saved."""
    layers, blocks, piece = 6, 32, 3 * 1024 + 16
    prefix = "vllm@model@tp_rank:0@pcp0@dcp0@pp_rank:0@group:0@"
    keys = [prefix + f"{i:064x}" for i in range(blocks)]
    with Master() as master:
        saver, loader = store_of(master, segment=256 * MIB), store_of(master, segment=256 * MIB)
        storages = [filled(Memory(2 * blocks * piece), i) for i in range(layers)]
        targets = [Memory(2 * blocks * piece) for _ in range(layers)]
        for store, memories in ((saver, storages), (loader, targets)):
            for memory in memories:
                equal(store.register_buffer(memory.address, memory.size), 0)

        def pieces(memories, block):
            return [memory.at((2 * block + half) * piece) for memory in memories for half in (0, 1)]

        config = ReplicateConfig()  # one object for all puts, changed before each
        config.preferred_segment = saver.get_hostname()
        equal(saver.batch_is_exist(keys), [0] * blocks)
        for start in range(0, blocks, 8):
            part = keys[start:start + 8]
            config.group_ids = [f"vllm-mooncake-store:model@{key[-64:]}" for key in part]
            results = saver.batch_put_from_multi_buffers(part, [pieces(storages, start + i) for i in range(8)],
                                                         [[piece] * 2 * layers] * 8, config)
            equal([key for key, result in zip(part, results) if result < 0], [])
        config.group_ids = None
        exists = loader.batch_is_exist(keys + [prefix + "f" * 64])
        equal(exists, [1] * blocks + [0])
        results = loader.batch_get_into_multi_buffers(keys, [pieces(targets, i) for i in range(blocks)], [[piece] * 2 * layers] * blocks)
        equal(results, [2 * layers * piece] * blocks)
        for source, target in zip(storages, targets):
            assert source.read(0, source.size) == target.read(0, target.size)
        descriptors = loader.batch_get_replica_desc(keys)
        assert all(row.is_memory_replica() for key in keys for row in descriptors[key])
        assert loader.batch_get_into_multi_buffers(["gone"], [[targets[0].at(0)]], [[piece]])[0] < 0
        equal(saver.remove_all(force=True), blocks)  # /reset_prefix_cache
        equal((saver.close(), loader.close()), (0, 0))


def test_vllm_pressure():
    """A full Store is -200 until there is room: with hard pins nothing else may go."""
    with Master() as master:
        store = store_of(master, segment=16 * MIB)
        memory = Memory(MIB)
        config = ReplicateConfig()
        config.with_hard_pin = True
        codes = store.batch_put_from_multi_buffers([f"k{i}" for i in range(20)], [[memory.at(0)]] * 20, [[MIB]] * 20, config)
        full = [code for code in codes if code != 0]
        assert full and set(full) == {-200}, codes
        kept = codes.count(0)
        equal(sum(store.batch_is_exist([f"k{i}" for i in range(20)])), kept)
        equal(store.batch_remove(["k0"], force=True), [0])
        equal(store.batch_put_from_multi_buffers(["again"], [[memory.at(0)]], [[MIB]], config), [0])
        store.close()


# ---- SGLang HiCache ----

def test_sglang_hicache():
    """warmup(), a host pool of pages, K and V keys, prefetch and backup threads at once, clear()."""
    with Master() as master:
        equal(master.http("/get_all_segments"), (200, ""))
        store = MooncakeDistributedStore()
        transfer_engine = None
        equal(store.setup("localhost", "P2PHANDSHAKE", 256 * MIB, 16 * MIB, "tcp", "", master.address, transfer_engine, **{"tenant_id": "default"}), 0)
        assert wait_for("check_server()", lambda: master.http("/get_all_segments")[1].strip()) == store.get_hostname()
        warm = os.urandom(4096)
        equal((store.put("sglang_mooncake_store_warmup_key", warm), store.is_exist("sglang_mooncake_store_warmup_key")), (0, 1))
        equal(store.get("sglang_mooncake_store_warmup_key"), warm)
        allocator, pages, page = MooncakeHostMemAllocator(), 64, 49152
        pool = allocator.alloc(4 * pages * page)
        equal(store.register_buffer(pool, 4 * pages * page), 0)
        ctypes.memmove(pool, os.urandom(2 * pages * page), 2 * pages * page)
        keys = [f"sgl_{i:040x}_0_{half}" for i in range(pages) for half in "kv"]
        problems = []

        def backup(first, last):
            chosen = range(2 * first, 2 * last)
            results = store.batch_put_from([keys[i] for i in chosen], [pool + i * page for i in chosen], [page] * len(chosen))
            problems.extend(result for result in results if result != 0)

        def prefetch(first, last):
            chosen = range(2 * first, 2 * last)
            wait_for("the backup", lambda: store.batch_is_exist([keys[i] for i in chosen]) == [1] * len(chosen))
            results = store.batch_get_into([keys[i] for i in chosen], [pool + (2 * pages + i) * page for i in chosen], [page] * len(chosen))
            problems.extend(result for result in results if not result > 0)

        threads = [threading.Thread(target=work, args=(i, i + 16)) for i in range(0, pages, 16) for work in (backup, prefetch)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        equal(problems, [])
        equal(ctypes.string_at(pool + 2 * pages * page, 2 * pages * page), ctypes.string_at(pool, 2 * pages * page))
        equal(store.batch_put_from_multi_buffers(["emb_1"], [[pool, pool + 7]], [[100, 13]]), [0])  # the embedding store: no config
        equal(store.batch_get_into_multi_buffers(["emb_1"], [[pool + 500, pool + 777]], [[60, 53]]), [113])
        assert store.remove_all() == 0  # no force: everything is promised to somebody
        equal(store.batch_put_from([keys[0]], [pool], [page]), [0])  # put again: success
        store.close()
        allocator.free(pool)


# ---- LMCache ----

def test_lmcache():
    """put_parts of metadata and a memoryview, batch forms with a config, get_buffer objects, and callers that give up after a second
    while the call goes on, then unregister and free."""
    with Master() as master, Client(master) as owner:
        store = store_of(master, segment=0)
        config = ReplicateConfig()
        config.replica_num = 1
        config.preferred_segment = store.get_hostname()  # names no segment here: passed over
        metadata, tensor = os.urandom(28), bytearray(os.urandom(300001))
        equal(store.put_parts("lm@1", metadata, memoryview(tensor), config=config), 0)
        equal((bool(store.is_exist("lm@1")), bool(store.is_exist("lm@2"))), (True, False))
        views = store.batch_get_buffer(["lm@1", "lm@2"])
        equal((bytes(memoryview(views[0])[:28]), bytes(memoryview(views[0])[28:]), views[1]), (metadata, bytes(tensor), None))
        pool = Memory(8 * MIB)
        equal(store.register_buffer(pool.address, pool.size), 0)
        pool.write(0, bytes(tensor))
        equal((store.put_from("lm@3", pool.at(0), 1000, config), store.batch_put_from(["lm@4"], [pool.at(1)], [3333], config)), (0, [0]))
        equal(store.batch_get_into(["lm@3", "lm@4", "lm@5"], [pool.at(MIB), pool.at(2 * MIB), pool.at(3 * MIB)], [4000] * 3), [1000, 3333, -704])

        async def give_up():
            owner.send(19)  # SIGSTOP: what it holds cannot be had
            call = asyncio.to_thread(store.batch_get_into, ["lm@3"] * 4, [pool.at(i * MIB) for i in range(4)], [4000] * 4)
            try:
                await asyncio.wait_for(call, 0.05)
                return False
            except asyncio.TimeoutError:
                return True

        # What was read in the moment before the owner is missed, or a miss: either way the buffer is ours again after unregister.
        asyncio.run(give_up())
        equal(store.unregister_buffer(pool.address), 0)
        before = pool.read(0, pool.size)
        owner.send(18)  # SIGCONT
        wait_for("the owner to be back", lambda: store.get("lm@1"))
        equal(pool.read(0, pool.size), before)
        store.close()


# ---- TorchSpec and TransferQueue (verl) ----

def test_torchspec():
    with Master("--enable_http_metadata_server=true", "--http_metadata_server_host", "127.0.0.1", "--default_kv_lease_ttl", "300") as master:
        store = MooncakeDistributedStore()
        result = store.setup(local_hostname="localhost", metadata_server=f"http://{master.metadata}/metadata", global_segment_size=64 * MIB,
                             local_buffer_size=16 * MIB, protocol="tcp", rdma_devices="", master_server_addr=master.address)
        assert result is None or result == 0
        config = ReplicateConfig()
        if hasattr(config, "with_hard_pin"):
            config.with_hard_pin = True
        memory = filled(Memory(4 * MIB), 3)
        equal(store.register_buffer(memory.address, memory.size), 0)
        keys = [f"eagle/{i}" for i in range(16)]
        equal(store.batch_put_from(keys, [memory.at(i * 100003) for i in range(16)], [100003] * 16, config=config), [0] * 16)
        equal(store.is_exist(keys[3]), 1)
        got = store.batch_get_into(keys, [memory.at(2 * MIB + i * 100003) for i in range(16)], [100003] * 16)
        equal([size for size in got if size < 0], [])
        equal(memory.read(2 * MIB, 16 * 100003), memory.read(0, 16 * 100003))
        handle = store.batch_get_buffer(keys[:1])[0]
        equal(ctypes.string_at(handle.ptr(), handle.size()), memory.read(0, 100003))
        assert all(code in (None, 0, -704) for code in store.batch_remove(keys + ["none"], force=True))
        equal((store.remove(keys[0]), store.close()), (-704, 0))


def test_transfer_queue():
    """Four threads register, upsert, read and unregister host memory that comes and goes at the same addresses; 400 keys a batch."""
    with Master() as master:
        store = store_of(master, segment=256 * MIB)
        config = ReplicateConfig()
        config.with_hard_pin = True
        problems = []

        def work(number):
            for round_ in range(3):
                memory = Memory(400 * 1000 + 1)
                data = bytes([16 * number + round_ + 1]) * 400000
                memory.write(1, data)
                store.register_buffer(memory.at(1), 400000)
                keys = [f"tq/{number}/{i}" for i in range(400)]
                results = store.batch_upsert_from(keys, [memory.at(1 + 1000 * i) for i in range(400)], [1000] * 400, config=config)
                if len(results) != 400 or any(result != 0 for result in results):
                    problems.append(("upsert", set(results)))
                memory.write(1, bytes(400000))
                got = store.batch_get_into(keys, [memory.at(1 + 1000 * i) for i in range(400)], [1000] * 400)
                if got != [1000] * 400 or memory.read(1, 400000) != data:
                    problems.append(("get", set(got)))
                store.unregister_buffer(memory.at(1))
            codes = store.batch_remove(keys, force=True)
            if any(code not in (0, -704) for code in codes):
                problems.append(("remove", set(codes)))

        threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        equal(problems, [])
        store.close()


def test_vllm_omni():
    with Master() as master:
        store, reader = store_of(master), store_of(master, segment=0)
        config = ReplicateConfig()
        config.with_soft_pin = True  # an AttributeError with the existing one since 0.3.12
        store.put("stage/0", b"payload", config)
        equal(wait_for("the payload", lambda: reader.get("stage/0"), 5), b"payload")
        store.close()
        reader.close()


def test_vllm_ascend():
    """Keywords only, an engine's host:port as name, buffers registered with that engine and not with the store."""
    with Master() as master:
        engine = TransferEngine()
        equal(engine.initialize("127.0.0.1", "P2PHANDSHAKE", "tcp", ""), 0)
        name = f"127.0.0.1:{engine.get_rpc_port()}"  # the engine listens there: the segment of that name does elsewhere
        store = MooncakeDistributedStore()
        equal(store.setup(local_hostname=name, metadata_server="P2PHANDSHAKE", global_segment_size=64 * MIB, local_buffer_size=16 * MIB,
                          protocol="tcp", rdma_devices="", master_server_addr=master.address, engine=engine.get_engine()), 0)
        equal(store.get_hostname(), name)
        memory = filled(Memory(MIB), 9)
        equal(engine.register_memory(memory.address, memory.size), 0)
        config = ReplicateConfig()
        config.preferred_segment = name
        config.prefer_alloc_in_same_node = True
        equal(store.batch_put_from_multi_buffers(["a"], [[memory.at(3), memory.at(1001)]], [[500, 7]], config), [0])
        equal(store.batch_get_into_multi_buffers(["a"], [[memory.at(5000)]], [[507]], True), [507])
        equal(memory.read(5000, 507), memory.read(3, 500) + memory.read(1001, 7))
        equal(engine.unregister_memory(memory.address), 0)
        scheduler = store_of(master, name, segment=0, buffer=0)
        equal(scheduler.batch_is_exist(["a", "b"]), [1, 0])
        scheduler.close()
        store.close()


if __name__ == "__main__":
    run(globals())
