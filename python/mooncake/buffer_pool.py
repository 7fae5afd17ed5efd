"""buffer_pool - registered memory that is lent and comes back, for puts from and gets into addresses.

    pool = BufferPool(store)
    with pool.acquire(1 << 20) as lease:
        store.get_into(key, lease.ptr, lease.size)
        use(lease.buffer)

Sizes are rounded up to powers of two from min_size_class on; what is above max_size_class is made for the lease and given up with it.
A lease goes back by release(), at the end of `with`, or when nobody refers to it; while a view of its buffer lives it does not.
Threads: any. acquire() waits without holding the interpreter.
"""
import collections
import operator
import threading
import time

LARGEST = 1 << 46  # nothing larger can be mapped


class _Memory:
    """One registered buffer, while it is lent."""

    def __init__(self, pool, size, region):
        self.pool, self.size, self.region = pool, size, region

    def give_back(self):
        pool, self.pool = self.pool, None
        if pool is not None:
            pool._take_back(self.size, self.region)

    __del__ = give_back  # also when the last view of it goes after its lease


class BufferLease:
    def __init__(self, memory, size):
        from mooncake.store import _Window
        self.size = size
        self._memory = memory
        self._window = _Window(memory.region.address, size, memory)

    def _open(self):
        if self._window is None:
            raise RuntimeError("buffer lease is closed")
        return self._window

    @property
    def ptr(self):
        self._open()
        return self._memory.region.address

    @property
    def buffer(self):
        return memoryview(self._open())

    def release(self):
        """Give it back; RuntimeError while views of the buffer live. Again is nothing."""
        if self._window is None:
            return
        if not self._window.close():
            raise RuntimeError("cannot release buffer while exported views exist")
        self._window = None
        self._memory.give_back()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.release()


class _Region:
    """Memory with an aligned address, registered with the store."""

    def __init__(self, store, allocator, size, alignment):
        self.store, self.allocator = store, allocator
        self.base = allocator.alloc(size + alignment)
        if not self.base:
            raise MemoryError(f"no memory for a buffer of {size} bytes")
        self.address = (self.base + alignment - 1) // alignment * alignment
        if store.register_buffer(self.address, size) != 0:
            allocator.free(self.base)
            raise RuntimeError("the store does not register the buffer")

    def free(self):
        self.store.unregister_buffer(self.address)  # waits for calls that use it; nothing to do when the store is closed
        self.allocator.free(self.base)


def _number(value, name):
    number = operator.index(value)
    if number < 0:
        raise TypeError(f"argument '{name}' must be from 0 on, not {number}")
    return number


class BufferPool:
    def __init__(self, store, max_bytes=0, min_size_class=64 << 10, max_size_class=None, alignment=8 << 20, block_on_exhaustion=True,
                 default_timeout=None, max_regions=None, prewarm_size=None, prewarm_count=0):
        from mooncake.store import MooncakeDistributedStore, MooncakeHostMemAllocator
        if not isinstance(store, MooncakeDistributedStore) or store.health_check() == 1:
            raise RuntimeError("MooncakeDistributedStore is not initialized")
        self._free = {}  # size -> regions; guarded by _turn, as all that follows
        self._regions = self._bytes = self._lent = 0
        self._closed = False
        self._turn = threading.Condition()  # over a lock that one thread may take again: a lease may die anywhere
        self._returned = collections.deque()  # (size, region): what a dying lease puts here is sorted in by who comes next
        self._store, self._allocator = store, MooncakeHostMemAllocator()
        self._max_bytes, self._max_regions = _number(max_bytes, "max_bytes"), max_regions
        self._min, self._max, self._alignment = _number(min_size_class, "min_size_class"), max_size_class, _number(alignment, "alignment")
        self._block, self._timeout = block_on_exhaustion, default_timeout
        if self._min == 0 or self._alignment == 0:
            raise RuntimeError("min_size_class and alignment must be positive")
        if self._alignment < 8 or self._alignment & (self._alignment - 1):
            raise RuntimeError("alignment must be a power of two and at least sizeof(void*)")
        if prewarm_size is not None and prewarm_count:
            self.prewarm(prewarm_size, prewarm_count)

    def acquire(self, size, block=None, timeout=None):
        """A lease of `size` bytes. RuntimeError: exhausted (block=False), not in time, more than the pool may hold, closed."""
        size = _number(size, "size")
        wanted = self._class_of(size)
        block = self._block if block is None else block
        timeout = self._timeout if timeout is None else timeout
        until = None if timeout is None else time.monotonic() + timeout
        with self._turn:
            while True:
                region = self._region(wanted)
                if region is not None:
                    self._lent += 1
                    return BufferLease(_Memory(self, wanted, region), size)
                if not block:
                    raise RuntimeError("buffer pool is exhausted")
                left = None if until is None else until - time.monotonic()
                if left is not None and left <= 0:
                    raise RuntimeError("timed out waiting for buffer")
                self._turn.wait(left)

    buffer = acquire

    def prewarm(self, size, count):
        """Have `count` buffers of that size ready, as far as the limits go."""
        wanted = self._class_of(_number(size, "size"))
        with self._turn:
            self._sort_in()
            while len(self._free.get(wanted, ())) < count and self._fits(wanted):
                self._free.setdefault(wanted, []).append(self._make(wanted))

    def close(self):
        """Free everything. RuntimeError while leases are out; again is nothing."""
        with self._turn:
            self._sort_in()
            if self._lent:
                raise RuntimeError("cannot close buffer pool with active leases")
            self._closed = True
            for size in list(self._free):
                while self._free[size]:
                    self._unmake(size, self._free[size].pop())

    # ---- with the turn ----

    def _class_of(self, size):
        wanted = max(self._min, 1 << max(size - 1, 0).bit_length())
        if self._max is not None and wanted > self._max:
            wanted = max(size, 1)
        if size > LARGEST or (self._max_bytes and wanted > self._max_bytes):
            raise RuntimeError("requested buffer size exceeds pool capacity")
        return wanted

    def _sort_in(self):
        while self._returned:
            size, region = self._returned.popleft()
            self._lent -= 1
            if self._closed or (self._max is not None and size > self._max):
                self._unmake(size, region)
            else:
                self._free.setdefault(size, []).append(region)

    def _fits(self, size):
        return (not self._max_bytes or self._bytes + size <= self._max_bytes) and \
            (self._max_regions is None or self._regions < self._max_regions)

    def _region(self, size):
        """None: there is none now."""
        if self._closed:
            raise RuntimeError("buffer pool is closed")
        self._sort_in()
        if self._free.get(size):
            return self._free[size].pop()
        for other, regions in self._free.items():  # idle ones of another size make room
            while regions and not self._fits(size):
                self._unmake(other, regions.pop())
        return self._make(size) if self._fits(size) else None

    def _make(self, size):
        region = _Region(self._store, self._allocator, size, self._alignment)
        self._regions += 1
        self._bytes += size
        return region

    def _unmake(self, size, region):
        self._regions -= 1
        self._bytes -= size
        region.free()

    def _take_back(self, size, region):
        self._returned.append((size, region))
        with self._turn:
            self._turn.notify_all()

    def __del__(self):
        for size, regions in getattr(self, "_free", {}).items():
            while regions:
                self._unmake(size, regions.pop())


RegisteredBufferPool = BufferPool
RegisteredBufferLease = BufferLease
