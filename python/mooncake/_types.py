"""_types - classes of mooncake.store that need nothing of C: numbers with names, and what describes a replica."""
from enum import Enum, IntEnum

from mooncake.buffer_pool import BufferLease, BufferPool, RegisteredBufferLease, RegisteredBufferPool


class Number(IntEnum):
    """A number with a name that prints as its name, in every version of Python."""

    __str__ = Enum.__str__


class SoftPinAction(Number):
    PRESERVE = 0
    ENABLE = 1
    DISABLE = 2


class ObjectDataType(Number):
    UNKNOWN = 0
    KVCACHE = 1
    TENSOR = 2
    WEIGHT = 3
    SAMPLE = 4
    ACTIVATION = 5
    GRADIENT = 6
    OPTIMIZER_STATE = 7
    METADATA = 8
    GENERAL = 9


class ReplicaStatus(Number):
    UNDEFINED = 0
    INITIALIZED = 1
    PROCESSING = 2
    COMPLETE = 3
    REMOVED = 4
    FAILED = 5


class TaskType(Number):
    REPLICA_COPY = 0
    REPLICA_MOVE = 1


class TaskStatus(Number):
    PENDING = 0
    PROCESSING = 1
    SUCCESS = 2
    FAILED = 3


class Descriptor:
    """Where the bytes of a replica lie: `size` of them at `buffer_address` of the segment `transport_endpoint`."""

    def __init__(self, transport_endpoint, buffer_address, size):
        self.transport_endpoint = transport_endpoint
        self.buffer_address = buffer_address
        self.size = size

    def __repr__(self):
        return f"Descriptor({self.transport_endpoint!r}, {self.buffer_address:#x}, {self.size})"


class MemoryDescriptor:
    def __init__(self, buffer_descriptor):
        self.buffer_descriptor = buffer_descriptor


class DiskDescriptor:
    """A copy on disk: none is made yet, so none is ever given out."""

    file_path = ""
    object_size = 0


class ReplicaDescriptor:
    """One copy of an object. Copies lie in memory here; what is listed is complete."""

    status = ReplicaStatus.COMPLETE

    def __init__(self, segment, address, size):
        self._memory = MemoryDescriptor(Descriptor(segment, address, size))

    def is_memory_replica(self):
        return True

    def is_disk_replica(self):
        return False

    def is_local_disk_replica(self):
        return False

    def get_memory_descriptor(self):
        return self._memory

    def get_disk_descriptor(self):
        raise RuntimeError("this replica lies in memory")

    def __repr__(self):
        return f"ReplicaDescriptor({self.status.name}, {self._memory.buffer_descriptor!r})"


class _Absent:
    """A class of the existing module that is not there yet: it can be named, not made."""

    def __init__(self, *args, **kw):
        raise NotImplementedError(f"mooncake.store.{type(self).__name__} is not there yet")


class QueryTaskResponse(_Absent):
    """Copying and moving by the master."""


class ParallelAxis(_Absent):
    """Tensors."""


class TensorParallelism(_Absent):
    """Tensors."""


class ReadTarget(_Absent):
    """Tensors."""


class EngramStore(_Absent):
    """Engram tables."""


class EngramStoreConfig(_Absent):
    """Engram tables."""


CLASSES = (SoftPinAction, ObjectDataType, ReplicaStatus, TaskType, TaskStatus, Descriptor, MemoryDescriptor, DiskDescriptor,
           ReplicaDescriptor, QueryTaskResponse, ParallelAxis, TensorParallelism, ReadTarget, EngramStore, EngramStoreConfig)

# What mooncake.store shows beside its C classes: these, and the members of the enumerations that the existing module exports.
EXPORTS = {cls.__name__: cls for cls in CLASSES}
EXPORTS.update(BufferPool=BufferPool, BufferLease=BufferLease, RegisteredBufferPool=RegisteredBufferPool,
               RegisteredBufferLease=RegisteredBufferLease)
for _enum in (ObjectDataType, ReplicaStatus, TaskType, TaskStatus):
    for _member in _enum:
        EXPORTS.setdefault(_member.name, _member)
