"""Losses: what training minimises and the stop span is judged by; NaN labels say nothing."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.hyperparameters import NetworkConfig, TargetConfig
from lstm_strategy.research.batches import Sequence

__all__ = ["Loss", "constant_quantiles", "label_quantiles", "loss_of", "pinball", "range_loss"]

type Loss = Callable[[Tensor, Tensor], Tensor]


def pinball(q_NHQ: Tensor, y_NH: Tensor, levels_Q: Tensor) -> Tensor:
    """Mean pinball loss over levels and all labels that are not NaN."""
    error = y_NH[..., None] - q_NHQ
    loss = torch.maximum(levels_Q * error, (levels_Q - 1.0) * error).mean(dim=-1)
    known = ~torch.isnan(y_NH)
    return torch.where(known, loss, 0.0).sum() / known.sum().clamp_min(1)


def constant_quantiles(found: list[Sequence], levels: tuple[float, ...]) -> Tensor:
    """Empirical quantiles [H, Q] of all labels: what a forecaster without features would say."""
    return label_quantiles(torch.cat([sequence.y_TH for sequence in found]), levels)


def label_quantiles(labels_NH: Tensor, levels: tuple[float, ...]) -> Tensor:
    """Empirical quantiles [H, Q] of labels [N, H], each horizon by itself; NaN is no label."""
    y_NH = labels_NH.numpy()
    if np.isnan(y_NH).all(axis=0).any():
        raise LSTMStrategyError("the fit span holds no label for a horizon; move split.fit_end or shorten the horizon")
    return torch.from_numpy(np.nanquantile(y_NH, levels, axis=0).T.astype(np.float32))


def loss_of(network_config: NetworkConfig, target: TargetConfig) -> Loss:
    """Return what training minimises and the stop span is judged by."""
    levels_Q, middle = torch.tensor(target.levels), len(target.levels) // 2

    def loss(q_NHQ: Tensor, y_NH: Tensor) -> Tensor:
        if network_config.head == "quantiles":
            return pinball(q_NHQ, y_NH, levels_Q.to(q_NHQ.device))
        known = ~torch.isnan(y_NH)
        error = torch.where(known, y_NH, 0.0) - q_NHQ[..., middle]  # the residual there is zero while it learns
        each = error.abs() if network_config.head == "mae" else error.square()
        return torch.where(known, each, 0.0).sum() / known.sum().clamp_min(1)

    return loss


def range_loss(fit: list[Sequence]) -> Loss:
    """Return the squared error of a standardised log range against the label, by mean and variance of the fit span."""
    known_N = torch.cat([sequence.range_T for sequence in fit])
    known_N = known_N[~torch.isnan(known_N)]
    if len(known_N) < 2 or not (deviation := known_N.std()) > 0:
        raise LSTMStrategyError("train.range_weight is above 0, but no bar of the fit span has a range; make it 0")
    mean = known_N.mean()

    def loss(found_N: Tensor, range_N: Tensor) -> Tensor:
        known = ~torch.isnan(range_N)
        error = (torch.where(known, range_N, mean) - mean) / deviation - found_N
        return torch.where(known, error.square(), 0.0).sum() / known.sum().clamp_min(1)

    return loss
