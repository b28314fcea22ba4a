"""Several instruments with the surprises of live data: late and missing bars, the grace period, restarts."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from engine_support import HOUR
from nautilus_trader.backtest.engine import BacktestEngine
from panel_support import BBB, CCC, COINS, play, strategy, tell_each, walks

from lstm_strategy.nautilus.portfolio_strategy import LSTMPortfolioStrategy

SECOND = 10**9


@pytest.fixture
def engines() -> Iterator[list[BacktestEngine]]:
    made: list[BacktestEngine] = []
    yield made
    for engine in made:
        engine.dispose()


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
