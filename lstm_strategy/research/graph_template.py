"""Graph templates: where in an exported graph each weight of a network went, so that others can be put in its place."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import numpy_helper

from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.network import Streaming

__all__ = ["GraphTemplate", "NoTemplateError", "make_template", "shape_of"]

# While the template is made, the n-th weight of a network has the value 4096.5 + n. Up to 2^23 each such value is exact
# in float32, and no sum or difference of two of them is a third.
_FIRST, _END = 4096.5, 2.0**23


class NoTemplateError(LSTMStrategyError):
    """A network whose weights cannot be followed into its graph."""


@dataclass(frozen=True, slots=True, eq=False)
class GraphTemplate:
    """An exported graph; ``places`` gives, for each initialiser made of weights, the number of each of its weights."""

    model: onnx.ModelProto
    places: dict[str, npt.NDArray[np.int64]]

    def fill(self, network: Streaming) -> bytes:
        """Return the graph with the weights of a network of the same `shape_of`; equal weights, equal bytes."""
        weights_N = np.concatenate([tensor.numpy().ravel() for tensor in _tensors(network).values()])
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        for initialiser in model.graph.initializer:
            if initialiser.name in self.places:
                initialiser.raw_data = weights_N[self.places[initialiser.name]].astype("<f4").tobytes()
        return bytes(model.SerializeToString(deterministic=True))


def shape_of(network: Streaming) -> tuple[object, ...]:
    """Return what the graph of a network depends on besides its weights, hashable: classes, settings, sizes."""
    members = tuple(type(module).__qualname__ for module in network.modules())
    sizes = tuple((name, tuple(tensor.shape)) for name, tensor in _tensors(network).items())
    return members, network.config, tuple(network.state_shapes.items()), sizes


def make_template(network: Streaming, export: Callable[[Streaming], onnx.ModelProto]) -> GraphTemplate:
    """Export a copy of the network whose weights are their own numbers, and read off where each of them went.

    Exporters only move weights about (reorder, join, transpose), which this finds whatever they call them.

    Raises
    ------
    NoTemplateError
        Where there are too many weights to number, or the graph holds some that were computed with.
    """
    numbered = copy.deepcopy(network)
    first = 0
    with torch.no_grad():
        for name, tensor in _tensors(numbered).items():
            if tensor.dtype != torch.float32:
                raise NoTemplateError(f"{name} is {tensor.dtype}, not float32")
            numbers = torch.arange(first, first + tensor.numel(), dtype=torch.float64) + _FIRST
            tensor.copy_(numbers.reshape(tensor.shape))
            first += tensor.numel()
    if first + _FIRST > _END:
        raise NoTemplateError(
            f"the network has {first:,} weights, more than the {int(_END - _FIRST):,} that have numbers"
        )
    model = export(numbered)
    places = {}
    for initialiser in model.graph.initializer:
        found = _places(initialiser, first)
        if found is not None:
            places[initialiser.name] = found
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t") and _places(attribute.t, first) is not None:
                raise NoTemplateError(f"the node {node.name} holds weights as an attribute")
    return GraphTemplate(model, places)


def _places(tensor: onnx.TensorProto, n_weights: int) -> npt.NDArray[np.int64] | None:
    """Return the numbers of the weights that a tensor of the graph is made of; None where it holds none."""
    if tensor.data_type != onnx.TensorProto.FLOAT:
        return None
    found = numpy_helper.to_array(tensor).astype(np.float64).ravel() - _FIRST
    known = (found >= 0) & (found < n_weights) & (found == np.floor(found))
    if not known.any():
        return None
    if not known.all() or not tensor.HasField("raw_data"):
        raise NoTemplateError(f"{tensor.name} of the graph holds weights beside other numbers, or in another form")
    return found.astype(np.int64)


def _tensors(network: Streaming) -> dict[str, torch.Tensor]:
    """Every weight and buffer once, those that are not saved too."""
    return {name: tensor.detach() for name, tensor in (*network.named_parameters(), *network.named_buffers())}
