"""wheel_test - the wheel that python/build_backend.py makes, in an empty virtual environment without any index.

    wheel_test.py PACKAGE       PACKAGE: the folder of the build with the extension modules

Goal: what is in it, what pip makes of it, and that it imports and moves bytes there. The compile itself is the ordinary build's.
"""
import os
import subprocess
import sys
import tempfile
import unittest
import zipfile

PACKAGE = os.path.abspath(sys.argv.pop(1))
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../python"))

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


class WheelTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        build_backend.compiled = lambda: PACKAGE
        cls.name = build_backend.build_wheel(cls.folder.name)

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def test_content(self):
        with zipfile.ZipFile(os.path.join(self.folder.name, self.name)) as wheel:
            names = wheel.namelist()
            self.assertIsNone(wheel.testzip())
            record = wheel.read(next(name for name in names if name.endswith("/RECORD"))).decode()
        self.assertIn("mooncake/__init__.py", names)
        self.assertTrue(any(name.startswith("mooncake/engine.") and name.endswith(".so") for name in names))
        self.assertEqual(sorted(names), sorted(line.split(",")[0] for line in record.splitlines()))
        again = tempfile.mkdtemp(dir=self.folder.name)
        build_backend.build_wheel(again)
        with open(os.path.join(self.folder.name, self.name), "rb") as one, open(os.path.join(again, self.name), "rb") as two:
            self.assertEqual(one.read(), two.read())  # the same input, the same wheel

    def test_install(self):
        venv = os.path.join(self.folder.name, "venv")
        made = subprocess.run([sys.executable, "-m", "venv", venv], text=True, capture_output=True, check=False)
        if made.returncode:
            self.skipTest("no venv module (python3-venv)")
        python = os.path.join(venv, "bin/python")
        env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-index", os.path.join(self.folder.name, self.name)],
                       env=env, check=True, capture_output=True)
        out = subprocess.run([python, "-c", EXAMPLE], env=env, cwd=venv, text=True, capture_output=True, check=True).stdout
        word, version = out.split()
        self.assertEqual(word, "wheel")
        self.assertGreaterEqual(tuple(map(int, version.split(".")[:2])), (0, 4))


if __name__ == "__main__":
    unittest.main()
