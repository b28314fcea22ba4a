"""The second task of training, the next bar's range: a label that looks one bar ahead, and a head no forecast sees."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import pytest
import torch

from lstm_strategy.bars import Bars, Timeframe, parse_ns
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.features import Features, FeaturesConfig
from lstm_strategy.hyperparameters import NetworkConfig, SplitConfig, TargetConfig, TrainConfig
from lstm_strategy.research.batches import batches, sequences
from lstm_strategy.research.export import export
from lstm_strategy.research.labels import Sample, build_sample, next_log_range
from lstm_strategy.research.train import train
from lstm_strategy.sources.simulate import SimulationConfig, simulate, simulated_instrument

HOUR = Timeframe.parse("1h")
SPLIT = SplitConfig(fit_end="2020-03-31", stop_end="2020-04-30", calibrate_end="2020-05-31")
TARGET, SMALL = TargetConfig(horizons=(1,)), NetworkConfig(hidden=8)
TASK = TrainConfig(epochs=3, patience=3, batch=4, range_weight=0.1)


@pytest.fixture(scope="module")
def sample() -> Sample:
    market = SimulationConfig(bars=3_600, seed=5)
    instrument = simulated_instrument(market)
    return build_sample(simulate(market), instrument, FeaturesConfig(), TARGET.horizons, SPLIT.spans())


def test_the_label_is_the_next_bars_range_in_units_of_this_bars_scale() -> None:
    low, high = np.full(5, 100.0), np.array([101.0, 102.0, 100.0, 104.0, 105.0])
    stamps = HOUR.ns * np.array([1, 2, 3, 4, 6])
    bars = Bars("X.Y", HOUR, stamps, low, high, low, low, np.ones(5))
    found = next_log_range(bars, np.array([0.1, 0.2, 0.3, 0.4, 0.5]))
    wanted = [np.log(np.log(1.02) / 0.1), np.nan, np.log(np.log(1.04) / 0.3), np.nan, np.nan]  # no range; hole; end
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_no_label_of_a_span_lies_beyond_it(sample: Sample) -> None:
    span = SPLIT.spans()["fit"]
    end = int(np.searchsorted(sample.bars.ts_close, span[1] or 0, side="right"))
    high = np.array(sample.bars.high)
    high[end:] *= 3.0
    bars = sample.bars
    altered = Bars(bars.instrument_id, HOUR, bars.ts_close, bars.open, high, bars.low, bars.close, bars.volume)
    later = next_log_range(altered, sample.matrix.scale_T)
    assert not np.array_equal(later[end - 1], sample.range_T[end - 1])  # the change would show
    own = sequences([sample], span, 1)[0].range_T
    other = replace(sample, bars=altered, range_T=later)
    assert torch.equal(sequences([other], span, 1)[0].range_T, own)


def test_the_task_is_learned_and_leaves_the_forecast_its_shape(sample: Sample, tmp_path) -> None:
    harder = msgspec.structs.replace(TASK, range_weight=3.0, epochs=12, patience=12, learning_rate=1e-2)
    with_task = train([sample], SPLIT.spans(), TARGET, SMALL, harder, tmp_path / "a").network
    plain = train(
        [sample], SPLIT.spans(), TARGET, SMALL, msgspec.structs.replace(TASK, range_weight=0.0), tmp_path / "b"
    ).network
    assert not hasattr(plain, "range_head")
    assert export(with_task)  # quantiles and state alone: the graph is compared with forward
    assert not torch.equal(with_task.head.weight, plain.head.weight)
    fit = sequences([sample], SPLIT.spans()["fit"], 1)[0]
    with torch.no_grad():
        state = with_task.initial_state(1)
        found = with_task.tasks(fit.x_TF[:, None], *state)[1][:, 0].numpy()
        quantiles = with_task(fit.x_TF[:, None], *with_task.initial_state(1))[0]
        assert torch.equal(with_task.tasks(fit.x_TF[:, None], *state)[0], quantiles)
    known = ~torch.isnan(fit.range_T).numpy()
    assert np.corrcoef(found[known], fit.range_T.numpy()[known])[0, 1] > 0.1


def test_a_killed_training_ends_with_the_same_weights(sample: Sample, tmp_path) -> None:
    whole = train([sample], SPLIT.spans(), TARGET, SMALL, TASK, tmp_path / "whole").network.state_dict()

    class Killed(Exception):  # noqa: N818
        pass

    def kill(epoch: int, loss: float, best: float) -> None:
        if epoch == 2:
            raise Killed

    with pytest.raises(Killed):
        train([sample], SPLIT.spans(), TARGET, SMALL, TASK, tmp_path / "cut", kill)
    after = train([sample], SPLIT.spans(), TARGET, SMALL, TASK, tmp_path / "cut").network.state_dict()
    assert whole.keys() == after.keys()
    assert all(torch.equal(whole[name], after[name]) for name in whole)


def test_bars_without_range_are_refused(sample: Sample, tmp_path) -> None:
    flat = replace(sample, range_T=np.full_like(sample.range_T, np.nan))
    with pytest.raises(LSTMStrategyError, match="no bar of the fit span has a range"):
        train([flat], SPLIT.spans(), TARGET, SMALL, TASK, tmp_path / "flat")
    with pytest.raises(LSTMStrategyError, match="range_weight"):
        TrainConfig(range_weight=-1.0)


def test_mirrored_features_are_those_of_the_mirrored_market() -> None:
    """Prices upside down (1 / price) turn exactly the features that say so."""
    bars = simulate(SimulationConfig(bars=1_200, seed=7))
    mirrored = Bars("X.Y", HOUR, bars.ts_close, 1 / bars.open, 1 / bars.low, 1 / bars.high, 1 / bars.close, bars.volume)
    config = FeaturesConfig()
    up, down = (Features(config, HOUR, 1e-9).run(each).x_TF[config.warmup :] for each in (bars, mirrored))
    for number, feature in enumerate(config.features):
        sign = -1.0 if feature.mirrored else 1.0
        # Of prices, not of their logarithms: nearly so.
        if feature.kind in ("macd", "rsi", "atr", "ema_distance", "range_position", "close_position"):
            agreement = np.corrcoef(down[:, number], sign * up[:, number])[0, 1]
            assert agreement > 0.9, feature.name
        else:
            np.testing.assert_allclose(down[:, number], sign * up[:, number], atol=2e-4, err_msg=feature.name)


def test_a_mirrored_chunk_turns_features_and_labels_together(sample: Sample) -> None:
    config = msgspec.structs.replace(TASK, mirror=0.5, batch=1)
    fit = sequences([sample], SPLIT.spans()["fit"], 1)
    turned = 0
    for seed in range(3):
        pairs = zip(
            batches(fit, 256, msgspec.structs.replace(config, mirror=0.0), np.random.default_rng(seed)),
            batches(fit, 256, config, np.random.default_rng(seed)),
            strict=True,
        )
        for own, turned_over in pairs:
            x, y, r = own.x_LBF, own.y_LBH, own.range_LB
            x_turned, y_turned, r_turned = turned_over.x_LBF, turned_over.y_LBH, turned_over.range_LB
            sign = 1.0 if torch.equal(x, x_turned) else -1.0
            turned += sign < 0
            mirrored = torch.from_numpy(sample.mirrored_F)
            assert torch.equal(x_turned[..., mirrored], sign * x[..., mirrored])
            assert torch.equal(x_turned[..., ~mirrored], x[..., ~mirrored])
            torch.testing.assert_close(y_turned, sign * y, equal_nan=True)
            torch.testing.assert_close(r_turned, r, equal_nan=True)
    assert 5 < turned < 25


def test_an_instrument_that_would_teach_nothing_is_refused(sample: Sample, tmp_path) -> None:
    """Its own sequences are shorter than the panel's chunks: an embedding of it would stay random."""
    start = parse_ns(SPLIT.fit_end) - 100 * HOUR.ns
    valid = sample.bars.ts_close > start
    matrix = replace(sample.matrix, scale_T=np.where(valid, sample.matrix.scale_T, np.nan))
    bars = replace(sample.bars, instrument_id="LATE.SIM")
    with pytest.raises(LSTMStrategyError, match=r"LATE\.SIM would teach nothing"):
        train(
            [sample, replace(sample, bars=bars, matrix=matrix)], SPLIT.spans(), TARGET, SMALL, TASK, tmp_path / "late"
        )
