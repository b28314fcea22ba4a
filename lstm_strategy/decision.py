"""The decision: a pure function from forecast and portfolio to a target exposure with its reason."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

import msgspec

from lstm_strategy.bars import utc_day
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.forecast import Forecast

__all__ = [
    "HALTS",
    "Costs",
    "Decision",
    "LimitsConfig",
    "PortfolioState",
    "Reason",
    "RiskState",
    "Shrinkage",
    "SizingConfig",
    "advance",
    "decide",
    "resume",
]

_LEAST_CHANGE = 1e-4  # of equity; less than a basis point is no change


class Reason(StrEnum):
    """Why the target is what it is."""

    REBALANCE = "rebalance"
    WITHIN_BAND = "within_no_trade_band"
    AT_TARGET = "at_target"
    NO_FORECAST = "no_forecast"
    INVALID_FORECAST = "invalid_forecast"
    LIMIT_EXCEEDED = "limit_exceeded"
    HALT_DAILY_LOSS = "halt_daily_loss"
    HALT_DRAWDOWN = "halt_drawdown"
    HALT_NO_EQUITY = "halt_no_equity"


HALTS = frozenset({Reason.HALT_DAILY_LOSS, Reason.HALT_DRAWDOWN, Reason.HALT_NO_EQUITY})
"""The reasons that flatten whatever the forecast says, and before there is one."""


class SizingConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a forecast becomes an exposure.

    Both modes maximise w·μ − ½γσ²w², with μ and σ of one and the same horizon:

    - ``mean_variance``: μ is the shrunk forecast mean, 1/γ the ``kelly_fraction``.
    - ``volatility_target``: a long-run drift of ``reference_sharpe`` is believed in, ``tilt`` times the shrunk forecast
      mean is added to it, and γ = reference_sharpe / target_volatility, so that without a forecast mean the exposure is
      target_volatility / σ.

    Parameters
    ----------
    horizon : int
        Bars ahead; one of the model's horizons.
    target_volatility, volatility_floor : float
        Annualised (0.3 = 30 % a year). The floor bounds σ from below.
    holding_bars : int, optional
        Bars over which a change of exposure is expected to earn its utility gain, 1 to 1,000,000; the horizon where not
        given.
    no_trade_band : float
        A change is made where its utility gain exceeds this multiple of its cost. 0 trades always.
    without_forecast : str
        What happens to a position when there is no forecast (warm-up, or after a long gap).
    """

    mode: Literal["volatility_target", "mean_variance"] = "volatility_target"
    horizon: int = 1
    target_volatility: float = 0.3
    reference_sharpe: float = 1.0
    tilt: float = 1.0
    kelly_fraction: float = 0.25
    volatility_floor: float = 0.05
    holding_bars: int | None = None
    no_trade_band: float = 1.0
    without_forecast: Literal["flatten", "hold"] = "flatten"

    def __post_init__(self) -> None:
        for name in ("target_volatility", "reference_sharpe", "kelly_fraction", "volatility_floor"):
            _require(0.0 < getattr(self, name) < math.inf, f"sizing.{name}", getattr(self, name), "above 0")
        for name in ("tilt", "no_trade_band"):
            _require(0.0 <= getattr(self, name) < math.inf, f"sizing.{name}", getattr(self, name), "0 or above")
        _require(self.horizon >= 1, "sizing.horizon", self.horizon, "1 or above")
        if self.holding_bars is not None:
            _require(1 <= self.holding_bars <= 1_000_000, "sizing.holding_bars", self.holding_bars, "1 to 1000000")


class LimitsConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What no forecast may override. Exposures and losses are fractions of equity.

    Parameters
    ----------
    max_step : float
        Largest change of exposure in one decision; halts and limits flatten regardless.
    daily_loss : float
        Mark-to-market loss since 00:00 UTC, net of costs, at which the position is flattened until the next day.
    max_drawdown : float
        Fall from the peak of equity at which the position is flattened until somebody resumes.
    drift_tolerance : float
        Excess over ``max_exposure`` that price moves alone may cause before a reduction is forced.
    """

    side: Literal["long_only", "long_short"] = "long_only"
    max_exposure: float = 1.0
    max_step: float = 1.0
    daily_loss: float = 0.05
    max_drawdown: float = 0.3
    drift_tolerance: float = 0.02

    def __post_init__(self) -> None:
        for name in ("max_exposure", "max_step"):
            _require(0.0 < getattr(self, name) < math.inf, f"limits.{name}", getattr(self, name), "above 0")
        for name in ("daily_loss", "max_drawdown"):
            _require(0.0 < getattr(self, name) <= 1.0, f"limits.{name}", getattr(self, name), "above 0, at most 1")
        tolerance = self.drift_tolerance
        _require(0.0 <= tolerance < math.inf, "limits.drift_tolerance", tolerance, "0 or above")


class Costs(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Fractions of notional: fee a side, whole bid-ask spread, slippage a side."""

    fee: float = 0.001
    spread: float = 0.0
    slippage: float = 0.0

    def __post_init__(self) -> None:
        for name in ("fee", "spread", "slippage"):
            _require(
                -0.01 < getattr(self, name) < 1.0, f"costs.{name}", getattr(self, name), "a fraction such as 0.001"
            )

    @property
    def per_side(self) -> float:
        """Cost of trading one unit of exposure once."""
        return self.fee + self.spread / 2 + self.slippage


class Shrinkage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How much of a forecast mean is believed: E[r] = slope · (mean − centre), in units of σ√h.

    Fitted out of sample. ``centre`` is the mean's own average there, so that a drift is never taken for foresight;
    ``slope`` lies in [0, 1] and is 0 where its one-sided ``p`` is not significant.
    """

    slope: float = 0.0
    centre: float = 0.0
    p: float = 1.0


class RiskState(msgspec.Struct, frozen=True):
    """What the halts remember from bar to bar. Days are UTC; the bar that closes at 00:00 ends the day before."""

    day: int
    equity: float
    day_start_equity: float
    peak_equity: float
    daily_halt: bool = False
    drawdown_halt: bool = False

    @classmethod
    def start(cls, ts_close: int, equity: float) -> RiskState:
        """Begin with no loss behind."""
        return cls(utc_day(ts_close), equity, equity, equity)


@dataclass(frozen=True, slots=True)
class PortfolioState:
    """The account as a decision sees it.

    ``equity`` is marked to market, net of costs; ``exposure`` is the signed position value as a fraction of it.
    """

    ts_close: int
    equity: float
    exposure: float
    risk: RiskState


@dataclass(frozen=True, slots=True)
class Decision:
    """A target exposure (signed fraction of equity), why, and the limits that bound it.

    A target equal to ``exposure`` means: hold.
    """

    ts_close: int
    exposure: float
    target: float
    reason: Reason
    bound: tuple[str, ...] = ()


def advance(risk: RiskState, ts_close: int, equity: float, limits: LimitsConfig) -> RiskState:
    """Return the halts' state after a bar closed with this equity; an equity that is not finite tells them nothing."""
    if not math.isfinite(equity):
        return risk
    day = utc_day(ts_close)
    new_day = day != risk.day
    day_start = risk.equity if new_day else risk.day_start_equity
    peak = max(risk.peak_equity, equity)
    return RiskState(
        day=day,
        equity=equity,
        day_start_equity=day_start,
        peak_equity=peak,
        daily_halt=(risk.daily_halt and not new_day) or equity <= day_start * (1.0 - limits.daily_loss),
        drawdown_halt=risk.drawdown_halt or equity <= peak * (1.0 - limits.max_drawdown),
    )


def resume(risk: RiskState) -> RiskState:
    """Lift a latched drawdown halt: the peak starts anew at today's equity."""
    return msgspec.structs.replace(risk, peak_equity=risk.equity, drawdown_halt=False)


def decide(
    forecast: Forecast | None,
    state: PortfolioState,
    sizing: SizingConfig,
    limits: LimitsConfig,
    costs: Costs,
    *,
    shrinkage: Shrinkage,
    bars_per_year: float,
) -> Decision:
    """Return the target exposure for one instrument at one bar's close.

    Parameters
    ----------
    forecast : Forecast or None
        None while the model warms up.
    shrinkage : Shrinkage
        Of the forecast mean at the sizing horizon.
    bars_per_year : float
        Turns annual figures into the horizon's.

    Returns
    -------
    Decision
        Its target equals ``state.exposure`` where nothing should be done.
    """
    held = state.exposure

    def flat(reason: Reason) -> Decision:
        return Decision(state.ts_close, held, 0.0, reason, (reason.value,))

    if not (math.isfinite(state.equity) and state.equity > 0.0 and math.isfinite(held)):
        return flat(Reason.HALT_NO_EQUITY)
    if state.risk.drawdown_halt:
        return flat(Reason.HALT_DRAWDOWN)
    if state.risk.daily_halt:
        return flat(Reason.HALT_DAILY_LOSS)

    lowest = 0.0 if limits.side == "long_only" else -limits.max_exposure
    highest = limits.max_exposure
    slack = limits.drift_tolerance * limits.max_exposure
    # Prices carry a position over its cap, never through zero.
    exceeded = not (lowest - slack if lowest else 0.0) <= held <= highest + slack

    if forecast is None or not (
        math.isfinite(forecast.scale)
        and math.isfinite(mean := forecast.mean(sizing.horizon))
        and math.isfinite(std := forecast.std(sizing.horizon))
    ):
        reason = Reason.NO_FORECAST if forecast is None else Reason.INVALID_FORECAST
        kept = 0.0 if sizing.without_forecast == "flatten" else min(max(held, lowest), highest) if exceeded else held
        return Decision(state.ts_close, held, kept, reason)

    years = sizing.horizon / bars_per_year
    mean = shrinkage.slope * (mean - shrinkage.centre * forecast.scale * math.sqrt(sizing.horizon))
    std = max(std, sizing.volatility_floor * math.sqrt(years))
    drift, risk_aversion = mean, 1.0 / sizing.kelly_fraction
    if sizing.mode == "volatility_target":
        risk_aversion = sizing.reference_sharpe / sizing.target_volatility
        drift = sizing.reference_sharpe * std * math.sqrt(years) + sizing.tilt * drift
    curvature = risk_aversion * std * std

    bound = []
    wanted = drift / curvature
    target = min(max(wanted, lowest), highest)
    if target != wanted:
        bound.append("max_exposure" if target == highest or limits.side == "long_short" else "long_only")
    if exceeded:
        return Decision(state.ts_close, held, target, Reason.LIMIT_EXCEEDED, (*bound, "drift"))
    if abs(target - held) > limits.max_step:
        target = held + math.copysign(limits.max_step, target - held)
        bound.append("max_step")
    change = target - held
    if abs(change) < _LEAST_CHANGE:
        return Decision(state.ts_close, held, held, Reason.AT_TARGET, tuple(bound))

    # Utility gained over the expected holding period, against the cost of getting there.
    gain = change * drift - 0.5 * curvature * (target * target - held * held)
    periods = (sizing.holding_bars or sizing.horizon) / sizing.horizon
    if gain * periods <= sizing.no_trade_band * costs.per_side * abs(change) and sizing.no_trade_band > 0.0:
        return Decision(state.ts_close, held, held, Reason.WITHIN_BAND, tuple(bound))
    return Decision(state.ts_close, held, target, Reason.REBALANCE, tuple(bound))


def _require(fine: bool, name: str, value: float, allowed: str) -> None:
    if not fine:
        raise LSTMStrategyError(f"{name} is {value}; it must be {allowed}")
