"""Models in turn: each bar has only one trained before it, and what was recorded trades as what is stepped."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow.parquet as pq
import pytest
from baseline_support import Constant
from catalog_support import bring_in
from command_support import run_cli

from lstm_strategy import artefact
from lstm_strategy.bars import Bars
from lstm_strategy.conformal import CalibrationConfig
from lstm_strategy.decision import Costs, LimitsConfig, SizingConfig
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.experiment import load_experiment
from lstm_strategy.features import FeaturesConfig
from lstm_strategy.fold_index import FoldIndex
from lstm_strategy.hyperparameters import NetworkConfig, SplitConfig, TargetConfig, TrainConfig, WalkForwardConfig
from lstm_strategy.instrument import Instrument
from lstm_strategy.nautilus import grid
from lstm_strategy.nautilus.backtest import BacktestRun, BacktestSettings, run_backtest, trade
from lstm_strategy.nautilus.beside import companions, momentum_forecasts
from lstm_strategy.nautilus.catalog import write_catalog
from lstm_strategy.nautilus.grid import DELAYS, MULTIPLES, run_grid, sensitivity_grid
from lstm_strategy.nautilus.source import recorded_from
from lstm_strategy.research.evaluate import evaluate
from lstm_strategy.research.fold_run import Plan
from lstm_strategy.schedule import Schedule, Turn, newest_evaluation, recording, walk_forward_schedule
from lstm_strategy.sources.simulate import SimulationConfig, simulate, simulated_instrument
from lstm_strategy.speakers import Recorded, Switching

HOUR = 3_600_000_000_000
SIZING = SizingConfig(mode="volatility_target", horizon=1, target_volatility=0.3, holding_bars=48, no_trade_band=0.2)


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
    bring_in(folder / "catalog", bars, instrument)
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


def test_adaptive_forecasts_are_the_same_recorded_and_stepped_from_whatever_bar_on(
    made: Evaluation, both: list[BacktestRun]
) -> None:
    adaptive = CalibrationConfig(adaptive=True, rate=0.1)
    for start in (-600, -300):  # before the first fold speaks, and while it does
        since = int(made.bars.ts_close[start])
        recorded, stepped = (
            made.backtest(made.schedule(recorded=kind), calibration=adaptive, start=since) for kind in (True, False)
        )
        for name in ("orders", "fills", "equity", "decisions", "forecasts"):
            assert recorded.tables[name].equals(stepped.tables[name]), name
        moved = recorded.forecasts.quantiles_THQ[-240:]
        assert (moved != both[0].forecasts.quantiles_THQ[-240:]).any(axis=(1, 2)).sum() > 200


def test_what_an_adaptive_run_said_is_said_again_as_it_is(made: Evaluation, tmp_path: Path) -> None:
    model = made.path / made.index.folds[0].path
    start, adaptive = int(made.bars.ts_close[-240]), CalibrationConfig(adaptive=True, rate=0.1)
    first = made.backtest(model, calibration=adaptive, start=start, run_folder=tmp_path / "run")
    again = recorded_from(artefact.load(model), made.bars.instrument_id, tmp_path / "run" / "forecasts.parquet")
    assert made.backtest(again, calibration=adaptive, start=start).tables["orders"].equals(first.tables["orders"])
    rules = companions(made_settings(made, again, adaptive), again, made.bars, tmp_path)
    found = run_backtest(rules["20-day momentum"]).forecasts.quantiles_THQ  # a rule is no forecast to be calibrated
    static = msgspec.structs.replace(rules["20-day momentum"], calibration=CalibrationConfig())
    np.testing.assert_array_equal(found, run_backtest(static).forecasts.quantiles_THQ)


def made_settings(made: Evaluation, model: Any, calibration: CalibrationConfig) -> BacktestSettings:
    return BacktestSettings(
        catalog=made.folder / "catalog",
        instrument_id=made.bars.instrument_id,
        timeframe="1h",
        model=model,
        sizing=SIZING,
        calibration=calibration,
        start=int(made.bars.ts_close[-240]),
        tearsheet=False,
    )


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


# -- what stands beside it, and what costs and settings do -------------------------------------------------------------


def settings_of(made: Evaluation, **changes: Any) -> BacktestSettings:
    settings = {
        "catalog": made.folder / "catalog",
        "instrument_id": made.bars.instrument_id,
        "timeframe": "1h",
        "model": made.schedule(),
        "sizing": SIZING,
        "limits": LimitsConfig(daily_loss=0.5, max_drawdown=0.9),
        "costs": Costs(fee=0.0005),
        "start": int(made.bars.ts_close[-600]),
    }
    return BacktestSettings(**(settings | changes))


def test_companions_hold_what_their_rules_say(made: Evaluation, tmp_path: Path) -> None:
    band = SizingConfig(mode="volatility_target", horizon=1, target_volatility=0.3, no_trade_band=0.0)
    jobs = companions(settings_of(made, sizing=band), made.schedule(), made.bars, tmp_path)
    assert list(jobs) == ["volatility target", "20-day momentum", "classical: constant"]
    known = recording(made.schedule())
    per_year = made.schedule().turns[0].bars_per_year
    wanted = np.minimum(0.3 / (known.scale_T * np.sqrt(per_year)), 1.0)

    def targets(name: str) -> np.ndarray:
        record = trade(jobs[name]).record
        rows = {d.ts_close: d.target for d in record.decisions if d.reason != "no_forecast"}
        assert list(rows) == known.ts_close.tolist()
        return np.array(list(rows.values()))

    np.testing.assert_allclose(targets("volatility target"), wanted, atol=2e-4)  # the least change is a basis point
    now = np.searchsorted(made.bars.ts_close, known.ts_close)
    past = np.array([made.bars.close[made.bars.ts_close <= ts - 480 * HOUR][-1] for ts in known.ts_close])
    rising = made.bars.close[now] > past
    assert 50 < rising.sum() < len(rising) - 50
    np.testing.assert_allclose(targets("20-day momentum"), np.where(rising, wanted, 0.0), atol=2e-4)
    forecasts = trade(jobs["classical: constant"]).forecasts
    there = ~np.isnan(forecasts.scale_T)
    unit = forecasts.scale_T[there, None] * np.sqrt(3)
    row = np.linspace(-2, 2, len(known.levels))
    np.testing.assert_allclose(forecasts.quantiles_THQ[there, 1], unit * row, rtol=1e-5)


def test_a_momentum_of_20_days_pays_for_its_trades_at_a_horizon_of_one_bar(made: Evaluation, tmp_path: Path) -> None:
    one = SizingConfig(mode="volatility_target", horizon=1, target_volatility=0.3, holding_bars=24)
    job = companions(settings_of(made, sizing=one), made.schedule(), made.bars, tmp_path)["20-day momentum"]
    assert job.sizing.horizon == 480
    assert len(trade(job).record.decisions) > 100
    assert {d.reason for d in trade(job).record.decisions} >= {"rebalance"}


def test_a_momentum_that_may_short_does(made: Evaluation, tmp_path: Path) -> None:
    """The same rule where the limits allow it; here only what it would tell the strategy."""
    known = recording(made.schedule())
    told = momentum_forecasts(known, made.bars, SIZING, np.full(len(known), 8760.0))
    signs = {float(np.sign(told[row].mean(1))) for row in range(0, len(told), 7)}
    assert signs == {-1.0, 1.0}
    assert told[3].std(1) == pytest.approx(known.scale_T[3], rel=1e-6)
    assert told[3].mean(1) == pytest.approx(np.sign(told[3].mean(1)) * told[3].std(1) / np.sqrt(8760), rel=1e-4)
    early = momentum_forecasts(known, made.bars[2_400:], SIZING, np.full(len(known), 8760.0))
    assert np.isnan(early.quantiles_THQ[:100]).all()  # fewer than 20 days of bars


def test_two_processes_find_what_one_does_and_costs_cost(made: Evaluation) -> None:
    settings = settings_of(made)
    grid = {name: job for name, job in sensitivity_grid(settings).items() if name in ("0/0", "1/0", "4/0", "1/2")}
    assert len(sensitivity_grid(settings)) == len(MULTIPLES) * len(DELAYS) == 20
    one, two = run_grid(grid), run_grid(grid, workers=2)
    assert list(one) == list(two) == list(grid)
    for name in grid:
        assert one[name].figures == two[name].figures
        np.testing.assert_array_equal(one[name].equity, two[name].equity)
    plain = run_backtest(settings).summary
    assert one["1/0"].figures["sharpe"] == plain["sharpe"]
    assert one["1/0"].figures["orders"] == plain["orders"] > 20
    returns = [one[name].figures["net_return"] for name in ("0/0", "1/0", "4/0")]
    assert returns == sorted(returns, reverse=True)
    assert one["0/0"].figures["fees"] == 0.0
    # The decisions count on the same costs: that the venue takes four times as much changes hardly an order.
    assert one["4/0"].figures["orders"] == pytest.approx(plain["orders"], rel=0.1)
    assert one["4/0"].figures["fees"] == pytest.approx(4 * plain["fees"], rel=0.1)
    assert one["1/2"].figures["net_return"] != returns[1]


EXPERIMENT = """
name = "pair"
[data]
instruments = ["A.SIM"]
timeframe = "1h"
[split]
fit_end = 2020-03-01
stop_end = 2020-04-01
calibrate_end = 2020-05-01
[features]
max_gap_bars = 10
[target]
horizons = [1, 3]
[network]
hidden = 6
[train]
epochs = 1
batch = 4
chunk = 128
burn_in = 32
[sizing]
target_volatility = 0.3
holding_bars = 48
no_trade_band = 0.2
[limits]
daily_loss = 0.5
max_drawdown = 0.9
[costs]
fee = 0.0005
[model]
from = "walk_forward"
[sweep]
"sizing.target_volatility" = [0.2, 0.4]
"limits.max_exposure" = [0.5, 1.0]
"""


def test_the_command_backtests_a_walk_forward_with_what_stands_beside_it(
    made: Evaluation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "pair.toml"
    path.write_text(EXPERIMENT)
    places = ("--catalog", str(made.folder / "catalog"), "--runs", str(made.folder / "runs"))
    code, out, err = run_cli(monkeypatch, capsys, "backtest", str(path), *places, "--json")
    assert code == 0, err
    summary = json.loads(out)
    assert summary["model"] == f"pair/{made.path.name}"
    assert (summary["bars"], summary["in_sample"]) == (472, False)  # two test spans of 240, less the hole
    assert [rule["name"] for rule in summary["beside"]] == [
        "volatility target",
        "20-day momentum",
        "classical: constant",
    ]
    assert not [rule["error"] for rule in summary["beside"] if rule["error"]]
    assert all(rule["orders"] > 0 for rule in summary["beside"][:1])
    assert json.loads(Path(summary["run_path"], "summary.json").read_text())["beside"] == summary["beside"]
    page = Path(summary["report"]).read_text()
    assert "supports no claim" in page or "does not support a claim" in page
    assert "classical: constant" in page
    path.write_text(EXPERIMENT.replace("hidden = 6", "hidden = 7").replace("[model]", '[model]\nforecasts = "stepped"'))
    monkeypatch.setattr(grid, "MULTIPLES", (0.0, 1.0))
    monkeypatch.setattr(grid, "DELAYS", (0, 2))
    words = ("backtest", str(path), *places, "--no-beside", "--sensitivity", "--json")
    code, out, err = run_cli(monkeypatch, capsys, *words)
    assert code == 0, err
    assert "trained with another" in err
    stepped = json.loads(out)
    assert {name: stepped[name] for name in ("orders", "fees", "sharpe")} == {
        name: summary[name] for name in ("orders", "fees", "sharpe")
    }
    table = stepped["sensitivity"]
    assert (table["multiples"], table["delays"]) == ([0.0, 1.0], [0, 2])
    assert table["sharpe"][1][0] == summary["sharpe"]
    assert table["sharpe"][0][0] > table["sharpe"][1][0]
    assert "Costs and delays" in Path(stepped["report"]).read_text()
    path.write_text(EXPERIMENT.replace("max_gap_bars = 10", "max_gap_bars = 9"))
    code, _, err = run_cli(monkeypatch, capsys, "backtest", str(path), *places)
    assert code == 1
    assert "trained on other features" in err


def test_a_sweep_judges_its_best_and_goes_on_where_it_was(
    made: Evaluation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "pair.toml"
    path.write_text(EXPERIMENT)
    words = (
        "sweep",
        str(path),
        "--catalog",
        str(made.folder / "catalog"),
        "--runs",
        str(made.folder / "runs"),
        "--json",
    )
    code, out, err = run_cli(monkeypatch, capsys, *words)
    assert code == 0, err
    summary = json.loads(out)
    labels = {row["setting"] for row in summary["settings"]}
    assert len(labels) == 4
    assert "sizing.target_volatility=0.2 limits.max_exposure=0.5" in labels
    sharpes = [row["sharpe"] for row in summary["settings"]]
    assert sharpes == sorted(sharpes, reverse=True)
    assert summary["trials"] == 4
    assert 0.0 <= summary["probability_of_overfitting"] <= 1.0
    best = summary["settings"][0]
    assert summary["deflated_sharpe"] < best["probabilistic_sharpe"]
    # One of them, run by itself.
    alone = run_backtest(
        settings_of(
            made,
            sizing=msgspec.structs.replace(SIZING, target_volatility=0.2),
            limits=LimitsConfig(daily_loss=0.5, max_drawdown=0.9, max_exposure=0.5),
            costs=Costs(fee=0.0005, spread=0.0002, slippage=0.0001),
            start=made.schedule().turns[0].first - 1,
        )
    ).summary
    row = next(row for row in summary["settings"] if row["setting"].endswith("=0.2 limits.max_exposure=0.5"))
    assert (row["sharpe"], row["orders"]) == (alone["sharpe"], alone["orders"])

    ran: list[str] = []
    monkeypatch.setattr(grid, "run_job", lambda job: ran.append(job) or grid.trade(job))
    code, out, _ = run_cli(monkeypatch, capsys, *words)
    assert code == 0
    assert not ran
    assert json.loads(out)["settings"] == summary["settings"]
    path.write_text(EXPERIMENT[: EXPERIMENT.index('"limits.max')].replace("[0.2, 0.4]", "[0.4]"))
    code, _, err = run_cli(monkeypatch, capsys, *words)
    assert code == 1
    assert "[sweep] gives one setting alone" in err


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('"sizing.tild" = [1, 2]', 'sweep."sizing.tild" is no setting; did you mean sizing.tilt?'),
        ('"train.seed" = [1, 2]', "it sweeps settings of sizing, limits, exits, execution, portfolio, such as"),
        ('"exits.stopp" = [1, 2]', 'sweep."exits.stopp" is no setting; did you mean exits.stop?'),
        ('"exits.stop" = [-1.0, 2.0]', "sweep, exits.stop=-1: exits.stop is -1.0"),
        ('"execution.mode" = ["market", "iceberg"]', "sweep, execution.mode=iceberg: "),
        ('"portfolio.method" = ["separate", "equal_risk"]', "changes nothing: one instrument is no portfolio"),
        ('"portfolio.grace_s" = [0, 5]', "changes nothing: a backtest waits for nobody"),
        ('"sizing.tilt" = []', "name at least one value, each once"),
        ('"sizing.tilt" = [1, 1]', "name at least one value, each once"),
        ('"sizing.tilt" = [1, "much"]', "sweep, sizing.tilt=much"),
        ('"sizing.tilt" = [-1.0, 1.0]', "sizing.tilt is -1.0; it must be 0 or above"),
        ('"sizing.horizon" = [1, 2]', "sizing.horizon is 2; it must be one of target.horizons"),
        ('"limits.side" = ["long_only", "long_short"]', "a cash account cannot short"),
        (f'"sizing.tilt" = {list(range(101))}\n"sizing.holding_bars" = {list(range(1, 102))}', "10,201 combinations"),
    ],
)
def test_a_sweep_takes_nothing_that_is_no_setting(tmp_path: Path, line: str, told: str) -> None:
    path = tmp_path / "pair.toml"
    path.write_text(EXPERIMENT[: EXPERIMENT.index('"sizing.target')] + line)
    with pytest.raises(LSTMStrategyError) as caught:
        load_experiment(path)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("section", "told"),
    [
        ('from = "current"\nseed = 1', 'belong to model.from = "walk_forward"'),
        ('from = "folds"', "model.from: invalid enum value 'folds'; it must be one of current, walk_forward"),
        ('source = "current"', "unknown key model.source"),
        ('from = "walk_forward"\nevaluation = "../x"', "it must be like evaluation-1a2b3c4d"),
    ],
)
def test_the_model_section_takes_nothing_else(tmp_path: Path, section: str, told: str) -> None:
    path = tmp_path / "pair.toml"
    path.write_text(EXPERIMENT.replace('from = "walk_forward"', section))
    with pytest.raises(LSTMStrategyError) as caught:
        load_experiment(path)
    assert told in str(caught.value)


def test_recorded_forecasts_have_no_features_to_be_out_of_range(made: Evaluation) -> None:
    with pytest.raises(LSTMStrategyError, match="recorded forecasts come without features"):
        made.backtest(made.schedule(), limits=LimitsConfig(feature_range=1.0))
