"""The station: a thread that takes what a node tells, and does whatever takes time: trading waits for nobody."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Protocol, Self

from lstm_strategy.board import Board
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.status import Event, Health, Latched, Observed, Snapshot

__all__ = ["Consumer", "Message", "Service", "Station"]

type Message = Observed | Event | Health | Latched

_MOST = 5_000  # messages that may wait; a slow disk or a busy processor holds no more
# The interpreter lets one thread work at a time: whoever watches begins when the work on a bar is over, and pauses.
_AT_ONCE, _PAUSE_S = 50, 0.05
_STARTING_S, _STOPPING_S = 15.0, 15.0


class Consumer:
    """Is told on the station's thread, one after the other; the default does nothing."""

    def on_snapshot(self, snapshot: Snapshot) -> None:
        """A decision was taken."""

    def on_event(self, event: Event) -> None:
        """Something happened."""

    def on_health(self, health: Health) -> None:
        """The state of the connections was looked at."""


class Service(Protocol):
    """Runs on the station's loop beside the consumers."""

    async def start(self) -> None:
        """Begin; what it raises ends the start."""

    async def stop(self) -> None:
        """End within a few seconds, whatever the other side does."""


class Station:
    """Takes messages from any thread without waiting, keeps the `Board`, and tells the consumers.

    Parameters
    ----------
    say : callable
        Told, on the station's thread, of a consumer that failed and is left out, and of messages that were dropped.
    """

    def __init__(
        self,
        board: Board,
        consumers: list[Consumer],
        services: list[Service],
        say: Callable[[str], None],
        *,
        most: int = _MOST,
    ) -> None:
        self.board, self.dropped = board, 0
        self._consumers, self._services, self._say, self._most = consumers, services, say, most
        self._waiting: deque[Message] = deque()
        self._scheduled, self._told_dropped = False, 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()
        self._started = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="lstm-strategy-watch", daemon=True)

    def put(self, message: Message) -> None:
        """Take a message, or drop it where too many wait; never waits, never raises."""
        if len(self._waiting) >= self._most:
            self.dropped += 1
            return
        self._waiting.append(message)
        if not self._scheduled:
            self._scheduled = True
            self._call(self._drain_later)

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._thread.start()
        if not self._started.wait(_STARTING_S):
            raise LSTMStrategyError(f"what watches the node did not start within {_STARTING_S:g} s")
        if self._failure is not None:
            self._thread.join(_STOPPING_S)
            raise self._failure
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._call(self._stop.set)
        self._thread.join(_STOPPING_S)

    def _call(self, act: Callable[[], object]) -> None:
        try:
            if self._loop is not None:
                self._loop.call_soon_threadsafe(act)
        except RuntimeError:  # the loop has ended
            self.dropped += 1

    def _run(self) -> None:
        loop = self._loop
        assert loop is not None  # noqa: S101 - made before the thread
        try:
            with asyncio.Runner(loop_factory=lambda: loop) as runner:
                runner.run(self._serve())
        except BaseException as error:  # told to whoever starts it
            self._failure = error
        finally:
            self._started.set()

    async def _serve(self) -> None:
        begun: list[Service] = []
        try:
            for service in self._services:
                await service.start()
                begun.append(service)
            self._started.set()
            await self._stop.wait()
            while self._waiting:
                self._drain()
        finally:
            await asyncio.gather(*(_ended(service.stop()) for service in reversed(begun)))

    def _drain(self) -> None:
        """Work off a few messages."""
        self._scheduled = False
        for _ in range(_AT_ONCE):
            if not self._waiting:
                break
            self._take(self._waiting.popleft())
        if self._waiting and not self._scheduled:
            self._scheduled = True
            self._drain_later()
        if self.dropped > self._told_dropped and not self._waiting:
            count, self._told_dropped = self.dropped - self._told_dropped, self.dropped
            self._event(_trouble(f"{count} messages came faster than they could be shown, and were dropped"))

    def _drain_later(self) -> None:
        asyncio.get_running_loop().call_later(_PAUSE_S, self._drain)

    def _take(self, message: Message) -> None:
        if isinstance(message, Observed):
            try:
                snapshot, told = self.board.take(message)
            except (ArithmeticError, ValueError, LSTMStrategyError) as error:
                self._say(f"a decision cannot be shown: {type(error).__name__}: {error}")
                return
            self._each(lambda consumer: consumer.on_snapshot(snapshot))
        elif isinstance(message, Health):
            told = self.board.check(message)
            self._each(lambda consumer: consumer.on_health(message))
        else:
            told = self.board.latch(message) if isinstance(message, Latched) else [message]
        for event in told:
            self._event(event)

    def _event(self, event: Event) -> None:
        self.board.tell(event)
        self._each(lambda consumer: consumer.on_event(event))

    def _each(self, tell: Callable[[Consumer], None]) -> None:
        for consumer in list(self._consumers):
            try:
                tell(consumer)
            except Exception as error:
                self._consumers.remove(consumer)
                self._say(f"{type(consumer).__name__} failed and is left out: {type(error).__name__}: {error}")


async def _ended(stopping: Coroutine[Any, Any, None]) -> None:
    """Let what ends take no longer than it may, nor keep others from it."""
    with contextlib.suppress(Exception):  # nobody is left to tell
        await asyncio.wait_for(stopping, _STOPPING_S / 2.0)


def _trouble(text: str) -> Event:
    return Event(kind="trouble", text=text, ts=time.time_ns())
