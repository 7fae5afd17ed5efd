"""store_soak - random calls of mooncake.store from eight threads in each of three processes that are stopped, killed and started again,
and so is the master.

    store_soak.py MASTER [--seconds 20] [--seed N]

Goal: no crash, no hang, no wrong byte, no other return value than the contract's, memory flat. Every value says by itself what it must
be: its first bytes are a seed, the rest is made of that. The processes share one set of keys, a store object each, and memory that is
registered and taken back all the time. The first process is never killed, so that its memory can be watched; its store is closed and
set up again under its threads. Ends with a line of counts for each.
"""
import argparse
import os
import random
import sys
import threading
import time

import cluster
from cluster import MIB, Master, Memory, Process

PROCESSES, THREADS, KEYS, SLOT = 3, 8, 400, 1 << 17
SLOW = 60  # s; a get of 30 s on a busy machine
ERRORS = {-1, -200, -600, -704, -706, -707, -800, -801, -900, -901}  # what a call may say while things die
PORTS = 23951
GROWTH = (256 if "san.so" in os.environ.get("LD_PRELOAD", "") else 32) * MIB  # a sanitizer keeps accounts of its own


# ---- values ----

def value_of(seed):
    """8 bytes of seed, then as many as it says, each a function of it."""
    size = 8 + seed % (SLOT - 64)
    line = seed.to_bytes(8, "little")
    return (line * (size // 8 + 1))[:size]


def is_value(data):
    return len(data) >= 8 and data == value_of(int.from_bytes(data[:8], "little"))


# ---- one of the three processes ----

class Worker(threading.Thread):
    def __init__(self, number, store, seed, until):
        super().__init__(daemon=True)
        self.number, self.store, self.until = number, store, until
        self.random = random.Random(seed * 1000 + number)
        self.memory = Memory(4 * SLOT)
        self.counts = {}
        self.error = self.began = None

    def run(self):
        names = [name for name in dir(self) if name.startswith("do_")]
        try:
            while time.monotonic() < self.until:
                name = self.random.choice(names)
                self.began = time.monotonic()
                getattr(self, name)()
                took, self.began = time.monotonic() - self.began, None
                assert took < SLOW, f"{name} took {took:.1f} s"
        except BaseException as error:  # told by the process
            self.error = error

    def key(self):
        return f"soak/{self.random.randrange(KEYS)}"

    def took(self, result, good=(0,)):
        """True when the call did what it should; anything that no contract knows is an error."""
        assert result in good or result in ERRORS, result
        self.counts[min(result, 0)] = self.counts.get(min(result, 0), 0) + 1
        return result in good

    def fill(self, slot):
        data = value_of(self.random.getrandbits(60))
        self.memory.write(slot * SLOT, data)
        return self.memory.at(slot * SLOT), len(data)

    def check(self, slot, size):
        if size > 0:
            assert size >= 8 and is_value(self.memory.read(slot * SLOT, size)), f"wrong bytes, {size} of them"
        else:
            self.took(size)

    def config(self):
        from mooncake.store import ReplicateConfig
        config = ReplicateConfig()
        config.replica_num = self.random.choice((1, 1, 2, 3))
        config.with_soft_pin = self.random.random() < 0.2
        return config

    def do_put(self):
        self.took(self.store.put(self.key(), value_of(self.random.getrandbits(60)), self.config()))

    def do_upsert(self):
        self.took(self.store.upsert(self.key(), value_of(self.random.getrandbits(60))))

    def do_batch_put_from(self):
        addresses, sizes = zip(*(self.fill(slot) for slot in range(4)))
        for result in self.store.batch_put_from([self.key() for _ in range(4)], list(addresses), list(sizes), self.config()):
            self.took(result)

    def do_put_in_pieces(self):
        address, size = self.fill(0)
        cut = self.random.randrange(size)
        for result in self.store.batch_put_from_multi_buffers([self.key()], [[address, address + cut]], [[cut, size - cut]], self.config()):
            self.took(result)

    def do_get(self):
        data = self.store.get(self.key())
        assert data == b"" or is_value(data), f"wrong bytes, {len(data)} of them"

    def do_batch_get_into(self):
        for slot, size in enumerate(self.store.batch_get_into([self.key() for _ in range(4)], [self.memory.at(slot * SLOT) for slot in range(4)],
                                                              [SLOT] * 4)):
            self.check(slot, size)

    def do_get_range(self):
        """The second eight bytes of a value are its first eight."""
        for row in self.store.get_into_ranges([self.memory.at(0)], [[self.key()]], [[[0, 8]]], [[[0, 8]]], [[[8, 8]]])[0]:
            if row == [8, 8]:
                assert self.memory.read(0, 8) == self.memory.read(8, 8)

    def do_session(self):
        key, (address, size) = f"session/{self.number}/{os.getpid()}/{self.random.randrange(8)}", self.fill(0)
        begun = self.store.batch_put_session_start([key], [size])
        if begun != [0]:
            return
        cut = self.random.randrange(size)
        for at, length in ((cut, size - cut), (0, cut)):
            for result in self.store.batch_put_from_multi_buffer_ranges([key], [[address + at]], [[length]], [[at]]):
                self.took(result, (length,))
        for result in self.store.batch_put_session_end([key]):
            self.took(result)
        self.check(0, self.store.get_into(key, address, SLOT))

    def do_look(self):
        for result in self.store.batch_is_exist([self.key() for _ in range(32)]):
            self.took(result, (0, 1))
        size = self.store.get_size(self.key())
        assert size >= 8 or size in ERRORS, size
        self.store.get_replica_desc(self.key())

    def do_remove(self):
        self.took(self.store.remove(self.key(), force=self.random.random() < 0.5))
        for result in self.store.batch_remove([self.key(), self.key()], force=True):
            self.took(result)

    def do_remove_some(self):
        if self.random.random() < 0.1:
            self.took(min(0, self.store.remove_by_regex(f"^session/{self.number}/.*[0-3]$", force=True)))

    def do_register(self):
        self.took(self.store.register_buffer(self.memory.address, self.memory.size))
        self.took(self.store.unregister_buffer(self.memory.address))


def set_up(store, host, master):
    """0, or why not: a master that is away is a -900, nothing worse."""
    result = store.setup(host, "P2PHANDSHAKE", 24 * MIB, 4 * MIB, "tcp", "", master)
    assert result in (0, -900, -901), result
    return result


def private():
    """Bytes of its own: what others' segments show of themselves in its memory is theirs."""
    with open("/proc/self/status", encoding="ascii") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith("RssAnon:"))


def process(master, host, seed, seconds, restless):
    """Set up, work, say how it went. Memory is looked at after a quarter of the time and at the end; `restless` is the one that lives
    from the beginning to the end, and is closed and set up in between."""
    from mooncake.store import MooncakeDistributedStore
    store, begin = MooncakeDistributedStore(), time.monotonic()
    while set_up(store, host, master) != 0:
        assert time.monotonic() - begin < SLOW, "no master"
    print("ready", flush=True)
    workers = [Worker(number, store, seed, begin + seconds) for number in range(THREADS)]
    for worker in workers:
        worker.start()
    before, dice = None, random.Random(seed)
    while any(worker.is_alive() for worker in workers):
        workers[0].join(0.5)
        now = time.monotonic()
        stuck = [worker.number for worker in workers if worker.began and now - worker.began > SLOW]
        if stuck:
            os._exit(3)  # a call hangs: the parent says so
        if before is None and now - begin > seconds / 4:
            before = private()
        if restless and dice.random() < 0.2:
            store.close()
            set_up(store, host, master)
    errors = [repr(worker.error) for worker in workers if worker.error]
    grown = private() - (before or private())
    store.close()
    counts = {}
    for worker in workers:
        for code, count in worker.counts.items():
            counts[code] = counts.get(code, 0) + count
    print(f"done {'; '.join(errors) or 'well'} | {counts} | {grown >> 20} MiB more", flush=True)
    sys.exit(1 if errors or (restless and grown > GROWTH) else 0)  # short lives are still filling their caches


# ---- what happens to them ----

class Victim:
    """One of the processes: killed, it is started again under its host:port."""

    def __init__(self, number, master, seed, until):
        self.number, self.master, self.seed, self.until, self.lives = number, master, seed, until, 0
        self.start()

    def start(self):
        seconds = max(self.until - time.monotonic(), 0.5)
        self.child = Process(sys.executable, os.path.abspath(__file__), "--process", self.master, f"localhost:{PORTS + self.number}",
                             str(self.seed + self.lives), str(seconds), str(int(self.number == 0)))
        self.lives += 1
        assert self.child.line() == "ready"


def disturb(master, victims, until, dice):
    """Until then: something happens to one of them, or to the master, and a while nothing. The master that is there at the end."""
    while time.monotonic() < until:
        time.sleep(dice.uniform(0.1, 1.5))
        for victim in victims:
            assert victim.child.child.poll() is None or time.monotonic() > until, f"process {victim.number} ended by itself"
        what = dice.random()
        victim = dice.choice(victims if what < 0.4 else victims[1:])
        if what < 0.4:
            victim.child.child.send_signal(cluster.signal.SIGSTOP)
            time.sleep(dice.uniform(0.01, 1))
            victim.child.child.send_signal(cluster.signal.SIGCONT)
        elif what < 0.8 and until - time.monotonic() > 2:
            victim.child.send(cluster.signal.SIGKILL)
            victim.start()
        elif what >= 0.8:
            master.send(cluster.signal.SIGKILL)
            time.sleep(dice.uniform(0, 0.5))
            master = master.again()
    return master


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("master")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    cluster.MASTER = options.master
    until, dice = time.monotonic() + options.seconds, random.Random(options.seed)
    first = master = Master("--default_kv_lease_ttl=500ms")
    victims = [Victim(number, first.address, options.seed + 100 * number, until) for number in range(PROCESSES)]
    master = disturb(master, victims, until, dice)
    failed = 0
    for victim in victims:
        said = victim.child.line()
        code = victim.child.child.wait(SLOW)
        print(f"process {victim.number}, life {victim.lives}: {said}", flush=True)
        failed += code != 0
    master.end()
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    if sys.argv[1] == "--process":
        process(sys.argv[2], sys.argv[3], int(sys.argv[4]), float(sys.argv[5]), sys.argv[6] == "1")
    else:
        main()
