"""store.py - rows of the Store: our Python package beside the existing wheel, `mooncake bench store` beside redis, memcached and iperf3.

Each measurement has a master of its own, a process that owns the memory (unless the row says that the client does), and a client that
measures. The wheel runs with and without its connection pool; the better one counts. Every byte that ours gives out was verified.
"""
import json
import os
import signal
import socket
import subprocess
import time

from beside.kit import PEER, Goal, Row, Sample, free_port, need, run, shown
from beside.transfer import iperf3, pair_env

PAIR = os.path.join(os.path.dirname(os.path.abspath(__file__)), "store_pair.py")
SEGMENT = 2 << 30
IDLE_S = 60
TICKS = os.sysconf("SC_CLK_TCK")


# ---- processes ----

def process_of(pid):
    """(CPU seconds, threads, resident bytes) of a process."""
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS, int(fields[17]), int(fields[21]) * os.sysconf("SC_PAGE_SIZE")


def wait_for(port):
    end = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except ConnectionRefusedError:
            if time.monotonic() > end:
                raise
            time.sleep(0.02)


class Master:
    """mooncake_master: ours is a program of the build, the wheel's a script that starts one."""

    def __init__(self, place, name, interpreter, env):
        port = free_port()
        program = os.path.join(place.build, "compat", "master", "mooncake_master") if name == "ours" else os.path.join(
            os.path.dirname(interpreter), "mooncake_master")
        self.process = subprocess.Popen([program, f"--rpc_port={port}", f"--metrics_port={free_port()}"], env=env,
                                        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.address = f"127.0.0.1:{port}"
        wait_for(port)

    def pid(self):
        with open(f"/proc/{self.process.pid}/task/{self.process.pid}/children", encoding="ascii") as file:
            children = file.read().split()
        return int(children[0]) if children else self.process.pid

    def end(self):
        os.kill(self.pid(), signal.SIGKILL)
        self.process.wait()


class Member:
    """A process of store_pair.py."""

    def __init__(self, interpreter, env, *words):
        self.process = subprocess.Popen([interpreter, PAIR, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                                        text=True, env=env)
        self.pid = self.line()["pid"]

    def line(self):
        for line in self.process.stdout:  # the existing wheel logs to standard output too
            if line.startswith("{"):
                return json.loads(line)
        raise RuntimeError(f"store_pair.py ended with {self.process.wait()} and printed nothing")

    def end(self):
        self.process.stdin.close()
        self.process.kill()
        self.process.wait()


def measured(place, name, tcp, own, opts):
    """What the client printed, with the CPU time of all processes; for the others threads, CPU and memory while it measured."""
    interpreter, env = pair_env(place, name, tcp)
    env = {**os.environ, "MOONCAKE_LOG": "error", **env}
    if not tcp:
        env.pop("MC_FORCE_TCP", None)
    members, master = [], Master(place, name, interpreter, env)
    try:
        if not own:
            members.append(Member(interpreter, env, "owner", master.address, str(SEGMENT)))
        client = Member(interpreter, env, "client", master.address, str(SEGMENT if own else 0), json.dumps(opts))
        members.append(client)
        others = {"master": master.pid(), **({} if own else {"owner": members[0].pid})}
        before = {who: process_of(pid) for who, pid in others.items()}
        client.process.stdin.write("go\n")
        client.process.stdin.flush()
        raw = client.line()
        for who, pid in others.items():
            cpu, threads, resident = process_of(pid)
            raw[who] = {"cpu_s": cpu - before[who][0], "threads": threads, "grown_bytes": resident - before[who][2]}
            raw["cpu_s"] += raw[who]["cpu_s"]
        return raw
    finally:
        for member in members:
            member.end()
        master.end()


# ---- contenders ----

def python(name, op, key, tcp, own, size, batch, value=None, count=None):
    def contender(place):
        opts = {"op": op, "size": size, "batch": batch, **({"count": count} if count else {"seconds": place.seconds})}
        raw = measured(place, name, tcp, own, opts)
        words = [*(["MC_FORCE_TCP=1"] if tcp else []), name, "store_pair.py", "client", json.dumps(opts)]
        cpu = raw["cpu_s"] / raw["gbytes"] if op not in ("is_exist", "batch_is_exist") else None
        return {name: Sample(value(raw) if value else raw[key], cpu, shown(words), raw)}
    return contender


def all_of(op, key, size=4096, batch=1, tcp=False, own=False, **more):
    return [python(name, op, key, tcp, own, size, batch, **more) for name in ("ours", "peer", "peer-pool")]


def ours(size):
    """`mooncake bench store`, gets over tcp."""
    def contender(place):
        words = [place.mooncake(), "bench", "store", "--transport", "tcp", "--op", "get", "--named", "--size", size, "--seconds",
                 str(place.seconds), "--json"]
        raw = json.loads(run(words))
        return {"ours": Sample(raw["gbytes_per_s"], raw["cpu_s_per_gb"], shown(words), raw), "p99 ms": Sample(raw["p99_us"] / 1e3, None, shown(words), None)}
    return contender


def redis(size):
    """redis-benchmark GET of one value of that size over one connection."""
    def contender(place):
        server, client, port = need("redis-server", "redis-server"), need("redis-benchmark", "redis-tools"), free_port()
        words = [server, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        with subprocess.Popen(words, stdout=subprocess.DEVNULL) as process:
            try:
                wait_for(port)
                before = process_of(process.pid)[0]
                words = [client, "-p", str(port), "-t", "set,get", "-d", str(size), "-c", "1", "-n", str(max(int(place.seconds * 2e9 / size), 100)),
                         "--csv"]
                rows = [line.replace('"', "").split(",") for line in run(words).splitlines()]
                per_s = float(next(row[1] for row in rows if row[0] == "GET"))
                cpu = process_of(process.pid)[0] - before
            finally:
                process.terminate()
        return {"redis": Sample(per_s * size / 1e9, None, shown(words), {"ops_per_s": per_s, "server_cpu_s": cpu})}
    return contender


def memcached_gets(port, size, seconds):
    """Gets of one value one after the other over one connection, into the same memory: (gets, seconds they took)."""
    answer = b"VALUE key 0 %d\r\n" % size
    whole = len(answer) + size + len(b"\r\nEND\r\n")
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.sendall(b"set key 0 0 %d\r\n" % size + os.urandom(size) + b"\r\n")
        if sock.recv(64) != b"STORED\r\n":
            raise RuntimeError("memcached did not store the value")
        memory, gets, start = bytearray(whole), 0, time.perf_counter()
        while (now := time.perf_counter()) < start + seconds:
            sock.sendall(b"get key\r\n")
            if sock.recv_into(memory, whole, socket.MSG_WAITALL) != whole or not memory.startswith(answer):
                raise RuntimeError("memcached did not give the value")
            gets += 1
    return gets, now - start


def memcached(size):
    """GET of one value of that size over one connection, by a client of ours (a send and a receive for each; not in C)."""
    def contender(place):
        server, port = need("memcached", "memcached"), free_port()
        words = [server, "-l", "127.0.0.1", "-p", str(port), "-U", "0", "-I", "8m", "-u", "nobody"]
        with subprocess.Popen(words, stdout=subprocess.DEVNULL) as process:
            try:
                wait_for(port)
                before = process_of(process.pid)[0] + sum(os.times()[:2])
                gets, seconds = memcached_gets(port, size, place.seconds)
                cpu = process_of(process.pid)[0] + sum(os.times()[:2]) - before
            finally:
                process.terminate()
        gbytes = gets * size / 1e9
        return {"memcached": Sample(gbytes / seconds, cpu / gbytes, shown(words), {"gets": gets, "seconds": seconds, "cpu_s": cpu})}
    return contender


# What a key costs depends on how full the master's table is when its memory is looked at: so everybody puts as many.
KEYS = 100_000


def bytes_per_key(raw):
    return raw["master"]["grown_bytes"] / raw["ops"] - 64


def idle(place):
    opts = {"op": "idle", "size": 4096, "batch": 1, "seconds": max(IDLE_S * place.scale, 2)}
    raw = measured(place, "ours", False, False, opts)
    others = [raw["master"], raw["owner"]]
    return {"ours": Sample(sum(other["cpu_s"] for other in others), None, json.dumps(opts), raw),
            "threads": Sample(max(other["threads"] for other in others), None, "", None)}


# ---- rows ----

def peer(least, factor):
    return [Goal(least, factor, PEER)]


def small_rows():
    where = "4 KiB from Python, owner in another process"
    for op, most in (("put", 90), ("get", 40)):
        yield Row(f"store-{op}-4k", f"{op} {where}, p50", "us", all_of(op, "p50_us"), [Goal(False, most)])
        yield Row(f"store-{op}-4k-tcp", f"{op} {where}, over tcp, p50", "us", all_of(op, "p50_us", tcp=True), peer(False, 0.6))
    for size, most in ((4096, 15), (65536, 20)):
        yield Row(f"store-own-{size >> 10}k", f"get_into {size >> 10} KiB, the client owns the segment, p50", "us",
                  all_of("get_into", "p50_us", size, own=True), [Goal(False, most)])
    yield Row("store-exist", "is_exist, p50", "us", all_of("is_exist", "p50_us"), peer(False, 0.6))
    yield Row("store-exist-128", "batch_is_exist of 128, p50", "us", all_of("batch_is_exist", "p50_us", batch=128), peer(False, 0.6))


def large_rows():
    for size, factor in ((1 << 20, 4), (16 << 20, 3)):
        yield Row(f"store-get-{size >> 20}m", f"get_into {size >> 20} MiB", "GB/s", all_of("get_into", "gbytes_per_s", size), peer(True, factor))
    yield Row("store-get-32x64k", "batch_get_into 32 x 64 KiB", "GB/s", all_of("batch_get_into", "gbytes_per_s", 65536, 32), peer(True, 4))
    yield Row("store-get-16m-tcp", "get_into 16 MiB over tcp", "GB/s",
              [python("ours", "get_into", "gbytes_per_s", True, False, 16 << 20, 1), iperf3(1)], [Goal(True, 0.8, "iperf3")])


def master_rows():
    yield Row("store-put-200", "put_batch of 200 values of 64 B under keys of 64 B: keys a second", "1/s",
              all_of("put_batch", "ops_per_s", 64, 200), peer(True, 5))
    yield Row("store-key-bytes", f"what the master keeps of a key of 64 B, beside the key, after {KEYS:,} of them", "B",
              all_of("put_batch", "ops", 64, 200, value=bytes_per_key, count=KEYS // 200), [Goal(False, 200)])
    yield Row("store-idle", "master and owner with nothing to do for a minute: CPU; threads of each", "s", [idle],
              [Goal(False, 0.05), Goal(False, 8, of="threads")], rounds=1)


def redis_rows():
    double = Goal(True, 2, "redis")
    yield Row("store-tcp-64k", "get of 64 KiB over tcp", "GB/s", [ours("64K"), redis(65536), memcached(65536)], [double])
    yield Row("store-tcp-1m", "get of 1 MiB over tcp; p99 in ms", "GB/s", [ours("1M"), redis(1 << 20), memcached(1 << 20)], [double, Goal(False, 5, of="p99 ms")])


ROWS = [*small_rows(), *large_rows(), *master_rows(), *redis_rows()]
