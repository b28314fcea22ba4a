"""Intervals: the candle lengths that venues name, and the grid of time that each stands on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lstm_strategy.bars import NS_PER_DAY, Stamps, Timeframe

__all__ = ["BINANCE_INTERVALS", "Interval", "interval_of"]

_MONDAY = 4 * NS_PER_DAY  # 1970-01-05, from which weeks are counted


@dataclass(frozen=True, slots=True)
class Interval:
    """A candle length: ``ns`` nanoseconds, 0 for the calendar month, counted from ``anchor``, ns UTC."""

    text: str
    ns: int
    anchor: int = 0

    def floor(self, ts: Stamps) -> Stamps:
        """Return the open of the candle [T] that each stamp, nanoseconds UTC, falls into."""
        if self.ns:
            return np.asarray(ts - (ts - self.anchor) % self.ns, dtype=np.int64)
        return ts.astype("datetime64[ns]").astype("datetime64[M]").astype("datetime64[ns]").astype(np.int64)

    def end(self, opened: Stamps) -> Stamps:
        """Return the close [T] of the candles that open at ``opened``, nanoseconds UTC."""
        if self.ns:
            return np.asarray(opened + self.ns, dtype=np.int64)
        following = opened.astype("datetime64[ns]").astype("datetime64[M]") + np.timedelta64(1, "M")
        return following.astype("datetime64[ns]").astype(np.int64)

    def made_from(self, timeframe: Timeframe) -> bool:
        """Say whether whole bars of ``timeframe`` fill these candles."""
        return (self.ns or NS_PER_DAY) % timeframe.ns == 0 and self.anchor % timeframe.ns == 0


def interval_of(timeframe: Timeframe) -> Interval:
    """Return the grid of a timeframe; seven days begin on a Monday only as ``1w``."""
    return Interval(timeframe.text, timeframe.ns)


BINANCE_INTERVALS = {
    text: Interval(text, Timeframe.parse(text).ns)
    for text in ("1s", "1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "6h", "8h", "12h", "1d", "3d")
} | {"1w": Interval("1w", 7 * NS_PER_DAY, _MONDAY), "1M": Interval("1M", 0)}
