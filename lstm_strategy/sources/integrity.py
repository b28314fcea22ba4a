"""How whole a history is: coverage by month, stale prices, and whether a hole is the venue's or the download's."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from lstm_strategy.bars import Stamps, Timeframe, format_ns, parse_ns
from lstm_strategy.instrument import Instrument, split_id
from lstm_strategy.sources.quality import keeps_sessions, missing_after, opened_at
from lstm_strategy.sources.store import COLUMNS, Columns

__all__ = ["Hole", "HoleKind", "KnownHoles", "Month", "StaleRun", "Timeline"]
__all__ += ["clean", "coverage", "find_holes", "gaps_at_fault", "stale_runs", "timeline"]

# Close stamps (first, last) of bars that a venue itself has not, both included, by instrument and timeframe.
type KnownHoles = Mapping[tuple[str, Timeframe], Sequence[tuple[int, int]]]

type HoleKind = Literal["venue_own", "venue_wide", "several_symbols", "one_symbol", "only_symbol"]

_KINDS: tuple[HoleKind, ...] = ("venue_own", "venue_wide", "several_symbols", "one_symbol", "only_symbol")
_OWN, _WIDE, _SEVERAL, _ONE, _ONLY = range(5)

_STALE_MINIMUM = 5
_STALE_MARGIN = 3.0  # quiet bars follow each other more than chance would have it


class Month(msgspec.Struct, frozen=True):
    """Bars that opened in one month (UTC), and how many the calendar would have.

    ``expected`` counts from the history's first bar to its last; for shares, business days, of which holidays are some.
    ``missing`` is what lacks in holes as ``quality.check`` counts them: for shares, none for a holiday.
    """

    month: str
    bars: int
    expected: int
    missing: int


class StaleRun(msgspec.Struct, frozen=True):
    """Bars in a row with one and the same close: close stamps of the first and the last, and their number.

    ``flat``: after the first, all four prices of each bar are that close. ``traded``: one of those bars has volume.
    """

    start: str
    end: str
    bars: int
    flat: bool
    traded: bool


class Hole(msgspec.Struct, frozen=True):
    """Bars missing in a row, from close stamp to close stamp (both included), and whom it concerns.

    ``kind`` says whose it is. ``venue_own``: the venue was asked and has none. ``venue_wide``: every symbol held of
    this venue, market and timeframe lacks it, an outage. ``several_symbols``: more than one does, but not all.
    ``one_symbol``: the others have it, so a download at fault is likely. ``only_symbol``: no other is held for that
    time, so it cannot be told. A part of a gap may be an outage and the rest a fault: they are two holes.
    """

    kind: HoleKind
    venue: str
    market: str
    timeframe: str
    first: str
    last: str
    missing: int
    instruments: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Timeline:
    """When one history has bars: its span and holes in ns by opening time, [start, end) each; no prices."""

    instrument_id: str
    venue: str
    market: str
    timeframe: Timeframe
    sessions: bool
    start: int
    end: int
    holes: Stamps  # [N, 2]


def clean(columns: Columns, timeframe: Timeframe) -> Columns:
    """Return the usable rows: in time order, one a stamp (the first), on the grid, every value finite."""
    ts = columns["ts_close"]
    if len(ts) and (np.diff(ts) > 0).all() and not (ts % timeframe.ns).any():
        order = np.arange(len(ts))
    else:
        _, order = np.unique(ts, return_index=True)
        order = order[ts[order] % timeframe.ns == 0]
    usable = np.ones(len(order), dtype=bool)
    for name in COLUMNS[1:]:
        usable &= np.isfinite(columns[name][order])
    rows = order[usable]
    return {name: columns[name][rows] for name in COLUMNS}


def coverage(columns: Columns, timeframe: Timeframe, instrument: Instrument | None = None) -> list[Month]:
    """Return bars present and expected for each month from the first bar to the last; rows as `clean` leaves them."""
    ts = columns["ts_close"]
    if not len(ts):
        return []
    sessions = keeps_sessions(ts, timeframe, instrument)
    opened = opened_at(ts, timeframe, sessions=sessions)
    months = opened.astype("datetime64[ns]").astype("datetime64[M]").astype(np.int64)
    first = int(months[0])
    bars = np.bincount(months - first)
    edges = np.arange(first, first + len(bars) + 1).astype("datetime64[M]")
    if sessions:
        expected, missing = _sessions_expected(ts, opened, edges, timeframe)
    else:
        ends = np.clip(edges.astype("datetime64[ns]").astype(np.int64), opened[0], opened[-1] + timeframe.ns)
        ticks = -(-(ends - opened[0]) // timeframe.ns)
        expected = np.diff(ticks)
        missing = np.maximum(expected - bars, 0)
    rows = zip(edges[:-1].astype(str).tolist(), bars.tolist(), expected.tolist(), missing.tolist(), strict=True)
    return [Month(*row) for row in rows if row[1] or row[2]]


def _sessions_expected(
    ts: Stamps, opened: Stamps, edges: npt.NDArray[np.datetime64], timeframe: Timeframe
) -> tuple[Stamps, Stamps]:
    """Return business days times the usual bars of one, and the like of those that lack in holes, by month."""
    days = opened.astype("datetime64[ns]").astype("datetime64[D]")
    _, per_day = np.unique(days, return_counts=True)
    usual, tomorrow = int(np.median(per_day)), np.timedelta64(1, "D")

    def business_days(start: np.datetime64, end: np.datetime64) -> Stamps:
        ends = np.clip(edges.astype("datetime64[D]"), start, end)
        return np.asarray(np.busday_count(ends[:-1], ends[1:]) * usual)

    lacking = missing_after(ts, timeframe, sessions=True)
    missing = np.zeros(len(edges) - 1, dtype=np.int64)
    for row in np.flatnonzero(lacking > 0):
        if days[row] == days[row + 1]:
            missing[np.searchsorted(edges, days[row], side="right") - 1] += lacking[row]
        else:
            missing += business_days(days[row] + tomorrow, days[row + 1])
    return business_days(days[0], days[-1] + tomorrow), missing


def stale_runs(columns: Columns, timeframe: Timeframe, instrument: Instrument | None = None) -> list[StaleRun]:
    """Return the runs of identical close that are too long for chance; rows as `clean` leaves them.

    Notes
    -----
    Where a share p of closes repeats the one before, a run beyond log(100 T) / -log(p) bars comes by chance in one of
    a hundred histories of T bars. Three times that counts, p taken as no more than a half, and no less than 5 bars.
    """
    ts, close = columns["ts_close"], columns["close"]
    if len(ts) < 2:
        return []
    sessions = keeps_sessions(ts, timeframe, instrument)
    repeats = (np.diff(close) == 0) & (missing_after(ts, timeframe, sessions=sessions) <= 0)
    share = min(max(float(repeats.mean()), 1 / len(ts)), 0.5)
    least = max(_STALE_MINIMUM, int(np.ceil(_STALE_MARGIN * np.log(100 * len(ts)) / -np.log(share))))
    starts = np.flatnonzero(np.concatenate([[True], ~repeats]))
    lengths = np.diff(np.append(starts, len(ts)))
    moved = (columns["high"] != close) | (columns["low"] != close) | (columns["open"] != close)
    runs = []
    for start, bars in zip(starts[lengths >= least], lengths[lengths >= least], strict=True):
        rest = slice(start + 1, start + bars)
        flat, traded = not moved[rest].any(), bool((columns["volume"][rest] > 0).any())
        runs.append(StaleRun(format_ns(ts[start]), format_ns(ts[start + bars - 1]), int(bars), flat, traded))
    return runs


def timeline(
    instrument_id: str, columns: Columns, timeframe: Timeframe, instrument: Instrument | None = None
) -> Timeline | None:
    """Return when a history has bars; None where it has none; rows as `clean` leaves them."""
    ts = columns["ts_close"]
    if not len(ts):
        return None
    sessions = keeps_sessions(ts, timeframe, instrument)
    opened = opened_at(ts, timeframe, sessions=sessions)
    rows = np.flatnonzero(missing_after(ts, timeframe, sessions=sessions) > 0)
    holes = np.stack([opened[rows] + timeframe.ns, opened[rows + 1]], axis=1)
    venue = split_id(instrument_id)[1] if instrument else ""
    market = instrument.kind if instrument else ""
    ends = int(opened[0]), int(opened[-1]) + timeframe.ns
    return Timeline(instrument_id, venue, market, timeframe, sessions, *ends, holes)


def find_holes(timelines: Iterable[Timeline], known: KnownHoles | None = None) -> list[Hole]:
    """Return the holes of all histories, each told by who shares it, in order of venue, market, timeframe and time.

    Parameters
    ----------
    timelines : iterable of Timeline
        Every history held of the venues in question; more symbols tell more. Spot, perpetual and equity markets of one
        venue are apart, and so are timeframes; but a hole of the only symbol held counts as ``venue_wide`` where it
        overlaps an outage that another timeframe of the same market shows.
    known : KnownHoles, optional
        What the venue is known not to have; such a hole is ``venue_own``, also where all symbols share it and the
        venue was asked for one of them.
    """
    groups: dict[tuple[str, str, int], list[Timeline]] = {}
    for line in timelines:
        # a history of no known venue stands for itself
        groups.setdefault((line.venue or line.instrument_id, line.market, line.timeframe.ns), []).append(line)
    found = {key: _sweep(groups[key], known or {}) for key in sorted(groups)}
    holes = []
    for key, stretches in found.items():
        others = [found[other] for other in found if other[:2] == key[:2] and other != key]
        outages = sorted((one.start, one.end) for group in others for one in group if one.kind in (_OWN, _WIDE))
        starts = [start for start, _ in outages]
        reach = np.maximum.accumulate(np.array([end for _, end in outages], dtype=np.int64))
        line = groups[key][0]
        for start, end, kind, names in stretches:
            before = bisect_left(starts, end)
            seen = kind == _ONLY and before > 0 and reach[before - 1] > start
            missing = _bars_between(start, end, line.timeframe.ns, line.sessions)
            if missing:
                told = _KINDS[_WIDE if seen else kind], line.venue, line.market, line.timeframe.text
                holes.append(Hole(*told, format_ns(start + line.timeframe.ns), format_ns(end), missing, names))
    return holes


def gaps_at_fault(line: Timeline, holes: Iterable[Hole]) -> int:
    """Return how many gaps of one history are not wholly the venue's own."""
    step = line.timeframe.ns
    opened = [
        parse_ns(hole.first) - step
        for hole in holes
        if hole.kind != "venue_own" and line.instrument_id in hole.instruments and hole.timeframe == line.timeframe.text
    ]
    return len(np.unique(np.searchsorted(line.holes[:, 0], opened, side="right")))


class _Stretch(NamedTuple):
    """Opening time [start, end) in which the same symbols lack bars."""

    start: int
    end: int
    kind: int
    names: tuple[str, ...]


def _sweep(lines: Sequence[Timeline], known: KnownHoles) -> list[_Stretch]:
    """Go over the edges of all holes and spans of one venue, market and timeframe; S symbols, E edges."""
    opening = np.array([lines[0].timeframe.ns, 0])  # close stamps of a known hole become its [start, end)
    told = [
        np.array(known.get((line.instrument_id, line.timeframe), ()), dtype=np.int64).reshape(-1, 2) - opening
        for line in lines
    ]
    spans = np.array([(line.start, line.end) for line in lines])
    edges = np.unique(np.concatenate([spans.ravel(), *(line.holes.ravel() for line in lines), *map(np.ravel, told)]))
    missing_SE = np.stack([_inside(line.holes, edges) for line in lines])
    own_SE = missing_SE & np.stack([_inside(pairs, edges) for pairs in told])
    covers_SE = (edges[:-1] >= spans[:, :1]) & (edges[1:] <= spans[:, 1:])
    lacking, held = missing_SE.sum(axis=0), covers_SE.sum(axis=0)
    shared = lacking == held
    own = (own_SE == missing_SE).all(axis=0) | (shared & own_SE.any(axis=0))
    kind = np.select([lacking == 0, own, held == 1, shared, lacking > 1], [-1, _OWN, _ONLY, _WIDE, _SEVERAL], _ONE)
    changes = (np.diff(kind) != 0) | np.diff(missing_SE, axis=1).any(axis=0)
    firsts = np.concatenate([[0], np.flatnonzero(changes) + 1])
    lasts = np.append(firsts[1:], len(kind))
    return [
        _Stretch(
            *(int(edges[first]), int(edges[last]), int(kind[first])),
            tuple(sorted(lines[s].instrument_id for s in np.flatnonzero(missing_SE[:, first]).tolist())),
        )
        for first, last in zip(firsts, lasts, strict=True)
        if kind[first] >= 0
    ]


def _inside(pairs_N2: Stamps, edges: Stamps) -> npt.NDArray[np.bool_]:
    """Say of each stretch between neighbouring edges whether one of the pairs holds it."""
    depth = np.zeros(len(edges), dtype=np.int64)
    np.add.at(depth, np.searchsorted(edges, pairs_N2[:, 0]), 1)
    np.add.at(depth, np.searchsorted(edges, pairs_N2[:, 1]), -1)
    return np.asarray(np.cumsum(depth)[:-1] > 0)


def _bars_between(start: int, end: int, step: int, sessions: bool) -> int:
    """Return how many bars lack, as `missing_after` counts: days from one session to another are business days."""
    ends = np.array([start, end]).astype("datetime64[ns]").astype("datetime64[D]")
    if sessions and ends[0] != ends[1]:
        return int(np.busday_count(ends[0], ends[1]))
    return (end - start) // step
