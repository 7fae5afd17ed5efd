"""kit - what the tests of replay share: running the binary, made-up traces, the shared trace."""
import json
import os
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SHARED = os.environ.get("MC_TRACES", os.path.join(ROOT, "..", "shared", "traces"))
CONVERSATION = os.path.join(SHARED, "conversation_trace.jsonl")
SKIPPED = 77

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "traces"))  # families.py
import families  # noqa: E402,F401  (found through the line above; for those that import this)


class Rng:
    """splitmix64: the same numbers in every version of Python."""

    def __init__(self, seed):
        self.state = seed

    def u64(self):
        self.state = (self.state + 0x9E3779B97F4A7C15) % 2**64
        x = self.state
        x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        x = (x ^ x >> 27) * 0x94D049BB133111EB % 2**64
        return x ^ x >> 31

    def below(self, bound):
        return self.u64() % bound


def replay(binary, *args, fails=False):
    """Run `mooncake replay ... --json`; the parsed object, or what it said on standard error when it is to fail."""
    run = subprocess.run([binary, "replay", *map(str, args), "--json"], text=True, capture_output=True, check=False)
    if fails:
        assert run.returncode != 0, f"replay {args} should have failed"
        return run.stderr
    assert run.returncode == 0, f"replay {args}: {run.stderr}"
    return json.loads(run.stdout)


def chats(seed, requests, users, turn_blocks=6, gap_ms=200):
    """Chat sessions: every prompt is a user's last one and a little more, behind one system prompt."""
    rng, out, next_id, at = Rng(seed), [], 1, 0
    prompts = [[0] for _ in range(users)]
    for _ in range(requests):
        who = min(rng.below(users), rng.below(users))  # some talk more than others
        if len(prompts[who]) > 40:
            prompts[who] = [0]
        for _ in range(1 + rng.below(turn_blocks)):
            prompts[who].append(next_id)
            next_id += 1
        at += rng.below(2 * gap_ms)
        out.append({"timestamp": at, "input_length": 512 * len(prompts[who]) - rng.below(512),
                    "output_length": 1 + rng.below(300), "hash_ids": list(prompts[who])})
    return out


def once(seed, requests, users):
    """Half chats, half prompts that never come back: what scans do to recency."""
    rng, next_id = Rng(seed + 1), 10**9
    out = chats(seed, requests, users)
    for request in out[::2]:
        blocks = 1 + rng.below(20)
        request["hash_ids"] = list(range(next_id, next_id + blocks))
        request["input_length"] = 512 * blocks
        next_id += blocks
    return out


class File:
    """A trace in a temporary file."""

    def __init__(self, requests=(), text=None):
        handle, self.path = tempfile.mkstemp(suffix=".jsonl")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text if text is not None else "".join(json.dumps(request) + "\n" for request in requests))

    def __enter__(self):
        return self.path

    def __exit__(self, *_):
        os.unlink(self.path)


def skip(reason):
    print(f"skipped: {reason}")
    sys.exit(SKIPPED)


def main(tests):
    """Run every function of `tests` with the binary named on the command line."""
    for test in tests:
        test(sys.argv[1])
        print(f"ok {test.__name__}")
