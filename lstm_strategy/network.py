"""The network: an LSTM or a hybrid that streams from features to quantiles that cannot cross, and ensembles of it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lstm_strategy.hyperparameters import NetworkConfig
from lstm_strategy.network_parts import CausalConvolutions, WindowAttention

__all__ = ["SLICE", "Ensemble", "Streaming", "StreamingLSTM"]

_CLIP = 8.0  # standardised features beyond this many deviations say no more
SLICE = 256  # bars at once where attention looks from each to each


class Streaming(nn.Module):
    """What one network and an ensemble have in common: features in, quantiles out, the state in and out.

    ``says`` names what comes out before the state: the quantiles, and the position where one was learned.
    ``state_shapes`` names each part of the state with its (rows, width): [rows, B, width], zeros at rest.
    ``instruments`` are those that an embedding knows, in the order of their numbers.
    """

    config: NetworkConfig
    feature_mean: Tensor
    feature_std: Tensor
    state_shapes: dict[str, tuple[int, int]]
    instruments: tuple[str, ...]
    says: tuple[str, ...] = ("quantiles",)

    def initial_state(self, batch: int) -> tuple[Tensor, ...]:
        """Return the state at rest, such as (h, c), each float32 [layers, B, hidden]."""
        # Tensors of their own, never one twice: the exporter would take h and c for the same input.
        return tuple(self.feature_mean.new_zeros(rows, batch, width) for rows, width in self.state_shapes.values())

    def numbers_of(self, instrument_ids: list[str]) -> Tensor | None:
        """Return each instrument's number, int64 [B]; None where the network has no embedding."""
        if not self.config.embedding:
            return None
        return torch.tensor([self.instruments.index(name) for name in instrument_ids], device=self.feature_mean.device)


class StreamingLSTM(Streaming):
    """Standardise, project, LSTM, head; the state in and out, so that any split of time is the same.

    Parameters
    ----------
    config : NetworkConfig
    feature_mean, feature_std : float32 [F]
        Of the training span; they travel in the weights.
    start_HQ : float32 [H, Q]
        Quantiles that an untrained network forecasts, rising along Q.
    instruments : tuple of str
        Those of the panel, for an embedding.
    range_head : bool
        Whether a second head learns the next bar's range; no forecast uses it.
    position_head : bool
        Whether another says which part of a full position to hold, from −1 to 1.
    """

    spread_GQ: Tensor
    residual_HQ: Tensor

    def __init__(
        self,
        config: NetworkConfig,
        feature_mean: Tensor,
        feature_std: Tensor,
        start_HQ: Tensor,
        instruments: tuple[str, ...] = (),
        range_head: bool = False,
        position_head: bool = False,
    ) -> None:
        super().__init__()
        self.config, self.instruments = config, instruments
        n_horizons, n_levels = start_HQ.shape
        self.middle = n_levels // 2
        self.register_buffer("feature_mean", feature_mean.float().clone())
        self.register_buffer("feature_std", feature_std.float().clone())
        # Gap g between levels g and g + 1 lifts all levels above it where it lies above the middle, and lowers all
        # levels below it where it lies below: q = middle + gaps @ spread.
        gap, level = torch.arange(n_levels - 1)[:, None], torch.arange(n_levels)[None, :]
        above, below = (gap >= self.middle) & (level > gap), (gap < self.middle) & (level <= gap)
        self.register_buffer("spread_GQ", above.float() - below.float(), persistent=False)

        hidden = config.hidden
        self.project = nn.Linear(len(feature_mean), hidden)
        between = config.dropout if config.layers > 1 else 0.0
        self.lstm = nn.LSTM(hidden, hidden, config.layers, dropout=between)
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(hidden, n_horizons * (n_levels if config.head == "quantiles" else 1))
        self.state_shapes = {"h": (config.layers, hidden), "c": (config.layers, hidden)}
        if config.layer_norm:
            self.norm_in, self.norm_out = nn.LayerNorm(hidden), nn.LayerNorm(hidden)
        if config.embedding:
            self.instrument = nn.Embedding(max(1, len(instruments)), config.embedding)
            self.instrument_in = nn.Linear(config.embedding, hidden, bias=False)
            self.instrument_out = nn.Linear(config.embedding, hidden, bias=False)
            nn.init.normal_(self.instrument.weight, std=0.1)  # small: instruments begin much alike
        if config.kind == "cnn_lstm":
            self.convolutions = CausalConvolutions(hidden, config.kernel, config.convolutions)
            self.state_shapes["buffer"] = (config.convolutions * (config.kernel - 1), hidden)
        if config.kind == "attention_lstm":
            self.attention = WindowAttention(hidden, config.window)
            self.state_shapes["memory"] = (config.window - 1, hidden + 1)
        if range_head:
            self.range_head = nn.Linear(hidden, 1)
        if position_head:
            self.position_head, self.says = nn.Linear(hidden, 1), ("quantiles", "position")
        self._start_at(start_HQ)

    def _start_at(self, start_HQ: Tensor) -> None:
        middle_H1 = start_HQ[:, self.middle : self.middle + 1]
        if self.config.head == "quantiles":
            gaps = start_HQ.diff(dim=-1).clamp_min(1e-3)
            bias = torch.cat([middle_H1, gaps + torch.log(-torch.expm1(-gaps))], dim=-1)
        else:
            bias = middle_H1
            self.register_buffer("residual_HQ", start_HQ - middle_H1)
        with torch.no_grad():
            self.head.weight.mul_(0.1)
            self.head.bias.copy_(bias.flatten())

    def standardise(self, x_TBF: Tensor) -> Tensor:
        """Return the features in deviations of the training span, clipped."""
        return ((x_TBF - self.feature_mean) / self.feature_std).clamp(-_CLIP, _CLIP)

    def hidden(self, z_TBF: Tensor, state: tuple[Tensor, ...], instrument_B: Tensor | None) -> tuple[Tensor, ...]:
        """Return (what the heads read of standardised features [T, B, hidden], state)."""
        h, c, *rest = state
        z = self.project(z_TBF)
        known = None if instrument_B is None else self.instrument(instrument_B)
        if known is not None:
            z = z + self.instrument_in(known)
        if self.config.layer_norm:
            z = self.norm_in(z)
        z = torch.tanh(z)
        if self.config.kind == "cnn_lstm":
            z, *rest = self.convolutions(z, *rest)
        z, (h, c) = self.lstm(self.dropout(z), (h, c))
        if self.config.layer_norm:
            z = self.norm_out(z)
        if self.config.kind == "attention_lstm":
            z, *rest = self.attention(z, *rest)
        if known is not None:
            z = z + self.instrument_out(known)
        return self.dropout(z), h, c, *rest

    def raw(self, z_TBF: Tensor, state: tuple[Tensor, ...], instrument_B: Tensor | None) -> tuple[Tensor, ...]:
        """Return (what the head says of standardised features [T, B, H * (Q or 1)], position [T, B, 1], state)."""
        z, *after = self.hidden(z_TBF, state, instrument_B)
        return self.head(z), *self._position(z), *after

    def _position(self, z: Tensor) -> tuple[Tensor, ...]:
        return (torch.tanh(self.position_head(z)),) if "position" in self.says else ()

    def tasks(self, x_TBF: Tensor, *state: Tensor, instrument_B: Tensor | None = None) -> tuple[Tensor, ...]:
        """Return all that training looks at: quantiles [T, B, H * Q]; the next bar's log range, standardised, and the
        position, each [T, B], or empty where it is not learned."""
        z, *_ = self.hidden(self.standardise(x_TBF), state, instrument_B)
        ranges = self.range_head(z)[..., 0] if hasattr(self, "range_head") else z.new_empty(0)
        position = self._position(z)
        return self.quantiles(self.head(z)), ranges, position[0][..., 0] if position else z.new_empty(0)

    def quantiles(self, raw: Tensor) -> Tensor:
        """Return quantiles [..., H * Q] of what the head said: levels in order, whatever it was."""
        if self.config.head != "quantiles":
            return (raw[..., None] + self.residual_HQ).flatten(-2)
        raw = raw.unflatten(-1, (-1, self.spread_GQ.shape[1]))  # type: ignore[no-untyped-call]
        gaps = nn.functional.softplus(raw[..., 1:])
        return (raw[..., :1] + gaps @ self.spread_GQ).flatten(-2)

    def forward(self, x_TBF: Tensor, *state: Tensor, instrument_B: Tensor | None = None) -> tuple[Tensor, ...]:
        """Return (quantiles [T, B, H * Q] in units of σ√h, position [T, B, 1] if any, state).

        For a point head the quantiles have the same distance at every bar.
        """
        raw, *others = self.raw(self.standardise(x_TBF), state, instrument_B)
        return self.quantiles(raw), *others


class Ensemble(Streaming):
    """Networks of one shape beside each other; the means of what they say, their states one below the other."""

    members: Sequence[StreamingLSTM]

    def __init__(self, members: list[StreamingLSTM]) -> None:
        super().__init__()
        first = members[0]
        self.members = nn.ModuleList(members)  # type: ignore[assignment]
        self.config, self.instruments, self.says = first.config, first.instruments, first.says
        self.register_buffer("feature_mean", first.feature_mean, persistent=False)  # all learned from the same span
        self.register_buffer("feature_std", first.feature_std, persistent=False)
        self.state_shapes = {name: (len(members) * rows, width) for name, (rows, width) in first.state_shapes.items()}

    def forward(self, x_TBF: Tensor, *state: Tensor, instrument_B: Tensor | None = None) -> tuple[Tensor, ...]:
        """Return as one network does; each member's levels are put in order before the mean is taken."""
        first = self.members[0]
        z_TBF = first.standardise(x_TBF)
        parts = zip(*(part.chunk(len(self.members)) for part in state), strict=True)
        found = [member.raw(z_TBF, own, instrument_B) for member, own in zip(self.members, parts, strict=True)]
        raw, *others = zip(*found, strict=True)
        quantiles = first.quantiles(torch.stack(raw)).mean(dim=0)
        n_means = len(self.says) - 1
        means = (torch.stack(part).mean(dim=0) for part in others[:n_means])
        return quantiles, *means, *(torch.cat(part) for part in others[n_means:])
