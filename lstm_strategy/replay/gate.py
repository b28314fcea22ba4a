"""The gate that every request passes: it counts, refuses during maintenance, and injects faults of transport."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import msgspec
from aiohttp import web

from lstm_strategy.replay.exchange import EXCHANGE, FAULTS
from lstm_strategy.replay.faults import ANSWER_KINDS, REQUEST_KINDS, Fault
from lstm_strategy.replay.refusals import MESSAGES

__all__ = ["fault_gate"]

_CHUNK = 1 << 16  # bytes


@web.middleware
async def fault_gate(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Answer a request, or spoil the answer."""
    if request.path.startswith("/replay/"):
        return await handler(request)
    exchange = request.app[EXCHANGE]
    exchange.requests += 1
    if exchange.under_maintenance:
        return _maintenance(request)
    now = exchange.now()
    keeps_time = request.path.endswith(("/time", "/exchangeInfo")) or "signature" in request.query
    socket = "Upgrade" in request.headers
    drawn = exchange.faults.draw(
        "rest",
        REQUEST_KINDS if keeps_time else REQUEST_KINDS - {"clock_skew"},
        first=now,
        last=now,
        path=f"{request.method} {request.path}",
        symbol=request.query.get("symbol", ""),
        named=socket,
    )
    beside: list[Fault] = []
    for fault, _ in drawn:
        if fault.kind == "delay":
            await asyncio.sleep(max(0.0, fault.seconds))
        elif fault.kind == "clock_skew":
            beside.append(fault)
        else:
            request[FAULTS] = tuple(beside)
            return await _spoilt(request, handler, fault)
    request[FAULTS] = tuple(beside)
    return await _answer(request, handler)


async def _answer(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPNotFound:
        request.app[EXCHANGE].note_unknown(f"{request.method} {request.path}")
        return _error(request, 404, "NotFound")


async def _spoilt(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]], fault: Fault
) -> web.StreamResponse:
    if fault.kind == "status":
        return _status(request, fault)
    if fault.kind == "maintenance":
        request.app[EXCHANGE].shut(seconds=fault.seconds)
        return _maintenance(request)
    if fault.kind == "redirect":
        return web.Response(status=302, headers={"Location": "/replay/redirect/1"})
    if fault.kind == "huge_reply":
        return await _huge(request, fault.size)
    if fault.kind == "drop":
        return _abort(request)
    response = await _answer(request, handler)
    if fault.kind in ANSWER_KINDS:
        return await _carried_out(request, handler, fault, response)
    if not isinstance(response, web.Response) or not isinstance(response.body, bytes):  # a socket has no body
        return _abort(request)
    if fault.kind == "content_type":
        response.content_type = "text/html"
    elif fault.kind == "truncated":
        response.body = response.body[: len(response.body) // 2]
    elif fault.kind == "malformed":
        response.body = response.body.replace(b",", b",,", 1) + b"}"
    else:
        return await _cut(request, response.body)
    return response


async def _carried_out(
    request: web.Request,
    handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
    fault: Fault,
    response: web.StreamResponse,
) -> web.StreamResponse:
    """Spoil the answer to a request that was carried out."""
    if fault.kind == "twice":
        return await _answer(request, handler)
    if fault.kind == "answer_failed":
        return _json(fault.status, {"code": -1007, "msg": MESSAGES[-1007]})
    if fault.kind == "answer_late":
        await asyncio.sleep(max(0.0, fault.seconds))
        return response
    return _abort(request)


def _status(request: web.Request, fault: Fault) -> web.Response:
    if fault.status in (502, 504):  # from before the venue: no JSON
        return web.Response(status=fault.status, text="<html><body>Bad Gateway</body></html>", content_type="text/html")
    texts = {
        429: MESSAGES[-1003],
        418: "Way too much request weight used; IP banned until further notice.",
    }
    response = _error(request, fault.status, texts.get(fault.status, "Internal error; unable to process your request."))
    if fault.retry_after is not None:
        response.headers["Retry-After"] = str(fault.retry_after)
    return response


def _maintenance(request: web.Request) -> web.Response:
    return _error(request, 503, "System is under maintenance.")


def _error(request: web.Request, status: int, message: str) -> web.Response:
    """Return an error in the shape of the venue whose path was asked."""
    body: dict[str, object] = {"message": message}
    if request.path.startswith(("/api/", "/fapi/", "/dapi/", "/sapi/")):
        body = {"code": {429: -1003, 418: -1003, 404: -1000}.get(status, -1001), "msg": message}
    return _json(status, body)


def _json(status: int, body: dict[str, object]) -> web.Response:
    return web.Response(body=msgspec.json.encode(body), status=status, content_type="application/json")


async def _huge(request: web.Request, size: int) -> web.StreamResponse:
    """Send a JSON array without end, ``size`` bytes of it, in chunks: it takes no memory here."""
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    chunk = (b'[1500000000000,"1.0","1.0","1.0","1.0","1.0",1500003599999,"1.0",1,"1.0","1.0","0"],' * 800)[:_CHUNK]
    with suppress(ConnectionError):
        await response.write(b"[")
        for sent in range(0, size, len(chunk)):
            await response.write(chunk[: size - sent])
        await response.write_eof()
    return response


async def _cut(request: web.Request, body: bytes) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": str(len(body))})
    await response.prepare(request)
    with suppress(ConnectionError):
        await response.write(body[: len(body) // 2])
        await asyncio.sleep(0.01)  # so that the half leaves before the end
    _abort(request)
    return response


def _abort(request: web.Request) -> web.Response:
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=500)
