"""A TCP proxy between a client and a server that fails on command."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Coroutine
from enum import StrEnum
from types import TracebackType
from typing import Self


class Mode(StrEnum):
    """What the proxy does with bytes and connections, old and new ones alike."""

    PASS = "pass"  # forward everything
    REFUSE = "refuse"  # nobody listens; connections that were open are reset
    RESET = "reset"  # accept, then reset at once; connections that were open are reset
    BLACK_HOLE = "black hole"  # keep connections open and forward nothing, either way
    DELAY = "delay"  # forward every piece after a pause
    CUT = "cut"  # reset a connection once it got this many bytes of replies
    DROP_REPLY = "drop reply"  # forward a request, swallow its reply, reset the connection


class Proxy:
    """Forward a loopback port to a server on loopback, in a thread of its own.

    Use it as a context manager; the methods named like the modes may be called from any thread.

    Attributes:
        port: where clients connect.
        dropped: how many replies were swallowed so far.
        accepted: how many connections were accepted so far.
    """

    def __init__(self, target_port: int) -> None:
        self.target_port = target_port
        self.port = 0
        self.mode = Mode.PASS
        self.dropped = 0
        self.accepted = 0
        self._seconds = 0.0
        self._bytes = 0
        self._needle = b""
        self._drops_left = 0
        self._links: set[_Link] = set()
        self._listener: asyncio.Server | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._call(self._listen())
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def pass_all(self) -> None:
        """Forward everything; what a black hole held back goes on."""
        self._set(Mode.PASS)

    def refuse(self) -> None:
        """Stop listening and reset what is open."""
        self._set(Mode.REFUSE)

    def reset(self) -> None:
        """Reset what is open and every new connection as soon as it is accepted."""
        self._set(Mode.RESET)

    def black_hole(self) -> None:
        """Keep connections open, also new ones, and forward nothing."""
        self._set(Mode.BLACK_HOLE)

    def delay(self, seconds: float) -> None:
        """Forward every piece `seconds` late, in both directions."""
        self._seconds = seconds
        self._set(Mode.DELAY)

    def cut(self, after: int) -> None:
        """Reset each connection once `after` bytes of replies were forwarded on it."""
        self._bytes = after
        self._set(Mode.CUT)

    def drop_reply(self, *, containing: bytes = b"", times: int = 1) -> None:
        """Swallow the replies to the next `times` requests that hold these bytes, then pass."""
        self._needle = containing
        self._drops_left = times
        self._set(Mode.DROP_REPLY)

    def _set(self, mode: Mode) -> None:
        self._call(self._switch(mode))

    async def _switch(self, mode: Mode) -> None:
        self.mode = mode
        if mode in (Mode.REFUSE, Mode.RESET):
            for link in list(self._links):
                link.reset()
        if mode is Mode.REFUSE:
            await self._stop_listening()
        elif self._listener is None:
            await self._listen()
        for link in self._links:
            link.mode_changed.set()

    async def _listen(self) -> None:
        self._listener = await asyncio.start_server(
            self._accept, "127.0.0.1", self.port, reuse_address=True
        )
        self.port = self._listener.sockets[0].getsockname()[1]

    async def _stop_listening(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        link = _Link(self, reader, writer)
        self._links.add(link)
        try:
            await link.run()
        finally:
            self._links.discard(link)

    async def _close(self) -> None:
        await self._stop_listening()
        for link in list(self._links):
            link.reset()
        rest = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        await asyncio.wait(rest, timeout=2) if rest else None

    def _take_drop(self, request: bytes) -> bool:
        """Return whether the reply to this request is to be swallowed."""
        if self.mode is not Mode.DROP_REPLY or not self._drops_left:
            return False
        if self._needle not in request:
            return False
        self._drops_left -= 1
        return True

    def _call(self, coroutine: Coroutine[object, object, None]) -> None:
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        future.result(timeout=10)

    def _run(self) -> None:
        self._loop.run_forever()
        self._loop.close()


class _Link:
    """One client's connection and the one to the server behind it."""

    def __init__(
        self, proxy: Proxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.proxy = proxy
        self.reader = reader
        self.writer = writer
        self.mode_changed = asyncio.Event()
        self._server_writer: asyncio.StreamWriter | None = None
        self._is_doomed = False
        self._forwarded = 0

    async def run(self) -> None:
        """Forward both ways until either side ends."""
        if self.proxy.mode is Mode.RESET:
            self.reset()
            return
        try:
            reader, self._server_writer = await asyncio.open_connection(
                "127.0.0.1", self.proxy.target_port
            )
        except OSError:
            self.reset()
            return
        pumps = [
            asyncio.ensure_future(self._requests(self.reader, self._server_writer)),
            asyncio.ensure_future(self._replies(reader, self.writer)),
        ]
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)
        for writer in (self.writer, self._server_writer):
            writer.close()

    def reset(self) -> None:
        """End both connections with a TCP reset."""
        for writer in (self.writer, self._server_writer):
            if writer is not None:
                _abort(writer)

    async def _requests(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                await self._hold()
                if self.proxy._take_drop(data):
                    self._is_doomed = True
                writer.write(data)
                await writer.drain()

    async def _replies(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                await self._hold()
                if self._is_doomed:
                    self.proxy.dropped += 1
                    self.reset()
                    return
                if self.proxy.mode is Mode.CUT:
                    data = data[: max(0, self.proxy._bytes - self._forwarded)]
                    self._forwarded += len(data)
                writer.write(data)
                await writer.drain()
                if self.proxy.mode is Mode.CUT and self._forwarded >= self.proxy._bytes:
                    self.reset()
                    return

    async def _hold(self) -> None:
        """Wait as long as the mode says before a piece is forwarded."""
        if self.proxy.mode is Mode.DELAY:
            await asyncio.sleep(self.proxy._seconds)
        while self.proxy.mode is Mode.BLACK_HOLE:
            self.mode_changed.clear()
            await self.mode_changed.wait()


def _abort(writer: asyncio.StreamWriter) -> None:
    connection = writer.get_extra_info("socket")
    if connection is not None:
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
