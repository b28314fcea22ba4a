"""What the tests of the replay share: markets, and real clients pointed at a local server."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import ccxt.async_support as ccxt
import numpy as np

from lstm_strategy.bars import Bars
from lstm_strategy.replay.market import Candles, Market
from lstm_strategy.replay.recordings import simulated_market
from lstm_strategy.sources.simulate import SimulationConfig

BOUND = 120.0  # seconds; no test of one server takes longer, however slow the machine


def bounded(work: Coroutine[Any, Any, Any]) -> Any:
    """Run to the end, or fail after a bound."""
    return asyncio.run(asyncio.wait_for(work, BOUND))


def simulated(instrument: str = "BTCUSDT.BINANCE", timeframe: str = "1h", bars: int = 500, seed: int = 1) -> Market:
    return simulated_market(
        SimulationConfig(instrument_id=instrument, timeframe=timeframe, bars=bars, seed=seed, start="2024-01-01")
    )


@asynccontextmanager
async def client(name: str, url: str):
    """An exchange of ccxt as it comes, but for its URLs, and without its rate limit."""
    exchange = getattr(ccxt, name)({"enableRateLimit": False})
    exchange.urls["api"] = {key: url + urlsplit(value).path for key, value in exchange.urls["api"].items()}
    try:
        yield exchange
    finally:
        await exchange.close()


def rows_of(bars: Bars | Candles) -> list[list[float]]:
    """Rows as ccxt gives them: open stamp in ms, prices, volume."""
    opened = bars.opened if isinstance(bars, Candles) else bars.ts_close - bars.timeframe.ns
    columns = (opened // 1_000_000, bars.open, bars.high, bars.low, bars.close, bars.volume)
    return [list(row) for row in zip(*(np.asarray(column).tolist() for column in columns), strict=True)]


async def download(exchange: Any, symbol: str, timeframe: str, since: int, limit: int, until: int) -> list[list[float]]:
    """Page from ``since`` on as a plain client does: the next page begins after the last row."""
    rows: list[list[float]] = []
    step = exchange.parse_timeframe(timeframe) * 1_000
    while since <= until:
        page = await exchange.fetch_ohlcv(symbol, timeframe, since, limit)
        rows += page
        since = page[-1][0] + step if page else since + limit * step
    return rows
