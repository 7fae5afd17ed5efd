"""engine_soak - random calls of mooncake.engine from eight threads to three processes that are stopped, killed and started again.

    engine_soak.py [--seconds 20] [--seed N]

Goal: no crash, no hang, no wrong byte, no other return value than the contract's, memory flat. Each thread owns a slice of every peer's
memory and remembers what it wrote there last: after a call that returned 0 the bytes are those, after a -1 they are unknown until
written again. A peer that is started again has the old name and other addresses, which threads learn under a lock, as callers do
by their side channel. Ends with one line of counts.
"""
import argparse
import os
import random
import sys
import threading
import time

os.environ.setdefault("MC_TRANSFER_TIMEOUT", "5")

from mooncake.engine import TransferEngine, TransferNotify, TransferOpcode  # noqa: E402
from processes import Far, Memory  # noqa: E402

THREADS, PEERS, SLICE = 8, 3, 1 << 17
HOST = "127.0.0.1"
SLOW = 60 if "san.so" in os.environ.get("LD_PRELOAD", "") else 30  # s; a call of 5 s on a busy machine, and with a sanitizer


class Place:
    """One peer as threads see it: who it is now, and where its memory lies."""

    def __init__(self):
        self.lock = threading.Lock()
        self.far = Far(HOST).begin()
        self.life = 0
        self.there = self.far.buffer(THREADS * SLICE)[0]

    def now(self):
        with self.lock:
            return self.life, self.far.session, self.there

    def restart(self):
        with self.lock:
            port = self.far.port
            self.far.kill()
            self.far = Far(HOST).begin(port)
            assert self.far.port == port
            self.far.buffer(4096)
            self.there = self.far.buffer(THREADS * SLICE)[0]
            self.life += 1

    def pause(self, seconds):
        with self.lock:
            self.far.stop()
            time.sleep(seconds)
            self.far.go_on()


class Thread(threading.Thread):
    def __init__(self, number, engine, places, until, seed):
        super().__init__()
        self.number, self.engine, self.places, self.until = number, engine, places, until
        self.random = random.Random(seed)
        self.here, self.back = Memory(SLICE), Memory(SLICE)
        self.known = {}  # place -> (life, bytes)
        self.counts = {0: 0, -1: 0}
        self.longest = 0
        self.error = None

    def run(self):
        try:
            while time.monotonic() < self.until:
                place = self.random.choice(self.places)
                life, session, there = place.now()  # waits while it is started again: that is no call's time
                start = time.monotonic()
                self.turn(place, life, session, there)
                took = time.monotonic() - start
                self.longest = max(self.longest, took)
                assert took < SLOW, f"a call took {took:.1f} s"
        except BaseException as error:  # told by main()
            self.error = error

    def took(self, result):
        assert result in (0, -1), result
        self.counts[result] += 1
        return result == 0

    def ranges(self):
        """The slice cut at random points, in random order."""
        cuts = sorted({0, SLICE, *(self.random.randrange(SLICE) for _ in range(self.random.randrange(30)))})
        parts = [(a, b - a) for a, b in zip(cuts, cuts[1:])]
        self.random.shuffle(parts)
        return parts

    def lists(self, memory, base):
        parts = self.ranges()
        return [memory.addr + at for at, _ in parts], [base + at for at, _ in parts], [size for _, size in parts]

    def write(self, place, life, session, base):
        data = self.random.randbytes(SLICE)
        self.known.pop(place, None)
        self.here.set(data)
        local, remote, sizes = self.lists(self.here, base)
        kind = self.random.randrange(3)
        if kind == 0:
            fine = self.took(self.engine.batch_transfer_sync_write(session, local, remote, sizes))
        elif kind == 1:
            fine = self.took(self.engine.batch_transfer_sync(session, local, remote, sizes, TransferOpcode.Write,
                                                             TransferNotify("soak", str(self.number))))
        else:
            batch = self.engine.batch_transfer_async_write(session, local, remote, sizes)
            fine = batch != 0 and self.took(self.engine.get_batch_transfer_status([batch]))
        if fine:
            self.known[place] = (life, data)

    def read(self, place, life, session, base):
        local, remote, sizes = self.lists(self.back, base)
        fine = self.took(self.engine.batch_transfer_sync_read(session, local, remote, sizes))
        wrote = self.known.get(place)
        if fine and wrote and wrote[0] == life:
            assert self.back.get() == wrote[1], f"wrong bytes from {session}"

    def turn(self, place, life, session, there):
        base = there + self.number * SLICE
        what = self.random.random()
        if what < 0.45:
            self.write(place, life, session, base)
        elif what < 0.9:
            self.read(place, life, session, base)
        elif what < 0.93:
            self.engine.send_probe(session)
        elif what < 0.96:
            assert self.engine.transfer_sync_write(session, self.here.addr, 64, 8) == -1
        else:
            assert self.engine.register_memory(self.here.addr, SLICE) == 0
            assert self.engine.unregister_memory(self.here.addr) == 0


def resident():
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def disturb(places, until, dice):
    """Until then: something happens to one of them, and a while nothing."""
    restarts = 0
    while time.monotonic() < until:
        time.sleep(dice.uniform(0.1, 1.5))
        place = dice.choice(places)
        if dice.random() < 0.5:
            place.pause(dice.uniform(0.01, 1))
        else:
            place.restart()
            restarts += 1
    return restarts


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    engine = TransferEngine()
    assert engine.initialize(HOST, "P2PHANDSHAKE", "tcp", "") == 0
    places = [Place() for _ in range(PEERS)]
    until = time.monotonic() + options.seconds
    threads = [Thread(n, engine, places, until, options.seed + n) for n in range(THREADS)]
    for thread in threads:
        thread.start()
    disturb(places, min(until, time.monotonic() + options.seconds / 4), random.Random(options.seed))
    before = resident()
    restarts = disturb(places, until, random.Random(options.seed + 1))
    for thread in threads:
        thread.join(SLOW + 30)
        if thread.is_alive():
            sys.exit("a call hangs")
        if thread.error:
            raise thread.error
    grown = resident() - before
    for place in places:
        place.far.end()
    done, failed = (sum(thread.counts[code] for thread in threads) for code in (0, -1))
    threads_now = len(os.listdir("/proc/self/task"))
    longest = max(thread.longest for thread in threads)
    print(f"{done} calls done, {failed} failed, the longest {longest:.1f} s, {restarts} restarts, {grown >> 10} KiB more, {threads_now} threads")
    assert done > 100 and grown < 32 << 20 and threads_now <= 8


if __name__ == "__main__":
    main()
