"""relay - a network between two processes of the compat tests: forwards connections to HOST PORT.

Prints its own port. Stopped (SIGSTOP) it is a black hole: connections stand, nothing arrives. SIGUSR1 cuts every connection with a
reset. Ends when its standard input does.
"""
import asyncio
import os
import signal
import socket
import struct
import sys


class Relay:
    def __init__(self, host, port):
        self.host, self.port = host, port
        self.writers = set()

    async def pump(self, reader, writer):
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        writer.close()

    async def accept(self, reader, writer):
        try:
            far_reader, far_writer = await asyncio.open_connection(self.host, self.port)
        except OSError:
            writer.close()
            return
        pair = {writer, far_writer}
        self.writers |= pair
        await asyncio.gather(self.pump(reader, far_writer), self.pump(far_reader, writer))
        self.writers -= pair

    def cut(self):
        for writer in self.writers:
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()


async def main():
    relay = Relay(sys.argv[1], int(sys.argv[2]))
    server = await asyncio.start_server(relay.accept, "127.0.0.1", 0)
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, relay.cut)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)
    os._exit(0)  # as a network goes: without a word to anybody


if __name__ == "__main__":
    asyncio.run(main())
