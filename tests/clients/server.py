"""server.py - one `vllm serve` in a process group of its own: started, asked, counted, stopped and killed.

A server is three processes (HTTP, engine, worker); the worker holds the KV cache and our package. Signals go to all of them, as when the
host they run on fails. What they print is in a file whose end is shown when one of them dies.
"""
import json
import os
import re
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from environment import ON_CPU

NAME = "smol"
START_SECONDS = 1200  # 60 to 95 on two idle cores
ANSWER_SECONDS = 300
BLOCK_TOKENS = 32  # the CPU back end takes multiples of 32
ENV = {
    "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_HOST_IP": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo",
    "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": str(os.cpu_count()),
    "PYTHONHASHSEED": "0",  # names of blocks begin with it: all servers need the same
    "VLLM_SERVER_DEV_MODE": "1",  # /reset_prefix_cache
    "VLLM_LOG_STATS_INTERVAL": "1",
    "PYTHONPATH": ON_CPU,
}


def free_port():
    with socket.socket() as there:
        there.bind(("127.0.0.1", 0))
        return there.getsockname()[1]


@contextmanager
def at_once(threads):
    """A pool that nobody waits for on the way out: what it asks ends with the servers that are asked."""
    pool = ThreadPoolExecutor(threads)
    try:
        yield pool
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


class Answer:
    """Text, its tokens, and how far the second best token was behind at each (in natural logarithms of probability)."""

    def __init__(self, choice):
        found = choice["logprobs"]
        self.text, self.tokens = choice["text"], found["tokens"]
        best = (sorted(row.values(), reverse=True) for row in found["top_logprobs"])
        self.gaps = [row[0] - row[1] for row in best]


class Server:
    """`connector` is vLLM's --kv-transfer-config. Not ready before wait()."""

    def __init__(self, run, name, connector, env=None):
        self.name, self.port, self.log = name, free_port(), run.file(f"{name}.log")
        run.say(f"starting server {name!r}")
        command = ["nice", "-n", "10", run.environment.python, "-m", "vllm.entrypoints.cli.main", "serve", run.environment.model,
                   "--served-model-name", NAME, "--host", "127.0.0.1", "--port", str(self.port), "--dtype", "bfloat16",
                   "--max-model-len", "4096", "--max-num-seqs", "8", "--block-size", str(BLOCK_TOKENS), "--enforce-eager",
                   "--kv-transfer-config", json.dumps(connector)]
        with open(self.log, "wb") as file:
            self.child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT,
                                          start_new_session=True, env={**os.environ, **ENV, **run.env, **(env or {})})

    def wait(self):
        until = time.monotonic() + START_SECONDS
        while True:
            try:
                self.get("/health")
                return
            except (urllib.error.URLError, ConnectionError):
                pass
            if self.child.poll() is not None or time.monotonic() > until:
                raise AssertionError(f"{self.name} did not start; the end of {self.log}:\n{self.said()}")
            time.sleep(0.5)

    def said(self, lines=15):
        with open(self.log, encoding="utf-8", errors="replace") as file:
            return "".join(file.readlines()[-lines:])

    # ---- asking ----

    def get(self, path):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=20) as answer:
            return answer.read().decode()

    def post(self, path, body=None, headers=None):
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", method="POST", data=json.dumps(body or {}).encode(),
                                         headers={"Content-Type": "application/json", **(headers or {})})
        try:
            with urllib.request.urlopen(request, timeout=ANSWER_SECONDS) as answer:
                return json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{self.name} answers {error.code} to {path}: {error.read().decode()[:500]}") from None

    def complete(self, prompt, headers=None, **more):
        """The greedy continuation of a prompt of tokens."""
        body = {"model": NAME, "prompt": prompt, "max_tokens": 24, "temperature": 0, "logprobs": 2, **more}
        return Answer(self.post("/v1/completions", body, headers)["choices"][0])

    def ask(self, prompts):
        """All of them at once: the answers, and where their tokens came from."""
        before = self.sources()
        with at_once(len(prompts)) as pool:
            answers = list(pool.map(self.complete, prompts))
        after = self.sources()
        return answers, {source: after[source] - before[source] for source in after}

    # ---- counting ----

    def sums(self, name, label):
        """The samples of a metric, added up by the value of one label."""
        sums = {}
        for labels, value in re.findall(rf"^{re.escape(name)}{{(.*)}} (\S+)$", self.get("/metrics"), re.M):
            key = re.search(rf'{label}="([^"]*)"', labels).group(1)
            sums[key] = sums.get(key, 0) + float(value)
        return sums

    def count(self, name, label):
        return {key: int(value) for key, value in self.sums(name, label).items()}

    def sources(self):
        return self.count("vllm:prompt_tokens_by_source_total", "source")

    # ---- ending ----

    def signal(self, number):
        os.killpg(self.child.pid, number)
        if number == signal.SIGKILL:
            self.child.wait()

    def end(self):
        """As a user ends it; what is left after that is killed."""
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGTERM)
            try:
                self.child.wait(30)
            except subprocess.TimeoutExpired:
                pass
        try:
            self.signal(signal.SIGKILL)
        except ProcessLookupError:
            pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end()
