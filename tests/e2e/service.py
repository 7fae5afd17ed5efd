"""service.py - a real `mooncake up` for a test: free ports, directories of its own, its processes by name.

Only the standard library. Every wait is for a condition and has an end.
"""
import contextlib
import http.client
import json
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request


class Service:
    """`with Service(binary, "--option=value") as service:`; everything it started is gone afterwards."""

    def __init__(self, binary, *options, engine="synthetic", env=None):
        self.binary = os.path.abspath(binary)
        self.home = tempfile.mkdtemp(prefix="mooncake-e2e-")
        run_dir = os.path.join(self.home, "run")
        os.mkdir(run_dir, 0o700)
        self.env = {**os.environ, "XDG_STATE_HOME": os.path.join(self.home, "state"), "XDG_RUNTIME_DIR": run_dir,
                    **(env or {})}
        self.options = ["--any-port", "--json", f"--engine={engine}", "--memory=128M", *options]
        self.process = None
        self.info = {}

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_):
        self.close()

    def start(self):
        self.log = open(os.path.join(self.home, "log"), "a+b")
        self.process = subprocess.Popen([self.binary, "up", *self.options], stdout=subprocess.PIPE, stderr=self.log,
                                        stdin=subprocess.DEVNULL, env=self.env)
        line = read_line(self.process.stdout, 60)
        if not line:
            raise AssertionError(f"up did not start:\n{self.log_text()}")
        self.info = json.loads(line)
        self.url = self.info["url"]

    def close(self):
        if self.process and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        if self.process:
            self.process.stdout.close()
            self.log.close()
        shutil.rmtree(self.home, ignore_errors=True)

    def log_text(self):
        with open(os.path.join(self.home, "log"), encoding="utf-8", errors="replace") as file:
            return file.read()

    # ---- processes ----

    def pids(self):
        """Name -> pid of the children that live now, by what stands on their command lines."""
        found = {}
        with open(f"/proc/{self.process.pid}/task/{self.process.pid}/children", encoding="ascii") as file:
            children = file.read().split()
        for pid in children:
            with contextlib.suppress(OSError):
                with open(f"/proc/{pid}/cmdline", "rb") as file:
                    words = file.read().decode().split("\0")
                if len(words) > 1:  # nothing stands there of one that has just ended
                    name = next((word.split("=")[1] for word in words if word.startswith("--worker-name=")), words[1])
                    found[name] = int(pid)
        return found

    def kill(self, name):
        """kill -9, and wait until the kernel has buried it. Returns the pid it had."""
        pid = self.pids()[name]
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: self.pids().get(name) != pid, 5, f"{name} is gone")
        return pid

    def cpu_seconds(self):
        """CPU of up and all children so far, to the nanosecond."""
        return self.schedstat(0) / 1e9

    def wakes(self):
        """How often threads of up and all children were given a processor so far."""
        return self.schedstat(2)

    def schedstat(self, column):
        total = 0
        for pid in [self.process.pid, *self.pids().values()]:
            for task in os.listdir(f"/proc/{pid}/task"):
                with contextlib.suppress(OSError):
                    with open(f"/proc/{pid}/task/{task}/schedstat", encoding="ascii") as file:
                        total += int(file.read().split()[column])
        return total

    # ---- HTTP ----

    def get(self, path, timeout=10):
        """(status, text)"""
        try:
            with urllib.request.urlopen(self.url + path, timeout=timeout) as reply:
                return reply.status, reply.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def post(self, path, body, timeout=60, headers=None):
        """(status, JSON)"""
        request = urllib.request.Request(self.url + path, json.dumps(body).encode(),
                                         {"Content-Type": "application/json", **(headers or {})})
        try:
            with urllib.request.urlopen(request, timeout=timeout) as reply:
                return reply.status, json.load(reply)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def model(self):
        return json.loads(self.get("/v1/models")[1])["data"][0]["id"]

    def chat(self, text, max_tokens=32, timeout=60, **more):
        """The answer as JSON; an error status is an assertion."""
        headers = more.pop("headers", None)
        status, answer = self.post("/v1/chat/completions", self.chat_body(text, max_tokens, **more), timeout, headers)
        assert status == 200, (status, answer)
        return answer

    def chat_body(self, text, max_tokens, **more):
        return {"model": self.model(), "messages": [{"role": "user", "content": text}], "max_tokens": max_tokens,
                "temperature": 0, **more}

    def stream(self, text, max_tokens=64, timeout=60, **more):
        """A Stream that is read while the test does other things."""
        return Stream(self, self.chat_body(text, max_tokens, stream=True, stream_options={"include_usage": True}, **more),
                      timeout)

    def run(self, *args, timeout=60, env=None, **more):
        """A command of the binary, pointed at this service."""
        return subprocess.run([self.binary, *args], env={**self.env, **(env or {})}, text=more.pop("text", True), timeout=timeout,
                              capture_output=True, check=False, stdin=more.pop("stdin", subprocess.DEVNULL), **more)


class Stream(threading.Thread):
    """Server-sent events of one chat completion, gathered by a thread."""

    def __init__(self, service, body, timeout):
        super().__init__(daemon=True)
        self.pieces, self.usage, self.ours, self.error, self.done, self.finish = [], None, None, None, False, None
        host = service.url.split("//")[1]
        self.connection = http.client.HTTPConnection(host, timeout=timeout)
        self.connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
        self.start()

    def run(self):
        try:
            reply = self.connection.getresponse()
            if reply.status != 200:
                self.error = f"HTTP {reply.status}: {reply.read().decode()}"
                return
            for line in reply:
                if line.startswith(b"data:"):
                    self.take(line[5:].strip())
        except (OSError, http.client.HTTPException, ValueError) as error:
            self.error = self.error or repr(error)
        finally:
            self.connection.close()

    def take(self, data):
        if data == b"[DONE]":
            self.done = True
            return
        chunk = json.loads(data)
        if "error" in chunk:
            self.error = json.dumps(chunk["error"])
            return
        for choice in chunk["choices"]:
            if choice["delta"].get("content"):
                self.pieces.append(choice["delta"]["content"])
            self.finish = choice["finish_reason"] or self.finish
        self.usage = chunk.get("usage") or self.usage
        self.ours = chunk.get("mooncake") or self.ours

    def wait_pieces(self, count, seconds=30):
        wait_for(lambda: len(self.pieces) >= count or not self.is_alive(), seconds, f"{count} pieces of the stream")
        assert len(self.pieces) >= count, f"the stream ended after {len(self.pieces)} pieces: {self.error}"

    def text(self, seconds=60):
        """The whole answer; an assertion when it is not whole."""
        self.join(seconds)
        assert not self.is_alive(), f"the stream still runs after {seconds} s, {len(self.pieces)} pieces came"
        assert self.done and not self.error, f"the stream broke after {len(self.pieces)} pieces: {self.error}"
        return "".join(self.pieces)


def wait_for(condition, seconds, what):
    """Look until it holds; an assertion when the time is over."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, f"waited {seconds} s for: {what}"
        time.sleep(0.01)


def read_line(file, seconds):
    """One line of a pipe, b"" at its end or when the time is over."""
    lines = []
    reader = threading.Thread(target=lambda: lines.append(file.readline()), daemon=True)
    reader.start()
    reader.join(seconds)
    return lines[0] if lines else b""


def document(words=900, seed=7):
    """Plain text that is always the same: a prompt of well over a thousand tokens."""
    nouns = ["block", "prefix", "worker", "node", "token", "layer", "cache", "queue", "prompt", "answer"]
    verbs = ["keeps", "finds", "moves", "computes", "loads", "sends", "reads", "holds", "drops", "counts"]
    out, state = [], seed
    while len(out) < words:
        state = (state * 1103515245 + 12345) % (1 << 31)
        out += ["the", nouns[state // 7 % 10], verbs[state // 71 % 10], "the", nouns[state // 713 % 10] + "."]
    return " ".join(out)
