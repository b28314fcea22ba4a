"""The direct objective: the Sharpe ratio of what positions earn after the cost of turning them over.

Lim, Zohren and Roberts, "Enhancing time series momentum strategies using deep neural networks", Journal of Financial
Data Science, 2019: positions scaled to one volatility, moments pooled over instruments and bars, costs in the loss.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lstm_strategy.network import Streaming

__all__ = ["STILL", "hold_nothing", "net_returns", "ratio", "sharpe"]

STILL = 0.1  # deviation, in units of σ a bar, at which a position counts half


def net_returns(position_T: Tensor, next_T: Tensor, scale_T: Tensor, cost: float) -> Tensor:
    """Return what positions earn from each bar's close to the next one's, NaN where that is not known.

    r_t = p_t (exp(σ_t y_t) − 1) / σ_t − cost · |p_t / σ_t − p_(t−1) / σ_(t−1)|, the return of an exposure of p_t / σ_t:
    one that would have a volatility of 1 a bar. The target volatility is a common factor, which no ratio sees.

    Parameters
    ----------
    position_T : float32 [T, ...]
        From −1 to 1, taken at each close.
    next_T, scale_T : float32 [T, ...]
        The next bar's log return in units of σ, and σ as known at the close.
    cost : float
        Of trading one unit of exposure. Before the first bar nothing was held.
    """
    exposure_T = position_T / scale_T
    before_T = torch.cat([torch.zeros_like(exposure_T[:1]), exposure_T[:-1]])
    earned_T = torch.expm1(torch.nan_to_num(next_T) * scale_T) * exposure_T
    net_T = earned_T - cost * (exposure_T - before_T).abs()
    return torch.where(torch.isnan(next_T), torch.nan, net_T)


def sharpe(net_N: Tensor) -> Tensor:
    """Return mean / (deviation + `STILL`) of a bar's net returns, over all that are known; 0 where none is.

    Without `STILL` the ratio would not see how large positions are: it makes what earns nothing small, so that holding
    none scores 0 and is better than to lose, and what earns large. A batch has moments of its own, so the mean of
    batches' ratios is not the ratio of all.
    """
    known = ~torch.isnan(net_N)
    count = known.sum().clamp_min(1)
    mean = torch.where(known, net_N, 0.0).sum() / count
    variance = torch.where(known, net_N - mean, 0.0).square().sum() / count
    return mean / (torch.sqrt(variance + 1e-12) + STILL)


def ratio(net_N: Tensor, bars_per_year: float) -> float:
    """Return the annualised Sharpe ratio of a bar's net returns, over all that are known; 0 where nothing was held."""
    known_N = net_N[~torch.isnan(net_N)].double()
    if len(known_N) < 2 or not (deviation := float(known_N.std())) > 1e-9:
        return 0.0
    return float(known_N.mean()) / deviation * math.sqrt(bars_per_year)


@torch.no_grad()
def hold_nothing(network: Streaming) -> None:
    """Make the position of a network, or of all members of an ensemble, 0 whatever they see."""
    for name, weight in network.named_parameters():
        if "position_head." in name:
            weight.zero_()
