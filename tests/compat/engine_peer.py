"""engine_peer - the other process of engine_test.py: an engine that does what it is told, one JSON object a line.

Asked {"do": "fill", ...} it answers with {"result": ...}. It ends when its standard input does. "spin" makes it as a target may be:
one thread in `while True: pass`, so that a background thread of the library that needed the GIL would be slow.
"""
import ctypes
import json
import sys
import threading

from mooncake.engine import TransferEngine


class Peer:
    def __init__(self):
        self.engine = TransferEngine()
        self.buffers = {}
        self.churning = threading.Event()
        self.churns = 0

    def start(self, host, metadata="P2PHANDSHAKE"):
        result = self.engine.initialize(host, metadata, "tcp", "")
        return result, self.engine.get_rpc_port()

    def buffer(self, size, registered=True):
        buffer = ctypes.create_string_buffer(size)
        addr = ctypes.addressof(buffer)
        self.buffers[addr] = buffer
        return addr, self.engine.register_memory(addr, size) if registered else None

    def fill(self, addr, data):
        raw = bytes.fromhex(data)
        ctypes.memmove(addr, raw, len(raw))

    def look(self, addr, size):
        return ctypes.string_at(addr, size).hex()

    def call(self, name, *args):
        return getattr(self.engine, name)(*args)

    def notifies(self):
        return [(notify.name, notify.msg) for notify in self.engine.get_notifies()]

    def churn(self, addr, size):
        """Registrations that overlap the one of `addr` come and go, from three threads, until `calm`."""
        def run(part):
            while self.churning.is_set():
                assert self.engine.register_memory(addr, part) == 0
                assert self.engine.batch_register_memory([addr, addr + 64], [part, 4096]) == 0
                assert self.engine.unregister_memory(addr) == 0
                assert self.engine.batch_unregister_memory([addr + 64, addr]) == 0
                self.churns += 1
        self.churning.set()
        self.threads = [threading.Thread(target=run, args=(size // (n + 2),)) for n in range(3)]
        for thread in self.threads:
            thread.start()

    def calm(self):
        self.churning.clear()
        for thread in self.threads:
            thread.join()
        return self.churns

    def spin(self):
        def run():
            while True:
                pass
        threading.Thread(target=run, daemon=True).start()


def main():
    peer = Peer()
    for line in sys.stdin:
        asked = json.loads(line)
        result = getattr(peer, asked["do"])(*asked["args"])
        print(json.dumps({"result": result}), flush=True)


if __name__ == "__main__":
    main()
