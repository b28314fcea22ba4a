"""What ``data check`` looks at: raw bars, the engine's copy of them, files, and what they say of each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from lstm_strategy.bars import Timeframe, format_ns
from lstm_strategy.cli_data_compare import agreements_of, file_side, not_held
from lstm_strategy.console import console
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.instrument import Instrument, split_id
from lstm_strategy.sources.agreement import Agreement
from lstm_strategy.sources.files import Stamp
from lstm_strategy.sources.integrity import (
    Hole,
    KnownHoles,
    Timeline,
    clean,
    coverage,
    find_holes,
    gaps_at_fault,
    stale_runs,
    timeline,
)
from lstm_strategy.sources.quality import check
from lstm_strategy.sources.store import COLUMNS, Columns, RawStore

__all__ = ["Checked", "Entry", "check_catalog", "check_file", "summary_of"]

type Entry = dict[str, Any]


class Checked(NamedTuple):
    """One report an entry, the holes told by who shares them, and each entry's bars against coarser ones held."""

    entries: list[Entry]
    holes: list[Hole]
    agreements: list[Agreement]
    comparison: Agreement | None = None

    @property
    def compared(self) -> list[Agreement]:
        """All that was put side by side."""
        return self.agreements + ([self.comparison] if self.comparison else [])

    @property
    def warnings(self) -> int:
        """How many things a person should look at."""
        found: int = sum(entry["warnings"] for entry in self.entries)
        return found + sum(pair.warnings for pair in self.compared)


def check_file(path: Path, timeframe: Timeframe | None, stamp: Stamp) -> Checked:
    """Return the report on one file; without a timeframe its commonest step counts."""
    side = file_side(path, timeframe, stamp)
    entry, line = _entry(side.name, side.timeframe, side.columns, None, [])
    holes = find_holes([line] if line else [])
    _tell_holes([entry], [line], holes)
    return Checked([entry], holes, [])


def check_catalog(
    store: RawStore, instrument_id: str | None, timeframe: Timeframe | None, known: KnownHoles | None = None
) -> Checked:
    """Return a report on each entry of the catalog, or those of one instrument or timeframe.

    The venue's other entries bear witness to their holes; ``known`` are the holes that a venue itself has.

    Raises
    ------
    LSTMStrategyError
        Where nothing is held that fits.
    """
    held = store.entries()
    chosen = [
        (name, length)
        for name, length in held
        if instrument_id in (None, name) and (timeframe is None or timeframe == length)
    ]
    if not chosen:
        raise not_held(store, instrument_id, timeframe)
    entries: list[Entry] = []
    lines: list[Timeline | None] = []
    for name, length in chosen:
        with console.status(f"checking {name} {length}"):
            entry, line = _check_held(store, name, length)
        entries.append(entry)
        lines.append(line)
    venues = {split_id(name)[1] for name, _ in chosen}
    witnesses = [
        _witness(store, name, length)
        for name, length in held
        if split_id(name)[1] in venues and (name, length) not in chosen
    ]
    wanted = {(name, length.text) for name, length in chosen}
    holes = [
        hole
        for hole in find_holes([line for line in (*lines, *witnesses) if line], known)
        if any((name, hole.timeframe) in wanted for name in hole.instruments)
    ]
    _tell_holes(entries, lines, holes)
    agreements = []
    for name in dict.fromkeys(name for name, _ in chosen):
        with console.status(f"comparing the bars of {name}"):
            agreements += agreements_of(store, name, {length for other, length in chosen if other == name})
    return Checked(entries, holes, agreements)


def summary_of(checked: Checked) -> dict[str, Any]:
    """Return what ``--json`` prints: sums over all entries, the largest gap, every error with its entry, and all."""
    entries = checked.entries
    summed = ("bars", "gaps", "missing_bars", "duplicates", "ohlc_violations", "zero_volume_bars", "outliers")
    summary: dict[str, Any] = {key: sum(entry[key] for entry in entries) for key in summed}
    summary["largest_gap_bars"] = max(entry["largest_gap_bars"] for entry in entries)
    summary["errors"] = [
        text if text.startswith(entry["instrument"]) else f"{entry['instrument']} {entry['timeframe']}: {text}"
        for entry in entries
        for text in entry["errors"]
    ]
    return summary | checked._asdict()


def _check_held(store: RawStore, instrument_id: str, timeframe: Timeframe) -> tuple[Entry, Timeline | None]:
    errors: list[str] = []
    market = None
    try:
        market = store.read_instrument(instrument_id)
    except LSTMStrategyError as error:
        errors.append(str(error))
    try:
        columns = store.read_columns(instrument_id, timeframe)
    except LSTMStrategyError as error:
        empty = {name: np.empty(0, np.int64 if name == "ts_close" else np.float64) for name in COLUMNS}
        return _entry(instrument_id, timeframe, empty, market, [*errors, str(error)], unread=True)
    entry, line = _entry(instrument_id, timeframe, columns, market, errors)
    if not entry["errors"]:
        entry["errors"] = _differences(store, instrument_id, timeframe, market)
    return entry, line


def _witness(store: RawStore, instrument_id: str, timeframe: Timeframe) -> Timeline | None:
    """Return when an entry that is not itself checked has bars; None where it cannot be read."""
    try:
        columns = clean(store.read_columns(instrument_id, timeframe), timeframe)
        return timeline(instrument_id, columns, timeframe, store.read_instrument(instrument_id))
    except LSTMStrategyError:
        return None


def _entry(
    name: str,
    timeframe: Timeframe,
    columns: Columns,
    market: Instrument | None,
    errors: list[str],
    *,
    unread: bool = False,
) -> tuple[Entry, Timeline | None]:
    report = check(columns, timeframe, market)
    usable = clean(columns, timeframe)
    months = coverage(usable, timeframe, market)
    stale = stale_runs(usable, timeframe, market)
    expected, missing = sum(month.expected for month in months), sum(month.missing for month in months)
    entry = {
        "instrument": name,
        "timeframe": timeframe.text,
        **msgspec.to_builtins(report),
        "errors": errors if unread else report.errors + errors,
        "covered": 1.0 - missing / expected if expected else 0.0,
        "coverage": msgspec.to_builtins(months),
        "stale_runs": msgspec.to_builtins(stale),
        "warnings": report.warnings + len(stale),
    }
    return entry, timeline(name, usable, timeframe, market)


def _tell_holes(entries: Sequence[Entry], lines: Sequence[Timeline | None], holes: Sequence[Hole]) -> None:
    """Count the kinds of each entry's holes; those that are the venue's own are no warning."""
    of: dict[tuple[str, str], list[Hole]] = {}
    for hole in holes:
        for name in hole.instruments:
            of.setdefault((name, hole.timeframe), []).append(hole)
    for entry, line in zip(entries, lines, strict=True):
        own = of.get((entry["instrument"], entry["timeframe"]), [])
        entry["holes"] = dict(Counter(hole.kind for hole in own))
        if line is not None:
            entry["warnings"] -= len(line.holes) - gaps_at_fault(line, own)


def _differences(store: RawStore, instrument_id: str, timeframe: Timeframe, market: Instrument | None) -> list[str]:
    """Say where the engine's catalog differs from the raw bars: in stamps, in prices, or in volume by half a lot."""
    from lstm_strategy.nautilus.catalog import read_catalog  # the engine is slow to import

    raw = store.read(instrument_id, timeframe)
    remedy = "write the catalog anew with `lstm-strategy data rebuild`"
    try:
        copy = read_catalog(store.root, instrument_id, timeframe)
    except LSTMStrategyError as error:
        return [f"{instrument_id} {timeframe}: {error}; {remedy}"]
    if not np.array_equal(raw.ts_close, copy.ts_close):
        odd = np.setxor1d(raw.ts_close, copy.ts_close)
        return [
            f"{instrument_id} {timeframe}: the raw file has {len(raw)} bars, the catalog {len(copy)}, first different"
            f" at {format_ns(odd[0])}; {remedy}"
        ]
    half_lot = float(market.lot) / 2 if market else 0.0
    differs = np.abs(raw.volume - copy.volume) > half_lot * (1 + 1e-9) + 1e-12 * raw.volume
    for name in ("open", "high", "low", "close"):
        column = getattr(raw, name)
        differs |= np.abs(column - getattr(copy, name)) > 1e-12 * column
    if differs.any():
        when = format_ns(raw.ts_close[int(differs.argmax())])
        return [
            f"{instrument_id} {timeframe}: {int(differs.sum())} bars of the catalog differ from the raw file,"
            f" first at {when}; {remedy}"
        ]
    return []
