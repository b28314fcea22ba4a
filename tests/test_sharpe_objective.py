"""The direct objective: positions learned for their net Sharpe ratio, causal, and the same all the way to orders."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from catalog_support import bring_in

from lstm_strategy import artefact
from lstm_strategy.bars import Bars
from lstm_strategy.conformal import CalibrationConfig
from lstm_strategy.decision import Costs, Decision, LimitsConfig, PortfolioState, Reason, SizingConfig, decide
from lstm_strategy.decision_again import decide_again, forecast_of
from lstm_strategy.decision_log_reader import read_log
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.experiment import Experiment
from lstm_strategy.features import FeatureConfig, FeaturesConfig
from lstm_strategy.fold_index import FoldIndex
from lstm_strategy.forecast import Forecast
from lstm_strategy.forecaster import Forecaster
from lstm_strategy.hyperparameters import NetworkConfig, SplitConfig, TargetConfig, TrainConfig, WalkForwardConfig
from lstm_strategy.limits import require_consistent
from lstm_strategy.nautilus.backtest import BacktestRun, BacktestSettings, run_backtest
from lstm_strategy.nautilus.beside import companions
from lstm_strategy.nautilus.catalog import write_catalog
from lstm_strategy.nautilus.source import recorded_from
from lstm_strategy.network import Ensemble, StreamingLSTM
from lstm_strategy.portfolio import PortfolioConfig, require_portfolio
from lstm_strategy.report.explain_words import explain_row
from lstm_strategy.research.batches import batches, sequences
from lstm_strategy.research.evaluate import evaluate
from lstm_strategy.research.export import export
from lstm_strategy.research.fold_run import Plan
from lstm_strategy.research.labels import Sample, build_sample
from lstm_strategy.research.leaks import LeakError, require_future_unseen, require_labels
from lstm_strategy.research.objective import STILL, hold_nothing, net_returns, ratio, sharpe
from lstm_strategy.research.positions import judge_positions
from lstm_strategy.research.train import RUN_IN, stream, train
from lstm_strategy.risk import RiskState
from lstm_strategy.schedule import Schedule, recording, walk_forward_schedule
from lstm_strategy.sizing import Shrinkage, Trained
from lstm_strategy.sources.simulate import SimulationConfig, simulate, simulated_instrument

TARGET = TargetConfig(horizons=(1, 4))
FEATURES = FeaturesConfig(
    scale_span=24,
    features=(
        FeatureConfig("return", 1),
        FeatureConfig("return", 4),
        FeatureConfig("range"),
        FeatureConfig("hour_sin"),
    ),
)
SHARPE = TrainConfig(
    objective="sharpe", turnover_cost=0.0003, epochs=15, patience=7, chunk=128, burn_in=32, batch=8, learning_rate=0.01
)
NETWORK = SizingConfig(mode="network", target_volatility=0.3)
LOOSE = LimitsConfig(daily_loss=0.9, max_drawdown=0.9, side="long_short", max_step=2.0)
YEAR = 8760.0


def sample_of(bars_number: int = 6_000, seed: int = 1, edge: float = 0.2) -> tuple[Sample, dict[str, Any]]:
    """A market whose next return leans the way of the last one, or pure noise; spans of half, 15 % and the rest."""
    market = SimulationConfig(bars=bars_number, seed=seed, noise=edge == 0.0, edge=edge)
    bars = simulate(market)
    ends = [int(bars.ts_close[int(part * bars_number)]) for part in (0.5, 0.65)]
    spans = {
        "fit": (None, ends[0]),
        "stop": (ends[0], ends[1]),
        "calibrate": (ends[1], ends[1]),
        "test": (ends[1], None),
    }
    return build_sample(bars, simulated_instrument(market), FEATURES, TARGET.horizons, spans), spans


@cache
def learned(cost: float, seed: int = 1, edge: float = 0.2, **changes: Any) -> SimpleNamespace:
    """What a network trained at a cost did in the test span: annual net Sharpe ratio, turnover a bar, positions."""
    sample, spans = sample_of(seed=seed, edge=edge)
    config = msgspec.structs.replace(SHARPE, turnover_cost=cost, seed=seed, **changes)
    with TemporaryDirectory() as folder:
        trained = train([sample], spans, TARGET, NetworkConfig(hidden=8), config, Path(folder) / "checkpoint")
    (test,) = sequences([sample], spans["test"], 4, RUN_IN)
    position_T = stream(trained.network, test)[1]
    net_T = net_returns(position_T, test.next_T, test.scale_T, cost)
    turnover = float((position_T / test.scale_T).diff().abs().mean() * test.scale_T.mean())
    return SimpleNamespace(
        net=ratio(net_T, YEAR), turnover=turnover, position_T=position_T, trained=trained, net_T=net_T, test=test
    )


# What a position earns


def test_a_position_earns_the_bar_after_it_and_pays_for_each_change() -> None:
    position_T = torch.tensor([0.5, 0.5, -1.0, 0.0])
    scale_T = torch.tensor([0.01, 0.02, 0.02, 0.02])
    next_T = torch.tensor([1.0, -2.0, torch.nan, 3.0])
    found = net_returns(position_T, next_T, scale_T, 0.001).tolist()
    # exposures of a volatility of 1 a bar: 50, 25, -50, 0
    assert found[0] == pytest.approx(50 * (math.exp(0.01) - 1) - 0.001 * 50, rel=1e-5)
    assert found[1] == pytest.approx(25 * (math.exp(-0.04) - 1) - 0.001 * 25, rel=1e-5)
    assert math.isnan(found[2])
    assert found[3] == pytest.approx(-0.001 * 50, rel=1e-5)


def test_the_ratio_is_that_of_pooled_moments_and_prefers_nothing_to_a_loss() -> None:
    net = torch.tensor([[0.3, -0.1], [torch.nan, 0.2], [0.4, 0.0]])
    known = np.array([0.3, -0.1, 0.2, 0.4, 0.0])
    assert float(sharpe(net)) == pytest.approx(known.mean() / (known.std() + STILL), rel=1e-5)
    assert ratio(net, YEAR) == pytest.approx(known.mean() / known.std(ddof=1) * math.sqrt(YEAR), rel=1e-5)
    losing = torch.tensor([0.1, -0.3, 0.05])
    assert float(sharpe(losing)) < float(sharpe(0.1 * losing)) < float(sharpe(0.0 * losing)) == 0.0
    assert float(sharpe(net)) > float(sharpe(0.1 * net)) > 0.0
    assert float(sharpe(torch.full((3,), torch.nan))) == ratio(torch.full((3,), torch.nan), YEAR) == 0.0


def test_labels_that_are_missing_leave_no_gradient_behind() -> None:
    position_T = torch.tensor([0.1, 0.2, -0.3, 0.2], requires_grad=True)
    sharpe(
        net_returns(position_T, torch.tensor([1.0, torch.nan, -1.0, torch.nan]), torch.full((4,), 0.01), 0.001)
    ).backward()
    assert position_T.grad is not None
    assert torch.isfinite(position_T.grad).all()
    assert position_T.grad[3] == 0.0  # neither earns nor pays where nothing is known
    assert position_T.grad[1] != 0.0  # the change after it is paid for


def test_a_return_is_strictly_after_the_bar_of_its_position() -> None:
    sample, spans = sample_of(1_500)
    bars, k = sample.bars, 900
    close, high = bars.close.copy(), bars.high.copy()
    close[k] *= 1.02
    high[k] = max(high[k], close[k])
    bent = replace(bars, close=close, high=high)
    altered = build_sample(bent, simulated_instrument(SimulationConfig()), FEATURES, TARGET.horizons, spans)
    changed = np.flatnonzero(~np.isclose(altered.next_T, sample.next_T, equal_nan=True, atol=1e-6, rtol=0.0))
    assert changed[0] == k - 1  # what is earned on the way to the changed close belongs to the bar before it
    np.testing.assert_array_equal(altered.matrix.x_TF[:k], sample.matrix.x_TF[:k])
    assert not np.array_equal(altered.matrix.x_TF[k], sample.matrix.x_TF[k])


@pytest.mark.parametrize("shift", [-1, 1])
def test_labels_shifted_by_one_bar_are_refused(shift: int) -> None:
    sample, _ = sample_of(1_500)
    require_labels(sample, TARGET.horizons)
    next_T = np.roll(sample.next_T, shift)
    with pytest.raises(LeakError, match=r"check labels: .* at 1 bars is"):
        require_labels(replace(sample, next_T=next_T), TARGET.horizons)


def test_what_is_earned_is_gone_with_labels_one_bar_off() -> None:
    """Positions lean on the last return: counted one bar too early they would earn what they were made from."""
    found = learned(0.0003)
    early = net_returns(found.position_T, found.test.next_T.roll(1), found.test.scale_T, 0.0003)[1:]
    late = net_returns(found.position_T, found.test.next_T.roll(-1), found.test.scale_T, 0.0003)[:-1]
    assert ratio(early, YEAR) > 2.0 * found.net
    assert ratio(late, YEAR) < 0.25 * found.net


def test_batches_turn_what_is_earned_with_the_chunks_and_start_it_before_the_burn_in() -> None:
    sample, spans = sample_of(1_500)
    fit = sequences([sample], spans["fit"], 4)
    plain, turned = (
        list(batches(fit, 128, msgspec.structs.replace(SHARPE, mirror=share, batch=1), np.random.default_rng(5)))
        for share in (0.0, 0.5)
    )
    signs = set()
    for own, other in zip(plain[:1], turned[:1], strict=True):  # the generators part after the first
        sign = 1.0 if torch.equal(own.y_LBH.nan_to_num(), other.y_LBH.nan_to_num()) else -1.0
        signs.add(sign)
        torch.testing.assert_close(other.next_LB, sign * own.next_LB, equal_nan=True)
        torch.testing.assert_close(other.scale_LB, own.scale_LB)
    for batch in turned:
        torch.testing.assert_close(batch.next_LB, batch.y_LBH[..., 0], equal_nan=True)  # the first horizon is one bar
    (stop,) = sequences([sample], spans["stop"], 4, RUN_IN)
    assert torch.isnan(stop.next_T[:RUN_IN]).all()
    assert not torch.isnan(stop.scale_T).any()


# Learning


@pytest.mark.parametrize("seed", [1, 2])
def test_a_planted_trend_is_earned_after_costs(seed: int) -> None:
    found = learned(0.0003, seed)
    assert found.net > 4.0  # a year; the standard error over 2,100 bars is 2
    assert found.position_T.abs().max() <= 1.0
    assert found.trained.pinball < found.trained.pinball_baseline  # the quantiles are learned beside it


def test_the_dearer_the_turnover_the_less_of_it() -> None:
    found = [learned(cost).turnover for cost in (0.0, 0.0003, 0.001)]
    assert found[0] > 1.15 * found[1] > 3.0 * found[2] > 0.0


def test_nothing_is_held_where_trading_costs_more_than_it_earns() -> None:
    found = learned(0.003)
    assert found.position_T.abs().max() == 0.0
    assert found.net == 0.0
    assert found.trained.pinball < found.trained.pinball_baseline


def test_positions_that_lose_after_all_choices_are_made_count_for_nothing() -> None:
    sample, spans = sample_of()
    spans |= {"calibrate": spans["test"]}
    found = learned(0.0003)
    config = msgspec.structs.replace(SHARPE, turnover_cost=0.0003)
    before = judge_positions(found.trained.network, [sample], spans, TARGET, config)
    assert before["position_believed"] == 1.0
    assert before["net_sharpe_calibrate"] == pytest.approx(found.net, rel=1e-4)
    network = copy.deepcopy(found.trained.network)
    turned = judge_positions(network, [replace(sample, next_T=-sample.next_T)], spans, TARGET, config)
    assert turned["position_believed"] == 0.0
    assert turned["net_sharpe_calibrate"] < 0.0 < turned["mean_position_calibrate"]
    (test,) = sequences([sample], spans["test"], 4, RUN_IN)
    assert stream(network, test)[1].abs().max() == 0.0
    torch.testing.assert_close(stream(network, test)[0], stream(found.trained.network, test)[0], rtol=0.0, atol=0.0)
    pair = Ensemble([copy.deepcopy(found.trained.network) for _ in range(2)])
    hold_nothing(pair)
    assert stream(pair, test)[1].abs().max() == 0.0


def test_noise_is_hardly_traded() -> None:
    """Some hold a lasting side, for what the market happened to do; none pays for trading."""
    found = [learned(0.001, seed, edge=0.0, epochs=8) for seed in range(3, 9)]
    assert max(one.turnover for one in found) < 0.03
    assert np.mean([float(one.position_T.abs().mean()) for one in found]) < 0.35
    assert np.mean([one.net for one in found]) > -4.0 / math.sqrt(6) * 2.0  # two standard errors of six years' means
    assert sum(float(one.position_T.abs().max()) == 0.0 for one in found) >= 1


def test_a_panel_an_ensemble_and_other_kinds_learn_positions() -> None:
    samples = []
    for name in ("A.SIM", "B.SIM"):
        market = SimulationConfig(instrument_id=name, bars=1_800, seed=len(samples) + 1, edge=0.3)
        bars = simulate(market)
        ends = [int(bars.ts_close[row]) for row in (1_100, 1_400)]
        spans = {
            "fit": (None, ends[0]),
            "stop": (ends[0], ends[1]),
            "calibrate": (ends[1], ends[1]),
            "test": (ends[1], None),
        }
        samples.append(build_sample(bars, simulated_instrument(market), FEATURES, TARGET.horizons, spans))
    config = msgspec.structs.replace(SHARPE, members=2, epochs=3, ema=0.9, range_weight=0.1, mirror=0.5)
    with TemporaryDirectory() as folder:
        found = train(samples, spans, TARGET, NetworkConfig(hidden=6, embedding=2), config, Path(folder) / "checkpoint")
    assert isinstance(found.network, Ensemble)
    (own,) = sequences(samples[1:], spans["stop"], 4)
    each = torch.stack([stream(member, own)[1] for member in found.network.members])
    torch.testing.assert_close(stream(found.network, own)[1], each.mean(dim=0))


def test_settings_that_belong_together_are_asked_for() -> None:
    with pytest.raises(LSTMStrategyError, match=r'train\.turnover_cost belongs to objective = "sharpe"'):
        TrainConfig(turnover_cost=0.001)
    with pytest.raises(LSTMStrategyError, match=r'train\.quantile_weight belongs to objective = "sharpe"'):
        TrainConfig(quantile_weight=2.0)
    for wrong in ({"turnover_cost": -0.1}, {"turnover_cost": math.nan}, {"quantile_weight": 0.0}):
        with pytest.raises(LSTMStrategyError, match=r"it must be"):
            TrainConfig(objective="sharpe", **wrong)
    sample, spans = sample_of(1_500)
    config = msgspec.structs.replace(SHARPE, turnover_cost=None)
    with pytest.raises(LSTMStrategyError, match=r"train\.turnover_cost is not given; name what trading costs"):
        train([sample], spans, TARGET, NetworkConfig(hidden=4), config, Path("nowhere"))


def experiment(**changes: Any) -> Experiment:
    told = {
        "name": "own",
        "data": {"instruments": ["A.SIM"], "timeframe": "1h"},
        "split": {"fit_end": "2020-03-01", "stop_end": "2020-04-01", "calibrate_end": "2020-05-01"},
        "train": {"objective": "sharpe"},
        "sizing": {"mode": "network"},
        "costs": {"fee": 0.0005, "spread": 0.0002, "slippage": 0.0001},
    }
    return msgspec.convert(told | changes, Experiment)


def test_an_experiment_names_its_own_costs_and_fits_its_sizing() -> None:
    instrument = simulated_instrument(SimulationConfig(instrument_id="A.SIM"))
    assert experiment().training([instrument]).turnover_cost == pytest.approx(0.0007)
    assert (
        experiment(train={"objective": "sharpe", "turnover_cost": 0.002}).training([instrument]).turnover_cost == 0.002
    )
    assert experiment(train={}, sizing={}).training([instrument]) == TrainConfig()
    with pytest.raises(LSTMStrategyError, match=r'sizing\.mode is "network", but train\.objective is "quantiles"'):
        experiment(train={})
    with pytest.raises(LSTMStrategyError, match=r"train\.objective cannot vary: trials are judged by their quantiles"):
        experiment(tune={"space": {"train.objective": {"choices": ["quantiles", "sharpe"]}}})


# One graph, bar by bar and at once


def network_of(members: int, kind: Any = "lstm") -> StreamingLSTM | Ensemble:
    start = torch.linspace(-2.0, 2.0, 13).repeat(2, 1)
    found = []
    for seed in range(members):
        torch.manual_seed(seed)
        config = NetworkConfig(kind=kind, hidden=11, dropout=0.0)
        one = StreamingLSTM(config, torch.zeros(4), torch.ones(4), start, (), False, True)
        with torch.no_grad():
            one.position_head.weight.mul_(10.0)
        found.append(one.eval())
    return found[0] if members == 1 else Ensemble(found)


@pytest.mark.parametrize(("members", "kind"), [(3, "lstm"), (1, "attention_lstm")])
def test_the_graph_says_the_position_bar_by_bar_as_at_once(members: int, kind: str) -> None:
    import onnxruntime as ort

    network = network_of(members, kind)
    session = ort.InferenceSession(export(network), providers=["CPUExecutionProvider"])
    assert [node.name for node in session.get_outputs()][:2] == ["quantiles", "position"]
    x_T1F = np.random.default_rng(3).normal(size=(203, 1, 4)).astype(np.float32)
    names = list(network.state_shapes)
    state = {name: part.numpy() for name, part in zip(names, network.initial_state(1), strict=True)}
    whole = session.run(["position"], {"x": x_T1F} | state)[0]
    steps = []
    for x in x_T1F:
        _, position, *after = session.run(None, {"x": x[None]} | state)
        state = dict(zip(names, after, strict=True))
        steps.append(position)
    if kind == "lstm":
        np.testing.assert_array_equal(np.concatenate(steps), whole)
    np.testing.assert_allclose(np.concatenate(steps), whole, atol=1e-5)
    assert 0.2 < np.abs(whole).max() <= 1.0


def test_networks_without_a_position_are_what_they_were() -> None:
    start = torch.linspace(-2.0, 2.0, 13).repeat(2, 1)
    made = []
    for heads in ((), (False, True)):
        torch.manual_seed(5)
        made.append(StreamingLSTM(NetworkConfig(hidden=7), torch.zeros(4), torch.ones(4), start, (), *heads))
    plain, with_position = (dict(one.named_parameters()) for one in made)
    assert with_position.keys() - plain.keys() == {"position_head.weight", "position_head.bias"}
    assert all(torch.equal(plain[name], with_position[name]) for name in plain)
    assert len(made[0](torch.zeros(3, 1, 4), *made[0].initial_state(1))) == 3


# The whole way


@dataclass
class Made:
    """A walk-forward of two folds, each with an ensemble of two that holds positions."""

    folder: Path
    path: Path
    bars: Bars
    index: FoldIndex

    def schedule(self, **changes: Any) -> Schedule:
        return walk_forward_schedule(self.path, self.bars.instrument_id, **changes)

    def settings(self, model: Any, **changes: Any) -> BacktestSettings:
        told: dict[str, Any] = {
            "catalog": self.folder / "catalog",
            "instrument_id": self.bars.instrument_id,
            "timeframe": "1h",
            "model": model,
            "sizing": NETWORK,
            "limits": LOOSE,
            "costs": Costs(fee=0.0003),
            "account": "margin",
            "start": int(self.bars.ts_close[-400]),
            "tearsheet": False,
        }
        return BacktestSettings(**(told | changes))

    def backtest(self, model: Any, **changes: Any) -> BacktestRun:
        return run_backtest(self.settings(model, **changes))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("positions")
    market = SimulationConfig(instrument_id="A.SIM", bars=5_000, seed=2, edge=0.3)
    bars, instrument = simulate(market), simulated_instrument(market)
    bring_in(folder / "catalog", bars, instrument)
    plan = Plan(
        name="own",
        history=((bars, instrument),),
        features=FEATURES,
        target=TARGET,
        network=NetworkConfig(hidden=8),
        train=msgspec.structs.replace(SHARPE, members=2),
        models=folder / "models" / "own" / "folds",
        parts=folder / "runs" / "own" / "folds",
    )
    split = SplitConfig(fit_end="2020-03-01", stop_end="2020-04-01", calibrate_end="2020-05-01")
    walk = WalkForwardConfig(test_bars=200, folds=2, stop_bars=500, calibrate_bars=500)
    path = evaluate(plan, split, walk, folder / "runs" / "own", {}).forecasts_path.parent
    return Made(folder, path, bars, msgspec.json.decode((path / "folds.json").read_bytes(), type=FoldIndex))


def model_of(made: Made) -> artefact.Artefact:
    return artefact.load(made.path / made.index.folds[0].path)


def test_the_artefact_says_what_it_learned(made: Made) -> None:
    manifest = model_of(made).manifest
    assert (manifest.training.objective, manifest.training.turnover_cost) == ("sharpe", 0.0003)
    assert manifest.has_position
    scores = manifest.scores
    for span in ("stop", "calibrate"):
        assert scores[f"gross_sharpe_{span}"] > scores[f"net_sharpe_{span}"] > 0.0
        assert 0.0 < scores[f"mean_position_{span}"] < 1.0
    assert scores["position_believed"] == 1.0
    assert {"objective_stop_member_0", "objective_stop_member_1"} <= scores.keys()


def test_positions_stream_to_the_last_bit_whatever_the_split(made: Made) -> None:
    model, bars = model_of(made), made.bars[-700:]
    whole = Forecaster(model, "A.SIM").run(bars)
    assert whole.position_T is not None
    stepper, again = Forecaster(model, "A.SIM"), Forecaster(model, "A.SIM")
    for row, bar in enumerate(bars):
        if row == 450:
            again.restore(stepper.state())
            stepper = again
        forecast = stepper.update(bar)
        told = math.nan if forecast is None else forecast.position
        np.testing.assert_array_equal(np.float32(told), whole.position_T[row])
    known = ~np.isnan(whole.quantiles_THQ[:, 0, 0])
    np.testing.assert_array_equal(known, ~np.isnan(whole.position_T))
    assert whole.position_T[known].std() > 0.01
    exact = Forecaster(model, "A.SIM", CalibrationConfig(adaptive=True)).run(bars, exact=True)
    np.testing.assert_array_equal(exact.position_T, whole.position_T)  # calibration moves quantiles alone
    assert not np.array_equal(exact.quantiles_THQ, whole.quantiles_THQ, equal_nan=True)


def test_a_position_knows_nothing_of_later_bars(made: Made) -> None:
    model = model_of(made)
    whole = Forecaster(model, "A.SIM").run(made.bars)
    cut = int(made.bars.ts_close[3_000])
    require_future_unseen(model, made.bars, whole, cut)
    assert whole.position_T is not None
    peeking = replace(whole, position_T=np.roll(whole.position_T, -1))
    with pytest.raises(LeakError, match="future_unseen"):
        require_future_unseen(model, made.bars, peeking, cut)


def test_recorded_positions_are_the_stepped_ones_and_trade_alike(made: Made, tmp_path: Path) -> None:
    recorded, stepped = (
        made.backtest(made.schedule(recorded=told), run_folder=tmp_path / str(told)) for told in (True, False)
    )
    assert recorded.forecasts.position_T is not None
    np.testing.assert_array_equal(recorded.forecasts.position_T, stepped.forecasts.position_T)
    np.testing.assert_array_equal(recording(made.schedule()).position_T[1:], stepped.forecasts.position_T)
    assert recorded.tables["orders"].num_rows > 50
    assert recorded.tables["orders"].equals(stepped.tables["orders"])
    assert pq.read_schema(tmp_path / "True" / "forecasts.parquet").field("position").type == "float"
    quantities = recorded.tables["orders"].to_pandas()
    assert set(quantities["side"].str.lower()) == {"buy", "sell"}
    assert recorded.summary["net_return"] > 0.0  # an edge of .3, at three basis points a side


def test_every_bar_of_a_run_says_the_position_in_words_and_decides_again(made: Made, tmp_path: Path) -> None:
    model = made.path / made.index.folds[0].path
    first = made.backtest(model, run_folder=tmp_path / "run")
    log = read_log(tmp_path / "run")
    reasons = set(log.texts("reason"))
    assert {"rebalance", "within_no_trade_band"} <= reasons
    words: dict[str, str] = {}
    for row in range(len(log)):
        logged, header = log.row(row), log.header_at(row)
        forecast = forecast_of(logged, header)
        assert forecast is not None
        assert forecast.position == float(first.forecasts.position_T[row])  # type: ignore[index]
        decision = decide_again(logged, header)
        assert (decision.target, decision.reason.value) == (logged["target"], logged["reason"])
        if logged["reason"] not in words:
            words[logged["reason"]] = " ".join(explain_row(log, row)["words"].values())
    assert "The network would hold" in words["rebalance"]
    assert "at a volatility of 30" in words["rebalance"]
    assert "(sizing.least_change)" in words["within_no_trade_band"]
    again = recorded_from(artefact.load(model), "A.SIM", tmp_path / "run" / "forecasts.parquet")
    assert made.backtest(again).tables["orders"].equals(first.tables["orders"])


def test_a_model_without_a_position_is_refused_before_any_order(made: Made, tiny_artefact: Path) -> None:
    settings = made.settings(tiny_artefact, instrument_id="BTCUSDT.BINANCE")
    market = SimulationConfig(instrument_id="BTCUSDT.BINANCE", bars=700)
    write_catalog(made.folder / "catalog", simulate(market), simulated_instrument(market))
    with pytest.raises(LSTMStrategyError, match=r'sizing\.mode is "network", but model tiny/1 has learned no position'):
        run_backtest(msgspec.structs.replace(settings, start=None))
    schedule = made.schedule()
    turns = (msgspec.structs.replace(schedule.turns[0], position=False), *schedule.turns[1:])
    with pytest.raises(LSTMStrategyError, match=r"own/evaluation-\w+ has learned no position"):
        made.backtest(msgspec.structs.replace(schedule, turns=turns))


def test_rules_beside_it_hold_no_positions(made: Made, tmp_path: Path) -> None:
    rules = companions(made.settings(made.schedule()), made.schedule(), made.bars, tmp_path)
    assert "network" not in {job.sizing.mode for job in rules.values()}
    assert run_backtest(rules["volatility target"]).summary["orders"] > 0


# Sizing


def wanted(position: float, held: float = 0.0, scale: float = 0.01, **changes: Any) -> Decision:
    sizing = msgspec.structs.replace(NETWORK, **changes.pop("sizing", {}))
    quantiles = scale * np.array([[-1.6, 0.0, 1.6]], np.float32)
    forecast = Forecast(0, (1,), (0.05, 0.5, 0.95), quantiles, scale, position)
    state = PortfolioState(0, 1000.0, held, RiskState.start(0, 1000.0))
    limits = changes.pop("limits", msgspec.structs.replace(LOOSE, max_exposure=3.0))
    return decide(
        forecast, state, sizing, limits, Costs(fee=0.001), trained=Trained({1: Shrinkage()}), bars_per_year=YEAR
    )


def test_the_exposure_is_the_position_at_the_target_volatility() -> None:
    full = 0.3 / (0.01 * math.sqrt(YEAR))
    assert wanted(0.8).target == pytest.approx(0.8 * full)
    assert wanted(-0.8).target == pytest.approx(-0.8 * full)
    assert wanted(1.0, held=2.0, scale=1e-5).target == pytest.approx(
        3.0
    )  # σ stands on its floor: 0.3 / 0.05, cut at the cap
    assert wanted(-0.8, limits=LimitsConfig(max_exposure=3.0)).target == 0.0  # long_only
    assert wanted(1.0, sizing={"volatility_floor": 2.0}).target == pytest.approx(0.15)


@pytest.mark.parametrize(
    ("held", "target", "reason"),
    [
        (0.26, 0.26, Reason.WITHIN_BAND),
        (0.24, 0.3, Reason.REBALANCE),
        (0.36, 0.3, Reason.REBALANCE),
        (-0.3, 0.3, Reason.REBALANCE),
    ],
)
def test_small_changes_are_left_and_others_made_without_a_word_of_utility(
    held: float, target: float, reason: Reason
) -> None:
    position = 0.3 * 0.01 * math.sqrt(YEAR) / 0.3  # an exposure of 0.3
    found = wanted(position, held)
    assert (found.target, found.reason) == (pytest.approx(target), reason)


def test_a_position_of_nothing_is_closed_however_small() -> None:
    found = wanted(0.0, 0.01)
    assert (found.target, found.reason) == (0.0, Reason.REBALANCE)
    assert wanted(0.001, 0.01).reason == Reason.WITHIN_BAND


def test_a_position_that_is_not_known_is_no_forecast() -> None:
    found = wanted(math.nan, 0.5)
    assert (found.target, found.reason) == (0.0, Reason.INVALID_FORECAST)


def test_no_costs_are_asked_for_and_no_portfolio() -> None:
    require_consistent(NETWORK, LOOSE, Costs(fee=0.0))
    with pytest.raises(LSTMStrategyError, match=r'sizing\.mode "network" judges each name by itself'):
        require_portfolio(PortfolioConfig(), NETWORK)
    require_portfolio(PortfolioConfig(method="separate"), NETWORK)
    with pytest.raises(LSTMStrategyError, match=r"sizing\.least_change is -1"):
        SizingConfig(least_change=-1.0)
