"""Binance's answers: spot (``/api/v3``) and USDⓈ-M futures (``/fapi/v1``), as ccxt and the NautilusTrader adapter ask.

What a recording does not hold is invented in a stated way: quote volume is volume times the mean of the four prices,
half of all volume is bought by takers, a candle that traded has one trade for each whole unit of volume, and one more.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import numpy as np
from aiohttp import web

from lstm_strategy.replay.binance_http import answering, illegal, json_reply, limit, needed, number, server_ms
from lstm_strategy.replay.binance_rules import exchange_info
from lstm_strategy.replay.exchange import EXCHANGE, Page, read_page
from lstm_strategy.replay.intervals import BINANCE_INTERVALS, Interval
from lstm_strategy.replay.market import Candles, Market
from lstm_strategy.replay.price_path import price_at
from lstm_strategy.replay.refusals import RefusedError

__all__ = ["kline_event", "kline_rows", "register_binance"]

_MS = 1_000_000
_SPOT_LIMITS, _FUTURES_LIMITS, _FUNDING_LIMITS = (500, 1_000), (500, 1_500), (100, 1_000)  # default and most
_ROW = '[%d,"%.8f","%.8f","%.8f","%.8f","%.8f",%d,"%.8f",%d,"%.8f","%.8f","0"]'

type Row = tuple[int, float, float, float, float, float, int, float, int, float, float]


def register_binance(app: web.Application) -> None:
    """Add the routes."""
    for prefix in ("/api/v3", "/fapi/v1", "/dapi/v1"):
        app.router.add_get(f"{prefix}/ping", _ping)
        app.router.add_get(f"{prefix}/time", _time)
        app.router.add_get(f"{prefix}/exchangeInfo", answering(_exchange_info))
    for prefix in ("/api/v3", "/fapi/v1"):
        app.router.add_get(f"{prefix}/klines", answering(_klines))
        app.router.add_get(f"{prefix}/ticker/price", answering(_ticker_price))
    app.router.add_get("/fapi/v1/fundingRate", answering(_funding))


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
    return json_reply({})


async def _time(request: web.Request) -> web.Response:
    return json_reply({"serverTime": server_ms(request)})


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
            raise RefusedError(
                -1100, illegal("symbols", r'^\[("[A-Z0-9-_.]{1,20}"(,"[A-Z0-9-_.]{1,20}"){0,}){0,1}\]$')
            ) from error
    if wanted is not None and not set(wanted) <= {market.symbol for market in markets}:
        raise RefusedError(-1121, "Invalid symbol.")
    markets = [market for market in markets if wanted is None or market.symbol in wanted]
    return json_reply(exchange_info(markets, server_ms(request), exchange.exchange_info))


async def _klines(request: web.Request) -> web.Response:
    market = _market(request)
    interval = BINANCE_INTERVALS.get(needed(request, "interval"))
    if interval is None or not market.offers(interval) or (market.perpetual and interval.text == "1s"):
        raise RefusedError(-1120, "Invalid interval.")
    start, end = number(request, "startTime"), number(request, "endTime")
    page = read_page(
        request,
        market,
        interval,
        start=None if start is None else start * _MS,
        end=None if end is None else end * _MS,
        limit=limit(request, *(_FUTURES_LIMITS if market.perpetual else _SPOT_LIMITS)),
        stamp_ns=_MS,
    )
    return _klines_reply(page)


def _klines_reply(page: Page) -> web.Response:
    body = ",".join(map(_ROW.__mod__, kline_rows(page.candles, page.stamp_ns)))
    return web.Response(body=f"[{body}]".encode(), content_type="application/json")


async def _ticker_price(request: web.Request) -> web.Response:
    market = _market(request)
    offered = price_at(market, request.app[EXCHANGE].now())
    if offered is None:
        raise RefusedError(-1013, "Market is closed.")
    return json_reply({"symbol": market.symbol, "price": f"{offered[0]:.8f}"})


async def _funding(request: web.Request) -> web.Response:
    market = _market(request)
    start, end = number(request, "startTime"), number(request, "endTime")
    most = limit(request, *_FUNDING_LIMITS)
    if market.funding is None:
        return json_reply([])
    ts = market.funding.ts
    last = int(np.searchsorted(ts, min(request.app[EXCHANGE].now(), (end or 1 << 43) * _MS), side="right"))
    first = max(0, last - most) if start is None else int(np.searchsorted(ts, start * _MS))
    rows = slice(first, min(last, first + most))
    return json_reply(
        [
            {"symbol": market.symbol, "fundingTime": when // _MS, "fundingRate": f"{rate:.8f}", "markPrice": ""}
            for when, rate in zip(ts[rows].tolist(), market.funding.rate[rows].tolist(), strict=True)
        ]
    )


def _market(request: web.Request) -> Market:
    found = request.app[EXCHANGE].plan.find(needed(request, "symbol"), perpetual=request.path.startswith("/fapi"))
    if found is None:
        raise RefusedError(-1121, "Invalid symbol.")
    return found
