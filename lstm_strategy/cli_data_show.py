"""How ``data check`` speaks to people: tables of counts, then every error and the worst of each kind of warning."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from rich import box
from rich.markup import escape
from rich.table import Table

from lstm_strategy.cli_data_check import Checked, Entry
from lstm_strategy.console import console
from lstm_strategy.formatting import percent
from lstm_strategy.sources.agreement import Agreement
from lstm_strategy.sources.integrity import Hole, HoleKind

__all__ = ["print_checked"]

_WORST = 5

_KINDS: dict[HoleKind, str] = {
    "venue_own": "venue's own",
    "venue_wide": "venue-wide",
    "several_symbols": "several symbols",
    "one_symbol": "this symbol alone",
    "only_symbol": "no other to compare",
}
_OUTAGES = ("venue_own", "venue_wide")


def print_checked(checked: Checked) -> None:
    """Print what was found; errors and warnings one to a line."""
    _print_entries(checked.entries)
    if checked.holes:
        _print_holes(checked.holes)
    if checked.compared:
        _print_agreements(checked.compared)
    for name, holes in _by_market(checked.holes).items():
        outages = sorted((hole for hole in holes if hole.kind in _OUTAGES), key=lambda hole: -hole.missing)
        texts = (f"{hole.missing} bars closing {hole.first} to {hole.last} ({_KINDS[hole.kind]})" for hole in outages)
        _print_some("outage", name, list(texts))
    for entry in checked.entries:
        _print_worst(entry, checked.holes)
    for agreement in checked.compared:
        _print_differences(agreement)


def _print_entries(entries: list[Entry]) -> None:
    table = _table("entry", "bars", "covered", "gaps", "missing", "errors")
    odd = _table("odd bars", "silent", "stale runs", "outliers", "splits")
    for entry in entries:
        title = _title(entry["instrument"], entry["timeframe"])
        bad = f"[red]{len(entry['errors'])}[/red]" if entry["errors"] else "0"
        counts = (f"{entry[key]:,}" for key in ("gaps", "missing_bars"))
        table.add_row(title, f"{entry['bars']:,}", _share(entry["covered"]), *counts, bad)
        found = [entry["zero_volume_bars"], len(entry["stale_runs"]), entry["outliers"], len(entry["split_suspects"])]
        if any(found):
            odd.add_row(title, *(f"{count:,}" if count else "–" for count in found))
    console.print(table)
    if odd.row_count:
        console.print(odd)


def _print_holes(holes: list[Hole]) -> None:
    """Who shares the holes of each venue, market and timeframe."""
    kinds = [kind for kind in _KINDS if any(hole.kind == kind for hole in holes)]
    table = _table("holes", *(_KINDS[kind] for kind in kinds))
    for name, group in _by_market(holes).items():
        number = Counter(hole.kind for hole in group)
        missing = {kind: sum(hole.missing for hole in group if hole.kind == kind) for kind in kinds}
        table.add_row(name, *(f"{number[kind]} ({missing[kind]:,} bars)" if number[kind] else "–" for kind in kinds))
    console.print(table)


def _by_market(holes: list[Hole]) -> dict[str, list[Hole]]:
    groups: dict[str, list[Hole]] = {}
    for hole in holes:
        name = f"{hole.venue} {hole.market}" if hole.venue else Path(hole.instruments[0]).name
        groups.setdefault(escape(f"{name} {hole.timeframe}"), []).append(hole)
    return groups


def _print_agreements(agreements: list[Agreement]) -> None:
    table = _table("side by side", "same", "differ", "left out", "only 1st", "only 2nd", "price", "volume")
    for agreement in agreements:
        prices = max(column.max_relative for column in agreement.columns if column.column != "volume")
        volume = next(column.max_relative for column in agreement.columns if column.column == "volume")
        counts = (
            *(agreement.compared - agreement.differing_bars, agreement.differing_bars, agreement.incomplete),
            *(agreement.only_in_first, agreement.only_in_second),
        )
        table.add_row(_pair(agreement), *(f"{count:,}" for count in counts), _size(prices), _size(volume))
    console.print(table)


def _print_worst(entry: Entry, holes: list[Hole]) -> None:
    title = _title(entry["instrument"], entry["timeframe"])
    own = [hole for hole in holes if hole.timeframe == entry["timeframe"] and entry["instrument"] in hole.instruments]
    faults = sorted((hole for hole in own if hole.kind not in _OUTAGES), key=lambda hole: -hole.missing)
    runs = sorted(entry["zero_volume_runs"], key=lambda run: -run["bars"])
    stale = sorted(entry["stale_runs"], key=lambda run: -run["bars"])
    outliers = sorted(entry["outlier_list"], key=lambda outlier: -outlier["sigmas"])
    months = sorted(
        (month for month in entry["coverage"] if month["missing"]),
        key=lambda month: -month["missing"] / month["expected"],
    )
    lines: dict[str, Iterable[str]] = {
        "months": [_months(months)] if months else [],
        "gap": [f"{hole.missing} bars closing {hole.first} to {hole.last} ({_KINDS[hole.kind]})" for hole in faults],
        "stale": [
            f"{run['bars']} closes alike from {run['start']} to {run['end']}"
            f" ({'all four prices alike' if run['flat'] else 'prices moved within bars'},"
            f" {'with' if run['traded'] else 'no'} volume)"
            for run in stale
        ],
        "zero volume": [f"{run['bars']} bars from {run['start']} to {run['end']}" for run in runs],
        "outlier": [
            f"{percent(np.expm1(item['log_return']), 2, signed=True)} at {item['ts']} ({item['sigmas']:.0f} sigma)"
            for item in outliers
        ],
        "split?": [f"ratio {split['ratio']:g} at {split['ts']}" for split in entry["split_suspects"]],
    }
    for text in entry["errors"]:
        console.print(f"[red]error[/red] {title}: {escape(text)}", soft_wrap=True, highlight=False)
    for label, texts in lines.items():
        _print_some(label, title, list(texts))


def _months(months: list[Entry]) -> str:
    worst = (f"{month['month']} {_share(1 - month['missing'] / month['expected'])}" for month in months[:_WORST])
    more = f" and {len(months) - _WORST} more not whole" if len(months) > _WORST else ""
    return ", ".join(worst) + more


def _print_differences(agreement: Agreement) -> None:
    pair = _pair(agreement)
    if agreement.shifted_bars:
        late = "late" if agreement.shifted_bars > 0 else "early"
        bars = "1 bar" if abs(agreement.shifted_bars) == 1 else f"{abs(agreement.shifted_bars)} bars"
        text = f"the second seems {bars} {late}; see --stamp and --against-stamp"
        _print_some("shifted?", pair, [text])
    if not agreement.compared:
        _print_some("differs", pair, ["no bar in common"])
    unusable = agreement.unusable_in_first, agreement.unusable_in_second
    if any(unusable):
        _print_some("left out", pair, [f"{unusable[0]} and {unusable[1]} rows that are no bars"])
    _print_some(
        "differs",
        pair,
        [
            f"{one.ts} "
            + ", ".join(
                f"{name} {a:.10g} and {b:.10g}" for name, a, b in zip(one.columns, one.first, one.second, strict=True)
            )
            for one in agreement.mismatches
        ],
        agreement.differing_bars,
    )
    _print_some("only 1st", pair, agreement.only_in_first_list, agreement.only_in_first)
    _print_some("only 2nd", pair, agreement.only_in_second_list, agreement.only_in_second)


def _print_some(label: str, title: str, texts: list[str], total: int | None = None) -> None:
    for text in texts[:_WORST]:
        console.print(f"[yellow]{label}[/yellow] {title}: {text}", soft_wrap=True, highlight=False)
    more = (len(texts) if total is None else total) - _WORST
    if more > 0:
        console.print(f"[yellow]{label}[/yellow] {title}: and {more:,} more", soft_wrap=True, highlight=False)


def _table(*headings: str) -> Table:
    table = Table(*headings, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.columns[0].overflow = "fold"
    for column in table.columns[1:]:
        column.justify, column.no_wrap = "right", True
    return table


def _title(name: str, timeframe: str) -> str:
    return escape(f"{Path(name).name} {timeframe}")


def _pair(agreement: Agreement) -> str:
    first, second = Path(agreement.first).name, Path(agreement.second).name
    if first == second and agreement.first == agreement.second:
        return escape(f"{first} {agreement.first_timeframe}, {agreement.second_timeframe}")
    if agreement.first_timeframe == agreement.second_timeframe:
        return escape(f"{first}, {second} {agreement.timeframe}")
    return escape(f"{first} {agreement.first_timeframe}, {second} {agreement.second_timeframe}")


def _share(value: float) -> str:
    """Write a share so that only what is whole reads 100 %."""
    return "100 %" if value == 1 else f"{min(100 * value, 99.99):.2f} %"


def _size(relative: float) -> str:
    return f"{relative:.1e}" if relative else "0"
