"""cluster_test - whole clusters with the synthetic engine behind the Conductor: every answer is compared with that of one worker alone
without a Store, whatever route it took, whatever was killed meanwhile. The engine checks each imported byte itself.

    cluster_test.py PATH_TO_MOONCAKE [TEST...]
"""
import json
import random
import signal
import sys
import time
import unittest

from cluster import Cluster, at_once

BINARY = sys.argv.pop(1)
FIRST, LAST = 300, 500  # ordinary words of the synthetic vocabulary


def prompt(seed, count):
    words = random.Random(seed)
    return [words.randrange(FIRST, LAST) for _ in range(count)]


class Alone:
    """What the engine alone says: one worker, no Store."""
    cluster = None
    known = {}

    @classmethod
    def says(cls, tokens, count=24, **more):
        key = (tuple(tokens), count, tuple(sorted(more.items())))
        if key not in cls.known:
            cls.known[key] = cls.cluster.complete(tokens, count, **more)[0]
        return cls.known[key]


def setUpModule():
    Alone.cluster = Cluster(BINARY, "--no-store", "--prefill-workers", "0")


def tearDownModule():
    Alone.cluster.stop()


class Routes(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.c = Cluster(BINARY, "--memory", "256M", "--synthetic-prefill", "4000")  # loading pays

    @classmethod
    def tearDownClass(cls):
        cls.c.stop()

    def test_lengths_cold_and_again(self):
        for n in [1, 2, 63, 64, 65, 127, 128, 129, 500, 1000, 1537]:
            tokens = prompt(n, n)
            cold, m = self.c.complete(tokens)
            self.assertEqual(cold, Alone.says(tokens), n)
            self.assertEqual(m["reused_tokens"], 0, n)
            self.assertEqual(m["route"], "direct" if n <= 64 else "split", n)
            again, m = self.c.complete(tokens)
            self.assertEqual(again, cold, n)
            if n > 128:
                self.assertGreater(m["reused_tokens"], 0, n)

    def test_partial_prefixes(self):
        base = prompt(7, 1024)
        self.c.complete(base)
        for shared in [511, 512, 513, 575, 576, 577]:
            tokens = base[:shared] + prompt(shared, 700 - shared)
            text, m = self.c.complete(tokens)
            self.assertEqual(text, Alone.says(tokens), shared)
            self.assertLessEqual(m["reused_tokens"], shared // 64 * 64)

    def test_cache_off(self):
        tokens = prompt(8, 900)
        first, _ = self.c.complete(tokens)
        text, m = self.c.complete(tokens, cache=False)
        self.assertEqual(text, first)
        self.assertEqual(m["reused_tokens"], 0)

    def test_chat_turns_hit_the_answer(self):
        messages = [{"role": "user", "content": "KVCache 是什么? " * 40}]
        reused = []
        for _ in range(3):
            with self.c.open("/v1/chat/completions", {"model": "synthetic", "messages": messages, "temperature": 0,
                                                      "max_tokens": 150, "ignore_eos": True}) as reply:
                answer = json.load(reply)
            reused.append(answer["usage"]["prompt_tokens_details"]["cached_tokens"])
            self.assertEqual(reused[-1], answer["mooncake"]["reused_tokens"])
            messages += [answer["choices"][0]["message"], {"role": "user", "content": "and then?"}]
        self.assertEqual(reused[0], 0)
        self.assertGreater(reused[1], 0)
        self.assertGreater(reused[2], reused[1])

    def test_eight_at_once(self):
        prompts = [prompt(100 + i, 200 + 50 * i) for i in range(8)]
        answers = at_once([lambda p=p: self.c.stream(p, 60) for p in prompts])
        for tokens, (text, _) in zip(prompts, answers):
            self.assertEqual(text, Alone.says(tokens, 60))

    def test_sampled_with_a_seed(self):
        tokens = prompt(9, 300)
        sampled = {"temperature": 1.0, "seed": 42, "top_p": 0.95, "frequency_penalty": 0.5}
        self.assertEqual(self.c.complete(tokens, 60, **sampled)[0], Alone.says(tokens, 60, **sampled))

    def test_predictions_are_learned(self):
        for i in range(12):
            _, m = self.c.complete(prompt(1000 + i, 900), 2)
        self.assertLess(m["timing"]["ttft_predicted_ms"], 10 * m["timing"]["ttft_ms"] + 50)
        self.assertIn(b"mooncake_ttft_ratio_count", self.c.get("/metrics")[1])


class Deaths(unittest.TestCase):
    """Each in a cluster of its own; decode is slow enough to be hit in the middle."""

    def cluster(self, *options):
        return Cluster(BINARY, "--memory", "128M", "--synthetic-decode", "5", *options)

    def test_decode_worker_is_killed(self):
        tokens = prompt(20, 400)
        want = Alone.says(tokens, 150, ignore_eos=True)
        with self.cluster("--decode-workers", "2") as c:
            for at in (3, 40, 90):
                before = c.status()
                victim = []

                def kill(chunks):
                    if chunks == at:
                        busy = [w["name"] for w in c.status()["workers"] if w["role"] == "decode" and w["running"]]
                        victim.append(busy[0])
                        c.kill(busy[0])

                text, m = c.stream(tokens, 150, kill, ignore_eos=True)
                self.assertEqual(text, want, at)
                self.assertEqual(len(victim), 1)
                self.assertGreaterEqual(m["moves"], 1)
                c.wait_for(lambda: len([w for w in c.status()["workers"] if w["state"] == "ready"]) ==
                           len(before["workers"]), 15, "the killed worker is back")

    def test_decode_worker_is_stopped(self):
        tokens = prompt(21, 400)
        with self.cluster("--decode-workers", "2") as c:
            stopped = []

            def stop(chunks):
                if chunks == 20:
                    stopped.append([w["name"] for w in c.status()["workers"] if w["running"]][0])
                    c.kill(stopped[0], signal.SIGSTOP)

            start = time.monotonic()
            text, m = c.stream(tokens, 150, stop, ignore_eos=True)
            if stopped:
                c.kill(stopped[0], signal.SIGCONT)
            self.assertEqual(text, Alone.says(tokens, 150, ignore_eos=True))
            self.assertGreaterEqual(m["moves"], 1)
            self.assertLess(time.monotonic() - start, 8)

    def test_prefill_worker_is_killed(self):
        tokens = prompt(22, 1500)
        with self.cluster("--synthetic-prefill", "2000", "--prefill-workers", "2") as c:
            def kill():
                c.wait_for(lambda: any(w["role"] == "prefill" and w["waiting"] for w in c.status()["workers"]), 5,
                           "a prefill worker at work")
                c.kill([w["name"] for w in c.status()["workers"] if w["role"] == "prefill" and w["waiting"]][0])

            (text, m), _ = at_once([lambda: c.complete(tokens, 24), kill])
            self.assertEqual(text, Alone.says(tokens, 24))
            self.assertEqual(m["moves"], 1)

    def test_no_prefill_pool(self):
        tokens = prompt(23, 600)
        with self.cluster("--prefill-workers", "0") as c:
            text, m = c.complete(tokens)
            self.assertEqual(text, Alone.says(tokens))
            self.assertEqual(m["route"], "single")

    def test_store_dies(self):
        prompts = [prompt(30 + i, 500) for i in range(4)]
        with self.cluster() as c:
            c.complete(prompts[0])
            c.kill("node", signal.SIGSTOP)
            for tokens in prompts:
                text, m = c.complete(tokens)
                self.assertEqual(text, Alone.says(tokens))
            c.kill("node", signal.SIGCONT)
            c.kill("master", signal.SIGSTOP)
            for tokens in prompts:
                start = time.monotonic()
                text, m = c.complete(tokens)
                self.assertEqual(text, Alone.says(tokens))
                self.assertLess(time.monotonic() - start, 6)
            c.kill("master", signal.SIGCONT)
            self.assertIsNotNone(m)

    def test_master_and_node_are_killed(self):
        with self.cluster() as c:
            c.complete(prompt(40, 500))
            c.kill("master")
            c.kill("node")
            for i in range(5):
                tokens = prompt(41 + i, 300)
                self.assertEqual(c.complete(tokens)[0], Alone.says(tokens))


class Cancelling(unittest.TestCase):
    def test_a_client_that_leaves(self):
        with Cluster(BINARY, "--memory", "64M", "--synthetic-decode", "20") as c:
            reply = c.open("/v1/completions", {"model": "synthetic", "prompt": prompt(50, 200), "max_tokens": 2000,
                                               "stream": True, "ignore_eos": True})
            reply.read(2000)
            self.assertTrue(any(w["running"] for w in c.status()["workers"]))
            reply.close()
            c.wait_for(lambda: not any(w["running"] for w in c.status()["workers"]), 2, "the run is cancelled")
            c.wait_for(lambda: not any(w["kv_tokens"] for w in c.status()["workers"]), 3, "its KV is given back")


if __name__ == "__main__":
    unittest.main(verbosity=2)
