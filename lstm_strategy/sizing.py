"""Sizing: from one forecast to the exposure it is worth, before any limit; pure."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import msgspec

from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.forecast import Forecast

__all__ = ["Belief", "Costs", "Shrinkage", "Sized", "SizingConfig", "Trained", "believed", "require", "size"]


class Costs(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Fractions of notional: fee a side, whole bid-ask spread, slippage a side."""

    fee: float = 0.001
    spread: float = 0.0
    slippage: float = 0.0

    def __post_init__(self) -> None:
        for name in ("fee", "spread", "slippage"):
            require(-0.01 < getattr(self, name) < 1.0, f"costs.{name}", getattr(self, name), "a fraction such as 0.001")

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


class Trained(msgspec.Struct, frozen=True):
    """What training knows of a model's horizons.

    Parameters
    ----------
    shrinkage : dict of Shrinkage
        By horizon.
    width : float
        Of ``sizing.interval`` at ``sizing.horizon`` over the training span, in units of σ√h; NaN where it is not known,
        and then no interval is narrow enough.
    """

    shrinkage: dict[int, Shrinkage]
    width: float = math.nan


class SizingConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a forecast becomes an exposure.

    A forecast mean is earned once, over its own horizon h, however long a position is held: of ``holding_bars`` n it
    counts as h / max(h, n) a horizon. Drift and risk go on as long as the position does.

    Two modes maximise w·μ − ½γσ²w², with μ and σ of one and the same horizon:

    - ``mean_variance``: μ is the shrunk forecast mean, 1/γ the ``kelly_fraction``.
    - ``volatility_target``: a long-run drift of ``reference_sharpe`` is believed in, ``tilt`` times the shrunk forecast
      mean is added to it, and γ = reference_sharpe / target_volatility, so that without a forecast mean the exposure is
      target_volatility / σ.

    Two hold ``fraction`` of the equity on the side of the shrunk mean, and nothing where it is 0:

    - ``fixed_fraction``: whenever there is a side.
    - ``quantile``: a position is opened only where ``interval``, moved so that its mean is the shrunk one, lies wholly
      beyond the cost of a round trip; it is kept as long as the shrunk mean is on its side.

    One asks the network itself, of a model trained with ``train.objective = "sharpe"``:

    - ``network``: the exposure is the forecast's position times target_volatility / σ, σ the causal scale, as in
      training. What turning it over costs was weighed there, so no utility is: changes of ``least_change`` are made.

    Parameters
    ----------
    horizon : int
        Bars ahead; one of the model's horizons.
    horizons : tuple of int
        Horizons whose shrunk means are combined, ``horizon`` among them; it alone where empty. The annualised means
        m_h = μ_h / years_h are averaged with weights 1 / Var(m_h) = years_h² / σ_h² (inverse variance, overlap not
        counted), and the average is brought back to ``horizon``. Of a longer holding time each has its own share.
    target_volatility, volatility_floor : float
        Annualised (0.3 = 30 % a year). The floor bounds σ from below.
    fraction : float
        Exposure of the modes ``fixed_fraction`` and ``quantile``.
    interval : float
        Central probability of the interval that ``quantile`` and ``widest_interval`` look at.
    widest_interval : float, optional
        No increase while the interval is wider than this many times ``width_unit``.
    width_unit : str
        ``trained``: the interval's width over the training span, in units of σ√h; ``scale``: σ√h itself.
    holding_bars : int, optional
        Bars over which a change of exposure is expected to earn its utility gain, 1 to 1,000,000; the horizon where not
        given.
    no_trade_band : float
        A change is made where its utility gain exceeds this multiple of its cost. 0 trades always.
    least_change : float
        Of equity; smaller changes are not made in the mode ``network``, unless to hold nothing.
    without_forecast : str
        What happens to a position when there is no forecast (warm-up, or after a long gap).
    """

    mode: Literal["volatility_target", "mean_variance", "fixed_fraction", "quantile", "network"] = "volatility_target"
    horizon: int = 1
    horizons: tuple[int, ...] = ()
    target_volatility: float = 0.3
    reference_sharpe: float = 1.0
    tilt: float = 1.0
    kelly_fraction: float = 0.25
    volatility_floor: float = 0.05
    fraction: float = 0.5
    interval: float = 0.8
    widest_interval: float | None = None
    width_unit: Literal["trained", "scale"] = "trained"
    holding_bars: int | None = None
    no_trade_band: float = 1.0
    least_change: float = 0.05
    without_forecast: Literal["flatten", "hold"] = "flatten"

    def __post_init__(self) -> None:
        for name in ("target_volatility", "reference_sharpe", "kelly_fraction", "volatility_floor"):
            # Their ratios and squares stay far from the ends of a double.
            require(1e-6 <= getattr(self, name) <= 1e6, f"sizing.{name}", getattr(self, name), "1e-6 to 1e6")
        require(0.0 < self.fraction < math.inf, "sizing.fraction", self.fraction, "above 0")
        for name in ("tilt", "no_trade_band", "least_change"):
            require(0.0 <= getattr(self, name) <= 1e6, f"sizing.{name}", getattr(self, name), "0 or above, at most 1e6")
        require(self.horizon >= 1, "sizing.horizon", self.horizon, "1 or above")
        if self.horizons:
            fine = self.horizon in self.horizons and len(set(self.horizons)) == len(self.horizons)
            require(
                fine, "sizing.horizons", list(self.horizons), f"horizons named once each, {self.horizon} among them"
            )
        require(0.0 < self.interval < 1.0, "sizing.interval", self.interval, "above 0 and below 1")
        if self.widest_interval is not None:
            require(0.0 < self.widest_interval < math.inf, "sizing.widest_interval", self.widest_interval, "above 0")
        if self.holding_bars is not None:
            require(1 <= self.holding_bars <= 1_000_000, "sizing.holding_bars", self.holding_bars, "1 to 1000000")

    @property
    def used_horizons(self) -> tuple[int, ...]:
        """Every horizon that it reads."""
        return self.horizons or (self.horizon,)

    @property
    def periods(self) -> float:
        """Horizons for which a position is expected to be held."""
        return 1.0 if self.holding_bars is None else self.holding_bars / self.horizon


class Belief(NamedTuple):
    """Log returns over ``sizing.horizon``: the raw mean, the shrunk one, what of that one a horizon earns over the
    holding time, and the floored deviation."""

    mean: float
    shrunk: float
    earned: float
    std: float


class Sized(NamedTuple):
    """An exposure before limits, and the utility w·drift − ½·curvature·w² over the horizon that weighs changes of it.

    It is gained `SizingConfig.periods` times over the holding time.

    ``sure`` says that there is nothing to weigh: no side is believed in, so a position is not worth keeping, or the
    cost was weighed before. Changes below ``least`` are not made, unless to hold nothing.
    ``waits`` says that the quantile rule opened nothing since its interval includes the cost.
    """

    wanted: float
    drift: float
    curvature: float
    too_wide: bool = False
    sure: bool = False
    waits: bool = False
    least: float = 0.0


def size(
    forecast: Forecast, held: float, sizing: SizingConfig, costs: Costs, trained: Trained, bars_per_year: float
) -> Sized | None:
    """Return the exposure that a forecast is worth, or None where it is not made of finite numbers.

    Parameters
    ----------
    held : float
        Present exposure, a signed fraction of equity: the quantile rule keeps what it holds.
    bars_per_year : float
        Turns annual figures into the horizon's.
    """
    horizon, scale = sizing.horizon, forecast.scale
    found = believed(forecast, sizing, trained, bars_per_year)
    if found is None:
        return None
    mean, shrunk, earned, std = found
    years = horizon / bars_per_year
    low = high = 0.0
    if sizing.widest_interval is not None or sizing.mode == "quantile":
        tail = (1.0 - sizing.interval) / 2
        low, high = forecast.quantile(tail, horizon), forecast.quantile(1.0 - tail, horizon)
    too_wide = False
    if sizing.widest_interval is not None:
        unit = scale * math.sqrt(horizon) * (trained.width if sizing.width_unit == "trained" else 1.0)
        too_wide = not high - low <= sizing.widest_interval * unit  # NaN too

    if sizing.mode == "network":
        annual = max(scale * math.sqrt(bars_per_year), sizing.volatility_floor)
        wanted = forecast.position * sizing.target_volatility / annual
        sized = Sized(wanted, 0.0, 0.0, too_wide, sure=True, least=sizing.least_change)
        return sized if math.isfinite(wanted) else None
    if sizing.mode == "mean_variance":
        curvature = 1.0 / sizing.kelly_fraction * std * std
        return Sized(earned / curvature, earned, curvature, too_wide)
    if sizing.mode == "volatility_target":
        curvature = sizing.reference_sharpe / sizing.target_volatility * std * std
        drift = sizing.reference_sharpe * std * math.sqrt(years) + sizing.tilt * earned
        return Sized(drift / curvature, drift, curvature, too_wide)
    if shrunk == 0.0:
        return Sized(0.0, 0.0, 0.0, too_wide, sure=True)
    wanted, waits = math.copysign(sizing.fraction, shrunk), False
    if sizing.mode == "quantile":
        low, high, cost = low + shrunk - mean, high + shrunk - mean, 2.0 * costs.per_side
        if not (low > cost if shrunk > 0.0 else high < -cost):
            wanted, waits = held if held * shrunk > 0.0 else 0.0, True
    return Sized(wanted, earned, 0.0, too_wide, waits=waits)


def believed(forecast: Forecast, sizing: SizingConfig, trained: Trained, bars_per_year: float) -> Belief | None:
    """Return what is believed of the next ``sizing.horizon`` bars, None where it is not made of finite numbers.

    Several horizons are combined as `SizingConfig` says.
    """
    horizon, scale = sizing.horizon, forecast.scale
    mean, std = forecast.moments(horizon)
    if not (math.isfinite(scale) and math.isfinite(mean) and math.isfinite(std)):
        return None
    years = horizon / bars_per_year
    holding = sizing.holding_bars or 0
    if sizing.horizons:
        combined = _combined(forecast, (mean, std), sizing, trained, bars_per_year)
        if combined is None:
            return None
        shrunk, earned = combined[0] * years, combined[1] * years
    else:
        shrunk = earned = _shrunk(mean, scale, horizon, trained)
        if holding > horizon:
            earned *= horizon / holding
    return Belief(mean, shrunk, earned, max(std, sizing.volatility_floor * math.sqrt(years)))


def _shrunk(mean: float, scale: float, horizon: int, trained: Trained) -> float:
    shrinkage = trained.shrinkage[horizon]
    return shrinkage.slope * (mean - shrinkage.centre * scale * math.sqrt(horizon))


def _combined(
    forecast: Forecast, own: tuple[float, float], sizing: SizingConfig, trained: Trained, bars_per_year: float
) -> tuple[float, float] | None:
    """Return the inverse-variance average of the annualised shrunk means, and of what the holding time earns of them.

    None where one is not finite. ``own`` are the moments at the sizing horizon, known already.
    """
    total = earned = weights = 0.0
    holding = sizing.holding_bars or 0
    for horizon in sizing.horizons:
        mean, std = own if horizon == sizing.horizon else forecast.moments(horizon)
        if not (math.isfinite(mean) and math.isfinite(std)):
            return None
        years = horizon / bars_per_year
        std = max(std, sizing.volatility_floor * math.sqrt(years))
        weight = years * years / (std * std)
        share = weight * _shrunk(mean, forecast.scale, horizon, trained) / years
        total += share
        earned += share * horizon / holding if holding > horizon else share
        weights += weight
    return total / weights, earned / weights


def require(fine: bool, name: str, value: object, allowed: str) -> None:
    """Raise one line naming a setting, its value and what is allowed.

    Raises
    ------
    LSTMStrategyError
        Unless ``fine``.
    """
    if not fine:
        raise LSTMStrategyError(f"{name} is {value}; it must be {allowed}")
