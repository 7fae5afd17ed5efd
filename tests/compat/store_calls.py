#!/usr/bin/env python3
"""store_calls.py - goal: every call of mooncake.store that is there returns what the contract lists, and what is not there says so.
Method: a real mooncake_master, clients of this process and others, buffers with addresses; results are compared as they are."""
import inspect
import os
import subprocess
import sys
import tempfile
import threading
import time
import zlib

import cluster
from cluster import MIB, Client, Master, Memory, equal, raises, run, store_of, wait_for
from mooncake import store as module
from mooncake.store import MooncakeDistributedStore, MooncakeHostMemAllocator, ReplicateConfig, bind_to_numa_node


def test_signatures_and_probes():
    names = list(inspect.signature(MooncakeDistributedStore.setup).parameters)
    equal(names[1:8], ["local_hostname", "metadata_server", "global_segment_size", "local_buffer_size", "protocol", "rdma_devices",
                       "master_server_addr"])
    assert "enable_ssd_offload" in names and "engine" in MooncakeDistributedStore.setup.__doc__
    assert "force" in MooncakeDistributedStore.batch_remove.__doc__
    for name in ("group_ids", "with_hard_pin", "with_soft_pin", "soft_pin_action", "preferred_segment"):
        assert hasattr(ReplicateConfig, name) and hasattr(ReplicateConfig(), name), name
    for name in dir(MooncakeDistributedStore):
        method = getattr(MooncakeDistributedStore, name)
        if not name.startswith("_"):
            assert method.__doc__.startswith(name + "("), name
            inspect.signature(method)
    import mooncake
    assert mooncake.ReplicateConfig is ReplicateConfig


# The methods of the existing class, and the names of its module.
METHODS = """setup setup_dummy init_all close health_check get_hostname put put_parts put_batch get get_batch get_buffer batch_get_buffer is_exist
    batch_is_exist get_size remove remove_by_regex remove_all batch_remove upsert upsert_parts upsert_batch register_buffer unregister_buffer
    put_from upsert_from put_from_with_metadata batch_put_from batch_upsert_from get_into batch_get_into get_into_ranges
    batch_put_from_multi_buffers batch_get_into_multi_buffers batch_get_session_start batch_get_into_multi_buffer_ranges
    batch_get_session_end batch_put_session_start batch_put_from_multi_buffer_ranges batch_put_session_end batch_put_session_revoke
    alloc_from_mem_pool get_replica_desc batch_get_replica_desc batch_replica_clear create_copy_task create_move_task query_task
    mount_segment unmount_segment allocate_and_mount_segment unmount_and_free_segment unmount_local_disk_segment
    get_offload_rpc_read_count put_tensor get_tensor batch_put_tensor batch_get_tensor pub_tensor batch_pub_tensor upsert_tensor
    batch_upsert_tensor upsert_pub_tensor batch_upsert_pub_tensor get_tensor_into batch_get_tensor_into put_tensor_from
    batch_put_tensor_from upsert_tensor_from batch_upsert_tensor_from get_tensor_into_cuda batch_get_tensor_into_cuda put_tensor_with_tp
    get_tensor_with_tp batch_put_tensor_with_tp batch_get_tensor_with_tp pub_tensor_with_tp batch_pub_tensor_with_tp
    put_tensor_with_parallelism get_tensor_with_parallelism save_tensor_to_safetensor load_tensor_from_safetensor""".split()
NAMES = """ReplicateConfig ObjectDataType SoftPinAction ReplicaStatus TaskType TaskStatus QueryTaskResponse BufferHandle ParallelAxis
    TensorParallelism ReadTarget MooncakeHostMemAllocator bind_to_numa_node""".split()


def test_every_name_is_there():
    equal([name for name in METHODS if not callable(getattr(MooncakeDistributedStore, name, None))], [])
    equal([name for name in NAMES if not hasattr(module, name)], [])
    for kind, names in ((module.ObjectDataType, "UNKNOWN KVCACHE TENSOR WEIGHT SAMPLE ACTIVATION GRADIENT OPTIMIZER_STATE METADATA GENERAL"),
                        (module.ReplicaStatus, "UNDEFINED INITIALIZED PROCESSING COMPLETE REMOVED FAILED"),
                        (module.TaskType, "REPLICA_COPY REPLICA_MOVE"), (module.TaskStatus, "PENDING PROCESSING SUCCESS FAILED"),
                        (module.SoftPinAction, "PRESERVE ENABLE DISABLE")):
        equal([name for name in names.split() if not hasattr(kind, name)], [])


def test_type_errors_name_the_argument():
    store = MooncakeDistributedStore()
    assert "foo" in raises(TypeError, store.setup, "h", "m", 0, 0, "tcp", "", "a", foo=1)
    assert "conf" in raises(TypeError, store.put, "k", b"v", conf=1)
    assert "conf" in raises(TypeError, store.put_parts, "k", b"v", conf=1)
    assert "config" in raises(TypeError, store.put, "k", b"v", 7)
    assert "value" in raises(TypeError, store.put, "k", "text")
    assert "key" in raises(TypeError, store.get, 7)
    assert "keys" in raises(TypeError, store.batch_is_exist, "a string is no list")
    assert "sizes" in raises(TypeError, store.batch_put_from, ["k"], [1], [1.0])
    assert "buffer_ptrs" in raises(TypeError, store.batch_get_into, ["k"], [-1], [1])
    assert "all_sizes" in raises(TypeError, store.batch_put_from_multi_buffers, ["k"], [[1]], [1])
    assert "global_segment_size" in raises(TypeError, store.setup, "h", "m", "x", 0, "tcp", "", "a")
    raises(TypeError, MooncakeDistributedStore, 1)
    config = ReplicateConfig()
    raises(TypeError, setattr, config, "preferred_segment", 7)
    raises(TypeError, setattr, config, "replica_num", -1)
    raises(TypeError, setattr, config, "preferred_segments", "abc")
    raises(AttributeError, setattr, config, "no_such_field", 1)


class Index:
    """What numpy's integers are to us: something with __index__."""

    def __init__(self, value):
        self.value = value

    def __index__(self):
        return self.value


def test_never_set_up():
    store = MooncakeDistributedStore()
    memory = Memory(64)
    check_closed(store, memory)
    equal(store.close(), 0)
    check_closed(store, memory)


def check_closed(store, memory):
    """-600 or an empty answer everywhere, and no harm."""
    address = memory.address
    for result in (store.put("k", b"v"), store.put_parts("k", b"v"), store.put_batch(["k"], [b"v"]), store.upsert("k", b"v"),
                   store.put_from("k", address, 1), store.upsert_from("k", address, 1), store.get_into("k", address, 1),
                   store.is_exist("k"), store.get_size("k"), store.remove("k"), store.remove_all(), store.remove_by_regex("k"),
                   store.register_buffer(address, 1), store.unregister_buffer(address)):
        equal(result, -600)
    equal(store.batch_put_from(["k", "l"], [address] * 2, [1, 1]), [-600, -600])
    equal(store.batch_upsert_from(["k"], [address], [1]), [-600])
    equal(store.batch_get_into(["k"], [address], [1]), [-600])
    equal(store.batch_remove(["k"]), [-600])
    equal(store.batch_is_exist(["k"]), [-1])
    equal(store.batch_put_from_multi_buffers(["k"], [[address]], [[1]]), [])
    equal(store.batch_get_into_multi_buffers(["k"], [[address]], [[1]]), [])
    equal((store.get("k"), store.get_batch(["k"]), store.get_buffer("k"), store.batch_get_buffer(["k"])), (b"", [b""], None, [None]))
    equal((store.get_replica_desc("k"), store.batch_get_replica_desc(["k"]), store.batch_replica_clear(["k"])), ([], {}, []))
    equal((store.batch_put_session_start(["k"], [1]), store.batch_get_session_start(["k"])), ([], []))
    equal(store.put_from_with_metadata("k", address, address, 1, 1), -600)
    equal((store.health_check(), store.get_hostname()), (1, ""))


def test_bytes():
    with Master() as master:
        store, other = store_of(master), store_of(master)
        big = os.urandom(5 * MIB + 13)
        equal((store.put("k", b"hello"), store.put("k", b"other"), store.get("k"), other.get("k")), (0, 0, b"hello", b"hello"))
        equal(store.put(key="big", value=memoryview(big), config=ReplicateConfig()), 0)
        for _ in range(3):  # the guess of its size is wrong, then right
            assert other.get("big") == big
        equal(other.get("k"), b"hello")
        equal((store.put("empty", b""), other.is_exist("empty"), other.get_size("empty"), other.get("empty")), (0, 1, 0, b""))
        equal((store.get_size("big"), store.get_size("none"), store.get("none")), (len(big), -704, b""))
        equal((store.put_parts("parts", b"ab", bytearray(b"cd"), memoryview(b"e")), other.get("parts")), (0, b"abcde"))
        equal((store.put_parts("nothing", b"", b""), store.is_exist("nothing")), (0, 0))
        raises(RuntimeError, store.put_parts, "k2", memoryview(bytes(8)).cast("I"))
        equal((store.put("strided", memoryview(b"a-b-c-")[::2]), other.get("strided")), (0, b"abc"))
        equal((store.put_batch(["b1", "b2"], [b"1", b"22"]), other.get_batch(["b1", "none", "b2"])), (0, [b"1", b"", b"22"]))
        equal(store.put_batch(["b1"], [b"1", b"2"]), -600)
        equal((store.upsert("k", b"longer than before"), other.get("k"), other.get_size("k")), (0, b"longer than before", 18))
        equal((store.upsert_parts("k", b"x", b"y"), store.upsert_batch(["b1"], [b"new"]), other.get("k"), other.get("b1")),
              (0, 0, b"xy", b"new"))
        handle = other.get_buffer("big")
        assert len(handle) == handle.size() == len(big) and bytes(handle) == big and handle.ptr() != 0
        handles = other.batch_get_buffer(["k", "none"])
        equal((bytes(memoryview(handles[0])), handles[1]), (b"xy", None))
        equal((store.put("", b"v"), store.put("x" * 1024, b"v"), store.put("x" * 1025, b"v")), (-600, 0, -400))
        equal((store.put("schlüssel 鍵", b"v"), other.get("schlüssel 鍵")), (0, b"v"))
        equal((store.put("large", bytes(17 * MIB)), store.is_exist("large")), (-600, 0))  # local_buffer_size is 16 MiB
        without = store_of(master, segment=0, buffer=0)
        equal((without.put("nb", b"v"), without.is_exist("nb"), without.get("k")), (-600, 0, b"xy"))
        other.close()
        equal(bytes(handle), big)  # a handle owns its bytes
        for client in (store, without):
            client.close()


def test_addresses():
    with Master() as master:
        store, other = store_of(master), store_of(master)
        memory = Memory(4 * MIB)
        memory.write(0, os.urandom(2 * MIB))
        equal(store.register_buffer(memory.address, memory.size), 0)
        equal(store.register_buffer(memory.address, memory.size), -600)
        equal((store.register_buffer(0, 8), store.register_buffer(memory.at(8), 0), store.unregister_buffer(memory.at(8))), (-600,) * 3)
        equal(store.batch_put_from(["a", "b", "c"], (memory.at(1), Index(memory.at(77)), memory.at(MIB)), [7, 100000, MIB]), [0, 0, 0])
        equal(other.batch_get_into(["a", "none", "b", "c"], [memory.at(2 * MIB + i) for i in (0, 50, 100, 200000)],
                                   [7, 50, 199000, 2 * MIB - 200000]), [7, -704, 100000, MIB])
        equal(memory.read(2 * MIB, 7), memory.read(1, 7))
        equal(memory.read(2 * MIB + 100, 100000), memory.read(77, 100000))
        equal(memory.read(2 * MIB + 200000, MIB), memory.read(MIB, MIB))
        equal((store.put_from("d", memory.at(3), 5), store.upsert_from("d", memory.at(4), 6), store.get_into("d", memory.at(9), 6)), (0, 0, 6))
        equal((store.get_into("d", memory.at(9), 5), store.get_into("none", memory.at(9), 5), store.get_into("d", 0, 6)), (-600, -704, -600))
        equal(store.batch_upsert_from(["d", "e"], [memory.at(0)] * 2, [9, 10]), [0, 0])
        equal(store.batch_put_from(["x", "y"], [memory.at(0)], [1]), [-600, -600])
        equal(store.batch_get_into(["x", "y"], [memory.at(0)], [1]), [-600, -600])
        equal((store.batch_put_from([], [], []), store.batch_get_into([], [], []), store.batch_is_exist([]), store.get_batch([])), ([],) * 4)
        equal(store.batch_put_from_multi_buffers(["m", "n"], [[memory.at(0), memory.at(1000)], [memory.at(5)]], [[10, 300000], [0]]), [0, 0])
        equal(other.get_size("m"), 300010)
        equal(other.batch_get_into_multi_buffers(["m", "none"], [[memory.at(2 * MIB), memory.at(3 * MIB)], [memory.at(0)]],
                                                 [[150000, 150010], [9]]), [300010, -704])
        equal(memory.read(2 * MIB, 150000) + memory.read(3 * MIB, 150010), memory.read(0, 10) + memory.read(1000, 300000))
        equal(store.batch_put_from_multi_buffers(["p"], [[memory.at(0)]], [[1, 2]]), [-600])
        equal(store.put_from_with_metadata("w", memory.at(100), memory.at(0), 20, 4), 0)
        equal(store.get("w"), memory.read(0, 4) + memory.read(100, 20))
        equal(store.put_from_with_metadata("", memory.at(100), memory.at(0), 20, 4), 600)  # positive, as the existing one
        equal((store.unregister_buffer(memory.address), store.unregister_buffer(memory.address)), (0, -600))
        store.close()
        other.close()


def test_ranges_and_sessions():
    with Master() as master:
        store = store_of(master)
        memory = Memory(MIB)
        store.register_buffer(memory.address, memory.size)
        store.put("one", bytes(range(100)))
        store.put("two", bytes(range(100, 200)))
        equal(store.get_into_ranges([memory.at(0), memory.at(1000)], [["one", "two"], ["none", "two"]], [[[0, 10], [20]], [[0], [50]]],
                                    [[[1, 90], [3]], [[0], [10]]], [[[4, 3], [5]], [[6], [4]]]), [[[4, 3], [5]], [[-704], [4]]])
        equal((memory.read(0, 4), memory.read(10, 3), memory.read(20, 5)), (bytes(range(1, 5)), bytes(range(90, 93)), bytes(range(103, 108))))
        equal(store.get_into_ranges([memory.at(0)], [["one"]], [[[0, 0]]], [[[98, 0]]], [[[3, 2]]]), [[[-600, 2]]])
        equal(store.get_into_ranges([memory.at(0)], [["one"]], [[[MIB - 1, 0]]], [[[0, 0]]], [[[3, 2]]]), [[[-600, 2]]])
        equal(store.get_into_ranges([memory.at(0)], [["one", "two"]], [[[0], []]], [[[0, 1], []]], [[[1], []]]), [[[-600], []]])
        equal(store.get_into_ranges([memory.at(0)], [["one", "two"]], [[[0]]], [[[0]]], [[[1]]]), [[[-600], [-600]]])
        memory.write(0, os.urandom(3000))
        equal(store.batch_put_session_start(["s", "t"], [3000, 10]), [0, 0])
        assert store.batch_put_session_start(["s"], [3000])[0] < 0  # begun already
        equal(store.batch_put_session_start(["one"], [3000]), [-705])
        equal(store.batch_put_from_multi_buffer_ranges(["s"], [[memory.at(2000)]], [[1000]], [[2000]]), [1000])
        equal(store.is_exist("s"), 0)
        assert store.batch_put_session_end(["t"])[0] < 0  # not whole
        equal(store.batch_put_from_multi_buffer_ranges(["s", "none"], [[memory.at(0)], [memory.at(0)]], [[2000], [1]], [[0], [0]]), [2000, -600])
        equal((store.batch_put_session_end(["s"]), store.get("s") == memory.read(0, 3000)), ([0], True))
        equal((store.batch_put_session_start(["u"], [5]), store.batch_put_session_revoke(["u"]), store.is_exist("u")), ([0], [0], 0))
        equal(store.batch_get_session_start(["s", "none"]), [0, -704])
        equal(store.batch_get_into_multi_buffer_ranges(["s"], [[memory.at(5000), memory.at(6000)]], [[10, 20]], [[100, 2980]]), [30])
        equal((memory.read(5000, 10), memory.read(6000, 20)), (memory.read(100, 10), memory.read(2980, 20)))
        equal(store.batch_get_session_end(["s"]), 0)
        store.close()


def test_promises_and_removal():
    with Master("--default_kv_lease_ttl=400ms") as master:
        store, other = store_of(master), store_of(master)
        for key in ("a", "b", "c"):
            store.put(key, key.encode())
        equal(store.remove("c"), 0)  # a put promises nothing
        equal((store.is_exist("a"), other.get("b")), (1, b"b"))
        equal((other.remove("a"), store.remove("b"), store.batch_remove(["a", "b", "none"])), (-706, -706, [-706, -706, -704]))
        equal((store.remove_by_regex("^[ab]$"), store.remove_all(), store.batch_replica_clear(["a", "none"])), (0, 0, []))
        wait_for("the lease to end", lambda: store.remove("a") == 0)
        wait_for("the lease to end", lambda: store.batch_replica_clear(["b"]) == ["b"])
        equal((store.is_exist("a"), store.get("b"), store.remove("a")), (0, b"", -704))
        store.put_batch([f"r/{i}" for i in range(3000)], [b"x"] * 3000)
        equal(store.remove_by_regex(r"^r/1\d\d$", force=True), 100)
        equal((store.remove_by_regex("(", True), store.remove_by_regex("(a)\\1", True)), (-600, -600))
        equal(store.remove_by_regex("(a+)+$"), 0)
        equal((store.remove_all(force=True), store.remove_all(force=True)), (2900, 0))
        store.close()
        other.close()


def test_one_replica_is_cleared():
    with Master("--default_kv_lease_ttl=200ms") as master:
        stores = [store_of(master) for _ in range(2)]
        first, second = (store.get_hostname() for store in stores)
        reader, config = store_of(master, segment=0), ReplicateConfig()
        config.preferred_segment = second
        wait_for("the first to know the second", lambda: prefers(stores[0], config, second))
        config.preferred_segment, config.replica_num = "", 2
        equal((stores[0].put("k", b"value", config), endpoints(reader, "k")), (0, {first, second}))
        equal((reader.batch_replica_clear(["k"], second), reader.batch_replica_clear(["k"], "nowhere:1")), ([], []))  # promised; unknown
        wait_for("the lease to end", lambda: reader.batch_replica_clear(["none", "k"], second) == ["k"])
        equal((reader.get("k"), endpoints(reader, "k")), (b"value", {first}))
        wait_for("the lease to end", lambda: stores[0].remove("k") != -706)
        equal((stores[0].put("k", b"again", config), reader.get("k")), (0, b"again"))
        wait_for("the lease to end", lambda: reader.batch_replica_clear(["k"], second) == ["k"])
        equal(reader.batch_replica_clear(["k"], second), [])  # there is none any more
        equal(reader.batch_replica_clear(["k"], segment_name=first), ["k"])
        equal((reader.is_exist("k"), reader.get("k")), (0, b""))
        for store in (*stores, reader):
            store.close()


def test_config():
    with Master() as master:
        stores = [store_of(master, f"localhost:{23101 + i}") for i in range(3)]
        names = [store.get_hostname() for store in stores]
        equal(names, ["localhost:23101", "localhost:23102", "localhost:23103"])
        config = ReplicateConfig()
        assert str(config).startswith("ReplicateConfig: { replica_num: 1, "), config
        config.preferred_segment = names[2]
        # The master tells clients of each other's segments; nothing says when that has arrived.
        wait_for("the first to know the third", lambda: prefers(stores[0], config, names[2]))
        config.preferred_segment = names[1]
        wait_for("the first to know the second", lambda: prefers(stores[0], config, names[1]))
        config.preferred_segment = names[2]
        equal((stores[0].put("p", b"v", config), endpoints(stores[0], "p")), (0, {names[2]}))
        config.preferred_segment = ""
        config.preferred_segments = ["nowhere:1", names[1]]
        equal((stores[0].put("q", b"v", config), endpoints(stores[0], "q")), (0, {names[1]}))
        config.preferred_segments = []
        config.replica_num = 3
        equal((stores[0].put("r", b"v", config), endpoints(stores[0], "r")), (0, set(names)))
        config.replica_num = 7  # as many as there are
        equal((stores[0].put("s", bytes(MIB), config), endpoints(stores[0], "s")), (0, set(names)))
        config.replica_num = 0
        equal(stores[0].put("t", b"v", config), -600)
        config.replica_num = 1
        config.prefer_alloc_in_same_node = True
        memory = Memory(16)
        equal(stores[0].put("u", b"v", config), -600)
        equal((stores[1].batch_put_from_multi_buffers(["u"], [[memory.at(0)]], [[16]], config), endpoints(stores[0], "u")), ([0], {names[1]}))
        config = ReplicateConfig()
        config.soft_pin_ttl_ms = 1000
        equal(stores[0].upsert("v", b"v", config), -600)  # PRESERVE with a time
        config.soft_pin_action = module.SoftPinAction.DISABLE
        equal(stores[0].upsert("v", b"v", config), -600)
        config.with_soft_pin = True
        equal((config.soft_pin_action, stores[0].upsert("v", b"v", config)), (module.SoftPinAction.ENABLE, 0))
        config = ReplicateConfig()
        config.group_ids = ["g1", "g2"]
        equal(stores[0].put_batch(["g1", "g2"], [b"1", b"2"], config), 0)
        equal(stores[0].put("g3", b"3", config), -600)  # one id per key
        check_groups(master)
        config.group_ids = []
        equal(stores[0].put("g3", b"3", config), -600)
        config.group_ids = None
        config.nof_replica_num = 1
        assert "nof_replica_num" in raises(NotImplementedError, stores[0].put, "w", b"v", config)
        listed = stores[0].batch_get_replica_desc(["r", "none"])
        equal((list(listed), len(listed["r"]), stores[0].get_replica_desc("none")), (["r"], 3, []))
        descriptor = listed["r"][0]
        assert descriptor.is_memory_replica() and not descriptor.is_disk_replica() and not descriptor.is_local_disk_replica()
        equal(str(descriptor.status), "ReplicaStatus.COMPLETE")
        equal((descriptor.status, descriptor.get_memory_descriptor().buffer_descriptor.size), (module.ReplicaStatus.COMPLETE, 1))
        stores[0].close()
        equal((stores[1].get("r"), stores[2].get("s") == bytes(MIB)), (b"v", True))  # their other copies
        for store in stores:
            store.close()


def check_groups(master):
    """Of one call all of a group or none: what fits is not put without what does not, what was there before stays."""
    store = store_of(master, tenant_id="groups", segment=0)
    memory, config = Memory(MIB), ReplicateConfig()
    config.group_ids = ["one", "two", "one", "two", ""]
    equal(store.put("there", b"before"), 0)
    keys, sizes = ["a", "b", "c", "there", "alone"], [1000, 1000, 1000, 2000, 1000]
    equal(store.batch_put_from(keys, [memory.at(0)] * 5, sizes, config), [0] * 5)
    equal(store.batch_is_exist(keys), [1] * 5)
    equal((store.batch_remove(["a", "b", "c", "alone"], force=True), store.get("there")), ([0] * 4, b"before"))
    wrong = [memory.at(0), memory.at(0), 0, memory.at(0), memory.at(0)]  # an address 0 fails
    equal(store.batch_put_from(keys, wrong, sizes, config), [-600, 0, -600, 0, 0])
    equal(store.batch_is_exist(keys), [0, 1, 0, 1, 1])
    wrong = [memory.at(0), 0, memory.at(0), memory.at(0), memory.at(0)]
    equal(store.batch_remove(["b"], force=True), [0])
    equal(store.batch_upsert_from(keys, wrong, sizes, config), [0, -600, 0, -600, 0])
    equal((store.batch_is_exist(keys), store.get("there")), ([1, 0, 1, 1, 1], b"before"))
    equal((store.put_batch(keys, [b"x"] * 3 + [b""] * 2, config), store.get("b")), (0, b"x"))
    equal((store.upsert_batch(keys, [b"y"] * 5, config), store.get_batch(keys)), (0, [b"y"] * 5))
    config.replica_num = 2
    equal((store.upsert_batch(keys, [b"z"] * 5, config), [len(endpoints(store, key)) for key in keys]), (0, [2] * 5))
    equal(store.remove_all(force=True), 5)
    store.close()


def prefers(store, config, name):
    key = f"probe/{time.monotonic()}"
    return store.put(key, b"v", config) == 0 and endpoints(store, key) == {name}


def endpoints(store, key):
    return {row.get_memory_descriptor().buffer_descriptor.transport_endpoint for row in store.get_replica_desc(key)}


def test_tenants_are_apart():
    with Master() as master:
        one, two, plain = store_of(master, tenant_id="one"), store_of(master, tenant_id="two"), store_of(master)
        equal((one.put("k", b"1"), two.put("k", b"2"), plain.is_exist("k")), (0, 0, 0))
        equal((one.get("k"), two.get("k"), two.remove_all(force=True), one.get("k")), (b"1", b"2", 1, b"1"))
        for store in (one, two, plain):
            store.close()


def test_setup_and_close():
    with Master() as master:
        store = MooncakeDistributedStore()
        config = {"local_hostname": "localhost", "metadata_server": "P2PHANDSHAKE", "master_server_addr": master.address}
        equal(store.setup({**config, "global_segment_size": "16MB", "local_buffer_size": 1024}), 0)
        port = int(store.get_hostname().split(":")[1])
        assert store.get_hostname().startswith("localhost:") and 12300 <= port <= 14300
        equal((store.put("k", b"v"), store.setup({**config}), store.health_check()), (0, 0, 0))  # again: closed first
        equal((store.get("k"), store.put("k", b"v")), (b"", 0))
        equal((store.close(), store.get("k")), (0, b""))
        equal((store.setup({**config, "global_segment_size": "50%"}), store.setup({**config, "global_segment_size": 7})), (-600, -600))
        names = {"local_hostname": "localhost", "metadata_server": "P2PHANDSHAKE", "master_server_address": master.address, "device_name": ""}
        equal((store.setup(names), store.health_check()), (0, 0))  # LMCache's
        equal(store.setup({**config}), 0)
        equal((store.get("k"), store.put("k", b"again"), store.get("k")), (b"", 0, b"again"))  # its segment went with it
        store.close()
        forced = os.environ.pop("MC_FORCE_TCP", None)  # a lane may have it
        equal(store.setup("localhost", "P2PHANDSHAKE", 0, 0, "rdma", "", master.address), -600)
        equal(store.setup("0.0.0.0", "P2PHANDSHAKE", MIB, 0, "tcp", "", master.address), -600)
        equal(store.setup("localhost", "P2PHANDSHAKE", 0, 0, "tcp", "", "etcd://localhost:1"), -1012)
        assert "enable_ssd_offload" in raises(NotImplementedError, store.setup, "localhost", "P2PHANDSHAKE", 0, 0, "tcp", "",
                                              master.address, enable_ssd_offload=True)
        os.environ["MC_RPC_CONNECT_TIMEOUT_MS"] = "100"
        equal(store.setup("localhost", "P2PHANDSHAKE", 0, 0, "tcp", "", "127.0.0.1:1"), -900)
        os.environ["MC_FORCE_TCP"] = "1"
        del os.environ["MC_RPC_CONNECT_TIMEOUT_MS"]
        equal((store.setup("localhost", "P2PHANDSHAKE", 16 * MIB, MIB, "rdma", "mlx5_0", master.address), store.put("f", b"v"), store.get("f")),
              (0, 0, b"v"))
        if forced is None:
            del os.environ["MC_FORCE_TCP"]
        full = store_of(master, segment=0)
        store.close()
        equal(wait_for("no segment to be left", lambda: full.put(f"n{time.monotonic()}", b"v")), -200)
        full.close()
        fastest = 1.0
        for _ in range(5):
            store = store_of(master)
            store.put("x", bytes(MIB))
            start = time.monotonic()
            store.close()
            fastest = min(fastest, time.monotonic() - start)
        assert fastest < 0.05, fastest


def test_every_variable_is_known():
    """What the existing Store documents is taken or named as without meaning, once; any other name is one warning."""
    without = """MC_STORE_MEMCPY MC_RPC_PROTOCOL MC_STORE_LOCAL_HOT_CACHE_SIZE MC_STORE_USE_HUGEPAGE MC_MMAP_ARENA_POOL_SIZE MC_GID_INDEX
        MC_DISABLE_MMAP_ARENA MC_STORE_CLUSTER_ID MC_STORE_RPC_CLIENT_IO_THREADS MOONCAKE_STORE_CHECKSUM""".split()
    taken = {"MC_RPC_CONNECT_TIMEOUT_MS": "50", "MC_RPC_TIMEOUT_MS": "50", "MC_STORE_CLIENT_MIN_PORT": "12400", "MC_STORE_CLIENT_SETUP_RETRIES": "3",
             "MC_TRANSFER_TIMEOUT": "5"}
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MC_", "MOONCAKE_LOG"))}
    program = "from mooncake.store import MooncakeDistributedStore as S; s = S(); " \
        "[s.setup('localhost', 'P2PHANDSHAKE', 0, 0, 'tcp', '', '127.0.0.1:1') for _ in range(2)]"
    for command in ([sys.executable, "-c", program], [cluster.MASTER, "--port=1", "--rpc_address=192.0.2.1"]):  # neither comes to serve anything
        said = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60,
                              env={**clean, **taken, **dict.fromkeys(without, "1"), "MC_STROE_MEMCPY": "1"}).stderr
        told = [line.split(":")[-1].split() for line in said.splitlines() if "without meaning here:" in line]
        equal([sorted(names) for names in told], [sorted(without)])
        equal([line.split(":")[-1] for line in said.splitlines() if "nobody knows" in line], [" MC_STROE_MEMCPY"])


def test_segments_come_and_go():
    """More memory beside that of setup(): it takes objects, shows under the client's name, and goes with what lies in it."""
    with Master() as master:
        store, other = store_of(master, segment=0), store_of(master, segment=0)
        memory = Memory(4 * MIB)
        equal(store.batch_put_from(["early"], [memory.at(0)], [4 * MIB]), [-200])
        mounted = store.allocate_and_mount_segment(16 * MIB)
        more = store.allocate_and_mount_segment(size=8 * MIB, protocol="tcp", location="")
        equal((mounted["ret"], len(mounted["segment_ids"]), mounted["allocated_size"], more["ret"]), (0, 1, 16 * MIB, 0))
        equal((store.batch_put_from(["k"], [memory.at(0)], [4 * MIB]), endpoints(store, "k")), ([0], {store.get_hostname()}))
        equal(wait_for("the other client to see it", lambda: other.get_size("k") == 4 * MIB), True)
        wait_for("both", lambda: master.http("/get_all_segments")[1].split() == [store.get_hostname()] * 2)
        equal(store.unmount_and_free_segment(mounted["segment_ids"] + more["segment_ids"], 0), 0)
        equal((store.unmount_segment(mounted["segment_ids"]), store.unmount_and_free_segment(["nobody's"])), (-1, -1))
        wait_for("it to be gone", lambda: store.is_exist("k") == 0)
        equal(store.batch_put_from(["late"], [memory.at(0)], [4 * MIB]), [-200])
        equal(store.allocate_and_mount_segment(0), {"ret": -1, "segment_ids": [], "allocated_size": 0})
        assert "size" in raises(TypeError, store.allocate_and_mount_segment, "16 MB")
        assert "segment_ids" in raises(TypeError, store.unmount_segment, "one id is no list")
        again = store.allocate_and_mount_segment(16 * MIB)["segment_ids"]
        waiting = threading.Thread(target=store.unmount_and_free_segment, args=(again, 3600), daemon=True)
        waiting.start()
        wait_for("nothing new to be taken", lambda: store.put(f"new{time.monotonic()}", b"v") == -200)
        store.close()  # ends the time of grace
        waiting.join(20)
        assert not waiting.is_alive()
        equal(store.allocate_and_mount_segment(16 * MIB)["ret"], -600)
        other.close()


def test_segments_of_a_file():
    """What is put lies in the file, another process reads it; a piece is given once; whatever cannot be mounted is -1."""
    with Master() as master, tempfile.NamedTemporaryFile(dir="/dev/shm") as file, Client(master, segment=0) as reader:
        file.truncate(24 * MIB)
        store, memory, data = store_of(master, segment=0), Memory(4 * MIB), os.urandom(4 * MIB)
        memory.write(0, data)
        mounted = store.mount_segment(file.name, 8 * MIB + 5, 8 * MIB)
        equal((mounted["ret"], len(mounted["segment_ids"])), (0, 1))
        equal((store.batch_put_from(["k"], [memory.at(0)], [len(data)]), endpoints(store, "k")), ([0], {store.get_hostname()}))
        file.seek(0)
        content = file.read()
        assert data in content[8 * MIB:16 * MIB] and not any(content[:8 * MIB]) and not any(content[16 * MIB:])
        equal(reader.do("__import__('zlib').crc32(store.get('k'))"), zlib.crc32(data))
        nothing = {"ret": -1, "segment_ids": []}
        for path, size, offset in (("/dev/shm/none", 8 * MIB, 0), ("/dev/shm", 8 * MIB, 0), (file.name, 8 * MIB, 100), (file.name, 4096, 0),
                                   (file.name, 8 * MIB, 20 * MIB), (file.name, 8 * MIB, 12 * MIB)):
            equal(store.mount_segment(path, size, offset=offset), nothing)
        equal(store.mount_segment(path=file.name, size=0), {"ret": 0, "segment_ids": []})
        assert "size" in raises(TypeError, store.mount_segment, file.name, "8 MB")
        beside = store.mount_segment(file.name, 8 * MIB)
        equal((beside["ret"], store.unmount_segment(mounted["segment_ids"] + beside["segment_ids"]), os.path.getsize(file.name)), (0, 0, 24 * MIB))
        wait_for("it to be gone", lambda: store.is_exist("k") == 0)
        equal(store.mount_segment(file.name, 24 * MIB)["ret"], 0)  # free again
        store.close()
        equal(store.mount_segment(file.name, 8 * MIB)["ret"], -600)


def test_several_clients_of_one_name():
    """An explicit port that is taken: the name stays, the segment listens elsewhere."""
    with Master() as master:
        first = store_of(master, "localhost:23111")
        second = store_of(master, "localhost:23111")
        equal((second.get_hostname(), second.put("k", b"v"), first.get("k")), ("localhost:23111", 0, b"v"))
        first.close()
        second.close()


def test_allocator_and_numa():
    allocator = MooncakeHostMemAllocator()
    address = allocator.alloc(64 * MIB)
    assert address % 4096 == 0
    with Master() as master:
        store = store_of(master, segment=128 * MIB)
        store.register_buffer(address, 64 * MIB)
        equal((store.batch_put_from(["k"], [address], [64 * MIB]), store.batch_get_into(["k"], [address], [64 * MIB])), ([0], [64 * MIB]))
        store.close()
    equal((allocator.free(address), allocator.alloc(0)), (None, 0))
    mask = os.sched_getaffinity(0)
    if os.path.exists("/sys/devices/system/node/node0/cpulist"):
        bind_to_numa_node(0)
    raises(ValueError, bind_to_numa_node, 63)
    os.sched_setaffinity(0, mask)


def test_what_is_not_there_says_so():
    store = MooncakeDistributedStore()
    for name in ("put_tensor", "create_copy_task"):
        assert name in raises(NotImplementedError, getattr(store, name), 1, 2, 3)
        assert "Not there yet" in getattr(MooncakeDistributedStore, name).__doc__


def test_another_process_sees_it():
    with Master() as master, Client(master, "localhost:23121") as client:
        equal(client.result, 0)
        store = store_of(master)
        data = os.urandom(2 * MIB)
        equal((store.put("mine", data), client.do("store.get('mine')") == data), (0, True))
        equal((client.do("store.put('theirs', bytes(1 << 20))"), store.get("theirs") == bytes(MIB)), (0, True))
        equal(client.do("store.get_hostname()"), "localhost:23121")
        store.close()


def test_threads_share_one_object():
    """16 threads on one store, while one counts: calls that wait do not hold the interpreter."""
    with Master() as master:
        store = store_of(master, segment=256 * MIB)
        wrong, stop, counted = [], threading.Event(), [0]

        def count():
            while not stop.is_set():
                counted[0] += 1

        def work(number):
            memory = Memory(600000)
            for i in range(40):
                size = 1 + (number * 7919 + i * 104729) % 300000
                data = bytes([number + i & 255]) * size
                memory.write(0, data)
                store.register_buffer(memory.address, memory.size)
                key = f"{number}/{i}"
                good = store.batch_put_from([key], [memory.at(0)], [size]) == [0] and store.batch_is_exist([key]) == [1] and \
                    store.batch_get_into([key], [memory.at(300000)], [300000]) == [size] and memory.read(300000, size) == data and \
                    store.get(key) == data
                store.unregister_buffer(memory.address)
                if not good:
                    wrong.append(key)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
        counter = threading.Thread(target=count)
        for thread in [counter, *threads]:
            thread.start()
        for thread in threads:
            thread.join()
        stop.set()
        counter.join()
        equal(wrong, [])
        assert counted[0] > 1000, counted
        store.close()


if __name__ == "__main__":
    run(globals())
