"""Model hot-swap: a registry's current version, warmed and tried beside the one that trades, then put in its place."""

from __future__ import annotations

import time
from collections import deque
from contextlib import suppress
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any, Protocol

from lstm_strategy.bars import Bar, Bars, format_ns
from lstm_strategy.errors import LSTMStrategyError, first_line_of
from lstm_strategy.nautilus.background import Task
from lstm_strategy.nautilus.engine import BarType, loud, on_loop
from lstm_strategy.nautilus.model import Model
from lstm_strategy.nautilus.parity import Monitor
from lstm_strategy.nautilus.registry import Registry
from lstm_strategy.nautilus.session import Stream, open_successor
from lstm_strategy.parity import Parity

__all__ = ["FollowSettings", "Swap"]

_TICK_NS = 20_000_000  # between two slices of a warm-up
_KEPT = 16  # of what was said
_SLICE_S, _FIRST_SLICE, _LARGEST_SLICE = 0.001, 4, 256  # few bars at first: one of a wide network takes a millisecond


class FollowSettings(Protocol):
    """The part of the settings that says whose current version trades (see `TradingConfig`)."""

    @property
    def model(self) -> str: ...
    @property
    def follow(self) -> bool: ...
    @property
    def follow_poll_s(self) -> float: ...
    @property
    def shadow_bars(self) -> int: ...


class Swap:
    """Follows the registry that the strategy's model lies in, without a restart and without a bar left out.

    Looked at every ``follow_poll_s``, another current version is loaded and verified in a thread; warmed on the bars
    that parity holds, a millisecond at a time on a timer; run in shadow for ``shadow_bars`` bars, in which it must
    forecast; and put in the place of the other between two bars. One that is refused is told once, and tried again
    only when its files have changed; the other trades on. What an adaptive calibration has learned of the old model
    is not the new one's: it learns on the bars held.

    Attributes
    ----------
    swaps : int
        How often another version has begun to speak.
    longest_s : float
        Seconds of the longest slice of a warm-up.
    told : int
        How often something was said that a person should know, such as of a version that is refused.
    said : deque of str
        The last of it.
    """

    def __init__(
        self, owner: Any, stream: Stream, bar_type: BarType, settings: FollowSettings, monitor: Monitor
    ) -> None:
        if settings.follow and (not settings.follow_poll_s > 0.0 or settings.shadow_bars < 1):
            told = f"follow_poll_s is {settings.follow_poll_s}, shadow_bars {settings.shadow_bars}"
            raise LSTMStrategyError(f"{told}; they must be above 0, and 1 or above")
        self.swaps, self.longest_s = 0, 0.0
        self.told, self.said = 0, deque[str](maxlen=_KEPT)
        self._owner, self._stream, self._settings, self._monitor = owner, stream, settings, monitor
        self._timer, self._ticker = (f"{owner.id}-{what}-{bar_type}" for what in ("follow", "warm"))
        self._registry = Registry(settings.model)
        self._pointer_problem = ""
        self._task: Task | None = None
        self._armed = ""  # the timer of the next tick
        self._folder: Path | None = None  # of the version on its way
        self._model: Model | None = None
        self._parity: Parity | None = None
        self._blank, self._warm, self._warmed_ts, self._slice = b"", False, 0, _FIRST_SLICE
        self._mended = self._shadowed = 0

        if stream.passed_over:  # told once, until its files change
            with suppress(LSTMStrategyError, OSError):
                here = self._registry.current()
                self._registry.look_at(here)
                self._registry.refuse(here)
            self._say(stream.passed_over)

    def start(self) -> None:
        """Follow, where the settings say so."""
        clock = self._owner.clock
        if self._settings.follow and self._timer not in clock.timer_names:
            interval = timedelta(seconds=self._settings.follow_poll_s)
            clock.set_timer(self._timer, interval, callback=on_loop(clock, self._on_poll))

    def stop(self) -> None:
        """Follow no longer; whoever was on the way is given up."""
        self._drop()
        self._cancel(self._timer)

    def fail(self, where: str, error: Exception) -> None:
        """Stop the strategy because of ``error``, raised in ``where``."""
        self._owner.fail(where, error)

    def turn(self) -> None:
        """Let the next model speak from the coming bar on, if it is due."""
        model, parity, watched = self._model, self._parity, self._monitor.parity
        if model is None or parity is None or not self._warm or self._shadowed < self._settings.shadow_bars:
            return
        if watched is None or {"missing", "revised"} & watched.problems.keys():  # its bars are about to be others
            return
        if watched.mended != self._mended:  # they are others, and it has not taken them
            self._warm_anew(model)
            return
        try:
            self._monitor.go_on(parity)
        except Exception as error:
            self._refuse(_told(error))
            return
        before, self._stream.model = self._stream.model, model
        self.swaps += 1
        self._owner.log.warning(f"Model {model.label} speaks from the next bar on, in the place of {before.label}")
        self._drop()

    def past(self, bars: Bars) -> None:
        """Take a history that the forecaster takes at once."""
        if self._warm and self._model is not None:
            try:
                self._model.forecaster.warm_up(bars)
            except Exception as error:
                self._refuse(_told(error))

    def took(self, bar: Bar) -> None:
        """Take a bar in shadow."""
        self.start()
        if self._model is not None and self._warm:
            try:
                self._shadow(self._model, bar)
            except Exception as error:
                self._refuse(_told(error))

    def _shadow(self, model: Model, bar: Bar) -> None:
        parity = self._monitor.parity
        if parity is None or parity.mended != self._mended:  # the bars of its past are others now
            self._warm_anew(model)
            return
        forecast = model.forecaster.update(bar)
        if forecast is None:
            self._shadowed = 0
        elif not model.may_say(forecast):
            self._refuse(f"it forecasts no numbers, or no order of them, at {format_ns(bar.ts_close)}")
        else:
            self._shadowed += 1

    @loud
    def _on_poll(self, _event: Any) -> None:
        """Look which version is current."""
        try:
            wanted = self._registry.current()
        except (LSTMStrategyError, OSError) as error:
            if str(error) != self._pointer_problem:
                self._say(f"{error}; {self._stream.model.label} trades on")
            self._pointer_problem = str(error)
            return
        self._pointer_problem = ""
        if f"{wanted.parent.name}/{wanted.name}" == self._stream.model.label:
            self._drop()
        elif wanted == self._folder:
            self._tick()
        elif isinstance(self._stream.model, Model) and not self._registry.refused(wanted):
            self._drop()
            self._load(wanted, self._stream.model)

    def _load(self, folder: Path, running: Model) -> None:
        settings, monitor = self._settings, self._monitor
        self._registry.look_at(folder)

        def work() -> tuple[Model, Parity]:
            model = open_successor(settings, folder, running)
            return model, monitor.parity_of(model.forecaster)

        self._folder, self._task = folder, Task(work)
        self._tick()

    def _tick(self) -> None:
        """Go on with the warm-up in a few milliseconds; while bars are awaited, at the next look at the registry."""
        clock = self._owner.clock
        waits = self._model is not None and self._waits(self._model)
        if not self._warm and not waits and not self._armed:
            taken = set(clock.timer_names)  # the clock may hold a timer's name for a moment after it has fired
            self._armed = next(name for n in count() if (name := f"{self._ticker}-{n}") not in taken)
            clock.set_time_alert_ns(self._armed, clock.timestamp_ns() + _TICK_NS, on_loop(clock, self._on_tick))

    @loud
    def _on_tick(self, event: Any) -> None:
        if event.name != self._armed:  # it was on its way when its version was given up
            return
        self._armed = ""
        try:
            self._go_on()
        except Exception as error:
            self._refuse(_told(error))

    def _go_on(self) -> None:
        task = self._task
        if task is not None:
            if not task.done:
                self._tick()
                return
            self._task = None
            if task.error is not None:
                self._refuse(_told(task.error))
                return
            self._model, self._parity = task.found
            self._blank = self._model.forecaster.state()
            self._owner.log.info(f"Model {self._model.label} is verified and warms up")
            self._warm_anew(self._model)
        elif self._model is not None and not self._warm:  # a tick may be late
            self._warm_up(self._model)
            self._tick()

    def _warm_anew(self, model: Model) -> None:
        parity = self._monitor.parity
        model.forecaster.restore(self._blank)
        self._mended = 0 if parity is None else parity.mended
        self._warm, self._shadowed, self._warmed_ts = False, 0, 0
        self._tick()

    def _warm_up(self, model: Model) -> None:
        """Take the next bars held; with the last of them the model stands beside the one that trades."""
        parity, forecaster = self._monitor.parity, model.forecaster
        if parity is None:
            return
        if parity.mended != self._mended:
            self._warm_anew(model)
            return
        if self._waits(model):
            return
        began = time.perf_counter()
        bars = parity.bars_after(self._warmed_ts, self._slice)
        if bars is not None:
            forecaster.warm_up(bars)
            self._warmed_ts = int(bars.ts_close[-1])
        took = time.perf_counter() - began
        self.longest_s = max(self.longest_s, took)
        if bars is None:
            self._warm = True
            self._owner.log.info(f"Model {model.label} runs in shadow for {self._settings.shadow_bars} bars")
        elif len(bars) == self._slice:
            wanted = int(self._slice * _SLICE_S / max(took, 1e-6))
            self._slice = min(max(wanted, 1), 2 * self._slice, _LARGEST_SLICE)

    def _waits(self, model: Model) -> bool:
        """Say whether the bars held are too few for a warm-up with half of one to spare, and have more asked for."""
        parity, bars = self._monitor.parity, model.forecaster.warmup_bars
        if parity is None:
            return True
        parity.keep = max(parity.keep, 2 * bars)
        parity.too_few = self._warmed_ts == 0 and parity.bars_held < bars * 3 // 2
        return parity.too_few

    def _refuse(self, why: str) -> None:
        folder = self._folder
        if folder is not None:
            self._registry.refuse(folder)
            label = f"{folder.parent.name}/{folder.name}"
            self._say(f"Model {label} is refused: {why}; {self._stream.model.label} trades on")
        self._drop()

    def _say(self, text: str) -> None:
        self._owner.log.warning(text)
        self.told += 1
        self.said.append(text)

    def _drop(self) -> None:
        """Give up whoever is on the way."""
        if self._armed:
            self._cancel(self._armed)
        self._armed = ""
        if self._monitor.parity is not None:
            self._monitor.parity.too_few = False
        self._task = self._folder = None
        self._model = self._parity = None
        self._blank, self._warm, self._warmed_ts, self._slice = b"", False, 0, _FIRST_SLICE
        self._mended = self._shadowed = 0

    def _cancel(self, timer: str) -> None:
        if timer in self._owner.clock.timer_names:
            self._owner.clock.cancel_timer(timer)


def _told(error: Exception) -> str:
    text = first_line_of(error)
    return text if isinstance(error, LSTMStrategyError) else f"{type(error).__name__}: {text}"
