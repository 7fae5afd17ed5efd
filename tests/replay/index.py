#!/usr/bin/env python3
"""index - goal: the master's prefix index answers exactly. Method: `mooncake bench index`, which stores the prompts of a trace at
instances in turn, takes a part out again, and compares random and adversarial queries with a search block by block."""
import json
import subprocess

from kit import File, chats, main, once

FIELDS = {"find_per_s", "find_p99_us", "store_blocks_per_s", "bare_loop_find_per_s", "mismatches"}


def bench(binary, trace, *args, code=0):
    run = subprocess.run([binary, "bench", "index", "--trace", trace, *map(str, args), "--json"], text=True, capture_output=True,
                         check=False)
    assert run.returncode == code, run.stderr
    return json.loads(run.stdout) if code == 0 else run.stderr


def test_exact(binary):
    for requests, instances, queries in ((chats(1, 500, 40), 16, 20000), (once(2, 300, 20), 64, 5000), (chats(3, 50, 3), 1, 5000)):
        with File(requests) as trace:
            r = bench(binary, trace, "--instances", instances, "--queries", queries, "--rounds", 1)
            assert FIELDS <= r.keys()
            assert r["mismatches"] == 0 and r["queries"] == queries, r
            assert r["requests"] == len(requests) and r["found_blocks"] == sum(len(x["hash_ids"]) for x in requests), r
            assert all(r[field] > 0 for field in FIELDS - {"mismatches"}), r


def test_arguments(binary):
    with File() as trace:
        assert bench(binary, trace, "--queries", 10)["mismatches"] == 0
    assert "No such file" in bench(binary, "/nonexistent/x", code=1)


if __name__ == "__main__":
    main([test_exact, test_arguments])
