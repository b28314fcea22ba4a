"""Spans: which stretches of time are held, and which are still missing, as sorted half-open pairs of stamps."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator

import numpy as np

from lstm_strategy.bars import Stamps

__all__ = ["Span", "Spans"]

type Span = tuple[int, int]


class Spans:
    """Disjoint ``[start, end)``, sorted; those that touch are one."""

    def __init__(self, spans: Iterable[Span] = ()) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        for start, end in spans:
            self.add(start, end)

    @classmethod
    def of(cls, starts: Stamps, step: int) -> Spans:
        """Return what bars that open at ``starts`` (sorted) and last ``step`` cover."""
        found = cls()
        if len(starts):
            breaks = np.flatnonzero(np.diff(starts) > step)
            found._starts = starts[np.concatenate([[0], breaks + 1])].tolist()
            found._ends = (starts[np.concatenate([breaks, [len(starts) - 1]])] + step).tolist()
        return found

    def add(self, start: int, end: int) -> None:
        """Put ``[start, end)`` in."""
        if start >= end:
            return
        first = bisect_left(self._ends, start)
        last = bisect_right(self._starts, end)
        if first < last:
            start, end = min(start, self._starts[first]), max(end, self._ends[last - 1])
        self._starts[first:last] = [start]
        self._ends[first:last] = [end]

    def missing(self, start: int, end: int) -> Spans:
        """Return what of ``[start, end)`` is in none of these."""
        gaps = Spans()
        at = bisect_right(self._ends, start)
        while start < end:
            stop = self._starts[at] if at < len(self._starts) else end
            if start < stop:
                gaps._starts.append(start)
                gaps._ends.append(min(stop, end))
            if at == len(self._starts):
                break
            start, at = self._ends[at], at + 1
        return gaps

    def less(self, other: Spans) -> Spans:
        """Return what is in these and not in ``other``."""
        left = Spans()
        for start, end in self:
            for gap in other.missing(start, end):
                left.add(*gap)
        return left

    def from_(self, start: int) -> Span | None:
        """Return the first span that reaches beyond ``start``, cut off there."""
        at = bisect_right(self._ends, start)
        return None if at == len(self._starts) else (max(start, self._starts[at]), self._ends[at])

    @property
    def length(self) -> int:
        """The sum of all."""
        return sum(self._ends) - sum(self._starts)

    @property
    def start(self) -> int:
        """Of the first; there must be one."""
        return self._starts[0]

    @property
    def end(self) -> int:
        """Of the last; there must be one."""
        return self._ends[-1]

    def __len__(self) -> int:
        return len(self._starts)

    def __iter__(self) -> Iterator[Span]:
        return iter(list(zip(self._starts, self._ends, strict=True)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Spans) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]
