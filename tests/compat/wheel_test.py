"""wheel_test - a wheel in an empty virtual environment without any index.

    wheel_test.py PACKAGE       PACKAGE: the folder of a build with the extension modules, of which a wheel is made
    wheel_test.py WHEEL         one that is there: tools/wheel's, by hand

Goal: what is in it, what pip makes of it, that it imports beside anything (in both orders, without network, beside protobuf and
jemalloc, after a fork), that its programs start and that the README's example runs. A wheel for every Linux (manylinux) needs
libc and nothing else; the one of an ordinary build is linked with the system's libraries and is not asked for that.
"""
import ast
import ctypes.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest
import zipfile

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../..")
GIVEN = os.path.abspath(sys.argv.pop(1))
sys.path.insert(0, os.path.join(ROOT, "python"))

import build_backend  # noqa: E402

EXAMPLE = """
import ctypes, importlib.metadata
from mooncake.engine import TransferEngine
a, b = TransferEngine(), TransferEngine()
assert a.initialize("127.0.0.1", "P2PHANDSHAKE", "tcp", "") == 0 == b.initialize("127.0.0.1", "P2PHANDSHAKE", "tcp", "")
here, there = ctypes.create_string_buffer(b"wheel"), ctypes.create_string_buffer(6)
assert b.register_memory(ctypes.addressof(there), 6) == 0
assert a.transfer_sync_write(f"127.0.0.1:{b.get_rpc_port()}", ctypes.addressof(here), ctypes.addressof(there), 6) == 0
print(there.value.decode(), importlib.metadata.version("mooncake-transfer-engine"))
"""

# argv: modules, then FORK, or a library of others to load before or behind them; prints how many threads there are.
IMPORTS = """
import ctypes, importlib, os, sys
def load():
    for name in sys.argv[1].split(","):
        importlib.import_module(name)
what, where = sys.argv[2:]
if what == "FORK":
    if where == "before":
        load()
    child = os.fork()
    if child == 0:
        load()
        from mooncake.engine import TransferEngine
        from mooncake.store import MooncakeDistributedStore
        engine = TransferEngine()
        fine = engine.initialize("127.0.0.1", "P2PHANDSHAKE", "tcp", "") == 0 and MooncakeDistributedStore().get("k") == b""
        os._exit(0 if fine else 1)
    assert os.waitpid(child, 0)[1] == 0
    load()
else:
    order = [load, lambda: ctypes.CDLL(what, ctypes.RTLD_GLOBAL)] if what != "NONE" else [load]
    for step in order if where == "before" else order[::-1]:
        step()
print(len(os.listdir("/proc/self/task")))
"""


class WheelTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        if os.path.isdir(GIVEN):
            build_backend.compiled = lambda: GIVEN
            cls.wheel = os.path.join(cls.folder.name, build_backend.build_wheel(cls.folder.name))
        else:
            cls.wheel = GIVEN
        cls.venv = os.path.join(cls.folder.name, "venv")
        cls.env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        made = subprocess.run([sys.executable, "-m", "venv", cls.venv], text=True, capture_output=True, check=False)
        cls.python = os.path.join(cls.venv, "bin/python") if made.returncode == 0 else None
        if cls.python:
            subprocess.run([cls.python, "-m", "pip", "install", "--quiet", "--no-index", cls.wheel], env=cls.env, check=True,
                           capture_output=True)

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def run_python(self, *args, before=(), env=None):
        """What the interpreter of the environment prints; it must end with 0."""
        if not self.python:
            self.skipTest("no venv module (python3-venv)")
        done = subprocess.run([*before, self.python, *args], env={**self.env, **(env or {})}, cwd=self.venv, text=True, capture_output=True,
                              check=False, timeout=60)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def test_content(self):
        with zipfile.ZipFile(self.wheel) as wheel:
            names = wheel.namelist()
            self.assertIsNone(wheel.testzip())
            record = wheel.read(next(name for name in names if name.endswith("/RECORD"))).decode()
        self.assertIn("mooncake/__init__.py", names)
        self.assertTrue(any(name.startswith("mooncake/engine.") and name.endswith(".so") for name in names))
        self.assertEqual(sorted(names), sorted(line.split(",")[0] for line in record.splitlines()))

    def test_same_input_same_wheel(self):
        if not os.path.isdir(GIVEN):
            self.skipTest("a ready wheel is given")
        again = tempfile.mkdtemp(dir=self.folder.name)
        build_backend.build_wheel(again)
        with open(self.wheel, "rb") as one, open(os.path.join(again, os.path.basename(self.wheel)), "rb") as two:
            self.assertEqual(one.read(), two.read())

    def test_needs_libc_only(self):
        if "manylinux" not in os.path.basename(self.wheel):
            self.skipTest("a wheel of this system's libraries")
        done = subprocess.run([os.path.join(ROOT, "tools/wheel"), "--check", self.wheel], text=True, capture_output=True, check=False)
        self.assertEqual(done.returncode, 0, done.stdout)

    def test_install(self):
        word, version = self.run_python("-c", EXAMPLE).split()
        self.assertEqual(word, "wheel")
        self.assertGreaterEqual(tuple(map(int, version.split(".")[:2])), (0, 4))

    def test_imports_in_both_orders(self):
        for modules in ("mooncake.engine,mooncake.store", "mooncake.store,mooncake.engine"):
            self.assertEqual(self.run_python("-c", IMPORTS, modules, "NONE", "before"), "1\n")
            for where in ("before", "after"):
                self.assertEqual(self.run_python("-c", IMPORTS, modules, "FORK", where), "1\n")

    def test_imports_without_network(self):
        alone = ["unshare", "-rn"]
        if not shutil.which("unshare") or subprocess.run([*alone, "true"], check=False, capture_output=True).returncode:
            self.skipTest("no network namespace to be had")
        self.assertEqual(self.run_python("-c", IMPORTS, "mooncake.engine,mooncake.store", "NONE", "before", before=alone), "1\n")

    def test_imports_beside_protobuf(self):
        self.beside("protobuf", lambda library, where: self.run_python("-c", IMPORTS, "mooncake.store,mooncake.engine", library, where))

    def test_imports_beside_jemalloc(self):
        def run(library, where):
            if where == "before":
                return self.run_python("-c", IMPORTS, "mooncake.store,mooncake.engine", "NONE", where, env={"LD_PRELOAD": library})
            self.assertTrue(self.run_python("-c", EXAMPLE, env={"LD_PRELOAD": library}).startswith("wheel "))
            return "1\n"
        self.beside("jemalloc", run)

    def beside(self, name, run):
        library = ctypes.util.find_library(name)
        if not library:
            self.skipTest(f"lib{name} is not installed")
        for where in ("before", "after"):
            self.assertEqual(run(library, where), "1\n")

    def test_programs(self):
        self.run_python("-c", "pass")
        for name in build_backend.project()["scripts"]:
            done = subprocess.run([os.path.join(self.venv, "bin", name), "--help"], env=self.env, text=True, capture_output=True, check=False,
                                  timeout=30)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertIn(name, done.stdout)
        self.assertIn("--port", self.run_python("-m", "mooncake.http_metadata_server", "--help"))

    def test_example_of_the_readme(self):
        """Its lines as they stand there, with what they say they return; only the master is at a free port."""
        self.run_python("-c", "pass")
        for name in ("README.md", "README.zh-CN.md"):
            with open(os.path.join(ROOT, name), encoding="utf-8") as file:
                example = next(part for part in re.findall(r"```python\n(.*?)```", file.read(), re.S) if "MooncakeDistributedStore" in part)
            with subprocess.Popen([os.path.join(self.venv, "bin/mooncake_master"), "--port=0", "--metrics_port=0", "--state_dir=none"],
                                  env=self.env, stdout=subprocess.PIPE, text=True) as master:
                try:
                    address = dict(word.split("=") for word in master.stdout.readline().split()[1:])["master"]
                    self.run_python("-c", checked(example).replace("127.0.0.1:50051", address))
                finally:
                    master.terminate()


def checked(example):
    """Each line `expression  # value` becomes an assertion that it is so."""
    lines = []
    for line in example.splitlines():
        code, _, value = line.partition("  # ")
        lines.append(f"got = {code.strip()}\nassert got == {value}, got" if value and is_value(value) else line)
    assert sum("assert" in line for line in lines) >= 3, example
    return "\n".join(lines)


def is_value(text):
    try:
        ast.literal_eval(text)
        return True
    except (SyntaxError, ValueError):
        return False


if __name__ == "__main__":
    unittest.main()
