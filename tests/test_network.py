"""The network's parts against plain loops, ensembles against their members; each mistake that we fear is planted."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
import torch
from torch import nn

from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.hyperparameters import NetworkConfig, TrainConfig
from lstm_strategy.network import SLICE, Ensemble, StreamingLSTM
from lstm_strategy.network_parts import CausalConvolutions, WindowAttention
from lstm_strategy.research.export import export

START = torch.tensor([[-2.0, -1.0, 0.1, 1.0, 2.5], [-3.0, -1.5, 0.0, 1.5, 3.0]])
NAMES = ("A.SIM", "B.SIM", "C.SIM")
KINDS = {
    "lstm": NetworkConfig(hidden=6, layers=2, layer_norm=True, embedding=2),
    "cnn_lstm": NetworkConfig(kind="cnn_lstm", hidden=6, kernel=3, convolutions=2),
    "attention_lstm": NetworkConfig(kind="attention_lstm", hidden=6, window=4, embedding=2),
    "mse": NetworkConfig(hidden=6, head="mse", layer_norm=True),
}


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def network_of(config: NetworkConfig, seed: int = 0) -> StreamingLSTM:
    """Untrained; its head is loud, so that a wrong state shows."""
    torch.manual_seed(seed)
    network = StreamingLSTM(config, torch.full((5,), 0.3), torch.full((5,), 2.0), START, NAMES)
    with torch.no_grad():
        network.head.weight.mul_(20.0)
    return network.eval()


def ensemble_of(config: NetworkConfig, members: int = 3) -> Ensemble:
    return Ensemble([network_of(config, seed) for seed in range(members)]).eval()


@torch.no_grad()
def forecast(network, x_TBF, state=None, instruments=("A.SIM", "C.SIM")):
    rest = network.initial_state(x_TBF.shape[1]) if state is None else state
    q_TBN, *after = network(x_TBF, *rest, instrument_B=network.numbers_of(list(instruments)))
    return q_TBN, after


@pytest.fixture
def x_TBF():
    return torch.randn(40, 2, 5, generator=torch.Generator().manual_seed(1))


# Parts against loops


@torch.no_grad()
def convolved(part: CausalConvolutions, z_TBD, buffer):
    """The same by hand: for each bar and convolution, the taps of the bars at hand, oldest first."""
    past = [list(rows) for rows in buffer.split(part.before)]
    found = []
    for z in z_TBD:
        for taps, rows in zip(part.taps, past, strict=True):
            seen, width = [*rows[-part.before :], z], z.shape[-1]
            rows.append(z)
            blocks = taps.weight.split(width, dim=1)
            z = z + torch.tanh(taps.bias + sum(row @ block.T for row, block in zip(seen, blocks, strict=True)))
        found.append(z)
    return torch.stack(found)


@torch.no_grad()
def attended(part: WindowAttention, z_TBD, past):
    """The same by hand: for each bar a softmax over the hidden states that there were, oldest first."""
    past, found = list(past), []
    for z in z_TBD:
        past = [*past, z][-part.window :]
        states = torch.stack(past, dim=1)
        scores = (part.query(z)[:, None] * states).sum(-1) / math.sqrt(z.shape[-1]) + part.bias_W[-len(past) :]
        context = (torch.softmax(scores, dim=-1)[..., None] * states).sum(1)
        found.append(torch.tanh(part.combine(torch.cat([context, z], dim=-1))))
    return torch.stack(found)


@torch.no_grad()
def convolution_error(part: CausalConvolutions) -> float:
    z_TBD, buffer = torch.randn(12, 2, 4), torch.zeros(2 * part.before, 2, 4)
    wanted = convolved(part, z_TBD, buffer)
    at_once, after = part(z_TBD, buffer)
    parts = []
    for piece in z_TBD.split(5):
        piece, buffer = part(piece, buffer)
        parts.append(piece)
    return max(float((found - wanted).abs().max()) for found in (at_once, torch.cat(parts))) + float(
        (after - buffer).abs().max()
    )


@torch.no_grad()
def attention_error(part: WindowAttention) -> float:
    z_TBD, memory = torch.randn(12, 2, 4), torch.zeros(part.window - 1, 2, 5)
    wanted = attended(part, z_TBD, [])
    at_once, after = part(z_TBD, memory)
    parts = []
    for piece in z_TBD.split(2):
        piece, memory = part(piece, memory)
        parts.append(piece)
    return max(float((found - wanted).abs().max()) for found in (at_once, torch.cat(parts))) + float(
        (after - memory).abs().max()
    )


def attention() -> WindowAttention:
    torch.manual_seed(3)
    part = WindowAttention(4, 5)
    nn.init.normal_(part.bias_W)
    nn.init.normal_(part.query.weight)
    return part


def test_convolutions_and_attention_are_those_by_hand():
    torch.manual_seed(2)
    assert convolution_error(CausalConvolutions(4, 3, 2)) < 1e-6
    assert attention_error(attention()) < 1e-6


def next_in_place_of_present(forward):
    """The mistake: at every bar, the part is given the bar after it."""
    return lambda self, z_TBD, state: forward(self, torch.cat([z_TBD[1:], z_TBD[-1:]]), state)


def test_planted_a_convolution_that_sees_the_next_bar(monkeypatch):
    monkeypatch.setattr(CausalConvolutions, "forward", next_in_place_of_present(CausalConvolutions.forward))
    assert convolution_error(CausalConvolutions(4, 3, 2)) > 0.01
    with pytest.raises(LSTMStrategyError, match="differs from torch"):
        export(network_of(NetworkConfig(kind="cnn_lstm", hidden=4, kernel=2)))


def test_planted_an_attention_that_sees_the_next_state(monkeypatch):
    monkeypatch.setattr(WindowAttention, "forward", next_in_place_of_present(WindowAttention.forward))
    assert attention_error(attention()) > 0.01


def test_planted_an_attention_to_places_that_were_never_filled(monkeypatch):
    honest = WindowAttention.forward

    def filled(self, z_TBD, memory):
        return honest(self, z_TBD, torch.cat([memory[..., :-1], torch.ones_like(memory[..., -1:])], dim=-1))

    part = attention()
    assert attention_error(part) < 1e-6
    monkeypatch.setattr(WindowAttention, "forward", filled)
    assert attention_error(part) > 0.01


def test_planted_a_window_that_is_one_too_long():
    part = attention()
    longer = WindowAttention(4, 6)
    longer.load_state_dict(part.state_dict() | {"bias_W": torch.cat([part.bias_W[:1], part.bias_W])})
    z_TBD = torch.randn(12, 2, 4)
    found = longer(z_TBD, torch.zeros(5, 2, 5))[0].detach()
    assert float((found - attended(part, z_TBD, [])).abs().max()) > 0.01


# Whole networks


@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_sees_the_future_and_any_split_is_the_same(kind, members, x_TBF):
    network = ensemble_of(KINDS[kind], members) if members > 1 else network_of(KINDS[kind])
    whole, end = forecast(network, x_TBF)
    for at in (1, 7, 39):
        altered = x_TBF.clone()
        altered[at:] += 3.0
        found, _ = forecast(network, altered)
        assert torch.allclose(found[:at], whole[:at], rtol=0, atol=1e-6)
        assert (found[at] != whole[at]).any()
    state, parts = None, []
    for piece in x_TBF.split([1, 1, 13, 2, 23]):
        q_TBN, state = forecast(network, piece, state)
        parts.append(q_TBN)
    torch.testing.assert_close(torch.cat(parts), whole, rtol=0, atol=1e-5)
    for found, wanted in zip(state, end, strict=True):
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)
    assert (whole.unflatten(-1, (2, 5)).diff(dim=-1) >= 0).all()
    # The rows of a batch know nothing of each other.
    alone, _ = forecast(network, x_TBF[:, 1:], instruments=("C.SIM",))
    torch.testing.assert_close(alone[:, 0], whole[:, 1], rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_an_ensemble_is_the_mean_of_what_its_members_say(kind, x_TBF):
    ensemble = ensemble_of(KINDS[kind])
    found, _ = forecast(ensemble, x_TBF)
    each = torch.stack([forecast(member, x_TBF)[0] for member in ensemble.members])
    torch.testing.assert_close(found, each.mean(dim=0), rtol=0, atol=1e-5)
    assert (each.std(dim=0) > 1e-3).any()


def test_planted_an_ensemble_that_takes_the_mean_before_levels_are_in_order(monkeypatch, x_TBF):
    ensemble = ensemble_of(KINDS["lstm"])
    each = torch.stack([forecast(member, x_TBF)[0] for member in ensemble.members]).mean(dim=0)
    honest = StreamingLSTM.quantiles
    monkeypatch.setattr(StreamingLSTM, "quantiles", lambda self, raw: honest(self, raw.mean(dim=0))[None])
    assert float((forecast(ensemble, x_TBF)[0] - each).abs().max()) > 0.01


def test_an_embedding_tells_instruments_apart_by_name(x_TBF):
    network = network_of(KINDS["lstm"])
    assert network.numbers_of(["C.SIM", "A.SIM"]).tolist() == [2, 0]
    same = x_TBF[:, :1].expand(-1, 2, -1)
    found, _ = forecast(network, same)
    assert (found[:, 0] - found[:, 1]).abs().max() > 0.01
    with torch.no_grad():
        network.instrument.weight[2] = network.instrument.weight[0]
    found, _ = forecast(network, same)
    torch.testing.assert_close(found[:, 0], found[:, 1], rtol=0, atol=1e-5)
    assert network_of(KINDS["mse"]).numbers_of(["A.SIM"]) is None


def test_a_point_head_stands_at_the_same_distance_from_its_quantiles(x_TBF):
    found = forecast(network_of(KINDS["mse"]), x_TBF)[0].unflatten(-1, (2, 5))
    distance = found - found[..., 2:3]
    torch.testing.assert_close(distance, (START - START[:, 2:3]).expand_as(distance))
    assert found[..., 2].std() > 0.01


def test_attention_needs_slices_and_says_how_long():
    assert network_of(KINDS["attention_lstm"]).state_shapes["memory"] == (3, 7)
    assert SLICE >= 64


# Settings


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (
            {"kernel": 3},
            'network.kernel is 3, but network.kind "lstm" has no kernel; leave it out, or use kind = "cnn_l',
        ),
        ({"kind": "attention_lstm", "convolutions": 2}, 'but network.kind "attention_lstm" has no convolutions'),
        ({"kind": "cnn_lstm", "window": 8}, 'leave it out, or use kind = "attention_lstm"'),
        ({"kind": "cnn_lstm", "kernel": 1}, "network.kernel is 1; it must be 2 to 256"),
        ({"kind": "attention_lstm", "window": 1}, "network.window is 1; it must be 2 to 1024"),
        ({"embedding": -1}, "network.embedding is -1; it must be 0 to 256"),
        ({"members": 0}, "train.members is 0; it must be 1 to 64"),
        ({"ema": 1.0}, "train.ema is 1.0; it must be 0 to 0.9999"),
        ({"ema": math.nan}, "train.ema is nan"),
    ],
)
def test_settings_that_do_not_go_together_are_one_line(settings, told):
    kind = TrainConfig if settings.keys() & {"members", "ema"} else NetworkConfig
    with pytest.raises(LSTMStrategyError) as refused:
        kind(**settings)
    assert told in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


# The compiler


@torch.no_grad()
def test_compiled_the_lstm_is_called_as_it_is(x_TBF: torch.Tensor) -> None:
    """cuDNN's own is fast; unrolled over a chunk it would be compiled for minutes. Torch leaves it out by itself."""
    network = network_of(KINDS["lstm"])
    graphs: list[torch.fx.GraphModule] = []

    def keep(graph: torch.fx.GraphModule, _given: object) -> object:
        graphs.append(graph)
        return graph.forward

    number_B = network.numbers_of(["A.SIM", "C.SIM"])
    made = (torch.compile(network, backend=keep), network)
    found, wanted = (one(x_TBF, *one.initial_state(2), instrument_B=number_B) for one in made)
    torch.testing.assert_close(found, wanted, rtol=0.0, atol=0.0)
    nodes = [str(node.target) for graph in graphs for node in graph.graph.nodes]
    assert any("linear" in name for name in nodes)
    assert not any("lstm" in name for name in nodes)
    assert len(nodes) < 100  # of 40 bars


ALL_MODULES = """
import importlib, pkgutil, sys
import torch
if "torch._dynamo" in sys.modules:
    raise SystemExit
import lstm_strategy.research as room
for found in pkgutil.iter_modules(room.__path__, "lstm_strategy.research."):
    importlib.import_module(found.name)
    assert "torch._dynamo" not in sys.modules, found.name
assert "lstm_strategy.network" in sys.modules
print("all")
"""


def test_nothing_loads_torchs_compiler_before_it_is_needed() -> None:
    """Two seconds of CPU time in each process, for nothing."""
    done = subprocess.run([sys.executable, "-c", ALL_MODULES], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() in ("all", "")
