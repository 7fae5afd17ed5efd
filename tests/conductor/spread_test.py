"""spread_test - where a prefix lies after somebody else has used it.

Two hosts, `a` and `b`, each with a node and a worker; by --host-id, so neither reads the other's memory. The worker of `a` computes
long prompts, which then lie on the node of `a` only. It leaves; the worker of `b` is asked the same and fetches the prefixes. Under
`global` they exist twice then (design.md: "A prefix fetched this way now exists twice"): node `a` is killed as well, and they are still
in the cache, on `b`. Under `mooncake`, the default, they are copied until a tenth of all memory are copies, and read where they lie from
then on.

    spread_test.py PATH_TO_MOONCAKE
"""
import os
import re
import signal
import subprocess
import sys
import tempfile
import unittest

from cluster import Client, wait_for

BINARY = sys.argv.pop(1)
TOKENS, WHOLE = 1500, 1500 // 64 * 64  # of a prompt; of them in whole blocks


class Part:
    """One process of a cluster that is put together by hand; `says` is what it says of its addresses when it is ready."""

    def __init__(self, home, *words, ready=True):
        read, write = os.pipe()
        env = {**os.environ, "XDG_STATE_HOME": home, "XDG_CACHE_HOME": home, "XDG_RUNTIME_DIR": home}
        with open(os.path.join(home, "log"), "ab") as log:
            self.process = subprocess.Popen([BINARY, *words, f"--ready-fd={write}"] if ready else [BINARY, *words],
                                            stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env, pass_fds=[write])
        os.close(write)
        with os.fdopen(read) as file:
            self.says = dict(word.split("=", 1) for word in file.readline().split()) if ready else {}

    def end(self, what=signal.SIGTERM):
        if self.process.poll() is None:
            self.process.send_signal(what)
        self.process.wait(30)


class Spread(unittest.TestCase):
    def start(self, *conductor_words, memory="64M"):
        self.memory = memory
        self.folder = tempfile.TemporaryDirectory(prefix="mooncake-spread-")
        self.master = self.part("master", "--master-listen=127.0.0.1:0", "--admin-listen=127.0.0.1:0").says["master"]
        conductor = self.part("conductor", f"--master={self.master}", "--conductor-listen=127.0.0.1:0",
                              "--workers-listen=127.0.0.1:0", "--host-id=c", *conductor_words).says
        self.client, self.workers_at = Client("http://" + conductor["http"]), conductor["workers"]

    def setUp(self):
        self.parts = []

    def tearDown(self):
        for part in reversed(self.parts):
            part.end()
        self.folder.cleanup()

    def part(self, *words, ready=True):
        part = Part(self.folder.name, *words, ready=ready)
        self.parts.append(part)
        return part

    def node(self, host):
        node = self.part("node", f"--master={self.master}", "--node-listen=127.0.0.1:0", f"--memory={self.memory}",
                         f"--host-id={host}", f"--node-name={host}", f"--state-dir={self.folder.name}/{host}")
        wait_for(lambda: self.tier(host).get("state") == "up", 60, f"the Conductor knows node {host}")
        return node

    def worker(self, host):
        worker = self.part("worker", "--engine=synthetic", "--synthetic-prefill=1500", f"--master={self.master}",
                           f"--workers-at={self.workers_at}", f"--host-id={host}", f"--worker-name=on-{host}", ready=False)
        wait_for(lambda: self.ready() == ["on-" + host], 60, f"only the worker of {host} is ready")
        return worker

    def ready(self):
        return [w["name"] for w in self.client.status()["workers"] if w["state"] == "ready" and w["store_up"]]

    def tier(self, host):
        return next((t for t in self.client.status()["tiers"] if t["node"] == host), {})

    def reuse(self, tokens, want):
        """Tokens of this prompt that were reused; the text must be `want` in any case."""
        text, m = self.client.complete(tokens, 8)
        self.assertEqual(text, want)
        return m["reused_tokens"], self.client.explained(m)

    def metric(self, name):
        return float(re.search(f"^mooncake_{name} (.*)$", self.client.get("/metrics")[1].decode(), re.M)[1])

    def prompts(self, count):
        return [[300 + (7 * number + i * i) % 200 for i in range(TOKENS)] for number in range(count)]

    def computed_on_a(self, prompts):
        """Their answers; then only the worker of b is there."""
        self.nodes = {host: self.node(host) for host in "ab"}
        worker = self.worker("a")
        texts = [self.client.complete(tokens, 8)[0] for tokens in prompts]
        worker.end()
        self.assertEqual(self.tier("b")["objects"], 0)
        return texts

    def test_a_fetched_prefix_exists_twice(self):
        self.start("--policy=global")
        prompts = self.prompts(5)
        texts, fetched, copied = self.computed_on_a(prompts), [], 0
        worker = self.worker("b")
        for number, tokens in enumerate(prompts):
            reused, why = self.reuse(tokens, texts[number])
            decision = why["decision"]
            self.assertEqual(decision["own_tokens"], 0)
            self.assertEqual(decision["copy_blocks"], decision["load_tokens"] // 64)
            copied += decision["copy_blocks"] * 64 * why["request"]["bytes_per_token"]
            if reused == WHOLE:  # on a busy machine one may be computed in place of being fetched
                fetched.append(number)
        print(f"{len(fetched)} of {len(prompts)} prompts were fetched from the other host")
        self.assertTrue(fetched)
        wait_for(lambda: self.tier("b")["objects"] >= len(prompts) * WHOLE // 64, 60, "what was fetched lies on b, too")
        self.assertEqual(self.metric("copied_bytes_total"), copied)
        self.assertEqual(self.metric("copies_bytes"), copied)  # nothing has been evicted

        self.nodes["a"].end(signal.SIGKILL)
        wait_for(lambda: self.tier("a").get("state") != "up", 60, "the Conductor knows that node a is gone")
        again = [self.reuse(prompts[number], texts[number])[0] for number in fetched]
        self.assertIn(WHOLE, again)
        worker.end()

    def test_copies_stop_at_a_tenth_of_all_memory(self):
        self.start(memory="10M")
        *prompts, last = self.prompts(6)
        texts, computed, copied, read = self.computed_on_a(prompts), WHOLE // 64, 0, 0
        worker = self.worker("b")
        room = sum(self.tier(host)["capacity"] for host in "ab") // 10
        for number, tokens in enumerate(prompts):
            reused, why = self.reuse(tokens, texts[number])
            blocks, block = why["decision"]["load_tokens"] // 64, 64 * why["request"]["bytes_per_token"]
            fits = (copied + blocks) * block <= room
            self.assertEqual(why["decision"]["copy_blocks"], blocks if fits else 0)
            copied += blocks if fits else 0
            read += blocks if not fits else 0
            computed += (WHOLE - reused) // 64
        self.assertGreater(copied, 0)
        self.assertGreater(read, 0)
        self.client.complete(last, 8)  # put behind whatever else is put
        wait_for(lambda: self.tier("b")["objects"] >= computed, 60, "what b has computed lies on b")
        self.assertLessEqual(self.tier("b")["objects"], computed + copied)
        self.assertEqual(self.metric("copied_bytes_total"), copied * block)
        worker.end()


if __name__ == "__main__":
    unittest.main(verbosity=2)
