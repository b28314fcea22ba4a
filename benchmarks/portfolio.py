"""Portfolio: one close of fifty names, observed, weighed and decided, beside the fifty milliseconds it may take."""

from __future__ import annotations

import time
from statistics import median
from typing import Literal

import numpy as np

from benchmarks.common import Figure, progress, report
from lstm_strategy.decision import Costs, LimitsConfig, PortfolioState, RiskState, Shrinkage, SizingConfig, Trained
from lstm_strategy.forecast import Forecast
from lstm_strategy.panel import Member, Panel
from lstm_strategy.portfolio import PortfolioConfig

__all__ = ["run"]

_NAMES, _HISTORY, _CLOSES, _BUDGET = 50, 400, 30, 50.0
_HOUR = 3_600_000_000_000
_LEVELS = (0.01, 0.1, 0.5, 0.9, 0.99)
_NORMAL = np.array([-2.326, -1.2816, 0.0, 1.2816, 2.326])
_METHODS: tuple[Literal["equal_risk", "hierarchical_risk_parity", "mean_cvar"], ...] = (
    "equal_risk",
    "hierarchical_risk_parity",
    "mean_cvar",
)


def run() -> list[Figure]:
    """Every close computes the proportions anew: `portfolio.every` would spare most of it."""
    progress("portfolio")
    return [_figure(method) for method in _METHODS]


def _figure(method: Literal["equal_risk", "hierarchical_risk_parity", "mean_cvar"]) -> Figure:
    rng = np.random.default_rng(0)
    common = rng.normal(size=(_HISTORY + _CLOSES, 3)) @ rng.normal(size=(3, _NAMES))
    moves = 0.005 * (0.5 * common + rng.normal(size=common.shape))
    closes = 100.0 * np.exp(np.cumsum(moves, axis=0))
    names = tuple(f"N{number:02d}.X" for number in range(_NAMES))
    limits = LimitsConfig(max_exposure=0.2, max_gross=1.0)
    panel = Panel(names, PortfolioConfig(method=method, span=240), SizingConfig(), limits, _HOUR)
    trained, risk = Trained({1: Shrinkage(0.3, 0.0, 0.001)}), RiskState.start(_HOUR, 1e5)
    taken = []
    for row, close_S in enumerate(closes):
        ts = (row + 1) * _HOUR
        scales = rng.uniform(0.005, 0.02, _NAMES)
        members = [
            Member(
                state=PortfolioState(ts, 1e5, 0.02, risk),
                trained=trained,
                bars_per_year=8760.0,
                costs=Costs(),
                forecast=Forecast(ts, (1,), _LEVELS, (_NORMAL * scale).astype(np.float32)[None], float(scale)),
            )
            for scale in scales
        ]
        began = time.perf_counter()
        panel.observe(ts, close_S)
        if row >= _HISTORY:
            panel.decide(members)
            if panel.fallback:
                raise RuntimeError(panel.fallback)
            taken.append((time.perf_counter() - began) * 1e3)
    value = median(taken[1:])  # the first one imports the solver
    return Figure(
        name=f"portfolio of {_NAMES} names, decided: {method.replace('_', ' ')}",
        value=value,
        unit="ms/close",
        rival="its own p90",
        rival_value=float(np.percentile(taken[1:], 90)),
        target=f"≤ {_BUDGET:.0f} ms",
        met=value <= _BUDGET,
    )


if __name__ == "__main__":
    report(run)
