"""Every kind of network as an artefact: streamed = run, split anywhere, warm when it says so, within bounded memory."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from safetensors.torch import save as to_safetensors

from lstm_strategy import artefact, network_step
from lstm_strategy.artefact import Artefact, FeatureRange, InstrumentFit
from lstm_strategy.bars import Bars
from lstm_strategy.features import FeatureConfig, FeaturesConfig
from lstm_strategy.forecaster import Forecaster
from lstm_strategy.hyperparameters import NetworkConfig, TrainConfig
from lstm_strategy.network import Ensemble, StreamingLSTM
from lstm_strategy.research import fold_run
from lstm_strategy.research.export import export
from lstm_strategy.research.fit import measure_warmup
from lstm_strategy.research.labels import build_sample
from lstm_strategy.research.walk_forward import Fold
from lstm_strategy.sources.simulate import SimulationConfig, simulate, simulated_instrument

LEVELS, START = (0.05, 0.25, 0.5, 0.75, 0.95), (-1.6, -0.7, 0.0, 0.7, 1.6)
FEATURES = FeaturesConfig(scale_span=5, max_gap_bars=3, features=tuple(FeatureConfig("return", n) for n in (1, 2, 3)))
NAMES = ("B.SIM", "A.SIM", "C.SIM")  # not in the order of their numbers
KINDS = {
    "lstm": (NetworkConfig(hidden=6, embedding=2, layer_norm=True), 2, (1,)),
    "cnn_lstm": (NetworkConfig(kind="cnn_lstm", hidden=6, kernel=3, convolutions=2, head="mae"), 2, (1, 4)),
    "attention_lstm": (NetworkConfig(kind="attention_lstm", hidden=6, window=5, embedding=2), 1, (1, 4)),
}
KIND = pytest.mark.parametrize("kind", KINDS)
UNIT = 1e-5  # of a unit quantile: how far a hybrid run at once may be from its steps


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artefact]:
    torch.set_num_threads(1)
    found = {}
    for number, (kind, (config, members, horizons)) in enumerate(KINDS.items()):
        torch.manual_seed(number)
        start = torch.tensor([START] * len(horizons))
        networks = []
        for _ in range(members):
            network = StreamingLSTM(config, torch.zeros(3), torch.ones(3), start, tuple(sorted(NAMES)))
            with torch.no_grad():
                network.head.weight.mul_(10.0)  # so that forecasts differ visibly from bar to bar
                for name, weight in network.named_parameters():
                    if name.startswith("instrument"):
                        weight.mul_(5.0)
            networks.append(network)
        whole = Ensemble(networks) if members > 1 else networks[0]
        table = [list(START) for _ in horizons]
        manifest = artefact.Manifest(
            name=f"kind{number}",
            version="1",
            package_version="0.1.0",
            timeframe="1h",
            instruments={name: InstrumentFit(tick=0.01, scale_floor=1e-4, bars_per_year=8760.0) for name in NAMES},
            features=FEATURES,
            feature_ranges=[FeatureRange(name, 0.0, 1.0, -8.0, 8.0) for name in FEATURES.names],
            horizons=horizons,
            levels=LEVELS,
            network=config,
            training=TrainConfig(members=members),
            spans={},
            data_sha256={},
            baseline=table,
            calibration=[[-0.1, 0.0, 0.02, 0.0, 0.1] for _ in horizons],
            shrinkage=[artefact.Shrinkage() for _ in horizons],
            warmup_bars=FEATURES.warmup,
            scores={},
        )
        weights = to_safetensors({key: tensor.contiguous() for key, tensor in whole.state_dict().items()})
        made = Artefact(manifest, export(whole), weights)
        manifest = msgspec.structs.replace(manifest, warmup_bars=measure_warmup(made, bars_of("A.SIM", 900), samples=8))
        found[kind] = artefact.load(artefact.save(tmp_path_factory.mktemp("models"), manifest, made.graph, weights))
    return found


def bars_of(instrument_id: str = "A.SIM", n: int = 500, seed: int = 4) -> Bars:
    bars = simulate(SimulationConfig(instrument_id=instrument_id, bars=n + 10, seed=seed))
    kept = np.r_[0 : n // 2, n // 2 + 10 : n + 10]  # a long gap: everything warms up anew
    columns = (bars.ts_close, bars.open, bars.high, bars.low, bars.close, bars.volume)
    return Bars(instrument_id, bars.timeframe, *(column[kept] for column in columns))


def gap(found: np.ndarray, wanted: np.ndarray, scale_T: np.ndarray, horizons: tuple[int, ...]) -> float:
    """Largest difference in unit quantiles; where one has no forecast, the other has none."""
    assert (np.isnan(found) == np.isnan(wanted)).all()
    unit = scale_T[:, None, None] * np.sqrt(np.array(horizons))[:, None]
    assert not np.isnan(found).all()
    return float(np.nanmax(np.abs(found - wanted) / unit))


def stepped(model: Artefact, bars: Bars) -> np.ndarray:
    one, manifest = Forecaster(model, bars.instrument_id), model.manifest
    quantiles = np.full((len(bars), len(manifest.horizons), len(manifest.levels)), np.nan, np.float32)
    for row, bar in enumerate(bars):
        if (found := one.update(bar)) is not None:
            quantiles[row] = found.quantiles_HQ
    return quantiles


@KIND
def test_streamed_is_run(models: dict[str, Artefact], kind: str) -> None:
    model, bars = models[kind], bars_of()
    steps = stepped(model, bars)
    assert np.nanstd(steps[:, 0, 2] / np.nanmedian(np.abs(steps[:, 0, 0]))) > 0.01
    whole, exact = (Forecaster(model, "A.SIM").run(bars, exact=exact) for exact in (False, True))
    np.testing.assert_array_equal(exact.quantiles_THQ, steps)  # to the last bit, whatever the kind
    if kind == "lstm":
        np.testing.assert_array_equal(whole.quantiles_THQ, steps)
    assert gap(whole.quantiles_THQ, steps, whole.scale_T, whole.horizons) <= UNIT


@KIND
def test_any_split_is_the_same_with_restores_between(models: dict[str, Artefact], kind: str) -> None:
    model, bars = models[kind], bars_of()
    wanted = Forecaster(model, "A.SIM").run(bars)
    random = np.random.default_rng(8)
    one, parts, at = Forecaster(model, "A.SIM"), [], 0
    for end in [*np.sort(random.integers(1, len(bars), 25)).tolist(), len(bars)]:
        if at:
            state, one = one.state(), Forecaster(model, "A.SIM")
            one.restore(state)
        parts.append(one.run(bars[at:end], exact=bool(random.integers(2))).quantiles_THQ)
        at = end
    assert gap(np.concatenate(parts), wanted.quantiles_THQ, wanted.scale_T, wanted.horizons) <= UNIT


@KIND
def test_warming_up_at_once_leaves_what_stepping_leaves(models: dict[str, Artefact], kind: str) -> None:
    model, bars = models[kind], bars_of()
    one, other = Forecaster(model, "A.SIM"), Forecaster(model, "A.SIM")
    one.warm_up(bars)
    for bar in bars:
        other.update(bar)
    assert one.state() == other.state()


@KIND
def test_a_cold_start_after_the_measured_warm_up_is_the_long_run(models: dict[str, Artefact], kind: str) -> None:
    model, bars = models[kind], bars_of(n=900, seed=6)
    warmup = model.manifest.warmup_bars
    assert FEATURES.warmup <= warmup <= 200
    long_run = Forecaster(model, "A.SIM").run(bars)
    for end in range(800, 900, 11):
        cold = Forecaster(model, "A.SIM").run(bars[end - warmup : end])
        found, wanted = cold.quantiles_THQ[-1:], long_run.quantiles_THQ[end - 1 : end]
        assert gap(found, wanted, long_run.scale_T[end - 1 : end], long_run.horizons) <= 2e-3


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "lstm"])
def test_a_long_history_goes_through_in_slices(
    models: dict[str, Artefact], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bars = bars_of()
    wanted = Forecaster(models[kind], "A.SIM").run(bars)
    monkeypatch.setattr(network_step, "_SLICE", 7)
    monkeypatch.setattr(network_step, "_SLICE_OF_ATTENTION", 7)
    one = Forecaster(models[kind], "A.SIM")
    longest, session = [], one._network._session

    class Watched:
        def run(self, names: None, given: dict[str, np.ndarray]) -> list[np.ndarray]:
            longest.append(len(given["x"]))
            return session.run(names, given)

    one._network._session = Watched()
    found = one.run(bars)
    assert max(longest) == 7
    assert gap(found.quantiles_THQ, wanted.quantiles_THQ, wanted.scale_T, wanted.horizons) <= UNIT


@KIND
def test_cutting_off_the_future_changes_no_forecast(models: dict[str, Artefact], kind: str) -> None:
    model, bars = models[kind], bars_of()
    wanted = Forecaster(model, "A.SIM").run(bars)
    for end in (60, 61, 249, 251, 333):
        found = Forecaster(model, "A.SIM").run(bars[:end])
        assert gap(found.quantiles_THQ, wanted.quantiles_THQ[:end], found.scale_T, found.horizons) <= UNIT


@pytest.mark.parametrize("kind", ["lstm", "attention_lstm"])
def test_an_instrument_is_known_by_its_name_not_its_place(models: dict[str, Artefact], kind: str) -> None:
    model, bars = models[kind], {name: bars_of(name) for name in NAMES}
    said = {name: Forecaster(model, name).run(bars[name]) for name in NAMES}
    scale = said["A.SIM"].scale_T
    for name, other in (("A.SIM", "B.SIM"), ("B.SIM", "C.SIM")):  # the very same bars, but for the name
        np.testing.assert_array_equal(said[name].scale_T, said[other].scale_T)
        assert gap(said[name].quantiles_THQ, said[other].quantiles_THQ, scale, model.manifest.horizons) > 0.01
    assert [model.instrument_number(name) for name in NAMES] == [1, 0, 2]
    shuffled = {name: model.manifest.instruments[name] for name in ("C.SIM", "A.SIM", "B.SIM")}
    moved = Artefact(msgspec.structs.replace(model.manifest, instruments=shuffled), model.graph, model.weights)
    for name in NAMES:
        found = Forecaster(moved, name).run(bars[name])
        np.testing.assert_array_equal(found.quantiles_THQ, said[name].quantiles_THQ)


def test_calibration_and_raw_come_from_one_run(models: dict[str, Artefact]) -> None:
    model, bars = models["cnn_lstm"], bars_of()
    calibrated, raw = Forecaster(model, "A.SIM").run_with_raw(bars)
    zeros = [[0.0] * 5] * 2
    still = Artefact(msgspec.structs.replace(model.manifest, calibration=zeros), model.graph, model.weights)
    np.testing.assert_array_equal(raw.quantiles_THQ, Forecaster(still, "A.SIM").run(bars).quantiles_THQ)
    np.testing.assert_array_equal(calibrated.quantiles_THQ, Forecaster(model, "A.SIM").run(bars).quantiles_THQ)
    assert not np.array_equal(calibrated.quantiles_THQ, raw.quantiles_THQ, equal_nan=True)


def test_a_fold_records_what_stepping_says(models: dict[str, Artefact]) -> None:
    model, bars = models["attention_lstm"], bars_of(n=900)
    instrument = simulated_instrument(SimulationConfig(instrument_id="A.SIM"))
    edges = [int(bars.ts_close[row]) for row in (300, 500, 700, -1)]
    spans = dict(zip(("fit", "stop", "calibrate", "test"), pairwise([None, *edges]), strict=True))
    sample = build_sample(bars, instrument, FEATURES, model.manifest.horizons, spans)
    manifest = msgspec.structs.replace(model.manifest, instruments={"A.SIM": sample.fit})
    model = Artefact(manifest, model.graph, model.weights)
    table = fold_run._forecast(model, sample, Fold(0, spans), seed=0)
    recorded = np.array(table["quantiles"].to_pylist(), np.float32).reshape(-1, 2, len(LEVELS))
    steps = stepped(model, bars)
    np.testing.assert_array_equal(recorded, steps[701:])
    at_once = Forecaster(model, "A.SIM").run(bars).quantiles_THQ
    assert not np.array_equal(at_once[701:], steps[701:])  # else this test could not fail


def test_an_older_snapshot_of_an_lstm_is_as_long_as_now(tiny_artefact: Path) -> None:
    one = Forecaster(artefact.load(tiny_artefact), "BTCUSDT.BINANCE")
    assert len(one._network.state()) == 2 * 8 * 4
