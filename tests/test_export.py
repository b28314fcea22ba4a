"""Export: one graph for each shape of network, filled with weights to the very bytes that torch's exporter gives."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from lstm_strategy.hyperparameters import NetworkConfig
from lstm_strategy.network import Ensemble, Streaming, StreamingLSTM
from lstm_strategy.research import export as room
from lstm_strategy.research import graph_template
from lstm_strategy.research.export import export
from lstm_strategy.research.graph_template import NoTemplateError, make_template, shape_of

KINDS = {
    "deep": [NetworkConfig(hidden=50, layers=2, layer_norm=True, embedding=2)],  # too large for the exporter to fold
    "attention": [NetworkConfig(kind="attention_lstm", hidden=6, window=3, head="mse")],
    "two members": 2 * [NetworkConfig(kind="cnn_lstm", hidden=6, kernel=2)],
}
PLAIN = NetworkConfig(hidden=5)


def network_of(config: NetworkConfig, seed: int, n_horizons: int = 2, n_levels: int = 5) -> StreamingLSTM:
    """A network whose every number is random, the scaler's too."""
    torch.manual_seed(seed)
    start = torch.linspace(-2, 2, n_levels).repeat(n_horizons, 1)
    network = StreamingLSTM(config, torch.randn(7), 0.5 + torch.rand(7), start, ("A.SIM", "B.SIM"))
    with torch.no_grad():
        for weight in network.parameters():
            weight.copy_(0.4 * torch.randn(weight.shape))
    return network.eval()


def whole_of(configs: list[NetworkConfig], seed: int) -> Streaming:
    members = [network_of(config, seed + number) for number, config in enumerate(configs)]
    return Ensemble(members).eval() if len(members) > 1 else members[0]


def by_itself(network: Streaming) -> bytes:
    return room._exported(network).SerializeToString(deterministic=True)


@pytest.fixture(scope="module")
def exported():
    """torch's exporter, which does not do the same twice: it takes a second."""
    real, known = room._exported, {}

    def exported(network: Streaming) -> onnx.ModelProto:
        key = shape_of(network), b"".join(t.numpy().tobytes() for t in graph_template._tensors(network).values())
        if key not in known:
            known[key] = real(network).SerializeToString(deterministic=True)
        return onnx.load_from_string(known[key])

    return exported


@pytest.fixture
def asked(monkeypatch, exported):
    """Networks that torch's exporter is asked for, with no template yet."""
    found: list[Streaming] = []

    def counted(network: Streaming) -> onnx.ModelProto:
        found.append(network)
        return exported(network)

    monkeypatch.setattr(room, "_templates", {})
    monkeypatch.setattr(room, "_exported", counted)
    return found


@pytest.fixture
def told(monkeypatch):
    """What is logged."""
    lines: list[str] = []
    monkeypatch.setattr(room._log, "warning", lambda text, *values: lines.append(text % values))
    return lines


@pytest.mark.parametrize("kind", KINDS)
def test_filled_in_the_bytes_are_those_of_the_exporter(kind, asked, told):
    export(whole_of(KINDS[kind], 1))
    network = whole_of(KINDS[kind], 3)
    graph = export(network)
    assert len(asked) == 1
    assert graph == by_itself(network)
    assert not told


def test_the_exporter_is_asked_once_a_shape_and_the_bytes_depend_on_nothing_else(asked):
    first, second = network_of(PLAIN, 1), network_of(PLAIN, 2)
    graphs = [export(network) for network in (first, second, first)]
    assert len(asked) == 1
    assert graphs[0] == graphs[2] != graphs[1]
    # As many weights in the same places, but two horizons of five levels are not five of two.
    turned = network_of(PLAIN, 1, n_horizons=5, n_levels=2)
    assert {name: t.shape for name, t in turned.state_dict().items()} == {
        name: t.shape for name, t in first.state_dict().items()
    }
    assert shape_of(turned) != shape_of(first)
    assert graphs[1] == by_itself(second)
    root = str(Path(room.__file__).parents[2]).encode()
    assert root not in graphs[0]
    assert b"site-packages" not in graphs[0]


def test_planted_a_wrong_template_is_told_and_the_network_exported_by_itself(asked, told):
    network = network_of(PLAIN, 1)
    wanted = export(network)
    shape = shape_of(network)
    places = {name: numbers[::-1] for name, numbers in room._templates[shape].places.items()}
    room._templates[shape] = dataclasses.replace(room._templates[shape], places=places)
    assert export(network) == wanted
    assert "filled in, the graph differs from torch" in told[0]
    assert len(asked) == 2
    assert shape not in room._templates
    assert export(network) == wanted  # with a template of its own again
    assert shape in room._templates


def test_a_network_that_cannot_be_numbered_is_told_and_exported_by_itself(asked, told, monkeypatch):
    network = network_of(PLAIN, 1)
    monkeypatch.setattr(graph_template, "_END", 4_200.0)
    graph = export(network)
    assert "more than the 103 that have numbers" in told[0]
    assert len(asked) == 1
    assert graph == by_itself(network)


def test_planted_an_exporter_that_computes_with_weights_is_noticed(asked):
    network = network_of(PLAIN, 1)

    def computing(numbered: Streaming) -> onnx.ModelProto:
        model = room._exported(numbered)
        for tensor in model.graph.initializer:
            if tensor.name == "head.bias":
                values = np.where(np.arange(10) < 5, numpy_helper.to_array(tensor), 1.0).astype(np.float32)
                tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
        return model

    with pytest.raises(NoTemplateError, match="holds weights beside other numbers"):
        make_template(network, computing)


def test_only_the_newest_templates_are_kept(asked, monkeypatch):
    network = network_of(PLAIN, 1)
    export(network)
    for number in range(20):
        room._templates[(number,)] = room._templates[shape_of(network)]
    export(network)
    assert list(room._templates) == [*((number,) for number in range(5, 20)), shape_of(network)]
