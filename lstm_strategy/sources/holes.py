"""Holes that are the venue's own: asked for more than once and never given, kept as JSON beside the bars."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Literal

import msgspec

from lstm_strategy.atomic import atomic_write
from lstm_strategy.bars import NS_PER_HOUR, Timeframe, format_ns, parse_ns
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.sources.spans import Span, Spans
from lstm_strategy.sources.store import RawStore

__all__ = ["Reason", "VenueHole", "known_holes", "read_holes", "record_holes", "spans_of"]

_NAME = "holes.json"
_SETTLED_AFTER_NS = NS_PER_HOUR

type Reason = Literal["empty", "withheld"]


class VenueHole(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Opening times [start, end) for which the venue gave no bars.

    ``reason``: ``empty`` (it has none: not listed yet, halted, no trade), ``withheld`` (it has, but gives only its
    newest bars). ``asked``: in how many runs, the first and the last at those times. ``settled``: not asked for again,
    since bars on both sides, or two runs an hour or more apart, bear it out; a venue can be mute for a moment.
    """

    start: str
    end: str
    reason: Reason
    asked: int
    last_asked: str
    first_asked: str = ""
    settled: bool = True

    @property
    def span(self) -> tuple[int, int]:
        """Start and end in ns UTC."""
        return parse_ns(self.start), parse_ns(self.end)


def read_holes(folder: Path) -> list[VenueHole]:
    """Return what is recorded in one folder of bars, oldest first.

    Raises
    ------
    LSTMStrategyError
        Where the file does not read.
    """
    path = folder / _NAME
    try:
        return msgspec.json.decode(path.read_bytes(), type=list[VenueHole])
    except FileNotFoundError:
        return []
    except (OSError, msgspec.DecodeError) as error:
        raise LSTMStrategyError(
            f"{path} cannot be read ({error}); remove it, and its holes are asked for anew"
        ) from error


def known_holes(store: RawStore) -> dict[tuple[str, Timeframe], list[Span]]:
    """Return every settled hole of a store by instrument and timeframe: spans of opening times, ns UTC."""
    found = {entry: list(spans_of(read_holes(store.folder(*entry)))) for entry in store.entries()}
    return {entry: spans for entry, spans in found.items() if spans}


def spans_of(holes: list[VenueHole]) -> Spans:
    """Return the time that settled holes take."""
    return Spans(hole.span for hole in holes if hole.settled)


def record_holes(
    folder: Path, held: Spans, found: dict[Reason, Spans], sure: Spans, now: int | None = None
) -> list[VenueHole]:
    """Add what a run found missing to what was recorded, less what is held by now; return all there is then.

    What lies in ``sure`` is settled at once, the rest when it has been missing for an hour; ``now`` in ns.
    """
    before = read_holes(folder)
    now = time.time_ns() if now is None else now
    today = format_ns(now // 1_000_000_000 * 1_000_000_000)
    news = Spans(span for spans in found.values() for span in spans)
    after: list[VenueHole] = []

    def add(spans: Spans, hole: VenueHole) -> None:
        for start, end in spans.less(held):
            after.append(msgspec.structs.replace(hole, start=format_ns(start), end=format_ns(end)))

    for hole in before:
        add(Spans([hole.span]).less(news), hole)
    for reason, spans in found.items():
        left = spans
        for hole in before:
            again = _common(spans, Spans([hole.span]))
            left = left.less(again)
            first = hole.first_asked or hole.last_asked
            settled = hole.settled or now - parse_ns(first) >= _SETTLED_AFTER_NS
            new = VenueHole("", "", reason, hole.asked + 1, today, first, settled)
            add(_common(again, sure), msgspec.structs.replace(new, settled=True))
            add(again.less(sure), new)
        add(_common(left, sure), VenueHole("", "", reason, 1, today, today))
        add(left.less(sure), VenueHole("", "", reason, 1, today, today, settled=False))
    holes = _joined(sorted(after, key=lambda hole: hole.span))
    if holes != before:
        with atomic_write(folder / _NAME) as temporary:
            temporary.write_bytes(msgspec.json.format(msgspec.json.encode(holes), indent=1) + b"\n")
    return holes


def _common(one: Spans, other: Spans) -> Spans:
    return one.less(one.less(other))


def _joined(holes: list[VenueHole]) -> list[VenueHole]:
    """Return holes with those that touch, and are settled alike, as one."""
    joined: list[VenueHole] = []
    for hole in holes:
        last = joined[-1] if joined else None
        if last and last.settled and hole.settled and (last.end, last.reason) == (hole.start, hole.reason):
            joined[-1] = msgspec.structs.replace(
                hole,
                start=last.start,
                asked=max(last.asked, hole.asked),
                last_asked=max(last.last_asked, hole.last_asked),
                first_asked=min(last.first_asked, hole.first_asked),
            )
        else:
            joined.append(hole)
    return joined
