"""The parity monitor: watches one forecaster on the engine, asks the venue what it says of bars used, and tells."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any, Protocol

from lstm_strategy.bars import Bar, Bars
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.forecast import Forecast
from lstm_strategy.forecaster import Forecaster
from lstm_strategy.nautilus.engine import BarType
from lstm_strategy.nautilus.session import Stream
from lstm_strategy.nautilus.turns import Turns, turns_of
from lstm_strategy.parity import Parity

__all__ = ["Monitor", "ParitySettings"]


class ParitySettings(Protocol):
    """The part of the settings that parity is proved by (see `TradingConfig`)."""

    @property
    def parity_every(self) -> int: ...
    @property
    def parity_tolerance(self) -> float: ...
    @property
    def refill_holes(self) -> bool: ...


class Monitor:
    """Proves parity while bars come in, wherever a forecaster steps; what was recorded has nothing to be proved.

    Every ``parity_every`` bars the venue is asked for the last of them again, where holes are refilled, and for all
    since it has answered last: a bar that it tells otherwise than it was used is a problem until the forecaster goes on
    from what the venue tells now.

    Attributes
    ----------
    parity : Parity or None
    """

    def __init__(
        self,
        owner: Any,
        stream: Stream,
        bar_type: BarType,
        settings: ParitySettings,
        turns: Turns | None = None,
        phase: int = 0,
    ) -> None:
        if settings.parity_every < 1 or not 1e-5 < settings.parity_tolerance <= 0.1:
            told = f"parity_every is {settings.parity_every}, parity_tolerance {settings.parity_tolerance}"
            raise LSTMStrategyError(f"{told}; they must be 1 bar or more, and above 0.00001, at most 0.1")
        self.parity: Parity | None = None
        self._owner, self._stream, self._bar_type, self._settings = owner, stream, bar_type, settings
        self._turns, self._phase = turns or turns_of(owner), phase % settings.parity_every
        self._told, self._since_audit, self._audits = "", self._phase, 0
        self._heard_ts = 0  # before it, the venue has told what it says of the bars used

    @property
    def proved(self) -> bool:
        """Whether forecasts may lead to new risk."""
        return self.parity is None or self.parity.proved

    def start(self) -> None:
        """Begin with the stream's model, which has seen no bar, or goes on from a snapshot."""
        forecaster = self._stream.model.forecaster
        if isinstance(forecaster, Forecaster):
            self.parity = self.parity_of(forecaster)
            if forecaster.last_ts is not None:
                self.parity.restored()

    def parity_of(self, forecaster: Forecaster) -> Parity:
        """Return the proof of a forecaster that has seen no bar; it takes as long as to make one."""
        settings = self._settings
        return Parity(forecaster, every=settings.parity_every, tolerance=settings.parity_tolerance, phase=self._phase)

    def stop(self) -> None:
        """Ask for nothing more."""
        self._turns.leave(self)

    def go_on(self, parity: Parity) -> None:
        """Prove another forecaster from now on, which has been warmed on the bars held."""
        parity.restored(self.parity)
        self.parity = parity

    def past(self, bars: Bars) -> None:
        """Take a history that the forecaster takes at once."""
        if self.parity is not None:
            self.parity.past(bars)

    def took(self, bar: Bar, forecast: Forecast | None, ts_now: int) -> None:
        """Check after a bar that the forecaster has taken."""
        parity, settings = self.parity, self._settings
        if parity is None:
            return
        parity.took(bar, math.nan if forecast is None else forecast.position)
        self._tell()
        self._since_audit += 1
        self._heard_ts = self._heard_ts or bar.ts_close
        if settings.refill_holes and (parity.wants_past or self._since_audit >= settings.parity_every):
            self._audit(parity, ts_now)

    def told(self, bar: Bar, *, final: bool = False) -> None:
        """Hear what the venue says of a bar that was used, or should have been.

        Of the newest it counts where it is ``final``: streamed, or in a history that goes on after it; else a history
        may lag behind the stream.
        """
        if self.parity is not None:
            if final:
                self.parity.retold(bar)
            self.parity.told(bar)
            self._tell()

    def missed(self, before: int) -> None:
        """Note a hole that nobody has answered for."""
        if self.parity is not None:
            self.parity.missed(before)
            self._tell()

    def _audit(self, parity: Parity, ts_now: int) -> None:
        """Ask for the last bars, and, where some are missing or too few, for all that should be held."""
        if self._turns.waits(self):  # for its turn
            return
        whole = parity.wants_past
        bars = parity.keep if whole else 2 * self._settings.parity_every
        self._since_audit, self._audits = 0, self._audits + 1
        bar_ns, audit = self._stream.timeframe.ns, self._audits
        if not whole:
            bars = min(max(bars, (ts_now - self._heard_ts) // bar_ns + 1), parity.keep)
        since = max(ts_now - (bars + 1) * bar_ns, 0)

        def on_answer(_: Any) -> None:
            self._turns.leave(self, answered=True)
            parity.mend()
            self._heard_ts = max(self._heard_ts, ts_now - bar_ns)  # of the newest it has not had the last word
            if whole and audit == self._audits and self.parity is parity:
                parity.nothing_more()
                self._tell()

        start = datetime.fromtimestamp(since / 1e9, UTC)

        def ask() -> None:
            self._owner.request_bars(self._bar_type, start=start, callback=on_answer)

        self._turns.take(self, ask, can_wait=True)

    def _tell(self) -> None:
        """Say once what is wrong, and that it is over."""
        text = "" if self.parity is None else "; ".join(self.parity.problems.values())
        if text and text != self._told:
            self._owner.log.error(f"Parity is not proved, and no new risk is taken: {text}")
        elif self._told and not text:
            self._owner.log.info("Parity is proved again")
        self._told = text
