"""Compiled arithmetic on one forecast's quantiles."""

from __future__ import annotations

import math
from typing import Any

from lstm_strategy.compiled import compiled

__all__ = ["calibrate", "moments"]


@compiled()
def moments(quantiles_HQ: Any, row: int, levels_Q: Any, weights_Q: Any) -> tuple[float, float]:
    """Return mean and standard deviation of one row's quantile function, as `mean_of` and `std_of` say.

    Parameters
    ----------
    quantiles_HQ : float array [H, Q]
    levels_Q, weights_Q : float64 [Q]
        The mean is weights · quantiles.
    """
    last = levels_Q.size - 1
    mean = 0.0
    for i in range(last + 1):
        mean += weights_Q[i] * quantiles_HQ[row, i]
    left = quantiles_HQ[row, 0] - mean
    second = levels_Q[0] * left * left
    for i in range(1, last + 1):
        right = quantiles_HQ[row, i] - mean
        second += (left * left + left * right + right * right) * (levels_Q[i] - levels_Q[i - 1]) / 3.0
        left = right
    second += (1.0 - levels_Q[last]) * left * left
    return mean, math.sqrt(second)


@compiled()
def calibrate(raw_NHQ: Any, shift_HQ: Any, scale_N: Any, root_H: Any, out_NHQ: Any) -> None:
    """Shift raw quantiles in units of σ√h, keep the levels in order, and give them the unit of log returns.

    Parameters
    ----------
    raw_NHQ, shift_HQ, out_NHQ : float32 [N, H, Q], [H, Q], [N, H, Q]
    scale_N, root_H : float64 [N], [H]
        σ, and √h.
    """
    n_rows, n_horizons, n_levels = raw_NHQ.shape
    for n in range(n_rows):
        for h in range(n_horizons):
            unit = scale_N[n] * root_H[h]
            highest = raw_NHQ[n, h, 0] + shift_HQ[h, 0]
            out_NHQ[n, h, 0] = highest * unit
            for q in range(1, n_levels):
                value = raw_NHQ[n, h, q] + shift_HQ[h, q]
                if not (highest >= value or math.isnan(highest)):  # NaN goes on
                    highest = value
                out_NHQ[n, h, q] = highest * unit
