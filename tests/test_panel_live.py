"""Several instruments with the surprises of live data: late and missing bars, the grace period, restarts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from engine_support import HOUR, SIGN
from nautilus_trader.backtest.engine import BacktestEngine
from panel_support import AAA, BBB, CCC, COINS, play, strategy, tell_each, walks

from lstm_strategy.decision import Shrinkage, Trained
from lstm_strategy.nautilus.portfolio_strategy import LSTMPortfolioStrategy
from lstm_strategy.nautilus.seat import Seat
from lstm_strategy.panel import Member
from lstm_strategy.portfolio import PortfolioConfig

SECOND = 10**9


def reasons(made: LSTMPortfolioStrategy, name: str) -> dict[int, str]:
    record = made.seats[name].record
    assert record is not None
    return {decision.ts_close // HOUR.ns: decision.reason.value for decision in record.decisions}


def test_who_is_late_within_the_grace_period_is_waited_for_and_no_longer(
    engines: list[BacktestEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    tell_each(monkeypatch, lambda *_: 0.001)
    made = strategy()
    late = {(BBB.id, 5): 3 * SECOND, (BBB.id, 8): 8 * SECOND, (CCC.id, 8): 4 * SECOND}
    play(engines, made, walks(15), late)
    assert made.failure is None
    for name in COINS:
        found = reasons(made, name)
        assert list(found) == list(range(1, 16))  # once a close
        assert [hour for hour, reason in found.items() if reason == "stale_data"] == ([9] if name == BBB.id else [])
    record = made.seats[BBB.id].record
    assert record is not None
    absent = record.decisions[8]
    assert absent.target == absent.exposure > 0.2


def test_a_restart_goes_on_with_halts_and_correlations(
    engines: list[BacktestEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    tell_each(monkeypatch, lambda *_: 0.001)
    panel = walks(60)
    first, second = strategy(), strategy()
    play(engines, first, [bars[:40] for bars in panel], {})
    saved = first.on_save()
    second.on_load(saved)
    play(engines, second, [bars[40:] for bars in panel], {})
    assert second.failure is None
    for name, seat in second.seats.items():
        before = first.seats[name].risk
        assert seat.risk is not None
        assert before is not None
        assert seat.risk.peak_equity >= before.peak_equity
        assert seat.session.model.forecaster.seen[0] == panel[0].ts_close[40]
    broken = strategy()
    broken.on_load(saved | {"seats": b"\x81\xa4none"})
    with pytest.raises(Exception, match="damaged"):
        play(engines, broken, panel, {})


def test_a_decision_believes_the_model_that_made_its_forecast_though_another_speaks_by_then(
    engines: list[BacktestEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bar comes before the one before it is decided, and between the two another model has begun to speak."""
    tell_each(monkeypatch, lambda *_: 0.001)
    panel, changed = walks(14), 8
    doubts = Trained({1: Shrinkage(0.0, 0.0, 0.0)}, 2.0)  # believes nothing of what it forecasts
    told: list[tuple[int, Trained]] = []

    class Swaps(LSTMPortfolioStrategy):
        def on_bar(self, bar: Any) -> None:
            seat = self.seats[AAA.id]
            if bar.bar_type.instrument_id.value == AAA.id and bar.ts_event == panel[0].ts_close[changed]:
                seat.session.model = replace(seat.session.model, label="told/2", trained=doubts)
            super().on_bar(bar)

    member = Seat.member

    def seen(seat: Seat, *given: Any, **others: float) -> Member:
        found = member(seat, *given, **others)
        if seat.name == AAA.id:
            told.append((found.state.ts_close, found.trained))
        return found

    monkeypatch.setattr(Seat, "member", seen)
    made = strategy(Swaps, sizing=SIGN, portfolio=PortfolioConfig(method="separate", grace_s=2 * 3600.0))
    late = {(CCC.id, changed - 1): HOUR.ns + 1}  # it misses its close, which the next bars end
    play(engines, made, panel, late)
    assert made.failure is None
    trusts = {ts // HOUR.ns: trained.shrinkage[1].slope for ts, trained in told}
    hours = [int(ts) // HOUR.ns for ts in panel[0].ts_close]
    assert [trusts[hour] for hour in hours] == [1.0] * changed + [0.0] * (len(hours) - changed)
    assert reasons(made, CCC.id)[hours[changed - 1]] == "stale_data"
    record = made.seats[AAA.id].record
    assert record is not None
    targets = dict(zip(record.ts_close.tolist(), (one.target for one in record.decisions), strict=True))
    assert targets[int(panel[0].ts_close[changed - 1])] > 0.0
    assert targets[int(panel[0].ts_close[changed])] == 0.0
