"""cluster - a whole Mooncake on this machine for a test: `mooncake up` in directories of its own, ended with the test."""
import glob
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request

DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def in_some_attempt(attempt, what, attempts=10):
    """For what the scheduler decides by measured speed: on a machine that is busy with others, computing is now and then predicted
    cheaper than loading, or a load is given up in favour of it. Both are right, and neither may happen every time."""
    seen = []
    for i in range(attempts):
        ok, why = attempt(i)
        if ok:
            return
        seen.append(why)
    raise AssertionError(f"{what}: not in {attempts} attempts: {seen}")


def wait_for(condition, seconds, what):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError(f"not within {seconds} s: {what}")


class Client:
    """One that talks to the Conductor at `url`."""

    def __init__(self, url):
        self.url = url

    def get(self, path):
        try:
            with DIRECT.open(self.url + path, timeout=20) as reply:
                return reply.status, reply.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()
        except OSError:
            return 0, b""

    def status(self):
        return json.loads(self.get("/v1/status")[1])

    def explained(self, mooncake):
        """The first decision of the scheduler about the request with this `mooncake` object that ran, as explain has it."""
        rows = json.loads(self.get(f"/v1/requests/{mooncake['request_id']}/explain")[1])["decisions"]
        return [row for row in rows if row["decision"]["outcome"] == "run"][-1]

    def decision(self, mooncake):
        return self.explained(mooncake)["decision"]

    def open(self, path, body, **headers):
        request = urllib.request.Request(self.url + path, json.dumps(body).encode(),
                                         {"Content-Type": "application/json", **headers})
        return DIRECT.open(request, timeout=60)

    def complete(self, tokens, count=24, cache=True, **more):
        """(text, the mooncake object) of a greedy completion of token ids."""
        body = {"model": "synthetic", "prompt": tokens, "max_tokens": count, "temperature": 0, **more}
        with self.open("/v1/completions", body, **({} if cache else {"X-Mooncake-Cache": "off"})) as reply:
            answer = json.load(reply)
        return answer["choices"][0]["text"], answer["mooncake"]

    def stream(self, tokens, count=200, on_chunk=None, **more):
        """The same as a stream; on_chunk(number of text chunks so far) is called with each."""
        body = {"model": "synthetic", "prompt": tokens, "max_tokens": count, "temperature": 0, "stream": True, **more}
        text, mooncake, chunks = "", None, 0
        with self.open("/v1/completions", body) as reply:
            for line in reply:
                if not line.startswith(b"data: {"):
                    continue
                chunk = json.loads(line[6:])
                if "error" in chunk:
                    raise AssertionError(chunk["error"]["message"])
                mooncake = chunk.get("mooncake", mooncake)
                text += chunk["choices"][0]["text"]
                chunks += 1
                if on_chunk:
                    on_chunk(chunks)
        return text, mooncake


class Cluster(Client):
    """with Cluster(binary, "--decode-workers", "2") as c: c.ask(...)"""

    def __init__(self, binary, *options, environment=None):
        super().__init__(None)
        self.home = tempfile.mkdtemp(prefix="mooncake-test-")
        self.log = os.path.join(self.home, "log")
        env = {**os.environ, **(environment or {}), "XDG_STATE_HOME": self.home, "XDG_CACHE_HOME": self.home,
               "XDG_RUNTIME_DIR": self.home}
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen([binary, "up", "--engine", "synthetic", "--any-port", *options],
                                            stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=env)
        try:
            self.url = self.wait_log(r"mooncake is up .*(http://\S+)", 60).group(1)
            wait_for(lambda: self.get("/healthz")[0] == 200, 60, "a healthy Conductor")
        except BaseException:
            self.stop()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        """SIGTERM, and no longer patience than it deserves."""
        self.process.terminate()
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.home, ignore_errors=True)

    def text(self):
        with open(self.log, encoding="utf-8", errors="replace") as log:
            return log.read()

    def wait_log(self, pattern, seconds):
        until = time.monotonic() + seconds
        while time.monotonic() < until and self.process.poll() is None:
            found = re.search(pattern, self.text())
            if found:
                return found
            time.sleep(0.02)
        raise AssertionError(f"no '{pattern}' in the log within {seconds} s:\n{self.text()[-4000:]}")

    def pid(self, name):
        """Of the child of this name, as it is now: `up` starts a dead one again. (One that has just ended has no words.)"""
        for stat in glob.glob("/proc/[0-9]*/stat"):
            try:
                with open(stat, encoding="ascii", errors="replace") as file:
                    parent = int(file.read().rsplit(")", 1)[1].split()[1])
                with open(os.path.dirname(stat) + "/cmdline", "rb") as file:
                    words = file.read().decode(errors="replace").split("\0")
            except OSError:
                continue
            if parent == self.process.pid and (name in words[1:2] or "--worker-name=" + name in words):
                return int(stat.split("/")[2])
        raise AssertionError(f"no child {name}")

    def kill(self, name, what=signal.SIGKILL):
        os.kill(self.pid(name), what)


def at_once(calls):
    """Run them in threads; their results in order."""
    results = [None] * len(calls)

    def run(i):
        try:
            results[i] = calls[i]()
        except Exception as error:  # pylint: disable=broad-except
            results[i] = error

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in results:
        if isinstance(result, Exception):
            raise result
    return results
