"""What a run leaves behind, bar by bar: decisions, mark-to-market equity, forecasts, refusals."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from lstm_strategy.bars import Stamps
from lstm_strategy.decision import Decision
from lstm_strategy.forecast import Forecast, Forecasts
from lstm_strategy.nautilus.orders import Action

__all__ = ["RunRecord"]

_STAMP = pa.timestamp("ns", "UTC")


@dataclass(slots=True)
class RunRecord:
    """Grows by one row a bar; nothing is written before the run has ended."""

    instrument_id: str
    decisions: list[Decision] = field(default_factory=list)
    actions: list[Action] = field(default_factory=list)
    quantities: list[float] = field(default_factory=list)
    prices: list[float] = field(default_factory=list)
    equities: list[float] = field(default_factory=list)
    forecasts: list[Forecast | None] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)

    def add(
        self,
        decision: Decision,
        forecast: Forecast | None,
        action: Action,
        quantity: float,
        price: float,
        equity: float,
    ) -> None:
        """Keep one bar's decision and what came of it; a second look at the last bar counts, unless one was sent."""
        if self.decisions and self.decisions[-1].ts_close == decision.ts_close:
            if self.quantities[-1]:
                return
            for column in self._columns:
                column.pop()
        self.decisions.append(decision)
        self.actions.append(action)
        self.quantities.append(quantity)
        self.prices.append(price)
        self.equities.append(equity)
        self.forecasts.append(forecast)

    @property
    def _columns(self) -> tuple[list[Any], ...]:
        return (
            self.decisions,
            self.actions,
            self.quantities,
            self.prices,
            self.equities,
            self.forecasts,
        )

    def __len__(self) -> int:
        return len(self.decisions)

    @property
    def ts_close(self) -> Stamps:
        """Stamps of all decided bars, int64 [T]."""
        return np.array([decision.ts_close for decision in self.decisions], np.int64)

    def decisions_table(self) -> pa.Table:
        """Return one row per bar: the decision, what was done about it, and the account it saw."""
        return pa.table(
            {
                "ts_close": pa.array(self.ts_close, _STAMP),
                "instrument": pa.array([self.instrument_id] * len(self), pa.string()),
                "target": pa.array([decision.target for decision in self.decisions], pa.float64()),
                "exposure": pa.array([decision.exposure for decision in self.decisions], pa.float64()),
                "reason": pa.array([decision.reason.value for decision in self.decisions], pa.string()),
                "bound": pa.array([list(decision.bound) for decision in self.decisions], pa.list_(pa.string())),
                "action": pa.array([action.value for action in self.actions], pa.string()),
                "quantity": pa.array(self.quantities, pa.float64()),
                "price": pa.array(self.prices, pa.float64()),
                "equity": pa.array(self.equities, pa.float64()),
            }
        )

    def equity_table(self, starting_cash: float, cost_per_side: float) -> pa.Table:
        """Return mark-to-market equity by bar close, beside the same cash in the instrument from the first close on."""
        prices = np.array(self.prices)
        shares = starting_cash / (prices[0] * (1.0 + cost_per_side)) if len(self) else 0.0
        return pa.table(
            {
                "ts_close": pa.array(self.ts_close, _STAMP),
                "equity": pa.array(self.equities, pa.float64()),
                "exposure": pa.array([decision.exposure for decision in self.decisions], pa.float64()),
                "price": pa.array(prices, pa.float64()),
                "buy_and_hold": pa.array(shares * prices, pa.float64()),
            }
        )

    def to_forecasts(self, horizons: tuple[int, ...], levels: tuple[float, ...]) -> Forecasts:
        """Return the forecasts as arrays, NaN where there was none."""
        shape = (len(horizons), len(levels))
        missing = np.full(shape, np.nan, np.float32)
        quantiles = [missing if forecast is None else forecast.quantiles_HQ for forecast in self.forecasts]
        scales = [np.nan if forecast is None else forecast.scale for forecast in self.forecasts]
        return Forecasts(
            self.instrument_id,
            horizons,
            levels,
            self.ts_close,
            np.array(quantiles, np.float32).reshape(-1, *shape),
            np.array(scales, np.float64),
        )
