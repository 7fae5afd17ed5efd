"""_programs - the console scripts that are programs in C: they lie beside this file in the installed package."""
import os
import sys

NAMES = ("mooncake_client", "mooncake_http_metadata_server", "mooncake_master", "transfer_engine_bench", "transfer_engine_topology_dump")


def _script(name):
    def run():
        path = os.path.join(os.path.dirname(os.path.abspath(__file__)), name)
        if not os.path.exists(path):
            sys.exit(f"{name}: not in this package; a build of the tree has it in compat/")
        os.execv(path, [name, *sys.argv[1:]])
    return run


globals().update({name: _script(name) for name in NAMES})
