"""Find the first bar at which two runs part, name what parts first in the order of causation, and say why it may."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from lstm_strategy.bars import format_ns
from lstm_strategy.decision_log import Header
from lstm_strategy.decision_log_reader import Log
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.report.explain_pair import OF_ORDER_ONE, STAGES, Pair
from lstm_strategy.report.explain_why import group_hints, lag_hint, likely_causes, other_settings

__all__ = ["STAGES", "Cell", "Difference", "compare"]


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """One value that differs at the bar, in run A and in run B; ``by`` is B − A where they are numbers."""

    stage: str
    name: str
    a: float | str | None
    b: float | str | None
    by: float | None = None


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """Where two runs part; ``stage`` and ``ts_close`` are None where they do not.

    Parameters
    ----------
    stage : str
        The first of `STAGES` that differs at the bar, or ``missing`` where one run lacks the bar.
    cells : tuple of Cell
        All that differs at the bar, by stage; of features and of quantiles the largest first.
    bars : dict of int
        Bars compared at which each stage differs; ``missing`` counts those that one run lacks.
    why : tuple of str
        What likely lies behind it, the likeliest first.
    settings : tuple of str
        Settings that differ at the bar, whether or not they matter.
    """

    compared: int
    first: str
    last: str
    stage: str | None = None
    ts_close: str | None = None
    cells: tuple[Cell, ...] = ()
    bars: dict[str, int] = {}
    why: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def compare(a: Log, b: Log, *, tolerance: float = 0.0, stages: tuple[str, ...] = tuple(STAGES)) -> Difference:
    """Compare two runs over the span that both cover.

    Parameters
    ----------
    tolerance : float
        Largest difference of two numbers that is none: relative, and absolute below 1 for features, raw quantiles and
        exposures. 0 asks for equality to the last bit.
    stages : tuple of str
        Of `STAGES`; the others are not looked at.

    Raises
    ------
    LSTMStrategyError
        Where the runs are of different markets or times, for an unknown stage or a tolerance below 0.
    """
    unknown = [name for name in stages if name not in STAGES]
    if unknown:
        raise LSTMStrategyError(f"stage {unknown[0]!r} is not known; there are {', '.join(STAGES)}")
    if not 0.0 <= tolerance < np.inf:
        raise LSTMStrategyError(f"the tolerance is {tolerance}; it must be 0 or above")
    of_a, of_b = ((log.header.instrument, log.header.timeframe) for log in (a, b))
    if of_a != of_b:
        raise LSTMStrategyError(f"{a.path} is of {' '.join(of_a)}, {b.path} of {' '.join(of_b)}: nothing to compare")
    low, high = max(a.ts_close[0], b.ts_close[0]), min(a.ts_close[-1], b.ts_close[-1])
    if low > high:
        spans = (f"{format_ns(int(log.ts_close[0]))} to {format_ns(int(log.ts_close[-1]))}" for log in (a, b))
        raise LSTMStrategyError(f"the runs share no bar: A covers {next(spans)}, B {next(spans)}")
    ts_a, ts_b = (log.ts_close[(log.ts_close >= low) & (log.ts_close <= high)] for log in (a, b))
    ts, in_a, in_b = np.intersect1d(ts_a, ts_b, assume_unique=True, return_indices=True)
    offsets = [int(np.searchsorted(log.ts_close, low)) for log in (a, b)]
    pair = Pair(a, b, ts, in_a + offsets[0], in_b + offsets[1], tolerance)
    missing = np.setxor1d(ts_a, ts_b, assume_unique=True)

    bars = {"missing": len(missing)} if len(missing) else {}
    first = int(missing[0]) if len(missing) else 2**63 - 1
    row, skipped = len(ts), _unknown(pair)
    for stage in stages:
        parts = np.zeros(len(ts), bool)
        for name in STAGES[stage]:
            if name not in skipped:
                parts |= pair.differ(name, *pair.values(name)).any(axis=1)
        if parts.any():
            bars[stage] = int(parts.sum())
            row = min(row, int(parts.argmax()))
    told = Difference(
        compared=len(ts),
        first=format_ns(int(low)),
        last=format_ns(int(high)),
        bars=bars,
        settings=tuple(other_settings(a.header, b.header)),
        notes=_notes(pair, skipped),
    )
    if row < len(ts) and ts[row] < first:
        return _at(pair, row, stages, skipped, told)
    if not len(missing):
        return told
    lacking = "B" if first in ts_a else "A"
    why = f"run {lacking} has no decision at this bar: it was missing or late there, or the run was not up"
    return msgspec.structs.replace(told, stage="missing", ts_close=format_ns(first), why=(why,))


def _unknown(pair: Pair) -> tuple[str, ...]:
    """Recorded forecasts come without features and raw quantiles; that is no difference."""
    return () if pair.a.header.features and pair.b.header.features else ("features", "raw")


def _notes(pair: Pair, skipped: tuple[str, ...]) -> tuple[str, ...]:
    notes = []
    if skipped and (pair.a.header.features or pair.b.header.features):
        which = "B" if pair.a.header.features else "A"
        notes.append(f"run {which} has no features (recorded forecasts); features and raw quantiles are not compared")
    for which, log in (("A", pair.a), ("B", pair.b)):
        before = int((log.ts_close < pair.ts[0]).sum()) if len(pair.ts) else 0
        after = int((log.ts_close > pair.ts[-1]).sum()) if len(pair.ts) else 0
        if before or after:
            notes.append(f"run {which} has {before} bars before and {after} after the span that is compared")
    return tuple(notes)


def _at(pair: Pair, row: int, stages: tuple[str, ...], skipped: tuple[str, ...], told: Difference) -> Difference:
    """Gather all that differs at one bar."""
    header_a, header_b = (log.header_at(int(rows[row])) for log, rows in ((pair.a, pair.rows_a), (pair.b, pair.rows_b)))
    cells: list[Cell] = []
    hints: list[str] = []
    for stage in stages:
        for name in STAGES[stage]:
            found: list[tuple[float, Cell]] = []
            if name in skipped:
                continue
            a, b = pair.values(name)
            for column in np.flatnonzero(pair.differ(name, a[row], b[row])).tolist():
                cell = _cell(stage, _named(name, column, header_a), a[row, column], b[row, column])
                found.append((_weight(name, cell), cell))
                if stage == "features" and (hint := lag_hint(a[:, column], b[:, column], row)):
                    hints.append(f"{cell.name} {hint}")
            cells += [cell for _, cell in sorted(found, key=lambda item: -item[0])]
    settings = other_settings(header_a, header_b)
    why = likely_causes(pair, row, cells[0].stage, [cell.name for cell in cells], (header_a, header_b), settings)
    return msgspec.structs.replace(
        told,
        stage=cells[0].stage,
        ts_close=format_ns(int(pair.ts[row])),
        cells=tuple(cells),
        why=tuple(group_hints(hints) + why),
        settings=tuple(settings),
    )


def _named(name: str, column: int, header: Header) -> str:
    if name == "features":
        return header.features[column] if column < len(header.features) else f"feature {column}"
    if name in ("raw", "quantiles") and header.levels:
        horizon, level = divmod(column, len(header.levels))
        kind = "raw quantile" if name == "raw" else "quantile"
        return f"{kind} {header.levels[level]:g} at {header.horizons[min(horizon, len(header.horizons) - 1)]} bars"
    return "close" if name == "price" else name


def _cell(stage: str, name: str, a: Any, b: Any) -> Cell:
    if isinstance(a, str):
        return Cell(stage=stage, name=name, a=a, b=str(b))
    known = [None if np.isnan(value) else float(value) for value in (a, b)]
    by = None if None in known else float(b - a)
    return Cell(stage=stage, name=name, a=known[0], b=known[1], by=by)


def _weight(name: str, cell: Cell) -> float:
    """How large a difference is beside its values: what is there in one run only comes first."""
    if cell.by is None or not isinstance(cell.a, float) or not isinstance(cell.b, float):
        return np.inf
    size = max(abs(cell.a), abs(cell.b), 1.0 if name in OF_ORDER_ONE else 1e-300)
    return abs(cell.by) / size
