"""processes - second processes of the compat tests, and memory to move."""
import base64
import ctypes
import http.server
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request

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

    def begin_named(self, name, service):
        """Start its engine under a name at a metadata service."""
        result, self.port = self.start(name, service)
        assert result == 0, result
        self.session = name
        return self

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


class Relay:
    """relay.py before the engine of a Far: `session` reaches it through there."""

    def __init__(self, far):
        self.child = subprocess.Popen([sys.executable, os.path.join(HERE, "relay.py"), far.host, str(far.port)],
                                      stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.session = f"127.0.0.1:{int(self.child.stdout.readline())}"

    def stop(self):
        os.kill(self.child.pid, signal.SIGSTOP)

    def go_on(self):
        os.kill(self.child.pid, signal.SIGCONT)

    def cut(self):
        os.kill(self.child.pid, signal.SIGUSR1)

    def end(self):
        self.child.stdin.close()
        self.child.wait(10)
        self.child.stdout.close()


class Metadata:
    """A metadata service as the existing one is: a key that is there is not put again. In a thread of this process."""

    def __init__(self):
        self.keys, self.asked = {}, []
        service = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *args):
                pass

            def answer(self, code, body=b""):
                self.send_response(code)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def key(self):
                parts = urllib.parse.urlsplit(self.path)
                service.asked.append((self.command, parts.path))
                return urllib.parse.parse_qs(parts.query).get("key", [""])[0]

            def do_GET(self):
                key = self.key()
                self.answer(*((200, service.keys[key]) if key in service.keys else (404,)))

            def do_PUT(self):
                key, body = self.key(), self.rfile.read(int(self.headers["Content-Length"]))
                if not key or key in service.keys:
                    self.answer(400, b"Duplicate rpc_meta key not allowed")
                    return
                service.keys[key] = body
                self.answer(200)

            def do_DELETE(self):
                self.answer(200 if service.keys.pop(self.key(), None) is not None else 404)

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/metadata"
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    def end(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


class Etcd:
    """A real etcd server, where there is one."""

    def __init__(self):
        self.folder = tempfile.TemporaryDirectory()
        client, peer = free_port(), free_port()
        self.base = f"http://127.0.0.1:{client}"
        self.url = f"etcd://127.0.0.1:9,127.0.0.1:{client}"  # the first member is down
        self.child = subprocess.Popen(
            ["etcd", "--data-dir", self.folder.name, "--listen-client-urls", self.base, "--advertise-client-urls", self.base,
             "--listen-peer-urls", f"http://127.0.0.1:{peer}", "--initial-advertise-peer-urls", f"http://127.0.0.1:{peer}",
             "--initial-cluster", f"default=http://127.0.0.1:{peer}", "--log-level", "error"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while True:
            assert self.child.poll() is None, "etcd has ended"
            try:
                self.all_keys()
                break
            except OSError:
                time.sleep(0.05)

    def all_keys(self):
        everything = json.dumps({"key": "AA==", "range_end": "AA=="}).encode()  # from zero to the end
        with urllib.request.urlopen(f"{self.base}/v3/kv/range", everything, timeout=5) as answer:
            found = json.load(answer).get("kvs", [])
        return {base64.b64decode(kv["key"]).decode(): base64.b64decode(kv["value"]) for kv in found}

    @property
    def keys(self):
        return self.all_keys()

    def end(self):
        self.child.kill()
        self.child.wait()
        self.folder.cleanup()


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


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
