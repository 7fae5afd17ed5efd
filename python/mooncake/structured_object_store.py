"""structured_object_store - objects with a structure over the Store, which are not there yet: every name says so when it is asked for."""


def __getattr__(name):
    if name.startswith("__"):  # what the interpreter asks of every module
        raise AttributeError(name)
    raise NotImplementedError(f"mooncake.structured_object_store.{name}: structured objects are not there yet")
