"""Holes that are the venue's own: asked for more than once and never given, kept as JSON beside the bars."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import msgspec

from lstm_strategy.atomic import atomic_write
from lstm_strategy.bars import Timeframe, format_ns, parse_ns
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.sources.spans import Span, Spans
from lstm_strategy.sources.store import RawStore

__all__ = ["Reason", "VenueHole", "known_holes", "read_holes", "record_holes", "spans_of"]

_NAME = "holes.json"

type Reason = Literal["empty", "withheld"]


class VenueHole(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Opening times [start, end) for which the venue gave no bars.

    ``reason``: ``empty`` (it has none: not listed yet, halted, no trade), ``withheld`` (it has, but gives only its
    newest bars). ``asked``: in how many runs; ``last_asked``: the date of the last.
    """

    start: str
    end: str
    reason: Reason
    asked: int
    last_asked: str

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
    """Return every recorded hole of a store by instrument and timeframe: spans of opening times, ns UTC."""
    found = {entry: list(spans_of(read_holes(store.folder(*entry)))) for entry in store.entries()}
    return {entry: spans for entry, spans in found.items() if spans}


def spans_of(holes: list[VenueHole]) -> Spans:
    """Return the time that holes take."""
    return Spans(hole.span for hole in holes)


def record_holes(folder: Path, held: Spans, found: dict[Reason, Spans]) -> list[VenueHole]:
    """Add what a run found missing to what was recorded, less what is held by now; return all there is then."""
    before = read_holes(folder)
    today = datetime.now(UTC).strftime("%Y-%m-%d")
    news = Spans(span for spans in found.values() for span in spans)
    after: list[tuple[tuple[int, int], VenueHole]] = []

    def add(spans: Spans, reason: Reason, asked: int, last_asked: str) -> None:
        for start, end in spans.less(held):
            hole = VenueHole(format_ns(start), format_ns(end), reason, asked, last_asked)
            after.append(((start, end), hole))

    for hole in before:
        add(Spans([hole.span]).less(news), hole.reason, hole.asked, hole.last_asked)
    for reason, spans in found.items():
        for span in spans:
            times = [hole.asked for hole in before if hole.span[0] < span[1] and span[0] < hole.span[1]]
            add(Spans([span]), reason, max(times, default=0) + 1, today)
    holes = [hole for _, hole in sorted(after, key=lambda one: one[0])]
    if holes != before:
        with atomic_write(folder / _NAME) as temporary:
            temporary.write_bytes(msgspec.json.format(msgspec.json.encode(holes), indent=1) + b"\n")
    return holes
