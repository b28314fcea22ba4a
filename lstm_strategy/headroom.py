"""Headroom: how much of each configured limit is used at one decision; pure."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import msgspec

from lstm_strategy.bars import NS_PER_HOUR
from lstm_strategy.decision import Decision
from lstm_strategy.forecast import Forecast
from lstm_strategy.limits import LimitsConfig
from lstm_strategy.risk import RiskState

__all__ = ["Headroom", "Shared", "Yardstick", "headroom_of"]


type Unit = Literal["equity", "quote", "orders", "hours", "positions", "a year", "move", "σ", "bars", "std"]
type Before = tuple[int, float, Forecast | None] | None


class Headroom(NamedTuple):
    """One limit: what is used of it, both in ``unit``; NaN where that is not known yet."""

    limit: str
    used: float
    most: float
    unit: Unit

    @property
    def room(self) -> float:
        """The part that is left, from 0 to 1; NaN where not known."""
        if math.isnan(self.used):
            return math.nan
        return min(max(1.0 - self.used / self.most, 0.0), 1.0) if self.most else float(self.used <= 0.0)


class Shared(NamedTuple):
    """What is the account's: exposures as fractions of equity, and what all names have ordered."""

    gross: float
    net: float
    orders_hour: int
    orders_day: int
    turnover_day: float


class Yardstick(msgspec.Struct, frozen=True, kw_only=True):
    """What an instrument's decisions are held against.

    Parameters
    ----------
    hole_ns : int
        A longer time than this between two closes is a hole.
    interval : float
        Central probability of the interval that is shown.
    widest : float
        The widest interval that may be acted on, as a log return at ``horizon`` for a scale of 1; NaN without a limit.
    margin : bool
        Whether the account borrows.
    """

    limits: LimitsConfig
    bar_ns: int
    hole_ns: int
    bars_per_year: float
    interval: float = 0.8
    horizon: int = 1
    widest: float = math.nan
    margin: bool = False


def headroom_of(
    decision: Decision,
    risk: RiskState | None,
    shared: Shared,
    yardstick: Yardstick,
    *,
    price: float,
    equity: float,
    quantity: float,
    forecast: Forecast | None,
    outside: float,
    before: Before,
) -> tuple[Headroom, ...]:
    """Return every limit that is configured, with what is used of it after a decision.

    Parameters
    ----------
    quantity : float
        Signed quantity ordered.
    outside : float
        Deviations by which the worst feature lies outside what training saw.
    before : tuple, optional
        Stamp, price and forecast of the decision before.
    """
    limits = yardstick.limits
    found = [
        Headroom("max_exposure", abs(decision.exposure), limits.max_exposure, "equity"),
        Headroom("max_step", abs(decision.target - decision.exposure), limits.max_step, "equity"),
    ]
    if limits.max_gross is not None:
        found.append(Headroom("max_gross", shared.gross, limits.max_gross, "equity"))
    if limits.max_net is not None:
        found.append(Headroom("max_net", abs(shared.net), limits.max_net, "equity"))
    if yardstick.margin:
        found.append(Headroom("initial_margin", shared.gross * limits.initial_margin, 1.0, "equity"))
    if limits.max_order_notional is not None:
        found.append(Headroom("max_order_notional", abs(quantity) * price, limits.max_order_notional, "quote"))
    if limits.orders_per_hour is not None:
        found.append(Headroom("orders_per_hour", shared.orders_hour, limits.orders_per_hour, "orders"))
    if limits.orders_per_day is not None:
        found.append(Headroom("orders_per_day", shared.orders_day, limits.orders_per_day, "orders"))
    if limits.turnover_per_day is not None:
        found.append(Headroom("turnover_per_day", shared.turnover_day, limits.turnover_per_day, "equity"))
    found += _of_memory(decision.ts_close, risk, limits, equity)
    found += _of_market(decision.ts_close, yardstick, price, forecast, before)
    if limits.feature_range is not None:
        found.append(Headroom("feature_range", outside, limits.feature_range, "std"))
    if math.isfinite(yardstick.widest):
        used = most = math.nan
        if forecast is not None:
            tail = (1.0 - yardstick.interval) / 2
            ends = (forecast.quantile(level, yardstick.horizon) for level in (1.0 - tail, tail))
            used, most = next(ends) - next(ends), yardstick.widest * forecast.scale
        found.append(Headroom("widest_interval", used, most, "move"))
    return tuple(found)


def _of_memory(ts_close: int, risk: RiskState | None, limits: LimitsConfig, equity: float) -> list[Headroom]:
    """Limits on losses, and those that a while must pass for."""
    lost = fallen = waited = cooling = losses = math.nan
    if risk is not None:
        lost = _fall(equity, risk.day_start_equity)
        fallen = _fall(equity, risk.peak_equity)
        since = (ts_close - risk.side_since) / NS_PER_HOUR if risk.side_since else math.inf
        waited = max(limits.flip_hours - since, 0.0)
        cooling = max(risk.cooldown_until - ts_close, 0) / NS_PER_HOUR
        losses = risk.losses
    found = [
        Headroom("daily_loss", lost, limits.daily_loss, "equity"),
        Headroom("max_drawdown", fallen, limits.max_drawdown, "equity"),
    ]
    if limits.flip_hours:
        found.append(Headroom("flip_hours", waited, limits.flip_hours, "hours"))
    if limits.max_losses is not None:
        found.append(Headroom("max_losses", losses, limits.max_losses, "positions"))
        found.append(Headroom("cooldown_hours", cooling, limits.cooldown_hours, "hours"))
    return found


def _of_market(
    ts_close: int, yardstick: Yardstick, price: float, forecast: Forecast | None, before: Before
) -> list[Headroom]:
    """Limits on what prices do, and on bars that are missing."""
    limits, found = yardstick.limits, []
    if limits.max_volatility is not None:
        annual = math.nan if forecast is None else forecast.scale * math.sqrt(yardstick.bars_per_year)
        found.append(Headroom("max_volatility", annual, limits.max_volatility, "a year"))
    moved = scales = missing = math.nan
    if before is not None and before[1] > 0.0 and ts_close > before[0]:
        last_ts, last_price, last = before
        bars = max((ts_close - last_ts) / yardstick.bar_ns, 1.0)
        moved = abs(price / last_price - 1.0)
        if last is not None and last.scale > 0.0:
            scales = abs(math.log(price / last_price)) / (last.scale * math.sqrt(bars))
        missing = 0.0 if ts_close - last_ts <= yardstick.hole_ns else round(bars) - 1.0
    if limits.price_fence is not None:
        found.append(Headroom("price_fence", moved, limits.price_fence, "move"))
    if limits.price_fence_scales is not None:
        found.append(Headroom("price_fence_scales", scales, limits.price_fence_scales, "σ"))
    if limits.max_stale_bars is not None:
        found.append(Headroom("max_stale_bars", missing, limits.max_stale_bars, "bars"))
    return found


def _fall(equity: float, before: float) -> float:
    return max(1.0 - equity / before, 0.0) if before > 0.0 else math.nan
