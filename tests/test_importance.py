"""What features are worth, how they drift, and which model may speak when: each on cases whose answer is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from safetensors.torch import save as to_safetensors

from lstm_strategy import artefact
from lstm_strategy.bars import Bars, parse_ns
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.features import FeatureConfig, Features, FeaturesConfig
from lstm_strategy.fold_index import FoldIndex, index_folds, read_fold_index
from lstm_strategy.forecaster import Forecaster
from lstm_strategy.hyperparameters import NetworkConfig, TargetConfig, TrainConfig
from lstm_strategy.measures import labels, pinball, scaled_quantiles
from lstm_strategy.network import StreamingLSTM
from lstm_strategy.research.drift import drift_between_folds
from lstm_strategy.research.export import export
from lstm_strategy.research.fold_run import Plan, run_baseline, run_network
from lstm_strategy.research.importance import block_order, importance
from lstm_strategy.research.labels import build_sample
from lstm_strategy.research.walk_forward import Fold
from lstm_strategy.sources.simulate import SimulationConfig, simulate, simulated_instrument

HOUR = 3_600_000_000_000
FEATURES = FeaturesConfig(
    scale_span=12,
    features=(FeatureConfig("return"), FeatureConfig("range"), FeatureConfig("hour_sin"), FeatureConfig("gap")),
)
TARGET = TargetConfig(horizons=(1, 4), levels=(0.1, 0.5, 0.9))


def fold_of(bars: Bars, number: int = 0, ends: tuple[int, ...] = (600, 700, 800, 1_400)) -> Fold:
    stamps = [None, *(int(bars.ts_close[end]) for end in ends)]
    names = ("fit", "stop", "calibrate", "test")
    return Fold(number, {name: (stamps[i], stamps[i + 1]) for i, name in enumerate(names)})


def plan_of(folder: Path, *history: Bars) -> Plan:
    names = [SimulationConfig(instrument_id=bars.instrument_id) for bars in history]
    return Plan(
        name="m",
        history=tuple(zip(history, map(simulated_instrument, names), strict=True)),
        features=FEATURES,
        target=TARGET,
        network=NetworkConfig(hidden=8),
        train=TrainConfig(epochs=1),
        models=folder / "models",
        parts=folder / "parts",
    )


@pytest.fixture(scope="module")
def markets() -> tuple[Bars, Bars]:
    first, second = (
        simulate(SimulationConfig(instrument_id=f"{n}.SIM", bars=1_500, seed=i)) for i, n in enumerate("AB")
    )
    kept = np.ones(1_500, np.bool_)
    kept[1_000:1_030] = False  # a long hole in the test span: features and state begin anew
    return first, cut(second, kept)


def cut(bars: Bars, kept: np.ndarray) -> Bars:
    columns = (bars.ts_close, bars.open, bars.high, bars.low, bars.close, bars.volume)
    return Bars(bars.instrument_id, bars.timeframe, *(column[kept] for column in columns))


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Callable[..., Path]:
    folder = tmp_path_factory.mktemp("models")
    return cache(lambda *heard, kind="lstm": save_network(folder, heard, kind))


def save_network(folder: Path, heard: tuple[str, ...], kind: str = "lstm") -> Path:
    """An artefact whose network listens to the features ``heard`` alone."""
    config = NetworkConfig(kind=kind, hidden=8, dropout=0.0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        start = torch.tensor([[-1.3, 0.0, 1.3]] * 2)
        network = StreamingLSTM(config, torch.zeros(4), torch.tensor([1.0, 0.5, 0.7, 1.0]), start)
        with torch.no_grad():
            network.head.weight.mul_(20.0)
            for column, name in enumerate(FEATURES.names):
                if name not in heard:
                    network.project.weight[:, column] = 0.0
        graph = export(network)
    fit = artefact.InstrumentFit(tick=0.01, scale_floor=1e-4, bars_per_year=8760.0)
    manifest = artefact.Manifest(
        name="m",
        version="-".join([kind, *heard]),
        package_version="0",
        timeframe="1h",
        instruments={"A.SIM": fit, "B.SIM": fit},
        features=FEATURES,
        feature_ranges=[artefact.FeatureRange(name, 0.0, 1.0, -8.0, 8.0) for name in FEATURES.names],
        horizons=TARGET.horizons,
        levels=TARGET.levels,
        network=config,
        training=TrainConfig(),
        spans={"fit": ("2020-01-01T01:00:00Z", "2020-01-20T00:00:00Z")},
        data_sha256={},
        baseline=[[-1.3, 0.0, 1.3]] * 2,
        calibration=[[-0.1, 0.0, 0.1]] * 2,
        shrinkage=[artefact.Shrinkage()] * 2,
        warmup_bars=100,
        scores={},
    )
    weights = to_safetensors({key: tensor.contiguous() for key, tensor in network.state_dict().items()})
    return artefact.save(folder, manifest, graph, weights)


def test_only_what_a_network_listens_to_is_worth_something(markets, made, tmp_path):
    plan, fold = plan_of(tmp_path, *markets), fold_of(markets[0])
    rows = importance(plan, [fold], {0: made("range")}, 3)
    assert rows[0].feature in ("range", "return_1")
    worth = {row.feature: row for row in rows}
    assert abs(worth["range"].increase) > 0.0
    assert worth["range"].spread > 0.0
    for name in ("return_1", "hour_sin_1", "gap"):
        assert worth[name].increase == worth[name].spread == 0.0  # to the last bit: nothing else was touched
        assert worth[name].by_fold == [0.0]
    assert worth["range"].by_fold == [pytest.approx(worth["range"].increase)]


def test_the_loss_that_rises_is_the_forecasters_own(markets, made, tmp_path):
    """The share tells the loss before shuffling: that of the forecasts as `Forecaster` gives them."""
    plan, fold, folder = plan_of(tmp_path, *markets), fold_of(markets[0]), made("range", "return_1")
    row = next(r for r in importance(plan, [fold], {0: folder}, 1) if r.feature == "range")
    assert row.spread is None
    total, count = 0.0, 0
    model, (start, end) = artefact.load(folder), fold.spans["test"]
    for bars in markets:
        known = bars.between(None, end)
        forecasts = Forecaster(model, bars.instrument_id).run(known)
        for horizon in TARGET.horizons:
            y = labels(known.close, known.ts_close, forecasts.scale_T, horizon, HOUR)
            q = scaled_quantiles(forecasts, horizon)
            kept = (known.ts_close > start) & np.isfinite(y) & np.isfinite(q[:, 0])
            total += pinball(y[kept], q[kept], TARGET.levels) * int(kept.sum())
            count += int(kept.sum())
    assert row.increase / row.share == pytest.approx(total / count, rel=1e-3)


@pytest.mark.parametrize("kind", ["cnn_lstm", "attention_lstm"])
def test_hybrids_are_weighed_too(markets, made, tmp_path, kind):
    plan, fold = plan_of(tmp_path, markets[0]), fold_of(markets[0])
    folder = made("hour_sin_1", kind=kind)
    worth = {row.feature: row.increase for row in importance(plan, [fold], {0: folder}, 1)}
    assert worth["hour_sin_1"] != 0.0
    assert worth["return_1"] == 0.0


def test_same_seed_same_figures_whatever_the_threads(markets, made, tmp_path):
    plan, folds = plan_of(tmp_path, *markets), [fold_of(markets[0]), fold_of(markets[0], 1, (650, 750, 850, 1_450))]
    folder = made("range", "hour_sin_1")
    told = []
    first = importance(plan, folds, {0: folder, 1: folder}, 2, on_done=lambda *done: told.append(done))
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert importance(plan, folds, {0: folder, 1: folder}, 2, workers=3) == first
    assert importance(plan, folds, {0: folder, 1: folder}, 2, seed=1) != first
    assert [len(row.by_fold) for row in first] == [2] * 4
    with pytest.raises(LSTMStrategyError, match="repeats is 0"):
        importance(plan, folds, {0: folder, 1: folder}, 0)


def test_what_truly_tells_the_future_weighs_most(tmp_path):
    bars = simulate(SimulationConfig(instrument_id="A.SIM", bars=3_000, seed=4, edge=0.6))
    plan = replace(
        plan_of(tmp_path, bars),
        target=TargetConfig(horizons=(1,)),
        train=TrainConfig(epochs=30, patience=30, chunk=128, burn_in=32, batch=8, learning_rate=0.01),
    )
    fold = fold_of(bars, 0, (1_800, 2_100, 2_300, 2_990))
    _, folder = run_network(plan, fold, 0)
    first, *others = importance(plan, [fold], {0: folder}, 4)
    assert first.feature == "return_1"
    assert first.share > 0.05
    assert first.increase > 4 * first.spread
    assert first.increase > 4 * max(row.increase for row in others)
    assert {row.feature: row.increase for row in others}["gap"] == 0.0  # there is none in these bars


def test_blocks_keep_their_course_but_not_their_time():
    for rows in (2, 3, 50, 600, 10_000):
        order = block_order(rows, np.random.default_rng(rows))
        assert sorted(order) == list(range(rows))
        assert (order != np.arange(rows)).any()
    kept = np.diff(order) == 1
    assert kept.mean() > 0.99  # 39 blocks of 10,000 rows
    lengths = np.diff(np.flatnonzero(np.concatenate([[True], ~kept, [True]])))
    assert len(lengths) > 30
    assert len(set(lengths % 24)) > 10  # an hour of the day is moved to another
    assert block_order(1, np.random.default_rng(0)).tolist() == [0]


def wilder(bars: Bars, first: int) -> Bars:
    """The same bars, with three times the range from ``first`` on."""
    later = np.arange(len(bars)) >= first
    high = np.where(later, bars.high * 1.02, bars.high)
    low = np.where(later, bars.low / 1.02, bars.low)
    return Bars(bars.instrument_id, bars.timeframe, bars.ts_close, bars.open, high, low, bars.close, bars.volume)


def test_the_largest_drift_is_named_with_its_spans(markets, tmp_path):
    bars = wilder(markets[0], 1_101)
    folds = [fold_of(bars, 0, (600, 700, 800, 1_100)), fold_of(bars, 1, (900, 1_000, 1_100, 1_400))]
    found = drift_between_folds(plan_of(tmp_path, bars), folds)
    assert [(row.fold, row.earlier, row.later) for row in found.rows] == [
        (0, "fit of fold 0", "test of fold 0"),
        (1, "fit of fold 1", "test of fold 1"),
        (1, "test of fold 0", "test of fold 1"),
    ]
    assert set(found.rows[0].psi) == set(FEATURES.names)
    assert found.rows[0].psi["range"] < 0.15 < 1.0 < found.rows[1].psi["range"]
    assert found.rows[2].psi["range"] > 1.0
    assert found.rows[1].psi["hour_sin_1"] < 0.05
    worst = max(found.rows[1:], key=lambda row: row.psi["range"])
    told = f"range, from the {worst.earlier} to the test of fold 1, PSI {worst.psi['range']:.2f} (large)"
    assert found.told[0].startswith(f"Largest drift of a feature: {told}; 2 of 12 comparisons")
    quiet = drift_between_folds(plan_of(tmp_path, markets[0]), folds)
    assert "(large)" not in quiet.told[0]


def test_a_feature_that_never_moves_is_named(markets, tmp_path):
    still = drift_between_folds(plan_of(tmp_path, markets[0]), [fold_of(markets[0])])
    assert still.constant == {0: ["gap"]}
    assert still.told[1:] == ["Feature gap never changes over the whole fit span of fold 0 and teaches nothing there."]
    kept = np.ones(1_500, np.bool_)
    kept[900:903] = False  # a short gap, in the test span only
    moved = drift_between_folds(plan_of(tmp_path, cut(markets[0], kept)), [fold_of(markets[0])])
    assert moved.told[1].endswith("teaches nothing there; yet it moves in the test span of fold 0.")


def test_a_feature_without_values_is_refused_in_one_line(markets, monkeypatch):
    honest = Features.run

    def broken(self: Features, bars: Bars):
        matrix = honest(self, bars)
        matrix.x_TF[:, 1] = np.nan
        return matrix

    monkeypatch.setattr(Features, "run", broken)
    told = (
        r"^A\.SIM: feature range has no value at 1,441 of 1,441 bars past the warm-up, first at 2020-01-03T.*leave the"
    )
    with pytest.raises(LSTMStrategyError, match=told) as caught:
        build_sample(
            markets[0],
            simulated_instrument(SimulationConfig(instrument_id="A.SIM")),
            FEATURES,
            TARGET.horizons,
            fold_of(markets[0]).spans,
        )
    assert "\n" not in str(caught.value)


@dataclass
class Hungry:
    """A baseline that asks for more memory than there is."""

    error: str = ""

    def forecast(self, samples, spans, target):
        if self.error:
            raise RuntimeError(self.error)
        np.empty((2**26, 2**20))  # more than an address can reach


def test_out_of_memory_is_one_line(markets, tmp_path):
    plan, fold = plan_of(tmp_path, *markets), fold_of(markets[0])
    for make in (Hungry, lambda: Hungry("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")):
        with pytest.raises(LSTMStrategyError, match=r"^out of memory; try fewer --workers") as caught:
            run_baseline(plan, fold, "hungry", make)
        assert "\n" not in str(caught.value)
    with pytest.raises(RuntimeError, match="something else"):
        run_baseline(plan, fold, "hungry", lambda: Hungry("something else"))


def row_of(index: FoldIndex, **changes) -> FoldIndex:
    return FoldIndex(folds=[msgspec.structs.replace(index.folds[0], **changes), *index.folds[1:]])


def test_the_index_of_folds_names_the_model_of_each_bar(made, tmp_path):
    folders = [made(name) for name in ("range", "return_1")]
    months = [parse_ns(f"2020-0{month}-01") for month in (2, 3, 4)]
    path = tmp_path / "runs" / "folds.json"
    rows = [(1, 0, folders[1], months[1], months[2]), (0, 0, folders[0], months[0], months[1])]
    index = index_folds(path, rows)
    assert read_fold_index(path) == index
    assert [row.fold for row in index.folds] == [0, 1]
    for ts, wanted in (
        (months[0], None),
        (months[0] + HOUR, 0),
        (months[1], 0),  # its last bar
        (months[1] + HOUR, 1),
        (months[2], 1),
        (months[2] + HOUR, None),
    ):
        found = index.at(ts)
        assert (found and found.fold) == wanted
    model = artefact.load((path.parent / index.folds[1].path).resolve())
    assert (
        (model.label, model.manifest.digest)
        == (index.folds[1].model, index.folds[1].digest)
        == ("m/lstm-return_1", model.manifest.digest)
    )
    assert index.folds[1].trained_until == "2020-01-20T00:00:00Z"
    both = index_folds(path, [*rows, (0, 7, folders[0], months[0], months[1])])
    assert both.at(months[1], seed=7).seed == 7
    with pytest.raises(LSTMStrategyError, match="the folds have seeds 0, 7; say which is meant"):
        both.at(months[1])


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"trained_until": "2020-02-01T01:00:00Z"},
            "was trained until 2020-02-01T01:00:00Z, but fold 0 is tested from",
        ),
        ({"test_end": "2020-03-01T01:00:00Z"}, "the test span of fold 1, .* begins before the one before it ends"),
        ({"test_end": "2020-02-01T00:00:00Z"}, "the test span of fold 0, .* is empty"),
    ],
)
def test_an_index_that_would_look_ahead_is_refused(made, tmp_path, changes, told):
    folders = [made(name) for name in ("range", "return_1")]
    months = [parse_ns(f"2020-0{month}-01") for month in (2, 3, 4)]
    path = tmp_path / "folds.json"
    index = index_folds(path, [(n, 0, folders[n], months[n], months[n + 1]) for n in range(2)])
    path.write_bytes(msgspec.json.encode(row_of(index, **changes)))
    with pytest.raises(LSTMStrategyError, match=told) as caught:
        read_fold_index(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(LSTMStrategyError, match="was trained until"):
        index_folds(path, [(0, 0, folders[0], parse_ns("2020-01-19"), months[0])])
    path.write_text("{}")
    with pytest.raises(LSTMStrategyError, match="is no index of folds"):
        read_fold_index(path)
    with pytest.raises(LSTMStrategyError, match="cannot be read"):
        read_fold_index(tmp_path / "nothing.json")
