"""Folds with edges written out, and the checks that catch what looks ahead, each with the mistake planted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lstm_strategy import artefact
from lstm_strategy.bars import Bars, Timeframe, format_ns
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.features import FeaturesConfig
from lstm_strategy.forecaster import Forecaster
from lstm_strategy.hyperparameters import (
    NetworkConfig,
    SplitConfig,
    TargetConfig,
    TrainConfig,
    WalkForwardConfig,
)
from lstm_strategy.research import batches as batching
from lstm_strategy.research import labels as labelling
from lstm_strategy.research import train as training
from lstm_strategy.research.fit import fit_spans
from lstm_strategy.research.labels import build_sample
from lstm_strategy.research.leaks import (
    LeakError,
    require_future_unseen,
    require_labels,
    require_purge,
    require_scaler,
)
from lstm_strategy.research.walk_forward import Fold, folds, require_bars
from lstm_strategy.sources.simulate import SimulationConfig, simulate, simulated_instrument

DAY = 86_400_000_000_000
ONE_DAY = Timeframe.parse("1d")
TARGET = TargetConfig(horizons=(1, 4))
SPLIT = SplitConfig(fit_end="2020-03-31", stop_end="2020-04-30", calibrate_end="2020-05-31", test_end="2020-06-15")


def days(config: WalkForwardConfig, last: int, split: SplitConfig | None = None, first: int = 1) -> list[dict]:
    """Spans in days since 1970 of bars that close daily from ``first`` to ``last``."""
    split = split or SplitConfig(fit_end="2020-01-01", stop_end="2020-02-01", calibrate_end="2020-03-01")
    found = folds(config, split, TARGET, ONE_DAY, first * DAY, last * DAY)
    assert [fold.number for fold in found] == list(range(len(found)))
    return [
        {name: tuple(None if edge is None else edge / DAY for edge in span) for name, span in fold.spans.items()}
        for fold in found
    ]


def test_expanding_folds_end_with_the_data():
    config = WalkForwardConfig(test_bars=20, folds=3, stop_bars=10, calibrate_bars=15)
    assert days(config, last=160) == [
        {"fit": (0, 75), "stop": (75, 85), "calibrate": (85, 100), "test": (100, 120)},
        {"fit": (0, 95), "stop": (95, 105), "calibrate": (105, 120), "test": (120, 140)},
        {"fit": (0, 115), "stop": (115, 125), "calibrate": (125, 140), "test": (140, 160)},
    ]


def test_rolling_folds_from_a_date_are_as_many_as_there_is_data_for():
    config = WalkForwardConfig(
        test_bars=20, first_test="1970-04-11", stop_bars=10, calibrate_bars=15, train="rolling", fit_bars=50
    )
    assert days(config, last=159) == [
        {"fit": (25, 75), "stop": (75, 85), "calibrate": (85, 100), "test": (100, 120)},
        {"fit": (45, 95), "stop": (95, 105), "calibrate": (105, 120), "test": (120, 140)},
    ]


def test_a_longer_purge_and_an_embargo_stand_between_the_spans():
    config = WalkForwardConfig(test_bars=20, stop_bars=10, calibrate_bars=15, purge=6, embargo=3)
    assert days(config, last=120) == [
        {"fit": (0, 66), "stop": (68, 78), "calibrate": (80, 95), "test": (100, 120)},
    ]


def test_the_split_alone_is_one_fold():
    split = SplitConfig(
        start="1970-01-11", fit_end="1970-03-02", stop_end="1970-03-12", calibrate_end="1970-03-22"
    )  # days 10, 60, 70, 80
    assert days(WalkForwardConfig(), 120, split) == [
        {"fit": (10, 60), "stop": (60, 70), "calibrate": (70, 80), "test": (80, 120)},
    ]
    assert days(WalkForwardConfig(purge=5, embargo=2), 120, split) == [
        {"fit": (10, 60), "stop": (61, 70), "calibrate": (71, 80), "test": (83, 120)},
    ]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"purge": 3}, "walk_forward.purge is 3, shorter than the longest of target.horizons, 4"),
        ({"test_bars": 20, "folds": 8}, r"fold 0 .* has too little data: its fit span would begin at"),
        ({"test_bars": 20, "first_test": "1970-06-01"}, "too little data for one fold: from walk_forward.first_test"),
        ({"test_bars": 20, "first_test": "1970-03-31", "folds": 9}, "too little data for 9 folds"),
        ({"folds": 3}, "walk_forward.test_bars is missing"),
        ({"test_bars": 20, "train": "rolling"}, "walk_forward.fit_bars belongs to"),
        ({"test_bars": 20, "fit_bars": 9}, "walk_forward.fit_bars belongs to"),
        ({"test_bars": 0}, "walk_forward.test_bars is 0; it must be 1"),
        (
            {"test_bars": 20, "stop_bars": 10, "calibrate_bars": 15, "train": "rolling", "fit_bars": 500},
            "too little data",
        ),
        ({"embargo": -1}, "walk_forward.embargo is -1"),
        ({"seeds": (1, 1)}, "name each once"),
        ({"first_test": "soon", "test_bars": 5}, "walk_forward.first_test: 'soon' is not a date"),
    ],
)
def test_what_cannot_be_is_one_line(settings, told):
    with pytest.raises(LSTMStrategyError, match=told) as caught:
        days(WalkForwardConfig(**({"stop_bars": 10, "calibrate_bars": 15} | settings)), last=140)
    assert "\n" not in str(caught.value)


def test_spans_out_of_order_are_refused():
    split = SplitConfig(fit_end="1970-03-02", stop_end="1970-03-03", calibrate_end="1970-03-12")
    with pytest.raises(LSTMStrategyError, match=r"its stop span, .* is empty or begins before"):
        days(WalkForwardConfig(purge=9), 120, split)


def test_an_instrument_missing_in_a_fold_is_named():
    market = SimulationConfig(instrument_id="LATE.SIM", bars=3_000)
    bars = simulate(market)
    spans = {"fit": (bars.ts_close[0], bars.ts_close[1000]), "test": (bars.ts_close[1000], bars.ts_close[1500])}
    fold = Fold(2, {name: (int(a), int(b)) for name, (a, b) in spans.items()})
    require_bars(fold, bars, 480, (1, 4))
    with pytest.raises(LSTMStrategyError, match=r"LATE\.SIM is missing in fold 2 \(test .*\): its fit span"):
        require_bars(fold, bars.between(fold.spans["test"][0], None), 480, (1, 4))
    with pytest.raises(LSTMStrategyError, match=r"has too few bars in fold 2 .* holds 401 bars of the 485 needed"):
        require_bars(fold, bars[600:], 480, (1, 4))
    with pytest.raises(LSTMStrategyError, match=r"LATE\.SIM is missing in fold 2 .*: its test span"):
        require_bars(fold, bars[:900], 480, (1, 4))


@pytest.fixture(scope="module")
def history():
    made = []
    for number, name in enumerate(("A.SIM", "B.SIM")):
        market = SimulationConfig(instrument_id=name, bars=4_000, seed=number)
        made.append((simulate(market), simulated_instrument(market)))
    return made


def samples_of(history):
    spans = SPLIT.spans()
    return [build_sample(bars, instrument, FeaturesConfig(), TARGET.horizons, spans) for bars, instrument in history]


def fitted(history, folder):
    few = TrainConfig(epochs=2, patience=2, batch=4)
    return fit_spans("m", "v", history, FeaturesConfig(), TARGET, SPLIT.spans(), NetworkConfig(hidden=8), few, folder)


@pytest.fixture(scope="module")
def honest(history, tmp_path_factory):
    return fitted(history, tmp_path_factory.mktemp("honest"))


def test_honest_folds_pass_every_check(history, honest):
    samples, spans = samples_of(history), SPLIT.spans()
    for sample in samples:
        require_labels(sample, TARGET.horizons)
    require_purge(samples, spans, TARGET.horizons)
    model = artefact.load(honest.path)
    require_scaler(honest.path, model, history, spans)
    assert not (honest.path.parent / "current").exists()
    for bars, _ in history:
        forecasts = Forecaster(model, bars.instrument_id).run(bars)
        for cut in (1_000, 1_001, 3_333):
            require_future_unseen(model, bars, forecasts, int(bars.ts_close[cut]))


@pytest.mark.parametrize("shift", [1, -1])
def test_planted_a_label_shifted_by_one_bar(history, monkeypatch, shift):
    honest = labelling.label

    def shifted(*arguments):
        y_TH = np.roll(honest(*arguments), shift, axis=0)
        y_TH[: max(shift, 0)] = np.nan
        y_TH[len(y_TH) + min(shift, 0) :] = np.nan
        return y_TH

    monkeypatch.setattr(labelling, "label", shifted)
    with pytest.raises(LeakError, match=r"check labels: A\.SIM: the label of .* at 1 bars is") as caught:
        require_labels(samples_of(history)[0], TARGET.horizons)
    assert caught.value.check == "labels"


def test_planted_a_scaler_fitted_on_everything(history, monkeypatch, tmp_path):
    honest = training.StreamingLSTM
    x_NF = np.concatenate([sample.matrix.x_TF[sample.matrix.valid_T] for sample in samples_of(history)])
    everything = training.torch.from_numpy(x_NF)

    def leaking(config, mean, std, *rest):
        return honest(config, everything.mean(dim=0), everything.std(dim=0).clamp_min(1e-3), *rest)

    monkeypatch.setattr(training, "StreamingLSTM", leaking)
    made = fitted(history, tmp_path)
    with pytest.raises(LeakError, match=r"check scaler: feature_mean of .* it was fitted on other bars") as caught:
        require_scaler(made.path, artefact.load(made.path), history, SPLIT.spans())
    assert caught.value.check == "scaler"


def test_planted_a_floor_fitted_on_everything(history, honest):
    model = artefact.load(honest.path)
    name = history[0][0].instrument_id
    fit = model.manifest.instruments[name]
    other = type(fit)(**{field: getattr(fit, field) for field in fit.__struct_fields__} | {"scale_floor": 1e-3})
    manifest = artefact.msgspec.structs.replace(model.manifest, instruments=model.manifest.instruments | {name: other})
    with pytest.raises(LeakError, match=r"check scaler: A\.SIM: the floor of σ is"):
        require_scaler(honest.path, replace(model, manifest=manifest), history, SPLIT.spans())


def test_planted_a_fold_without_purge(history, monkeypatch):
    samples, honest = samples_of(history), batching.span_mask
    monkeypatch.setattr(batching, "span_mask", lambda bars, span, purge: honest(bars, span, 0))
    with pytest.raises(LeakError, match=r"check purge: A\.SIM: a label of the fit span lands at") as caught:
        require_purge(samples, SPLIT.spans(), TARGET.horizons)
    assert caught.value.check == "purge"
    assert format_ns(SPLIT.spans()["fit"][1]) in str(caught.value)


def test_planted_spans_that_overlap(history):
    spans = SPLIT.spans()
    spans["stop"] = (spans["stop"][0] - 10 * 3_600_000_000_000, spans["stop"][1])
    with pytest.raises(LeakError, match=r"check purge: .* the fit span lands at .* where the stop span begins"):
        require_purge(samples_of(history), spans, TARGET.horizons)


def test_planted_a_forecast_that_sees_the_next_bar(history, honest):
    model, bars = artefact.load(honest.path), history[0][0]
    ahead = Bars(bars.instrument_id, bars.timeframe, bars.ts_close[:-1], *(
        getattr(bars, name)[1:] for name in ("open", "high", "low", "close", "volume")
    ))  # fmt: skip
    peeking = Forecaster(model, bars.instrument_id).run(ahead)
    with pytest.raises(LeakError, match=r"check future_unseen: A\.SIM: the forecast at .* changes"):
        require_future_unseen(model, bars, peeking, int(bars.ts_close[2_000]))
