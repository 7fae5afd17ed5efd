#!/usr/bin/env python3
"""readme.py - goal: what the README tells people to type works. Method: run it.

    readme.py BINARY [tools|hosts]

A block of shell lines behind the comment `<!-- run: NAME -->` is run by bash -e, with the binary as build/mooncake, in a folder and
with XDG directories of its own. `tools` runs beside a `mooncake up` on the default ports; `hosts` needs root (network namespaces).
The Chinese README must have the same blocks. Exit 77: nothing could be run, the reason in the last line.
"""
import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile

from service import read_line

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BLOCK = re.compile(r"<!-- run: (\w+) -->\n```sh\n(.*?)```", re.S)
NAMESPACES = ["mc-a", "mc-b"]
PORTS = [7400, 7401, 7402, 7480, 7481]


def blocks(name):
    with open(os.path.join(ROOT, name), encoding="utf-8") as file:
        return dict(BLOCK.findall(file.read()))


@contextlib.contextmanager
def folder_with(binary):
    """A folder with build/mooncake in it, and an environment that keeps everything inside."""
    with tempfile.TemporaryDirectory(prefix="mooncake-readme-") as folder:
        os.mkdir(os.path.join(folder, "build"))
        os.symlink(binary, os.path.join(folder, "build", "mooncake"))
        os.mkdir(os.path.join(folder, "run"), 0o700)
        yield folder, {**os.environ, "XDG_STATE_HOME": f"{folder}/state", "XDG_RUNTIME_DIR": f"{folder}/run", "LC_ALL": "C.UTF-8"}


def run_lines(lines, folder, env, timeout):
    """All lines in one bash, each echoed; the process group is ended whatever happens."""
    shell = subprocess.Popen(["bash", "-evc", lines], cwd=folder, env=env, stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        code = shell.wait(timeout)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(shell.pid, signal.SIGKILL)
        shell.wait()
    assert code == 0, f"a line of the README ended with {code}"


def taken(port):
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
        return False


def run_tools(binary, lines):
    for port in PORTS:
        if taken(port):
            return f"port {port} is taken on this machine"
    with folder_with(binary) as (folder, env):
        service = subprocess.Popen([binary, "up", "--engine=synthetic", "--memory=256M", "--json"], env=env,
                                   stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        try:
            assert read_line(service.stdout, 30), "mooncake up did not start"
            run_lines(lines, folder, {**env, "MOONCAKE_ENGINE": "synthetic", "MOONCAKE_MEMORY": "256M"}, 60)
        finally:
            service.terminate()
            service.wait()
            service.stdout.close()
    return None


def namespaces_possible():
    if os.geteuid() != 0:
        return "network namespaces need root"
    if not shutil.which("ip") or not shutil.which("curl"):
        return "ip or curl is not installed (tools/install check)"
    probe = f"mc-{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", probe], capture_output=True, text=True, check=False)
    if made.returncode:
        return f"no network namespaces here: {made.stderr.strip()}"
    usable = subprocess.run(["ip", "netns", "exec", probe, "true"], capture_output=True, text=True, check=False)
    subprocess.run(["ip", "netns", "del", probe], check=False)
    return None if usable.returncode == 0 else f"no network namespaces here: {usable.stderr.strip()}"


def run_hosts(binary, lines):
    reason = namespaces_possible()
    if reason:
        return reason
    present = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout.split()
    for name in NAMESPACES:
        if name in present:
            return f"a network namespace {name} is there already"
    with folder_with(binary) as (folder, env):
        try:
            run_lines(lines, folder, env, 90)
        finally:
            for name in NAMESPACES:
                subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
    return None


def main():
    binary = os.path.abspath(sys.argv[1])
    english, chinese = blocks("README.md"), blocks("README.zh-CN.md")
    if english != chinese:
        print("the two READMEs have different command blocks")
        return 1
    runners = {"tools": run_tools, "hosts": run_hosts}
    if set(english) != set(runners):
        print(f"blocks to run are {sorted(english)}, expected {sorted(runners)}")
        return 1
    skipped = []
    for name in sys.argv[2:] or runners:
        reason = runners[name](binary, english[name])
        if reason:
            skipped.append(f"{name}: {reason}")
        else:
            print(f"{name}: every line ran")
    print("; ".join(skipped) or "every line of both blocks ran")
    return 77 if skipped else 0


if __name__ == "__main__":
    sys.exit(main())
