"""Limits: what no forecast may override, that they do not contradict each other, and several names' caps; pure."""

from __future__ import annotations

import math
from typing import Literal

import msgspec
import numpy as np

from lstm_strategy.bars import Float
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.sizing import Costs, SizingConfig, require

__all__ = ["CLOSING_FACTOR", "LimitsConfig", "fit_exposures", "require_consistent", "require_tradable"]

CLOSING_FACTOR = 10.0
"""How many times ``max_order_notional`` an order may be that only takes away from a position."""

type Flattening = Literal[
    "warm_up_unproved",
    "parity_unproved",
    "stale_data",
    "price_fence",
    "feature_range",
    "max_volatility",
    "loss_cooldown",
    "interval_too_wide",
]
_MOST_HOURS = 87_600.0  # ten years
_OPTIONAL = ("max_gross", "max_net", "max_order_notional", "turnover_per_day", "max_volatility", "price_fence")


class LimitsConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What no forecast may override. Exposures and losses are fractions of equity; what is None is no limit.

    Days, hours and cool-downs run by bar close, in UTC; the bar that closes at a full hour ends it.

    Parameters
    ----------
    max_exposure, max_gross, max_net : float
        Of one name; of all names' absolute exposures (the leverage cap); of their signed sum.
    initial_margin : float
        What a venue asks for to open, as a fraction of the position's value (margin accounts): an order that would need
        more than the equity is cut, and no cap of exposure may lie above 1 / ``initial_margin``.
    max_step : float
        Largest change of exposure in one decision; halts and limits flatten regardless.
    max_order_notional : float
        In quote currency, of what an order adds to a position; ten times as much of what it takes away.
    orders_per_hour, orders_per_day : int
        Orders after which none adds to a position until the next hour or day; all orders count.
    turnover_per_day : float
        Traded value over equity, at bar closes, that no order which adds to a position may exceed.
    flip_hours : float
        Time from taking one side of the market until the other may be taken.
    daily_loss : float
        Mark-to-market loss since 00:00 UTC, net of costs, at which the position is flattened until the next day.
    max_drawdown : float
        Fall from the peak of equity at which the position is flattened until somebody resumes.
    max_losses, cooldown_hours : int, float
        So many losing positions in a row forbid an increase for so long.
    max_volatility : float
        Annualised causal volatility above which there is no increase.
    price_fence, price_fence_scales : float
        Move from the last close, as a fraction of it or in units of σ√(bars between), beyond which there is no increase
        on this bar.
    max_stale_bars : int
        Missing bars before this one beyond which there is no increase on it.
    feature_range : float
        Deviations by which a feature may leave the range that training saw before there is no increase.
    drift_tolerance : float
        Excess over a cap of exposure that price moves alone may cause before a reduction is forced.
    flatten_on : tuple of str
        Limits that flatten where they would forbid an increase.
    """

    side: Literal["long_only", "long_short"] = "long_only"
    max_exposure: float = 1.0
    max_gross: float | None = None
    max_net: float | None = None
    initial_margin: float = 0.1
    max_step: float = 1.0
    max_order_notional: float | None = None
    orders_per_hour: int | None = None
    orders_per_day: int | None = None
    turnover_per_day: float | None = None
    flip_hours: float = 0.0
    daily_loss: float = 0.05
    max_drawdown: float = 0.3
    max_losses: int | None = None
    cooldown_hours: float = 24.0
    max_volatility: float | None = None
    price_fence: float | None = None
    price_fence_scales: float | None = None
    max_stale_bars: int | None = None
    feature_range: float | None = None
    drift_tolerance: float = 0.02
    flatten_on: tuple[Flattening, ...] = ()

    def __post_init__(self) -> None:
        for name in ("max_exposure", "max_step"):
            require(0.0 < getattr(self, name) < math.inf, f"limits.{name}", getattr(self, name), "above 0")
        hours, flip = self.cooldown_hours, self.flip_hours
        require(0.0 < hours <= _MOST_HOURS, "limits.cooldown_hours", hours, "above 0, at most 87600")
        require(0.0 <= flip <= _MOST_HOURS, "limits.flip_hours", flip, "0 to 87600")
        for name in (*_OPTIONAL, "price_fence_scales"):
            value = getattr(self, name)
            require(value is None or 0.0 < value < math.inf, f"limits.{name}", value, "above 0")
        for name in ("daily_loss", "max_drawdown", "initial_margin"):
            require(0.0 < getattr(self, name) <= 1.0, f"limits.{name}", getattr(self, name), "above 0, at most 1")
        for name in ("orders_per_hour", "orders_per_day", "max_losses"):
            value = getattr(self, name)
            require(value is None or 1 <= value <= 1_000_000, f"limits.{name}", value, "1 to 1000000")
        require(0.0 <= self.drift_tolerance < math.inf, "limits.drift_tolerance", self.drift_tolerance, "0 or above")
        stale, outside = self.max_stale_bars, self.feature_range
        require(stale is None or 0 <= stale <= 1_000_000, "limits.max_stale_bars", stale, "0 to 1000000")
        require(outside is None or 0.0 <= outside < math.inf, "limits.feature_range", outside, "0 or above")
        for name in ("max_exposure", "max_gross", "max_net"):
            cap = getattr(self, name)
            if cap is not None and cap * self.initial_margin > 1.0 + 1e-9:
                raise LSTMStrategyError(
                    f"limits.{name} is {cap}; with limits.initial_margin {self.initial_margin} a venue lets nobody hold"
                    f" more than {1.0 / self.initial_margin:g} times the equity: lower one of them"
                )
        self._require_order("max_exposure", "max_gross", "a name could never reach its cap")
        self._require_order("max_exposure", "max_net", "a name could never reach its cap")
        self._require_order("max_net", "max_gross", "the sum of exposures never exceeds that of their sizes")
        self._require_order("orders_per_hour", "orders_per_day", "an hour could never see so many")

    @property
    def within_margin(self) -> LimitsConfig:
        """The same, with all names together held to what the initial margin allows."""
        if self.max_gross is not None:
            return self
        return msgspec.structs.replace(self, max_gross=1.0 / self.initial_margin)

    def _require_order(self, lower: str, upper: str, why: str) -> None:
        low, high = getattr(self, lower), getattr(self, upper)
        if low is not None and high is not None and low > high:
            raise LSTMStrategyError(
                f"limits.{lower} is {low}, above limits.{upper}, {high}: {why}; lower the one or raise the other"
            )


def require_consistent(
    sizing: SizingConfig, limits: LimitsConfig, costs: Costs, levels: tuple[float, ...] | None = None
) -> None:
    """Refuse settings that contradict each other, before any order.

    Parameters
    ----------
    levels : tuple of float, optional
        The model's quantile levels.

    Raises
    ------
    LSTMStrategyError
        For a band or a quantile rule without costs, a fraction beyond the cap, an interval beyond the model's levels.
    """
    weighs = sizing.no_trade_band > 0.0 and sizing.mode != "network"
    if costs.per_side <= 0.0 and (weighs or sizing.mode == "quantile"):
        reader = "mode quantile weighs" if sizing.mode == "quantile" else f"no_trade_band {sizing.no_trade_band} weighs"
        raise LSTMStrategyError(
            f"costs are {costs.per_side} a side, but sizing.{reader} a gain against them; give costs.fee, costs.spread"
            " or costs.slippage" + ("" if sizing.mode == "quantile" else ", or set sizing.no_trade_band = 0")
        )
    if sizing.mode in ("fixed_fraction", "quantile") and sizing.fraction > limits.max_exposure:
        cap = limits.max_exposure
        raise LSTMStrategyError(f"sizing.fraction is {sizing.fraction}, above limits.max_exposure, {cap}; lower it")
    if levels and (sizing.mode == "quantile" or sizing.widest_interval is not None):
        tail = (1.0 - sizing.interval) / 2
        if tail < levels[0] - 1e-9 or 1.0 - tail > levels[-1] + 1e-9:
            widest = 1.0 - 2.0 * max(levels[0], 1.0 - levels[-1])
            raise LSTMStrategyError(
                f"sizing.interval is {sizing.interval}; the model's levels reach an interval of {widest:.4g}"
            )


def require_tradable(limits: LimitsConfig, smallest_notional: float) -> None:
    """Refuse a largest order that is below the venue's smallest, in quote currency.

    Raises
    ------
    LSTMStrategyError
        Where no order could ever be sent.
    """
    largest = limits.max_order_notional
    if largest is not None and largest < smallest_notional:
        raise LSTMStrategyError(
            f"limits.max_order_notional is {largest}; the venue's smallest order is {smallest_notional:.6g}: raise it"
        )


def fit_exposures(targets_S: Float, limits: LimitsConfig) -> tuple[Float, tuple[str, ...]]:
    """Bring several names' targets within the caps on each, on their net and on their gross exposure.

    Each name is cut to ``max_exposure`` (and to 0 from below where long-only); then the larger side is scaled down
    until the net fits, then all until the gross does. No target grows or changes its sign, and one that fits is kept.

    Parameters
    ----------
    targets_S : float64 [S]
        Where every name's position and open orders would lead, signed fractions of equity.

    Returns
    -------
    float64 [S], tuple of str
        The fitted targets, and the keys of the limits that bound.

    Raises
    ------
    LSTMStrategyError
        For a target that is not finite.
    """
    if not np.isfinite(targets_S).all():
        raise LSTMStrategyError(f"a target exposure is not finite: {targets_S.tolist()}; give every name a number")
    bound = []
    lowest = 0.0 if limits.side == "long_only" else -limits.max_exposure
    fitted = np.clip(targets_S, lowest, limits.max_exposure)
    if (fitted != targets_S).any():
        bound.append("max_exposure" if (np.abs(targets_S) > limits.max_exposure).any() else "long_only")
    longs, shorts = np.maximum(fitted, 0.0), np.maximum(-fitted, 0.0)
    long, short = float(longs.sum()), float(shorts.sum())
    if limits.max_net is not None and abs(long - short) > limits.max_net:
        bound.append("max_net")
        if long > short:
            longs *= (short + limits.max_net) / long
        else:
            shorts *= (long + limits.max_net) / short
    gross = float(longs.sum() + shorts.sum())
    if limits.max_gross is not None and gross > limits.max_gross:
        bound.append("max_gross")
        longs, shorts = longs * (limits.max_gross / gross), shorts * (limits.max_gross / gross)
    return np.asarray(longs - shorts), tuple(bound)
