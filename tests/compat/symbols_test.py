"""symbols_test - a library of compat/ exports what its header declares, and nothing else.

    symbols_test.py LIBRARY HEADER

Goal: two libraries of this tree, or one of them and anything else, can live in one process.
"""
import re
import shutil
import subprocess
import sys


def exported(library):
    out = subprocess.run(["nm", "-D", "--defined-only", library], text=True, capture_output=True, check=True).stdout
    return {line.split()[-1].split("@")[0] for line in out.splitlines()}


def declared(header):
    with open(header, encoding="utf-8") as file:
        text = re.sub(r"/\*.*?\*/", "", file.read(), flags=re.S)
    return set(re.findall(r"\b(\w+)\([^()]*\);", text))


def main():
    if not shutil.which("nm"):
        print("nm is not installed")
        return 77
    there, wanted = exported(sys.argv[1]), declared(sys.argv[2])
    for name in sorted(there ^ wanted):
        print(f"{name}: {'exported and not declared' if name in there else 'declared and not exported'}")
    print(f"{len(there & wanted)} functions")
    return 1 if there != wanted else 0


if __name__ == "__main__":
    sys.exit(main())
