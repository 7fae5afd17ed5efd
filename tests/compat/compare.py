#!/usr/bin/env python3
"""compare.py - what each call of mooncake.store returns, a line each: run with our package and with the existing wheel, and compared
by hand. Not a test: it prints and judges nothing.

    PYTHONPATH=build/python tests/compat/compare.py HOST:PORT > ours        with our mooncake_master there
    scratch/bin/python      tests/compat/compare.py HOST:PORT > theirs      with theirs; both masters: --default_kv_lease_ttl=2000
    diff ours theirs

Calls on an object that is not set up are made in a process each, because most of them end it with the existing wheel.
"""
import ctypes
import os
import subprocess
import sys
import tempfile

from mooncake import store as module
from mooncake.store import MooncakeDistributedStore, ReplicateConfig

MASTER = sys.argv[1]
BUFFER = (ctypes.c_char * (8 << 20))()
A = ctypes.addressof(BUFFER)


def show(name, call):
    try:
        result = call()
    except BaseException as error:  # pylint: disable=broad-except
        result = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    print(f"{name}: {result!r:.160}", flush=True)


def new(segment=64 << 20, buffer=16 << 20):
    store = MooncakeDistributedStore()
    assert store.setup("localhost", "P2PHANDSHAKE", segment, buffer, "tcp", "", MASTER) == 0
    return store


def config(**values):
    made = ReplicateConfig()
    for name, value in values.items():
        setattr(made, name, value)
    return made


NOT_SET_UP = {
    "put": lambda s: s.put("k", b"v"), "get": lambda s: s.get("k"), "is_exist": lambda s: s.is_exist("k"),
    "batch_is_exist": lambda s: s.batch_is_exist(["k", "l"]), "get_size": lambda s: s.get_size("k"),
    "remove": lambda s: s.remove("k"), "remove_all": lambda s: s.remove_all(), "remove_by_regex": lambda s: s.remove_by_regex("k"),
    "put_from": lambda s: s.put_from("k", A, 1), "batch_put_from": lambda s: s.batch_put_from(["k", "l"], [A, A], [1, 1]),
    "batch_upsert_from": lambda s: s.batch_upsert_from(["k"], [A], [1]), "get_into": lambda s: s.get_into("k", A, 1),
    "batch_get_into": lambda s: s.batch_get_into(["k"], [A], [1]),
    "multi put": lambda s: s.batch_put_from_multi_buffers(["k"], [[A]], [[1]]),
    "multi get": lambda s: s.batch_get_into_multi_buffers(["k"], [[A]], [[1]]), "get_buffer": lambda s: s.get_buffer("k"),
    "get_batch": lambda s: s.get_batch(["k", "l"]), "put_batch": lambda s: s.put_batch(["k"], [b"v"]),
    "put_parts": lambda s: s.put_parts("k", b"v"), "batch_remove": lambda s: s.batch_remove(["k"]),
    "register": lambda s: s.register_buffer(A, 10), "unregister": lambda s: s.unregister_buffer(A),
    "hostname": lambda s: s.get_hostname(), "health": lambda s: s.health_check(), "replicas": lambda s: s.get_replica_desc("k"),
    "clear": lambda s: s.batch_replica_clear(["k"]), "upsert": lambda s: s.upsert("k", b"v"),
    "upsert_from": lambda s: s.upsert_from("k", A, 1), "get session": lambda s: s.batch_get_session_start(["k"]),
    "put session": lambda s: s.batch_put_session_start(["k"], [1]),
    "with metadata": lambda s: s.put_from_with_metadata("k", A, A, 1, 1), "close": lambda s: s.close(),
}


def bytes_and_keys(s):
    yield "put", lambda: (s.put("k", b"hello"), s.put("k", b"zz"), s.get("k"), s.get_size("k"), s.get_size("none"))
    yield "exist", lambda: (s.is_exist("k"), s.is_exist("none"), s.batch_is_exist(["k", "none"]), s.batch_is_exist([]))
    yield "keys", lambda: (s.put("", b"v"), s.put("x" * 2000, b"v"), s.put(b"bytes", b"v"))
    yield "empty", lambda: (s.put("e", b""), s.put_parts("e2"), s.put_parts("e3", b""), s.upsert("e4", b""))
    yield "parts", lambda: (s.put_parts("p", b"a", b"b"), s.get("p"))
    yield "parts of integers", lambda: s.put_parts("p2", memoryview(bytes(8)).cast("I"))
    yield "too large", lambda: s.put("big", bytes(17 << 20))
    yield "put_batch", lambda: (s.put_batch(["b1", "b2"], [b"1", b"2"]), s.get_batch(["b1", "none"]), s.put_batch(["b1"], [b"", b""]))
    yield "get_batch", lambda: (s.get_batch(["none", "none"]), s.get_batch([]))
    yield "get_buffer", lambda: (s.get_buffer("none"), len(s.get_buffer("k")), memoryview(s.get_buffer("k")).format)
    yield "upsert", lambda: (s.upsert("k", b"new"), s.get("k"), s.upsert_parts("u", b"1", b"2"), s.upsert_batch(["u"], [b"1"]))
    yield "shapes", lambda: (s.put("nd", memoryview(bytes(8)).cast("B", [2, 4])), s.put("nc", memoryview(bytes(8))[::2]))
    for name, call in {"key": lambda: s.put(5, b"v"), "value": lambda: s.put("k", "v"), "keyword": lambda: s.put("k", b"v", foo=1),
                       "list": lambda: s.batch_is_exist("k"), "set": lambda: s.batch_is_exist({"k"}), "none": lambda: s.put("k", b"", None),
                       "float": lambda: s.put_from("k", 1.0, 1), "negative": lambda: s.put_from("k", -1, 1)}.items():
        yield f"wrong {name}", call


def addresses(s):
    strange = (ctypes.c_char * 100)()
    yield "register", lambda: [s.register_buffer(at, n) for at, n in ((A, 8 << 20), (A, 8 << 20), (A + 4096, 9), (A, 0), (0, 9))]
    yield "unregister", lambda: s.unregister_buffer(A + 64)
    yield "put_from", lambda: (s.put_from("f", A, 5), s.put_from("f2", 0, 5), s.put_from("f3", A, 0), s.upsert_from("f", A, 6))
    yield "not registered", lambda: (s.put_from("f4", ctypes.addressof(strange), 50), s.get_into("k", ctypes.addressof(strange), 50))
    yield "batch_put_from", lambda: (s.batch_put_from(["g", "h"], [A, A + 1], [2, 3]), s.batch_put_from(["i", "j"], [A], [1]))
    yield "batch of none", lambda: (s.batch_put_from([], [], []), s.batch_get_into([], [], []))
    yield "get_into", lambda: (s.get_into("k", A, 50), s.get_into("k", A, 1), s.get_into("none", A, 4))
    yield "batch_get_into", lambda: (s.batch_get_into(["g", "none", "k"], [A, A + 9, A + 99], [10, 10, 1]), s.batch_get_into(["g", "h"], [A], [1]))
    yield "multi put", lambda: (s.batch_put_from_multi_buffers(["m"], [[A, A + 2]], [[2, 3]]), s.batch_put_from_multi_buffers(["n"], [[A]], [[1, 2]]))
    yield "multi get", lambda: [s.batch_get_into_multi_buffers(["m"], [[A] * len(n)], [n]) for n in ([2, 3], [5], [9], [3])]
    yield "ranges", lambda: s.get_into_ranges([A], [["m", "none"]], [[[0, 10], [5]]], [[[0, 4], [0]]], [[[2, 9], [4]]])
    yield "ranges of wrong shape", lambda: s.get_into_ranges([A], [["m", "k"]], [[[0]]], [[[0]]], [[[1]]])
    yield "with metadata", lambda: (s.put_from_with_metadata("w", A, A + 2, 3, 2), s.put_from_with_metadata("", A, A, 3, 2))
    yield "get session", lambda: (s.batch_get_session_start(["m", "none"]), s.batch_get_into_multi_buffer_ranges(["m"], [[A]], [[2]], [[1]]))
    yield "no get session", lambda: s.batch_get_into_multi_buffer_ranges(["f"], [[A]], [[2]], [[1]])
    yield "put session", lambda: (s.batch_put_session_start(["s"], [9]), s.batch_put_from_multi_buffer_ranges(["s"], [[A]], [[9]], [[0]]),
                                  s.is_exist("s"), s.batch_put_session_end(["s"]), s.get_size("s"))
    yield "part of one", lambda: (s.batch_put_session_start(["t"], [9]), s.batch_put_session_end(["t"]))
    yield "no put session", lambda: (s.batch_put_session_end(["z"]), s.batch_put_session_revoke(["z"]), s.batch_put_session_start(["m"], [9]))


def promises(s):
    for name, look in {"is_exist": s.is_exist, "get": s.get, "get_size": s.get_size, "get_into": lambda key: s.get_into(key, A, 9),
                       "replicas": lambda key: len(s.get_replica_desc(key)), "nothing": lambda key: None}.items():
        yield f"promised by {name}", lambda name=name, look=look: (s.put(name, b"v"), look(name), s.remove(name))
    yield "remove", lambda: (s.remove("none"), s.batch_remove(["get", "none"]), s.remove("get", force=True), s.batch_remove([]))
    yield "regex", lambda: (s.remove_by_regex("("), s.put("a_rx/2", b"v"), s.remove_by_regex("^rx", True), s.remove_by_regex("rx/", True))
    yield "clear", lambda: (s.batch_replica_clear([]), s.batch_replica_clear(["none"]), s.batch_replica_clear(["k"], "nope:1"))


def configs(s):
    yield "str", lambda: str(ReplicateConfig())
    for name, values in {"replicas 0": {"replica_num": 0}, "replicas 5": {"replica_num": 5}, "same node": {"prefer_alloc_in_same_node": True},
                         "preferred": {"preferred_segment": "nope:1"}, "groups of 2": {"group_ids": ["a", "b"]}, "groups of 0": {"group_ids": []},
                         "time of a pin": {"soft_pin_ttl_ms": 9}, "nof": {"nof_replica_num": 1}, "dfs": {"dfs_replica_num": 1},
                         "hard pin": {"with_hard_pin": True}}.items():
        yield name, lambda name=name, values=values: (s.put(f"c/{name}", b"v", config(**values)), len(s.get_replica_desc(f"c/{name}")))
        yield f"{name}, from", lambda name=name, values=values: s.batch_put_from([f"d/{name}"], [A], [5], config(**values))


def mounts(s):
    def there_and_back():
        mounted = s.allocate_and_mount_segment(16 << 20)
        ids = mounted["segment_ids"]
        return {**mounted, "segment_ids": len(ids)}, s.unmount_and_free_segment(ids), s.unmount_and_free_segment(ids)
    yield "more memory", there_and_back
    with tempfile.NamedTemporaryFile(dir="/dev/shm") as file:
        file.truncate(16 << 20)

        def of_a_file(*where):
            mounted = s.mount_segment(*where)
            ids = mounted["segment_ids"]
            return {**mounted, "segment_ids": len(ids)}, s.unmount_segment(ids), s.unmount_segment(ids)
        for name, where in {"all": (file.name, 16 << 20), "a part": (file.name, 8 << 20, 8 << 20), "nothing": (file.name, 0),
                            "too much": (file.name, 16 << 20, 4096), "no page": (file.name, 8 << 20, 100), "none": ("/dev/shm/none", 1 << 20),
                            "no file": ("/dev/shm", 1 << 20), "little": (file.name, 4096)}.items():
            yield f"of a file, {name}", lambda where=where: of_a_file(*where)
    yield "none", lambda: (s.allocate_and_mount_segment(0), s.unmount_and_free_segment(["nobody's"]), s.unmount_segment(["x"]),
                           s.unmount_and_free_segment([]))


def main():
    for name, call in NOT_SET_UP.items():
        if len(sys.argv) == 2:
            done = subprocess.run([sys.executable, __file__, MASTER, name], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False)
            print(done.stdout if done.returncode == 0 else f"not set up, {name}: ended the process\n", end="", flush=True)
        elif sys.argv[2] == name:
            show(f"not set up, {name}", lambda call=call: call(MooncakeDistributedStore()))
            os._exit(0)
    store, _second = new(), new()
    for group in (bytes_and_keys, addresses, promises, configs, mounts):
        for name, call in group(store):
            show(f"{group.__name__}, {name}", call)
    bare = new(segment=0, buffer=0)
    show("no local buffer", lambda: (bare.put("nb", b"v"), store.put("nb2", b"v"), bare.get("nb2")))
    show("again", lambda: (store.setup("localhost", "P2PHANDSHAKE", 0, 1 << 20, "tcp", "", MASTER), store.health_check()))
    show("close", lambda: (store.close(), store.close()))
    show("module", lambda: sorted(name for name in dir(module) if not name.startswith("_")))
    os._exit(0)  # the existing module's threads may not end


if __name__ == "__main__":
    main()
