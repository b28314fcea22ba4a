"""The compiled step of an LSTM says what torch and the graph say, and takes no weights but its own network's."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from threading import Thread

import msgspec
import numpy as np
import pytest
import torch
from numba.core.caching import CacheImpl
from safetensors.torch import load as from_safetensors
from safetensors.torch import save as to_safetensors

from lstm_strategy.artefact import Artefact, ArtefactError, FeatureRange, InstrumentFit, Manifest, Shrinkage
from lstm_strategy.compiled import compiled
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.features import FeatureConfig, FeaturesConfig
from lstm_strategy.forecast import Float32
from lstm_strategy.hyperparameters import NetworkConfig, TrainConfig
from lstm_strategy.lstm_kernel import run
from lstm_strategy.lstm_step import LSTMStep
from lstm_strategy.network import Ensemble, Streaming, StreamingLSTM
from lstm_strategy.network_step import GraphStep, open_network
from lstm_strategy.research.export import export

FEATURES = FeaturesConfig(features=tuple(FeatureConfig("return", span) for span in (1, 2, 3, 4, 5, 6, 7)))
NAMES = ("A.SIM", "B.SIM")
# Settings of the network, how many levels, members, and whether a position is said.
NETWORKS = {
    "plain": (NetworkConfig(hidden=48), 13, 1, False),
    "odd width": (NetworkConfig(hidden=5), 1, 1, False),
    "even levels": (NetworkConfig(hidden=7), 4, 1, False),
    "deep": (NetworkConfig(hidden=9, layers=3), 5, 1, False),
    "normalised": (NetworkConfig(hidden=8, layers=2, layer_norm=True), 5, 1, False),
    "embedding": (NetworkConfig(hidden=8, embedding=3), 5, 1, True),
    "means": (NetworkConfig(hidden=8, head="mse"), 5, 2, False),
    "everything": (NetworkConfig(hidden=10, layers=2, layer_norm=True, embedding=2), 7, 3, True),
}
EACH = pytest.mark.parametrize("kind", NETWORKS)


def network_of(kind: str) -> Streaming:
    """Every number is random, the scaler's too."""
    config, n_levels, n_members, position = NETWORKS[kind]
    torch.manual_seed(1)
    scaler, members = (torch.randn(7), 0.5 + torch.rand(7)), []
    for _ in range(n_members):
        start = torch.linspace(-2, 2, n_levels).repeat(2, 1)
        network = StreamingLSTM(config, *scaler, start, NAMES, position_head=position)
        with torch.no_grad():
            for weight in network.parameters():
                weight.copy_(0.4 * torch.randn(weight.shape))
        members.append(network)
    return (Ensemble(members) if n_members > 1 else members[0]).eval()


def artefact_of(kind: str) -> Artefact:
    config, n_levels, n_members, position = NETWORKS[kind]
    network = network_of(kind)
    weights = to_safetensors({name: tensor.contiguous() for name, tensor in network.state_dict().items()})
    scaler = zip(FEATURES.names, network.feature_mean.tolist(), network.feature_std.tolist(), strict=True)
    table = [np.linspace(-2, 2, n_levels).tolist()] * 2
    manifest = Manifest(
        name="step",
        version="1",
        package_version="0.1.0",
        timeframe="1h",
        instruments={name: InstrumentFit(tick=0.01, scale_floor=1e-4, bars_per_year=8760.0) for name in NAMES},
        features=FEATURES,
        feature_ranges=[FeatureRange(name, mean, std, -8.0, 8.0) for name, mean, std in scaler],
        horizons=(1, 4),
        levels=tuple(np.linspace(0.01, 0.99, n_levels).tolist()) if n_levels > 1 else (0.5,),
        network=config,
        training=TrainConfig(members=n_members, **({"objective": "sharpe"} if position else {})),
        spans={},
        data_sha256={},
        baseline=table,
        calibration=table,
        shrinkage=[Shrinkage()] * 2,
        warmup_bars=FEATURES.warmup,
        scores={},
    )
    return Artefact(manifest, export(network), weights)


@pytest.fixture(scope="module")
def artefacts() -> dict[str, Artefact]:
    torch.set_num_threads(1)
    return {kind: artefact_of(kind) for kind in NETWORKS}


def features(n: int = 300) -> Float32:
    """Features of a random walk through the clip, at both of its sides."""
    return np.random.default_rng(3).normal(scale=4.0, size=(n, 7)).astype(np.float32)


@EACH
def test_it_says_what_torch_says(artefacts: dict[str, Artefact], kind: str) -> None:
    network, x_TF = network_of(kind), features()
    for number, name in enumerate(NAMES):
        step = open_network(artefacts[kind], name)
        assert isinstance(step, LSTMStep)
        found, position_T = step.run(x_TF)
        with torch.no_grad():
            instrument_B = network.numbers_of([name])
            said = network(torch.from_numpy(x_TF)[:, None], *network.initial_state(1), instrument_B=instrument_B)
        np.testing.assert_allclose(found, said[0][:, 0].numpy(), rtol=0, atol=2e-5)
        if NETWORKS[kind][3]:
            np.testing.assert_allclose(position_T, said[1][:, 0, 0].numpy(), rtol=0, atol=2e-6)
        else:
            assert np.isnan(position_T).all()
        graph = GraphStep(artefacts[kind].graph, 7, number)
        graph.run(x_TF, stepped=False)
        state, wanted = (np.frombuffer(one.state(), np.float32) for one in (step, graph))
        np.testing.assert_allclose(state, wanted, rtol=0, atol=2e-5)  # laid out alike: snapshots go on


@EACH
def test_any_split_of_time_is_the_same_to_the_last_bit(artefacts: dict[str, Artefact], kind: str) -> None:
    x_TF = features()
    whole, parts, steps = (LSTMStep(artefacts[kind], 1) for _ in range(3))
    wanted, position_T = whole.run(x_TF)
    edges = [0, 1, 2, 17, 100, 300]
    found = [parts.run(x_TF[first:last]) for first, last in pairwise(edges)]
    np.testing.assert_array_equal(np.concatenate([one for one, _ in found]), wanted)
    np.testing.assert_array_equal(np.concatenate([one for _, one in found]), position_T)
    for row, x_F in enumerate(x_TF):
        np.testing.assert_array_equal(steps.step(x_F)[0], wanted[row])
        np.testing.assert_equal(steps.position, position_T[row])
        if row == 150:
            steps.restore(steps.state())
    assert steps.state() == whole.state() == parts.state()
    whole.reset()
    np.testing.assert_array_equal(whole.run(x_TF)[0], wanted)


def test_levels_never_cross_and_extremes_stay_finite(artefacts: dict[str, Artefact]) -> None:
    wild = np.where(features() > 0, np.float32(1e30), np.float32(-1e30))
    found, _ = LSTMStep(artefacts["plain"], 0).run(wild)
    assert np.isfinite(found).all()
    assert (np.diff(found.reshape(len(wild), 2, 13)) >= 0).all()


def test_a_feature_that_is_no_number_gives_no_forecast(artefacts: dict[str, Artefact]) -> None:
    x_TF = features(9)
    x_TF[4, 2] = np.nan
    found, _ = LSTMStep(artefacts["plain"], 0).run(x_TF)
    assert np.isfinite(found[:4]).all()
    assert np.isnan(found[4:]).all()  # until it begins from rest


def test_it_is_compiled_before_the_first_bar_and_for_one_kind_of_numbers() -> None:
    code = "from lstm_strategy.lstm_kernel import run; import sys; sys.exit(len(run.signatures) != 1)"
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(TypeError, match="No matching definition"):
        run(np.zeros(8, np.int64), np.zeros(9), np.zeros((1, 1), np.float32), np.zeros((1, 2), np.float32))


def test_where_no_machine_code_can_be_kept_the_way_out_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a container without a home, say, whose file system is read only."""
    monkeypatch.setattr(CacheImpl, "_locator_classes", [])
    with pytest.raises(LSTMStrategyError, match=r"code of add can be kept neither beside .*py nor .*: NUMBA_CACHE_DIR"):

        @compiled()
        def add(a: int, b: int) -> int:
            return a + b


def test_a_long_history_in_a_thread_keeps_no_loop_waiting(artefacts: dict[str, Artefact]) -> None:
    """A hot-swap tries a model in a thread, while the loop takes bars."""
    step, x_TF = LSTMStep(artefacts["plain"], 0), np.zeros((60_000, 7), np.float32)
    thread = Thread(target=step.run, args=(x_TF,))
    looks = 0
    thread.start()
    while thread.is_alive():
        time.sleep(0.001)
        looks += 1
    assert looks > 10  # with Python's lock held it is one


SPOILED = {
    "another network's": ("head.bias", lambda tensor: tensor + 0.5, "the weights and the graph .* not of one network"),
    "transposed": (
        "head.weight",
        lambda tensor: tensor.T.contiguous(),
        r"head.weight is float32 \[48, 26\], not .*26, 48",
    ),
    "short": ("project.bias", lambda tensor: tensor[:-1], r"project.bias is float32 \[47\], not float32 \[48\]"),
    "of a wider scaler": ("feature_std", lambda tensor: torch.ones(8), r"feature_std is float32 \[8\]"),
    "double": ("lstm.bias_ih_l0", lambda tensor: tensor.double(), "lstm.bias_ih_l0 is float64"),
    "missing": ("lstm.weight_hh_l0", lambda tensor: None, "not of its network: 'lstm.weight_hh_l0'"),
}


@pytest.mark.parametrize("how", SPOILED)
def test_weights_that_are_not_its_own_are_refused(artefacts: dict[str, Artefact], how: str) -> None:
    name, spoil, told = SPOILED[how]
    whole = artefacts["plain"]
    tensors = from_safetensors(whole.weights)
    tensors[name] = spoil(tensors[name])
    kept = {key: tensor for key, tensor in tensors.items() if tensor is not None}
    with pytest.raises(ArtefactError, match=told) as error:
        open_network(Artefact(whole.manifest, whole.graph, to_safetensors(kept)), "A.SIM")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("weights", [b"", b"\x00" * 64, to_safetensors({"odd": torch.ones(1)})])
def test_what_are_no_weights_is_refused(artefacts: dict[str, Artefact], weights: bytes) -> None:
    with pytest.raises(ArtefactError, match="the weights of model step/1 are not of its network"):
        open_network(Artefact(artefacts["plain"].manifest, artefacts["plain"].graph, weights), "A.SIM")


def test_a_manifest_of_another_network_is_refused(artefacts: dict[str, Artefact]) -> None:
    whole = artefacts["deep"]
    for changes in ({"hidden": 8}, {"layers": 4}, {"layer_norm": True}, {"embedding": 1}, {"head": "mae"}):
        config = msgspec.structs.replace(whole.manifest.network, **changes)
        manifest = msgspec.structs.replace(whole.manifest, network=config)
        with pytest.raises(ArtefactError, match="not of its network"):
            open_network(Artefact(manifest, whole.graph, whole.weights), "A.SIM")


@pytest.mark.parametrize("spoil", [torch.Tensor.double, torch.Tensor.half, lambda known: known.repeat(2, 1)])
def test_an_embedding_of_other_numbers_is_refused(
    artefacts: dict[str, Artefact], spoil: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    """Numbers of another width would give a state of another size, and machine code of its own at the first bar."""
    whole = artefacts["embedding"]
    tensors = from_safetensors(whole.weights)
    tensors["instrument.weight"] = spoil(tensors["instrument.weight"])
    with pytest.raises(ArtefactError, match=r"instrument.weight is float\d+ \[\d, 3\], not float32 \[2, 3\]"):
        open_network(Artefact(whole.manifest, whole.graph, to_safetensors(tensors)), "B.SIM")
