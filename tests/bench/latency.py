"""A network between clients and servers of this machine: it delays, and counts what passes. A process of its own.

Each direction delays by half a round trip and keeps any bandwidth; a new connection costs a round trip, as TCP's
handshake does. TLS, which would cost more of them, is not there.
"""

import asyncio
import contextlib
import json
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from local.deploy import ROOT
from local.processes import Child, listen

_PIECE: Final = 1 << 18
_PIECES: Final = 64
"""Pieces on their way in one direction of one connection: 16 MB, so that the delay limits no throughput here."""


class Network:
    """A way to each of `ports`; `ports` then are those to call instead. `with` it, or `close` it."""

    def __init__(self, ports: Sequence[int], round_trip_s: float, log: Path) -> None:
        sockets = [listen() for _ in range(len(ports) + 1)]
        self.ports = [one.getsockname()[1] for one in sockets[1:]]
        self._counters = sockets[0].getsockname()[1]
        spec = {
            "counters": sockets[0].fileno(),
            "links": [[one.fileno(), port] for one, port in zip(sockets[1:], ports, strict=True)],
            "delay_s": round_trip_s / 2,
        }
        self._child = Child(
            "network",
            [sys.executable, "-m", "tests.bench.latency"],
            spec=json.dumps(spec),
            log=log,
            sockets=sockets,
            environment={"PATH": os.environ.get("PATH", os.defpath)},
            folder=ROOT,
        )

    def __enter__(self) -> "Network":
        return self

    def __exit__(self, *_: object) -> None:
        self._child.end()

    def moved(self) -> list[tuple[int, int]]:
        """For each port, the bytes that passed so far: from the client, and to it."""
        with socket.create_connection(("127.0.0.1", self._counters), timeout=30) as connection:
            answer = connection.makefile().readline()
        return [(up, down) for up, down in json.loads(answer)]


class _Link:
    def __init__(self, upstream: int, delay_s: float) -> None:
        self.up = self.down = 0
        self._upstream = upstream
        self._delay = delay_s
        self._loop = asyncio.get_running_loop()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected = self._loop.time() + 2 * self._delay
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._upstream, limit=_PIECE)
        except OSError:
            writer.close()
            return
        await asyncio.gather(
            self._carry(reader, far_writer, "up", connected), self._carry(far_reader, writer, "down", connected)
        )
        for each in (writer, far_writer):
            each.close()
            with contextlib.suppress(OSError):
                await each.wait_closed()

    async def _carry(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: str, not_before: float
    ) -> None:
        pieces: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_PIECES)

        async def receive() -> None:
            data = b"."
            while data:
                try:
                    data = await reader.read(_PIECE)
                except OSError:
                    data = b""
                setattr(self, way, getattr(self, way) + len(data))
                await pieces.put((max(self._loop.time(), not_before) + self._delay, data))

        async def send() -> None:
            while True:
                due, data = await pieces.get()
                await asyncio.sleep(due - self._loop.time())
                with contextlib.suppress(OSError):  # it has hung up: the rest is read, and thrown away
                    if not data:
                        if writer.can_write_eof():
                            writer.write_eof()
                        return
                    writer.write(data)
                    await writer.drain()

        await asyncio.gather(receive(), send())


async def _main() -> None:
    loop = asyncio.get_running_loop()
    spec = json.loads(await loop.run_in_executor(None, sys.stdin.readline))
    links = [(_Link(port, spec["delay_s"]), descriptor) for descriptor, port in spec["links"]]

    async def tell(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(json.dumps([[link.up, link.down] for link, _ in links]).encode() + b"\n")
        await writer.drain()
        writer.close()

    for handler, descriptor in [(tell, spec["counters"]), *((link.serve, number) for link, number in links)]:
        await asyncio.start_server(handler, sock=socket.socket(fileno=descriptor), limit=_PIECE, backlog=256)
    await loop.run_in_executor(None, sys.stdin.read)  # its end is ours
    os._exit(0)  # what is on its way has nobody waiting for it


if __name__ == "__main__":
    asyncio.run(_main())
