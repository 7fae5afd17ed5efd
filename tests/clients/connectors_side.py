"""connectors_side.py - one process of the tests in `connectors`: a class of SGLang or LMCache as their packages bring it.

    connectors_side.py ROLE WORD...      says what peers need to know, then evaluates line after line and prints the value

The bytes of thing n are random() of seed n, so another process can tell whether it has them.
"""
import asyncio
import logging
import os
import sys
import threading
import time

import torch


def content(seed, size):
    return torch.randint(0, 256, (size,), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


# ---- SGLang ----

class HiCache:
    """The storage back end of HiCache: pages of a host pool, two buffers each (K and V)."""

    PAGES, ELEMENTS = 64, 16 * 1024  # of float32

    def __init__(self):
        from sglang.srt.mem_cache.storage.mooncake_store import test_mooncake_store as own  # their stand-in for a host pool
        from sglang.srt.mem_cache.storage.mooncake_store.mooncake_store import MooncakeStore
        self.store = MooncakeStore(own.make_hicache_storage_config(is_mla_model=False, tp_rank=0, tp_size=1))
        pool, self.buffer = own.create_mock_host_kv_cache(2 * self.PAGES * self.ELEMENTS, entries_per_page=2, page_elements=self.ELEMENTS)
        self.store.register_mem_pool_host(pool)
        self.keys = [f"page-{i}" for i in range(self.PAGES)]
        print("ready", flush=True)

    def page(self, number):
        return self.buffer.view(torch.uint8)[8 * self.ELEMENTS * number:8 * self.ELEMENTS * (number + 1)]

    def save(self):
        for number in range(self.PAGES):
            self.page(number).copy_(content(number, 8 * self.ELEMENTS))
        return all(self.store.batch_set_v1(self.keys, torch.arange(self.PAGES)))

    def load(self):
        """(pages that are said to be there, pages that have come, pages with the right bytes)."""
        there, came = self.store.batch_exists(self.keys), sum(self.store.batch_get_v1(self.keys, torch.arange(self.PAGES)))
        return there, came, sum(torch.equal(self.page(i), content(i, 8 * self.ELEMENTS)) for i in range(self.PAGES))


class Engine:
    """The wrapper that its prefill and decode servers use."""

    SIZE, PIECE = 1 << 24, 4096 + 8

    def __init__(self):
        from sglang.srt.distributed.device_communicators.mooncake_transfer_engine import MooncakeTransferEngine
        self.engine = MooncakeTransferEngine("127.0.0.1")
        self.memory = torch.zeros(self.SIZE, dtype=torch.uint8)
        assert self.engine.batch_register([self.memory.data_ptr()], [self.SIZE]) == 0
        print(self.engine.get_session_id(), self.memory.data_ptr(), flush=True)

    def write(self, session, address, pieces):
        """Pieces that lie one behind the other here, and apart there."""
        self.memory.copy_(content(1, self.SIZE))
        here = [self.memory.data_ptr() + i * self.PIECE for i in range(pieces)]
        return self.engine.batch_transfer_sync(session, here, [address + 2 * i * self.PIECE for i in range(pieces)], [self.PIECE] * pieces)

    def right(self, pieces):
        expected = content(1, self.SIZE)
        return sum(torch.equal(self.memory[2 * i * self.PIECE:(2 * i + 1) * self.PIECE], expected[i * self.PIECE:(i + 1) * self.PIECE])
                   for i in range(pieces))

    def deregister(self):
        return self.engine.batch_deregister([self.memory.data_ptr()])


# ---- LMCache ----

class Connector:
    """The back end for `mooncakestore://`: `with` or `without` a description in front of each chunk."""

    CHUNKS, LAST = 9, 100  # of 256 tokens, but the last

    def __init__(self, master, description):
        from lmcache.utils import CacheEngineKey
        from lmcache.v1.config import LMCacheEngineConfig
        from lmcache.v1.metadata import LMCacheMetadata
        from lmcache.v1.storage_backend.connector.mooncakestore_connector import MooncakestoreConnector
        from lmcache.v1.storage_backend.local_cpu_backend import LocalCPUBackend
        settings = {"local_hostname": "127.0.0.1", "metadata_server": "P2PHANDSHAKE", "master_server_address": master, "protocol": "tcp",
                    "global_segment_size": 1 << 28, "local_buffer_size": 1 << 26, "transfer_timeout": 20,
                    "save_chunk_meta": description == "with"}
        config = LMCacheEngineConfig.from_defaults(chunk_size=256, max_local_cpu_size=0.25, extra_config=settings)
        self.about = LMCacheMetadata(model_name="m", world_size=1, local_world_size=1, worker_id=0, local_worker_id=0,
                                     kv_dtype=torch.bfloat16, kv_shape=(30, 2, 256, 3, 64))
        self.memory = LocalCPUBackend(config, self.about, "cpu")
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()
        self.connector = MooncakestoreConnector(self.loop, self.memory, config)
        self.keys = [CacheEngineKey("m", 1, 0, i, torch.bfloat16) for i in range(self.CHUNKS)]
        print("ready", flush=True)

    def wait(self, work):
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(60)

    def shapes(self, number):
        whole = self.about.get_shapes()
        return whole if number < self.CHUNKS - 1 else [torch.Size([*shape[:2], self.LAST, *shape[3:]]) for shape in whole]

    def save(self):
        chunks = []
        for number in range(self.CHUNKS):
            chunk = self.memory.allocate(self.shapes(number), self.about.get_dtypes(), self.connector.meta_fmt)
            chunk.raw_tensor.view(torch.uint8).copy_(content(number, chunk.get_size()))
            chunks.append(chunk)
        self.wait(self.connector.batched_put(self.keys, chunks))
        for chunk in chunks:
            chunk.ref_count_down()
        return self.CHUNKS

    def load(self):
        """(chunks that are said to be there, chunks that have come, chunks with the right bytes)."""
        there = self.wait(self.connector.batched_async_contains("", self.keys))
        chunks = [chunk for chunk in self.wait(self.connector.batched_get(self.keys)) if chunk is not None]
        right = sum(torch.equal(chunk.raw_tensor.view(torch.uint8)[:chunk.get_size()], content(number, chunk.get_size()))
                    for number, chunk in enumerate(chunks))
        for chunk in chunks:
            chunk.ref_count_down()
        return there, len(chunks), right

    def close(self):
        self.wait(self.connector.close())


class Channel:
    """The channel between caches of two hosts: it reads from the other's memory and asks from time to time whether that is done."""

    SIZE, PIECE = 1 << 24, 100_000

    def __init__(self, url):
        from lmcache.v1.distributed.internal_api import L1MemoryDesc
        from lmcache.v1.distributed.transfer_channel.impl.mooncake_te_impl import create_mooncake_te_transfer_channel_context
        self.memory = content(1, self.SIZE)
        self.context = create_mooncake_te_transfer_channel_context(
            L1MemoryDesc(ptr=self.memory.data_ptr(), size=self.SIZE, align_bytes=4096), listen_url=url, advertise_url=url)
        print("ready", flush=True)

    def read(self, url, pieces):
        """(pieces that are said to have come, pieces with the right bytes), or (0, why it was not begun)."""
        self.memory.zero_()
        addresses = self.context.get_transfer_channel_address([(i * self.PIECE, self.PIECE) for i in range(pieces)])
        client, until = self.context.get_transfer_channel_client(url), time.monotonic() + 60
        try:
            task = client.submit_read(addresses, addresses)
        except RuntimeError as error:
            return 0, str(error)
        while not (result := client.query_read_status(task)).is_finished():
            assert time.monotonic() < until, "the read does not end"
            time.sleep(0.001)
        expected = content(1, self.SIZE)
        return sum(result.succeeded_mask), sum(torch.equal(self.memory[i * self.PIECE:(i + 1) * self.PIECE],
                                                           expected[i * self.PIECE:(i + 1) * self.PIECE]) for i in range(pieces))


def main():
    logging.disable(logging.INFO)
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print belongs to the log
    sys.stdout = out
    side = globals()[sys.argv[1]](*sys.argv[2:])
    for line in sys.stdin:
        print(repr(eval(line, {"side": side})), flush=True)  # pylint: disable=eval-used


if __name__ == "__main__":
    main()
