"""Whether two histories of one market say the same: bar by bar, or finer bars put together against coarser ones."""

from __future__ import annotations

from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from lstm_strategy.bars import Stamps, Timeframe, format_ns
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.sources.integrity import clean
from lstm_strategy.sources.store import COLUMNS, Columns

__all__ = ["LISTED", "TOLERANCE", "Agreement", "ColumnDifference", "Mismatch", "Side", "aggregate", "compare"]

TOLERANCE = 1e-9  # relative: sums of volumes and adjusted prices differ in their last digits; a tick is far more
LISTED = 20  # stamps of each kind

_SHIFTS = (-2, -1, 1, 2)


class Side(NamedTuple):
    """One history to compare: what to call it, its timeframe, its close-stamped columns."""

    name: str
    timeframe: Timeframe
    columns: Columns


class ColumnDifference(msgspec.Struct, frozen=True):
    """How far one column differs: largest absolute and relative difference, and bars beyond the tolerance.

    ``max_relative`` is a fraction of the larger of the two values; ``at`` is the close stamp where it is met.
    """

    column: str
    max_absolute: float
    max_relative: float
    differing_bars: int
    at: str | None


class Mismatch(msgspec.Struct, frozen=True):
    """One bar that differs beyond the tolerance: its close stamp, the columns, and their two values."""

    ts: str
    columns: tuple[str, ...]
    first: tuple[float, ...]
    second: tuple[float, ...]


class Agreement(msgspec.Struct, frozen=True, kw_only=True):
    """Two histories side by side, within the time that both span.

    ``compared`` bars are in both. Where ``timeframe`` is coarser than that of a side, its bars were put together first
    and ``incomplete`` of them left out, since a finer bar lacks there. ``shifted_bars``: by how many bars the second
    seems late against the first, as happens where open stamps are taken for close stamps; 0 where it does not.
    ``unusable`` rows of either file were left out: duplicates, off the grid, not finite.
    """

    first: str
    second: str
    first_timeframe: str
    second_timeframe: str
    timeframe: str
    start: str | None
    end: str | None
    compared: int
    incomplete: int
    differing_bars: int
    only_in_first: int
    only_in_second: int
    shifted_bars: int
    unusable_in_first: int
    unusable_in_second: int
    tolerance: float
    columns: list[ColumnDifference]
    mismatches: list[Mismatch]
    only_in_first_list: list[str]
    only_in_second_list: list[str]

    @property
    def warnings(self) -> int:
        """How many things a person should look at; no bar in common is one."""
        return self.differing_bars + self.only_in_first + self.only_in_second + (self.compared == 0)


def aggregate(columns: Columns, timeframe: Timeframe, coarser: Timeframe) -> tuple[Columns, Stamps]:
    """Put bars together into coarser ones on the grid of UTC.

    Parameters
    ----------
    columns : dict
        Rows as `integrity.clean` leaves them.

    Returns
    -------
    columns, incomplete
        The coarser bars of which no finer bar lacks: open of the first, highest high, lowest low, close of the last,
        sum of volumes; and close stamps of those that lack one, within the span of the finer ones.

    Raises
    ------
    LSTMStrategyError
        Where ``coarser`` is not a multiple.
    """
    if coarser.ns % timeframe.ns:
        raise LSTMStrategyError(f"bars of {timeframe} do not make up bars of {coarser}; compare a multiple")
    if coarser.ns == timeframe.ns or not len(columns["ts_close"]):
        return columns, np.empty(0, np.int64)
    ts = columns["ts_close"]
    number = -(-ts // coarser.ns)
    firsts = np.flatnonzero(np.diff(number, prepend=number[0] - 1))
    lasts = np.append(firsts[1:], len(ts)) - 1
    complete = lasts - firsts + 1 == coarser.ns // timeframe.ns
    together: Columns = {
        "ts_close": number[firsts] * coarser.ns,
        "open": columns["open"][firsts],
        "high": np.maximum.reduceat(columns["high"], firsts),
        "low": np.minimum.reduceat(columns["low"], firsts),
        "close": columns["close"][lasts],
        "volume": np.add.reduceat(columns["volume"], firsts),
    }
    whole: Columns = {name: column[complete] for name, column in together.items()}
    spanned = np.arange(number[0], number[-1] + 1) * coarser.ns
    return whole, np.setdiff1d(spanned, whole["ts_close"], assume_unique=True)


def compare(first: Side, second: Side, *, tolerance: float = TOLERANCE) -> Agreement:
    """Compare two histories; bars of the finer timeframe are put together first, see `aggregate`.

    Parameters
    ----------
    first, second : Side
        Their columns may hold anything; what `integrity.clean` drops is counted as unusable.
    tolerance : float
        What does not count as a difference, as a fraction of the larger value.
    """
    coarser = max(first.timeframe, second.timeframe, key=lambda timeframe: timeframe.ns)
    usable = [clean(side.columns, side.timeframe) for side in (first, second)]
    unusable = [
        len(side.columns["ts_close"]) - len(rows["ts_close"])
        for side, rows in zip((first, second), usable, strict=True)
    ]
    one, lacking_one = aggregate(usable[0], first.timeframe, coarser)
    two, lacking_two = aggregate(usable[1], second.timeframe, coarser)
    lacking = np.union1d(lacking_one, lacking_two)
    span = _overlap(one["ts_close"], two["ts_close"])
    lacking = lacking[(lacking >= span[0]) & (lacking <= span[1])]
    one, two = _within(one, span, lacking), _within(two, span, lacking)
    common, rows_one, rows_two = np.intersect1d(
        one["ts_close"], two["ts_close"], assume_unique=True, return_indices=True
    )
    differs = np.zeros((len(COLUMNS) - 1, len(common)), dtype=bool)
    found = []
    for row, name in enumerate(COLUMNS[1:]):
        a, b = one[name][rows_one], two[name][rows_two]
        distance = np.abs(a - b)
        relative = distance / np.maximum(np.maximum(np.abs(a), np.abs(b)), np.finfo(np.float64).tiny)
        differs[row] = relative > tolerance
        at = format_ns(common[int(relative.argmax())]) if len(common) and relative.max() > 0 else None
        largest = float(distance.max(initial=0.0)), float(relative.max(initial=0.0))
        found.append(ColumnDifference(name, *largest, int(differs[row].sum()), at))
    alone_one = np.setdiff1d(one["ts_close"], common, assume_unique=True)
    alone_two = np.setdiff1d(two["ts_close"], common, assume_unique=True)
    odd = np.flatnonzero(differs.any(axis=0))
    return Agreement(
        first=first.name,
        second=second.name,
        first_timeframe=first.timeframe.text,
        second_timeframe=second.timeframe.text,
        timeframe=coarser.text,
        start=format_ns(span[0]) if span[0] <= span[1] else None,
        end=format_ns(span[1]) if span[0] <= span[1] else None,
        compared=len(common),
        incomplete=len(lacking),
        differing_bars=len(odd),
        only_in_first=len(alone_one),
        only_in_second=len(alone_two),
        shifted_bars=_shift(one, two, coarser) if len(odd) else 0,
        unusable_in_first=unusable[0],
        unusable_in_second=unusable[1],
        tolerance=tolerance,
        columns=found,
        mismatches=[_mismatch(one, two, int(rows_one[i]), int(rows_two[i]), differs[:, i]) for i in odd[:LISTED]],
        only_in_first_list=[format_ns(ts) for ts in alone_one[:LISTED]],
        only_in_second_list=[format_ns(ts) for ts in alone_two[:LISTED]],
    )


def _overlap(one: Stamps, two: Stamps) -> tuple[int, int]:
    """Return the first and the last close stamp that both span; the first is the later where there is none."""
    if not len(one) or not len(two):
        return 1, 0
    return int(max(one[0], two[0])), int(min(one[-1], two[-1]))


def _within(columns: Columns, span: tuple[int, int], left_out: Stamps) -> Columns:
    ts = columns["ts_close"]
    kept = (ts >= span[0]) & (ts <= span[1]) & ~np.isin(ts, left_out)
    return {name: column[kept] for name, column in columns.items()}


def _mismatch(one: Columns, two: Columns, a: int, b: int, differs: npt.NDArray[np.bool_]) -> Mismatch:
    names = tuple(name for name, odd in zip(COLUMNS[1:], differs, strict=True) if odd)
    values = ((float(one[name][a]), float(two[name][b])) for name in names)
    first, second = zip(*values, strict=True)
    return Mismatch(format_ns(one["ts_close"][a]), names, first, second)


def _shift(one: Columns, two: Columns, timeframe: Timeframe) -> int:
    """Return by how many bars the second is late, if most closes agree so and few do as they stand."""
    shares = {}
    for bars in (0, *_SHIFTS):
        _, a, b = np.intersect1d(
            one["ts_close"] + bars * timeframe.ns, two["ts_close"], assume_unique=True, return_indices=True
        )
        shares[bars] = float((one["close"][a] == two["close"][b]).mean()) if len(a) else 0.0
    best = max(_SHIFTS, key=lambda bars: shares[bars])
    return best if shares[best] > 0.9 and shares[0] < 0.5 else 0
