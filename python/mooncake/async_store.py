"""async_store - MooncakeDistributedStore for asyncio: async_NAME(...) is NAME(...) in the loop's executor.

The calls release the interpreter, so the loop goes on meanwhile. A caller that stops waiting does not stop the call: memory it named is
in use until the call has ended (unregister_buffer() waits for that).
"""
import asyncio
import functools

from mooncake.store import MooncakeDistributedStore


class MooncakeDistributedStoreAsync(MooncakeDistributedStore):
    def __getattr__(self, name):
        if not name.startswith("async_"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        call = getattr(self, name[len("async_"):])
        if not callable(call):
            raise AttributeError(f"{name[len('async_'):]!r} is no method")

        @functools.wraps(call)
        async def wait(*args, **kw):
            return await asyncio.get_running_loop().run_in_executor(None, functools.partial(call, *args, **kw))

        return wait
