"""kit.py - what bench/figures and bench/side-by-side share: the machine, contenders, rows, goals.

A contender is a callable that measures once and returns {name: Sample}; one that cannot run here raises Missing with the reason. A row
runs its contenders in turn, several times, in the same minutes, and compares the medians: on a shared machine the speed of small
calls changes by the minute, so only what was measured side by side may be divided.
"""
import contextlib
import dataclasses
import json
import os
import platform
import shutil
import socket
import statistics
import subprocess
from collections.abc import Callable

BENCH = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
ROOT = os.path.dirname(BENCH)
RESULTS = os.path.join(BENCH, "results")
PEER = "the better peer"
PATIENCE_S = 120  # for one measurement: a contender that hangs is an error, not a long wait
HALT_POLL = "/sys/module/haltpoll/parameters/guest_halt_poll_ns"
GOVERNOR = "/sys/devices/system/cpu/cpuidle/current_governor"


class Missing(Exception):
    """A contender that is not installed here; the text says what to install."""


@dataclasses.dataclass
class Sample:
    value: float  # in the unit of its row, unless it names another
    cpu_s_per_gb: float | None = None  # of all processes of the contender; None where nothing is moved or it cannot be told
    command: str = ""
    raw: dict | None = None  # what was printed
    unit: str | None = None


@dataclasses.dataclass
class Goal:
    """The median of `of` against factor x that of `other`, or against `factor` itself when other is None."""
    least: bool  # at least, else at most
    factor: float
    other: str | None = None
    of: str = "ours"

    def text(self):
        return f"{'>=' if self.least else '<='} {self.factor:g}" + (f" x {self.other}" if self.other else "")

    def met(self, figure):
        return figure >= self.factor if self.least else figure <= self.factor


@dataclasses.dataclass
class Row:
    name: str
    what: str
    unit: str
    contenders: list[Callable]
    goals: list[Goal]
    rounds: int | None = None  # of a row that counts and takes long: fewer than the others


@dataclasses.dataclass
class Place:
    """Where the contenders are, and how long each may measure."""
    build: str
    peer: str  # python of the environment with the peer's wheel
    python: str  # python for ours
    package: str  # folder with our package `mooncake`
    seconds: float
    scale: float  # of the rows that count and do not measure time

    def mooncake(self):
        return os.path.join(self.build, "mooncake")


def machine():
    model = "unknown processor"
    with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
        for line in file:
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    with open("/etc/os-release", encoding="utf-8") as file:
        system = dict(line.strip().split("=", 1) for line in file if "=" in line).get("PRETTY_NAME", "Linux").strip('"')
    return f"{os.cpu_count()} cores, {model}, {system}, Linux {platform.release().split('-')[0]}"


def word_of(path):
    """The first word of a file of the kernel; "" where it is not there."""
    try:
        with open(path, encoding="ascii") as file:
            return file.read().strip()
    except FileNotFoundError:
        return ""


def halt_poll_ns():
    """For how long the kernel of a virtual machine looks for work before it halts a core; None: it has no such setting."""
    return int(word_of(HALT_POLL)) if word_of(GOVERNOR) == "haltpoll" else None


@contextlib.contextmanager
def halt_poll(wanted_ns):
    """The setting is `wanted_ns` inside, and what it was before afterwards.

    A process of its own gives it back when the pipe to us is closed, which the kernel does however we end, SIGKILL included; it has a
    session of its own, so that a signal to our group does not end it.
    """
    before = halt_poll_ns()
    if before is None:
        raise Missing(f"no {HALT_POLL} or {GOVERNOR} is not haltpoll: idle cores of this machine cannot be told to poll")
    if not os.access(HALT_POLL, os.W_OK):
        raise Missing(f"{HALT_POLL} may not be written: be root")
    with subprocess.Popen(["sh", "-c", f"read -r _; echo {before} >{HALT_POLL}"], stdin=subprocess.PIPE, start_new_session=True):
        with open(HALT_POLL, "w", encoding="ascii") as file:
            file.write(str(wanted_ns))
        yield
    if halt_poll_ns() != before:
        raise RuntimeError(f"{HALT_POLL} was {before} and is {halt_poll_ns()}")


def write_result(name, content):
    path = os.path.join(RESULTS, f"{name}.json")
    with open(path, "w", encoding="utf-8") as file:
        json.dump(content, file, indent=1)
        file.write("\n")
    return os.path.relpath(path, ROOT)


def read_result(name):
    """What write_result() wrote; None: nothing yet."""
    try:
        with open(os.path.join(RESULTS, f"{name}.json"), encoding="utf-8") as file:
            return json.load(file)
    except FileNotFoundError:
        return None


def shown(words):
    """A command for a reader: without the folders of this machine."""
    return " ".join(str(word).replace(ROOT + "/", "") for word in words)


def run(words, env=None):
    """Standard output of a command that must succeed; its error output stays visible."""
    done = subprocess.run(words, text=True, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, check=False, timeout=PATIENCE_S,
                          env={**os.environ, **(env or {})})
    if done.returncode:
        raise RuntimeError(f"{shown(words)} ended with {done.returncode}")
    return done.stdout


def need(program, package):
    path = shutil.which(program)
    if not path:
        raise Missing(f"no {program} (apt install {package})")
    return path


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def measure(row, place, rounds, tell):
    """Every contender in turn, several times: name -> samples, and the reasons why some are missing."""
    samples, missing = {}, {}
    rounds = row.rounds or rounds
    for turn in range(rounds):
        for contender in row.contenders:
            if contender in missing:
                continue
            tell(f"{row.name}: round {turn + 1} of {rounds}")
            try:
                for name, sample in contender(place).items():
                    samples.setdefault(name, []).append(sample)
            except Missing as why:
                missing[contender] = str(why)
    return samples, sorted(set(missing.values()))


def medians(row, samples):
    """name -> (value, CPU seconds per GB or None). The peer runs in two ways, of which the better one counts."""
    values = {}
    for name, list_ in samples.items():
        cpu = [sample.cpu_s_per_gb for sample in list_ if sample.cpu_s_per_gb is not None]
        values[name] = statistics.median(sample.value for sample in list_), statistics.median(cpu) if cpu else None
    peers = [values[name] for name in values if name.startswith("peer")]
    if peers:
        values[PEER] = (max if row.goals[0].least else min)(peers, key=lambda pair: pair[0])
    return values


def judge(row, values):
    """[(goal, figure or None)] of a row; None: one of the two was not there."""
    judged = []
    for goal in row.goals:
        figure = None
        if goal.of in values and (goal.other is None or goal.other in values):
            figure = values[goal.of][0] / (values[goal.other][0] if goal.other else 1)
        judged.append((goal, figure))
    return judged
