"""Bars as the engine delivers them: stamps put on the timeframe's grid, history and early live bars merged."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from lstm_strategy.bars import Bar, Bars, Timeframe
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.nautilus.engine import BarType, EngineBar

__all__ = ["History", "on_grid", "timeframe_of", "to_bar", "to_bars"]


def on_grid(ts: int, timeframe: Timeframe) -> int | None:
    """Return the grid stamp nearest to ``ts``, or None where it is further than 1 % of a bar.

    Venues stamp a close up to a millisecond early (… 59.999) and with rounding errors.
    """
    nearest = (ts + timeframe.ns // 2) // timeframe.ns * timeframe.ns
    return nearest if abs(ts - nearest) <= timeframe.ns // 100 else None


def to_bar(bar: EngineBar, ts_close: int) -> Bar:
    """Return our bar with the doubles nearest to the decimal prices.

    The engine's own conversion rounds twice and is off by one unit in the last place for a quarter of all prices:
    enough for live features to differ from those of the raw history.
    """
    price_unit, size_unit = 10.0**bar.close.precision, 10.0**bar.volume.precision
    return Bar(
        ts_close,
        round(bar.open.as_double() * price_unit) / price_unit,
        round(bar.high.as_double() * price_unit) / price_unit,
        round(bar.low.as_double() * price_unit) / price_unit,
        round(bar.close.as_double() * price_unit) / price_unit,
        round(bar.volume.as_double() * size_unit) / size_unit,
    )


def to_bars(instrument_id: str, timeframe: Timeframe, bars: Iterable[Bar]) -> Bars:
    """Return the bars as arrays, validated."""
    columns = np.array(list(bars), dtype=object).reshape(-1, 6).T
    return Bars(instrument_id, timeframe, columns[0].astype(np.int64), *(c.astype(np.float64) for c in columns[1:]))


class History:
    """What arrives before the warm-up is complete: late, repeated, out of order. The last word on a stamp counts."""

    def __init__(self) -> None:
        self._past: dict[int, Bar] = {}
        self._live: dict[int, Bar] = {}

    def add_past(self, bar: Bar) -> None:
        """Keep a bar of the requested history."""
        self._past[bar.ts_close] = bar

    def add_live(self, bar: Bar) -> None:
        """Keep a live bar that came before the history did."""
        self._live[bar.ts_close] = bar

    @property
    def live_bars(self) -> int:
        """How many live bars are waiting."""
        return len(self._live)

    def merged(self, after: int | None) -> tuple[list[Bar], list[Bar]]:
        """Return history and, separately, the live bars later than it; sorted, unique, later than ``after``."""
        edge = -1 if after is None else after
        past = [self._past[ts] for ts in sorted(self._past) if ts > edge]
        edge = past[-1].ts_close if past else edge
        return past, [self._live[ts] for ts in sorted(self._live) if ts > edge]


def timeframe_of(bar_type: BarType) -> Timeframe:
    """Return the timeframe of a bar type; refuse ticks, volumes and the like."""
    units = {"SECOND": "s", "MINUTE": "m", "HOUR": "h", "DAY": "d"}
    text = str(bar_type).removeprefix(f"{bar_type.instrument_id}-").split("-")
    if text[1] not in units:
        raise LSTMStrategyError(f"bar_type {bar_type} is not made of seconds, minutes, hours or days")
    return Timeframe.parse(text[0] + units[text[1]])
