"""ffi_test - builds a Rust program against a C interface of compat/ and runs it.

    ffi_test.py SOURCE LIBRARY FOLDER      77: no rustc here
"""
import os
import shutil
import subprocess
import sys


def main():
    source, library, folder = sys.argv[1:]
    if not shutil.which("rustc"):
        print("rustc is not installed")
        return 77
    where, name = os.path.dirname(library), os.path.basename(library)[3:-3]
    program = os.path.join(folder, os.path.basename(source)[:-3])
    built = subprocess.run(["rustc", "--edition", "2021", "-O", "-o", program, source, "-L", where, f"-ldylib={name}"], text=True,
                           capture_output=True, check=False)
    if built.returncode:
        print(built.stderr)
        if "E0635" in built.stderr or "c\"" in built.stderr or "default toolchain" in built.stderr:
            print("this rustc is too old")
            return 77
        return 1
    return subprocess.run([program], env={**os.environ, "LD_LIBRARY_PATH": where}, timeout=60, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
