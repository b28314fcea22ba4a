"""Draw what a set of histories covers, month by month, with its holes and whose they are, on one HTML page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lstm_strategy.bars import Timeframe, parse_ns
from lstm_strategy.formatting import percent, whole
from lstm_strategy.report.html import write_html
from lstm_strategy.report.words import minute_of
from lstm_strategy.sources.agreement import Agreement
from lstm_strategy.sources.integrity import Hole, HoleKind

__all__ = ["write_coverage_page"]

_LISTED = 200
_ALIGNED = 10  # years that stand side by side on a wide screen; longer spans wrap, each history from its own first year
_YEAR_PIXELS = 150

_WHOSE: dict[HoleKind, str] = {
    "venue_own": "the venue's own",
    "venue_wide": "all symbols of the venue",
    "several_symbols": "several symbols, not all",
    "one_symbol": "this symbol alone",
    "only_symbol": "no other symbol to compare",
}
# a mark's class: two may stand in one month, an outage above, any other hole below
_MARKS: dict[HoleKind, str] = {
    "venue_own": "own",
    "venue_wide": "wide",
    "several_symbols": "fault",
    "one_symbol": "fault",
    "only_symbol": "unsure",
}
_OUTAGES = ("venue_own", "venue_wide")

type Entry = dict[str, Any]
type Cell = dict[str, str]


def write_coverage_page(
    page: Path, entries: Sequence[Entry], holes: Sequence[Hole], compared: Sequence[Agreement]
) -> Path:
    """Write ``page``: self-contained, nothing fetched.

    Parameters
    ----------
    entries : sequence of dict
        As ``data check --json`` lists them.
    holes, compared
        As `find_holes` and `compare` return them.

    Raises
    ------
    LSTMStrategyError
        Where jinja2 is not installed. An old page stays as it was.
    """
    by_month = _holes_by_month(holes)
    stale = sorted(
        ((run, entry) for entry in entries for run in entry["stale_runs"]), key=lambda item: -item[0]["bars"]
    )
    ranked = sorted(holes, key=lambda hole: -hole.missing)
    spans = [month["month"] for entry in entries for month in entry["coverage"]]
    return write_html(
        page,
        "coverage.html.j2",
        {
            "histories": len(entries),
            "bars": whole(sum(entry["bars"] for entry in entries)),
            "span": f"{min(spans)} to {max(spans)}" if spans else "",
            "coverage_verdict": _coverage_verdict(entries, holes),
            "agreement_verdict": [_agreement_words(agreement) for agreement in compared],
            "errors": [text for entry in entries for text in entry["errors"]],
            "panels": _panels(entries, by_month),
            "faults": _hole_table([hole for hole in ranked if hole.kind not in _OUTAGES]),
            "outages": _hole_table([hole for hole in ranked if hole.kind in _OUTAGES]),
            "agreements": [_agreement_row(agreement) for agreement in compared],
            "stale": [
                (
                    *(_name(entry), minute_of(run["start"]), minute_of(run["end"]), whole(run["bars"])),
                    f"{'flat' if run['flat'] else 'moving'}, {'traded' if run['traded'] else 'no volume'}",
                )
                for run, entry in stale[:_LISTED]
            ],
            "stale_more": whole(len(stale) - _LISTED) if len(stale) > _LISTED else "",
        },
    )


def _holes_by_month(holes: Iterable[Hole]) -> dict[tuple[str, str, str], list[Hole]]:
    """Holes by instrument, timeframe and month in which a missing bar opens."""
    found: dict[tuple[str, str, str], list[Hole]] = {}
    for hole in holes:
        step = Timeframe.parse(hole.timeframe).ns
        ends = np.array([parse_ns(hole.first), parse_ns(hole.last)]) - step
        first, last = ends.astype("datetime64[ns]").astype("datetime64[M]")
        for month in np.arange(first, last + np.timedelta64(1, "M")).astype(str).tolist():
            for name in hole.instruments:
                found.setdefault((name, hole.timeframe, month), []).append(hole)
    return found


def _panels(entries: Sequence[Entry], by_month: dict[tuple[str, str, str], list[Hole]]) -> list[dict[str, Any]]:
    """One panel a venue, so that what its symbols share stands in line."""
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        name = entry["instrument"]
        is_file = Path(name).name != name or "." not in name
        groups.setdefault("Files" if is_file else name.rpartition(".")[2], []).append(entry)
    panels = []
    for title, group in groups.items():
        years = sorted({int(month["month"][:4]) for entry in group for month in entry["coverage"]})
        aligned = bool(years) and years[-1] - years[0] < _ALIGNED
        strips = []
        for entry in group:
            own = [int(month["month"][:4]) for month in entry["coverage"]]
            if not own:
                shown = range(0)
            elif aligned:
                shown = range(years[0], years[-1] + 1)
            else:
                shown = range(own[0], own[-1] + 1)
            strips.append(_strip(entry, shown, by_month))
        panels.append(
            {
                "title": title,
                "strips": strips,
                "aligned": aligned,
                "width": _YEAR_PIXELS * max((len(strip["years"]) for strip in strips), default=1),
            }
        )
    return sorted(panels, key=lambda panel: not panel["aligned"])


def _strip(entry: Entry, years: range, by_month: dict[tuple[str, str, str], list[Hole]]) -> dict[str, Any]:
    months = {month["month"]: month for month in entry["coverage"]}
    missing, expected = (sum(month[key] for month in months.values()) for key in ("missing", "expected"))
    broken = sum(month["missing"] > 0 for month in months.values())
    share = _covered(missing, expected)
    told = f"{whole(broken)} of {whole(len(months))} months not whole" if broken else "every month whole"
    return {
        "name": _name(entry),
        "share": share,
        "told": f"{whole(missing)} missing" if missing else f"{whole(entry['bars'])} bars",
        "label": f"{_name(entry)}: {share} covered, {told}",
        "years": [
            (
                year,
                [
                    _cell(month, months.get(month), by_month.get((entry["instrument"], entry["timeframe"], month), []))
                    for month in (f"{year}-{number:02d}" for number in range(1, 13))
                ],
            )
            for year in years
        ],
    }


def _cell(name: str, month: Entry | None, holes: list[Hole]) -> Cell:
    if month is None:
        return {"shade": "out", "tip": ""}
    lacking = month["missing"] / max(month["expected"], 1)
    shade = "whole" if not lacking else "most" if lacking < 0.02 else "some" if lacking < 0.25 else "few"
    if not month["bars"]:
        shade = "none"
    marks = dict.fromkeys(_MARKS[hole.kind] for hole in holes)
    lines = [f"{name}: {whole(month['bars'])} of {whole(month['expected'])} bars, {_covered(*_counts(month))}"]
    if month["missing"] == 0 and month["bars"] < month["expected"]:
        lines = [f"{name}: {whole(month['bars'])} bars, {whole(month['expected'])} but for holidays; no hole"]
    for hole in sorted(holes, key=lambda hole: -hole.missing)[:3]:
        lines.append(f"{_bars(hole.missing)} closing {_until(hole)}: {_WHOSE[hole.kind]}")
    if len(holes) > 3:
        lines.append(f"and {len(holes) - 3} more holes")
    return {"shade": " ".join([shade, *marks]), "tip": "\n".join(lines)}


def _counts(month: Entry) -> tuple[int, int]:
    return month["missing"], month["expected"]


def _coverage_verdict(entries: Sequence[Entry], holes: Sequence[Hole]) -> list[str]:
    months = [month for entry in entries for month in entry["coverage"]]
    missing, expected = (sum(month[key] for month in months) for key in ("missing", "expected"))
    said = [f"{_covered(missing, expected)} of the bars are there: {whole(missing)} are missing in the spans held."]
    number = Counter(hole.kind for hole in holes)
    lost = {kind: sum(hole.missing for hole in holes if hole.kind == kind) for kind in _WHOSE}
    words: dict[HoleKind, str] = {
        "venue_own": "on record as the venue's own",
        "venue_wide": "shared by every symbol held of the venue, as in an outage",
        "several_symbols": "shared by several symbols but not all",
        "one_symbol": "in one symbol alone, though others have those bars: download it again",
        "only_symbol": "not to be judged, since no other symbol is held for that time",
    }
    said += [
        f"{whole(number[kind])} {'hole is' if number[kind] == 1 else 'holes are'} {text} ({_bars(lost[kind])})."
        for kind, text in words.items()
        if number[kind]
    ]
    return said


def _agreement_words(agreement: Agreement) -> str:
    pair = _pair(agreement)
    if not agreement.compared:
        return f"{pair} have no bar in common."
    same = agreement.compared - agreement.differing_bars
    left = f"; {whole(agreement.incomplete)} were left out, since finer bars lack" if agreement.incomplete else ""
    alone = agreement.only_in_first + agreement.only_in_second
    odd = f"; {whole(alone)} stand in one alone" if alone else ""
    number = "all" if not agreement.differing_bars else f"{whole(same)} of"
    return f"{pair} agree in {number} {whole(agreement.compared)} bars compared{left}{odd}."


def _agreement_row(agreement: Agreement) -> tuple[str, ...]:
    prices = max(column.max_relative for column in agreement.columns if column.column != "volume")
    volume = max(column.max_relative for column in agreement.columns if column.column == "volume")
    first = agreement.mismatches[0].ts if agreement.mismatches else ""
    counts = agreement.compared, agreement.differing_bars, agreement.only_in_first, agreement.only_in_second
    return (_pair(agreement), *map(whole, counts), _size(prices), _size(volume), minute_of(first))


def _hole_table(ranked: list[Hole]) -> dict[str, Any]:
    rows = [
        (
            f"{_market(hole)} {hole.timeframe}",
            minute_of(hole.first),
            minute_of(hole.last),
            whole(hole.missing),
            _WHOSE[hole.kind],
            ", ".join(Path(name).name.rpartition(".")[0] for name in hole.instruments),
        )
        for hole in ranked[:_LISTED]
    ]
    return {"rows": rows, "more": whole(len(ranked) - _LISTED) if len(ranked) > _LISTED else ""}


def _market(hole: Hole) -> str:
    return f"{hole.venue} {hole.market}" if hole.venue else "file"


def _name(entry: Entry) -> str:
    return f"{Path(entry['instrument']).name} {entry['timeframe']}"


def _pair(agreement: Agreement) -> str:
    first, second = Path(agreement.first).name, Path(agreement.second).name
    if agreement.first == agreement.second:
        return f"{first} {agreement.first_timeframe} and {agreement.second_timeframe}"
    return f"{first} {agreement.first_timeframe} and {second} {agreement.second_timeframe}"


def _bars(count: int) -> str:
    return f"{whole(count)} bar{'s' * (count != 1)}"


def _until(hole: Hole) -> str:
    return minute_of(hole.first) if hole.first == hole.last else f"{minute_of(hole.first)} to {minute_of(hole.last)}"


def _covered(missing: int, expected: int) -> str:
    """Write a share so that only what is whole reads 100 %."""
    if not missing:
        return percent(1.0, 0)
    return percent(min(1 - missing / max(expected, 1), 0.9999), 2)


def _size(relative: float) -> str:
    return "none" if relative == 0 else percent(relative, 4) if relative > 1e-6 else f"{relative:.0e}"
