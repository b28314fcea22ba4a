"""Training of ensembles, embeddings, averages and point heads: resumed to the last bit, judged as a whole."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import pytest
import torch

from lstm_strategy import artefact
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.features import FeaturesConfig
from lstm_strategy.forecast import mean_of
from lstm_strategy.forecaster import Forecaster
from lstm_strategy.hyperparameters import NetworkConfig, SplitConfig, TargetConfig, TrainConfig
from lstm_strategy.research import train as training
from lstm_strategy.research.batches import sequences
from lstm_strategy.research.fit import fit_spans
from lstm_strategy.research.labels import build_sample
from lstm_strategy.research.leaks import LeakError, require_scaler
from lstm_strategy.research.losses import pinball
from lstm_strategy.research.members import average_of, checkpoints, member_seeds
from lstm_strategy.research.train import forecast_sequences, train
from lstm_strategy.sources.simulate import SimulationConfig, simulate, simulated_instrument

SPLIT = SplitConfig(fit_end="2020-02-29", stop_end="2020-03-20", calibrate_end="2020-04-10")
TARGET = TargetConfig(horizons=(1, 4), levels=(0.05, 0.25, 0.5, 0.75, 0.95))
SMALL = NetworkConfig(hidden=6)
FEW = TrainConfig(epochs=3, patience=3, batch=2, chunk=128, burn_in=32)
PANEL = ("B.SIM", "A.SIM")


@pytest.fixture(scope="module")
def history():
    made = []
    for seed, name in enumerate(PANEL):
        market = SimulationConfig(instrument_id=name, bars=2_500, seed=5 + seed)
        instrument = msgspec.structs.replace(simulated_instrument(market), id=name)
        made.append((simulate(market), instrument))
    return made


@pytest.fixture(scope="module")
def samples(history):
    return [build_sample(*pair, FeaturesConfig(), TARGET.horizons, SPLIT.spans()) for pair in history]


def trained(samples, path, network=SMALL, start=None, on_epoch=lambda *row: None, **settings):
    config = msgspec.structs.replace(FEW, **settings)
    return train(samples, SPLIT.spans(), TARGET, network, config, path, on_epoch, start)


def same_weights(one, other):
    first, second = one.network.state_dict(), other.network.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


# Ensembles


@pytest.fixture(scope="module")
def three(samples, tmp_path_factory):
    return trained(samples[:1], tmp_path_factory.mktemp("three") / "c", members=3, ema=0.9)


def test_the_first_member_is_the_network_alone(samples, three, tmp_path):
    alone = trained(samples[:1], tmp_path / "c", ema=0.9)
    first = three.network.members[0].state_dict()
    assert all(torch.equal(tensor, first[name]) for name, tensor in alone.network.state_dict().items())
    assert three.losses[0] == alone.losses[0] == pytest.approx(alone.pinball, abs=1e-7)
    assert len(three.losses) == 3
    assert len(set(three.losses)) == 3


def test_the_ensemble_is_judged_as_a_whole(samples, three):
    stop = sequences(samples[:1], SPLIT.spans()["stop"], 4, training.RUN_IN)
    each = [forecast_sequences(member, stop) for member in three.network.members]
    mean_NHQ, y_NH = torch.stack([q for q, _ in each]).mean(dim=0), each[0][1]
    levels = torch.tensor(TARGET.levels)
    assert three.pinball == pytest.approx(float(pinball(mean_NHQ, y_NH, levels)), abs=1e-6)
    assert [float(pinball(q, y_NH, levels)) for q, _ in each] == pytest.approx(three.losses, abs=1e-6)
    assert three.pinball <= sum(three.losses) / 3  # the loss is convex


@pytest.mark.parametrize("at", [1, 4, 6, 8])
def test_killed_anywhere_an_ensemble_resumes_to_the_same_weights(samples, three, tmp_path, at):
    def kill(epoch, loss, best):
        if epoch == at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained(samples[:1], tmp_path / "c", on_epoch=kill, members=3, ema=0.9)
    seen = []
    resumed = trained(samples[:1], tmp_path / "c", on_epoch=lambda *row: seen.append(row[0]), members=3, ema=0.9)
    assert seen == list(range(at + 1, 10))
    assert same_weights(resumed, three)
    assert (resumed.pinball, resumed.losses) == (three.pinball, three.losses)
    assert all(path.exists() for path in checkpoints(tmp_path / "c", 3))


def test_seeds_of_members_are_their_own():
    seeds = [seed for number in range(50) for seed in member_seeds(TrainConfig(seed=number, members=4))]
    assert len(set(seeds)) == 200  # member 1 of seed 0 is not member 0 of seed 1
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert member_seeds(TrainConfig(seed=7, members=3)) == member_seeds(TrainConfig(seed=7, members=9))[:3]
    assert member_seeds(TrainConfig(seed=7)) == [7]


def test_an_ensemble_goes_on_from_an_ensemble(samples, three, tmp_path):
    start = three.network.state_dict()
    with pytest.raises(LSTMStrategyError, match=r"are of 3 members, train\.members is 1; make them the same"):
        trained(samples[:1], tmp_path / "a", start=start)
    with pytest.raises(LSTMStrategyError, match=r"are of 1 members, train\.members is 3"):
        trained(samples[:1], tmp_path / "b", start=three.network.members[0].state_dict(), members=3)
    with pytest.raises(LSTMStrategyError, match=r"of another shape \(project\.weight differs\)"):
        trained(samples[:1], tmp_path / "d", start=start, members=3, network=NetworkConfig(hidden=7))
    begun = []
    honest = training.begin_at

    def noting(network, weights):
        honest(network, weights)
        begun.append({name: tensor.clone() for name, tensor in network.state_dict().items()})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "begin_at", noting)
        other = {name: t + 1.0 if name.endswith("feature_mean") else t for name, t in start.items()}
        trained(samples[:1], tmp_path / "e", start=other, members=3, epochs=1, learning_rate=1e-6)
    for number, weights in enumerate(begun):  # the scaler is this training's own
        for name, tensor in three.network.members[number].state_dict().items():
            assert torch.equal(weights[name], tensor)
    assert len(begun) == 3


# Averaged weights


def test_weights_are_averaged_as_the_settings_say(samples, tmp_path):
    """Against the same training by hand: plain weights after every step, averaged in a loop of one's own."""
    steps = []
    honest = torch.optim.AdamW.step

    def noting(self, *args, **kwargs):
        found = honest(self, *args, **kwargs)
        steps.append([p.detach().clone() for group in self.param_groups for p in group["params"]])
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", noting)
        found = trained(samples[:1], tmp_path / "a", epochs=1, ema=0.6)
    average = steps[0]
    for n, weights in enumerate(steps[1:], start=1):
        decay = min(0.6, (1 + n) / (10 + n))
        average = [decay * old + (1 - decay) * new for old, new in zip(average, weights, strict=True)]
    assert len(steps) > 3
    for wanted, (name, weight) in zip(average, found.network.named_parameters(), strict=True):
        torch.testing.assert_close(weight.detach(), wanted, rtol=0, atol=1e-6, msg=name)
    assert not torch.equal(found.network.project.weight.detach(), steps[-1][0])
    average = torch.tensor(0.0)
    average_of(0.9999)([average], [torch.tensor(1.0)], torch.tensor(1))
    assert average.item() == pytest.approx(9 / 11)


# Panels


def test_an_embedding_learns_each_instrument_under_its_own_number(samples, tmp_path):
    config = NetworkConfig(hidden=6, embedding=2)
    seen = []
    honest = training.StreamingLSTM.forward

    def noting(self, x_TBF, *state, instrument_B=None):
        seen.append((x_TBF.clone(), instrument_B.clone()))
        return honest(self, x_TBF, *state, instrument_B=instrument_B)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training.StreamingLSTM, "forward", noting)
        found = trained(samples, tmp_path / "a", config, epochs=1)
    assert found.network.instruments == ("A.SIM", "B.SIM")
    rows = {s.bars.instrument_id: {x.tobytes() for x in s.matrix.x_TF} for s in samples}
    counted = [0, 0]
    for x_TBF, instrument_B in seen:
        for column, number in enumerate(instrument_B.tolist()):
            assert x_TBF[0, column].numpy().tobytes() in rows[found.network.instruments[number]]
            counted[number] += 1
    assert min(counted) > 5
    with pytest.raises(LSTMStrategyError, match=r"network\.embedding is 2, but there is one instrument, B\.SIM; use 0"):
        trained(samples[:1], tmp_path / "c", config)


# Point heads


@pytest.mark.parametrize("head", ["mae", "mse"])
def test_a_point_head_learns_its_own_loss_and_stands_amid_residuals(samples, tmp_path, head):
    found = trained(samples[:1], tmp_path / head, NetworkConfig(hidden=6, head=head), members=2)
    fit = sequences(samples[:1], SPLIT.spans()["fit"], 4)
    fit = [replace(s, y_TH=torch.cat([torch.full_like(s.y_TH[:32], torch.nan), s.y_TH[32:]])) for s in fit]
    q_NHQ, y_NH = forecast_sequences(found.network, fit)
    # The share of outcomes below each quantile is its level, on the very bars where the residuals are from.
    below = (y_NH[..., None] < q_NHQ).float()
    known = ~torch.isnan(y_NH)
    for column in range(2):
        share = below[known[:, column], column].mean(dim=0)
        torch.testing.assert_close(share, torch.tensor(TARGET.levels), rtol=0, atol=2e-3)
    distance = q_NHQ - q_NHQ[..., :1]
    torch.testing.assert_close(distance, distance[:1].expand_as(distance), rtol=0, atol=1e-5)
    # Each member was chosen by the loss of its point, and the quantiles are judged by pinball.
    stop = sequences(samples[:1], SPLIT.spans()["stop"], 4, training.RUN_IN)
    for member, loss in zip(found.network.members, found.losses, strict=True):
        q, y = forecast_sequences(member, stop)
        error = (y - (q[..., 2] - member.residual_HQ[:, 2]))[~torch.isnan(y)]
        assert float(error.abs().mean() if head == "mae" else error.square().mean()) == pytest.approx(loss, rel=1e-5)
    assert found.pinball < 2 * found.pinball_baseline


def test_the_mean_of_a_point_forecast_differs_from_it_by_a_constant(samples, tmp_path):
    found = trained(samples[:1], tmp_path / "mse", NetworkConfig(hidden=6, head="mse"))
    q_NHQ, _ = forecast_sequences(found.network, sequences(samples[:1], SPLIT.spans()["stop"], 4))
    point = (q_NHQ - found.network.residual_HQ)[..., 0].numpy()
    apart = mean_of(q_NHQ.numpy(), TARGET.levels) - point
    assert np.ptp(apart, axis=0).max() < 1e-5
    assert np.abs(apart).max() < 0.2


# The whole way


@pytest.fixture(scope="module")
def saved(history, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    config = msgspec.structs.replace(FEW, members=2, ema=0.5)
    network = NetworkConfig(hidden=6, embedding=2, layer_norm=True)
    return fit_spans("m", "v", history, FeaturesConfig(), TARGET, SPLIT.spans(), network, config, folder)


def test_a_saved_ensemble_says_what_its_members_say_in_torch(saved, samples):
    model = artefact.load(saved.path)
    scores = model.manifest.scores
    assert {"pinball_stop", "pinball_stop_member_0", "pinball_stop_member_1"} <= scores.keys()
    assert (scores["pinball_stop_member_0"], scores["pinball_stop_member_1"]) == saved.trained.losses
    assert scores["pinball_stop"] == saved.trained.pinball
    assert (model.manifest.training.members, model.manifest.network.embedding) == (2, 2)
    assert list(saved.path.parent.glob(".checkpoint*")) == []
    stop = SPLIT.spans()["stop"]
    for sample in samples:
        name = sample.bars.instrument_id
        forecasts = Forecaster(model, name).run(sample.bars)
        found = sequences([sample], (None, stop[1]), 4)
        q_NHQ = torch.stack([forecast_sequences(m, found)[0] for m in saved.trained.network.members]).mean(dim=0)
        wanted = np.maximum.accumulate(q_NHQ.numpy() + np.array(model.manifest.calibration), axis=-1)
        unit = forecasts.scale_T[:, None, None] * np.sqrt(TARGET.horizons)[:, None]
        rows = np.flatnonzero(sample.bars.ts_close <= stop[1])
        rows = rows[sample.matrix.valid_T[rows]][: len(wanted)]
        told = (forecasts.quantiles_THQ / unit)[rows]
        held = ~np.isnan(told[:, 0, 0])
        assert held.sum() > 1_000
        np.testing.assert_allclose(told[held], wanted[held], rtol=0, atol=2e-5)


def test_a_scaler_of_one_member_that_saw_other_bars_is_caught(saved, history, tmp_path):
    from safetensors.torch import load, save

    model = artefact.load(saved.path)
    require_scaler(saved.path, model, history, SPLIT.spans())
    weights = load((saved.path / "weights.safetensors").read_bytes())
    weights["members.1.feature_mean"][0] += 0.5
    (tmp_path / "weights.safetensors").write_bytes(save(weights))
    with pytest.raises(LeakError, match="it was fitted on other bars"):
        require_scaler(tmp_path, model, history, SPLIT.spans())
    del weights["members.1.feature_mean"]
    (tmp_path / "weights.safetensors").write_bytes(save(weights))
    with pytest.raises(LeakError, match="1 of 2 members have a feature_mean"):
        require_scaler(tmp_path, model, history, SPLIT.spans())


# CUDA


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"precision": "bfloat16"}, r'train\.precision is "bfloat16", but there is no CUDA device here'),
        ({"compile": True}, r"train\.compile is true, but there is no CUDA device here; use compile = false"),
    ],
)
def test_what_needs_cuda_is_refused_without(samples, tmp_path, monkeypatch, settings, told):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(LSTMStrategyError, match=told):
        trained(samples[:1], tmp_path / "c", **settings)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("settings", [{"precision": "bfloat16"}, {"compile": True}])
def test_on_cuda_it_learns_about_the_same(samples, tmp_path, settings):
    plain = trained(samples[:1], tmp_path / "plain")
    faster = trained(samples[:1], tmp_path / "faster", **settings)
    assert faster.pinball == pytest.approx(plain.pinball, rel=0.02)
