"""A TCP proxy on loopback whose line may be slow, cut, silent or closed.

It runs in a thread with an event loop of its own, so tests and demos need not be asynchronous. What is
set counts from the next byte on, for connections that are open too.
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
import threading
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, Self

CHUNK = 65_536
_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER: close at once, which the other side sees as a reset."""


@dataclass(frozen=True, slots=True)
class Line:
    """How the line is.

    `latency`: seconds that each chunk takes, either way. `refuse`: new connections are reset. `silent`: a
    black hole, nothing arrives any more and nobody hears of it. `cut_after`: bytes from the server after
    which a connection is reset, drawn anew for each connection between half and all of it; what is
    beyond is lost although the server has done the work.
    """

    latency: float = 0.0
    refuse: bool = False
    silent: bool = False
    cut_after: int | None = None


GOOD = Line()


class TcpProxy:
    """In front of `port` of 127.0.0.1; `port` of its own to connect to. Use as a context manager."""

    def __init__(self, port: int, *, seed: int = 0) -> None:
        self.target = port
        self.port = 0
        self.line = GOOD
        self.accepted = self.cut = 0
        self._rng = random.Random(seed)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-proxy", daemon=True)
        self._open: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        self._server = self._call(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_: object) -> None:
        self._call(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def reset_all(self) -> None:
        """Reset every connection that is open."""
        self._call(self._reset_all())

    def _call(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _reset_all(self) -> None:
        for writer in list(self._open):
            self._reset(writer)

    async def _end(self) -> None:
        if self._server is not None:
            self._server.close()
        await self._reset_all()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        self._open.add(writer)
        try:
            if self.line.refuse:
                return
            there, back = await asyncio.open_connection("127.0.0.1", self.target)
            self._open.add(back)
            try:
                await self._join(reader, writer, there, back)
            finally:
                self._drop(back)
        except OSError:
            return  # a side that is gone, or a server that is not there: the other side is reset
        finally:
            self._drop(writer)

    async def _join(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        there: asyncio.StreamReader,
        back: asyncio.StreamWriter,
    ) -> None:
        """Until one direction ends."""
        ways = [
            asyncio.create_task(self._copy(reader, back, answers=False)),
            asyncio.create_task(self._copy(there, writer, answers=True)),
        ]
        _, pending = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for way in pending:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)

    async def _copy(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool
    ) -> None:
        share, passed = self._rng.uniform(0.5, 1.0), 0
        while data := await reader.read(CHUNK):
            line = self.line
            if line.latency:
                await asyncio.sleep(line.latency)
            if line.silent:
                continue
            passed += len(data) if answers else 0
            if line.cut_after is not None and passed > share * line.cut_after:
                self.cut += 1
                return
            writer.write(data)
            await writer.drain()

    def _drop(self, writer: asyncio.StreamWriter) -> None:
        self._reset(writer)
        self._open.discard(writer)

    def _reset(self, writer: asyncio.StreamWriter) -> None:
        sock = writer.get_extra_info("socket")
        if sock is not None and not writer.is_closing():
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            writer.transport.abort()
