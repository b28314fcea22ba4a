"""Export: from a trained network to one streaming ONNX graph, proved to say what the network says."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch

from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.network import Streaming
from lstm_strategy.research.graph_template import GraphTemplate, NoTemplateError, make_template, shape_of

__all__ = ["export"]

_AGREEMENT = 1e-5  # ONNX Runtime against torch
_KEPT = 16  # templates in a process, the newest

_log = logging.getLogger(__name__)
_templates: dict[tuple[object, ...], GraphTemplate] = {}


def export(network: Streaming) -> bytes:
    """Return the streaming ONNX graph, after proving that it agrees with torch, whole and step by step.

    Its inputs are x, the instrument's number where there is an embedding, and each part of the state by its name; its
    outputs the quantiles, the position where one was learned, and each part of the state as ``<name>_out``. The same
    weights give the same bytes.

    torch's exporter takes a second, so it is asked once for each shape of network in a process; networks of the same
    shape have their weights put into that graph. Where that cannot be done, or does not stand the proof, a warning is
    logged and the network is exported by itself.

    Raises
    ------
    LSTMStrategyError
        Where the graph says something else than torch.
    """
    network = network.eval()
    shape = shape_of(network)
    try:
        template = _templates.pop(shape, None) or make_template(network, _exported)
        graph = template.fill(network)
        gap = _gap(network, graph)
        if gap <= _AGREEMENT:
            _templates[shape] = template  # the newest last
            for oldest in list(_templates)[:-_KEPT]:
                del _templates[oldest]
            return graph
        reason = f"filled in, the graph differs from torch by {gap:.2g}"
    except NoTemplateError as error:
        reason = str(error)
    _log.warning("the weights cannot be put into the graph of their shape (%s); exported by themselves", reason)
    graph = bytes(_exported(network).SerializeToString(deterministic=True))
    gap = _gap(network, graph)
    if not gap <= _AGREEMENT:
        raise LSTMStrategyError(
            f"the exported graph differs from torch by {gap:.2g}, more than {_AGREEMENT}; not saved"
        )
    return graph


@torch.no_grad()  # the same graph in half the time: no gradient of the LSTM's loop is traced
def _exported(network: Streaming) -> onnx.ModelProto:
    """Ask torch for the graph, and take from it what tells of this machine: the exporter notes its source lines."""
    names, state = list(network.state_shapes), network.initial_state(1)
    number_B = network.numbers_of([*network.instruments[-1:]])
    numbers = {} if number_B is None else {"instrument_B": number_B}
    x_TBF = network.feature_mean.new_zeros(2, 1, len(network.feature_mean))
    logger = logging.getLogger("torch.onnx")
    level, logger.level = logger.level, logging.ERROR
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                network,
                (x_TBF, *state),
                kwargs=numbers,
                dynamo=True,
                verbose=False,
                input_names=["x", *names, *(["instrument"] if numbers else [])],
                output_names=[*network.says, *(f"{name}_out" for name in names)],
                dynamic_shapes={
                    "x_TBF": {0: torch.export.Dim("T", min=1)},
                    "state": tuple({} for _ in state),  # all fixed
                    **{name: {} for name in numbers},
                },
            )
    finally:
        logger.level = level
    if program is None:
        raise LSTMStrategyError("torch.onnx made no graph of the network; check the installed torch and onnxscript")
    model: onnx.ModelProto = program.model_proto
    for part in _parts(model):
        del part.metadata_props[:]
        part.doc_string = ""
    return model


def _parts(model: onnx.ModelProto) -> Iterator[Any]:
    """Everything in a graph that may carry remarks."""
    graph = model.graph
    yield from (model, graph, *graph.node, *graph.initializer, *graph.input, *graph.output, *graph.value_info)


@torch.no_grad()
def _gap(network: Streaming, graph: bytes) -> float:
    """Return the largest difference for every instrument that an embedding knows, from rest, at once and bar by bar."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    generator = torch.Generator().manual_seed(0)
    deviations = torch.randn(64, 1, len(network.feature_mean), generator=generator)
    x_T1F = network.feature_mean + network.feature_std * deviations
    names, says, worst = list(network.state_shapes), list(network.says), 0.0
    for instrument_id in network.instruments if network.config.embedding else ("",):
        number_B = network.numbers_of([instrument_id])
        fixed = {} if number_B is None else {"instrument": number_B.numpy()}
        rest = network.initial_state(1)
        wanted = torch.cat(network(x_T1F, *rest, instrument_B=number_B)[: len(says)], dim=-1).numpy()
        state = dict(zip(names, map(_numpy, rest), strict=True))
        whole = np.concatenate(session.run(says, {"x": x_T1F.numpy()} | state | fixed), axis=-1)
        steps = []
        for x in x_T1F.numpy():
            found = session.run(None, {"x": x[None]} | state | fixed)
            state = dict(zip(names, found[len(says) :], strict=True))
            steps.append(np.concatenate(found[: len(says)], axis=-1))
        gaps = [np.abs(wanted - told).max() for told in (whole, np.concatenate(steps))]
        worst = max(worst, *gaps) if np.isfinite(gaps).all() else math.inf
    return worst


def _numpy(tensor: torch.Tensor) -> npt.NDArray[np.float32]:
    return np.asarray(tensor.numpy())
