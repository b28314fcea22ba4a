"""Connection: one client's WebSocket, what it listens to, and the bounded lot of messages on their way to it."""

from __future__ import annotations

import asyncio
import sys

from aiohttp import WSCloseCode, web

__all__ = ["Connection"]

_MOST_WAITING = 8 << 20  # bytes to a client that does not read; then it is cut off
_READING = 10.0  # seconds that a client has to read, on a machine with much else to do
_CLOSING = 1.0  # seconds that a client has to answer the close frame


class Connection:
    """One client's socket: what it listens to, and the messages on their way to it."""

    def __init__(self, request: web.Request, socket: web.WebSocketResponse, *, wrapped: bool) -> None:
        self.socket = socket
        self.wrapped = wrapped
        self.futures = request.path.startswith(("/market", "/public"))
        self.streams: dict[str, None] = {}  # a set in order
        self.over = False
        self._request = request
        self._waiting: asyncio.Queue[str] = asyncio.Queue()
        self._held = 0  # bytes of memory that wait or are being sent

    def offer(self, text: str) -> None:
        """Put a message on its way; a client with too many unread bytes is cut off."""
        if self.over:
            return
        self._held += sys.getsizeof(text)
        if self._held > _MOST_WAITING:
            self.cut()
        else:
            self._waiting.put_nowait(text)

    def cut(self) -> None:
        """End the connection without a word."""
        self.forget()
        if self._request.transport is not None:
            self._request.transport.abort()

    def forget(self) -> None:
        """Take nothing more, and drop what waits."""
        self.over = True
        while not self._waiting.empty():
            self._waiting.get_nowait()
            self._waiting.task_done()

    async def write(self) -> None:
        """Send what is offered, until the socket is closed."""
        while True:
            text = await self._waiting.get()
            try:
                await self.socket.send_str(text)
            except (ConnectionError, RuntimeError):
                self.cut()
            finally:
                self._held -= sys.getsizeof(text)
                self._waiting.task_done()

    async def drained(self) -> None:
        """Wait until all that was offered has left; a client that does not read for ten seconds is cut off."""
        try:
            await asyncio.wait_for(self._waiting.join(), _READING)
        except TimeoutError:
            self.cut()

    async def close(self, reason: str) -> None:
        """End with a close frame; a client that does not answer it, or does not even read it, is cut off."""
        try:
            await asyncio.wait_for(self.socket.close(code=WSCloseCode.GOING_AWAY, message=reason.encode()), _CLOSING)
        except TimeoutError:
            self.cut()
