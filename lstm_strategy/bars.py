"""Bars: immutable, validated, close-stamped OHLCV arrays of one instrument."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lstm_strategy.errors import LSTMStrategyError

__all__ = ["NS_PER_DAY", "NS_PER_HOUR", "NS_PER_YEAR", "Bar", "Bars", "BarsError", "Timeframe"]
__all__ += ["format_ns", "parse_ns", "utc_day"]

Float = npt.NDArray[np.float64]
Stamps = npt.NDArray[np.int64]

NS_PER_HOUR, NS_PER_DAY = 3_600_000_000_000, 86_400_000_000_000
NS_PER_YEAR = 365 * NS_PER_DAY
_NS_PER_UNIT = {"s": 1_000_000_000, "m": 60_000_000_000, "h": NS_PER_HOUR, "d": NS_PER_DAY}


class BarsError(LSTMStrategyError):
    """Market data that cannot be bars; the message names the first bad row by its stamp."""


def format_ns(ts: int) -> str:
    """Return a UTC stamp in nanoseconds as ISO 8601 text, to the second where that is exact."""
    seconds, ns = divmod(int(ts), 1_000_000_000)
    try:
        text = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    except (OverflowError, ValueError, OSError):
        return f"{ts} ns"
    return f"{text}.{ns:09d}Z" if ns else f"{text}Z"


def parse_ns(text: str) -> int:
    """Return ISO 8601 text (UTC where no zone is named) as a stamp in nanoseconds."""
    try:
        when = datetime.fromisoformat(text)
        when = when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise LSTMStrategyError(f"{text!r} is not a date; write it as 2024-01-31 or 2024-01-31T12:00") from error
    if not 1678 <= when.year <= 2261:
        raise LSTMStrategyError(f"{text!r} does not fit into a stamp in nanoseconds; years run from 1678 to 2261")
    return int(when.replace(microsecond=0).timestamp()) * 1_000_000_000 + when.microsecond * 1_000


def utc_day[T: (int, npt.NDArray[np.int64])](ts_close: T) -> T:
    """Return the day since 1970 that a bar belongs to; the one that closes at 00:00 UTC ends the day before."""
    return (ts_close - 1) // NS_PER_DAY


@dataclass(frozen=True, slots=True)
class Timeframe:
    """The length of a bar, written like ``1m``, ``4h`` or ``1d``."""

    text: str
    ns: int

    @classmethod
    def parse(cls, text: str) -> Timeframe:
        """Read a timeframe; units are s, m, h and d."""
        match = re.fullmatch(r"([1-9]\d{0,3})([smhd])", text)
        if match is None:
            raise LSTMStrategyError(f"timeframe {text!r} is not known; write a number and s, m, h or d, such as 1h")
        return cls(text, int(match[1]) * _NS_PER_UNIT[match[2]])

    @property
    def bars_per_year(self) -> float:
        """Bars in 365 days of round-the-clock trading."""
        return NS_PER_YEAR / self.ns

    def __str__(self) -> str:
        return self.text


class Bar(NamedTuple):
    """One closed bar. ``ts_close`` is in nanoseconds UTC."""

    ts_close: int
    open: float
    high: float
    low: float
    close: float
    volume: float


@dataclass(frozen=True, slots=True, eq=False)
class Bars:
    """Closed bars of one instrument in time order.

    Parameters
    ----------
    instrument_id : str
        Such as ``BTCUSDT.BINANCE``.
    timeframe : Timeframe
        The length of each bar.
    ts_close : int64 [T]
        Close stamps, nanoseconds UTC, strictly increasing, on the timeframe's grid. Holes are allowed.
    open, high, low, close : float64 [T]
        Prices, finite and positive, with low <= open, close <= high.
    volume : float64 [T]
        Finite and not negative.

    Raises
    ------
    BarsError
        Where a row breaks one of these rules.
    """

    instrument_id: str
    timeframe: Timeframe
    ts_close: Stamps
    open: Float
    high: Float
    low: Float
    close: Float
    volume: Float

    def __post_init__(self) -> None:
        object.__setattr__(self, "ts_close", _frozen(self.ts_close, np.int64))
        for name in ("open", "high", "low", "close", "volume"):
            column = _frozen(getattr(self, name), np.float64)
            if column.shape != self.ts_close.shape or column.ndim != 1:
                raise BarsError(
                    f"{self.instrument_id}: {name} has shape {column.shape}, ts_close {self.ts_close.shape}"
                )
            object.__setattr__(self, name, column)
        self._validate()

    def _validate(self) -> None:
        for name in ("open", "high", "low", "close", "volume"):
            column = getattr(self, name)
            self._refuse(~np.isfinite(column), f"{name} is not a finite number", column)
            if name == "volume":
                self._refuse(column < 0, "volume is negative", column)
            else:
                self._refuse(column <= 0, f"{name} is not positive", column)
        self._refuse(self.high < np.maximum(self.open, self.close), "high is below open or close", self.high)
        self._refuse(self.low > np.minimum(self.open, self.close), "low is above open or close", self.low)
        step = np.diff(self.ts_close, prepend=self.ts_close[:1] - 1)
        self._refuse(step == 0, "stamp is a duplicate", self.ts_close)
        self._refuse(step < 0, "stamp is earlier than the one before", self.ts_close)
        self._refuse(
            self.ts_close % self.timeframe.ns != 0, f"stamp is not on the {self.timeframe} grid", self.ts_close
        )

    def _refuse(self, bad: npt.NDArray[np.bool_], problem: str, column: npt.NDArray[np.generic]) -> None:
        if bad.any():
            row = int(bad.argmax())
            raise BarsError(
                f"{self.instrument_id} {self.timeframe}: {problem} at {format_ns(self.ts_close[row])}"
                f" (row {row}, value {column[row]}; {int(bad.sum())} such rows)"
            )

    @classmethod
    def of_one(cls, instrument_id: str, timeframe: Timeframe, bar: Bar) -> Bars:
        """Return one bar, held to the same rules, in a tenth of the time that many take.

        Raises
        ------
        BarsError
            As for many.
        """
        ts_close, open_, high, low, close, volume = bar
        ordered = 0.0 < low <= open_ <= high < math.inf and low <= close <= high and 0.0 <= volume < math.inf
        if not ordered or ts_close % timeframe.ns:
            return cls(instrument_id, timeframe, *(np.array([value]) for value in bar))
        made = object.__new__(cls)
        object.__setattr__(made, "instrument_id", instrument_id)
        object.__setattr__(made, "timeframe", timeframe)
        object.__setattr__(made, "ts_close", _frozen((ts_close,), np.int64))
        for name in ("open", "high", "low", "close", "volume"):
            object.__setattr__(made, name, _frozen((getattr(bar, name),), np.float64))
        return made

    def __len__(self) -> int:
        return len(self.ts_close)

    def __getitem__(self, rows: slice) -> Bars:
        return Bars(
            self.instrument_id,
            self.timeframe,
            self.ts_close[rows],
            self.open[rows],
            self.high[rows],
            self.low[rows],
            self.close[rows],
            self.volume[rows],
        )

    def __iter__(self) -> Iterator[Bar]:
        columns = (self.ts_close, self.open, self.high, self.low, self.close, self.volume)
        return map(Bar._make, zip(*(column.tolist() for column in columns), strict=True))

    def between(self, start: int | None, end: int | None) -> Bars:
        """Return the bars with ``start < ts_close <= end``; None leaves that side open."""
        first = 0 if start is None else int(np.searchsorted(self.ts_close, start, side="right"))
        last = len(self) if end is None else int(np.searchsorted(self.ts_close, end, side="right"))
        return self[first:last]


def _frozen(column: npt.ArrayLike, dtype: type[np.generic]) -> npt.NDArray[np.generic]:
    array = np.array(column, dtype=dtype)
    array.setflags(write=False)
    return array
