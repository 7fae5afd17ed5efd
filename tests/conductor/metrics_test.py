"""metrics_test - /metrics passes `promtool check metrics`, before and after requests.

    metrics_test.py PATH_TO_MOONCAKE      promtool from PATH, or named by MOONCAKE_PROMTOOL
"""
import os
import shutil
import subprocess
import sys

from cluster import Cluster

PROMTOOL = os.environ.get("MOONCAKE_PROMTOOL") or shutil.which("promtool")


def check(cluster):
    code, text = cluster.get("/metrics")
    assert code == 200, code
    done = subprocess.run([PROMTOOL, "check", "metrics"], input=text, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    assert done.returncode == 0, done.stdout.decode()
    return text


if not PROMTOOL:
    print("promtool: SKIPPED, it is not installed (Debian: apt install prometheus)")
    sys.exit(77)
with Cluster(sys.argv[1], "--memory", "64M") as c:
    check(c)
    for i in range(3):
        c.complete([300 + i] * 200)
    assert b'mooncake_requests_total{outcome="answered"} 3' in check(c)
    print("metrics ok")
