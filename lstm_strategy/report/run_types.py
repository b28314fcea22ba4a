"""What a run folder holds, as arrays and structs: the summary, curves by bar, decisions, forecasts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from lstm_strategy.bars import NS_PER_YEAR, Float, Stamps
from lstm_strategy.forecast import Float32
from lstm_strategy.report.summary_types import Capacity, Carry, Companion, HaltTold, Luck, Part, Sensitivity

__all__ = ["BuyAndHold", "DecisionLog", "EquityCurve", "ReasonShares", "RecordedForecasts", "Run", "Summary"]


class BuyAndHold(msgspec.Struct, frozen=True):
    """What holding the instrument over the same bars would have brought. Fractions, as in `Summary`."""

    net_return: float | None
    sharpe: float | None
    max_drawdown: float | None


class Summary(msgspec.Struct, frozen=True):
    """``summary.json``. Returns, drawdown and coverage are fractions; null where a figure is not defined."""

    bars: int
    orders: int
    decisions: int
    days_halted: int
    fees: float
    seconds: float
    net_return: float | None
    sharpe: float | None
    max_drawdown: float | None
    pinball: float | None
    pinball_baseline: float | None
    coverage_80: float | None
    coverage_98: float | None
    buy_and_hold: BuyAndHold
    name: str | None = None
    instrument: str | None = None
    timeframe: str | None = None
    closed_hours: float = 0.0
    model: str | None = None
    model_version: str | int | None = None
    currency: str | None = None
    notes: tuple[str, ...] = ()
    overfitting: Luck | None = None
    beside: tuple[Companion, ...] = ()
    sensitivity: Sensitivity | None = None
    turnover: float | None = None
    capacity: tuple[Capacity, ...] = ()
    carry: Carry = Carry()
    halts: tuple[HaltTold, ...] = ()
    halts_ordered: tuple[str, ...] = ()
    instruments: tuple[Part, ...] = ()
    method: str | None = None
    margin: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class EquityCurve:
    """One row a bar: stamps int64 [T] in ns, the rest float64 [T]; equity is marked to market, net of costs."""

    ts_close: Stamps
    equity: Float
    exposure: Float
    price: Float
    buy_and_hold: Float

    @property
    def years(self) -> float:
        """Time from the first bar to the last, in years of 365 days."""
        return float(self.ts_close[-1] - self.ts_close[0]) / NS_PER_YEAR


@dataclass(frozen=True, slots=True, eq=False)
class DecisionLog:
    """One row a decision [D]; quantity is signed, 0 where no order followed at once.

    ``ordered`` says whether one followed: at once, or when an exit that rested had been taken off for it.
    """

    ts_close: Stamps
    target: Float
    exposure: Float
    quantity: Float
    price: Float
    ordered: npt.NDArray[np.bool_]
    reasons: dict[str, int]
    bounds: dict[str, int]
    actions: dict[str, int]

    def __len__(self) -> int:
        return len(self.ts_close)


@dataclass(frozen=True, slots=True, eq=False)
class ReasonShares:
    """Share of the decisions by reason [P] in periods of a ``unit`` (day, week, month), from ``starts`` to ``ends``."""

    unit: str
    starts: Stamps
    ends: Stamps
    by_reason: dict[str, Float]


@dataclass(frozen=True, slots=True, eq=False)
class RecordedForecasts:
    """The forecasts of one horizon [N]: quantiles of the log return from ``ts_close`` to ``horizon`` bars later."""

    horizon: int
    levels: tuple[float, ...]
    ts_close: Stamps
    quantiles_NQ: Float32


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """Everything the page shows. ``forecasts`` is ordered by horizon, empty where the model never spoke.

    ``beside`` are the equity curves [T] of the rules run beside the strategy, by name. Of several instruments on one
    account ``equity`` is the account's and ``markets`` what each was held at and cost, by name; ``decisions`` and
    ``forecasts`` are those of ``instrument``, ``everyone`` the decisions of all names, as ``reasons`` are by time (None
    where there is no decision).
    """

    folder: Path
    summary: Summary
    instrument: str
    instruments: int
    bar_ns: int
    equity: EquityCurve
    decisions: DecisionLog
    everyone: DecisionLog
    reasons: ReasonShares | None
    forecasts: tuple[RecordedForecasts, ...]
    tearsheet: bool
    beside: dict[str, Float]
    markets: dict[str, EquityCurve]

    @property
    def market(self) -> EquityCurve:
        """The curve whose price and exposure are those of ``instrument``."""
        return self.markets.get(self.instrument, self.equity)
