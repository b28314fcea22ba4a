"""The strategy of several instruments on one account: decided together, once per close, whatever bar comes first."""

from __future__ import annotations

import math
import traceback
from decimal import Decimal
from typing import Any

import msgspec
import numpy as np

from lstm_strategy.bars import Bar, Float, format_ns
from lstm_strategy.decision import HALTS, Decision, Reason
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.forecast import Forecast
from lstm_strategy.joint_limits import Resting
from lstm_strategy.nautilus.correlations import upper_of
from lstm_strategy.nautilus.engine import EngineBar, loud, on_loop
from lstm_strategy.nautilus.history import timeframe_of
from lstm_strategy.nautilus.idle import Idle
from lstm_strategy.nautilus.joint_close import mark, members_of, shares
from lstm_strategy.nautilus.kept_strategy import KeptStrategy
from lstm_strategy.nautilus.orders import Action
from lstm_strategy.nautilus.portfolio_config import (
    LSTMPortfolioStrategyConfig,
    PanelMember,
    require_one_account,
    sorted_members,
)
from lstm_strategy.nautilus.rounds import Arrival, Round, Rounds
from lstm_strategy.nautilus.seat import Seat
from lstm_strategy.nautilus.turns import Turns, turns_of
from lstm_strategy.panel import Panel, Weighed
from lstm_strategy.portfolio import require_portfolio
from lstm_strategy.state_file import unpack_seats

__all__ = ["LSTMPortfolioStrategy"]

_GRACE_S = 0.25  # of the wall at least: on a busy machine a bar of the same close may be on its way for as long


class LSTMPortfolioStrategy(KeptStrategy):
    """Trades several instruments on one account.

    A close is decided when every name's bar of it has come, or when ``portfolio.grace_s`` have passed since the first
    one did; a later close ends it too. Whose bar is missing is stale: it holds, and takes no new risk. Each order is
    sized by the account as a whole, and purchases of one close share the cash that is there before any sale has filled.

    After an exception every position is closed where `flatten_on_stop` says so, whatever the trouble of one of them.
    """

    def __init__(self, config: LSTMPortfolioStrategyConfig) -> None:
        super().__init__(config)
        self.seats: dict[str, Seat] = {}
        self.correlations: dict[int, Float] = {}
        self._panel: Panel | None = None
        self._rounds, self._bar_ns, self._looked_ts = Rounds(()), 0, 0
        self._closes: dict[int, dict[str, float]] = {}
        self._restored: dict[str, bytes] = {}
        self._started = False
        self._told: dict[str, Reason] = {}
        self._fallen = False

    def on_start(self) -> None:
        """Verify models, instruments and account, then ask for histories; raise any problem here, before any order."""
        settings = self.settings
        self._end_closing()
        members = sorted_members(settings.members)
        require_portfolio(settings.portfolio, settings.sizing)
        bar_ns = timeframe_of(members[0].bar_type).ns
        shared = turns_of(self, settings.history_timeout_s), Idle(self.clock)
        seats = {m.instrument_id.value: self._seat(m, bar_ns, *shared, number) for number, m in enumerate(members)}
        quotes = {self.cache.instrument(m.instrument_id).quote_currency.code for m in members}
        require_one_account(members, quotes, {seat.session.timeframe.text for seat in seats.values()})
        names = tuple(seats)
        resting = Resting(settings.exits.resting, settings.execution.mode != "market")
        self._panel = Panel(names, settings.portfolio, settings.sizing, settings.limits.within_margin, bar_ns, resting)
        self._bar_ns, self._rounds, self.seats = bar_ns, Rounds(names), seats
        self._restored = self.keeper.open() or self._restored
        snapshots = self._restore()
        for name, seat in seats.items():
            seat.feed.start(snapshots.get(name))
        if self.failure is not None:
            raise self.failure
        self._started = True
        self.keeper.begin()

    @property
    def collecting(self) -> bool:
        """Whether bars are on their way: histories, missing ones, or those of a close that is not decided yet."""
        return self._rounds.open is not None or any(seat.feed.collecting for seat in self.seats.values())

    def _seat(self, member: PanelMember, bar_ns: int, turns: Turns, idle: Idle, number: int) -> Seat:
        name = member.instrument_id.value

        def on_closed(bar: Bar, forecast: Forecast | None, *, waiting: bool) -> None:
            self._arrive(name, self.seats[name].arrival(bar, forecast, waiting=waiting))

        def on_past(bars: list[Bar]) -> None:
            for bar in bars:
                self._closes.setdefault(bar.ts_close, {})[name] = bar.close

        least_ns = self.settings.portfolio.warmup_bars * bar_ns
        return Seat(
            self,
            self.settings.of(member),
            on_closed=on_closed,
            on_past=on_past,
            least_ns=least_ns,
            turns=turns,
            idle=idle,
            phase=number,
        )

    def on_historical_data(self, data: Any) -> None:
        """Keep a bar of a requested history."""
        if isinstance(data, EngineBar):
            seat = self.seats.get(data.bar_type.instrument_id.value)
            if seat is not None:
                seat.feed.add_past(data)

    @loud
    def on_bar(self, bar: EngineBar) -> None:
        """Take one name's bar; decide on all where it is the last one of its close."""
        seat = self.seats.get(bar.bar_type.instrument_id.value)
        if seat is not None and self.failure is None:
            if bar.ts_event != self._looked_ts:  # once a close: what is ordered is for all names
                self._looked_ts = bar.ts_event
                self.keeper.look()
            seat.feed.add(bar)

    def _arrive(self, name: str, arrival: Arrival) -> None:
        bar = arrival.bar
        self._closes.setdefault(bar.ts_close, {})[name] = bar.close
        opened = self._rounds.open
        for due in self._rounds.add(name, arrival):
            self._decide(due)
        waiting = self._rounds.open
        if waiting is not None and waiting is not opened:
            grace_ns = max(round(self.pace.wall_s(self.settings.portfolio.grace_s, least=_GRACE_S) * 1e9), 1)
            when = self.clock.timestamp_ns() + grace_ns
            self.clock.set_time_alert_ns(self._grace_of(waiting), when, on_loop(self.clock, self._on_grace))

    @loud
    def _on_grace(self, event: Any) -> None:
        """Decide without who has not come; most rounds are complete long before."""
        waiting = self._rounds.open
        if waiting is not None and event.name == self._grace_of(waiting) and self.failure is None and self.is_running:
            for due in self._rounds.end():
                self._decide(due)

    def _grace_of(self, one: Round) -> str:
        return f"{self.id}-grace-{one.ts_close}"

    def _decide(self, due: Round) -> None:
        """Mark the account to market, run the halts, decide on every name, then act: what takes away comes first."""
        panel, seats, ts_close = self._panel, self.seats, due.ts_close
        if panel is None:
            return
        self._observe(panel, ts_close)
        for name, arrival in due.arrived.items():
            seats[name].bar = arrival.bar
        mark(self, seats, due, self.settings.limits)
        members = members_of(seats, due, ts_close - self.settings.portfolio.absent_bars * self._bar_ns)
        decisions = dict(zip(seats, panel.decide(members), strict=True))
        self._tell(panel, decisions)
        record = next(iter(seats.values())).record
        if record is not None and panel.correlation_SS is not None:
            self.correlations[ts_close] = upper_of(panel.correlation_SS)
            if record.most is not None and len(self.correlations) > record.most:  # a node keeps no more than its rows
                del self.correlations[next(iter(self.correlations))]
        with self.keeper:
            failures = self._act(due, decisions, dict(zip(seats, panel.weighed, strict=True)))
        if failures:
            raise failures[0]

    def _observe(self, panel: Panel, ts_close: int) -> None:
        """Hand the panel all closes up to this one, once no history is on its way that would come too late for it."""
        if any(seat.feed.collecting for seat in self.seats.values()):
            return
        for ts in sorted(ts for ts in self._closes if ts <= ts_close):
            closes = self._closes.pop(ts)
            if ts > panel.covariance.last_ts:
                panel.observe(ts, np.array([closes.get(name, math.nan) for name in self.seats]))

    def _act(self, due: Round, decisions: dict[str, Decision], weighed: dict[str, Weighed]) -> list[Exception]:
        """Carry the decisions out; what fails for one name keeps no other from being closed. Return what failed."""
        spendable, failures = shares(self.seats, decisions), []
        # Sales are sent first, but nothing counts on them: they may fill later than the purchases.
        for name in sorted(decisions, key=lambda name: (decisions[name].adds, name)):
            seat, decision, arrival = self.seats[name], decisions[name], due.arrived.get(name)
            quantity, action = Decimal(0), Action.NOT_READY
            try:
                if decision.reason in HALTS or seat.feed.armed or abs(decision.target) < abs(decision.exposure):
                    quantity, action = seat.act(decision, spendable[name])
                seat.tend()
            except Exception as error:
                self.log.error(f"{name}:\n{''.join(traceback.format_exception(error))}")
                failures.append(error)
            seat.note(arrival, weighed[name], decision, action, quantity)
        return failures

    def _tell(self, panel: Panel, decisions: dict[str, Decision]) -> None:
        """Log a halt when it begins, and a solver that failed, once until it works again."""
        for name, decision in decisions.items():
            reason = decision.reason
            if reason != self._told.get(name) and (reason in HALTS or reason == Reason.INVALID_FORECAST):
                risk, state = self.seats[name].risk, self.seats[name].state
                equity = math.nan if state is None else state.equity
                told = f"{name} {format_ns(decision.ts_close)}: {reason.value} at an equity of {equity:.10g}"
                self.log.warning(f"{told}. {'' if risk is None else risk.halt_text}")
            self._told[name] = reason
        if panel.fallback and not self._fallen:
            self.log.warning(f"Equal risk takes the place of {panel.fallback}")
        self._fallen = bool(panel.fallback)

    def on_stop(self) -> None:
        """Cancel all orders, and close all positions if so configured; trouble with one name keeps no other back."""
        for seat in self.seats.values():
            seat.close(flatten=self.settings.flatten_on_stop or self.keeper.halted)
        self.keeper.pause()

    def on_resume(self) -> None:
        """Trade again; bars missed meanwhile show as a hole."""
        self._end_closing()
        self.keeper.begin()

    def holders(self) -> dict[str, Seat]:
        """Whose halts the keeper latches and lifts."""
        return self.seats

    def handle_event(self, event: Any) -> None:
        """Let the name that an event is of keep its books, and go on closing after a stop."""
        super().handle_event(event)
        instrument_id = getattr(event, "instrument_id", None)
        if instrument_id is not None and instrument_id.value in self.seats:
            self._pass_on(event)
        self.keeper.note(event)
        self.hears(event)

    @loud
    def _pass_on(self, event: Any) -> None:
        self.seats[event.instrument_id.value].on_event(event, running=self.is_running)

    def _end_closing(self) -> None:
        for seat in self.seats.values():
            seat.end_closing()

    def on_reset(self) -> None:
        """Forget everything but the settings."""
        self._end_closing()
        self.failure = self._panel = None
        self.correlations = {}
        self.seats, self._rounds, self._closes, self._restored = {}, Rounds(()), {}, {}
        self._told, self._fallen, self._started, self.left = {}, False, False, False
        self.keeper.forget()

    def on_save(self) -> dict[str, bytes]:
        """Return every name's forecaster, halts and exits, and the portfolio's memory; before a start what was."""
        if self._panel is None or not self._started:
            return dict(self._restored)
        seats = {name: seat.encode() for name, seat in self.seats.items()}
        return {"panel": self._panel.state(), "seats": msgspec.msgpack.encode(seats)}

    def on_load(self, state: dict[str, bytes]) -> None:
        """Take back what `on_save` gave; it is unpacked in `on_start`, when the models are known."""
        self._restored = dict(state)

    def _restore(self) -> dict[str, bytes | None]:
        """Return the forecasters' snapshots of names that were there before; a portfolio that does not fit is new."""
        content = self._restored.get("seats")
        if content is None or self._panel is None:
            return {}
        saved = unpack_seats(content)
        snapshots = {name: seat.restore(saved[name]) for name, seat in self.seats.items() if name in saved}
        try:
            self._panel.restore(self._restored.get("panel", b""))
        except LSTMStrategyError as error:
            self.log.warning(str(error))
            # Its correlations need the whole past again, and so do the forecasters that it comes with.
            return {}
        return snapshots
