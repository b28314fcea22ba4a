"""What stands before or behind the LSTM in a hybrid: causal convolutions, and attention over the last hidden states."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

__all__ = ["CausalConvolutions", "WindowAttention"]


class CausalConvolutions(nn.Module):
    """Residual convolutions over the present and the ``kernel - 1`` bars before it, one behind the other.

    The buffer [convolutions * (kernel - 1), B, D] holds the last inputs of each; zeros at rest.
    """

    def __init__(self, width: int, kernel: int, convolutions: int) -> None:
        super().__init__()
        self.before = kernel - 1
        self.taps = nn.ModuleList(nn.Linear(kernel * width, width) for _ in range(convolutions))

    def forward(self, z_TBD: Tensor, buffer: Tensor) -> tuple[Tensor, Tensor]:
        """Return (z [T, B, D], buffer)."""
        kept, length = [], z_TBD.shape[0]
        for taps, earlier in zip(self.taps, torch.split(buffer, self.before), strict=True):
            seen = torch.cat([earlier, z_TBD])
            kept.append(seen[-self.before :])
            shifted = [seen[tap : tap + length] for tap in range(self.before + 1)]  # the last is the present
            z_TBD = z_TBD + torch.tanh(taps(torch.cat(shifted, dim=-1)))
        return z_TBD, torch.cat(kept)


class WindowAttention(nn.Module):
    """Attention of each hidden state over itself and the ``window - 1`` before it: Luong et al. 2015, "general" score.

    A learned number for each age is added to the scores, since attention alone knows no order. The memory
    [window - 1, B, D + 1] holds the last hidden states, and in the last column whether a place is filled; zeros at
    rest, so that nothing is looked at which never was.
    """

    def __init__(self, width: int, window: int) -> None:
        super().__init__()
        self.window = window
        self.query = nn.Linear(width, width, bias=False)
        self.bias_W = nn.Parameter(torch.zeros(window))  # by place: the oldest first
        self.combine = nn.Linear(2 * width, width)

    def forward(self, z_TBD: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Return (z [T, B, D], memory); work and memory grow with T², so long histories come in slices."""
        seen = torch.cat([memory, torch.cat([z_TBD, torch.ones_like(z_TBD[..., :1])], dim=-1)])
        keys_BSD, filled_BS = seen[..., :-1].transpose(0, 1), seen[..., -1].transpose(0, 1)
        scores_BTS = self.query(z_TBD).transpose(0, 1) @ keys_BSD.transpose(1, 2) / math.sqrt(z_TBD.shape[-1])
        now, place = torch.arange(z_TBD.shape[0], device=seen.device), torch.arange(seen.shape[0], device=seen.device)
        place_TS = place[None, :] - now[:, None]  # in the window of each bar; the last place is the bar itself
        inside_TS = (place_TS >= 0) & (place_TS < self.window)
        scores_BTS = scores_BTS + self.bias_W[place_TS.clamp(0, self.window - 1)]
        open_BTS = inside_TS & (filled_BS[:, None, :] > 0.5)
        weights_BTS = torch.softmax(scores_BTS.masked_fill(~open_BTS, -math.inf), dim=-1)
        context_TBD = (weights_BTS @ keys_BSD).transpose(0, 1)
        return torch.tanh(self.combine(torch.cat([context_TBD, z_TBD], dim=-1))), seen[-(self.window - 1) :]
