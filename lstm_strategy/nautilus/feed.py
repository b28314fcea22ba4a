"""One instrument's bars, past and live, each taken once and in time order, with the forecast made at each."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any, Protocol

from lstm_strategy.bars import Bar, BarsError, format_ns
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.forecast import Forecast
from lstm_strategy.forecaster import Forecaster
from lstm_strategy.nautilus.engine import BarType, EngineBar, loud
from lstm_strategy.nautilus.history import Backfill, History, of_the_future, on_grid, to_bar, to_bars
from lstm_strategy.nautilus.model import Model, ScheduledModel
from lstm_strategy.nautilus.parity import Monitor, ParitySettings
from lstm_strategy.nautilus.session import Stream
from lstm_strategy.nautilus.stamps import require_stamped_at_close
from lstm_strategy.nautilus.swap import FollowSettings, Swap
from lstm_strategy.nautilus.turns import Turns, turns_of

__all__ = ["Closed", "Feed", "HistorySettings"]


class Closed(Protocol):
    """Told of each live bar that closed: ``waiting`` while earlier ones are on their way, and then no forecast."""

    def __call__(self, bar: Bar, forecast: Forecast | None, *, waiting: bool) -> None:
        """Decide, or hold."""


class HistorySettings(ParitySettings, FollowSettings, Protocol):
    """The part of a strategy's settings that says how history is asked for (see `LSTMStrategyConfig`)."""

    @property
    def history_timeout_s(self) -> float: ...
    @property
    def history_attempts(self) -> int: ...


class Feed:
    """Streams one instrument through its forecaster.

    Repeated and late bars are left out, those that cannot be count as missing, holes are asked for.

    Parameters
    ----------
    on_closed : callable
        Told of the newest bar, once each; of earlier ones that came while history was on its way not again.
    on_past : callable
        Given the bars of a history, before the forecaster takes them.
    least_ns : int
        Time before now from which bars are asked for, where the model itself needs less.
    turns : Turns, optional
        Shared by all instruments of a strategy, so that their requests do not come all at once.
    phase : int
        How many bars before another's its parity is looked at: of many names not all at one close.

    Attributes
    ----------
    armed : bool
        Whether the forecaster was ever ready.
    took_s : float
        Seconds that the last forecast took; NaN before the first.
    """

    def __init__(
        self,
        strategy: Any,
        session: Stream,
        bar_type: BarType,
        settings: HistorySettings,
        *,
        on_closed: Closed,
        on_past: Callable[[list[Bar]], None] | None = None,
        least_ns: int = 0,
        turns: Turns | None = None,
        phase: int = 0,
    ) -> None:
        self.armed, self.took_s = False, math.nan
        self._heard = False  # a live bar
        self.ignored = ""  # what was said last of a bar of the future
        self._strategy, self._session, self._bar_type = strategy, session, bar_type
        self._on_closed, self._on_past, self._least_ns = on_closed, on_past, least_ns
        self._refill, self._first_ts = settings.refill_holes, 0
        turns = turns or turns_of(strategy, settings.history_timeout_s)
        self._monitor = Monitor(strategy, session, bar_type, settings, turns, phase)
        self._swap = Swap(strategy, session, bar_type, settings, self._monitor)
        self._backfill = Backfill(
            strategy,
            bar_type,
            turns,
            timeout_s=settings.history_timeout_s,
            attempts=settings.history_attempts,
            on_done=self._on_history,
        )

    @property
    def collecting(self) -> bool:
        """Whether earlier bars are on their way."""
        return self._backfill.history is not None

    @property
    def model(self) -> Model | ScheduledModel:
        """Whose forecasts these are."""
        return self._session.model

    @property
    def swap(self) -> Swap:
        """What puts another model in its place."""
        return self._swap

    @property
    def monitor(self) -> Monitor:
        """What proves them."""
        return self._monitor

    @property
    def proved(self) -> bool:
        """Whether parity of what is stepped with what is made offline is proved, where anything is stepped."""
        return self._monitor.proved

    @property
    def progress(self) -> tuple[int | None, int, int]:
        """The last bar taken, the bars of a warm-up, and how many of them are still to come."""
        forecaster = self._session.model.forecaster
        needed = forecaster.warmup_bars
        taken = forecaster.features.count if isinstance(forecaster, Forecaster) else needed
        return forecaster.last_ts, needed, max(needed - taken, 0)

    def start(self, restored: bytes | None) -> None:
        """Go on from a snapshot where there is one; subscribe, then ask for history."""
        strategy, forecaster = self._strategy, self._session.model.forecaster
        if restored is not None:
            try:
                forecaster.restore(restored)
            except LSTMStrategyError as error:
                strategy.log.warning(f"{error}; warming up from history")
        self._monitor.start()
        strategy.subscribe_bars(self._bar_type)
        self._ask()
        self._swap.start()

    def stop(self) -> None:
        """Wait for nothing more."""
        self._backfill.stop()
        self._monitor.stop()
        self._swap.stop()

    def fail(self, where: str, error: Exception) -> None:
        """Stop the strategy because of ``error``, raised in ``where``."""
        self._strategy.fail(where, error)

    def add_past(self, data: Any) -> None:
        """Keep a bar of a requested history, or hold it against what was used; anything else is somebody else's."""
        history = self._backfill.history
        if not isinstance(data, EngineBar) or data.bar_type != self._bar_type:
            return
        ts_close = on_grid(data.ts_event, self._session.timeframe)
        # A venue's newest bar may still be forming: it is no bar yet.
        if ts_close is not None and self._first_ts <= ts_close <= self._now():
            try:
                bar = to_bar(data, ts_close)
                if history is None:
                    self._monitor.told(bar)
                else:
                    history.add_past(bar)
            except BarsError as error:
                self._strategy.log.warning(f"Skipped a bar of the history: {error}")

    def add(self, bar: EngineBar) -> None:
        """Take a live bar; while earlier ones are on their way, put it aside."""
        session, backfill, log = self._session, self._backfill, self._strategy.log
        if bar.bar_type != self._bar_type:
            return
        ts_close = on_grid(bar.ts_event, session.timeframe)
        if ts_close is None:
            log.warning(f"Ignored a bar stamped {format_ns(bar.ts_event)}: not a close of {session.timeframe}")
            return
        if not self._heard:
            self._heard = True
            require_stamped_at_close(bar.bar_type, ts_close, self._now(), session.timeframe)
        try:
            closed = to_bar(bar, ts_close)
        except BarsError as error:
            log.warning(f"Skipped, as if it were missing: {error}")
            return
        last_ts = session.model.forecaster.last_ts
        known = last_ts if backfill.history is None else max(last_ts or 0, backfill.history.newest_live or 0)
        if of_the_future(ts_close, self._now(), known, session.timeframe):
            self.ignored = (
                f"Ignored a bar of the future, closed at {format_ns(ts_close)}: is this machine's clock right?"
            )
            log.warning(self.ignored)
            return
        if last_ts is not None and ts_close <= last_ts:
            log.debug(f"Ignored a repeated or late bar of {format_ns(ts_close)}")
            self._monitor.told(closed, final=True)
            return
        if backfill.history is not None:
            backfill.history.add_live(closed)
        elif self._refill and session.misses_bars_before(ts_close):
            log.warning(f"Bars before {format_ns(ts_close)} are missing; asking for them")
            self._ask(closed)
        else:
            self._take(closed, newest=True)
        if backfill.history is None:  # taken
            return
        self._on_closed(closed, None, waiting=True)
        if backfill.history.live_bars > session.model.forecaster.warmup_bars:
            backfill.finish()

    def _ask(self, *first_live: Bar) -> None:
        """Ask for history from the same first bar on, whatever the second, and whichever stamp the source goes by."""
        now, bar_ns = self._now(), self._session.timeframe.ns
        since = self._session.history_from(now)
        # A forecaster that goes on from a snapshot needs only what is new; so does what goes with it.
        if self._session.model.forecaster.last_ts is None:
            self._first_ts = -(-max(min(since, now - self._least_ns), 0) // bar_ns) * bar_ns
            since = self._first_ts - bar_ns  # its open: venues ask by that
        self._backfill.ask(since, *first_live)

    def _now(self) -> int:
        strategy = self._strategy
        return int(strategy.pace.now(strategy.clock.timestamp_ns()))

    @loud
    def _on_history(self, history: History) -> None:
        """Take the history and the live bars that came before it; only the newest bar may lead to an order."""
        session = self._session
        forecaster = session.model.forecaster
        past, live = history.merged(forecaster.last_ts)
        for bar in history.past_until(forecaster.last_ts):
            self._monitor.told(bar, final=bool(past))
        if not history.answered and forecaster.last_ts is not None:
            self._miss([*past, *live])
        if past:
            if self._on_past is not None:
                self._on_past(past)
            known = to_bars(self._bar_type.instrument_id.value, session.timeframe, past)
            self._monitor.past(known)
            forecaster.warm_up(known)
            self._swap.past(known)
        if not forecaster.ready:
            self._strategy.log.warning(
                f"History is too short: {len(past)} bars; the warm-up takes {forecaster.warmup_bars}"
            )
        for bar in live:
            self._take(bar, newest=bar is live[-1])

    def _miss(self, bars: list[Bar]) -> None:
        """Tell of the first hole that is left when nobody has answered."""
        last, longest = self._session.model.forecaster.last_ts, self._session.hole_ns
        for bar in bars:
            if last is not None and bar.ts_close - last > longest:
                self._monitor.missed(bar.ts_close)
                return
            last = bar.ts_close

    def _take(self, bar: Bar, *, newest: bool) -> None:
        """Forecast, and tell where this is the newest bar. Earlier ones were marked to market as they came."""
        self._swap.turn()
        forecaster = self._session.model.forecaster
        began = time.perf_counter()
        try:
            forecast = forecaster.update(bar)
        except BarsError as error:
            self._strategy.log.warning(f"Skipped, as if it were missing: {error}")
            return
        self.took_s = time.perf_counter() - began
        self.armed = self.armed or forecaster.ready
        self._monitor.took(bar, forecast, self._now())
        self._swap.took(bar)
        if newest:
            self._on_closed(bar, forecast, waiting=False)
