"""Exchange history into the raw store: what is missing is asked for, page by page, and any end of it can be resumed."""

from __future__ import annotations

import asyncio
from typing import Any

from lstm_strategy.bars import Timeframe
from lstm_strategy.sources.ccxt_markets import find_market, instrument_id_of, instrument_of
from lstm_strategy.sources.download_market import MarketDownload, Progress
from lstm_strategy.sources.download_plan import DownloadConfig, Downloaded, plan, require_origin, told
from lstm_strategy.sources.store import RawStore

__all__ = ["download"]

_AT_ONCE = 4


async def download(
    config: DownloadConfig, store: RawStore, progress: Progress = lambda *_: None
) -> tuple[list[Downloaded], BaseException | None]:
    """Bring what is missing into the raw store; who calls holds the catalog (see `lock.hold_catalog`).

    Every page is on disk before the next of its market is asked for. Nothing is asked of the exchange where nothing is
    missing and no unfinished business is left.

    Returns
    -------
    list of Downloaded
        Of the markets that came to their end.
    BaseException or None
        What stopped the first of the others: an exchange that does not answer after the last retry. What came is kept.

    Raises
    ------
    LSTMStrategyError
        For a wrong request, before anything is kept.
    """
    planned = plan(config, store)
    if not config.funding and all(entry.instrument and not entry.missing for entry in planned):
        return [told(config, store, entry.symbol, str(entry.instrument)) for entry in planned], None
    from lstm_strategy.sources.ccxt_client import open_client  # CCXT is slow to import

    timeframe = Timeframe.parse(config.timeframe)
    async with open_client(config.client) as client:
        client.require(timeframe, funding=config.funding)
        markets = await client.load_markets()
        chosen = [
            (symbol, find_market(client.name, markets, symbol, config.client.market)) for symbol in config.symbols
        ]
        for _, market in chosen:  # refuse all before anything is kept
            instrument_of(client.name, market, client.exchange.precisionMode, 0)
            require_origin(config, store, instrument_id_of(client.name, market))
        turns = asyncio.Semaphore(_AT_ONCE)

        async def one(symbol: str, market: Any) -> Downloaded:
            async with turns:
                return await MarketDownload(config, store, client, symbol, market, progress).run()

        tasks = [asyncio.ensure_future(one(symbol, market)) for symbol, market in chosen]
        done = await asyncio.gather(*tasks, return_exceptions=True)
    failures = [outcome for outcome in done if isinstance(outcome, BaseException)]
    results = [outcome for outcome in done if isinstance(outcome, Downloaded)]
    return results, failures[0] if failures else None
