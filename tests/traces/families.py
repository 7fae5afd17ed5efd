#!/usr/bin/env python3
"""families - made-up traces of ten kinds: tests/traces/families.py NAME SEED BLOCKS > trace.jsonl

A family is a generator of prompts without end, each a list of ids of blocks; equal ids have equal ids before them, so prompts form a
tree. A trace is as many of its prompts as hold BLOCKS blocks. Numbers come from Python's Mersenne Twister, whose sequence is
promised not to change between versions, by random() alone: the other draws are made from it here.

    zipf            documents by popularity, each with a question of its own behind it
    loop            the same documents in turn
    scan            popular documents, now and then a hundred prompts that never come again
    phases          popular documents, exchanged for others all at once
    drift           popular documents, exchanged for others one by one
    chat            sessions that grow; late ones talk more, each ends at some time
    system-prompt   the same behind eight blocks that all share
    agents          a tree of attempts: each goes on from an earlier one
    uniform         documents, all as popular as each other
    mixture         chat, zipf and scan, taking turns by chance
"""
import bisect
import json
import math
import random
import sys


class Draw:
    """What the families need of chance, made of random() only."""

    def __init__(self, seed):
        self.random = random.Random(seed).random

    def below(self, bound):
        return int(self.random() * bound)

    def between(self, low, high):
        return low + self.below(high - low + 1)

    def exponential(self, mean):
        return -mean * math.log(1 - self.random())


def zipf(draw, count, skew=1.0):
    weights, total = [], 0.0
    for rank in range(1, count + 1):
        total += rank**-skew
        weights.append(total)
    return lambda: bisect.bisect(weights, draw.random() * total)


def documents(draw, pick, tail=2):
    """Prompts of a document each, and a question of its own."""
    fresh, lengths = 10**7, {}
    while True:
        which = pick()
        if which not in lengths:
            lengths[which] = draw.between(1, 12)
        questions = draw.between(0, tail)
        yield [which * 100 + i for i in range(lengths[which])] + list(range(fresh, fresh + questions))
        fresh += questions


def loop(_draw, count=800):
    at = 0
    while True:
        yield [at % count * 100 + i for i in range(4)]
        at += 1


def scan(draw):
    hot, fresh = documents(draw, zipf(draw, 300)), 10**9
    while True:
        if draw.random() < 0.01:
            for _ in range(100):
                yield list(range(fresh, fresh + 8))
                fresh += 8
        yield next(hot)


def phases(draw):
    base, pick = 0, zipf(draw, 400)
    part = documents(draw, lambda: base + pick())
    while True:
        for _ in range(1500):
            yield next(part)
        base += 400


def drift(draw):
    pick, at = zipf(draw, 500, 0.8), 0
    while True:
        at += 1
        which = at // 8 + pick()
        yield [which * 100 + i for i in range(6)]


def chat(draw, shared=0):
    fresh, sessions = 10**6, []
    while True:
        if len(sessions) < 150 or draw.random() < 0.1:
            sessions.append(list(range(shared)))
        at = len(sessions) - 1 - int(draw.exponential(20)) % len(sessions)
        more = draw.between(1, 6)
        sessions[at] += range(fresh, fresh + more)
        fresh += more
        yield list(sessions[at])
        if draw.random() < 0.15:
            del sessions[at]


def agents(draw):
    fresh, nodes = 10**6, [[0, 1, 2]]
    while True:
        base = nodes[len(nodes) - 1 - int(draw.exponential(5)) % len(nodes)]
        more = draw.between(1, 4)
        prompt = base[:draw.between(2, len(base))] + list(range(fresh, fresh + more))
        fresh += more
        nodes.append(prompt[:40])
        if len(nodes) > 400 or draw.random() < 0.005:
            nodes = [list(range(fresh, fresh + 3))]
            fresh += 3
        yield prompt


def mixture(draw):
    parts = [chat(draw), documents(draw, zipf(draw, 600)), scan(draw)]
    while True:
        which = draw.below(3)
        yield [block + which * 2 * 10**9 for block in next(parts[which])]


FAMILIES = {
    "zipf": lambda draw: documents(draw, zipf(draw, 2000)),
    "loop": loop,
    "scan": scan,
    "phases": phases,
    "drift": drift,
    "chat": chat,
    "system-prompt": lambda draw: chat(draw, 8),
    "agents": agents,
    "uniform": lambda draw: documents(draw, lambda: draw.below(2000)),
    "mixture": mixture,
}


def trace(name, seed, blocks):
    """Prompts of a family that hold so many blocks together."""
    count = 0
    for prompt in FAMILIES[name](Draw(seed)):
        yield prompt
        count += len(prompt)
        if count >= blocks:
            return


def line(at, prompt):
    """A prompt as a line of a trace (docs/replay.md)."""
    return json.dumps({"timestamp": at, "input_length": 512 * len(prompt), "output_length": 1, "hash_ids": prompt}) + "\n"


if __name__ == "__main__":
    if len(sys.argv) != 4 or sys.argv[1] not in FAMILIES:
        sys.exit(__doc__)
    for number, ids in enumerate(trace(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))):
        sys.stdout.write(line(number, ids))
