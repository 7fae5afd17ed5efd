#!/usr/bin/env python3
"""store_faults.py - goal: what callers of the existing Store suffer from does not happen here: owners killed, stopped, restarted, the
master killed, more put than fits, objects used after close, forks. Method: real processes and signals; every wait is for a
condition with a bound, and the bounds are those a busy machine can keep."""
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time

from cluster import MIB, SLOW, Client, Master, Memory, equal, run, store_of, wait_for
from mooncake.store import ReplicateConfig
from store_calls import check_closed


def within(seconds, start):
    took = time.monotonic() - start
    assert took < seconds * SLOW, f"took {took:.2f} s, in place of {seconds}"


def test_owner_killed_and_back():
    """Its keys are misses, nobody waits; under the same host:port it is set up the first time and takes puts at once."""
    with Master() as master, Client(master, "localhost:23201") as owner:
        store = store_of(master, segment=0)
        data = os.urandom(2 * MIB)
        equal((store.put("k", data), store.get("k") == data), (0, True))
        memory = Memory(2 * MIB)
        owner.send(signal.SIGKILL)
        start = time.monotonic()
        assert store.get_into("k", memory.address, memory.size) < 0
        equal(store.get("k"), b"")
        wait_for("the key to be gone", lambda: store.is_exist("k") == 0)
        within(1, start)
        with Client(master, "localhost:23201") as back:
            equal((back.result, back.do("store.put('new', b'at once')"), back.do("store.get('new')")), (0, 0, b"at once"))
            equal((store.put("k", data), wait_for("both", lambda: store.get("new")), store.get("k") == data), (0, b"at once", True))
        store.close()


def test_owner_stopped():
    """A get comes back long before its deadline, with the bytes where there is a second copy; afterwards the old data are there."""
    with Master() as master, Client(master, "localhost:23211") as owner, Client(master, "localhost:23212"):
        store = store_of(master, segment=0)
        config = ReplicateConfig()
        config.preferred_segment = "localhost:23211"
        one, two = os.urandom(MIB), os.urandom(MIB)
        equal(store.put("one", one, config), 0)
        config.replica_num = 2
        equal(store.put("two", two, config), 0)
        equal({row.get_memory_descriptor().buffer_descriptor.transport_endpoint for row in store.get_replica_desc("two")},
              {"localhost:23211", "localhost:23212"})
        owner.send(signal.SIGSTOP)
        start = time.monotonic()
        equal(store.get("two"), two)
        small = Memory(MIB)
        result = store.get_into("one", small.address, small.size)
        assert result < 0 or small.read(0, MIB) == one  # from its memory, on one host, or a miss
        assert time.monotonic() - start < 10
        equal((store.put("while it sleeps", b"v"), store.get("while it sleeps")), (0, b"v"))
        owner.send(signal.SIGCONT)
        equal(wait_for("the old data", lambda: store.get("one")), one)
        store.close()


def test_master_killed():
    """A new one at the same address, without the old one's files, finds everything that living owners hold; gets go on meanwhile."""
    with Master() as master, Client(master) as owner:
        store = store_of(master)
        datas = {f"k{i}": os.urandom(10000 + i) for i in range(50)}
        for key, data in datas.items():
            equal(store.put(key, data), 0)
        owner.do("[store.put(f'o{i}', b'v' * i) for i in range(50)]")
        equal(store.get("k7"), datas["k7"])
        master.send(signal.SIGKILL)
        start = time.monotonic()
        equal(store.get("k7"), datas["k7"])  # from where it was
        within(1, start)
        wait_for("health", lambda: store.health_check() == 2)
        for call in (lambda: store.get("o49"), lambda: store.is_exist("o49"), lambda: store.put("now", b"v")):
            start = time.monotonic()
            call()
            within(10, start)  # its deadline
        with master.again():
            start = time.monotonic()
            wait_for("the index", lambda: store.batch_is_exist(list(datas)) == [1] * 50)
            wait_for("the other's", lambda: store.get("o49") == b"v" * 49)
            within(2, start)
            for key, data in datas.items():
                equal(store.get(key), data)
            equal((store.health_check(), store.put("after", b"v"), store.get("after")), (0, 0, b"v"))
            equal((store.put("k7", b"other"), store.get("k7")), (0, datas["k7"]))  # names keep what they had
            store.close()


def test_groups_are_seen_whole():
    """One process asks for whole groups all the time: each time it sees all of one or nothing, while others put them, older ones are
    evicted, a writer is killed, and so is the master."""
    members, rounds = 32, 24
    names = "[f'{who}{r}/{i}' for i in range(32)]"
    looks = f"""sorted({{sum(there) for _ in iter(lambda: store.is_exist('stop'), 1) for who in 'ab' for r in range({rounds})
        for there in [store.batch_is_exist({names})] if min(there) >= 0}})""".replace("\n", " ")
    config = ReplicateConfig()
    config.group_ids = ["g"] * members
    with Master() as master, Client(master, segment=16 * MIB), Client(master, segment=16 * MIB), \
            Client(master, segment=0) as watcher, Client(master, segment=0) as writer:
        store = store_of(master, segment=0)
        writer.do("setattr(config := ReplicateConfig(), 'group_ids', ['g'] * 32)")

        def put(r):
            return store.put_batch([f"b{r}/{i}" for i in range(members)], [bytes(65536)] * members, config) == 0

        watcher.child.stdin.write(looks + "\n")
        writer.child.stdin.write(
            f"[store.put_batch({names}, [bytes(65536)] * 32, config) for who in 'a' for n in range(10**6) for r in [n % {rounds}]]\n")
        equal([put(r) for r in range(rounds // 3)], [True] * (rounds // 3))
        wait_for("the other writer", lambda: any(store.is_exist(f"a{r}/0") == 1 for r in range(rounds)))
        writer.send(signal.SIGKILL)
        equal([put(r) for r in range(rounds // 3, rounds * 2 // 3)], [True] * (rounds // 3))
        master.send(signal.SIGKILL)
        with master.again():
            for r in range(rounds * 2 // 3, rounds):
                wait_for("a put", lambda: put(r))
            equal(store.batch_is_exist([f"b{rounds - 1}/{i}" for i in range(members)]), [1] * members)
            equal(store.put("stop", b"now"), 0)
            equal(eval(watcher.line()), [0, members])  # pylint: disable=eval-used
            config.group_ids = ["much"] * 3  # more than a segment: none of it stays
            equal(store.put_batch(["m1", "m2", "m3"], [bytes(6 * MIB)] * 3, config), -200)
            equal(store.batch_is_exist(["m1", "m2", "m3"]), [0] * 3)
            store.close()


def test_beyond_capacity():
    """Four times what fits, from two clients: every put succeeds, the last ones are there, nothing wrong is read."""
    with Master() as master:
        store, other = store_of(master, segment=32 * MIB), store_of(master, segment=0)
        memory = Memory(2 * MIB)
        for i in range(128):
            memory.write(0, bytes([i]) * MIB)
            equal((store, other)[i % 2].batch_put_from([f"k{i}"], [memory.at(0)], [MIB]), [0])
        found = [i for i in range(128) if other.get_into(f"k{i}", memory.at(MIB), MIB) == MIB and memory.read(MIB, MIB) == bytes([i]) * MIB]
        assert len(found) >= 16 and 127 in found and 126 in found, found
        assert found == list(range(128 - len(found), 128)), found  # the coldest went
        store.close()
        other.close()


def test_use_after_close_from_threads():
    """Threads inside of calls while another closes: they return with errors or results, nothing crashes, close ends."""
    with Master() as master:
        for _ in range(5):
            store = store_of(master)
            memory = Memory(MIB)
            store.put("k", os.urandom(MIB))
            begun = threading.Barrier(9)

            def work(number, store=store, memory=memory, begun=begun):
                begun.wait()
                for i in range(30):
                    store.get_into("k", memory.address, MIB)
                    store.put(f"{number}/{i}", bytes(100000))
                    store.batch_is_exist(["k"] * 100)

            threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
            for thread in threads:
                thread.start()
            begun.wait()
            equal(store.close(), 0)
            for thread in threads:
                thread.join()
            check_closed(store, memory)


def test_fork():
    """A child knows that it has none of the parent's threads; it may set up its own. The parent goes on."""
    with Master() as master:
        store = store_of(master)
        equal(store.put("k", b"parent"), 0)
        child = os.fork()
        if child == 0:
            try:
                check_closed(store, Memory(64))
                equal(store.setup("localhost", "P2PHANDSHAKE", 0, 0, "tcp", "", master.address), 0)
                equal(store.get("k"), b"parent")
                store.close()
                os._exit(0)
            except BaseException as error:  # pylint: disable=broad-except
                print(error, file=sys.stderr, flush=True)
                os._exit(1)
        equal(os.waitpid(child, 0)[1], 0)
        equal((store.get("k"), store.put("l", b"v"), store.get("l")), (b"parent", 0, b"v"))
        store.close()


LEAVES = """
import sys
from mooncake.store import MooncakeDistributedStore
stores = [MooncakeDistributedStore() for _ in range(2)]
for store in stores:
    assert store.setup("localhost", "P2PHANDSHAKE", 32 << 20, 1 << 20, "tcp", "", sys.argv[1]) == 0
    assert store.put("k", b"v") == 0
if sys.argv[2] == "cycle":
    stores.append(stores)
    del stores, store
"""


def test_exit_without_close():
    with Master() as master, tempfile.TemporaryDirectory() as run_dir:
        store = store_of(master, segment=0)
        for way in ("plain", "cycle"):
            start = time.monotonic()
            done = subprocess.run([sys.executable, "-c", LEAVES, master.address, way], check=False, timeout=30, capture_output=True,
                                  text=True, env={**os.environ, "XDG_RUNTIME_DIR": run_dir})
            equal((done.returncode, done.stderr), (0, ""))
            assert time.monotonic() - start < 10
            wait_for("its segments to be gone", lambda: master.http("/get_all_segments") == (200, ""))
            equal(store.is_exist("k"), 0)
        left = [name for _, _, names in os.walk(run_dir) for name in names]
        equal(left, [])
        store.close()


def test_kill_9_of_a_writer_leaves_nothing_half():
    with Master() as master, Client(master, "localhost:23221"), Client(master, segment=0) as writer:
        store = store_of(master, segment=0)
        writer.child.stdin.write("[store.put(f'w{i}', bytes([i % 251]) * 300000) for i in range(100000)]\n")
        writer.child.stdin.flush()
        wait_for("some puts", lambda: store.is_exist("w20") == 1)
        writer.send(signal.SIGKILL)
        memory = Memory(300000)
        seen = 0
        for i in range(200):
            size = store.get_into(f"w{i}", memory.address, memory.size)
            assert size < 0 or (size == 300000 and memory.read(0, size) == bytes([i % 251]) * size), (i, size)
            seen += size > 0
        assert seen > 0
        store.close()


if __name__ == "__main__":
    run(globals())
