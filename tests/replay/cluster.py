#!/usr/bin/env python3
"""cluster - goal: simulated clusters do what docs/replay.md says of them. Method: small cases worked out by hand, sums that have to
agree, hashes that were written down (the same under every compiler), and the figures of a peer's live router on the published trace."""
import itertools
import json
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree

from kit import CONVERSATION, File, chats, families, main, once, replay, skip

HERE = os.path.dirname(os.path.abspath(__file__))
BENCH = os.path.join(HERE, "..", "..", "bench", "replay")
COMMON, SHARED = os.path.join(BENCH, "common.json"), os.path.join(BENCH, "common-shared.json")
POLICIES = ["mooncake", "global", "random", "round-robin", "least-load", "local", "dynamo", "lmetric", "smg", "llm-d"]

# One instance of each kind with round numbers: 1 ms a prompt token, 10 ms a step, 1 MB a token.
SIMPLE = {"prefill": 1, "decode": 1, "prefill_token_ms": 1, "prefill_pair_ms": 0, "decode_base_ms": 10, "decode_kv_token_ns": 0,
          "kv_token_bytes": 1e6, "link_gb_s": 1, "link_latency_ms": 0.5, "own_gb_s": 1e9, "block_tokens": 512,
          "chunk_tokens": 1000, "direct_tokens_max": 1}


class Cluster:
    """A --cluster file."""

    def __init__(self, **values):
        handle, self.path = tempfile.mkstemp(suffix=".json")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump({**SIMPLE, **values}, file)

    def __enter__(self):
        return self.path

    def __exit__(self, *_):
        os.unlink(self.path)


def request(at, tokens, output, ids=()):
    return {"timestamp": at, "input_length": tokens, "output_length": output, "hash_ids": list(ids)}


def run(binary, requests, *args, **values):
    with File(requests) as trace, Cluster(**values) as cluster:
        return replay(binary, "--trace", trace, "--cluster", cluster, *args)


def near(got, want, what):
    assert abs(got - want) <= max(0.002 * abs(want), 1e-6), f"{what}: {got}, by hand {want}"


def test_by_hand(binary):
    # Alone: 300 ms of prefill; KV leaves as it is made (300 MB at 1 GB/s end with it), then 4 steps of 10 ms.
    r = run(binary, [request(0, 300, 5)], "--policy", "round-robin")
    near(r["ttft_ms"]["mean"], 300, "prefill")
    near(r["tbt_ms"]["mean"], (0.5 + 4 * 10) / 4, "decode")
    near(r["bytes_moved"], 300e6, "KV handed over")
    # The first token out of a decode step, and no handover.
    r = run(binary, [request(0, 300, 5)], "--policy", "round-robin", first_token_by_decode=1, handover=0)
    near(r["ttft_ms"]["mean"], 310, "first token by decode")
    near(r["tbt_ms"]["mean"], 10, "decode")
    assert r["bytes_moved"] == 0
    # A slow link: 300 MB at 0.1 GB/s take 3,000 ms from the prefill's begin on.
    r = run(binary, [request(0, 300, 2)], "--policy", "round-robin", link_gb_s=0.1)
    near(r["tbt_ms"]["mean"], 3000 - 300 + 0.5 + 10, "handover behind the prefill")
    # First come first served, 1,000 tokens an iteration: the second and third share the last one and end with it.
    r = run(binary, [request(0, 1500, 1), request(1, 200, 1), request(2, 300, 1)], "--policy", "round-robin")
    near(r["ttft_ms"]["mean"], (2000 + 1999 + 1998) / 3, "iterations")
    # Two blocks of three come from the cache: 1,536 tokens, then 512; of a prompt that is all there the last block is computed.
    r = run(binary, [request(0, 1536, 1, [1, 2, 3]), request(9000, 1536, 1, [1, 2, 4]), request(18000, 1536, 1, [1, 2, 3])],
            "--policy", "round-robin")
    near(r["ttft_ms"]["mean"], (1536 + 512 + 512) / 3, "reuse")
    assert r["hit_tokens"] == {"own": 2048, "remote": 0, "ssd": 0, "missed": 2560}, r["hit_tokens"]
    # Why: the first prompt and block 4 are new, but the last token of each prompt is always computed and with it its block.
    assert r["missed_tokens"] == {"new": 1024, "evicted": 0, "elsewhere": 0, "uncachable": 1536}, r["missed_tokens"]
    # Pairs: 1e-3 ms each; 1,000 tokens, then 512 of them reused.
    r = run(binary, [request(0, 1000, 1, [1, 2]), request(5000, 1000, 1, [1, 2])], "--policy", "round-robin",
            prefill_pair_ms=1e-3)
    near(r["ttft_ms"]["mean"], (1000 + 1000 + 488 + 1e-3 * (1000**2 - 512**2)) / 2, "pairs")
    # The second is prefilled at 200 ms and joins at the next step, which begins at 201 with 101 + 100 tokens in the batch.
    r = run(binary, [request(0, 100, 3), request(0, 100, 3)], "--policy", "round-robin", decode_kv_token_ns=1e6, handover=0,
            decode_base_ms=1)
    near(r["tbt_ms"]["mean"], ((101 + 202) / 2 + (1 + 202 + 102) / 2) / 2, "batch")
    # No room for a second sequence: it waits from 200 to 300 ms.
    r = run(binary, [request(0, 100, 3), request(0, 100, 3)], "--policy", "round-robin", handover=0, sequences=1, decode_base_ms=100)
    near(r["tbt_ms"]["mean"], (100 + (100 + 200) / 2) / 2, "room")


def test_links_by_hand(binary):
    # The second prompt goes to the other instance: 1,024 tokens are 1,024 MB, 10.24 ms at 100 GB/s, and 512 are computed.
    requests = [request(0, 1536, 1, [1, 2, 3]), request(9000, 1536, 1, [1, 2, 4])]
    r = run(binary, requests, "--policy", "round-robin", prefill=2, link_gb_s=100)
    near(r["ttft_ms"]["mean"], (1536 + 10.24 + 0.5 + 512) / 2, "fetched")
    assert r["hit_tokens"]["remote"] == 1024 and r["hit_tokens"]["own"] == 0
    # Caches of their own: computed once more, and it is known that it was elsewhere.
    r = run(binary, requests, "--policy", "round-robin", prefill=2, shared=0)
    near(r["ttft_ms"]["mean"], 1536, "not shared")
    assert r["missed_tokens"]["elsewhere"] == 1024
    # A link too slow: loading is chosen only where it beats computing.
    r = run(binary, requests, "--policy", "global", prefill=2, link_gb_s=0.5)
    assert r["hit_tokens"]["remote"] == 0
    # A long prompt keeps the owner busy. `global` copies what it fetches, `mooncake` no more than a tenth of the pool.
    requests = [request(0, 1536, 1, [1, 2, 3]), request(9000, 4000, 1, [1, 2, 3]), request(9001, 1536, 1, [1, 2, 4])]
    for policy, cache, copies in (("global", 5119, 1024), ("mooncake", 5119, 0), ("mooncake", 5120, 1024)):
        r = run(binary, requests, "--policy", policy, prefill=2, link_gb_s=100, cache_tokens=cache)
        assert r["duplicated_tokens"] == copies and r["hit_tokens"]["remote"] == 1024, (policy, cache, r)


def test_sums(binary):
    requests = chats(5, 400, 30, gap_ms=60)
    with File(requests) as trace, Cluster(prefill=3, decode=2, cache_tokens=40000, prefill_token_ms=0.05, link_gb_s=50) as cluster:
        for evict in ("mooncake", "lru", "s3fifo", "arc"):
            runs = replay(binary, "--trace", trace, "--cluster", cluster, "--compare", "all", "--evict", evict)
            assert [r["policy"] for r in runs] == POLICIES
            for r in runs:
                hits = r["hit_tokens"]
                total = sum(x["input_length"] for x in requests)
                assert hits["own"] + hits["remote"] + hits["missed"] == total and hits["ssd"] == 0, r
                assert sum(r["missed_tokens"].values()) == hits["missed"], r
                near(r["hit_rate"], (hits["own"] + hits["remote"]) / total, "hit rate")
                assert r["requests"] == len(requests) and r["rejected"] == 0 and r["goodput"] == 1
                assert r["load_max_over_mean"] >= 1 and r["evict"] == evict
                assert r["ttft_ms"]["p50"] <= r["ttft_ms"]["p90"] <= r["ttft_ms"]["p99"] <= r["ttft_ms"]["max"]


def test_ssd_by_hand(binary):
    # Memory for four blocks, so two other prompts push the first one to the SSD. Then its beginning again: 2 blocks of 512 MB at 1 GB/s
    # are 1,024 ms and 0.1 of latency, sooner than 2,048 ms of computing; the third block is computed.
    requests = [request(0, 1536, 1, [1, 2, 3]), request(9000, 1536, 1, [4, 5, 6]), request(18000, 1536, 1, [7, 8, 9]),
                request(27000, 1536, 1, [1, 2, 10])]
    slow = {"prefill_token_ms": 2, "cache_tokens": 2048, "ssd_gb_s": 1, "ssd_latency_ms": 0.1}
    r = run(binary, requests, "--policy", "global", ssd_tokens=10240, **slow)
    assert r["hit_tokens"] == {"own": 0, "remote": 0, "ssd": 1024, "missed": 5120}, r
    near(r["ttft_ms"]["mean"], (3 * 3072 + 1024.1 + 1024) / 4, "from SSD")
    # No SSD: evicted, and that is known. An SSD slower than computing is left alone.
    r = run(binary, requests, "--policy", "global", **slow)
    assert r["hit_tokens"]["ssd"] == 0 and r["missed_tokens"]["evicted"] == 1024 and r["missed_tokens"]["new"] == 3072, r
    r = run(binary, requests, "--policy", "global", ssd_tokens=10240, **{**slow, "ssd_gb_s": 0.4})
    assert r["hit_tokens"]["ssd"] == 0 and r["missed_tokens"]["elsewhere"] == 1024, r
    # The SSD is too small, too: what it evicted is gone.
    r = run(binary, requests, "--policy", "global", ssd_tokens=512, **slow)
    assert r["hit_tokens"]["ssd"] == 0 and r["missed_tokens"]["evicted"] == 1024, r
    # Another node's SSD, and over a link of half its speed: 2,048 ms, then latency of both.
    requests = [request(9000 * i, 1536, 1, [10 * i, 10 * i + 1, 10 * i + 2]) for i in range(6)] + [request(63000, 1536, 1, [0, 1, 99])]
    r = run(binary, requests, "--policy", "round-robin", prefill=2, ssd_tokens=10240, **{**slow, "prefill_token_ms": 4, "link_gb_s": 0.5})
    assert r["hit_tokens"]["ssd"] == 1024, r
    again = [*requests[:6], request(54000, 600, 1), requests[6]]  # the turn is the other node's
    other = run(binary, again, "--policy", "round-robin", prefill=2, ssd_tokens=10240, **{**slow, "prefill_token_ms": 4, "link_gb_s": 0.5})
    assert other["hit_tokens"]["ssd"] == 1024, other
    near(other["bytes_moved"] - r["bytes_moved"], 1024e6 + 600e6, "the link")
    near(other["ttft_ms"]["mean"] * 8 - r["ttft_ms"]["mean"] * 7, 2400 + 1024 + 0.5 - 0.1, "the link")
    with File(requests) as trace, Cluster(**slow) as cluster:
        both = replay(binary, "--trace", trace, "--cluster", cluster, "--tiers", "dram=2048,ssd=10240", "--policy", "global")
        assert both["hit_tokens"]["ssd"] == 1024
        for bad in ("ssd", "ssd=", "nvme=3M", "ssd=0"):
            assert "--tiers" in replay(binary, "--trace", trace, "--tiers", bad, fails=True), bad
    with File(requests) as trace, Cluster(ssd_tokens=1e4, shared=0) as cluster:
        assert "wants a shared cache" in replay(binary, "--trace", trace, "--cluster", cluster, fails=True)


def test_regret(binary):
    """Against one pool of all memory that knows the future: nothing is lost when nothing is evicted, never less than nothing with one
    instance and prompts one after the other, and there is something to lose when memory is short."""
    requests = chats(5, 300, 30, gap_ms=60_000)
    with File(requests) as trace, Cluster() as cluster:
        roomy = replay(binary, "--trace", trace, "--cluster", cluster, "--regret", "--policy", "global")
        assert abs(roomy["regret"]) < 1e-6 and roomy["missed_tokens"]["evicted"] == 0, roomy
        short = replay(binary, "--trace", trace, "--cluster", cluster, "--regret", "--policy", "global", "--cache-tokens", "30K")
        assert 0.01 < short["regret"] and short["opt_hit_rate"] < roomy["opt_hit_rate"] + 1e-9, short
        near(short["regret"], short["opt_hit_rate"] - short["hit_rate"], "regret")
        assert "regret" not in replay(binary, "--trace", trace, "--cluster", cluster)
    piped = subprocess.run([binary, "replay", "--trace", "/dev/stdin", "--regret"], input="", text=True, capture_output=True, check=False)
    assert piped.returncode != 0 and "give a file" in piped.stderr, piped.stderr


def test_fit(binary):
    """Coefficients as a Conductor answers them take the place of the model's."""
    with File([request(0, 1000, 5)]) as trace, File(text=json.dumps(
            {"#model": "m", "#prefill_samples": 7, "prefill_base_ms": 5, "prefill_token_ms": 0.5, "prefill_pair_ms": 0,
             "decode_base_ms": 20, "decode_sequence_ms": 1, "decode_kv_token_ns": 0, "kv_token_bytes": 1000})) as fit:
        r = replay(binary, "--trace", trace, "--fit", fit, "--policy", "round-robin")
        near(r["ttft_ms"]["mean"], 505, "prefill")
        near(r["tbt_ms"]["mean"], 21, "decode")
        with File(text='{"links": 3}') as bad:
            assert "no value is called 'links'" in replay(binary, "--trace", trace, "--fit", bad, fails=True)
        with File(text='{"prefill": 3}') as bad:
            assert "belongs into --cluster" in replay(binary, "--trace", trace, "--fit", bad, fails=True)


def plan(binary, *args, code=0):
    done = subprocess.run([binary, "plan", *map(str, args), "--json"], text=True, capture_output=True, check=False)
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout) if code == 0 else done.stderr


def test_plan(binary):
    """The cheapest cluster: against all splits, one by one, of a cluster small enough for that."""
    requests = chats(6, 200, 20, gap_ms=300)
    slo = ("--slo-ttft-ms", "3s", "--slo-tbt-ms", "60", "--share", 0.9)
    with File(requests) as trace, Cluster(cache_tokens=40000, link_gb_s=100, prefill_token_ms=0.3) as cluster:
        best = plan(binary, "--trace", trace, "--cluster", cluster, *slo, "--instances-max", 16, "--price-cache", 0)
        assert best["goodput"] >= 0.9 and best["keeps"] and best["price"] == best["prefill"] + best["decode"], best
        for prefill in range(1, best["prefill"] + best["decode"]):
            for decode in range(1, best["prefill"] + best["decode"] - prefill):
                r = replay(binary, "--trace", trace, "--cluster", cluster, *slo[:4], "--prefill", prefill, "--decode", decode,
                           "--cache-tokens", 160000)
                assert r["goodput"] < 0.9, (prefill, decode, r["goodput"], best)
        dear = plan(binary, "--trace", trace, "--cluster", cluster, *slo, "--instances-max", 16, "--price-cache", 100)
        assert dear["cache_tokens"] < 160000 and dear["cache_tokens"] <= best["cache_tokens"] or dear["prefill"] <= best["prefill"], dear
        said = plan(binary, "--trace", trace, "--cluster", cluster, "--slo-ttft-ms", 1, "--instances-max", 2, code=1)
        assert "keep the SLO for 0.0000 of requests only" in said, said
        assert "give the SLO" in plan(binary, "--trace", trace, code=2)


def test_slo(binary):
    requests = [request(i, 1000, 2) for i in range(50)]  # 50 s of work in 50 ms
    r = run(binary, requests, "--policy", "global", "--slo-ttft-ms", "10s")
    assert 0 < r["rejected"] < 50 and r["rejected"] == round(50 * r["rejected_share"]), r
    assert r["ttft_ms"]["max"] <= 10_001, "what is let in keeps the SLO"
    near(r["goodput"], 1 - r["rejected_share"], "goodput")
    r = run(binary, requests, "--policy", "global", "--slo-tbt-ms", "5")
    assert r["rejected"] == 50
    r = run(binary, requests, "--policy", "mooncake", "--slo-ttft-ms", "10s")
    assert 0 < r["rejected"] < 50 and r["ttft_ms"]["max"] <= 10_001


def ttft_of(binary, requests, *args, **values):
    """TTFT of each request, by number."""
    with File() as out:
        run(binary, requests, "--requests-out", out, *args, **values)
        with open(out, encoding="utf-8") as file:
            return {end["request"]: end["ttft_ms"] for end in map(json.loads, file)}


def test_order_of_the_queue(binary):
    # At one time, one instance: the first one begins, of those that wait the shortest is next.
    requests = [request(0, tokens, 1) for tokens in (400, 100, 300, 200)]
    for number, ms in ttft_of(binary, requests).items():
        near(ms, (400, 500, 1000, 700)[number], f"request {number}")
    # Who has waited for long goes before who is shorter: at 2,500 ms the third has waited 2,500 of 2,000, the last 500 of 600.
    ends = ttft_of(binary, [request(0, 1000, 1), request(0, 1500, 1), request(0, 2000, 1), request(2000, 600, 1)])
    near(ends[2], 4500, "waited for long")
    near(ends[3], 3100, "behind it")
    # The others: first come, first served.
    for number, ms in ttft_of(binary, requests, "--policy", "round-robin", chunk_tokens=100).items():
        near(ms, (400, 500, 800, 1000)[number], f"request {number}, first come")


def test_nobody_starves(binary):
    # A stream of short prompts that is a tenth more than the instance can do, for 400 s. Who is 27 times as long waits, but is served
    # after ln(27) minutes and what the short ones wait by then, while the stream goes on.
    requests = [request(0, 110, 1)] + [request(1, 3000, 1)] * 2 + [request(2 + 100 * i, 110, 1) for i in range(4000)]
    ends = ttft_of(binary, requests)
    served = max(ends[1], ends[2])
    short = max(ms for number, ms in ends.items() if number > 2 and 100 * number + ms < served)
    assert 10_000 < served < short + 60_000 * math.log(3000 / 110) + 4000, (served, short)


def test_just_in_time(binary):
    # Two instances, a slow link. The third prompt waits for the one that has its prefix, though that one is at work and the other is
    # not; the fourth has nothing to fetch and takes that other one, without waiting behind the third.
    requests = [request(0, 512 * 20, 1, range(20)), request(20_000, 512 * 24, 1, range(24)),
                request(20_000, 512 * 21, 1, [*range(20), 99]), request(20_000, 3000, 1)]
    ends = ttft_of(binary, requests, prefill=2, link_gb_s=0.5, own_gb_s=100)
    near(ends[1], 102.4 + 512 * 4, "has its prefix beside it")
    near(ends[2], 102.4 + 512 * 5, "loads while the one before it is computed")
    near(ends[3], 3000, "not behind it")


def test_copies_are_limited(binary):
    # One prefix of 10,240 tokens, twenty prompts that begin with it at once, four instances, links fast and slow: it is copied to those
    # that fetch it, no more than a tenth of the pool, and read where it lies after that.
    prompts = [request(0, 512 * 20, 1, range(20))]
    prompts += [request(30_000, 512 * 21, 1, [*range(20), 1000 + i]) for i in range(20)]
    for link, (cache, copies) in itertools.product((20, 1000), ((512 * 1000, 3), (512 * 60, 1), (512 * 45, 0))):
        r = run(binary, prompts, prefill=4, link_gb_s=link, prefill_token_ms=0.5, cache_tokens=cache)
        assert r["duplicated_tokens"] == copies * 512 * 20 <= 0.1 * 4 * cache and r["hit_tokens"]["remote"] >= copies * 512 * 20, (link, cache, r)


def popular(seed, count, gap_ms):
    """Documents by popularity (zipf), each with a question of its own behind it; they come at random times."""
    draw, at, out = families.Draw(seed), 0, []
    for ids in itertools.islice(families.documents(draw, families.zipf(draw, 200)), count):
        at += draw.exponential(gap_ms)
        out.append(request(round(at), 512 * len(ids) + draw.between(1, 511), draw.between(20, 200), ids))
    return out


def test_one_stuck(binary):
    """16 instances, one of them at full load all the time, over whole runs: of the requests that went elsewhere before, fewer than a tenth
    go to another one than before. Of single decisions of such a run hardly any is another one, at a load where every run is
    different, too."""
    for seed in (1, 2):
        with File(popular(seed, 2000, 50)) as trace, File() as out:
            targets = []
            for stuck in (-1, 5):
                r = replay(binary, "--trace", trace, "--prefill", 16, "--evict", "lru", "--stuck", stuck, "--requests-out", out)
                with open(out, encoding="utf-8") as file:
                    targets.append({end["request"]: end["prefill"] for end in map(json.loads, file)})
                # R20: within 10 % of what pure affinity hits, which is all that has been there before
                assert r["missed_tokens"]["elsewhere"] + r["missed_tokens"]["evicted"] < 0.1 * (r["hit_tokens"]["own"] + r["hit_tokens"]["remote"])
            before, after = targets
            others = [number for number, target in before.items() if target != 5]
            moved = sum(after[number] != before[number] for number in others)
            assert len(before) - len(others) > 20 and 5 not in after.values(), "it was wanted, and nobody goes there"
            assert moved < 0.1 * len(others), (moved, len(others))
        with File(popular(seed, 2000, 10)) as trace:
            busy = replay(binary, "--trace", trace, "--prefill", 16, "--evict", "lru", "--stuck", 5)
            assert busy["stuck"]["preferred"] > 50 and busy["stuck"]["moved"] < 0.1 * busy["stuck"]["others"] > 100, busy["stuck"]
            r = replay(binary, "--trace", trace, "--prefill", 16, "--evict", "lru")
            assert r["load_max_over_mean"] <= 1.5 and r["duplicated_tokens"] <= 0.1 * 16 * 3e6 and "stuck" not in r, r
            assert "instances 0 to 15" in replay(binary, "--trace", trace, "--prefill", 16, "--stuck", 16, fails=True)


def test_arguments(binary):
    with File([request(0, 100, 1)]) as trace:
        for values, says in (({"prefil": 8}, "no value is called 'prefil'"), ({"prefill": 0}, "'prefill' must be a number from 1"),
                             ({"prefill": "8"}, "must be a number"), ({"cache_tokens": 5}, "holds no block"),
                             ({"prefill_token_ms": 0}, "must take some time")):
            with Cluster(**values) as cluster:
                said = replay(binary, "--trace", trace, "--cluster", cluster, fails=True)
                assert says in said, (values, said)
        assert "needs --one-pool" in replay(binary, "--trace", trace, "--evict", "opt", fails=True)
        assert "no policy 'x'" in replay(binary, "--trace", trace, "--compare", "global,x", fails=True)
        assert "is not one of mooncake|global|" in replay(binary, "--trace", trace, "--policy", "x", fails=True)
        assert "no count" in replay(binary, "--trace", trace, "--cache-tokens", "3X", fails=True)
    with File(text="bad\n") as trace:
        r = replay(binary, "--trace", trace)
        assert r["bad_lines"] == 1 and r["requests"] == 0 and r["hit_rate"] == 0
        assert f"{trace}:1: " in replay(binary, "--trace", trace, "--strict", fails=True)
        told = subprocess.run([binary, "plan", "--trace", trace, "--slo-ttft-ms=1s"], capture_output=True, text=True, check=False)
        assert told.returncode == 1 and f"{trace}: there is no request in it" in told.stderr, told


def test_other_traces(binary):
    """What strangers bring."""
    lines = [request(17 * i, 600 + 40 * i, i % 3, range(1 + i // 20)) for i in range(60)]
    with File(lines) as trace, File([{**line, "timestamp": line["timestamp"] + 1732800000000} for line in lines]) as late, \
            File(text="".join(json.dumps({**line, "more": {"x": [None]}}) + "\r\n" for line in lines)) as crlf:
        mine, others = replay(binary, "--trace", trace), [replay(binary, "--trace", path) for path in (late, crlf)]
        assert mine["requests"] == 60 and mine["hit_tokens"]["own"] > 0
        assert [(r["event_hash"], r["simulated_s"]) for r in others] == [(mine["event_hash"], mine["simulated_s"])] * 2, "time begins with the first"
        # A pipe is read once, and twice is asked for.
        for args in (["--compare", "global,mooncake"], ["--sweep", "speed=1..2"], ["--regret"], ["--report", os.devnull]):
            run_of = subprocess.run([binary, "replay", "--trace", "/dev/stdin", *args], input="", capture_output=True, text=True, check=False)
            assert run_of.returncode == 2 and "read more than once" in run_of.stderr, (args, run_of)
    with File([request(0, 600, 1), request(4e15, 600, 1)]) as trace:
        assert "a hundred years" in replay(binary, "--trace", trace, fails=True)
    with File(text="".join(json.dumps({**request(0, 600, 1, [1]), **odd}) + "\n" for odd in (
            {"hash_ids": ["a"]}, {"hash_ids": [1, 2, 3]}, {"timestamp": "now"}, {"input_length": 10**9}))) as trace:
        told = subprocess.run([binary, "replay", "--trace", trace], capture_output=True, text=True, check=True).stderr
        for line, says in enumerate(("'hash_ids' must be integers, and number 1 of them is none", "'hash_ids' holds 3 ids for 600 tokens",
                                     "'timestamp' must be milliseconds", "'input_length' must be an integer from 1 to 100000000"), 1):
            assert f"{trace}:{line}: field {says}" in told, (says, told)


def test_report(binary):
    """One page with everything in it: whole SVGs, no script, nothing that is fetched, names of files only as text."""
    with File(chats(3, 200, 20)) as trace, tempfile.TemporaryDirectory(suffix="<b>&") as folder:
        page = os.path.join(folder, "r.html")
        shown = os.path.join(folder, "<script>alert(1)<!--.jsonl")
        os.link(trace, shown) if os.stat(trace).st_dev == os.stat(folder).st_dev else shutil.copy(trace, shown)
        runs = replay(binary, "--trace", shown, "--compare", "all", "--report", page, "--cache-tokens", "100K")
        with open(page, encoding="utf-8") as file:
            text = file.read()
        for word in ("<script", "http:", "https:", "url(", "<link", "@import", "src="):
            assert word not in text.replace("&lt;script", ""), word
        plots = re.findall(r"<svg.*?</svg>", text, re.S)
        assert len(plots) == 5
        for plot in plots:
            assert "nan" not in plot and "inf" not in plot
            xml.etree.ElementTree.fromstring(plot)
        for run_of in runs:
            assert f"<tr><td>{run_of['policy']}<td>{run_of['ttft_ms']['mean']:.0f}<td>" in text, run_of["policy"]
        said = replay(binary, "--trace", shown, "--report", os.path.join(folder, "no", "r.html"), fails=True)
        assert "No such file" in said
        assert "no --report" in replay(binary, "--trace", shown, "--one-pool", 9, "--report", page, fails=True)
    with File(text="") as trace, tempfile.TemporaryDirectory() as folder:
        replay(binary, "--trace", trace, "--report", os.path.join(folder, "r.html"))
        with open(os.path.join(folder, "r.html"), encoding="utf-8") as file:
            assert "nan" not in file.read()


def test_sweep(binary):
    with File(chats(9, 300, 20)) as trace:
        runs = replay(binary, "--trace", trace, "--sweep", "cache-tokens=4K..0.4M", "--compare", "global,mooncake")
        assert len(runs) == 2 * 9
        ours = [r for r in runs if r["policy"] == "mooncake"]
        assert [round(r["cache-tokens"]) for r in ours][::8] == [4000, 400000]
        assert all(a["cache-tokens"] < b["cache-tokens"] for a, b in zip(ours, ours[1:]))
        assert ours[0]["hit_rate"] < ours[-1]["hit_rate"]
        alone = replay(binary, "--trace", trace, "--policy", "mooncake", "--cache-tokens", "400K")
        assert alone["event_hash"] == ours[-1]["event_hash"]
        counts = replay(binary, "--trace", trace, "--sweep", "prefill=2..4")
        assert [r["prefill"] for r in counts] == [2, 3, 4]
        with tempfile.TemporaryDirectory() as folder:
            page = os.path.join(folder, "r.html")
            runs = replay(binary, "--trace", trace, "--sweep", "prefill=2..4", "--compare", "global,mooncake", "--report", page)
            with open(page, encoding="utf-8") as file:
                text = file.read()
            plots = re.findall(r"<svg.*?</svg>", text, re.S)
            assert len(plots) == 5 and "nan" not in text and "inf" not in text
            for plot in plots:
                xml.etree.ElementTree.fromstring(plot)
            assert all(f"<tr><td>{r['policy']}<td>{r['prefill']:g}<td>{r['ttft_ms']['mean']:.0f}<td>" in text for r in runs)
        for bad in ("cache-tokens", "cache-tokens=1..", "cache-tokens=9..1", "x=1..2", "prefill=1..99", "speed=a..b", "prefill=1..2x"):
            assert "--sweep" in replay(binary, "--trace", trace, "--sweep", bad, fails=True), bad


def test_requests_out(binary):
    requests = chats(4, 300, 20, gap_ms=20)
    with File(requests) as trace, File() as out:
        runs = replay(binary, "--trace", trace, "--compare", "global,mooncake", "--requests-out", out, "--slo-ttft-ms", "5s")
        with open(out, encoding="utf-8") as file:
            ends = [json.loads(line) for line in file]
        for r in runs:
            mine = [end for end in ends if end["policy"] == r["policy"]]
            assert sorted(end["request"] for end in mine) == list(range(300))
            assert sum(end.get("rejected", False) for end in mine) == r["rejected"] > 0
            ttft = [end["ttft_ms"] for end in mine if "ttft_ms" in end]
            assert all(end["prefill"] < 8 <= end["decode"] < 16 or end["prefill"] == end["decode"] >= 8 for end in mine if "ttft_ms" in end)
            near(sum(ttft) / len(ttft), r["ttft_ms"]["mean"], "mean")
            near(sorted(ttft)[math.ceil(0.9 * len(ttft)) - 1], r["ttft_ms"]["p90"], "p90 of the histogram")
        assert "No such file" in replay(binary, "--trace", trace, "--requests-out", "/nonexistent/x", fails=True)


def hashes(binary):
    out = {}
    for name, requests in (("chats", chats(7, 300, 25, gap_ms=400)), ("once", once(8, 300, 25))):
        with File(requests) as trace:
            for cluster in ([], ["--cluster", COMMON, "--cache-tokens", "100K"], ["--cluster", SHARED, "--cache-tokens", "0.1M"]):
                for seed in (0, 1):
                    runs = replay(binary, "--trace", trace, *cluster, "--compare", "all", "--seed", seed, "--speed", 4, "--evict", "lru")
                    key = os.path.basename(cluster[1]) if cluster else "default"
                    out.update({f"{name} {key} {seed} {r['policy']}": r["event_hash"] for r in runs})
    return out


def test_hashes(binary):
    with open(os.path.join(HERE, "golden.json"), encoding="utf-8") as file:
        golden = json.load(file)["hashes"]
    first = hashes(binary)
    assert first == hashes(binary), "two runs differ"
    assert first == golden, [(key, first[key], golden.get(key)) for key in first if first[key] != golden.get(key)][:5]
    assert first["chats default 0 global"] != first["chats default 1 global"]


def test_conversation(binary):
    """The simulator: our re-implementation of a peer's formulas against its live router, mean TTFT within 10 %. Then ours against the
    best its router reaches when tuned, with the same memory as one pool."""
    peer = {1: (1884, 1324, 1014), 2: (6949, 2584, 1567), 2.5: (58321, 58301, 2995), 3: (177858, 179722, 96739)}
    for speed, columns in peer.items():
        runs = replay(binary, "--trace", CONVERSATION, "--evict", "lru", "--cluster", COMMON, "--speed", speed, "--compare",
                      "round-robin,least-load,dynamo")
        for r, want in zip(runs, columns):
            assert abs(r["ttft_ms"]["mean"] / want - 1) < 0.1, f"{speed} {r['policy']}: {r['ttft_ms']['mean']}, peer {want}"
    for speed, mean, p99, most in ((1, 850, None, None), (2, 949, None, None), (2.5, 1124, 9802, 30000), (3, 2568, 35062, 60000)):
        r = replay(binary, "--trace", CONVERSATION, "--evict", "lru", "--cluster", SHARED, "--speed", speed)
        assert r["ttft_ms"]["mean"] <= mean, (speed, r["ttft_ms"])
        assert (p99 is None or r["ttft_ms"]["p99"] <= p99) and (most is None or r["ttft_ms"]["max"] <= most), (speed, r["ttft_ms"])


if __name__ == "__main__":
    if len(sys.argv) > 2 and sys.argv[2] == "conversation":
        if not os.path.exists(CONVERSATION):
            skip(f"{CONVERSATION} is not here")
        main([test_conversation])
    elif len(sys.argv) > 2 and sys.argv[2] == "golden":
        print(json.dumps(hashes(sys.argv[1]), indent=1))
    else:
        main([test_by_hand, test_links_by_hand, test_ssd_by_hand, test_regret, test_fit, test_plan, test_sums, test_slo,
              test_order_of_the_queue, test_nobody_starves, test_just_in_time, test_copies_are_limited, test_one_stuck, test_arguments, test_other_traces,
              test_report, test_sweep, test_requests_out, test_hashes])
