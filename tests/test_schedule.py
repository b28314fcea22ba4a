"""Models in turn: each bar has only one trained before it, and what was recorded trades as what is stepped."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow.parquet as pq
import pytest

from lstm_strategy import artefact
from lstm_strategy.bars import Bars
from lstm_strategy.decision import LimitsConfig, SizingConfig
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.features import FeaturesConfig
from lstm_strategy.fold_index import FoldIndex
from lstm_strategy.hyperparameters import NetworkConfig, SplitConfig, TargetConfig, TrainConfig, WalkForwardConfig
from lstm_strategy.instrument import Instrument
from lstm_strategy.nautilus.backtest import BacktestRun, BacktestSettings, run_backtest
from lstm_strategy.nautilus.catalog import write_catalog
from lstm_strategy.research.evaluate import evaluate
from lstm_strategy.research.fold_run import Plan
from lstm_strategy.schedule import Schedule, Turn, newest_evaluation, recording, walk_forward_schedule
from lstm_strategy.sources.simulate import SimulationConfig, simulate, simulated_instrument
from lstm_strategy.speakers import Recorded, Switching

HOUR = 3_600_000_000_000
SIZING = SizingConfig(mode="volatility_target", horizon=1, target_volatility=0.3, holding_bars=48, no_trade_band=0.2)


@dataclass
class Constant:
    """The same quantiles at every bar, in the unit of the outcome."""

    def forecast(self, samples, spans, target):
        shape = (len(target.horizons), len(target.levels))
        row = np.linspace(-2, 2, len(target.levels))
        return [np.broadcast_to(row, (len(sample.bars), *shape)).astype(np.float32) for sample in samples]


@dataclass
class Evaluation:
    """A walk-forward of two folds over a market with a hole in the second test span."""

    folder: Path
    path: Path
    bars: Bars
    instrument: Instrument
    index: FoldIndex

    def schedule(self, **changes: Any) -> Schedule:
        return walk_forward_schedule(self.path, self.bars.instrument_id, **changes)

    def backtest(self, model: Any, **changes: Any) -> BacktestRun:
        settings = {
            "catalog": self.folder / "catalog",
            "instrument_id": self.bars.instrument_id,
            "timeframe": "1h",
            "model": model,
            "sizing": SIZING,
            "limits": LimitsConfig(daily_loss=0.5, max_drawdown=0.9),
            "start": int(self.bars.ts_close[-600]),
            "tearsheet": False,
        }
        return run_backtest(BacktestSettings(**(settings | changes)))


def make_evaluation(folder: Path) -> Evaluation:
    market = SimulationConfig(instrument_id="A.SIM", bars=2_900, seed=4, edge=0.2)
    bars, instrument = simulate(market), simulated_instrument(market)
    keep = np.ones(len(bars), bool)
    keep[-150:-142] = False
    bars = Bars(
        bars.instrument_id,
        bars.timeframe,
        *(getattr(bars, name)[keep] for name in ("ts_close", "open", "high", "low", "close", "volume")),
    )
    write_catalog(folder / "catalog", bars, instrument)
    plan = Plan(
        name="pair",
        history=((bars, instrument),),
        features=FeaturesConfig(max_gap_bars=10),
        target=TargetConfig(horizons=(1, 3)),
        network=NetworkConfig(hidden=6),
        train=TrainConfig(epochs=1, batch=4, chunk=128, burn_in=32),
        models=folder / "models" / "pair" / "folds",
        parts=folder / "runs" / "pair" / "folds",
    )
    split = SplitConfig(fit_end="2020-03-01", stop_end="2020-04-01", calibrate_end="2020-05-01")
    walk = WalkForwardConfig(test_bars=240, folds=2, stop_bars=300, calibrate_bars=300)
    done = evaluate(plan, split, walk, folder / "runs" / "pair", {"constant": Constant})
    path = done.forecasts_path.parent
    index = msgspec.json.decode((path / "folds.json").read_bytes(), type=FoldIndex)
    return Evaluation(folder, path, bars, instrument, index)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    return make_evaluation(tmp_path_factory.mktemp("walk"))


@pytest.fixture(scope="module")
def both(made: Evaluation) -> list[BacktestRun]:
    return [made.backtest(made.schedule(recorded=recorded)) for recorded in (True, False)]


def test_recorded_forecasts_give_the_orders_of_stepping(made: Evaluation, both: list[BacktestRun]) -> None:
    recorded, stepped = both
    assert recorded.summary["orders"] > 20
    for name in ("orders", "fills", "equity", "decisions", "forecasts"):
        assert recorded.tables[name].equals(stepped.tables[name]), name
    np.testing.assert_array_equal(recorded.forecasts.quantiles_THQ, stepped.forecasts.quantiles_THQ)


def test_each_bar_has_the_model_of_its_own_test_span(made: Evaluation, both: list[BacktestRun]) -> None:
    table = both[1].tables["forecasts"].to_pandas()
    first, second = (row.model.partition("/")[2] for row in made.index.folds)
    stamps = table["ts_close"].astype("int64")
    switch = int(made.bars.ts_close[-1]) - 240 * HOUR
    assert set(table["model_version"][stamps <= switch]) == {first}
    assert set(table["model_version"][stamps > switch]) == {second}
    assert stamps.min() == switch - 240 * HOUR + HOUR
    before = both[1].tables["decisions"].to_pandas()
    before = before[before["ts_close"].astype("int64") <= switch - 240 * HOUR]
    assert len(before) > 100
    assert set(before["reason"]) == {"no_forecast"}
    # The evaluation kept the same numbers.
    kept = pq.read_table(made.path / "forecasts.parquet").to_pandas()
    assert table["quantiles"].map(tuple).tolist() == kept["quantiles"].map(tuple).tolist()


def test_the_summary_scores_each_bar_against_its_own_models_constants(
    made: Evaluation, both: list[BacktestRun]
) -> None:
    summary = both[0].summary
    assert not summary["in_sample"]
    assert summary["model"] == f"pair/{made.path.name}"
    manifests = [artefact.load(made.path / row.path).manifest for row in made.index.folds]
    assert manifests[0].baseline != manifests[1].baseline
    kept = pq.read_table(made.path / "forecasts.parquet").to_pandas().query("horizon == 1 and outcome == outcome")
    losses = []
    for row in kept.itertuples():
        baseline = np.array(manifests[row.fold].baseline[0])
        error, tau = row.outcome / row.scale - baseline, np.array(manifests[0].levels)
        losses.append(np.maximum(tau * error, (tau - 1) * error).mean())
    # An outcome over a fold's edge is left out by the evaluation, not by the backtest: one bar of 480.
    assert summary["by_horizon"][0]["pinball_baseline"] == pytest.approx(np.mean(losses), rel=5e-3)


def test_the_shrinkage_is_that_of_the_model_whose_turn_it_is(made: Evaluation) -> None:
    schedule = made.schedule()
    turns = tuple(
        msgspec.structs.replace(turn, shrinkage=(artefact.Shrinkage(slope, 0.0, 0.0),) * 2)
        for turn, slope in zip(schedule.turns, (0.25, 0.75), strict=True)
    )
    from lstm_strategy.nautilus.model import ScheduledModel

    model = ScheduledModel(Recorded(msgspec.structs.replace(schedule, turns=turns)), SIZING)
    seen = []
    for bar in made.bars:
        model.forecaster.update(bar)
        seen.append(model.trained.shrinkage[1].slope)
    assert seen == [0.25] * (len(made.bars) - 232) + [0.75] * 232  # 240 less the hole


def test_a_model_trained_on_later_bars_is_refused(made: Evaluation, tmp_path: Path) -> None:
    schedule = made.schedule()
    late = msgspec.structs.replace(schedule.turns[1], trained_until=schedule.turns[1].first)
    with pytest.raises(LSTMStrategyError, match="would know the future"):
        msgspec.structs.replace(schedule, turns=(schedule.turns[0], late))
    # The second fold's model put, by hand, in the place of the first.
    swapped = msgspec.structs.replace(schedule.turns[0], folder=schedule.turns[1].folder)
    stepped = msgspec.structs.replace(schedule, recorded=None, turns=(swapped, schedule.turns[1]))
    with pytest.raises(LSTMStrategyError, match="later than its turn says"):
        Switching(stepped)
    # The same in the index on disk.
    rows = made.index.folds
    planted = [msgspec.structs.replace(rows[0], path=rows[1].path, digest=rows[1].digest), rows[1]]
    for row in planted:
        assert (made.path / row.path).is_dir()
    lying = tmp_path / "evaluation-00000000"
    lying.mkdir()
    planted = [msgspec.structs.replace(row, path=str((made.path / row.path).resolve())) for row in planted]
    (lying / "folds.json").write_bytes(msgspec.json.encode(FoldIndex(folds=planted)))
    with pytest.raises(LSTMStrategyError, match="would know the future"):
        walk_forward_schedule(lying, made.bars.instrument_id)
    planted[0] = msgspec.structs.replace(planted[0], digest=rows[0].digest)
    (lying / "folds.json").write_bytes(msgspec.json.encode(FoldIndex(folds=planted)))
    with pytest.raises(LSTMStrategyError, match=r"is not the model that .* names"):
        walk_forward_schedule(lying, made.bars.instrument_id)


def test_bars_changed_since_are_noticed(made: Evaluation, tmp_path: Path) -> None:
    close = made.bars.close.copy()
    close[-300] = made.bars.low[-300]
    changed = replace(made.bars, close=close)
    write_catalog(tmp_path / "catalog", changed, made.instrument)
    with pytest.raises(LSTMStrategyError, match="have changed since it was recorded, first at or before 2020-"):
        made.backtest(made.schedule(), catalog=tmp_path / "catalog")


def test_a_turn_that_overlaps_or_has_nothing_is_refused(made: Evaluation) -> None:
    schedule = made.schedule()
    first, second = schedule.turns
    with pytest.raises(LSTMStrategyError, match="overlap; a bar has one model"):
        msgspec.structs.replace(schedule, turns=(msgspec.structs.replace(first, last=second.first), second))
    with pytest.raises(LSTMStrategyError, match="no artefact to step with"):
        msgspec.structs.replace(schedule, recorded=None, turns=(msgspec.structs.replace(first, folder=None), second))
    with pytest.raises(LSTMStrategyError, match="has no forecast of A"):
        msgspec.structs.replace(schedule, turns=())
    with pytest.raises(LSTMStrategyError, match=r"model.seed is 9; .* holds 0"):
        made.schedule(seed=9)
    with pytest.raises(LSTMStrategyError, match="make one with: lstm-strategy evaluate"):
        newest_evaluation(made.folder / "runs", "other")
    assert newest_evaluation(made.folder / "runs", "pair") == made.path


def test_a_recording_that_lacks_a_horizon_is_refused(made: Evaluation, tmp_path: Path) -> None:
    schedule = made.schedule()
    table = pq.read_table(made.path / "forecasts.parquet")
    pq.write_table(table.slice(1), tmp_path / "short.parquet")
    with pytest.raises(LSTMStrategyError, match="not one row for each bar and horizon"):
        recording(msgspec.structs.replace(schedule, recorded=str(tmp_path / "short.parquet")))
    whole = recording(schedule)
    assert len(whole) == len(table) // 2
    assert (np.diff(whole.ts_close) > 0).all()


def test_bars_out_of_order_are_refused_and_no_state_is_kept(made: Evaluation) -> None:
    for speaker in (Recorded(made.schedule()), Switching(made.schedule(recorded=False))):
        speaker.warm_up(made.bars[:10])
        with pytest.raises(LSTMStrategyError, match="is not later than the last one"):
            speaker.update(next(iter(made.bars[9:])))
        with pytest.raises(LSTMStrategyError, match="keeps no state"):
            speaker.restore(speaker.state())


def test_turn_defaults() -> None:
    turn = Turn(version="v", first=1, last=2, shrinkage=(), bars_per_year=1.0)
    assert (turn.trials, turn.trained_until) == (1, None)
