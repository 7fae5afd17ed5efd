"""_programs - the console scripts that are programs in C: they lie beside this file in the installed package."""
import os
import sys


def _run(name):
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), name)
    if not os.path.exists(path):
        sys.exit(f"{name}: not in this package; a build of the tree has it in compat/")
    os.execv(path, [name, *sys.argv[1:]])


def mooncake_master():
    _run("mooncake_master")


def mooncake_client():
    _run("mooncake_client")
