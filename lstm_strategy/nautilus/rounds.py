"""Rounds: the bars of several names that closed together, complete or not; no engine, no clock."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from lstm_strategy.bars import Bar
from lstm_strategy.forecast import Forecast
from lstm_strategy.sizing import Trained

__all__ = ["Arrival", "Round", "Rounds", "Speaker"]


class Speaker(NamedTuple):
    """Whose forecast one is, and what is believed of it: the training that goes with it, and with no other."""

    version: str
    trained: Trained
    bars_per_year: float
    closed_ns: int


@dataclass(frozen=True, slots=True)
class Arrival:
    """One name's bar, with the forecast made at it; ``waiting`` while earlier bars are on their way.

    ``outside_range``, ``step`` and ``speaker`` are as they were at this bar: the forecaster may have gone on when the
    close is decided, and another model have taken its place.
    """

    bar: Bar
    forecast: Forecast | None
    waiting: bool = False
    outside_range: bool = False
    step: Any = None
    speaker: Speaker | None = None


@dataclass(slots=True)
class Round:
    """What has come of one close, by name."""

    ts_close: int
    arrived: dict[str, Arrival] = field(default_factory=dict)


class Rounds:
    """Sorts bars into rounds; each is decided once, whatever order its bars come in.

    Parameters
    ----------
    names : tuple of str
        Whose bars make a round complete.

    Attributes
    ----------
    open : Round or None
        What is being collected.
    decided_ts : int
        The last close that was decided; bars of it and of earlier ones came too late for a decision.
    """

    def __init__(self, names: tuple[str, ...]) -> None:
        self.open: Round | None = None
        self.decided_ts = 0
        self._names = frozenset(names)
        self._last: Round | None = None

    def add(self, name: str, arrival: Arrival) -> tuple[Round, ...]:
        """Take one bar; return the rounds to be decided now: one that a later close has ended, one that is complete.

        A name whose history came just after its round was decided without it completes that round once more, so that
        the start does not cost a bar.
        """
        ts_close, last = arrival.bar.ts_close, self._last
        if ts_close <= self.decided_ts:
            if last is None or ts_close != last.ts_close or self.open is not None:
                return ()
            before = last.arrived.get(name)
            if before is None or not before.waiting or arrival.waiting:
                return ()
            last.arrived[name] = arrival
            again = not any(other.waiting for other in last.arrived.values())
            return (last,) if again and self._complete(last) else ()
        due: list[Round] = []
        if self.open is not None and ts_close > self.open.ts_close:
            due += self.end()
        if self.open is None:
            self.open = Round(ts_close)
        if ts_close < self.open.ts_close:  # of a round that nobody opened in time
            return ()
        self.open.arrived[name] = arrival
        if self._complete(self.open):
            due += self.end()
        return tuple(due)

    def end(self) -> tuple[Round, ...]:
        """Close the open round: who has not come is absent."""
        ended = self.open
        if ended is None:
            return ()
        self.open, self._last, self.decided_ts = None, ended, ended.ts_close
        return (ended,)

    def _complete(self, one: Round) -> bool:
        return self._names <= one.arrived.keys()
