"""Evaluation cut short, by missing bars or a full disk: it is told, and nothing half is taken for whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lstm_strategy.bars import Bars
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.features import FeatureConfig, FeaturesConfig
from lstm_strategy.hyperparameters import NetworkConfig, SplitConfig, TargetConfig, TrainConfig, WalkForwardConfig
from lstm_strategy.research import evaluate as evaluation
from lstm_strategy.research.evaluate import evaluate
from lstm_strategy.research.fold_run import Plan
from lstm_strategy.sources.simulate import SimulationConfig, simulate, simulated_instrument

SPLIT = SplitConfig(fit_end="2020-03-01", stop_end="2020-04-01", calibrate_end="2020-05-01")
WALK = WalkForwardConfig(test_bars=120, folds=1, stop_bars=300, calibrate_bars=300)
MARKETS = [SimulationConfig(instrument_id=f"{name}.SIM", bars=1_800, seed=seed) for seed, name in enumerate("AB")]


def plan_of(tmp_path: Path, bars: Bars | None = None) -> Plan:
    (whole, first), (other, second) = ((simulate(market), simulated_instrument(market)) for market in MARKETS)
    return Plan(
        name="pair",
        history=((whole, first), (bars or other, second)),
        features=FeaturesConfig(scale_span=24, features=(FeatureConfig("return", 1), FeatureConfig("range"))),
        target=TargetConfig(horizons=(1, 3)),
        network=NetworkConfig(hidden=4),
        train=TrainConfig(epochs=1, batch=4, chunk=128, burn_in=32),
        models=tmp_path / "models",
        parts=tmp_path / "folds",
    )


def test_an_instrument_on_which_a_fold_is_silent_is_named(tmp_path: Path) -> None:
    """A hole just before the test span, and a warm-up longer than what is left of it."""
    bars = simulate(MARKETS[1])
    kept = (bars.ts_close <= bars.ts_close[-150]) | (bars.ts_close > bars.ts_close[-110])
    columns = (bars.ts_close, bars.open, bars.high, bars.low, bars.close, bars.volume)
    holed = Bars(bars.instrument_id, bars.timeframe, *(column[kept] for column in columns))
    plan = plan_of(tmp_path, holed)
    with pytest.raises(LSTMStrategyError, match=r"^fold 0 .*: B\.SIM: the model .* is silent over the whole test span"):
        evaluate(plan, SPLIT, WALK, tmp_path / "runs", {})
    assert not list((tmp_path / "folds").glob("*")), "nothing to be taken for a whole fold"
    assert not (tmp_path / "runs").exists()


def test_an_evaluation_whose_tables_cannot_be_written_has_no_index(tmp_path: Path, monkeypatch: Any) -> None:
    """A backtest takes the newest folder with an index."""

    def full(path: Path, table: Any) -> Path:
        raise LSTMStrategyError(f"cannot write {path}: the disk is full; nothing was changed")

    with monkeypatch.context() as patched:
        patched.setattr(evaluation, "_write", full)
        with pytest.raises(LSTMStrategyError, match="the disk is full"):
            evaluate(plan_of(tmp_path), SPLIT, WALK, tmp_path / "runs", {})
    assert not list(tmp_path.rglob("folds.json"))
    done = evaluate(plan_of(tmp_path), SPLIT, WALK, tmp_path / "runs", {})
    assert done.folds_path.exists()
    assert done.forecasts_path.exists()
