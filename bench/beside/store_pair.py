"""store_pair.py - a process with a client of `mooncake.store`, ours or the existing wheel: the same script for both.

    store_pair.py owner MASTER BYTES             gives memory; prints {"pid"}; ends when its standard input does and says its CPU time
    store_pair.py client MASTER BYTES '{...}'    measures and prints one JSON object; BYTES above 0: the objects lie in its own segment

Options of the client: op (put, get, get_into, batch_get_into, is_exist, batch_is_exist, put_batch, idle), size, batch, seconds or count. Objects are
put and memory is touched before the clock runs; gets walk through objects of together WINDOW bytes. Every result is looked at.
"""
import ctypes
import json
import mmap
import os
import statistics
import sys
import time

from mooncake.store import MooncakeDistributedStore

from kit import free_port

WINDOW = 64 << 20
OBJECTS_MAX = 1024
LOCAL_BUFFER = 512 << 20
KEY_LENGTH = 64


def connected(master, segment):
    made = MooncakeDistributedStore()
    if made.setup(f"127.0.0.1:{free_port()}", "P2PHANDSHAKE", segment, LOCAL_BUFFER, "tcp", "", master) != 0:
        sys.exit("setup failed")
    return made


def cpu_s():
    return sum(os.times()[:2])


def must(good):
    if not good:
        sys.exit("a call failed")


class Calls:
    """What is measured: call(i) is one call, `bytes` and `ops` are of each."""

    def __init__(self, made, opts):
        self.store, self.size, self.batch = made, opts["size"], opts["batch"]
        self.n = max(min(OBJECTS_MAX, WINDOW // self.size), self.batch, 4)
        self.data = os.urandom(self.size)
        self.call = getattr(self, opts["op"])
        self.ops, self.bytes = self.batch, self.size * self.batch
        if opts["op"] not in ("put", "put_batch"):
            for i in range(self.n):
                must(made.put(f"object-{i}", self.data) == 0)
        self.keys = [f"object-{i}" for i in range(self.batch)]
        self.area = mmap.mmap(-1, self.bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self.area))
        ctypes.memset(self.address, 7, self.bytes)
        must(made.register_buffer(self.address, self.bytes) == 0)
        self.places = [self.address + i * self.size for i in range(self.batch)]
        self.sizes = [self.size] * self.batch

    def put(self, i):
        must(self.store.put(f"new-{i}", self.data) == 0)

    def put_batch(self, i):
        keys = [f"new-{i * self.batch + k}".ljust(KEY_LENGTH, "x") for k in range(self.batch)]
        must(self.store.put_batch(keys, [self.data] * self.batch) == 0)

    def get(self, i):
        must(len(self.store.get(f"object-{i % self.n}")) == self.size)

    def get_into(self, i):
        must(self.store.get_into(f"object-{i % self.n}", self.address, self.size) == self.size)

    def batch_get_into(self, i):
        keys = [f"object-{(i * self.batch + k) % self.n}" for k in range(self.batch)]
        must(self.store.batch_get_into(keys, self.places, self.sizes) == self.sizes)

    def is_exist(self, i):
        must(self.store.is_exist(f"object-{i % self.n}") == 1)

    def batch_is_exist(self, i):
        must(self.store.batch_is_exist(self.keys) == [1] * self.batch)

    def idle(self, i):
        time.sleep(1)


def measure(calls, seconds, count):
    took, done, start = [], 0, time.perf_counter()
    before, end = cpu_s(), start + seconds
    while True:
        begun = time.perf_counter()
        calls.call(done)
        now = time.perf_counter()
        took.append(now - begun)
        done += 1
        if now > end or done == count:
            break
    took.sort()
    gbytes = done * calls.bytes / 1e9
    return {"seconds": now - start, "calls": done, "gbytes": gbytes, "gbytes_per_s": gbytes / (now - start),
            "ops_per_s": done * calls.ops / (now - start), "ops": done * calls.ops, "p50_us": statistics.median(took) * 1e6,
            "p99_us": took[len(took) * 99 // 100] * 1e6, "cpu_s": cpu_s() - before}


def main():
    role, master, segment = sys.argv[1], sys.argv[2], int(sys.argv[3])
    made = connected(master, segment)
    if role == "owner":
        before = cpu_s()
        print(json.dumps({"pid": os.getpid()}), flush=True)
        sys.stdin.read()
        print(json.dumps({"cpu_s": cpu_s() - before}), flush=True)
    else:
        opts = json.loads(sys.argv[4])
        calls = Calls(made, opts)
        print(json.dumps({"pid": os.getpid()}), flush=True)
        sys.stdin.readline()
        print(json.dumps(measure(calls, opts.get("seconds", 1e9), opts.get("count"))), flush=True)
        sys.stdin.read()
    os._exit(0)  # the existing wheel sometimes ends with a signal when its objects go


if __name__ == "__main__":
    main()
