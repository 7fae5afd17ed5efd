"""ffi_test - builds a Rust program against a C interface of compat/ and runs it.

    ffi_test.py SOURCE LIBRARY FOLDER [MASTER]      MASTER: a mooncake_master, which is started beside it; 77: no rustc here
"""
import os
import shutil
import subprocess
import sys

import cluster


def build(source, library, program):
    """0, 1, or 77 when this rustc cannot."""
    name = os.path.basename(library)[3:-3]
    built = subprocess.run(["rustc", "--edition", "2021", "-O", "-o", program, source, "-L", os.path.dirname(library), f"-ldylib={name}"],
                           text=True, capture_output=True, check=False)
    if built.returncode == 0:
        return 0
    print(built.stderr)
    if "E0635" in built.stderr or "c\"" in built.stderr or "default toolchain" in built.stderr:
        print("this rustc is too old")
        return 77
    return 1


def main():
    source, library, folder = sys.argv[1:4]
    if not shutil.which("rustc"):
        print("rustc is not installed")
        return 77
    program = os.path.join(folder, os.path.basename(source)[:-3])
    code = build(source, library, program)
    if code:
        return code

    def run(*args):
        return subprocess.run([program, *args], env={**os.environ, "LD_LIBRARY_PATH": os.path.dirname(library)}, timeout=60,
                              check=False).returncode

    if len(sys.argv) < 5:
        return run()
    cluster.MASTER = sys.argv[4]
    with cluster.Master() as master:
        return run(master.address)


if __name__ == "__main__":
    sys.exit(main())
