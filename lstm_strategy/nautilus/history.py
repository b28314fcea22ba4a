"""Bars as the engine delivers them: put on the timeframe's grid; those that are missing asked for and merged."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from nautilus_trader.trading.strategy import Strategy

from lstm_strategy.bars import Bar, Bars, BarsError, Timeframe, format_ns
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.nautilus.engine import BarType, EngineBar, loud, on_loop
from lstm_strategy.nautilus.pace import LEAST_S
from lstm_strategy.nautilus.turns import Turns

__all__ = ["Backfill", "History", "of_the_future", "on_grid", "timeframe_of", "to_bar", "to_bars"]

_CLOCKS_NS = 60_000_000_000
_UNITS = tuple(10.0**precision for precision in range(19))


def on_grid(ts: int, timeframe: Timeframe) -> int | None:
    """Return the grid stamp nearest to ``ts``, or None where it is further than 1 % of a bar.

    Venues stamp a close up to a millisecond early (… 59.999) and with rounding errors.
    """
    nearest = (ts + timeframe.ns // 2) // timeframe.ns * timeframe.ns
    return nearest if abs(ts - nearest) <= timeframe.ns // 100 else None


def of_the_future(ts_close: int, now: int, last: int | None, timeframe: Timeframe) -> bool:
    """Say whether a bar closes later than any can: by more than a bar after both the clock and the bar before it.

    Taken, such a stamp would make every right bar a late one. A minute is given to clocks that differ.
    """
    return ts_close > max(now, last or 0) + max(timeframe.ns, _CLOCKS_NS)


def to_bar(bar: EngineBar, ts_close: int) -> Bar:
    """Return our bar with the doubles nearest to the decimal prices.

    The engine's own conversion rounds twice and is off by one unit in the last place for a quarter of all prices:
    enough for live features to differ from those of the raw history.

    Raises
    ------
    BarsError
        For prices that cannot be.
    """
    close, volume = bar.close, bar.volume
    price_unit, size_unit = _UNITS[close.precision], _UNITS[volume.precision]
    o = round(bar.open.as_double() * price_unit) / price_unit
    h = round(bar.high.as_double() * price_unit) / price_unit
    l = round(bar.low.as_double() * price_unit) / price_unit  # noqa: E741
    c = round(close.as_double() * price_unit) / price_unit
    if not (0.0 < l <= o <= h and l <= c <= h):
        raise BarsError(f"the bar closed at {format_ns(ts_close)} has impossible prices: {bar}")
    return Bar(ts_close, o, h, l, c, round(volume.as_double() * size_unit) / size_unit)


def to_bars(instrument_id: str, timeframe: Timeframe, bars: Iterable[Bar]) -> Bars:
    """Return the bars as arrays, validated."""
    columns = np.array(list(bars), dtype=object).reshape(-1, 6).T
    return Bars(instrument_id, timeframe, columns[0].astype(np.int64), *(c.astype(np.float64) for c in columns[1:]))


class History:
    """What arrives before the warm-up is complete: late, repeated, out of order. The last word on a stamp counts."""

    def __init__(self) -> None:
        self.answered = False  # or else somebody has lost patience
        self._past: dict[int, Bar] = {}
        self._live: dict[int, Bar] = {}

    def add_past(self, bar: Bar) -> None:
        """Keep a bar of the requested history."""
        self._past[bar.ts_close] = bar

    def add_live(self, bar: Bar) -> None:
        """Keep a live bar that came before the history did."""
        self._live[bar.ts_close] = bar

    @property
    def live_bars(self) -> int:
        """How many live bars are waiting."""
        return len(self._live)

    @property
    def newest_live(self) -> int | None:
        """The close of the newest live bar that is waiting."""
        return max(self._live, default=None)

    def past_until(self, ts_close: int | None) -> list[Bar]:
        """Return the bars of the history up to one; none where that is None."""
        return [] if ts_close is None else [self._past[ts] for ts in sorted(self._past) if ts <= ts_close]

    def merged(self, after: int | None) -> tuple[list[Bar], list[Bar]]:
        """Return history and, separately, the live bars later than it; sorted, unique, later than ``after``.

        The newest live bar stays one, even where the history holds it too: it is there to be decided upon.
        """
        edge = -1 if after is None else after
        newest = max(self._live, default=None)
        past = [self._past[ts] for ts in sorted(self._past) if ts > edge and (newest is None or ts < newest)]
        edge = past[-1].ts_close if past else edge
        return past, [self._live[ts] for ts in sorted(self._live) if ts > edge]


class Backfill:
    """Asks for missing bars, and waits a bounded time while they are on their way.

    Answers may come at once, late, more than once, or never. A request that is not answered within ``timeout_s`` wall
    seconds is repeated; after ``attempts`` of them the bars that came by themselves must do. Who waits for a turn waits
    as long as the venue answers others.

    Parameters
    ----------
    turns : Turns
        All who ask the venue with this strategy's name.
    on_done : callable
        Given the `History` that came together, once.

    Attributes
    ----------
    history : History or None
        What is being collected; None where nothing is missing.
    """

    def __init__(
        self,
        strategy: Strategy,
        bar_type: BarType,
        turns: Turns,
        *,
        timeout_s: float,
        attempts: int,
        on_done: Callable[[History], None],
    ) -> None:
        self.history: History | None = None
        self._strategy, self._bar_type, self._on_done = strategy, bar_type, on_done
        self._timeout_s, self._attempts = timeout_s, attempts
        self._turns = turns
        self._since = self._asked = self._silent = self._answers = self._early_ns = 0
        self._timer = f"{strategy.id}-history-{bar_type}"

    def ask(self, since: int, *first_live: Bar) -> None:
        """Ask for the bars from ``since`` on; ``first_live`` is what showed that they are missing."""
        self.history = History()
        for bar in first_live:
            self.history.add_live(bar)
        self._since, self._asked = since, 0
        self._silent, self._answers = 0, self._turns.answers
        self._turns.take(self, self._go)
        if self.history is not None and self._turns.waits(self):
            self._wait()

    def stop(self) -> None:
        """Wait no longer."""
        self.history = None
        self._still()
        self._turns.leave(self)

    def finish(self) -> None:
        """Go on with what has come."""
        history = self.history
        self.stop()
        if history is not None:
            self._on_done(history)

    def fail(self, where: str, error: Exception) -> None:
        """Stop the strategy because of ``error``, raised in ``where``."""
        self._strategy.fail(where, error)

    def _go(self) -> None:
        """Ask, now that it is our turn, and wait from now on."""
        if self.history is not None:
            self._request(self.history)
        if self.history is not None:  # not answered at once, as it is in a backtest
            self._wait()

    def _wait(self) -> None:
        """Look again after a while; whoever asks beside others shares the machine with them."""
        self._still()
        clock, crowd = self._strategy.clock, self._turns.crowd
        interval = timedelta(seconds=self._strategy.pace.wall_s(self._timeout_s, least=LEAST_S * crowd))
        self._early_ns = clock.timestamp_ns() + round(interval.total_seconds() * 5e8)
        clock.set_timer(self._timer, interval, callback=on_loop(clock, self._on_timeout))

    def _still(self) -> None:
        if self._timer in self._strategy.clock.timer_names:
            self._strategy.clock.cancel_timer(self._timer)

    def _request(self, history: History) -> None:
        self._asked += 1
        start = datetime.fromtimestamp(max(self._since, 0) / 1e9, UTC)
        # The answer to an earlier question must not end the waiting for this one.
        self._strategy.request_bars(self._bar_type, start=start, callback=lambda _id: self._on_answer(history))

    @loud
    def _on_answer(self, history: History) -> None:
        if history is self.history:
            history.answered = True
            self._turns.leave(self, answered=True)
            self.finish()

    @loud
    def _on_timeout(self, event: Any) -> None:
        if self.history is None or event.ts_event < self._early_ns:  # of a wait before this one
            return
        turns, log = self._turns, self._strategy.log
        what = f"No history of {self._bar_type} after {self._asked} requests"
        if turns.waits(self):
            silent, self._answers = turns.answers == self._answers, turns.answers
            self._silent = self._silent + 1 if silent else 0
            if self._silent < self._attempts:
                turns.move_on()
                return
        elif self._asked < self._attempts:
            log.warning(f"{what}; asking again")
            turns.take(self, self._go)
            if turns.waits(self):
                self._wait()
            return
        log.error(f"{what}; going on with live bars alone")
        self.finish()


def timeframe_of(bar_type: BarType) -> Timeframe:
    """Return the timeframe of a bar type; refuse ticks, volumes and the like."""
    units = {"SECOND": "s", "MINUTE": "m", "HOUR": "h", "DAY": "d"}
    text = str(bar_type).removeprefix(f"{bar_type.instrument_id}-").split("-")
    if text[1] not in units:
        raise LSTMStrategyError(f"bar_type {bar_type} is not made of seconds, minutes, hours or days")
    return Timeframe.parse(text[0] + units[text[1]])
