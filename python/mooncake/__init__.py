"""mooncake - Transfer Engine and Store with the interface of the existing Mooncake.

    from mooncake.engine import TransferEngine
    from mooncake.store import MooncakeDistributedStore, ReplicateConfig

Names of the two modules are also found here, loaded when they are first asked for.
"""
import importlib

_HOMES = {
    "TransferEngine": "engine", "TransferNotify": "engine", "TransferOpcode": "engine",
    "MooncakeDistributedStore": "store", "ReplicateConfig": "store", "MooncakeHostMemAllocator": "store",
    "bind_to_numa_node": "store",
    "BufferPool": "buffer_pool", "RegisteredBufferPool": "buffer_pool",
}


def __getattr__(name):
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{home}"), name)


def __dir__():
    return sorted([*globals(), *_HOMES])
