"""cluster.py - what the tests of the drop-in Store share: a mooncake_master and client processes, started, killed, stopped.

    TESTS.py MASTER TEST...       MASTER is the program; PYTHONPATH has the package

A test is a function test_NAME() of its file; run() calls those that are named, or all, and says which failed. Everything listens on
loopback at ports that were free, and ends with the test.
"""
import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import urllib.error
import urllib.request

MASTER = None
IP6 = os.environ.get("MC_USE_IPV6") == "1"  # the lane on ::1
HOST = "[::1]" if IP6 else "localhost"
MIB = 1 << 20
SLOW = 4  # a machine may be so much slower than promised times are meant for


def wait_for(what, condition, seconds=20):
    """The value of condition() as soon as it is true."""
    until = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > until:
            raise AssertionError(f"after {seconds} s still not: {what}")
        time.sleep(0.005)


class Process:
    """A child that says what it has to say line by line."""

    def __init__(self, *command, env=None, stderr=None):
        self.child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, text=True, bufsize=1,
                                      env={**os.environ, **(env or {})})

    def line(self):
        text = self.child.stdout.readline()
        if not text:
            raise AssertionError(f"{self.child.args[0]} ended with {self.child.wait()}")
        return text.rstrip("\n")

    def ask(self, text):
        self.child.stdin.write(text + "\n")
        self.child.stdin.flush()
        return self.line()

    def send(self, number):
        self.child.send_signal(number)
        if number == signal.SIGKILL:
            self.child.wait()

    def end(self, number=signal.SIGTERM):
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGCONT)
            self.child.send_signal(number)
        for pipe in (self.child.stdin, self.child.stdout):
            pipe.close()
        return self.child.wait(30)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end(signal.SIGKILL)


class Master(Process):
    """mooncake_master at ports of its own, or at the one it had before."""

    def __init__(self, *flags, port=0):
        self.dir = tempfile.TemporaryDirectory()
        super().__init__(MASTER, f"--port={port}", "--metrics_port=0", "--http_metadata_server_port=0", *(["--rpc_address=::1"] if IP6 else []), *flags,
                         env={"XDG_STATE_HOME": self.dir.name})
        words = dict(word.split("=") for word in self.line().split()[1:])
        self.address, self.admin, self.metadata = words["master"], words["admin"], words["metadata"]

    def again(self, *flags):
        """A new one at the same address; the old one must be dead. Its state directory is lost too: the nodes know."""
        return Master(*flags, port=int(self.address.rsplit(":", 1)[1]))

    def http(self, path, method="GET", body=None, at=None):
        request = urllib.request.Request(f"http://{at or self.admin}{path}", method=method, data=body)
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def __exit__(self, *args):
        super().__exit__(*args)
        self.dir.cleanup()


# A client in a process of its own: each line is evaluated, the result's repr comes back. `store` is set up already.
CLIENT = """
import sys
from mooncake.store import MooncakeDistributedStore, ReplicateConfig
store = MooncakeDistributedStore()
print(store.setup(sys.argv[1], "P2PHANDSHAKE", int(sys.argv[2]), 16 << 20, "tcp", "", sys.argv[3]), flush=True)
for line in sys.stdin:
    print(repr(eval(line)), flush=True)
"""


class Client(Process):
    def __init__(self, master, host=HOST, segment=64 * MIB, env=None):
        super().__init__(sys.executable, "-c", CLIENT, host, str(segment), master.address, env=env)
        self.result = int(self.line())

    def do(self, expression):
        return eval(self.ask(expression))  # pylint: disable=eval-used


def store_of(master, host=HOST, segment=64 * MIB, buffer=16 * MIB, **more):
    from mooncake.store import MooncakeDistributedStore
    store = MooncakeDistributedStore()
    result = store.setup(host, "P2PHANDSHAKE", segment, buffer, "tcp", "", master.address, **more)
    assert result == 0, result
    return store


class Memory:
    """A buffer with an address, as engines have them: at(offset) is a number."""

    def __init__(self, size):
        self.bytes = (ctypes.c_char * size)()
        self.address = ctypes.addressof(self.bytes)
        self.size = size

    def at(self, offset):
        return self.address + offset

    def write(self, offset, data):
        ctypes.memmove(self.address + offset, data, len(data))

    def read(self, offset, size):
        return ctypes.string_at(self.address + offset, size)


def equal(got, expected):
    assert got == expected, f"{got!r:.2000}, not {expected!r:.2000}"


def raises(kind, call, *args, **kw):
    """What the exception says."""
    try:
        call(*args, **kw)
    except kind as error:
        return str(error)
    raise AssertionError(f"no {kind.__name__}")


def run(tests):
    global MASTER  # pylint: disable=global-statement
    MASTER = sys.argv[1]
    wanted = sys.argv[2:] or [name[5:] for name in tests if name.startswith("test_")]
    failed = []
    for name in wanted:
        start = time.monotonic()
        try:
            tests[f"test_{name}"]()
            print(f"ok      {name} {time.monotonic() - start:.2f} s", flush=True)
        except Exception:  # pylint: disable=broad-except
            traceback.print_exc()
            print(f"FAILED  {name}", flush=True)
            failed.append(name)
    sys.exit(1 if failed else 0)
