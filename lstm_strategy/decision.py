"""The decision: a pure function from forecast and portfolio to a target exposure with its reason."""

from __future__ import annotations

import math

import msgspec

from lstm_strategy.bars import NS_PER_HOUR
from lstm_strategy.forecast import Forecast
from lstm_strategy.limits import LimitsConfig
from lstm_strategy.reasons import EXITS, FLATTENING, HALTS, NO_INCREASE, RATES, Reason
from lstm_strategy.risk import FLAT, RiskState, Seen, advance, count_order, halt, resume
from lstm_strategy.sizing import Costs, Shrinkage, Sized, SizingConfig, Trained, size

__all__ = [
    "EXITS",
    "FINE",
    "FLATTENING",
    "HALTS",
    "NO_INCREASE",
    "Conditions",
    "Costs",
    "Decision",
    "LimitsConfig",
    "PortfolioState",
    "Reason",
    "RiskState",
    "Seen",
    "Shrinkage",
    "SizingConfig",
    "Trained",
    "advance",
    "count_order",
    "decide",
    "halt",
    "resume",
]

_LEAST_CHANGE = FLAT  # of equity; less than a basis point is no change


class Conditions(msgspec.Struct, frozen=True, gc=False):
    """What only the driver knows at this bar: what is proved of the model, and what is wrong with the data.

    Parameters
    ----------
    ready, parity : bool
        Whether warm-up and parity of live and offline features are proved.
    stale : bool
        Whether this name's bar is missing or came too late by the clock.
    outside_range : bool
        Whether a feature lies outside what training saw, by more than ``limits.feature_range``.
    unprotected, paused : bool
        Whether a stop that should rest at the venue does not; whether an exit is so recent that nothing may be opened.
    exit : Reason, optional
        Why the position is to be closed, whatever the forecast says.
    """

    ready: bool = True
    parity: bool = True
    stale: bool = False
    outside_range: bool = False
    unprotected: bool = False
    paused: bool = False
    exit: Reason | None = None


FINE = Conditions()


class PortfolioState(msgspec.Struct, frozen=True, gc=False):
    """The account as a decision sees it; exposures are signed fractions of equity.

    Parameters
    ----------
    equity : float
        Marked to market, net of costs.
    exposure, pending : float
        The position's, and what open orders would still add to it.
    other_gross, other_net : float
        Of the other names in the account, their open orders included: absolute sizes and signed values summed.
    """

    ts_close: int
    equity: float
    exposure: float
    risk: RiskState
    pending: float = 0.0
    other_gross: float = 0.0
    other_net: float = 0.0


class Decision(msgspec.Struct, frozen=True, gc=False):
    """A target exposure (signed fraction of equity), why, and the limits that bound it.

    A target equal to ``exposure`` means: hold. Where ``cancel_opening``, open orders that would add to the position, or
    take it through zero, are to be called back.
    """

    ts_close: int
    exposure: float
    target: float
    reason: Reason
    bound: tuple[str, ...] = ()
    cancel_opening: bool = False

    @property
    def adds(self) -> bool:
        """Whether it adds to the position, or turns it."""
        return self.exposure * self.target < 0.0 or abs(self.target) > abs(self.exposure)


def decide(
    forecast: Forecast | None,
    state: PortfolioState,
    sizing: SizingConfig,
    limits: LimitsConfig,
    costs: Costs,
    *,
    trained: Trained,
    bars_per_year: float,
    conditions: Conditions = FINE,
    worth: Sized | None = None,
) -> Decision:
    """Return the target exposure for one instrument at one bar's close.

    Halts come first, then exits, then the limits that flatten, then a cap that was exceeded; only then is it asked
    whether a change pays. Nothing that reduces a position is ever forbidden.

    Parameters
    ----------
    forecast : Forecast or None
        None while the model warms up.
    trained : Trained
        The shrinkage at every horizon that ``sizing`` reads.
    bars_per_year : float
        Turns annual figures into the horizon's.
    worth : Sized, optional
        What a portfolio of several names gives this one, in the place of what ``sizing`` makes of its forecast alone.

    Returns
    -------
    Decision
        Its target equals ``state.exposure`` where nothing should be done.
    """
    held, ts_close = state.exposure, state.ts_close
    halted = _halt(state)
    if halted is not None:
        lost = (Reason.LIQUIDATED.value,) if conditions.exit == Reason.LIQUIDATED else ()
        return Decision(ts_close, held, 0.0, halted, (halted.value, *lost), True)
    if conditions.exit is not None:
        exit_reason = Reason(conditions.exit)
        return Decision(ts_close, held, 0.0, exit_reason, (exit_reason.value,), True)
    sized = worth
    if sized is None and forecast is not None:
        sized = size(forecast, held, sizing, costs, trained, bars_per_year)
    volatility = 0.0 if forecast is None else forecast.scale * math.sqrt(bars_per_year)
    blocks = _blocks(state.risk, limits, conditions, ts_close, volatility, sized is not None and sized.too_wide)
    for block in blocks:
        if block.value in limits.flatten_on:
            return Decision(ts_close, held, 0.0, block, (block.value,), True)

    lowest, highest, exceeding = _caps(state, limits)
    slack = limits.drift_tolerance * limits.max_exposure
    # Prices carry a position over its cap, never through zero.
    exceeded = not (lowest - slack if lowest else 0.0) <= held <= highest + slack
    led = bool(blocks) and RATES.issuperset(blocks)  # what was sent before the rate was used up may fill
    lead = held + state.pending
    cancel = (bool(blocks) and not led) or not (lowest - slack if lowest else 0.0) <= lead <= highest + slack

    if sized is None:
        reason = Reason.NO_FORECAST if forecast is None else Reason.INVALID_FORECAST
        gives_up = sizing.without_forecast == "flatten"
        if forecast is None and conditions.stale:  # it is the bar that is missing, not the model
            reason, gives_up = Reason.STALE_DATA, False
        kept = 0.0 if gives_up else min(max(held, lowest), highest) if exceeded else held
        return Decision(ts_close, held, kept, reason, (), cancel)

    bound: list[str] = []
    capped = target = min(max(sized.wanted, lowest), highest)
    if target != sized.wanted:
        bound.append(exceeding[1] if target == highest or limits.side == "long_short" else "long_only")
    reason = Reason.INTERVAL_INCLUDES_COST if sized.waits else Reason.AT_TARGET
    if blocks and not min(held, 0.0) <= target <= max(held, 0.0):
        ends = (held, lead, 0.0) if led else (held, 0.0)
        target, reason = min(max(target, min(ends)), max(ends)), blocks[0]
        bound += [block.value for block in blocks]
    if exceeded:
        target = _cut(target, state, limits, bound)
        return Decision(ts_close, held, target, exceeding[0], (*bound, "drift"), cancel)
    if abs(target - held) > limits.max_step:
        target = held + math.copysign(limits.max_step, target - held)
        bound.append("max_step")
    uncut = target
    target = _cut(target, state, limits, bound)
    change = target - held
    if abs(change) < _LEAST_CHANGE:
        if abs(uncut - held) >= _LEAST_CHANGE:
            reason = Reason(bound[-1])
        return Decision(ts_close, held, held, reason, tuple(bound), cancel)

    if abs(capped - held) < sized.least and target != 0.0:
        return Decision(ts_close, held, held, Reason.WITHIN_BAND, tuple(bound), cancel)
    # Utility gained over the expected holding period, against the cost of getting there.
    gain = change * sized.drift - 0.5 * sized.curvature * (target * target - held * held)
    cost = sizing.no_trade_band * costs.per_side * abs(change)
    if gain * sizing.periods <= cost and sizing.no_trade_band > 0.0 and not sized.sure:
        return Decision(ts_close, held, held, Reason.WITHIN_BAND, tuple(bound), cancel)
    return Decision(ts_close, held, target, Reason.REBALANCE, tuple(bound), cancel)


def _halt(state: PortfolioState) -> Reason | None:
    risk = state.risk
    if not (math.isfinite(state.equity) and state.equity > 0.0 and math.isfinite(state.exposure)):
        return Reason.HALT_NO_EQUITY
    if risk.ordered_halt:
        return Reason.HALT_ORDERED
    if risk.drawdown_halt:
        return Reason.HALT_DRAWDOWN
    return Reason.HALT_DAILY_LOSS if risk.daily_halt else None


def _blocks(
    risk: RiskState, limits: LimitsConfig, conditions: Conditions, ts_close: int, volatility: float, too_wide: bool
) -> list[Reason]:
    """Return what forbids an increase at this bar, the weightiest first."""
    found = []
    if conditions is not FINE:
        if not conditions.ready:
            found.append(Reason.NOT_READY)
        if not conditions.parity:
            found.append(Reason.PARITY_UNPROVED)
        if conditions.outside_range:
            found.append(Reason.FEATURE_RANGE)
        if conditions.unprotected:
            found.append(Reason.UNPROTECTED)
        if conditions.paused:
            found.append(Reason.EXIT_PAUSE)
    if risk.stale or conditions.stale:
        found.append(Reason.STALE_DATA)
    if risk.fenced:
        found.append(Reason.PRICE_FENCE)
    if limits.max_volatility is not None and not volatility <= limits.max_volatility:
        found.append(Reason.VOLATILITY)
    if too_wide:
        found.append(Reason.INTERVAL_TOO_WIDE)
    if ts_close < risk.cooldown_until:
        found.append(Reason.LOSS_COOLDOWN)
    if limits.orders_per_hour is not None and risk.orders_hour >= limits.orders_per_hour:
        found.append(Reason.ORDERS_PER_HOUR)
    if limits.orders_per_day is not None and risk.orders_day >= limits.orders_per_day:
        found.append(Reason.ORDERS_PER_DAY)
    return found


def _caps(state: PortfolioState, limits: LimitsConfig) -> tuple[float, float, tuple[Reason, str]]:
    """Return the lowest and highest exposure that the other names leave to this one, and which cap that is."""
    highest = limits.max_exposure
    lowest = 0.0 if limits.side == "long_only" else -highest
    which = (Reason.LIMIT_EXCEEDED, "max_exposure")
    if limits.max_gross is not None and (room := max(limits.max_gross - state.other_gross, 0.0)) < highest:
        lowest, highest, which = max(lowest, -room), room, (Reason.GROSS_EXCEEDED, "max_gross")
    if limits.max_net is not None:
        above, below = max(limits.max_net - state.other_net, 0.0), max(limits.max_net + state.other_net, 0.0)
        if above < highest or -below > lowest:
            lowest, highest, which = max(lowest, -below), min(highest, above), (Reason.NET_EXCEEDED, "max_net")
    return lowest, highest, which


def _cut(target: float, state: PortfolioState, limits: LimitsConfig, bound: list[str]) -> float:
    """Cut what a change would add to the position, on either side of zero; what it takes away is let through."""
    held, risk = state.exposure, state.risk
    adds = held * target <= 0.0 or abs(target) > abs(held)
    too_soon = state.ts_close - risk.side_since < limits.flip_hours * NS_PER_HOUR
    if too_soon and adds and risk.side * target < 0.0:  # the other side was taken too short a time ago
        target = held if held * target > 0.0 else 0.0
        bound.append(Reason.FLIP_TIME.value)
    if limits.turnover_per_day is None and limits.max_order_notional is None:
        return target
    through = held * target < 0.0
    base = 0.0 if through else held  # where adding begins
    added = abs(target) - abs(base)
    if added <= 0.0:
        return target
    left, which = added, ""
    if limits.turnover_per_day is not None:
        room = max(limits.turnover_per_day - risk.turnover_day - (abs(held) if through else 0.0), 0.0)
        if room < left:
            left, which = room, Reason.TURNOVER.value
    if limits.max_order_notional is not None and (room := limits.max_order_notional / state.equity) < left:
        left, which = room, Reason.ORDER_NOTIONAL.value
    if which:
        bound.append(which)
        return base + math.copysign(left, target)
    return target
