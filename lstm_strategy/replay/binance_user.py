"""Binance's WebSocket API as far as the user-data stream needs it: log on, subscribe, and hear of the account."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from itertools import count
from typing import Any

import msgspec
from aiohttp import WSMsgType, web

from lstm_strategy.replay.connection import Connection
from lstm_strategy.replay.credentials import check_timestamp
from lstm_strategy.replay.exchange import EXCHANGE, Exchange
from lstm_strategy.replay.refusals import RefusedError
from lstm_strategy.replay.trading import TRADING, Trading

__all__ = ["close_sessions", "register_user_stream"]

_LARGEST_MESSAGE = 64 << 10  # bytes from a client
_MOST_CONNECTIONS = 50
_NUMBERS = count(0)


class _Session:
    """One connection: who it is, and whether it listens."""

    def __init__(self, exchange: Exchange, trading: Trading | None, connection: Connection) -> None:
        self._exchange, self._trading, self._connection = exchange, trading, connection
        self._authenticated = False
        self._subscription: int | None = None

    def tell(self, event: Mapping[str, Any]) -> None:
        """Put one event on its way, as the stream of this subscription."""
        self._connection.offer(_text({"subscriptionId": self._subscription, "event": event}))

    def cut(self) -> None:
        """End the connection without a word."""
        self._connection.cut()

    async def drained(self) -> None:
        """Wait until all that was told has left."""
        await self._connection.drained()

    async def close(self) -> None:
        """End with a close frame."""
        await self._connection.close("the replay ends")

    def leave(self) -> None:
        """Hear nothing more."""
        if self._trading is not None:
            self._trading.subscribers.discard(self)

    def answer(self, text: str) -> str:
        """Carry out a request and return the answer to it."""
        identity: Any = None
        try:
            request = msgspec.json.decode(text)
            identity, method, params = request["id"], request["method"], request.get("params") or {}
            result = self._carry_out(method, params)
        except (msgspec.MsgspecError, KeyError, TypeError, AttributeError):
            refusal = RefusedError(-1135, "The request is not a JSON object with an id and a method.")
            return _refused(identity, refusal)
        except RefusedError as refusal:
            return _refused(identity, refusal)
        return _text({"id": identity, "status": 200, "result": result, "rateLimits": []})

    def _carry_out(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        if method == "ping":
            return {}
        if method == "time":
            return {"serverTime": self._exchange.now() // 1_000_000}
        if method == "session.logon":
            self._log_on(params)
            return self._status()
        if method == "session.status":
            return self._status()
        if method == "session.logout":
            self._authenticated = False
            self._unsubscribe()
            return self._status()
        if method == "userDataStream.subscribe.signature":
            self._check(params)
            return self._subscribe()
        if method == "userDataStream.subscribe":
            if not self._authenticated:
                raise RefusedError(-2015, status=401)
            return self._subscribe()
        if method == "userDataStream.unsubscribe":
            self._unsubscribe()
            return {}
        self._exchange.note_unknown(f"WS {str(method)[:60]}")
        raise RefusedError(-1000, f"Method {str(method)[:60]} is not served.")

    def _log_on(self, params: dict[str, Any]) -> None:
        if self._trading is not None and not self._trading.config.credentials.ed25519:
            raise RefusedError(-4056)
        self._check(params)
        self._authenticated = True

    def _check(self, params: dict[str, Any]) -> None:
        if self._trading is None:
            raise RefusedError(-2015, status=401)
        credentials = self._trading.config.credentials
        credentials.check_key(str(params.get("apiKey", "")))
        payload = "&".join(f"{name}={value}" for name, value in sorted(params.items()) if name != "signature")
        credentials.check_signature(payload, str(params.get("signature", "")))
        window = str(params.get("recvWindow", 5_000))
        check_timestamp(str(params.get("timestamp", "")), window, self._exchange.now() // 1_000_000)

    def _subscribe(self) -> dict[str, Any]:
        if self._trading is None:
            raise RefusedError(-2015, status=401)
        self._subscription = next(_NUMBERS)
        self._trading.subscribers.add(self)
        return {"subscriptionId": self._subscription}

    def _unsubscribe(self) -> None:
        self.leave()
        self._subscription = None

    def _status(self) -> dict[str, Any]:
        return {
            "apiKey": None,  # a key is shown to nobody
            "authorizedSince": self._exchange.now() // 1_000_000 if self._authenticated else None,
            "connectedSince": self._exchange.now() // 1_000_000,
            "returnRateLimits": False,
            "serverTime": self._exchange.now() // 1_000_000,
            "userDataStream": self._subscription is not None,
        }


SESSIONS = web.AppKey("sessions", set[_Session])


def register_user_stream(app: web.Application) -> None:
    """Add the route."""
    sessions: set[_Session] = set()
    app[SESSIONS] = sessions
    app.router.add_get("/ws-api/v3", _socket)


async def close_sessions(app: web.Application) -> None:
    """End all connections."""
    sessions = app[SESSIONS]
    await asyncio.gather(*(session.close() for session in list(sessions)), return_exceptions=True)


async def _socket(request: web.Request) -> web.StreamResponse:
    sessions = request.app[SESSIONS]
    if len(sessions) >= _MOST_CONNECTIONS:
        return web.Response(status=429, text="too many connections")
    socket = web.WebSocketResponse(heartbeat=20.0, max_msg_size=_LARGEST_MESSAGE, compress=False)
    await socket.prepare(request)
    connection = Connection(request, socket, wrapped=False)
    session = _Session(request.app[EXCHANGE], request.app.get(TRADING), connection)
    sessions.add(session)
    writer = asyncio.create_task(connection.write())
    try:
        async for message in socket:
            if message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
                text = message.data if message.type is WSMsgType.TEXT else message.data.decode("utf-8", "replace")
                connection.offer(session.answer(text))
            if connection.over:
                break
    finally:
        session.leave()
        sessions.discard(session)
        connection.forget()
        writer.cancel()
        await asyncio.gather(writer, return_exceptions=True)
    return socket


def _refused(identity: Any, refusal: RefusedError) -> str:
    error = {"code": refusal.code, "msg": str(refusal)}
    return _text({"id": identity, "status": refusal.status, "error": error, "rateLimits": []})


def _text(value: Any) -> str:
    return msgspec.json.encode(value).decode()
