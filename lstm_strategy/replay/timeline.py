"""Timeline: several markets under one virtual clock that runs, races, or moves by hand from close to close."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lstm_strategy.bars import NS_PER_DAY, Stamps, format_ns, parse_ns
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.replay.market import Market

__all__ = ["Clock", "Plan", "plan"]

_JUST_AFTER = 1_000_000  # ns


class Clock:
    """The venue's time in nanoseconds UTC: from ``origin`` on, ``speed`` times as fast as the wall's, or by hand.

    Parameters
    ----------
    origin : int
        Where it begins, ns UTC.
    speed : float
        1 is real time; 3,600 is an hour a second.
    by_hand : bool
        Stand still until `set`.
    """

    def __init__(self, origin: int, speed: float, *, by_hand: bool) -> None:
        self.speed = speed
        self.by_hand = by_hand
        self._origin = origin
        self._started = time.monotonic_ns()

    def now(self) -> int:
        """Return the venue's time, ns UTC."""
        if self.by_hand:
            return self._origin
        return self._origin + int((time.monotonic_ns() - self._started) * self.speed)

    def seconds_until(self, ts: int) -> float:
        """Return the wall's seconds until the venue's time is ``ts``; 0 where that has passed."""
        return max(0.0, (ts - self.now()) / self.speed / 1e9)

    def set(self, ts: int) -> None:
        """Move a clock that is moved by hand; it never goes back."""
        self._origin = max(self._origin, ts)


@dataclass(frozen=True, slots=True)
class Plan:
    """Markets as they are served, the distinct closes of all their bars (int64 [T] ns UTC), and the beginning."""

    markets: tuple[Market, ...]
    closes: Stamps
    origin: int
    shift_days: int

    def closed(self, now: int) -> int:
        """Return how many of the closes have passed at ``now``."""
        return int(np.searchsorted(self.closes, now, side="right"))

    def next_close(self, after: int) -> int | None:
        """Return the first close of a recorded bar later than ``after``, ns UTC."""
        row = self.closed(after)
        return int(self.closes[row]) if row < len(self.closes) else None

    def find(self, symbol: str, *, perpetual: bool) -> Market | None:
        """Return the market of a symbol such as BTCUSDT."""
        return next((m for m in self.markets if m.symbol == symbol and m.perpetual == perpetual), None)


def plan(markets: Sequence[Market], *, start: str | None, shift: bool, by_hand: bool, seed: int) -> Plan:
    """Lay the markets on the clock.

    Parameters
    ----------
    start : str, optional
        Where history ends and the stream begins: a date, or a number of bars of history. None: after the last bar.
    shift : bool
        Move all stamps by whole days so that the stream begins at the wall's time. Since whole days are seldom exact,
        it begins up to a day (or one bar, where that is longer) before ``start``, never after.
    by_hand : bool
        With ``shift``: begin at the last close before the wall's time instead.

    Raises
    ------
    LSTMStrategyError
        Where there is no market, two have one symbol, or ``start`` is not a place in the recording.
    """
    if not markets:
        raise LSTMStrategyError("replay: no market to serve; name a file, a catalog or a simulation")
    for row, market in enumerate(markets):
        if not len(market.bars):
            raise LSTMStrategyError(f"replay: {market.instrument.id} has no bars")
        twin = [
            other for other in markets[:row] if (other.symbol, other.perpetual) == (market.symbol, market.perpetual)
        ]
        if twin:
            raise LSTMStrategyError(
                f"replay: {twin[0].instrument.id} and {market.instrument.id} would both be {market.symbol};"
                " leave one out"
            )
    closes = np.unique(np.concatenate([market.base.closed for market in markets]))
    origin = _origin(closes, start)
    shift_ns = 0
    if shift:
        whole = int(np.lcm.reduce([NS_PER_DAY, *(market.timeframe.ns for market in markets)], dtype=np.int64))
        now = time.time_ns()
        shift_ns = -((origin - now) // whole) * whole
        closes = closes + shift_ns
        origin = now
        if by_hand and closes[0] <= now:
            origin = int(closes[np.searchsorted(closes, now, side="right") - 1])
    placed = tuple(market.moved(shift_ns, seed) for market in markets)
    return Plan(placed, closes, origin, shift_ns // NS_PER_DAY)


def _origin(closes: Stamps, start: str | None) -> int:
    first, last = int(closes[0]), int(closes[-1])
    if start is None:
        return last + _JUST_AFTER
    if start.isdecimal() and len(start) <= 8 and not (len(start) == 8 and start[:2] in ("19", "20")):
        count = int(start)
        if not 0 <= count <= len(closes):
            raise LSTMStrategyError(f"replay: start is {count:,} bars, but there are {len(closes):,}")
        return int(closes[count - 1]) if count else first - 1
    ts = parse_ns(start)
    if not first <= ts <= last:
        raise LSTMStrategyError(
            f"replay: start {start} is outside the recording, {format_ns(first)} to {format_ns(last)}"
        )
    return ts
