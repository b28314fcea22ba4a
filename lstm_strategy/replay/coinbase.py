"""Coinbase Exchange over HTTP: candles newest first, 300 a page, seconds for stamps, and a range that must be small."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

import msgspec
from aiohttp import web

from lstm_strategy.bars import parse_ns
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.replay.exchange import EXCHANGE, FAULTS, read_page
from lstm_strategy.replay.intervals import Interval
from lstm_strategy.replay.market import Market

__all__ = ["register_coinbase"]

_MOST = 300  # candles of a page
_SECOND = 1_000_000_000
_GRANULARITIES = (60, 300, 900, 3_600, 21_600, 86_400)


def register_coinbase(app: web.Application) -> None:
    """Add the routes."""
    app.router.add_get("/time", _time)
    app.router.add_get("/currencies", _currencies)
    app.router.add_get("/products", _products)
    app.router.add_get("/products/{id}", _product)
    app.router.add_get("/products/{id}/candles", _candles)


async def _time(request: web.Request) -> web.Response:
    skew = sum(fault.seconds for fault in request.get(FAULTS, ()) if fault.kind == "clock_skew")
    now = request.app[EXCHANGE].now() + int(skew * 1e9)
    iso = datetime.fromtimestamp(now // _SECOND, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return _json({"iso": f"{iso}.{now // 1_000_000 % 1_000:03d}Z", "epoch": now / 1e9})


async def _currencies(request: web.Request) -> web.Response:
    names = {name for market in _spot(request) for name in (market.instrument.base, market.instrument.quote)}
    return _json(
        [
            {
                "id": name,
                "name": name,
                "min_size": "0.00000001",
                "status": "online",
                "message": "",
                "max_precision": "0.00000001",
                "convertible_to": [],
                "details": {"type": "crypto"},
                "default_network": "",
                "supported_networks": [],
            }
            for name in sorted(names)
        ]
    )


async def _products(request: web.Request) -> web.Response:
    return _json([_describe(market) for market in _spot(request)])


async def _product(request: web.Request) -> web.Response:
    market = _find(request)
    return _refusal("NotFound", 404) if market is None else _json(_describe(market))


async def _candles(request: web.Request) -> web.Response:
    market = _find(request)
    if market is None:
        return _refusal("NotFound", 404)
    granularity = request.query.get("granularity", "60")
    if granularity not in map(str, _GRANULARITIES):
        return _refusal("Unsupported granularity")
    interval = Interval(f"{granularity}s", int(granularity) * _SECOND)
    if not market.offers(interval):
        return _refusal("Unsupported granularity")
    start = end = None
    if "start" in request.query and "end" in request.query:  # one without the other counts for nothing
        try:
            start, end = (_stamp(request.query[name]) for name in ("start", "end"))
        except LSTMStrategyError:
            return _refusal("Invalid start or end")
        if start > end:
            return _refusal("start must be before end")
        if (end - start) // interval.ns >= _MOST:
            return _refusal(
                "granularity too small for the requested time range. Count of aggregations requested exceeds 300"
            )
    page = read_page(request, market, interval, start=start, end=end, limit=_MOST, stamp_ns=_SECOND)
    rows = page.candles
    columns = (rows.opened // page.stamp_ns, rows.low, rows.high, rows.open, rows.close, rows.volume)
    newest_first = zip(*(column[::-1].tolist() for column in columns), strict=True)
    body = ",".join(f"[{ts},{','.join(map(_number, values))}]" for ts, *values in newest_first)
    return web.Response(body=f"[{body}]".encode(), content_type="application/json")


def _number(value: float) -> str:
    return repr(value) if math.isfinite(value) else "NaN"


def _stamp(text: str) -> int:
    """Return a query's time, ISO 8601 or seconds since 1970, in ns UTC."""
    return int(text) * _SECOND if text.isdecimal() and len(text) <= 10 else parse_ns(text)


def _spot(request: web.Request) -> list[Market]:
    return [market for market in request.app[EXCHANGE].plan.markets if not market.perpetual]


def _find(request: web.Request) -> Market | None:
    return next((market for market in _spot(request) if market.product == request.match_info["id"]), None)


def _describe(market: Market) -> dict[str, Any]:
    instrument = market.instrument
    return {
        "id": market.product,
        "base_currency": instrument.base,
        "quote_currency": instrument.quote,
        "quote_increment": instrument.tick,
        "base_increment": instrument.lot,
        "display_name": f"{instrument.base}/{instrument.quote}",
        "min_market_funds": f"{instrument.min_notional or 0.0:g}",
        "margin_enabled": False,
        "fx_stablecoin": False,
        "post_only": False,
        "limit_only": False,
        "cancel_only": False,
        "trading_disabled": False,
        "status": "online",
        "status_message": "",
        "auction_mode": False,
    }


def _refusal(message: str, status: int = 400) -> web.Response:
    return _json({"message": message}, status)


def _json(value: Any, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), status=status, content_type="application/json")
