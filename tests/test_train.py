"""Training: spans that do not leak, runs that repeat and resume, exports that are proved."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from statsmodels.regression.linear_model import OLS
from statsmodels.tools import add_constant

from lstm_strategy.bars import Bars, Timeframe, parse_ns
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.features import Features, FeaturesConfig
from lstm_strategy.hyperparameters import LEVELS, NetworkConfig, SplitConfig, TargetConfig, TrainConfig
from lstm_strategy.instrument import Instrument
from lstm_strategy.network import StreamingLSTM
from lstm_strategy.research import train as training
from lstm_strategy.research.batches import batches, sequences
from lstm_strategy.research.export import export
from lstm_strategy.research.fit import _calibrate, shrinkage
from lstm_strategy.research.labels import build_sample, label, span_mask
from lstm_strategy.research.losses import constant_quantiles, pinball
from lstm_strategy.research.train import forecast_sequences, train
from lstm_strategy.sources.simulate import SimulationConfig, simulate, simulated_instrument

SPLIT = SplitConfig(fit_end="2020-03-31", stop_end="2020-04-30", calibrate_end="2020-05-31")
SMALL, FEW = NetworkConfig(hidden=8), TrainConfig(epochs=4, patience=4, batch=4)
TARGET = TargetConfig(horizons=(1, 4))
HOUR = Timeframe.parse("1h")


@pytest.fixture(scope="module")
def samples():
    market = SimulationConfig(bars=4_000, seed=5)
    bars = simulate(market)
    return [build_sample(bars, simulated_instrument(market), FeaturesConfig(), TARGET.horizons, SPLIT.spans())]


def bars_of(closes, ts_close):
    close = np.array(closes, float)
    return Bars("X.Y", HOUR, np.array(ts_close) * HOUR.ns, close, close, close, close, np.ones(len(close)))


def test_labels_are_scaled_log_returns_and_never_span_a_hole():
    bars = bars_of([100.0, 110.0, 121.0, 133.1, 146.41], [1, 2, 3, 5, 6])
    y = label(bars, np.full(5, 0.1), (1, 2))
    step = np.log(1.1) / 0.1
    np.testing.assert_allclose(y[:, 0], [step, step, np.nan, step, np.nan], rtol=1e-6)
    np.testing.assert_allclose(y[:, 1], [step * np.sqrt(2), np.nan, np.nan, np.nan, np.nan], rtol=1e-6)


def test_a_span_is_purged_by_the_longest_horizon():
    bars = bars_of(np.ones(10), range(1, 11))
    inside = span_mask(bars, (2 * HOUR.ns, 8 * HOUR.ns), purge=3)
    assert bars.ts_close[inside].tolist() == [3 * HOUR.ns, 4 * HOUR.ns, 5 * HOUR.ns]


def test_no_label_of_a_span_depends_on_a_bar_beyond_it(samples):
    sample, spans = samples[0], SPLIT.spans()
    last = int(np.searchsorted(sample.bars.ts_close, spans["fit"][1], side="right"))
    altered = np.array(sample.bars.close)
    altered[last:] *= 1.5
    y = label(bars_like(sample.bars, altered), sample.matrix.scale_T, TARGET.horizons)
    inside = span_mask(sample.bars, spans["fit"], TARGET.horizons[-1])
    np.testing.assert_array_equal(y[inside], sample.y_TH[inside])
    assert not np.array_equal(y[last - 2 : last], sample.y_TH[last - 2 : last])


def bars_like(bars, close):
    high, low = np.maximum(bars.high, close), np.minimum(bars.low, close)
    return Bars(bars.instrument_id, bars.timeframe, bars.ts_close, bars.open, high, low, close, bars.volume)


def test_scaler_floor_and_baseline_see_the_fit_span_alone(samples):
    market = SimulationConfig(bars=4_000, seed=5)
    bars = simulate(market)
    end = parse_ns(SPLIT.fit_end)
    cut = build_sample(bars.between(None, end), simulated_instrument(market), FeaturesConfig(), (1, 4), SPLIT.spans())
    assert cut.fit == samples[0].fit
    whole, alone = (sequences([sample], (None, end), 4) for sample in (samples[0], cut))
    assert torch.equal(whole[0].x_TF, alone[0].x_TF)
    assert torch.equal(constant_quantiles(whole, LEVELS), constant_quantiles(alone, LEVELS))


def test_pinball_is_that_of_scikit_learn_by_hand():
    q, y = torch.tensor([[[-1.0, 0.0, 2.0]]]), torch.tensor([[1.0]])
    assert pinball(q, y, torch.tensor([0.1, 0.5, 0.9])).item() == pytest.approx((0.1 * 2 + 0.5 * 1 + 0.1 * 1) / 3)
    assert pinball(q, torch.tensor([[float("nan")]]), torch.tensor([0.1, 0.5, 0.9])).item() == 0.0


def test_same_seed_same_weights_other_seed_others(samples, tmp_path):
    def weights(seed, name):
        config = TrainConfig(seed=seed, epochs=2, batch=4)
        return train(samples, SPLIT.spans(), TARGET, SMALL, config, tmp_path / name).network.state_dict()

    first, again, other = weights(1, "a"), weights(1, "b"), weights(2, "c")
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["head.weight"], other["head.weight"])


def test_an_interrupted_training_goes_on_to_the_same_weights(samples, tmp_path):
    whole = train(samples, SPLIT.spans(), TARGET, SMALL, FEW, tmp_path / "whole")

    def interrupt(epoch: int, loss: float, best: float) -> None:
        if epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(samples, SPLIT.spans(), TARGET, SMALL, FEW, tmp_path / "cut", interrupt)
    assert (tmp_path / "cut").exists()
    seen = []
    resumed = train(samples, SPLIT.spans(), TARGET, SMALL, FEW, tmp_path / "cut", lambda *row: seen.append(row[0]))
    assert seen == [3, 4]
    expected, found = whole.network.state_dict(), resumed.network.state_dict()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert resumed.pinball == whole.pinball


def test_a_damaged_checkpoint_is_one_line(samples, tmp_path):
    (tmp_path / "bad").write_bytes(b"nothing of use")
    with pytest.raises(LSTMStrategyError, match="remove it to train anew"):
        train(samples, SPLIT.spans(), TARGET, SMALL, FEW, tmp_path / "bad")


def test_a_training_that_diverges_is_refused_and_never_kept_untrained(samples, tmp_path):
    path = tmp_path / "c"
    good = train(samples, SPLIT.spans(), TARGET, SMALL, FEW, tmp_path / "good").network.state_dict()
    endless = {name: torch.full_like(tensor, torch.nan) for name, tensor in good.items()}
    with pytest.raises(LSTMStrategyError, match="diverged: the loss on the stop span is nan after epoch 1; try"):
        train(samples, SPLIT.spans(), TARGET, SMALL, FEW, path, start=endless)
    assert not path.exists()


def test_burn_in_bars_teach_nothing(samples):
    config = TrainConfig(chunk=64, burn_in=16, batch=4)
    found = sequences(samples, SPLIT.spans()["fit"], 4)
    batch = next(batches(found, 64, config, np.random.default_rng(0)))
    network = StreamingLSTM(SMALL, torch.zeros(24), torch.ones(24), torch.linspace(-2, 2, 13).repeat(2, 1))
    q, _, _ = network(batch.x_LBF, *network.initial_state(batch.x_LBF.shape[1]))
    altered = batch.y_LBH.clone()
    altered[:16] = 1e6
    losses = [pinball(q[16:].unflatten(-1, (2, -1)), y[16:], torch.tensor(LEVELS)) for y in (batch.y_LBH, altered)]
    assert torch.equal(*losses)


def test_an_epoch_covers_every_target(samples):
    config = TrainConfig(chunk=64, burn_in=16, batch=4)
    found = sequences(samples, SPLIT.spans()["fit"], 4)
    rows = sum(
        y.shape[0] - 16 for batch in batches(found, 64, config, np.random.default_rng(0)) for y in batch.y_LBH.unbind(1)
    )
    assert rows >= sum(len(sequence.x_TF) for sequence in found) - 64 - 48


def test_too_little_history_is_one_line_each(tmp_path):
    market = SimulationConfig(bars=300)
    with pytest.raises(LSTMStrategyError, match="fewer than the 480"):
        build_sample(simulate(market), simulated_instrument(market), FeaturesConfig(), (1,), SPLIT.spans())
    market = SimulationConfig(bars=520)
    sample = build_sample(simulate(market), simulated_instrument(market), FeaturesConfig(), (1, 4), SPLIT.spans())
    with pytest.raises(LSTMStrategyError, match="too few bars"):
        train([sample], SPLIT.spans(), TARGET, SMALL, FEW, tmp_path / "x")


def test_a_calibrate_span_too_short_for_the_outermost_quantile_is_refused(samples):
    spans, target = SPLIT.spans(), TargetConfig(horizons=(1,))
    start = spans["calibrate"][0]
    with pytest.raises(LSTMStrategyError, match=r"holds 49 labels .* needs 99; move split\.calibrate_end"):
        _calibrate(None, samples[:1], spans | {"calibrate": (start, start + 50 * 3600 * 10**9)}, target)


def test_untrained_network_forecasts_the_start_quantiles_and_never_crosses():
    start = torch.tensor([[-2.0, -1.0, -0.3, 0.1, 0.9, 2.5], [-3.0, -1.5, 0.0, 0.2, 1.0, 3.0]])
    network = StreamingLSTM(SMALL, torch.zeros(5), torch.ones(5), start).eval()
    with torch.no_grad():
        network.head.weight.zero_()
        q, _, _ = network(torch.randn(3, 1, 5), *network.initial_state(1))
        torch.testing.assert_close(q[0, 0].view(2, 6), start)
        network.head.weight.normal_(std=20.0)
        q, _, _ = network(torch.randn(500, 1, 5), *network.initial_state(1))
    assert (q.view(500, 2, 6).diff(dim=-1) >= 0).all()


def test_export_refuses_a_graph_that_differs_from_torch(monkeypatch):
    network = StreamingLSTM(SMALL, torch.zeros(5), torch.ones(5), torch.linspace(-2, 2, 3).repeat(2, 1))
    zeros = torch.zeros(1, 1, 8)
    # The very mistake that the check was written for: one tensor given as h and as c is exported as one input.
    monkeypatch.setattr(network, "initial_state", lambda batch: (zeros, zeros))
    with pytest.raises(LSTMStrategyError, match="differs from torch"):
        export(network)


def test_shrinkage_is_the_slope_where_it_is_significant_and_zero_elsewhere():
    random, ts = np.random.default_rng(0), np.arange(4000)
    mean = 0.1 * random.standard_normal(4000) + 0.3
    noise = random.standard_normal(4000)
    found = shrinkage(mean, 0.5 * (mean - 0.3) + noise, ts, 1, 0.05)
    assert 0.2 < found.slope < 0.9
    assert found.p < 0.01
    assert found.centre == pytest.approx(0.3, abs=0.01)
    assert shrinkage(mean, noise, ts, 1, 0.05).slope == 0.0
    assert shrinkage(mean, -2.0 * mean + noise, ts, 1, 0.05).slope == 0.0
    assert shrinkage(mean, 5.0 * mean + noise, ts, 1, 0.05).slope == 1.0
    assert shrinkage(np.full(4000, 0.3), noise, ts, 1, 0.05).slope == 0.0


def test_of_one_instrument_the_errors_are_newey_and_wests():
    random, ts = np.random.default_rng(1), np.arange(900)
    mean = random.standard_normal(900)
    y = 0.05 * mean + random.standard_normal(900)
    usual = OLS(y, add_constant(mean)).fit(cov_type="HAC", cov_kwds={"maxlags": 5})
    assert shrinkage(mean, y, ts, 1, 0.05).p == pytest.approx(usual.pvalues[1] / 2, rel=1e-9)


def test_instruments_that_move_together_are_no_further_evidence():
    """Ten names that say and do the same know no more than one of them, in whatever order they come."""
    random, ts = np.random.default_rng(0), np.arange(900)
    mean = random.standard_normal(900)
    y = 0.04 * mean + random.standard_normal(900)
    alone = shrinkage(mean, y, ts, 1, 0.05)
    together = shrinkage(np.tile(mean, 10), np.tile(y, 10), np.tile(ts, 10), 1, 0.05)
    assert 0.05 < alone.p < 0.2
    assert together.p == pytest.approx(alone.p, rel=1e-6)
    assert together.slope == alone.slope == 0.0
    order = random.permutation(9000)
    shuffled = shrinkage(np.tile(mean, 10)[order], np.tile(y, 10)[order], np.tile(ts, 10)[order], 1, 0.05)
    assert shuffled.p == pytest.approx(alone.p, rel=1e-6)


def test_validation_streams_the_same_whether_in_parts_or_at_once(samples):
    network = StreamingLSTM(SMALL, torch.zeros(24), torch.ones(24), torch.linspace(-2, 2, 13).repeat(2, 1)).eval()
    (sequence,) = sequences(samples, SPLIT.spans()["stop"], 4, training.RUN_IN)
    whole, labels = forecast_sequences(network, [sequence])
    h, c = network.initial_state(1)
    parts = []
    with torch.no_grad():
        for x in sequence.x_TF[:, None].split(97):
            q, h, c = network(x, h, c)
            parts.append(q[:, 0])
    stepped = torch.cat(parts).unflatten(-1, (2, -1))[~torch.isnan(sequence.y_TH).all(dim=1)]
    torch.testing.assert_close(stepped, whole, rtol=0, atol=1e-6)
    assert len(labels) == 30 * 24 - 4


def test_checkpoint_of_other_data_is_not_taken_for_ours(tmp_path: Path):
    from lstm_strategy.research.fit import fit_model

    market = SimulationConfig(bars=4_000, seed=5)
    bars, instrument = simulate(market), simulated_instrument(market)

    def interrupt(epoch: int, loss: float, best: float) -> None:
        raise KeyboardInterrupt

    def fit(history, on_epoch):
        return fit_model("m", history, FeaturesConfig(), TARGET, SPLIT, SMALL, FEW, tmp_path, on_epoch)

    with pytest.raises(KeyboardInterrupt):
        fit([(bars, instrument)], interrupt)
    epochs = []
    with pytest.raises(KeyboardInterrupt):
        fit([(bars[:3_900], instrument)], lambda *row: (epochs.append(row[0]), interrupt(*row)))
    other = simulate(SimulationConfig(bars=4_000, seed=6))
    with pytest.raises(KeyboardInterrupt):
        fit([(other, instrument)], lambda *row: (epochs.append(row[0]), interrupt(*row)))
    # The shorter history differs only after the calibration span, so its checkpoint is ours; the other market's is not.
    assert epochs == [2, 1]


def session_bars(days: int = 900) -> Bars:
    """Daily closes of weekdays only, stamped at the midnight after."""
    day = 86_400 * 10**9
    stamps = np.array([d for d in range(18_264, 18_264 + 7 * days // 5) if d % 7 not in (2, 3)][:days]) * day + day
    close = 100.0 * np.exp(np.cumsum(np.random.default_rng(3).normal(0, 0.01, len(stamps))))
    volume = np.ones(len(stamps))
    return Bars("SPY.ARCA", Timeframe.parse("1d"), stamps, close, close, close, close, volume)


def test_a_market_that_closes_has_no_gap_on_monday():
    bars, spans = session_bars(), SplitConfig(fit_end="2022-01-01", stop_end="2022-06-01", calibrate_end="2023-01-01")
    shares = Instrument(id="SPY.ARCA", kind="equity", base="SPY", quote="USD", tick="0.01", lot="1")
    with pytest.raises(LSTMStrategyError, match=r"SPY\.ARCA is an equity.*features\.closed_hours = 120"):
        build_sample(bars, shares, FeaturesConfig(), (1, 5), spans.spans())
    sample = build_sample(bars, shares, FeaturesConfig(closed_hours=120), (1, 5), spans.spans())
    known = ~np.isnan(sample.y_TH)
    assert known[sample.matrix.valid_T][:-5].all()  # every weekday has both labels, the Friday too
    assert (sample.matrix.x_TF[sample.matrix.valid_T][:, FeaturesConfig().names.index("gap")] == 0).all()
    assert sample.matrix.count_T[-1] == len(bars)
    assert sample.fit.bars_per_year == pytest.approx(261, abs=2)
    # Over a holiday week the longest horizon reaches further than its days: the purge follows the bars.
    inside = span_mask(bars, spans.spans()["fit"], purge=5)
    end = parse_ns("2022-01-01")
    last = int(np.flatnonzero(inside)[-1])
    assert bars.ts_close[last + 5] <= end < bars.ts_close[last + 6]


def test_a_hole_longer_than_the_market_is_closed_is_a_gap_still():
    bars = session_bars(300)
    kept = np.r_[0:200, 210:300]
    columns = (bars.ts_close, bars.open, bars.high, bars.low, bars.close, bars.volume)
    holed = Bars(bars.instrument_id, bars.timeframe, *(column[kept] for column in columns))
    features = Features(FeaturesConfig(closed_hours=120), bars.timeframe, 0.01)
    count = features.run(holed).count_T
    assert count[199] == 200
    assert count[200] == 1  # two weeks: forgotten
    y = label(holed, np.ones(len(holed)), (1,), FeaturesConfig(closed_hours=120).closed_ns)
    assert np.isnan(y[199, 0])
    assert not np.isnan(y[198, 0])
