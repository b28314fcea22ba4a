"""The network: a streaming LSTM from features to quantiles that cannot cross."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lstm_strategy.hyperparameters import NetworkConfig

__all__ = ["StreamingLSTM"]

_CLIP = 8.0  # standardised features beyond this many deviations say no more


class StreamingLSTM(nn.Module):
    """Standardise, project, LSTM, quantile head; hidden state in and out, so that any split of time is the same.

    Parameters
    ----------
    config : NetworkConfig
    feature_mean, feature_std : float32 [F]
        Of the training span; they travel in the weights.
    start_HQ : float32 [H, Q]
        Quantiles that an untrained network forecasts, rising along Q.
    """

    feature_mean: Tensor
    feature_std: Tensor
    spread_GQ: Tensor

    def __init__(self, config: NetworkConfig, feature_mean: Tensor, feature_std: Tensor, start_HQ: Tensor) -> None:
        super().__init__()
        self.config = config
        n_horizons, n_levels = start_HQ.shape
        self.middle = n_levels // 2
        self.register_buffer("feature_mean", feature_mean.float())
        self.register_buffer("feature_std", feature_std.float())
        # Gap g between levels g and g + 1 lifts all levels above it where it lies above the middle, and lowers all
        # levels below it where it lies below: q = middle + gaps @ spread.
        gap, level = torch.arange(n_levels - 1)[:, None], torch.arange(n_levels)[None, :]
        above, below = (gap >= self.middle) & (level > gap), (gap < self.middle) & (level <= gap)
        self.register_buffer("spread_GQ", above.float() - below.float(), persistent=False)

        self.project = nn.Linear(len(feature_mean), config.hidden)
        between = config.dropout if config.layers > 1 else 0.0
        self.lstm = nn.LSTM(config.hidden, config.hidden, config.layers, dropout=between)
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(config.hidden, n_horizons * n_levels)
        self._start_at(start_HQ)

    def _start_at(self, start_HQ: Tensor) -> None:
        gaps = start_HQ.diff(dim=-1).clamp_min(1e-3)
        bias = torch.cat([start_HQ[:, self.middle : self.middle + 1], gaps + torch.log(-torch.expm1(-gaps))], dim=-1)
        with torch.no_grad():
            self.head.weight.mul_(0.1)
            self.head.bias.copy_(bias.flatten())

    def initial_state(self, batch: int) -> tuple[Tensor, Tensor]:
        """Return (h, c), each float32 [layers, B, hidden], at rest."""
        shape = (self.config.layers, batch, self.config.hidden)
        # Two tensors, never one twice: the exporter would take h and c for the same input.
        return self.feature_mean.new_zeros(shape), self.feature_mean.new_zeros(shape)

    def forward(self, x_TBF: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return (quantiles [T, B, H * Q] in units of σ√h, h, c)."""
        z = ((x_TBF - self.feature_mean) / self.feature_std).clamp(-_CLIP, _CLIP)
        z = torch.tanh(self.project(z))
        z, (h, c) = self.lstm(self.dropout(z), (h, c))
        raw = self.head(self.dropout(z)).unflatten(-1, (-1, self.spread_GQ.shape[1]))
        gaps = nn.functional.softplus(raw[..., 1:])
        return (raw[..., :1] + gaps @ self.spread_GQ).flatten(-2), h, c
