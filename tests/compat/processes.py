"""processes - second processes of the compat tests, and memory to move."""
import ctypes
import json
import os
import random
import signal
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))


class Far:
    """A Peer of engine_peer.py in a process of its own: far.buffer(100) runs there."""

    def __init__(self, host, **env):
        self.host = host
        self.child = subprocess.Popen([sys.executable, os.path.join(HERE, "engine_peer.py")], stdin=subprocess.PIPE,
                                      stdout=subprocess.PIPE, text=True, env={**os.environ, **env})
        self.session = None

    def __getattr__(self, name):
        def ask(*args):
            self.child.stdin.write(json.dumps({"do": name, "args": args}) + "\n")
            self.child.stdin.flush()
            return json.loads(self.child.stdout.readline())["result"]
        return ask

    def begin(self, port=0):
        """Start its engine, at `port` when given; the name that others call it by."""
        bare = f"[{self.host}]" if ":" in self.host else self.host
        result, got = self.start(f"{bare}:{port}" if port else self.host)
        assert result == 0, result
        self.port = got
        self.session = f"{bare}:{got}"
        return self

    def stop(self):
        os.kill(self.child.pid, signal.SIGSTOP)

    def go_on(self):
        os.kill(self.child.pid, signal.SIGCONT)

    def kill(self):
        self.child.kill()
        self.end()

    def end(self):
        self.child.stdin.close()
        try:
            self.child.wait(10)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()
        self.child.stdout.close()


class Memory:
    """A buffer of this process by its address."""

    def __init__(self, size, data=None):
        self.buffer = ctypes.create_string_buffer(size)
        self.addr = ctypes.addressof(self.buffer)
        self.size = size
        if data:
            self.set(data)

    def set(self, data, at=0):
        ctypes.memmove(self.addr + at, data, len(data))

    def get(self, at=0, size=None):
        return ctypes.string_at(self.addr + at, self.size - at if size is None else size)


def noise(seed, size):
    return random.Random(seed).randbytes(size)
