"""A venue without a network: the local exchange in the node's own process, whose clock waits for the node.

It stands still until the node is ready, then closes one bar after the other, ``speed`` times as fast as they were made
or as fast as the node keeps up, whichever is slower: no bar is lost to speed, and any speed gives the same orders.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lstm_strategy.bars import Timeframe, format_ns
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.nautilus.pace import Pace
from lstm_strategy.replay.faults import NO_FAULTS, FaultPlan
from lstm_strategy.replay.market import Market
from lstm_strategy.replay.recordings import market_from_catalog
from lstm_strategy.replay.server import ReplayConfig, ReplayServer, serve

__all__ = ["Rehearsal", "Stage", "rehearse"]

_POLL_S = 0.0005
_PATIENCE_S, _PATIENCE_WITH_FAULTS_S = 60.0, 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsal:
    """What is replayed.

    Parameters
    ----------
    start : int, optional
        Where history ends, ns UTC: the first bar told closes after it. All bars are told where None.
    end : int, optional
        Close of the last bar that may be told.
    bars : int, optional
        How many are told at most, of all instruments together by close.
    faults : FaultPlan
        What goes wrong at the exchange, drawn by ``seed``.
    patience : float, optional
        Wall seconds that are waited for the node to be done with a bar: 2 where a fault may have taken it, and 60 where
        none can. However slow a machine is, the docstring above holds for it.
    """

    catalog: Path
    instrument_ids: tuple[str, ...]
    timeframe: str
    start: int | None = None
    end: int | None = None
    speed: float = 1.0
    bars: int | None = None
    faults: FaultPlan = NO_FAULTS
    seed: int = 1
    patience: float | None = None


@dataclass(frozen=True, slots=True)
class Stage:
    """A rehearsal that is served; ``pace`` is its time."""

    rehearsal: Rehearsal
    server: ReplayServer
    pace: Pace

    async def play(self, settled: Callable[[int, Sequence[str]], bool]) -> int:
        """Tell the bars; return at how many closes. ``settled`` says whether all work on these names' bars is done."""
        rehearsal, exchange = self.rehearsal, self.server.exchange
        begun, origin = time.monotonic(), exchange.now()
        usual = _PATIENCE_S if rehearsal.faults == NO_FAULTS else _PATIENCE_WITH_FAULTS_S
        patience = usual if rehearsal.patience is None else rehearsal.patience
        for done in range(2**62):
            close = exchange.plan.next_close(exchange.now())
            if close is None or close > (rehearsal.end or close) or done == rehearsal.bars:
                return done
            due = begun + (close - origin) / 1e9 / rehearsal.speed
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            await self.server.step()
            names = [market.instrument.id for market in exchange.plan.markets if _closes(market, close)]
            late = time.monotonic() + patience
            while not settled(close, names) and time.monotonic() < late:
                await asyncio.sleep(_POLL_S)
        raise AssertionError


@asynccontextmanager
async def rehearse(rehearsal: Rehearsal) -> AsyncIterator[Stage]:
    """Serve the catalog's raw bars on this machine while the block runs.

    Raises
    ------
    LSTMStrategyError
        Where the catalog lacks the bars, ``start`` lies outside them, or the exchange has no such instrument.
    """
    timeframe = Timeframe.parse(rehearsal.timeframe)
    markets = tuple(market_from_catalog(rehearsal.catalog, name, timeframe) for name in rehearsal.instrument_ids)
    for market in markets:
        told = f"{market.symbol}{'-PERP' if market.perpetual else ''}.{market.instrument.id.rpartition('.')[2]}"
        if market.instrument.kind == "equity" or told != market.instrument.id:
            raise LSTMStrategyError(
                f"{market.instrument.id} cannot be replayed to a node: the local exchange speaks Binance's protocol,"
                f" with spot pairs and perpetuals named like {told}"
            )
    start = "0" if rehearsal.start is None else format_ns(rehearsal.start)
    # The adapter tells an unfinished candle by the wall's clock, which is years ahead of this one.
    config = ReplayConfig(
        markets=markets,
        step=True,
        start=start,
        unfinished=False,
        updates=0,
        faults=rehearsal.faults,
        seed=rehearsal.seed,
    )
    async with serve(config) as server:
        yield Stage(rehearsal, server, Pace(server.exchange.now, rehearsal.speed))


def _closes(market: Market, close: int) -> bool:
    closes = market.base.closed
    return bool(closes[min(int(np.searchsorted(closes, close)), len(closes) - 1)] == close)
