"""The limits inside the engine: orders sent, cut, called back and denied as they say; and the second fence."""

from __future__ import annotations

import itertools
from collections import Counter
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
from engine_support import HOUR, PERPETUAL, SIGN, SPOT, ToldForecaster, make_bars, random_bars, run, tell
from nautilus_trader.backtest.config import BacktestEngineConfig
from nautilus_trader.backtest.engine import BacktestEngine

from lstm_strategy import artefact
from lstm_strategy.decision import Decision, LimitsConfig, Reason, RiskState, Seen, SizingConfig, advance, resume
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.forecaster import Forecaster
from lstm_strategy.nautilus import session as session_module
from lstm_strategy.nautilus import strategy as strategy_module
from lstm_strategy.nautilus.fence import fence
from lstm_strategy.nautilus.model import open_model
from lstm_strategy.nautilus.orders import Action, Rules, opens, outdated, plan_order
from lstm_strategy.nautilus.strategy import LSTMStrategy
from lstm_strategy.sources.simulate import SimulationConfig, simulate
from lstm_strategy.speakers import Recorded

LOOSE = {"daily_loss": 1.0, "max_drawdown": 1.0, "max_step": 2.0, "drift_tolerance": 10.0}
HALF = SizingConfig(mode="fixed_fraction", fraction=0.5, no_trade_band=0.0)


def limits(**changes: Any) -> LimitsConfig:
    return LimitsConfig(**{**LOOSE, **changes})


def swing(every: int) -> Any:
    """A mean that changes its sign every so many hours."""
    return lambda ts: 0.001 if ts // HOUR.ns // every % 2 else -0.001


# one run for each limit


def test_orders_by_hour_and_day_count_all_and_stop_openings_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell(monkeypatch, swing(1))
    finished = run(tmp_path, random_bars(96), limits=limits(orders_per_day=5))
    sent = finished.tables["orders"]
    days = Counter((stamp.value - 1) // (24 * HOUR.ns) for stamp in sent["ts_sent"].to_pandas())
    assert set(days.values()) <= {5, 6}  # the sixth closes what the fifth has opened
    sides = sent["side"].to_pylist()
    assert sides == ["buy", "sell"] * (len(sides) // 2) + ["buy"] * (len(sides) % 2)
    reasons = set(finished.tables["decisions"]["reason"].to_pylist())
    assert "orders_per_day" in reasons


def test_order_size_is_cut_and_the_position_grows_bar_by_bar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tell(monkeypatch, lambda ts: 0.001 if ts < 20 * HOUR.ns else -0.001)
    finished = run(tmp_path, random_bars(30, volatility=1e-4), limits=limits(max_order_notional=12_000.0))
    fills = finished.tables["fills"].to_pylist()
    bought = [f["quantity"] * f["price"] for f in fills if f["side"] == "buy"]
    assert max(bought) <= 12_000.0 * 1.001  # decided at the close, filled at the open
    assert len(bought) == 9
    sold = [row for row in finished.tables["orders"].to_pylist() if row["side"] == "sell"]
    assert len(sold) == 1  # a closing order may be ten times as large
    assert finished.summary["refusals"] == 0


def test_turnover_and_flips_are_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tell(monkeypatch, swing(2))
    options: dict[str, Any] = {"account": "margin", "sizing": HALF}
    bars = random_bars(72, PERPETUAL, volatility=1e-3)
    held = run(tmp_path / "t", bars, PERPETUAL, limits=limits(side="long_short", turnover_per_day=2.0), **options)
    fills = held.tables["fills"].to_pylist()
    per_day: Counter[int] = Counter()
    for fill in fills:
        # A fill at the open of a bar shows at the close of that bar.
        per_day[int(fill["ts_filled"].value) // (24 * HOUR.ns)] += fill["quantity"] * fill["price"] / 100_000.0
    assert max(per_day.values()) <= 2.0 * 1.05
    assert "turnover_per_day" in set(held.tables["decisions"]["reason"].to_pylist())
    slow = run(tmp_path / "f", bars, PERPETUAL, limits=limits(side="long_short", flip_hours=12.0), **options)
    exposure = slow.tables["decisions"]["exposure"].to_numpy()
    sides = np.sign(np.where(np.abs(exposure) < 1e-4, 0.0, exposure))
    taken = [(row, side) for row, side in enumerate(sides) if side]
    changes = [row for (_, before), (row, side) in itertools.pairwise(taken) if side != before]
    assert len(changes) > 2
    assert np.diff(changes).min() >= 12


def test_losses_in_a_row_pause_trading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tell(monkeypatch, swing(1))
    closes = np.round(1000.0 * 0.999 ** np.arange(60), 2)
    bars = make_bars(np.concatenate([[1000.0], closes[:-1]]), closes)
    finished = run(tmp_path, bars, limits=limits(max_losses=3, cooldown_hours=20.0))
    reasons = finished.tables["decisions"]["reason"].to_pylist()
    paused = [row for row, reason in enumerate(reasons) if reason == "loss_cooldown"]
    assert len(paused) >= 15
    assert paused[-1] - paused[0] > 20  # and it went on afterwards, to lose three times again
    assert finished.summary["orders"] < 30


def test_the_price_fence_holds_back_what_a_jump_would_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tell(monkeypatch, lambda ts: 0.001 if ts >= 10 * HOUR.ns else -0.001)
    closes = np.full(20, 1000.0)
    closes[9] = 1300.0  # one bar, stamped 10:00
    bars = make_bars(np.concatenate([[1000.0], closes[:-1]]), closes)
    finished = run(tmp_path, bars, limits=limits(price_fence=0.2))
    rows = finished.tables["decisions"].to_pylist()
    assert [row["reason"] for row in rows[9:12]] == ["price_fence", "price_fence", "rebalance"]
    assert rows[11]["action"] == "sent"


def test_a_feature_outside_its_range_stops_openings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = tell(monkeypatch, lambda _: 0.001)
    asked: list[float] = []

    def outside(self: Any, tolerance: float) -> bool:
        asked.append(tolerance)
        return self.last_ts < 10 * HOUR.ns

    monkeypatch.setattr(ToldForecaster, "outside_range", outside, raising=False)
    finished = run(tmp_path, random_bars(20), limits=limits(feature_range=0.5))
    reasons = finished.tables["decisions"]["reason"].to_pylist()
    assert reasons[:9] == ["feature_range"] * 9
    assert reasons[9] == "rebalance"
    assert asked == [0.5] * 20
    assert made
    asked.clear()
    run(tmp_path / "off", random_bars(20), limits=limits())
    assert asked == []  # nothing is computed that nobody asked for


def test_recorded_forecasts_have_no_features_to_look_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tell(monkeypatch, lambda _: 0.001)
    told = session_module.open_model

    def recorded(*arguments: Any) -> Any:
        model = told(*arguments)
        return SimpleNamespace(forecaster=Recorded.__new__(Recorded), levels=None, label=model.label)

    monkeypatch.setattr(session_module, "open_model", recorded)
    with pytest.raises(LSTMStrategyError, match=r"limits\.feature_range needs features"):
        run(tmp_path, random_bars(20), limits=limits(feature_range=0.5))


# before any order


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"limits": limits(max_order_notional=10.1)}, r"limits\.max_order_notional is 10\.1; the venue's smallest"),
        ({"sizing": msgspec.structs.replace(SIGN, no_trade_band=1.0)}, "costs are 0.0 a side"),
        ({"sizing": msgspec.structs.replace(HALF, fraction=1.5)}, r"sizing\.fraction is 1\.5"),
    ],
)
def test_contradictions_stop_a_run_before_any_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], message: str
) -> None:
    tell(monkeypatch, lambda _: 0.001)
    sent: list[Any] = []
    monkeypatch.setattr(LSTMStrategy, "submit_order", lambda self, order: sent.append(order))
    with pytest.raises(LSTMStrategyError, match=message) as refusal:
        run(tmp_path, random_bars(20), **{"limits": limits(), **changes})
    assert "\n" not in str(refusal.value)
    assert sent == []


def test_a_horizon_that_the_model_lacks_is_refused(tmp_path: Path, tiny_artefact: Path) -> None:
    with pytest.raises(LSTMStrategyError, match=r"sizing\.horizons names 24; model tiny/1 forecasts 1, 4"):
        open_model(tiny_artefact, SPOT.id, HOUR, SizingConfig(horizons=(1, 24)))
    model = open_model(tiny_artefact, SPOT.id, HOUR, SizingConfig(horizons=(1, 4), interval=0.5))
    assert set(model.trained.shrinkage) == {1, 4}
    assert model.trained.width == pytest.approx(1.4)  # -.7 to .7 in the training span


# orders


@pytest.mark.parametrize(
    ("position", "pending", "expected"),
    [
        ("1", "0", False),
        ("1", "1", True),
        ("0", "-1", True),
        ("1", "-1", False),
        ("1", "-0.5", False),
        ("-1", "3", True),
    ],
)
def test_which_orders_open(position: str, pending: str, expected: bool) -> None:
    assert opens(Decimal(position), Decimal(pending)) == expected


def test_what_is_called_back() -> None:
    def old(target: float, position: str, pending: str, equity: float = 1000.0, *, cancel: bool = False) -> bool:
        decision = Decision(0, 0.0, target, Reason.REBALANCE, (), cancel)
        return outdated(decision, equity, 100.0, Decimal(position), Decimal(pending), 0.02)

    assert not old(0.5, "0", "5")
    assert old(0.5, "0", "5", cancel=True)
    assert not old(0.0, "5", "-5", cancel=True)  # it closes: let it
    assert old(0.4, "0", "5")
    assert not old(0.49, "0", "5")
    assert old(0.0, "0", "0.1", cancel=True)  # however small
    for equity in (0.0, -5.0, np.nan):
        assert not old(0.0, "5", "-5", equity, cancel=True)
        assert old(0.0, "5", "5", equity, cancel=True)
        assert old(0.0, "5", "-3", equity, cancel=True)


def test_no_order_is_larger_than_ten_times_the_cap() -> None:
    rules = Rules(Decimal("0.001"), Decimal("0.001"), Decimal("Infinity"), Decimal(10))
    planned = plan_order(0.0, 1e5, 100.0, Decimal(-300), rules, can_short=True, max_notional=10_000.0)
    assert planned == (Decimal(100), Action.SENT)
    unknown = plan_order(0.0, 1e5, np.inf, Decimal(-300), rules, can_short=True, max_notional=10_000.0)
    assert unknown == (Decimal(300), Action.SENT)  # before the first price, all of it


# the second fence


def test_the_fence_is_set_from_the_limits_and_wider() -> None:
    def fenced(names: list[str], bar_ns: int = HOUR.ns, *, inside_bars: bool = False, **limits: Any) -> Any:
        return fence(LimitsConfig(**limits), names, bar_ns, inside_bars=inside_bars)

    assert fenced(["A.B"]).max_order_submit_rate == "100/00:00:01"
    assert fenced(["A.B"]).max_notional_per_order == {}
    config = fenced(["A.B", "C.B"], orders_per_hour=4, orders_per_day=20, max_order_notional=1_000.5)
    assert config.max_order_submit_rate == "204/01:00:00"
    assert config.max_notional_per_order == {"A.B": 20_010, "C.B": 20_010}
    minute = HOUR.ns // 60
    assert fenced(["A.B"], minute, inside_bars=True, orders_per_hour=4).max_order_submit_rate == "344/01:00:00"
    both = fenced(["A.B", "C.B"], minute, inside_bars=True, orders_per_hour=4)
    assert both.max_order_submit_rate == "684/01:00:00"  # the stops of each name, and what closes it
    many = [f"{number}.B" for number in range(80)]
    assert fenced(many).max_order_submit_rate == "160/00:00:01"  # all of them may be closed at once
    # Our limits let every name give way at every bar.
    assert fenced(many, minute, orders_per_hour=4).max_order_submit_rate == "8004/01:00:00"
    assert fenced(many, minute // 60, orders_per_hour=4).max_order_submit_rate == "288004/01:00:00"
    assert fenced(["A.B"], inside_bars=True, orders_per_day=20).max_order_submit_rate == "216/24:00:00"
    daily = fenced(["BTCUSDT.BINANCE"], orders_per_day=20)
    engine = BacktestEngine(BacktestEngineConfig(risk_engine=daily))
    assert engine.kernel.risk_engine.max_order_submit_rate()[0] == 120
    assert engine.kernel.risk_engine.max_order_submit_rate()[1].days == 1
    engine.dispose()


def test_the_fence_catches_what_gets_past_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tell(monkeypatch, lambda _: 0.001)
    monkeypatch.setattr("lstm_strategy.decision._cut", lambda target, *_: target)  # ours is broken
    monkeypatch.setattr("lstm_strategy.nautilus.desk.CLOSING_FACTOR", 1e9)
    finished = run(tmp_path, random_bars(5), limits=limits(max_order_notional=1_000.0))
    assert finished.summary["fills"] == 0
    assert "NOTIONAL_EXCEEDS_MAX_PER_ORDER" in finished.record.refusals[0]


# what training saw


def test_the_forecaster_tells_features_outside_what_training_saw(tiny_artefact: Path) -> None:
    loaded = artefact.load(tiny_artefact)
    bars = simulate(SimulationConfig(instrument_id=SPOT.id, bars=700))
    forecaster = Forecaster(loaded, SPOT.id)
    assert forecaster.outside_range(1e9)  # nothing seen
    forecaster.warm_up(bars[:600])
    whole = forecaster.outside_range(0.0)
    stepped = Forecaster(loaded, SPOT.id)
    for bar in bars[:600]:
        stepped.update(bar)
    assert stepped.outside_range(0.0) == whole
    state = stepped.state()
    x_TF = Forecaster(loaded, SPOT.id).features.run(bars).x_TF[600:]
    fresh = Forecaster(loaded, SPOT.id)
    fresh.restore(state)
    assert fresh.outside_range(1e9)  # until the next bar
    for row, bar in enumerate(bars[600:]):
        fresh.update(bar)
        for tolerance in (0.0, -7.5, -6.0):  # the artefact's range is ± 8, its deviations 1
            assert fresh.outside_range(tolerance) == bool((np.abs(x_TF[row]) > 8.0 + tolerance).any())


def test_open_orders_are_told_to_the_decision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tell(monkeypatch, lambda _: 0.001)
    seen: list[tuple[float, float]] = []
    decide = strategy_module.decide

    def noted(forecast: Any, state: Any, *arguments: Any, **named: Any) -> Decision:
        seen.append((state.exposure, state.pending))
        return decide(forecast, state, *arguments, **named)

    monkeypatch.setattr(strategy_module, "decide", noted)
    run(tmp_path, random_bars(8, volatility=1e-4), sizing=HALF, limits=limits(), delay=3)
    assert [round(exposure, 2) for exposure, _ in seen[:6]] == [0.0, 0.0, 0.0, 0.0, 0.5, 0.5]
    assert [round(pending, 2) for _, pending in seen[:6]] == [0.0, 0.5, 0.5, 0.5, 0.0, 0.0]


def test_what_is_held_is_closed_by_a_desk_that_refuses_to_trade(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell(monkeypatch, lambda _: 0.001)
    looks: list[float] = []

    class Looks(LSTMStrategy):
        def on_stop(self) -> None:
            super().on_stop()  # which looks at the position to close it
            looks.append(float(self._session.desk.look(1000.0).position))

    monkeypatch.setattr(strategy_module, "LSTMStrategy", Looks)
    with pytest.raises(LSTMStrategyError, match="the venue's smallest order"):
        run(tmp_path, random_bars(8), limits=limits(max_order_notional=1.0))
    assert looks == [0.0]  # it refused once, and not again on the way out


def test_a_resumed_drawdown_trades_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tell(monkeypatch, lambda _: 0.001)
    closes = np.round(1000.0 * np.concatenate([np.full(5, 1.0), np.full(25, 0.8)]), 2)
    bars = make_bars(np.concatenate([[1000.0], closes[:-1]]), closes)

    class Resumed(LSTMStrategy):
        def on_bar(self, bar: Any) -> None:
            if bar.ts_event == 20 * HOUR.ns:
                self.risk = resume(self.risk, "looked at")
            super().on_bar(bar)

    monkeypatch.setattr("lstm_strategy.nautilus.strategy.LSTMStrategy", Resumed)
    finished = run(tmp_path, bars, limits=limits(max_drawdown=0.1))
    rows = finished.tables["decisions"].to_pylist()
    assert {row["reason"] for row in rows[5:19]} == {"halt_drawdown"}
    assert (rows[19]["reason"], rows[19]["action"]) == ("rebalance", "sent")


def test_orders_are_counted_over_a_restart() -> None:
    risk = advance(RiskState.start(HOUR.ns, 1e3), HOUR.ns, 1e3, LimitsConfig(), Seen(1.0, 5.0))
    risk = msgspec.structs.replace(risk, orders_day=3)
    assert advance(RiskState.decode(risk.encode()), 2 * HOUR.ns, 1e3, LimitsConfig(), Seen(1.0, 5.0)).orders_day == 3
