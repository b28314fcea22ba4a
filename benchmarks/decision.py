"""Decision: the limits advanced and one target decided, per bar, beside the ten microseconds that they may take."""

from __future__ import annotations

import math
import time
from statistics import median

import numpy as np

from benchmarks.common import Figure, progress, report
from lstm_strategy.decision import (
    Costs,
    LimitsConfig,
    PortfolioState,
    RiskState,
    Seen,
    Shrinkage,
    SizingConfig,
    Trained,
    advance,
    decide,
)
from lstm_strategy.forecast import Forecast
from lstm_strategy.hyperparameters import LEVELS

__all__ = ["run"]

_BARS, _ROUNDS, _BUDGET = 20_000, 5, 10.0
_HOUR = 3_600_000_000_000
_HOURS_PER_YEAR = 8760.0
_HORIZONS = (1, 4, 24)
_TRAINED = Trained({horizon: Shrinkage(0.3, 0.01, 0.001) for horizon in _HORIZONS}, 2.5)
_ALL = LimitsConfig(
    side="long_short",
    max_gross=2.0,
    max_net=1.5,
    max_order_notional=50_000.0,
    orders_per_hour=4,
    orders_per_day=48,
    turnover_per_day=5.0,
    flip_hours=4.0,
    max_losses=5,
    max_volatility=2.0,
    price_fence=0.25,
    price_fence_scales=12.0,
    max_stale_bars=2,
    max_drawdown=1.0,
)
_TWO = LimitsConfig(max_drawdown=1.0)  # latched, it would measure the shortest way through
_CASES = (
    ("volatility target, default limits", SizingConfig(horizon=24), _TWO),
    ("volatility target, every limit", SizingConfig(horizon=24), _ALL),
    ("quantile rule, every limit", SizingConfig(mode="quantile", horizon=24, widest_interval=3.0), _ALL),
    ("three horizons combined, every limit", SizingConfig(mode="mean_variance", horizons=_HORIZONS), _ALL),
)


def run() -> list[Figure]:
    """The market falls and rises, the position follows its targets: every branch is taken in its share."""
    progress("decision")
    rng = np.random.default_rng(0)
    returns = rng.normal(0.0, 0.01, _BARS)
    prices = (1000.0 * np.exp(np.cumsum(returns))).tolist()
    scales = rng.uniform(0.005, 0.02, _BARS)
    spread = np.array([[-2.3, *np.linspace(-1.5, 1.5, len(LEVELS) - 2), 2.3]]) * np.sqrt(np.array(_HORIZONS))[:, None]
    forecasts = [
        Forecast(bar * _HOUR, _HORIZONS, LEVELS, (scale * (spread + rng.normal(0.0, 0.3))).astype(np.float32), scale)
        for bar, scale in enumerate(scales.tolist(), start=1)
    ]
    return [_figure(name, sizing, limits, forecasts, prices) for name, sizing, limits in _CASES]


def _figure(
    name: str, sizing: SizingConfig, limits: LimitsConfig, forecasts: list[Forecast], prices: list[float]
) -> Figure:
    costs = Costs(fee=0.0005, spread=0.0001)
    medians, nineties = [], []
    for _ in range(_ROUNDS):
        taken: list[int] = []
        risk, cash, position = RiskState.start(0, 100_000.0), 100_000.0, 0.0
        for forecast, price in zip(forecasts, prices, strict=True):
            equity = cash + position * price
            seen = Seen(position, price, forecast.scale, _HOUR)
            started = time.perf_counter_ns()
            risk = advance(risk, forecast.ts_close, equity, limits, seen)
            state = PortfolioState(forecast.ts_close, equity, position * price / equity, risk)
            decision = decide(forecast, state, sizing, limits, costs, trained=_TRAINED, bars_per_year=_HOURS_PER_YEAR)
            taken.append(time.perf_counter_ns() - started)
            wanted = decision.target * equity / price
            cash, position = cash - (wanted - position) * price, wanted
        medians.append(median(taken) / 1e3)
        nineties.append(float(np.percentile(taken, 99)) / 1e3)
    value = min(medians)
    return Figure(
        name=f"decide and limits, p50: {name}",
        value=value,
        unit="µs/bar",
        rival="its own p99",
        rival_value=min(nineties),
        target=f"≤ {_BUDGET:.0f} µs",
        met=math.isfinite(value) and value <= _BUDGET,
    )


if __name__ == "__main__":
    report(run)
