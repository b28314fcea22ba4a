"""How Binance is asked and how it answers over HTTP: parameters read strictly, errors by code."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
from aiohttp import web

from lstm_strategy.replay.exchange import EXCHANGE, FAULTS
from lstm_strategy.replay.refusals import RefusedError

__all__ = [
    "answering",
    "binance_error",
    "illegal",
    "json_reply",
    "limit",
    "needed",
    "number",
    "refusal_reply",
    "server_ms",
    "skew_ms",
]

_MS = 1_000_000


def answering(handler: Callable[[web.Request], Awaitable[web.Response]]) -> Callable[[web.Request], Any]:
    """Turn a `RefusedError` of a handler into its answer."""

    async def answer(request: web.Request) -> web.Response:
        try:
            return await handler(request)
        except RefusedError as refusal:
            return refusal_reply(refusal)

    return answer


def refusal_reply(refusal: RefusedError) -> web.Response:
    """Return a refusal as Binance sends it."""
    response = binance_error(refusal.code, str(refusal), refusal.status)
    if refusal.retry_after is not None:
        response.headers["Retry-After"] = str(refusal.retry_after)
    return response


def binance_error(code: int, message: str, status: int = 400) -> web.Response:
    """Return an error in Binance's shape."""
    return json_reply({"code": code, "msg": message}, status=status)


def needed(request: web.Request, name: str) -> str:
    """Return a parameter that must be there."""
    value = request.query.get(name, "")
    if not value:
        raise RefusedError(-1102, f"Mandatory parameter '{name}' was not sent, was empty/null, or malformed.")
    return value


def number(request: web.Request, name: str) -> int | None:
    """Return a whole number, where it is there; at most what fits into 64 bits as milliseconds."""
    value = request.query.get(name)
    if value is None:
        return None
    if re.fullmatch(r"[0-9]{1,20}", value, re.ASCII) is None:
        raise RefusedError(-1100, illegal(name, "^[0-9]{1,20}$"))
    return min(int(value), 1 << 43)  # the year 2248: its nanoseconds still fit into 64 bits


def limit(request: web.Request, default: int, most: int) -> int:
    """Return how many rows are wanted, at most what is allowed."""
    wanted = number(request, "limit")
    if wanted == 0:
        raise RefusedError(-1130, "Data sent for parameter 'limit' is not valid.")
    return default if wanted is None else min(wanted, most)


def illegal(name: str, legal: str) -> str:
    """Return what Binance says of a parameter with a character that it does not allow."""
    return f"Illegal characters found in parameter '{name}'; legal range is '{legal}'."


def server_ms(request: web.Request) -> int:
    """Return the venue's time in ms, as its clock shows it to this request."""
    return request.app[EXCHANGE].now() // _MS + skew_ms(request)


def skew_ms(request: web.Request) -> int:
    """Return by how much the venue's clock is wrong for this request, in ms."""
    return int(1e3 * sum(fault.seconds for fault in request.get(FAULTS, ()) if fault.kind == "clock_skew"))


def json_reply(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """Return an answer."""
    body = msgspec.json.encode(value)
    return web.Response(body=body, status=status, headers=headers, content_type="application/json")
