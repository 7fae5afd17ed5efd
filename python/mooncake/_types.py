"""_types - classes of mooncake.store that need nothing of C: numbers with names, and what describes a replica."""
from enum import IntEnum


class SoftPinAction(IntEnum):
    PRESERVE = 0
    ENABLE = 1
    DISABLE = 2


class ObjectDataType(IntEnum):
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


class ReplicaStatus(IntEnum):
    UNDEFINED = 0
    INITIALIZED = 1
    PROCESSING = 2
    COMPLETE = 3
    REMOVED = 4
    FAILED = 5


class TaskType(IntEnum):
    REPLICA_COPY = 0
    REPLICA_MOVE = 1


class TaskStatus(IntEnum):
    PENDING = 0
    PROCESSING = 1
    SUCCESS = 2
    FAILED = 3


class BufferDescriptor:
    """Where the bytes of a replica lie: `size` of them at `buffer_address` of the segment `transport_endpoint`."""

    def __init__(self, transport_endpoint, buffer_address, size):
        self.transport_endpoint = transport_endpoint
        self.transport_endpoint_ = transport_endpoint
        self.buffer_address = buffer_address
        self.buffer_address_ = buffer_address
        self.size = size
        self.size_ = size

    def __repr__(self):
        return f"BufferDescriptor({self.transport_endpoint!r}, {self.buffer_address:#x}, {self.size})"


class MemoryDescriptor:
    def __init__(self, buffer_descriptor):
        self.buffer_descriptor = buffer_descriptor


class ReplicaDescriptor:
    """One copy of an object. Copies lie in memory here; what is listed is complete."""

    def __init__(self, segment, address, size):
        self.status = ReplicaStatus.COMPLETE
        self._memory = MemoryDescriptor(BufferDescriptor(segment, address, size))

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


class QueryTaskResponse:
    """What query_task() would give; there are no tasks yet."""

    def __init__(self):
        raise NotImplementedError("QueryTaskResponse: copying and moving by the master is not there yet")
