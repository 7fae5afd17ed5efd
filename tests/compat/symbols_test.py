"""symbols_test - a library of compat/ exports what its header declares, and nothing else, and runs nothing when it is loaded.

    symbols_test.py LIBRARY HEADER

Goal: two libraries of this tree, or one of them and anything else, can live in one process. Constructors that are there are the
compiler's own: what it registers for itself, and its table of the processor's features.
"""
import re
import shutil
import subprocess
import sys

OF_THE_COMPILER = {"frame_dummy", "__cpu_indicator_init", "init_cpu_features", "__do_global_dtors_aux"}


def said(*command):
    return subprocess.run(command, text=True, capture_output=True, check=True).stdout


def exported(library):
    return {line.split()[-1].split("@")[0] for line in said("nm", "-D", "--defined-only", library).splitlines()}


def declared(header):
    with open(header, encoding="utf-8") as file:
        text = re.sub(r"/\*.*?\*/", "", file.read(), flags=re.S)
    return set(re.findall(r"\b(\w+)\([^()]*\);", text))


def run_at_load(library):
    """Names of what stands in .init_array and .fini_array: relative relocations whose place lies there."""
    names = {int(line.split()[0], 16): line.split()[2] for line in said("nm", library).splitlines() if len(line.split()) == 3}
    ranges = [(int(found[0], 16), int(found[1], 16)) for found in
              re.findall(r"\.(?:init|fini)_array\s+\S+\s+([0-9a-f]+)\s+[0-9a-f]+\s+([0-9a-f]+)", said("readelf", "-SW", library))]
    for at, target in re.findall(r"^([0-9a-f]+)\s+\S+\s+R_\w+_RELATIVE\s+([0-9a-f]+)", said("readelf", "-rW", library), re.M):
        if any(start <= int(at, 16) < start + size for start, size in ranges):
            yield names.get(int(target, 16), target)


def main():
    if not shutil.which("nm"):
        print("nm is not installed")
        return 77
    library, header = sys.argv[1:]
    there, wanted = exported(library), declared(header)
    for name in sorted(there ^ wanted):
        print(f"{name}: {'exported and not declared' if name in there else 'declared and not exported'}")
    at_load = set(run_at_load(library))
    for name in sorted(at_load - OF_THE_COMPILER):
        print(f"{name}: runs when the library is loaded or unloaded")
    print(f"{len(there & wanted)} functions, at load {' '.join(sorted(at_load))}")
    return 0 if there == wanted and at_load and at_load <= OF_THE_COMPILER else 1


if __name__ == "__main__":
    sys.exit(main())
