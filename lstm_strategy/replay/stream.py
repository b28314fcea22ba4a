"""Binance's kline streams over WebSocket: combined and single, with subscriptions that come and go."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Iterable
from typing import Any

import msgspec
import numpy as np
from aiohttp import WSMsgType, web

from lstm_strategy.replay.binance import kline_event
from lstm_strategy.replay.binance_http import binance_error
from lstm_strategy.replay.connection import Connection
from lstm_strategy.replay.exchange import EXCHANGE, Exchange
from lstm_strategy.replay.faults import STREAM_KINDS, Fault
from lstm_strategy.replay.intervals import BINANCE_INTERVALS, Interval
from lstm_strategy.replay.market import Candles, Market
from lstm_strategy.replay.spoil import alter, spoil_rows

__all__ = ["HUB", "Hub", "register_streams"]

_MOST_STREAMS = 1_024  # of one connection, as at Binance
_MOST_CONNECTIONS = 300
_LARGEST_MESSAGE = 64 << 10  # bytes from a client
_LONGEST_NAME = 64  # characters of a stream such as btcusdt@kline_1h, !ticker@arr or btcusdt@depth5@100ms
_NAME = re.compile(r"[\w!.-]+(?:@[\w+:.-]+)+")
_MS = 1_000_000

type _Key = tuple[str, bool, str]  # symbol, whether on a futures route, interval


class Hub:
    """Tells each connection of the candles it listens to: closed ones once they close, forming ones in between."""

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self.connections: set[Connection] = set()
        self._held: dict[_Key, list[str]] = {}
        self._late: set[asyncio.Task[None]] = set()

    async def advance(self, before: int, now: int, in_time: bool) -> None:
        """Send what has happened in ``(before, now]``, in the order of the closes; see `exchange.Listener`."""
        if self.exchange.under_maintenance:
            self._cut_all(self.connections)
        wanted: dict[_Key, list[tuple[Connection, str]]] = {}
        for connection in self.connections:
            for stream in connection.streams:
                symbol, _, length = stream.partition("@kline_")
                wanted.setdefault((symbol.upper(), connection.futures, length), []).append((connection, stream))
        closed: list[tuple[int, _Key, Market, Interval, Candles]] = []
        forming: list[tuple[_Key, str]] = []
        for key in wanted:
            market, interval = self._find(*key)
            if market is None or interval is None:
                continue
            made = market.candles(interval)
            first, last = np.searchsorted(made.closed, [before, now], side="right").tolist()
            rows = [made.take(slice(row, row + 1)) for row in range(first, last)]
            closed += [(int(row.closed[0]), key, market, interval, row) for row in rows]
            opened = market.forming(interval, now) if in_time else made.take(slice(0, 0))
            if len(opened):
                forming.append((key, kline_event(market, interval, opened, now, closed=False)))
        for _, key, market, interval, candle in sorted(closed, key=lambda entry: entry[:2]):
            self._close(wanted[key], key, market, interval, candle)
        for key, text in forming:
            if not self.exchange.under_maintenance:
                self._send(wanted[key], text)
        if self.exchange.clock.by_hand:
            for connection in list(self.connections):
                await connection.drained()

    def answer(self, connection: Connection, text: str) -> str:
        """Carry out a client's message and return the reply to it."""
        try:
            message = msgspec.json.decode(text)
            method, identity = message["method"], message.get("id")
        except (msgspec.MsgspecError, KeyError, TypeError, AttributeError):
            return _refusal(None, 2, "Invalid request: not a JSON object with a method")
        streams = message.get("params", [])
        if method in ("SUBSCRIBE", "UNSUBSCRIBE"):
            if not isinstance(streams, list) or not all(map(_is_stream, streams)):
                return _refusal(identity, 2, "Invalid request: params must be names of streams")
            if method == "UNSUBSCRIBE":
                for name in streams:
                    connection.streams.pop(name, None)
            elif len(connection.streams.keys() | set(streams)) > _MOST_STREAMS:
                return _refusal(identity, 2, f"Invalid request: more than {_MOST_STREAMS} streams")
            else:
                connection.streams.update(dict.fromkeys(streams))
            return _json({"result": None, "id": identity})
        if method == "LIST_SUBSCRIPTIONS":
            return _json({"result": list(connection.streams), "id": identity})
        if method == "GET_PROPERTY":
            return _json({"result": connection.wrapped, "id": identity})
        if method == "SET_PROPERTY" and isinstance(streams, list) and len(streams) == 2 and streams[0] == "combined":
            connection.wrapped = bool(streams[1])
            return _json({"result": None, "id": identity})
        return _refusal(identity, 1, f"Invalid request: unknown method {str(method)[:40]}")

    async def close(self) -> None:
        """End all connections with a close frame, and whatever waits to be sent late."""
        for task in list(self._late):
            task.cancel()
        await asyncio.gather(*self._late, return_exceptions=True)
        closing = [connection.close("the replay ends") for connection in list(self.connections)]
        await asyncio.gather(*closing, return_exceptions=True)

    def _find(self, symbol: str, futures: bool, interval: str) -> tuple[Market | None, Interval | None]:
        """Return the market and the interval of a stream; spot routes find a perpetual where there is no such spot."""
        plan = self.exchange.plan
        market = plan.find(symbol, perpetual=futures) or (None if futures else plan.find(symbol, perpetual=True))
        length = BINANCE_INTERVALS.get(interval)
        return market, (length if market is not None and length is not None and market.offers(length) else None)

    def _close(
        self,
        listening: list[tuple[Connection, str]],
        key: _Key,
        market: Market,
        interval: Interval,
        candle: Candles,
    ) -> None:
        """Tell of one closed candle, with the fault that hits it."""
        if self.exchange.under_maintenance:
            return
        now = int(candle.closed[0])
        drawn = self.exchange.faults.draw("stream", STREAM_KINDS, first=now, last=now, symbol=market.symbol)
        fault, source = next(iter(drawn), (None, None))
        right = kline_event(market, interval, candle, now, closed=True)
        held = self._held.pop(key, [])
        texts = [right]
        if fault is not None and source is not None:
            if fault.kind == "drop":
                return self._cut_all({connection for connection, _ in listening})
            if fault.kind == "maintenance":
                self.exchange.shut(closes=fault.rows)
                return self._cut_all(self.connections)
            if fault.kind == "delay":
                self._later(listening, right, fault.seconds)
                texts = []
            elif fault.kind == "reorder" and now < int(market.candles(interval).closed[-1]):
                self._held[key] = [right]
                texts = []
            elif fault.kind in ("revise", "unfinished", "misprint"):
                wrong = kline_event(market, interval, alter(candle, 0, fault, market), now, closed=True)
                texts = [wrong] if fault.kind == "misprint" else [wrong, right]
            elif fault.kind == "duplicate":
                texts = [right, right]
            elif fault.kind == "skip":
                texts = []
            else:
                texts = [_garbled(fault, source, market, interval, candle, right)]
        for text in [*texts, *held]:
            self._send(listening, text)
        return None

    def _send(self, listening: Iterable[tuple[Connection, str]], text: str) -> None:
        for connection, stream in listening:
            connection.offer(f'{{"stream":"{stream}","data":{text}}}' if connection.wrapped else text)

    def _later(self, listening: list[tuple[Connection, str]], text: str, seconds: float) -> None:
        async def send() -> None:
            await asyncio.sleep(max(0.0, seconds))
            self._send([(connection, stream) for connection, stream in listening if stream in connection.streams], text)

        task = asyncio.get_running_loop().create_task(send())
        self._late.add(task)
        task.add_done_callback(self._late.discard)

    def _cut_all(self, connections: set[Connection]) -> None:
        for connection in list(connections):
            connection.cut()


HUB = web.AppKey("hub", Hub)


def register_streams(app: web.Application) -> None:
    """Add the routes and the hub behind them."""
    app[HUB] = Hub(app[EXCHANGE])
    app[EXCHANGE].listeners.append(app[HUB].advance)
    for prefix in ("", "/market", "/public"):
        app.router.add_get(f"{prefix}/stream", _socket)
        app.router.add_get(f"{prefix}/ws", _socket)
        app.router.add_get(f"{prefix}/ws/{{stream}}", _socket)


async def _socket(request: web.Request) -> web.StreamResponse:
    hub = request.app[HUB]
    if len(hub.connections) >= _MOST_CONNECTIONS:
        return web.Response(status=429, text="too many connections")
    names = request.match_info.get("stream") or request.query.get("streams", "")
    streams = [name for name in names.split("/") if name]
    if len(streams) > _MOST_STREAMS:
        return web.Response(status=400, text=f"more than {_MOST_STREAMS} streams")
    if not all(map(_is_stream, streams)):
        return binance_error(2, "Invalid request: streams must be names of streams")
    socket = web.WebSocketResponse(heartbeat=20.0, max_msg_size=_LARGEST_MESSAGE, compress=False)
    await socket.prepare(request)
    connection = Connection(request, socket, wrapped=request.path.endswith("/stream"))
    connection.streams.update(dict.fromkeys(streams))
    hub.connections.add(connection)
    writer = asyncio.create_task(connection.write())
    try:
        async for message in socket:
            if message.type is WSMsgType.TEXT:
                connection.offer(hub.answer(connection, message.data))
            elif message.type is WSMsgType.BINARY:  # the NautilusTrader adapter may send its text as bytes
                connection.offer(hub.answer(connection, message.data.decode("utf-8", "replace")))
            if connection.over:
                break
    finally:
        hub.connections.discard(connection)
        connection.forget()
        writer.cancel()
        await asyncio.gather(writer, return_exceptions=True)
    return socket


def _garbled(
    fault: Fault, source: random.Random, market: Market, interval: Interval, candle: Candles, right: str
) -> str:
    """Return the event of a closed candle with a fault that spoils its text or its values."""
    now = int(candle.closed[0])
    if fault.kind == "truncated":
        return right[: len(right) // 2]
    if fault.kind == "malformed":
        return right.replace(":", "::", 1)
    if fault.kind == "reorder":  # after the last one comes none to change places with
        return right
    if fault.kind == "clock_skew":
        return kline_event(market, interval, candle, now + int(fault.seconds * 1e9), closed=True)
    if fault.kind == "wrong_unit":
        return kline_event(market, interval, candle, now, closed=True, stamp_ns=1_000 * _MS)
    return kline_event(market, interval, spoil_rows(candle, fault, source), now, closed=True)


def _is_stream(name: object) -> bool:
    return isinstance(name, str) and len(name) <= _LONGEST_NAME and _NAME.fullmatch(name) is not None


def _refusal(identity: Any, code: int, message: str) -> str:
    return _json({"error": {"code": code, "msg": message}, "id": identity})


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
