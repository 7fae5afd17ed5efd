#!/usr/bin/env python3
"""node_curve - goal: what a live node says that other sizes of memory would hit is what they do hit. Method: prompts of a family
of tests/traces through a node (tests/store/play.c: reads, and puts of what is missing, block by block); the same prompts
replayed in pools of as many blocks as the node held, half, twice and four times of it. More fit into the largest than the node's
sample holds, so a quarter of the ids are sampled."""
import json
import subprocess
import sys

from kit import File, families, replay

FAMILY, BLOCKS, MEMORY_MIB, NEAR = "zipf", 30000, 12, 0.02

binary, play = sys.argv[1:]
prompts = list(families.trace(FAMILY, 1, BLOCKS))
run = subprocess.run([play, str(MEMORY_MIB)], input="".join(" ".join(map(str, prompt)) + "\n" for prompt in prompts), text=True,
                     stdout=subprocess.PIPE, check=True)
said = json.loads(next(line for line in run.stdout.splitlines() if line.startswith("{")))
assert said["objects"] * 4 > 4096 and said["blocks"] > 4 * said["objects"], said  # sampled, and filled more than once
own = said["hit_blocks"] / said["blocks"]
assert abs(said["hit_ratio"][1] - own) < 0.005, said  # it knows what it hit itself
with File(text="".join(families.line(at, prompt) for at, prompt in enumerate(prompts))) as path:
    for part, rate in zip((0.5, 1, 2, 4), said["hit_ratio"]):
        want = replay(binary, "--trace", path, "--one-pool", int(part * said["objects"]))["hit_rate"]
        print(f"{part} x {said['objects']} objects: the node says {rate:.4f}, replayed {want:.4f}")
        assert abs(rate - want) < NEAR, (part, rate, want)
print("ok")
