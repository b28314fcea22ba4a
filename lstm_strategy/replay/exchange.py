"""Exchange: what all protocols of the replay share: markets, clock, faults, and who hears of a new bar."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from aiohttp import web

from lstm_strategy.bars import format_ns
from lstm_strategy.replay.faults import PAGE_KINDS, Fault, FaultBook
from lstm_strategy.replay.intervals import Interval
from lstm_strategy.replay.market import Candles, Market
from lstm_strategy.replay.spoil import alter, spoil_rows
from lstm_strategy.replay.timeline import Clock, Plan

__all__ = ["EXCHANGE", "FAULTS", "Exchange", "Listener", "Page", "read_page"]

# Called with the venue's time before and after each advance (ns UTC), and whether the pace leaves time for candles that
# are still forming.
type Listener = Callable[[int, int, bool], Awaitable[None]]


@dataclass(slots=True)
class Exchange:
    """The state of one replay.

    ``listeners`` are called in order at each advance: first the books of `trading.Trading`, so that fills are known
    when the bar that made them is told, then the kline streams.
    """

    plan: Plan
    clock: Clock
    faults: FaultBook
    updates: int
    exchange_info: dict[str, dict[str, Any]]
    unfinished: bool = True
    requests: int = 0
    listeners: list[Listener] = field(default_factory=list)
    unknown: dict[str, int] = field(default_factory=dict)
    _shut_until: float = 0.0
    _shut_closes: int = 0
    _stepping: asyncio.Lock = field(default_factory=asyncio.Lock)

    def now(self) -> int:
        """Return the venue's time, ns UTC."""
        return self.clock.now()

    def note_unknown(self, asked: str) -> None:
        """Remember that a client asked for what is not served."""
        if asked in self.unknown or len(self.unknown) < 100:
            self.unknown[asked] = self.unknown.get(asked, 0) + 1

    def shut(self, *, seconds: float = 0.0, closes: int = 0) -> None:
        """Begin maintenance, for ``seconds`` of the wall or ``closes`` bar closes."""
        self._shut_until = max(self._shut_until, time.monotonic() + seconds)
        self._shut_closes = max(self._shut_closes, closes)

    @property
    def under_maintenance(self) -> bool:
        """Whether requests are refused and streams silent."""
        return self._shut_closes > 0 or time.monotonic() < self._shut_until

    async def advance(self, before: int, now: int, *, in_time: bool = True) -> None:
        """Tell all listeners that the venue's time has gone on, and count maintenance down."""
        for listener in self.listeners:
            await listener(before, now, in_time)
        self._shut_closes = max(0, self._shut_closes - (self.plan.closed(now) - self.plan.closed(before)))

    async def run(self) -> None:
        """Advance with the clock, for ever; a stream that lags leaves forming candles out, but never a closed one."""
        cursor = self.now()
        while True:
            step = self._update_ns()
            targets = [self.plan.next_close(cursor)]
            if step:
                targets.append((max(cursor, self.now() - step) // step + 1) * step)
            target = min((ts for ts in targets if ts is not None), default=None)
            if targets[0] is None or target is None:  # nothing more will close or form
                return
            await asyncio.sleep(self.clock.seconds_until(target))
            late = self.now() - target
            await self.advance(cursor, target, in_time=not step or late < step)
            cursor = target

    async def step(self, bars: int) -> int:
        """Move a clock that is moved by hand over the next closes; return how many there were."""
        async with self._stepping:
            for done in range(bars):
                begun, target = self.now(), self.plan.next_close(self.now())
                if target is None:
                    return done
                moments = [begun + (target - begun) * part // (self.updates + 1) for part in range(self.updates + 2)]
                for before, moment in pairwise(moments):
                    self.clock.set(moment)
                    await self.advance(before, moment)
                await asyncio.sleep(0)  # so that requests are answered in between
        return bars

    def state(self) -> dict[str, Any]:
        """Return what the replay is doing, for people and tests."""
        now, closes = self.now(), self.plan.closes
        return {
            "now": now // 1_000_000,
            "now_utc": format_ns(now),
            "origin_utc": format_ns(self.plan.origin),
            "shift_days": self.plan.shift_days,
            "speed": self.clock.speed,
            "step": self.clock.by_hand,
            "closed": self.plan.closed(now),
            "left": len(closes) - self.plan.closed(now),
            "maintenance": self.under_maintenance,
            "requests": self.requests,
            "unknown": self.unknown,
            "faults": dict(self.faults.injected),
            "last_faults": [str(hit) for hit in list(self.faults.last)[-20:]],
            "markets": [
                {
                    "instrument": market.instrument.id,
                    "symbol": market.symbol,
                    "product": market.product,
                    "timeframe": market.timeframe.text,
                    "bars": len(market.bars),
                    "first_close_utc": format_ns(market.bars.ts_close[0]),
                    "last_close_utc": format_ns(market.bars.ts_close[-1]),
                }
                for market in self.plan.markets
            ],
        }

    def _update_ns(self) -> int:
        """Time between two looks at the forming candles: 2 s of the wall as at Binance, or ``updates`` in a bar."""
        if not self.updates:
            return 0
        shortest = min(market.timeframe.ns for market in self.plan.markets)
        return max(1, min(shortest // (self.updates + 1), int(2e9 * self.clock.speed)))


EXCHANGE = web.AppKey("exchange", Exchange)
FAULTS: web.RequestKey[tuple[Fault, ...]] = web.RequestKey("faults", tuple)


@dataclass(frozen=True, slots=True)
class Page:
    """Candles to be rendered, and the divisor that turns their nanoseconds into the stamps of the reply."""

    candles: Candles
    stamp_ns: int


def read_page(
    request: web.Request,
    market: Market,
    interval: Interval,
    *,
    start: int | None,
    end: int | None,
    limit: int,
    stamp_ns: int,
) -> Page:
    """Return the candles that a request asks for, as `Market.page` gives them, with the faults of pages worked in."""
    exchange = request.app[EXCHANGE]
    now = exchange.now()
    unfinished = exchange.unfinished
    candles = market.page(interval, now, start=start, end=end, limit=limit, unfinished=unfinished)
    if not len(candles):
        return Page(candles, stamp_ns)
    newest = candles.closed == market.newest_closed(interval, now)
    kinds = PAGE_KINDS if newest.any() else PAGE_KINDS - {"revise", "unfinished"}
    bounds = int(candles.closed[0]), int(candles.closed[-1])
    drawn = exchange.faults.draw(
        "rest", kinds, first=bounds[0], last=bounds[1], path=request.path, symbol=market.symbol
    )
    for fault, source in drawn:
        if fault.kind == "since_ignored":
            candles = market.page(interval, now, end=end, limit=limit, unfinished=unfinished)
        elif fault.kind == "overlap":
            before = market.page(interval, now, end=int(candles.opened[0]) - 1, limit=fault.rows)
            candles = Candles.join([before, candles])
        elif fault.kind in ("revise", "unfinished"):
            row = (candles.closed == market.newest_closed(interval, now)).argmax()
            candles = alter(candles, int(row), fault, market)
        elif fault.kind == "wrong_unit":
            stamp_ns = {1_000_000: 1_000_000_000, 1_000_000_000: 1_000_000}.get(stamp_ns, stamp_ns)
        else:
            candles = spoil_rows(candles, fault, source)
    return Page(candles, stamp_ns)
