"""Say in words and figures what a run's numbers mean, favourable or not."""

from __future__ import annotations

import math

from lstm_strategy.formatting import fixed, percent, whole
from lstm_strategy.overfitting import SUPPORTED
from lstm_strategy.report.run_types import Summary

__all__ = [
    "ACTIONS",
    "REASONS",
    "days_halted",
    "first_line",
    "forecast_verdict",
    "minute_of",
    "strategy_verdict",
]

REASONS = {
    "rebalance": "another exposure was worth its cost",
    "within_no_trade_band": "the change was not worth the cost of trading",
    "at_target": "already where it should be",
    "no_forecast": "the model was warming up",
    "invalid_forecast": "the forecast was not a finite number",
    "interval_includes_cost": "the forecast's interval did not exclude the cost of a round trip",
    "interval_too_wide": "the forecast's interval was too wide to act on",
    "unprotected": "a protective stop did not rest at the venue",
    "exit_pause": "an exit was too recent",
    "time_stop": "the position had been held as long as it may",
    "take_profit": "the take-profit was reached",
    "stop_unfilled": "the stop was reached and had not filled",
    "liquidated": "the venue closed the position for want of margin",
    "warm_up_unproved": "the warm-up was not proved yet",
    "parity_unproved": "live and offline features had not been shown to agree",
    "stale_data": "bars were missing or late",
    "price_fence": "the price had jumped further than is plausible",
    "feature_range": "a feature lay outside what training had seen",
    "max_volatility": "volatility was above its limit",
    "loss_cooldown": "a pause after losses in a row",
    "orders_per_hour": "the hour had seen its orders",
    "orders_per_day": "the day had seen its orders",
    "flip_time": "the other side of the market had been taken too short a time ago",
    "turnover_per_day": "the day's turnover was used up",
    "max_order_notional": "the order would have been too large",
    "limit_exceeded": "exposure had drifted over a limit",
    "gross_exceeded": "the gross exposure of all names was over its limit",
    "net_exceeded": "the net exposure of all names was over its limit",
    "halt_daily_loss": "flat until the next day after the daily loss limit",
    "halt_drawdown": "flat until resumed after the drawdown limit",
    "halt_ordered": "flat until resumed, as somebody ordered",
    "halt_no_equity": "no equity left to trade with",
}

ACTIONS = {
    "held": "nothing was to be done",
    "sent": "an order went to the venue",
    "below_minimum": "the change was smaller than the venue takes",
    "not_enough_funds": "the account could not pay for it",
    "short_refused": "the account cannot sell what it does not hold",
    "awaiting_order": "an earlier order was still working",
    "cancelling": "an earlier order was cancelled first",
    "releasing_exit": "the resting exit was cancelled first, and the order follows its end",
    "not_ready": "the strategy was not yet allowed to trade",
}


def forecast_verdict(summary: Summary) -> list[str]:
    """Say whether the forecast beat constant quantiles, and whether its intervals held what they promised."""
    model, baseline = summary.pinball, summary.pinball_baseline
    if model is None or baseline is None or baseline <= 0:
        return ["There is no forecast to judge: no bar of this run has both a forecast and its outcome."]
    gain = 1.0 - model / baseline
    losses = f"(mean pinball loss {fixed(model, 4)} against {fixed(baseline, 4)})"
    if abs(gain) < 0.0005:
        said = [f"The forecast is level with the constant-quantile baseline {losses}."]
    elif gain > 0:
        said = [f"The forecast beat the constant-quantile baseline by {percent(gain)} {losses}."]
    else:
        said = [f"The forecast did worse than the constant-quantile baseline, by {percent(-gain)} {losses}."]
    parts = []
    for share, nominal, tolerance in ((summary.coverage_80, 0.80, 0.015), (summary.coverage_98, 0.98, 0.007)):
        if share is not None:
            excess = share - nominal
            judged = "as it should" if abs(excess) <= tolerance else "too narrow" if excess < 0 else "too wide"
            parts.append(f"{percent(nominal, 0)} interval held {percent(share)} of outcomes ({judged})")
    if parts:
        said.append("Its " + ", its ".join(parts) + ".")
    return said


def first_line(summary: Summary) -> str:
    """Say before anything else that the result supports no claim, where that is so; else nothing."""
    luck = summary.overfitting
    if luck is None or summary.orders == 0:
        return ""
    found = luck.deflated_sharpe
    if found is None or not math.isfinite(found):
        return "This result supports no claim of skill: it has no Sharpe ratio that could be judged."
    if found >= SUPPORTED:
        return ""
    tried = "one trial" if luck.trials == 1 else f"{whole(luck.trials)} trials"
    return (
        f"This result does not support a claim of skill: after {tried}, the probability that the true Sharpe ratio is"
        f" above zero is {percent(found)} (deflated Sharpe ratio), below {percent(SUPPORTED, 0)}."
    )


def strategy_verdict(summary: Summary, years: float) -> list[str]:
    """Say what the strategy earned after costs beside buy and hold, and how far that can be told from luck."""
    held = summary.buy_and_hold
    if summary.orders == 0:
        said = [f"The strategy never traded; buy and hold {_moved(held.net_return)}."]
    else:
        fees = fixed(summary.fees, 0) + (f" {summary.currency}" if summary.currency else "")
        said = [
            f"The strategy {_moved(summary.net_return)} after {fees} in fees; buy and hold {_moved(held.net_return)}."
        ]
        said += _compared(summary)
        said += _luck(summary.sharpe, years)
    if told := days_halted(summary):
        said.append(told)
    return [*said, *summary.notes]


def days_halted(summary: Summary) -> str:
    """Say on how many UTC days a halt held at any close; nothing where there was none."""
    if not summary.days_halted:
        return ""
    days = "1 day" if summary.days_halted == 1 else f"{whole(summary.days_halted)} days"
    return f"Risk limits halted trading on {days}."


def _moved(value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return "has no defined return"
    if abs(value) < 0.0005:
        return "ended where it began"
    return f"{'gained' if value > 0 else 'lost'} {percent(abs(value))}"


def _compared(summary: Summary) -> list[str]:
    held, said = summary.buy_and_hold, []
    if summary.net_return is not None and held.net_return is not None:
        verb = "beat" if summary.net_return > held.net_return else "did not beat"
        said.append(f"It {verb} buy and hold after costs.")
    if summary.sharpe is not None and held.sharpe is not None:
        rank = "higher" if summary.sharpe > held.sharpe else "lower"
        text = f"Its Sharpe ratio was {rank} ({fixed(summary.sharpe)} against {fixed(held.sharpe)})"
        if summary.max_drawdown is not None and held.max_drawdown is not None:
            own, other = abs(summary.max_drawdown), abs(held.max_drawdown)
            depth = "shallower" if own < other else "deeper"
            text += f", its deepest fall {depth} ({percent(own)} against {percent(other)})"
        said.append(text + ".")
    return said


def _luck(sharpe: float | None, years: float) -> list[str]:
    """An annual Sharpe ratio over so many years has a standard error near 1/sqrt(years) (Lo, 2002, iid returns)."""
    if sharpe is None or years <= 0:
        return []
    error = 1.0 / math.sqrt(years)
    span = f"{fixed(years, 1)} years" if years >= 0.95 else f"{max(round(365 * years), 1)} days"
    text = f"Over {span} a Sharpe ratio has a standard error of about {fixed(error, 1 if error >= 1 else 2)}"
    if abs(sharpe) < 1.96 * error:
        return [f"{text}, so this result cannot be told from luck."]
    return [f"{text}, for independent returns; trials that were not kept are not counted."]


def minute_of(text: str) -> str:
    """Return 2024-01-31T12:00:00Z to the minute; the page says that times are UTC."""
    return text.replace("T", " ").removesuffix("Z").removesuffix(":00")
