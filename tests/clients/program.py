"""program.py - what `vllm` and `connectors` have in common: options, the environment, parts whose rows are printed as they come.

A part is a generator of rows (title, whether it is so, words) that is given the Run.
"""
import argparse
import os
import platform
import signal
import sys
import tempfile

from environment import HERE, Environment, Missing

sys.path.append(os.path.join(os.path.dirname(HERE), "compat"))

import cluster  # noqa: E402
from cluster import Master, Process, equal, wait_for  # noqa: E402, F401

ENDING = "Exit: 0 all rows ok, 1 a row failed, 2 wrong usage, 3 packages cannot be had here."


class Run:
    """What processes of one run are given."""

    def __init__(self, environment, folder, transport):
        self.environment, self.folder = environment, folder
        self.env = {"MC_FORCE_TCP": "1"} if transport == "tcp" else {}

    def file(self, name):
        return os.path.join(self.folder, name)

    @staticmethod
    def say(words):
        print(f"  {words}", file=sys.stderr, flush=True)


def machine():
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        model = next((line.split(":")[1].strip() for line in file if line.startswith("model name")), platform.machine())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} x {model}, {memory:.0f} GiB, Linux {platform.release().split('-')[0]}"


def rows_of(name, part, run):
    """Print the rows of a part; (passed, failed)."""
    counts = [0, 0]
    try:
        for title, good, words in part(run):
            print(f"{'ok' if good else 'FAILED':7} {name:8} {title}: {words}", flush=True)
            counts[not good] += 1
    except (AssertionError, OSError) as error:  # the rows behind it would say nothing
        print(f"FAILED  {name:8} {type(error).__name__}: {error}", flush=True)
        counts[1] += 1
    return counts


def arguments(about, parts):
    cache = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "mooncake/vllm")
    parser = argparse.ArgumentParser(description=f"{about}{ENDING}", formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{' or '.join(parts)} (default: both)")
    parser.add_argument("--cache", metavar="DIR", default=cache, help="where everything is, or is put: 6.1 GB (default: %(default)s)")
    parser.add_argument("--transport", choices=["auto", "tcp"], default="auto", help="auto: shared memory on one host; tcp: MC_FORCE_TCP=1")
    parser.add_argument("--setup", action="store_true", help="make DIR ready, and no more")
    options = parser.parse_args()
    for part in options.parts:
        if part not in parts:
            parser.error(f"no part {part!r}; there are {' and '.join(parts)}")
    return options


def main(about, parts, ready=None):
    """`ready` is called with the environment, to bring what only this program needs."""
    options = arguments(about, parts)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was started is ended on the way out
    try:
        environment = Environment(options.cache, Run.say)
        if ready:
            ready(environment)
    except Missing as reason:
        print(f"{os.path.basename(sys.argv[0])}: {reason}", file=sys.stderr)
        return 3
    except KeyboardInterrupt:
        return 130
    if options.setup:
        return 0
    cluster.MASTER = environment.program("mooncake_master")
    os.environ.setdefault("MOONCAKE_LOG", "error")
    passed = failed = 0
    print(f"{environment.versions()}; transport {options.transport}\n{machine()}", flush=True)
    try:
        with tempfile.TemporaryDirectory(prefix="mooncake-clients-") as folder:
            run = Run(environment, folder, options.transport)
            for name in options.parts or parts:
                good, bad = rows_of(name, parts[name], run)
                passed, failed = passed + good, failed + bad
    except KeyboardInterrupt:
        return 130
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0
