"""The network's step, its state kept between bars: an LSTM's compiled from its weights, any other's by its graph."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import onnxruntime as ort

from lstm_strategy.artefact import Artefact, ArtefactError
from lstm_strategy.errors import first_line_of
from lstm_strategy.forecast import Float32
from lstm_strategy.lstm_step import LSTMStep

__all__ = ["GraphStep", "NetworkStep", "open_network"]

_AGREEMENT = 1e-4  # of an LSTM's weights with its graph, in σ√h; 1e-6 in fact, and 1 where they are another network's
_TRIED = 16  # bars
_SLICE, _SLICE_OF_ATTENTION = 8192, 256  # bars at once, so that a long history needs no more memory than a short one


class NetworkStep(Protocol):
    """A network with its state."""

    has_position: bool

    @property
    def position(self) -> float:
        """What the last step said of it; NaN where the network says nothing."""

    def reset(self) -> None:
        """Begin from rest."""

    def step(self, x_F: Float32) -> Float32:
        """Take one bar's features; return the quantiles [..., H · Q], which the next step overwrites."""

    def run(self, x_TF: Float32, stepped: bool) -> tuple[Float32, Float32]:
        """Take many bars, one after the other where ``stepped``; return quantiles [T, H · Q] and positions [T]."""

    def state(self) -> bytes:
        """The hidden state."""

    def restore(self, state: bytes) -> None:
        """Take back what `state` gave."""


def open_network(artefact: Artefact, instrument_id: str) -> NetworkStep:
    """Return the step of an artefact's network for one of its instruments, after trying it: a right hash does not say
    that a graph can step.

    Raises
    ------
    ArtefactError
        Where it does not know the instrument; its graph does not step, says what its manifest does not, or no numbers;
        or its weights are another network's.
    """
    manifest, number, label = artefact.manifest, artefact.instrument_number(instrument_id), artefact.label
    mean_F, std_F = np.array([(row.mean, row.std) for row in manifest.feature_ranges]).T
    deviations = np.random.default_rng(0).standard_normal((_TRIED, len(mean_F)))
    x_TF = (mean_F + std_F * deviations).astype(np.float32)
    try:
        graph = GraphStep(artefact.graph, len(mean_F), number)
        graph.run(x_TF[:2], stepped=True)
        graph.reset()
        found, position_T = graph.run(x_TF, stepped=False)
    except Exception as error:  # onnxruntime has many
        raise ArtefactError(
            f"the graph of model {label} does not step: {type(error).__name__}: {first_line_of(error)}"
        ) from None
    n_horizons, n_levels = len(manifest.horizons), len(manifest.levels)
    problem = ""
    if graph.has_position != manifest.has_position:
        problem = f"says {'a' if graph.has_position else 'no'} position, and its manifest otherwise"
    elif found.shape[1] != n_horizons * n_levels:
        problem = f"says {found.shape[1]} quantiles, and its manifest {n_horizons} horizons by {n_levels} levels"
    elif not np.isfinite(found).all() or (graph.has_position and not np.isfinite(position_T).all()):
        problem = "forecasts no numbers"
    if problem:
        raise ArtefactError(f"the graph of model {label} {problem}")
    graph.reset()
    if manifest.network.kind != "lstm":
        return graph
    step = LSTMStep(artefact, number)
    told = zip(step.run(x_TF), (found, position_T), strict=True)
    if not all(np.allclose(ours, theirs, rtol=0.0, atol=_AGREEMENT, equal_nan=True) for ours, theirs in told):
        raise ArtefactError(f"the weights and the graph of model {label} are not of one network; train it again")
    step.reset()
    return step


class GraphStep:
    """A graph with its state: an input row, and two hidden states taking turns, bound once for copy-free steps.

    Parameters
    ----------
    graph : bytes
        An artefact's verified ONNX graph.
    instrument : int
        Its number in the graph's embedding, where it has one.

    Attributes
    ----------
    has_position : bool
        Whether the network says a position beside its quantiles.
    """

    def __init__(self, graph: bytes, n_features: int, instrument: int) -> None:
        session = _session(graph)
        shapes = {node.name: node.shape for node in session.get_inputs() + session.get_outputs()}
        self._session = session
        self._names = [node.name for node in session.get_inputs() if node.name not in ("x", "instrument")]
        self._slice = _SLICE_OF_ATTENTION if "memory" in self._names else _SLICE
        self._fixed = {"instrument": np.array([instrument], np.int64)} if "instrument" in shapes else {}
        self._x = np.zeros((1, 1, n_features), np.float32)
        self._q = np.zeros((1, 1, shapes["quantiles"][2]), np.float32)
        self.has_position = "position" in shapes
        self._p = np.full((1, 1, 1), np.nan, np.float32)
        self._states = [[np.zeros(shapes[name], np.float32) for name in self._names] for _ in range(2)]
        self._turn = 0
        self._bindings = [self._bind(self._states[turn], self._states[1 - turn]) for turn in range(2)]

    def _bind(self, before: list[Float32], after: list[Float32]) -> ort.IOBinding:
        binding = self._session.io_binding()
        given = {"x": self._x} | dict(zip(self._names, before, strict=True)) | self._fixed
        for name, array in given.items():
            binding.bind_input(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
        outputs = {"quantiles": self._q} | ({"position": self._p} if self.has_position else {})
        outputs |= {f"{n}_out": array for n, array in zip(self._names, after, strict=True)}
        for name, array in outputs.items():
            binding.bind_output(name, "cpu", 0, np.float32, array.shape, array.ctypes.data)
        return binding

    def reset(self) -> None:
        """Begin from rest."""
        for array in self._states[self._turn]:
            array[:] = 0.0

    def step(self, x_F: Float32) -> Float32:
        """Take one bar's features; return the quantiles [1, 1, H · Q], which the next step overwrites."""
        self._x[0, 0] = x_F
        self._session.run_with_iobinding(self._bindings[self._turn])
        self._turn = 1 - self._turn
        return self._q

    @property
    def position(self) -> float:
        """What the last step said of it; NaN where the network says nothing."""
        return self._p.item()

    def run(self, x_TF: Float32, stepped: bool) -> tuple[Float32, Float32]:
        """Take many bars, one after the other where ``stepped``; return quantiles [T, H · Q] and positions [T]."""
        found, position_T = np.empty((len(x_TF), self._q.size), np.float32), np.full(len(x_TF), np.nan, np.float32)
        if stepped:
            for row, x_F in enumerate(x_TF):
                found[row], position_T[row] = self.step(x_F)[0, 0], self._p[0, 0, 0]
            return found, position_T
        for at in range(0, len(x_TF), self._slice):
            state = self._states[self._turn]
            given = {"x": x_TF[at : at + self._slice, None]} | dict(zip(self._names, state, strict=True)) | self._fixed
            quantiles, *after = self._session.run(None, given)
            found[at : at + self._slice] = quantiles[:, 0]
            if self.has_position:
                position, *after = after
                position_T[at : at + self._slice] = position[:, 0, 0]
            for array, new in zip(state, after, strict=True):
                array[:] = new
        return found, position_T

    def state(self) -> bytes:
        """The hidden state."""
        return b"".join(array.tobytes() for array in self._states[self._turn])

    def restore(self, state: bytes) -> None:
        """Take back what `state` gave."""
        flat = np.frombuffer(state, np.float32)
        arrays = self._states[self._turn]
        ends = np.cumsum([array.size for array in arrays])[:-1]
        for array, part in zip(arrays, np.split(flat, ends), strict=True):
            array[:] = part.reshape(array.shape)


def _session(graph: bytes) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3
    return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
