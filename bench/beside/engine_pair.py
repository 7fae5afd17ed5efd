"""engine_pair.py - two processes that move memory through `mooncake.engine`, ours or the existing wheel: the same script for both.

    engine_pair.py target                     prints {"name", "address"}; ends when its standard input does and says its CPU time
    engine_pair.py initiator '{"name": ...}'  measures and prints one JSON object

Options of the initiator: name, address, op (read, write), size, batch, threads, seconds or count, scatter. Memory of both sides is touched before.
Each thread walks through windows of its own. The slices of a batch lie in reverse order at the other end, so that none is adjacent;
with "scatter": false they are.
"""
import array
import ctypes
import json
import mmap
import os
import statistics
import sys
import threading
import time

from mooncake.engine import TransferEngine

WINDOW = 64 << 20
TARGET = 512 << 20
KEPT = 200_000  # latencies of one thread


def memory(size):
    area = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    address = ctypes.addressof(ctypes.c_char.from_buffer(area))
    ctypes.memset(address, 7, size)
    return area, address


def engine():
    made = TransferEngine()
    if made.initialize("127.0.0.1", "P2PHANDSHAKE", "tcp", "") != 0:
        sys.exit("initialize failed")
    return made


def cpu_s():
    return sum(os.times()[:2])


def target():
    made = engine()
    _area, address = memory(TARGET)
    if made.register_memory(address, TARGET) != 0:
        sys.exit("register failed")
    before = cpu_s()
    print(json.dumps({"name": f"127.0.0.1:{made.get_rpc_port()}", "address": address, "pid": os.getpid()}), flush=True)
    sys.stdin.read()
    print(json.dumps({"cpu_s": cpu_s() - before}), flush=True)
    os._exit(0)  # the existing wheel sometimes ends with a signal when its objects go


def lists(local, remote, opts):
    size, batch = opts["size"], opts["batch"]
    order = range(batch - 1, -1, -1) if opts.get("scatter", True) else range(batch)
    return [local + i * size for i in order], [remote + i * size for i in range(batch)], [size] * batch


def calls(made, opts, local, remote, window):
    """Argument lists of the calls that walk through the window, made before the clock runs."""
    step = opts["size"] * opts["batch"]
    offsets = range(0, max(window // step, 1) * step, step)
    if opts["batch"] == 1:
        call = made.transfer_sync_write if opts["op"] == "write" else made.transfer_sync_read
        return call, [(opts["name"], local + off, remote + off, opts["size"]) for off in offsets]
    call = made.batch_transfer_sync_write if opts["op"] == "write" else made.batch_transfer_sync_read
    return call, [(opts["name"], *lists(local + off, remote + off, opts)) for off in offsets]


class Worker(threading.Thread):
    def __init__(self, made, opts, local, remote, window):
        super().__init__()
        self.call, self.todo = calls(made, opts, local, remote, window)
        self.seconds, self.limit = opts.get("seconds", 1e9), opts.get("count", 1 << 62)
        self.done, self.failed, self.rss_kib = 0, False, []
        self.took = array.array("d", bytes(8 * KEPT))  # all of it now: what grows while rss_kib() looks is the engine's

    def run(self):
        end = time.perf_counter() + self.seconds
        tenth = max(self.limit // 10, 1)
        while self.done < self.limit:
            start = time.perf_counter()
            if self.call(*self.todo[self.done % len(self.todo)]) != 0:
                self.failed = True
                return
            now = time.perf_counter()
            if self.done < KEPT:
                self.took[self.done] = now - start
            self.done += 1
            if self.done % tenth == 0:
                self.rss_kib.append(rss_kib())
            if now > end:
                return


def rss_kib():
    with open("/proc/self/status", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS"))


def initiator(opts):
    made = engine()
    need = opts["size"] * opts["batch"]
    window = need if need > WINDOW else WINDOW // need * need
    threads = opts.get("threads", 1)
    _area, local = memory(window * threads)
    if made.register_memory(local, window * threads) != 0:
        sys.exit("register failed")
    # one after the other, so that connections exist before the clock runs
    workers = [Worker(made, opts, local + i * window, opts["address"] + i * window, window) for i in range(threads)]
    for worker in workers:
        if worker.call(*worker.todo[0]) != 0:
            sys.exit("the first transfer failed")
    before, start = cpu_s(), time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    seconds = time.perf_counter() - start
    if any(worker.failed for worker in workers):
        sys.exit("a transfer failed")
    done = sum(worker.done for worker in workers)
    took = sorted(t for worker in workers for t in worker.took[:worker.done])
    print(json.dumps({
        "seconds": seconds, "calls": done, "gbytes": done * need / 1e9, "gbytes_per_s": done * need / seconds / 1e9,
        "p50_us": statistics.median(took) * 1e6, "p99_us": took[len(took) * 99 // 100] * 1e6, "cpu_s": cpu_s() - before,
        "rss_kib": workers[0].rss_kib, "pid": os.getpid()}), flush=True)
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    if sys.argv[1] == "target":
        target()
    else:
        initiator(json.loads(sys.argv[2]))
