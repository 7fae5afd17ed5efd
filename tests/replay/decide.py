#!/usr/bin/env python3
"""decide - goal: a decision's time grows with the number of instances and hardly with that of blocks. Method: ratios of medians within
one run of the machine (bench/replay has the times): a look-up that walked the blocks would be a hundred times slower, a policy that
compared every pair of instances sixteen times."""
import json
import subprocess
import sys


def p50(instances, blocks):
    runs = [json.loads(subprocess.run([sys.argv[1], str(instances), str(blocks), "5000"], capture_output=True, text=True, check=True).stdout)
            for _ in range(3)]
    assert all(run["instances"] == instances and run["blocks"] == blocks // 64 * 64 for run in runs), runs
    return min(run["p50_us"] for run in runs)


few, many, large = p50(16, 6400), p50(64, 6400), p50(16, 640_000)
print(f"64 instances / 16: {many / few:.1f}, 640,000 blocks / 6,400: {large / few:.1f}")
assert many < 10 * few and large < 15 * few
