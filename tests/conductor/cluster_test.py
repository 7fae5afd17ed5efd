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

from cluster import Cluster, at_once, in_some_attempt, wait_for

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
        cls.c = Cluster(BINARY, "--memory", "256M", "--synthetic-prefill", "1500")  # loading pays, also on a busy machine

    @classmethod
    def tearDownClass(cls):
        cls.c.stop()

    def test_lengths_cold_and_again(self):
        for n in [1, 2, 63, 64, 65, 127, 128, 129, 500, 1000, 1537]:
            tokens = prompt(n, n)
            cold, m = self.c.complete(tokens)
            self.assertEqual(cold, Alone.says(tokens), n)
            self.assertEqual(m["reused_tokens"], 0, n)
            if n != 64:  # a prompt without a whole block to hand over is never split, a long rest never decode's work
                self.assertEqual(m["route"] == "direct", n < 64, m)

            def again(_):
                text, m = self.c.complete(tokens)
                self.assertEqual(text, cold, n)
                return n <= 128 or m["reused_tokens"] > 0, m

            in_some_attempt(again, f"{n} tokens are found in the cache")

    def test_both_pools_work_on_a_long_prompt(self):
        def cold(attempt):
            text, m = self.c.complete(prompt(2000 + attempt, 300))
            self.assertEqual(text, Alone.says(prompt(2000 + attempt, 300)))
            return m["route"] == "split" and m["prefill_worker"] != m["decode_worker"], m

        in_some_attempt(cold, "split")

    def test_partial_prefixes(self):
        base = prompt(7, 1024)
        self.c.complete(base)
        for shared in [511, 512, 513, 575, 576, 577]:
            tokens = base[:shared] + prompt(shared, 700 - shared)
            text, m = self.c.complete(tokens)
            self.assertEqual(text, Alone.says(tokens), shared)
            self.assertLessEqual(m["reused_tokens"], shared // 64 * 64)
            self.assertEqual(m["reused_tokens"] % 64, 0)

    def test_cache_off(self):
        tokens = prompt(8, 900)
        first, _ = self.c.complete(tokens)
        text, m = self.c.complete(tokens, cache=False)
        self.assertEqual(text, first)
        self.assertEqual(m["reused_tokens"], 0)

    def test_chat_turns_hit_the_answer(self):
        def chat(attempt):
            """Its answers end where the model likes: only one that is long enough has a block of its own."""
            messages = [{"role": "user", "content": f"KVCache 是什么? ({attempt}) " * 10}]
            reused, prompts = [], []
            for _ in range(3):
                with self.c.open("/v1/chat/completions", {"model": "synthetic", "messages": messages, "temperature": 0,
                                                          "max_tokens": 150}) as reply:
                    answer = json.load(reply)
                reused.append(answer["usage"]["prompt_tokens_details"]["cached_tokens"])
                prompts.append(answer["usage"]["prompt_tokens"])
                self.assertEqual(reused[-1], answer["mooncake"]["reused_tokens"])
                messages += [answer["choices"][0]["message"], {"role": "user", "content": "and then?"}]
            self.assertEqual(reused[0], 0)
            return any(reused[i] > prompts[i - 1] for i in (1, 2)), (reused, prompts)

        in_some_attempt(chat, "a turn hits the answer of the one before, not only its prompt", 60)

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
        for i in range(8):
            _, m = self.c.complete(prompt(1000 + i, 900), 2)
        self.assertLess(m["timing"]["ttft_predicted_ms"], 10 * m["timing"]["ttft_ms"] + 50)
        self.assertIn(b"mooncake_ttft_ratio_count", self.c.get("/metrics")[1])


class Deaths(unittest.TestCase):
    """Each in a cluster of its own; decode is slow enough to be hit in the middle."""

    def cluster(self, *options):
        return Cluster(BINARY, "--memory", "128M", "--synthetic-decode", "20", *options)

    @staticmethod
    def busy(c):
        """Name of the worker that decodes: one of the decode pool, unless that was in doubt on a busy machine."""
        found = []

        def look():
            found.extend(w["name"] for w in c.status()["workers"] if w["running"])
            return found

        wait_for(look, 30, "a worker that decodes")
        return found[0]

    def test_decode_worker_is_killed(self):
        tokens = prompt(20, 400)
        want = Alone.says(tokens, 150, ignore_eos=True)
        with self.cluster("--decode-workers", "2") as c:
            for at in (3, 40, 90):
                before = c.status()
                victim = []

                def kill(chunks):
                    if chunks == at:
                        victim.append(self.busy(c))
                        c.kill(victim[0])

                text, m = c.stream(tokens, 150, kill, ignore_eos=True)
                self.assertEqual(text, want, at)
                self.assertEqual(len(victim), 1)
                self.assertGreaterEqual(m["moves"], 1)
                wait_for(lambda: len([w for w in c.status()["workers"] if w["state"] == "ready"]) ==
                           len(before["workers"]), 60, "the killed worker is back")

    def test_decode_worker_is_stopped(self):
        tokens = prompt(21, 400)
        with self.cluster("--decode-workers", "2") as c:
            stopped = []

            def stop(chunks):
                if chunks == 20:
                    stopped.append(self.busy(c))
                    c.kill(stopped[0], signal.SIGSTOP)

            start = time.monotonic()
            text, m = c.stream(tokens, 150, stop, ignore_eos=True)
            if stopped:
                c.kill(stopped[0], signal.SIGCONT)
            self.assertEqual(text, Alone.says(tokens, 150, ignore_eos=True))
            self.assertGreaterEqual(m["moves"], 1)
            seconds = time.monotonic() - start
            print(f"150 tokens with a stopped worker: {seconds:.1f} s")
            self.assertLess(seconds, 30)  # by the pings, not by the minute's patience that a run has

    def test_prefill_worker_is_killed(self):
        with self.cluster("--synthetic-prefill", "500", "--prefill-workers", "2") as c:
            def attempt(number):
                tokens, answered = prompt(220 + number, 1500), []

                def ask():
                    try:
                        return c.complete(tokens, 24)
                    finally:
                        answered.append(True)

                def kill():
                    while not answered:
                        busy = [w["name"] for w in c.status()["workers"] if w["role"] == "prefill" and w["waiting"]]
                        if busy:
                            c.kill(busy[0])
                            return
                        time.sleep(0.02)

                (text, m), _ = at_once([ask, kill])
                self.assertEqual(text, Alone.says(tokens, 24))
                return m["moves"] > 0, m

            in_some_attempt(attempt, "the request leaves a prefill worker that was killed")

    def test_no_prefill_pool(self):
        tokens = prompt(23, 600)
        with self.cluster("--prefill-workers", "0") as c:
            text, m = c.complete(tokens)
            self.assertEqual(text, Alone.says(tokens))
            self.assertEqual(m["route"], "single")

    def test_store_dies(self):
        prompts = [prompt(30 + i, 500) for i in range(4)]
        with self.cluster() as c:
            healthy = self.seconds(c, prompts[0])
            for victim in ("node", "master"):
                c.kill(victim, signal.SIGSTOP)
                slowest = max(self.seconds(c, tokens) for tokens in prompts)
                c.kill(victim, signal.SIGCONT)
                print(f"{victim} stopped: answered within {slowest:.1f} s, {healthy:.1f} s before")
                self.assertLess(slowest, 6 + 4 * healthy)

    def seconds(self, c, tokens):
        start = time.monotonic()
        self.assertEqual(c.complete(tokens)[0], Alone.says(tokens))
        return time.monotonic() - start

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
            reply.close()  # of 40 s
            wait_for(lambda: not any(w["running"] for w in c.status()["workers"]), 15, "the run is cancelled")
            wait_for(lambda: not any(w["kv_tokens"] for w in c.status()["workers"]), 15, "its KV is given back")


if __name__ == "__main__":
    unittest.main(verbosity=2)
