"""Put forecasts where they land and count how often outcomes fell below each quantile."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lstm_strategy.bars import Float, Stamps
from lstm_strategy.measures import labels
from lstm_strategy.report.run_types import EquityCurve, RecordedForecasts

__all__ = ["Coverage", "Landed", "coverage_of", "intervals_of", "land"]


@dataclass(frozen=True, slots=True, eq=False)
class Landed:
    """Forecasts of one horizon as prices at the bars they speak of.

    ``made_at`` and ``lands_at`` int64 [N]; ``prices_NQ`` float64 [N, Q]; ``realised`` float64 [N], NaN where there is
    no outcome: the run ended before it, or bars are missing on the way.
    """

    horizon: int
    levels: tuple[float, ...]
    made_at: Stamps
    lands_at: Stamps
    prices_NQ: Float
    realised: Float


@dataclass(frozen=True, slots=True, eq=False)
class Coverage:
    """Share of ``n`` outcomes at or below each quantile: ``below`` float64 [Q]."""

    horizon: int
    levels: tuple[float, ...]
    below: Float
    n: int


def land(forecasts: RecordedForecasts, equity: EquityCurve, bar_ns: int, closed_ns: int = 0) -> Landed:
    """Place each forecast ``horizon`` bars after the close it was made at; one made outside the run is left out.

    What counts as an outcome is what `measures.labels` counts, so that the page agrees with the run's own scores.
    """
    row = np.minimum(np.searchsorted(equity.ts_close, forecasts.ts_close), len(equity.ts_close) - 1)
    known = (equity.ts_close[row] == forecasts.ts_close) & ~np.isnan(forecasts.quantiles_NQ[:, 0])
    row, horizon = row[known], forecasts.horizon
    unit = np.ones(len(equity.price))
    outcome = labels(equity.price, equity.ts_close, unit, horizon, bar_ns, closed_ns)[row]
    landing = np.minimum(row + horizon, len(equity.price) - 1)
    return Landed(
        horizon=horizon,
        levels=forecasts.levels,
        made_at=equity.ts_close[row],
        lands_at=equity.ts_close[row] + horizon * bar_ns,
        prices_NQ=equity.price[row, None] * np.exp(forecasts.quantiles_NQ[known].astype(np.float64)),
        realised=np.where(np.isnan(outcome), np.nan, equity.price[landing]),
    )


def coverage_of(landed: Landed) -> Coverage | None:
    """Count outcomes below each quantile; None where no forecast has an outcome."""
    known = ~np.isnan(landed.realised)
    if not known.any():
        return None
    below = (landed.realised[known, None] <= landed.prices_NQ[known]).mean(axis=0)
    return Coverage(landed.horizon, landed.levels, below, int(known.sum()))


def intervals_of(levels: tuple[float, ...]) -> list[tuple[int, int, int]]:
    """Return the central intervals as (percent, lower row, upper row), widest first."""
    rounded: npt.NDArray[np.float64] = np.round(np.array(levels), 6)
    found = []
    for low, level in enumerate(rounded):
        high = np.flatnonzero(rounded == round(1.0 - float(level), 6))
        if level < 0.5 and len(high):
            found.append((round(100 * (1.0 - 2.0 * float(level))), low, int(high[0])))
    return found
