#!/usr/bin/env python3
"""live - goal: what a Conductor records of live traffic is a trace that replays, every decision in it is made again the same, and what
its workers measured can be taken over. Method: a real cluster with the synthetic engine, chats that share prefixes, several at a time."""
import json
import os
import sys
import tempfile
import threading

from kit import File, replay

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "conductor"))
from cluster import Cluster  # noqa: E402  (found by the line above)

USERS, TURNS, SYSTEM = 4, 4, 640
STEP_MS = 20  # what the synthetic engine takes for a decode step, at least


def talk(cluster, user, sent):
    """A growing prompt behind a system prompt that all have."""
    tokens = [1 + i % 200 for i in range(SYSTEM)]
    for turn in range(TURNS):
        tokens += [1 + (7 * user + 3 * turn + i) % 200 for i in range(300 + 101 * user)]
        answer = 40 + user
        cluster.complete(tokens, count=answer, ignore_eos=True)
        sent.append((len(tokens), answer, tuple(tokens)))


def traffic(cluster):
    sent = []
    threads = [threading.Thread(target=talk, args=(cluster, user, sent)) for user in range(USERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sent


def check_trace(path, sent):
    """In order of arrival, each request once, equal ids exactly where prompts have an equal beginning; no text and no tokens."""
    with open(path, encoding="utf-8") as file:
        lines = [json.loads(line) for line in file]
    assert sorted((x["input_length"], x["output_length"]) for x in lines) == sorted(x[:2] for x in sent), lines
    stamps = [x["timestamp"] for x in lines]
    assert stamps[0] == 0 and stamps == sorted(stamps)
    prompts = {x[0]: x[2] for x in sent}
    assert len(prompts) == len(sent), "each prompt has a length of its own, so that lines can be told apart"
    for a in lines:
        assert set(a) == {"timestamp", "input_length", "output_length", "hash_ids"}
        assert len(a["hash_ids"]) == a["input_length"] // 512
        for b in lines:
            same = 0
            for x, y in zip(prompts[a["input_length"]], prompts[b["input_length"]]):
                if x != y:
                    break
                same += 1
            equal = sum(x == y for x, y in zip(a["hash_ids"], b["hash_ids"]))
            assert equal == min(same // 512, len(a["hash_ids"]), len(b["hash_ids"])), (a, b, same)


def main(binary):
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "traffic.jsonl")
        with Cluster(binary, "--prefill-workers", "2", "--decode-workers", "2", "--synthetic-decode", str(STEP_MS), "--record", path) as cluster:
            sent = traffic(cluster)
            fits = json.loads(cluster.get("/v1/fits/synthetic")[1])
            assert cluster.get("/v1/fits/nobody")[0] == 404
        check_trace(path, sent)
        print("ok trace")

        again = replay(binary, "--decisions", path + ".decisions")
        assert again["decisions"] >= len(sent) and again["same"] == again["decisions"] and again["bad_lines"] == 0, again
        other = replay(binary, "--decisions", path + ".decisions", "--policy", "round-robin")
        assert other["decisions"] == again["decisions"] > other["same"] and other["different_line"] > 0, other
        with open(path + ".decisions", encoding="utf-8") as file:
            lines = file.read().splitlines()
        row = json.loads(lines[0])
        row["decision"][2] += 1
        with File(text="\n".join([json.dumps(row), "{}", "no json", *lines[1:]]) + "\n") as spoilt:
            r = replay(binary, "--decisions", spoilt)
            assert r["bad_lines"] == 2 and r["different_line"] == 1 and r["same"] == again["same"] - 1, r
            assert "--strict" in replay(binary, "--decisions", spoilt, "--strict", fails=True)
        print("ok decisions")

        r = replay(binary, "--trace", path, "--strict")
        assert r["requests"] == len(sent) and r["reordered"] == 0 and r["hit_rate"] > 0.2, r
        assert {"prefill_base_ms", "prefill_token_ms", "prefill_pair_ms", "decode_base_ms", "decode_sequence_ms", "decode_kv_token_ns",
                "kv_token_bytes"} <= fits.keys(), fits
        assert 0.05 < fits["prefill_token_ms"] < 5, "the synthetic engine computes 4,000 tokens a second"
        steps = sum(answer for _, answer, _ in sent)
        assert fits["#decode_samples"] > steps / (2 * USERS), "steps were measured, at most all users' in one"
        step = fits["decode_base_ms"] + fits["decode_sequence_ms"] + fits["decode_kv_token_ns"] * 1500 / 1e6
        assert step > STEP_MS / 2, (step, fits)
        with File(text=json.dumps(fits)) as fit:
            slow = replay(binary, "--trace", path, "--fit", fit, "--policy", "global")
        assert slow["ttft_ms"]["mean"] > 50 and slow["event_hash"] != r["event_hash"], slow
        assert slow["tbt_ms"]["p50"] > STEP_MS / 2, slow
        print("ok fit")


if __name__ == "__main__":
    main(sys.argv[1])
