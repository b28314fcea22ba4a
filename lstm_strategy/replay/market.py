"""Market: the recorded bars of one instrument as a venue would show them at any moment, the forming candle included."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from lstm_strategy.bars import Bars, Float, Stamps, Timeframe
from lstm_strategy.instrument import Instrument, split_id
from lstm_strategy.replay.intervals import Interval, interval_of
from lstm_strategy.sources.instruments import step_decimals

__all__ = ["Candles", "Funding", "Market"]

_PERPETUAL = ("-PERP", "_PERP", "-SWAP", "_SWAP")


@dataclass(frozen=True, slots=True, eq=False)
class Candles:
    """Columns [T] of candles, not validated: ``opened`` and ``closed`` int64 ns UTC, prices and volume float64."""

    opened: Stamps
    closed: Stamps
    open: Float
    high: Float
    low: Float
    close: Float
    volume: Float

    def __len__(self) -> int:
        return len(self.opened)

    def take(self, rows: slice | npt.NDArray[np.integer[Any]]) -> Candles:
        """Return some rows, in the order given."""
        return Candles(*(getattr(self, column.name)[rows] for column in fields(self)))

    @staticmethod
    def join(parts: Sequence[Candles]) -> Candles:
        """Return the rows of all parts, one after the other."""
        return Candles(*(np.concatenate([getattr(part, c.name) for part in parts]) for c in fields(Candles)))


@dataclass(frozen=True, slots=True, eq=False)
class Funding:
    """Funding rates [T] of a perpetual: ``ts`` int64 ns UTC, increasing, and ``rate`` as fractions."""

    ts: Stamps
    rate: Float


@dataclass(slots=True, eq=False)
class Market:
    """One instrument's recording.

    Candles of any interval that whole bars fill are made from the recorded ones; an interval without any bar has no
    candle, as on a venue that did not trade. The forming candle follows a path that the seed and the bar's stamp fix:
    in straight lines from the open to the high and the low, in either order, and to the close; volume grows evenly.

    Parameters
    ----------
    bars : Bars
        Not empty.
    instrument : Instrument
        Steps and minimums; a ``perpetual`` is served by the futures protocol, all else by the spot ones.
    funding : Funding, optional
        For a perpetual.
    seed : int
        Of the forming candles.
    """

    bars: Bars
    instrument: Instrument
    funding: Funding | None = None
    seed: int = 1
    base: Candles = field(init=False)
    _made: dict[str, Candles] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        bars = self.bars
        self.base = Candles(
            bars.ts_close - bars.timeframe.ns, bars.ts_close, bars.open, bars.high, bars.low, bars.close, bars.volume
        )

    @property
    def timeframe(self) -> Timeframe:
        """Length of the recorded bars."""
        return self.bars.timeframe

    @property
    def interval(self) -> Interval:
        """Interval of the recorded bars."""
        return interval_of(self.timeframe)

    @property
    def perpetual(self) -> bool:
        """Whether this is a perpetual swap."""
        return self.instrument.kind == "perpetual"

    @property
    def symbol(self) -> str:
        """The symbol as Binance writes it: letters and digits alone, without the ending of a perpetual."""
        symbol = split_id(self.instrument.id)[0].upper()
        for ending in _PERPETUAL:
            symbol = symbol.removesuffix(ending)
        return symbol.replace("-", "").replace("_", "")

    @property
    def product(self) -> str:
        """The symbol as Coinbase writes it, such as BTC-USD."""
        return f"{self.instrument.base}-{self.instrument.quote}"

    def moved(self, shift_ns: int, seed: int) -> Market:
        """Return this market with all stamps later by ``shift_ns``, and another seed."""
        bars = replace(self.bars, ts_close=self.bars.ts_close + shift_ns)
        funding = self.funding and Funding(self.funding.ts + shift_ns, self.funding.rate)
        return Market(bars, self.instrument, funding, seed)

    def offers(self, interval: Interval) -> bool:
        """Say whether candles of this interval can be made of the recorded bars."""
        return interval.made_from(self.timeframe)

    def candles(self, interval: Interval) -> Candles:
        """Return all candles of an interval, those to come included; made once, then kept."""
        if interval.ns == self.timeframe.ns and interval.anchor == 0:
            return self.base
        if interval.text not in self._made:
            self._made[interval.text] = _aggregate(self.base, interval)
        return self._made[interval.text]

    def forming(self, interval: Interval, now: int) -> Candles:
        """Return the candle that is open at ``now`` (ns UTC), as it stands; no row where nothing has traded."""
        opened = int(interval.floor(np.array([now], dtype=np.int64))[0])
        first, last = np.searchsorted(self.base.opened, [opened, now]).tolist()  # opened before now, in this candle
        if first == last or opened == now:
            return self.base.take(slice(0, 0))
        parts = [self.base.take(slice(first, last))]
        if self.base.closed[last - 1] > now:
            elapsed = (now - int(self.base.opened[last - 1])) / self.timeframe.ns
            parts = [
                self.base.take(slice(first, last - 1)),
                self.partial(self.base.take(slice(last - 1, last)), elapsed),
            ]
        return _aggregate(Candles.join(parts), interval)

    def path(self, bar: Candles) -> tuple[list[float], list[float]]:
        """Return moments of a recorded bar, as fractions of its time, and the prices between which it goes straight."""
        source = random.Random(f"{self.seed} {int(bar.closed[0])}")
        turns = sorted((source.uniform(0.1, 0.9), source.uniform(0.1, 0.9)))
        extremes = [float(bar.high[0]), float(bar.low[0])]
        if source.random() < 0.5:
            extremes.reverse()
        return [0.0, *turns, 1.0], [float(bar.open[0]), *extremes, float(bar.close[0])]

    def partial(self, bar: Candles, elapsed: float) -> Candles:
        """Return one bar as it stood when the fraction ``elapsed`` (0 to 1) of its time had passed."""
        when, path = self.path(bar)
        price = round(float(np.interp(elapsed, when, path)), step_decimals(self.instrument.tick))
        price = min(max(price, float(bar.low[0])), float(bar.high[0]))
        passed = [value for moment, value in zip(when, path, strict=True) if moment <= elapsed] + [price]
        volume = round(float(bar.volume[0]) * elapsed, step_decimals(self.instrument.lot))
        return replace(
            bar,
            high=np.array([max(passed)]),
            low=np.array([min(passed)]),
            close=np.array([price]),
            volume=np.array([volume]),
        )

    def page(
        self,
        interval: Interval,
        now: int,
        *,
        start: int | None = None,
        end: int | None = None,
        limit: int,
        unfinished: bool = True,
    ) -> Candles:
        """Return at most ``limit`` candles that are known at ``now``, oldest first, the unfinished one if wanted.

        ``start`` and ``end`` bound the opens, both inclusive (ns UTC). With ``start`` the oldest of them are returned,
        without it the newest.
        """
        made = self.candles(interval)
        known = int(np.searchsorted(made.closed, now, side="right"))
        first = 0 if start is None else int(np.searchsorted(made.opened[:known], start))
        last = known if end is None else int(np.searchsorted(made.opened[:known], end, side="right"))
        forming = self.forming(interval, now) if unfinished and last == known else made.take(slice(0, 0))
        if len(forming) and not (start or -1) <= forming.opened[0] <= (now if end is None else end):
            forming = made.take(slice(0, 0))
        if start is None:
            first = max(first, last - limit + len(forming))
        else:
            last = min(last, first + limit)
            forming = forming.take(slice(0, limit - (last - first)))
        rows = made.take(slice(first, max(first, last)))
        return Candles.join([rows, forming]) if len(forming) else rows

    def newest_closed(self, interval: Interval, now: int) -> int:
        """Return the close (ns UTC) of the last candle closed at ``now``; -1 where there is none."""
        made = self.candles(interval)
        known = int(np.searchsorted(made.closed, now, side="right"))
        return int(made.closed[known - 1]) if known else -1


def _aggregate(base: Candles, interval: Interval) -> Candles:
    opened = interval.floor(base.opened)
    firsts = np.flatnonzero(np.diff(opened, prepend=opened[:1] - 1))
    lasts = np.append(firsts[1:], len(opened)) - 1
    return Candles(
        opened[firsts],
        interval.end(opened[firsts]),
        base.open[firsts],
        np.maximum.reduceat(base.high, firsts),
        np.minimum.reduceat(base.low, firsts),
        base.close[lasts],
        np.add.reduceat(base.volume, firsts),
    )
