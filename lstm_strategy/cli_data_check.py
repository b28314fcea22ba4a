"""What ``data check`` looks at and prints: raw bars, the engine's copy of them, files."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
from rich import box
from rich.markup import escape
from rich.table import Table

from lstm_strategy.bars import Timeframe, format_ns
from lstm_strategy.console import console
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.instrument import Instrument
from lstm_strategy.sources.files import commonest_step, read_columns, step_text
from lstm_strategy.sources.quality import QualityReport, check
from lstm_strategy.sources.store import COLUMNS, RawStore

__all__ = ["check_catalog", "check_file", "print_entries", "totals_of"]

_WORST = 5

type Entry = dict[str, Any]


def check_file(path: Path, timeframe: Timeframe | None, stamp: Literal["open", "close"]) -> Entry:
    """Return the report on one file; without a timeframe its commonest step counts."""
    if timeframe is None:
        step = commonest_step(read_columns(path, Timeframe.parse("1s"), stamp)["ts_close"])
        if step is None:
            raise LSTMStrategyError(f"{path}: one bar does not tell its timeframe; pass --timeframe")
        timeframe = Timeframe.parse(step_text(step))
    return _entry(str(path), timeframe, check(read_columns(path, timeframe, stamp), timeframe))


def check_catalog(store: RawStore, instrument_id: str | None, timeframe: Timeframe | None) -> list[Entry]:
    """Return a report on each entry of the catalog, or those of one instrument or timeframe.

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
        if instrument_id is None and timeframe is None:
            raise LSTMStrategyError(
                f"catalog {store.root} holds nothing; bring bars in with"
                " `lstm-strategy data import FILE --instrument BTCUSDT.BINANCE --timeframe 1h`"
            )
        told = ", ".join(f"{name} {length}" for name, length in held) or "nothing"
        wanted = " ".join(str(part) for part in (instrument_id, timeframe) if part is not None)
        raise LSTMStrategyError(f"catalog {store.root} does not hold {wanted}, nor is that a file; it holds {told}")
    entries = []
    for name, length in chosen:
        with console.status(f"checking {name} {length}"):
            entries.append(_check_held(store, name, length))
    return entries


def _check_held(store: RawStore, instrument_id: str, timeframe: Timeframe) -> Entry:
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
        report = msgspec.structs.replace(check(empty, timeframe, market), errors=[*errors, str(error)])
        return _entry(instrument_id, timeframe, report)
    report = check(columns, timeframe, market)
    if not errors and not report.errors:
        errors += _differences(store, instrument_id, timeframe, market)
    return _entry(instrument_id, timeframe, msgspec.structs.replace(report, errors=report.errors + errors))


def _differences(store: RawStore, instrument_id: str, timeframe: Timeframe, market: Instrument | None) -> list[str]:
    """Say where the engine's catalog differs from the raw bars: in stamps, in prices, or in volume by half a lot."""
    from lstm_strategy.nautilus.catalog import read_catalog  # the engine is slow to import

    raw = store.read(instrument_id, timeframe)
    remedy = "import any file of it again to write the catalog anew"
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


def _entry(name: str, timeframe: Timeframe, report: QualityReport) -> Entry:
    return {
        "instrument": name,
        "timeframe": timeframe.text,
        **msgspec.to_builtins(report),
        "warnings": report.warnings,
    }


def totals_of(entries: list[Entry]) -> dict[str, Any]:
    """Return sums over all entries, the largest gap, and every error with its entry named."""
    summed = ("bars", "gaps", "missing_bars", "duplicates", "ohlc_violations", "zero_volume_bars", "outliers")
    totals: dict[str, Any] = {key: sum(entry[key] for entry in entries) for key in summed}
    totals["largest_gap_bars"] = max(entry["largest_gap_bars"] for entry in entries)
    totals["errors"] = [
        text if text.startswith(entry["instrument"]) else f"{entry['instrument']} {entry['timeframe']}: {text}"
        for entry in entries
        for text in entry["errors"]
    ]
    return totals


def print_entries(entries: list[Entry]) -> None:
    """Print a table of counts, then every error and the worst of each kind of warning."""
    shown = {
        "bars": "bars",
        "gaps": "gaps",
        "missing_bars": "missing",
        "zero_volume_bars": "silent",
        "outliers": "outliers",
    }
    table = Table("entry", *shown.values(), "splits", "errors", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.columns[0].overflow = "fold"
    for column in table.columns[1:]:
        column.justify = "right"
    for entry in entries:
        counts = [f"{entry[key]:,}" for key in shown]
        bad = f"[red]{len(entry['errors'])}[/red]" if entry["errors"] else "0"
        table.add_row(_title(entry), *counts, str(len(entry["split_suspects"])), bad)
    console.print(table)
    for entry in entries:
        _print_worst(entry)


def _title(entry: Entry) -> str:
    return f"{Path(entry['instrument']).name} {entry['timeframe']}"


def _print_worst(entry: Entry) -> None:
    gaps = sorted(entry["gap_list"], key=lambda gap: -gap["missing"])
    runs = sorted(entry["zero_volume_runs"], key=lambda run: -run["bars"])
    outliers = sorted(entry["outlier_list"], key=lambda outlier: -outlier["sigmas"])
    lines = {
        "gap": [f"{gap['missing']} bars between {gap['start']} and {gap['end']}" for gap in gaps],
        "zero volume": [f"{run['bars']} bars from {run['start']} to {run['end']}" for run in runs],
        "outlier": [
            f"{np.expm1(item['log_return']):+.2%} at {item['ts']} ({item['sigmas']:.0f} sigma)" for item in outliers
        ],
        "split?": [f"ratio {split['ratio']:g} at {split['ts']}" for split in entry["split_suspects"]],
    }
    title = _title(entry)
    for text in entry["errors"]:
        console.print(f"[red]error[/red] {title}: {escape(text)}", soft_wrap=True, highlight=False)
    for label, texts in lines.items():
        for text in texts[:_WORST]:
            console.print(f"[yellow]{label}[/yellow] {title}: {text}", soft_wrap=True, highlight=False)
        if len(texts) > _WORST:
            console.print(f"[yellow]{label}[/yellow] {title}: and {len(texts) - _WORST} more")
