"""Positions out of sample: what a network's own earned in a span, and whether they are to be believed."""

from __future__ import annotations

import numpy as np
import torch

from lstm_strategy.hyperparameters import Spans, TargetConfig, TrainConfig
from lstm_strategy.network import Streaming
from lstm_strategy.research.batches import sequences
from lstm_strategy.research.labels import Sample
from lstm_strategy.research.objective import hold_nothing, net_returns, ratio
from lstm_strategy.research.train import RUN_IN, stream

__all__ = ["judge_positions", "position_scores"]


def judge_positions(
    network: Streaming, samples: list[Sample], spans: Spans, target: TargetConfig, config: TrainConfig
) -> dict[str, float]:
    """Return how positions fared in the stop and the calibrate span; a network that loses in the latter holds none.

    The calibrate span chose nothing before, so what lost there after costs has shown no skill: the network's position
    becomes 0 for good, as a forecast mean without skill counts for nothing. ``position_believed`` says which (1 or 0);
    the other scores are those of the positions as they were learned.
    """
    scores: dict[str, float] = {}
    for span in ("stop", "calibrate"):
        scores |= position_scores(network, samples, spans, target, config, span)
    believed = scores["net_sharpe_calibrate"] > 0.0
    if not believed:
        hold_nothing(network)
    return scores | {"position_believed": float(believed)}


def position_scores(
    network: Streaming, samples: list[Sample], spans: Spans, target: TargetConfig, config: TrainConfig, span: str
) -> dict[str, float]:
    """Return annualised Sharpe ratios of the positions in a span after and before costs, and their mean size there."""
    found = sequences(samples, spans[span], target.horizons[-1], RUN_IN)
    held = [stream(network, sequence)[1] for sequence in found]
    rows = list(zip(held, found, strict=True))
    net, gross = (
        torch.cat([net_returns(position_T, own.next_T, own.scale_T, cost) for position_T, own in rows])
        for cost in (config.turnover_cost or 0.0, 0.0)
    )
    bars_per_year = float(np.mean([sample.fit.bars_per_year for sample in samples]))
    return {
        f"net_sharpe_{span}": ratio(net, bars_per_year),
        f"gross_sharpe_{span}": ratio(gross, bars_per_year),
        f"mean_position_{span}": float(torch.cat(held)[~torch.isnan(net)].abs().mean()),
    }
