"""One reply as arrays: sorted, closed bars or funding rates; whatever a market cannot have said is refused by field."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lstm_strategy.bars import Float, Stamps, format_ns
from lstm_strategy.errors import LSTMStrategyError

__all__ = ["BadPageError", "Page", "page_of", "rates_of"]

_MS = 1_000_000
_FIRST_MS, _LAST_MS = 100_000_000_000.0, 10_000_000_000_000.0  # 1973 and 2286; seconds and microseconds lie outside
_SLACK_NS = 60_000_000_000
_MOST = {"open": 1e12, "high": 1e12, "low": 1e12, "close": 1e12, "volume": 1e18}
_MOST_RATE = 1.0
_FIELDS = ("open", "high", "low", "close", "volume")


class BadPageError(LSTMStrategyError):
    """A reply that cannot be true, with the field and the bar."""


@dataclass(frozen=True, slots=True)
class Page:
    """Bars of one reply by opening time, each once.

    Attributes
    ----------
    opens : int64 [T]
        Opening times of closed bars, ns UTC, increasing.
    values : float64 [T, 5]
        Open, high, low, close, volume.
    unfinished : int
        Rows left out because their bar still forms.
    """

    opens: Stamps
    values: Float
    unfinished: int = 0

    def __len__(self) -> int:
        return len(self.opens)

    def rows(self, chosen: slice | npt.NDArray[np.bool_]) -> Page:
        """Return some of them."""
        return Page(self.opens[chosen], self.values[chosen])


def page_of(rows: Any, step_ns: int, now_ns: int, *, on_grid: bool = True) -> Page:
    """Return the closed bars among CCXT's rows of open stamp (ms), open, high, low, close, volume.

    Raises
    ------
    BadPageError
        For rows that are none, stamps in another unit, off the grid or in the future, and values that no bar has.
    """
    if not isinstance(rows, list):
        raise BadPageError(f"the reply holds a {type(rows).__name__} in place of bars")
    if not rows:
        return Page(np.empty(0, np.int64), np.empty((0, 5)))
    try:
        table = np.array([row[:6] for row in rows], dtype=np.float64)
    except (ValueError, TypeError, OverflowError) as error:
        raise BadPageError("the reply holds rows that are not six numbers") from error
    if table.ndim != 2 or table.shape[1] != 6:
        raise BadPageError("the reply holds rows that are not six numbers")
    stamps = table[:, 0]
    _refuse(~np.isfinite(stamps), "stamp is missing", stamps, None)
    _refuse((stamps > 0) & (stamps < _FIRST_MS), "stamp is not in milliseconds but, it seems, in seconds", stamps, None)
    _refuse(~((stamps >= _FIRST_MS) & (stamps < _LAST_MS)), "stamp is no time in milliseconds", stamps, None)
    opens = stamps.astype(np.int64) * _MS
    ahead = max(now_ns, time.time_ns()) + step_ns + _SLACK_NS
    _refuse(opens > ahead, "stamp lies in the future", opens, opens)
    closed = opens + step_ns <= now_ns
    unfinished = int((~closed).sum())
    if unfinished:
        table, opens = table[closed], opens[closed]
    order = np.argsort(opens, kind="stable")
    last = np.append(np.diff(opens[order]) > 0, True) if len(order) else np.empty(0, bool)
    twice = np.flatnonzero(~last)
    differ = (table[order[twice], 1:] != table[order[twice + 1], 1:]).any(axis=1) & on_grid
    _refuse(differ, "stamp comes twice with other values", opens[order[twice]], opens[order[twice]])
    opens, values = opens[order[last]], table[order[last], 1:]
    for column, name in enumerate(_FIELDS):
        value = values[:, column]
        _refuse(~np.isfinite(value), f"{name} is not a number", value, opens)
        _refuse(value > _MOST[name], f"{name} is beyond belief", value, opens)
        _refuse(value < 0 if name == "volume" else value <= 0, f"{name} is not positive", value, opens)
    high, low, top, bottom = values[:, 1], values[:, 2], values[:, [0, 3]].max(1), values[:, [0, 3]].min(1)
    _refuse(high < top, "high is below open or close", high, opens)
    _refuse(low > bottom, "low is above open or close", low, opens)
    _refuse((opens % step_ns != 0) & on_grid, "stamp is not on the grid of UTC", opens, opens)
    return Page(opens, values, unfinished)


def rates_of(rows: Any, now_ns: int) -> tuple[Stamps, Float]:
    """Return stamps (ns) and rates of CCXT's funding structures, each stamp once, sorted."""
    if not isinstance(rows, list) or not all(isinstance(row, Mapping) for row in rows):
        raise BadPageError("the reply holds no list of funding rates")
    try:
        stamps = np.array([row.get("timestamp") for row in rows], dtype=np.float64)
        rates = np.array([row.get("fundingRate") for row in rows], dtype=np.float64)
    except (ValueError, TypeError) as error:
        raise BadPageError("the reply holds funding rates that are not numbers") from error
    _refuse(~((stamps >= _FIRST_MS) & (stamps < _LAST_MS)), "stamp is no time in milliseconds", stamps, None)
    ts = stamps.astype(np.int64) * _MS
    _refuse(ts > max(now_ns, time.time_ns()) + _SLACK_NS, "stamp lies in the future", ts, ts)
    _refuse(~(np.abs(rates) <= _MOST_RATE), "funding rate is no fraction", rates, ts)
    unique, last = np.unique(ts[::-1], return_index=True)
    keep = unique <= now_ns
    return unique[keep], rates[::-1][last][keep]


def _refuse(bad: npt.NDArray[np.bool_], problem: str, values: npt.NDArray[Any], stamps: Stamps | None) -> None:
    if bad.any():
        row = int(bad.argmax())
        where = f" at {format_ns(int(stamps[row]))}" if stamps is not None else ""
        raise BadPageError(f"{problem}{where}: {values[row]} ({int(bad.sum())} of {len(bad)} rows)")
