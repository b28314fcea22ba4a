"""An LSTM's step from its weights, without what a graph of twenty operations costs at each bar."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load

from lstm_strategy.artefact import Artefact, ArtefactError
from lstm_strategy.forecast import Float32
from lstm_strategy.lstm_kernel import run

__all__ = ["LSTMStep"]

type _Tensors = Mapping[str, Float32]


class LSTMStep:
    """The step of a network of kind "lstm", an ensemble of it included; its state stays between bars.

    Parameters
    ----------
    artefact : Artefact
    instrument : int
        Its number in the network's embedding, where it has one.

    Attributes
    ----------
    has_position : bool
        Whether the network says a position beside its quantiles.

    Raises
    ------
    ArtefactError
        Where the weights are not those of the network that the manifest describes.
    """

    def __init__(self, artefact: Artefact, instrument: int) -> None:
        try:
            tensors = load(artefact.weights)
            members = [tensors] if "head.weight" in tensors else _members(tensors)
            packed = [part for own in members for part in _packed(own, artefact, instrument)]
            weights = np.concatenate([*_scaler(members[0], artefact), *packed])
        except (SafetensorError, KeyError, ValueError, IndexError) as error:
            raise ArtefactError(f"the weights of model {artefact.label} are not of its network: {error}") from None
        manifest = artefact.manifest
        config, self.has_position = manifest.network, manifest.has_position
        n_features, n_levels, n_said = len(manifest.features.features), len(manifest.levels), _n_said(artefact)
        sizes = n_features, config.hidden, config.layers, len(members), n_levels, n_said
        self._sizes = np.array([*sizes, config.layer_norm, self.has_position], np.int64)
        n_state, n_room = 2 * len(members) * config.layers * config.hidden, n_features + 5 * config.hidden + n_said
        self._memory = np.concatenate([np.zeros(n_state + n_room, np.float32), weights])
        self._state = self._memory[:n_state]
        self._x = np.zeros((1, n_features), np.float32)
        self._said = np.full((1, len(manifest.horizons) * n_levels + 1), np.nan, np.float32)

    def reset(self) -> None:
        """Begin from rest."""
        self._state[:] = 0.0

    def step(self, x_F: Float32) -> Float32:
        """Take one bar's features; return the quantiles [1, H · Q], which the next step overwrites."""
        self._x[0] = x_F
        run(self._sizes, self._memory, self._x, self._said)
        return self._said[:, :-1]

    @property
    def position(self) -> float:
        """What the last step said of it; NaN where the network says nothing."""
        return self._said.item(-1)

    def run(self, x_TF: Float32, stepped: bool = True) -> tuple[Float32, Float32]:
        """Take many bars, to the last bit as one by one; return quantiles [T, H · Q] and positions [T]."""
        found = np.empty((len(x_TF), self._said.size), np.float32)
        run(self._sizes, self._memory, np.ascontiguousarray(x_TF, np.float32), found)
        return found[:, :-1], found[:, -1]

    def state(self) -> bytes:
        """The hidden state."""
        return self._state.tobytes()

    def restore(self, state: bytes) -> None:
        """Take back what `state` gave."""
        self._state[:] = np.frombuffer(state, np.float32)


def _n_said(artefact: Artefact) -> int:
    """Return how many numbers the head says."""
    manifest = artefact.manifest
    return len(manifest.horizons) * (len(manifest.levels) if manifest.network.head == "quantiles" else 1)


def _members(tensors: _Tensors) -> list[_Tensors]:
    """Return each network of an ensemble, its names without their place in it."""
    found: dict[int, dict[str, Float32]] = {}
    for name, tensor in tensors.items():
        _, place, own = name.split(".", 2)
        found.setdefault(int(place), {})[own] = tensor
    return [found[place] for place in range(len(found))]


def _take(own: _Tensors, name: str, *shape: int) -> Float32:
    """Return a tensor in the shape that the kernel relies on."""
    tensor = own[name]
    if tensor.shape != shape or tensor.dtype != np.float32:
        raise ValueError(f"{name} is {tensor.dtype} {list(tensor.shape)}, not float32 {list(shape)}")
    return tensor


def _scaler(own: _Tensors, artefact: Artefact) -> list[Float32]:
    return [_take(own, f"feature_{part}", len(artefact.manifest.features.features)) for part in ("mean", "std")]


def _packed(own: _Tensors, artefact: Artefact, instrument: int) -> list[Float32]:
    """Return a member's weights, flat, in the order in which the kernel reads them.

    What an instrument adds to the LSTM's inputs and outputs goes into the biases.
    """
    manifest, n_said = artefact.manifest, _n_said(artefact)
    config, width = manifest.network, manifest.network.hidden

    def norm(name: str) -> list[Float32]:
        return [_take(own, f"{name}.{part}", width) for part in ("weight", "bias")] if config.layer_norm else []

    shift_in = shift_out = np.zeros(width, np.float32)
    if config.embedding:
        known = _take(own, "instrument.weight", len(manifest.instruments), config.embedding)[instrument]
        shift_in, shift_out = (
            _take(own, f"instrument_{side}.weight", width, config.embedding) @ known for side in ("in", "out")
        )
    parts = [_take(own, "project.bias", width) + shift_in]
    parts += [_take(own, "project.weight", width, len(manifest.features.features)).T, *norm("norm_in")]
    for layer in range(config.layers):
        input_bias, state_bias = (_take(own, f"lstm.bias_{side}_l{layer}", 4 * width) for side in ("ih", "hh"))
        parts.append(input_bias + state_bias)
        parts += [_take(own, f"lstm.weight_{side}_l{layer}", 4 * width, width).T for side in ("ih", "hh")]
    head = _take(own, "head.weight", n_said, width)
    parts += [*norm("norm_out"), _take(own, "head.bias", n_said) + head @ shift_out, head.T]
    if config.head != "quantiles":
        parts.append(_take(own, "residual_HQ", n_said, len(manifest.levels)))
    if manifest.has_position:
        row = _take(own, "position_head.weight", 1, width)
        parts += [_take(own, "position_head.bias", 1) + row @ shift_out, row]
    return [part.ravel() for part in parts]
