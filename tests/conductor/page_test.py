"""page_test - the page in headless Chromium, wide and narrow, light and dark: a question is answered token by token with its ticket, the
cluster view shows workers, tiers and plots, nothing is fetched from elsewhere, and nothing overflows.

    page_test.py PATH_TO_MOONCAKE FOLDER      FOLDER gets playwright-core (npm) and the screenshots
"""
import os
import shutil
import subprocess
import sys

from cluster import Cluster

BINARY, FOLDER = sys.argv[1:3]
HERE = os.path.dirname(os.path.abspath(__file__))


def skip(why):
    print("page: SKIPPED,", why)
    sys.exit(77)


chromium = os.environ.get("MOONCAKE_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
if not chromium:
    skip("chromium is not installed")
if not shutil.which("node"):
    skip("node is not installed")
os.makedirs(FOLDER, exist_ok=True)
if not os.path.isdir(os.path.join(FOLDER, "node_modules", "playwright-core")):
    npm = shutil.which("npm")
    if not npm or subprocess.run([npm, "install", "--no-audit", "--no-fund", "--prefix", FOLDER, "playwright-core"],
                                 check=False).returncode != 0:
        skip("npm cannot install playwright-core")
with Cluster(BINARY, "--memory", "64M", "--synthetic-decode", "10", "--synthetic-prefill", "3000") as c:
    done = subprocess.run(["node", os.path.join(HERE, "page_test.js"), c.url, chromium, FOLDER], timeout=210, check=False,
                          env={**os.environ, "NODE_PATH": os.path.join(FOLDER, "node_modules")})
sys.exit(done.returncode)
