"""Export: from a trained network to one streaming ONNX graph, proved to say what the network says."""

from __future__ import annotations

import logging
import math
import warnings

import numpy as np
import numpy.typing as npt
import torch

from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.network import Streaming

__all__ = ["export"]

_AGREEMENT = 1e-5  # ONNX Runtime against torch


def export(network: Streaming) -> bytes:
    """Return the streaming ONNX graph, after proving that it agrees with torch, whole and step by step.

    Its inputs are x, the instrument's number where there is an embedding, and each part of the state by its name; its
    outputs the quantiles, and each part of the state as ``<name>_out``.
    """
    network = network.eval()
    n_features = len(network.feature_mean)
    generator = torch.Generator().manual_seed(0)
    x = network.feature_mean + network.feature_std * torch.randn(64, 1, n_features, generator=generator)
    names, state = list(network.state_shapes), network.initial_state(1)
    number_B = network.numbers_of([*network.instruments[-1:]])
    numbers = {} if number_B is None else {"instrument_B": number_B}
    logger = logging.getLogger("torch.onnx")
    level, logger.level = logger.level, logging.ERROR
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                network,
                (x[:2], *state),
                kwargs=numbers,
                dynamo=True,
                verbose=False,
                input_names=["x", *names, *(["instrument"] if numbers else [])],
                output_names=["quantiles", *(f"{name}_out" for name in names)],
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
    graph: bytes = program.model_proto.SerializeToString()
    _require_agreement(network, graph, x)
    return graph


@torch.no_grad()
def _require_agreement(network: Streaming, graph: bytes, x_T1F: torch.Tensor) -> None:
    """Compare for every instrument that an embedding knows, from rest, at once and bar by bar."""
    import onnxruntime as ort

    session = ort.InferenceSession(graph, providers=["CPUExecutionProvider"])
    names, worst = list(network.state_shapes), 0.0
    for instrument_id in network.instruments if network.config.embedding else ("",):
        number_B = network.numbers_of([instrument_id])
        fixed = {} if number_B is None else {"instrument": number_B.numpy()}
        rest = network.initial_state(1)
        wanted = network(x_T1F, *rest, instrument_B=number_B)[0].numpy()
        state = dict(zip(names, map(_numpy, rest), strict=True))
        whole = session.run(["quantiles"], {"x": x_T1F.numpy()} | state | fixed)[0]
        steps = []
        for x in x_T1F.numpy():
            q, *after = session.run(None, {"x": x[None]} | state | fixed)
            state = dict(zip(names, after, strict=True))
            steps.append(q)
        gaps = [np.abs(wanted - found).max() for found in (whole, np.concatenate(steps))]
        worst = max(worst, *gaps) if np.isfinite(gaps).all() else math.inf
    if not worst <= _AGREEMENT:
        raise LSTMStrategyError(
            f"the exported graph differs from torch by {worst:.2g}, more than {_AGREEMENT}; not saved"
        )


def _numpy(tensor: torch.Tensor) -> npt.NDArray[np.float32]:
    return np.asarray(tensor.numpy())
