"""Binance's answers: spot (``/api/v3``) and USDⓈ-M futures (``/fapi/v1``), as ccxt and the NautilusTrader adapter ask.

What a recording does not hold is invented in a stated way: quote volume is volume times the mean of the four prices,
half of all volume is bought by takers, a candle that traded has one trade for each whole unit of volume, and one more.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import msgspec
import numpy as np
from aiohttp import web

from lstm_strategy.replay.binance_rules import exchange_info
from lstm_strategy.replay.exchange import EXCHANGE, FAULTS, Page, read_page
from lstm_strategy.replay.intervals import BINANCE_INTERVALS, Interval
from lstm_strategy.replay.market import Candles, Market

__all__ = ["binance_error", "kline_event", "kline_rows", "register_binance"]

_MS = 1_000_000
_SPOT_LIMITS, _FUTURES_LIMITS, _FUNDING_LIMITS = (500, 1_000), (500, 1_500), (100, 1_000)  # default and most
_ROW = '[%d,"%.8f","%.8f","%.8f","%.8f","%.8f",%d,"%.8f",%d,"%.8f","%.8f","0"]'

type Row = tuple[int, float, float, float, float, float, int, float, int, float, float]


class _RefusedError(Exception):
    """A request that Binance answers with a code and a message."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


def register_binance(app: web.Application) -> None:
    """Add the routes."""
    for prefix in ("/api/v3", "/fapi/v1", "/dapi/v1"):
        app.router.add_get(f"{prefix}/ping", _ping)
        app.router.add_get(f"{prefix}/time", _time)
        app.router.add_get(f"{prefix}/exchangeInfo", _answering(_exchange_info))
    for prefix in ("/api/v3", "/fapi/v1"):
        app.router.add_get(f"{prefix}/klines", _answering(_klines))
    app.router.add_get("/fapi/v1/fundingRate", _answering(_funding))


def binance_error(code: int, message: str, status: int = 400) -> web.Response:
    """Return an error in Binance's shape."""
    return _json({"code": code, "msg": message}, status=status)


def kline_rows(candles: Candles, stamp_ns: int = _MS) -> Iterator[Row]:
    """Yield open stamp, four prices, volume, close stamp, quote volume, trades, both volumes as bought by takers."""
    mean = (candles.open + candles.high + candles.low + candles.close) / 4.0
    with np.errstate(over="ignore", invalid="ignore"):
        quote = candles.volume * mean
    count = np.where(candles.volume > 0, np.minimum(candles.volume, 1e6).astype(np.int64) + 1, 0)
    columns = (
        candles.opened // stamp_ns,
        *(candles.open, candles.high, candles.low, candles.close, candles.volume),
        (candles.closed - _MS) // stamp_ns,
        *(quote, count, candles.volume / 2.0, quote / 2.0),
    )
    return zip(*(column.tolist() for column in columns), strict=True)


def kline_event(
    market: Market, interval: Interval, candle: Candles, now: int, *, closed: bool, stamp_ns: int = _MS
) -> str:
    """Return the stream's event of one candle, as text, as it is told at ``now``, ns UTC."""
    opened, first, high, low, last, volume, end, quote, count, taken, taken_quote = next(kline_rows(candle, stamp_ns))
    prices = {name: f"{value:.8f}" for name, value in zip("ochl", (first, last, high, low), strict=True)}
    volumes = {name: f"{value:.8f}" for name, value in zip("vqVQ", (volume, quote, taken, taken_quote), strict=True)}
    kline = {"t": opened, "T": end, "s": market.symbol, "i": interval.text, "f": 0 if count else -1, "L": count - 1}
    kline |= prices | volumes | {"n": count, "x": closed, "B": "0"}
    return msgspec.json.encode({"e": "kline", "E": now // stamp_ns, "s": market.symbol, "k": kline}).decode()


async def _ping(_: web.Request) -> web.Response:
    return _json({})


async def _time(request: web.Request) -> web.Response:
    return _json({"serverTime": _server_ms(request)})


async def _exchange_info(request: web.Request) -> web.Response:
    exchange = request.app[EXCHANGE]
    markets = [market for market in exchange.plan.markets if market.perpetual == request.path.startswith("/fapi")]
    if request.path.startswith("/dapi"):  # coin-margined contracts: none, but ccxt asks
        markets = []
    wanted = None
    if "symbol" in request.query:
        wanted = [request.query["symbol"]]
    elif "symbols" in request.query:
        try:
            wanted = msgspec.json.decode(request.query["symbols"], type=list[str])
        except msgspec.MsgspecError as error:
            raise _RefusedError(
                -1100, _illegal("symbols", r'^\[("[A-Z0-9-_.]{1,20}"(,"[A-Z0-9-_.]{1,20}"){0,}){0,1}\]$')
            ) from error
    if wanted is not None and not set(wanted) <= {market.symbol for market in markets}:
        raise _RefusedError(-1121, "Invalid symbol.")
    markets = [market for market in markets if wanted is None or market.symbol in wanted]
    return _json(exchange_info(markets, _server_ms(request), exchange.exchange_info))


async def _klines(request: web.Request) -> web.Response:
    market = _market(request)
    interval = BINANCE_INTERVALS.get(_needed(request, "interval"))
    if interval is None or not market.offers(interval) or (market.perpetual and interval.text == "1s"):
        raise _RefusedError(-1120, "Invalid interval.")
    start, end = _number(request, "startTime"), _number(request, "endTime")
    page = read_page(
        request,
        market,
        interval,
        start=None if start is None else start * _MS,
        end=None if end is None else end * _MS,
        limit=_limit(request, *(_FUTURES_LIMITS if market.perpetual else _SPOT_LIMITS)),
        stamp_ns=_MS,
    )
    return _klines_reply(page)


def _klines_reply(page: Page) -> web.Response:
    body = ",".join(map(_ROW.__mod__, kline_rows(page.candles, page.stamp_ns)))
    return web.Response(body=f"[{body}]".encode(), content_type="application/json")


async def _funding(request: web.Request) -> web.Response:
    market = _market(request)
    start, end = _number(request, "startTime"), _number(request, "endTime")
    limit = _limit(request, *_FUNDING_LIMITS)
    if market.funding is None:
        return _json([])
    ts = market.funding.ts
    last = int(np.searchsorted(ts, min(request.app[EXCHANGE].now(), (end or 1 << 43) * _MS), side="right"))
    first = max(0, last - limit) if start is None else int(np.searchsorted(ts, start * _MS))
    rows = slice(first, min(last, first + limit))
    return _json(
        [
            {"symbol": market.symbol, "fundingTime": when // _MS, "fundingRate": f"{rate:.8f}", "markPrice": ""}
            for when, rate in zip(ts[rows].tolist(), market.funding.rate[rows].tolist(), strict=True)
        ]
    )


def _answering(handler: Callable[[web.Request], Awaitable[web.Response]]) -> Callable[[web.Request], Any]:
    async def answer(request: web.Request) -> web.Response:
        try:
            return await handler(request)
        except _RefusedError as refusal:
            return binance_error(refusal.code, str(refusal))

    return answer


def _market(request: web.Request) -> Market:
    found = request.app[EXCHANGE].plan.find(_needed(request, "symbol"), perpetual=request.path.startswith("/fapi"))
    if found is None:
        raise _RefusedError(-1121, "Invalid symbol.")
    return found


def _needed(request: web.Request, name: str) -> str:
    value = request.query.get(name, "")
    if not value:
        raise _RefusedError(-1102, f"Mandatory parameter '{name}' was not sent, was empty/null, or malformed.")
    return value


def _number(request: web.Request, name: str) -> int | None:
    value = request.query.get(name)
    if value is None:
        return None
    if re.fullmatch(r"[0-9]{1,20}", value, re.ASCII) is None:
        raise _RefusedError(-1100, _illegal(name, "^[0-9]{1,20}$"))
    return min(int(value), 1 << 43)  # the year 2248: its nanoseconds still fit into 64 bits


def _limit(request: web.Request, default: int, most: int) -> int:
    limit = _number(request, "limit")
    if limit == 0:
        raise _RefusedError(-1130, "Data sent for parameter 'limit' is not valid.")
    return default if limit is None else min(limit, most)


def _illegal(name: str, legal: str) -> str:
    return f"Illegal characters found in parameter '{name}'; legal range is '{legal}'."


def _server_ms(request: web.Request) -> int:
    skew = sum(fault.seconds for fault in request.get(FAULTS, ()) if fault.kind == "clock_skew")
    return (request.app[EXCHANGE].now() + int(skew * 1e9)) // _MS


def _json(value: Any, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), status=status, content_type="application/json")
