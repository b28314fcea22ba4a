"""Say of one bar what was seen, forecast, wanted, allowed and done; of a whole log, which reasons it had and when."""

from __future__ import annotations

from collections import Counter
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lstm_strategy.bars import format_ns, utc_day
from lstm_strategy.decision_again import decide_again, forecast_of, size_again, voice_at
from lstm_strategy.decision_log import Header
from lstm_strategy.decision_log_reader import Log, Row
from lstm_strategy.formatting import fixed, percent, whole
from lstm_strategy.ordered import bought, orderer
from lstm_strategy.reasons import HALTS, Reason
from lstm_strategy.report.words import ACTIONS, REASONS
from lstm_strategy.sizing import Sized

__all__ = ["count_words", "explain_row", "sentences_of", "sum_up_log"]

Sentences = dict[str, str]

_LATEST = 50
_BAR = (("open", "open"), ("high", "high"), ("low", "low"), ("close", "price"), ("volume", "volume"))


def explain_row(log: Log, row: int) -> dict[str, Any]:
    """Return one bar as plain values: what was logged, what sizing wanted, and all of it in words."""
    header, logged = log.header_at(row), log.row(row)
    sized = size_again(logged, header)
    return {
        "bar": logged | {"ts_close": format_ns(logged["ts_close"])},
        "features": dict(zip(header.features, logged["features"] or (), strict=False)),
        "horizons": header.horizons,
        "levels": header.levels,
        "wanted": None if sized is None else sized.wanted,
        "words": sentences_of(logged, header),
    }


def sentences_of(row: Row, header: Header) -> Sentences:
    """Return what can be said of a bar, by heading, in the order of causation."""
    sized = size_again(row, header)
    said = {
        "bar": _bar(row, header),
        "forecast": _forecast(row, header),
        "sizing": _sizing(row, header, sized),
        "account": _account(row),
        "risk": _risk(row, header),
        "limits": _limits(row, header),
        "decision": _decision(row) + _joined(row, header),
        "action": _action(row),
    }
    if row["target"] == row["exposure"]:
        said["why nothing was done"] = _why_not(row, header, sized)
    return said


def _bar(row: Row, header: Header) -> str:
    if np.isnan(row["open"]):
        last = "none was known before" if np.isnan(row["price"]) else f"the last close before was {row['price']:,.10g}"
        return f"{header.instrument} {header.timeframe}, closed at {format_ns(row['ts_close'])}: missing; {last}."
    values = ", ".join(f"{name} {row[key]:,.10g}" for name, key in _BAR)
    return f"{header.instrument} {header.timeframe}, closed at {format_ns(row['ts_close'])}: {values}."


def _forecast(row: Row, header: Header) -> str:
    forecast = forecast_of(row, header)
    if forecast is None and np.isnan(row["open"]):
        return "None: there was no bar to forecast from."
    if forecast is None:
        return f"None: {row['model']} was warming up, or the bars before were missing for too long."
    said = [f"By {row['model']}, σ {percent(forecast.scale, 3)} a bar."]
    for horizon in dict.fromkeys((*header.horizons[:1], *header.sizing.used_horizons)):
        tail = (1.0 - header.sizing.interval) / 2
        low, high = forecast.quantile(tail, horizon), forecast.quantile(1.0 - tail, horizon)
        said.append(
            f"{horizon} bar{'s' * (horizon > 1)} ahead: {percent(header.sizing.interval, 0)} between"
            f" {percent(low, 2, signed=True)} and {percent(high, 2, signed=True)}, mean"
            f" {percent(forecast.mean(horizon), 3, signed=True)}, a gain with"
            f" {percent(forecast.probability_of_gain(horizon), 0)}."
        )
    if np.isfinite(forecast.position):
        said.append(f"The network would hold {percent(forecast.position, signed=True)} of a full position.")
    return " ".join(said)


def _sizing(row: Row, header: Header, sized: Sized | None) -> str:
    sizing = header.sizing
    if sized is None and np.isnan(row["open"]):
        return "Without a bar the position is held, unless a limit takes from it."
    if sized is None:
        kept = "the position is closed" if sizing.without_forecast == "flatten" else "the position is held"
        return f"Without a forecast {kept} (sizing.without_forecast)."
    slope = voice_at(header, row["ts_close"]).shrinkage.get(sizing.horizon)
    if sizing.mode == "network":
        believed = f": its position at a volatility of {percent(sizing.target_volatility)} a year"
    else:
        believed = "" if slope is None else f"; of the mean, {percent(slope.slope, 0)} is believed"
    waits = " It waits: the interval does not exclude the cost of a round trip." if sized.waits else ""
    wide = " The interval is wider than sizing.widest_interval allows." if sized.too_wide else ""
    whose = f"the portfolio ({header.others['portfolio']['method']}), by " if header.joint else ""
    wanted = f"{whose}{sizing.mode} at horizon {sizing.horizon} wanted an exposure of {percent(sized.wanted)}"
    wanted = wanted[:1].upper() + wanted[1:] if header.joint else wanted
    return f"{wanted}{believed}.{waits}{wide}"


def _account(row: Row) -> str:
    pending = f"; open orders would add {percent(row['pending'])}" if row["pending"] else ""
    others = f"; other names hold {percent(row['other_gross'])} gross" if row["other_gross"] else ""
    held = f"position {row['position']:.10g}" if row["position"] else "no position"
    return f"Equity {fixed(row['equity'])}, {held}, exposure {percent(row['exposure'])}{pending}{others}."


def _risk(row: Row, header: Header) -> str:
    risk, limits = row["risk"], header.limits
    day, peak = risk["day_start_equity"], risk["peak_equity"]
    said = [
        f"The day stands at {percent(_change(row['equity'], day), 2, signed=True)}"
        f" (limit {percent(-limits.daily_loss)}), {percent(_change(row['equity'], peak), 2)} from the peak"
        f" (limit {percent(-limits.max_drawdown)}); orders today: {risk['orders_day']}."
    ]
    if risk["halt_text"]:
        said.append(f"Latched: {risk['halt_text']}.")
    if risk["cooldown_until"] > row["ts_close"]:
        said.append(f"No increase until {format_ns(risk['cooldown_until'])}, after losses in a row.")
    unproved = [text for name, text in _UNPROVED.items() if not row["conditions"][name]]
    return " ".join(said + unproved)


_UNPROVED = {"ready": "The warm-up was not proved.", "parity": "Live and offline features were not shown to agree."}


def _limits(row: Row, header: Header) -> str:
    if not row["bound"]:
        return "None bound."
    values = {name: getattr(header.limits, name, None) for name in row["bound"]}
    told = [name + ("" if value is None else f" ({value:g})") for name, value in values.items()]
    flattening = f"; {row['reason']} flattens" if row["reason"] in header.limits.flatten_on else ""
    return f"Bound: {', '.join(told)}{flattening}."


def _decision(row: Row) -> str:
    reason = f"{row['reason']}: {REASONS.get(row['reason'], 'no words for it')}"
    cancel = " Open orders that would add are called back." if row["cancel_opening"] else ""
    if row["target"] == row["exposure"]:
        return f"Hold {percent(row['exposure'])} ({reason}).{cancel}"
    return f"From {percent(row['exposure'])} to {percent(row['target'])} ({reason}).{cancel}"


def _joined(row: Row, header: Header) -> str:
    """What it would have been by itself, where the limits of an account that is shared made it another."""
    alone = decide_again(row, header) if header.joint else None
    if alone is None or alone.target == row["target"]:
        return ""
    return f" By itself it would have been {percent(alone.target)}; the limits that all names keep together changed it."


def _action(row: Row) -> str:
    told = f"{row['action']}: {ACTIONS.get(row['action'], 'no words for it')}"
    if not row["quantity"]:
        return f"No order ({told})."
    side = "buy" if row["quantity"] > 0 else "sell"
    return f"Sent an order to {side} {abs(row['quantity']):.10g} ({told})."


def _why_not(row: Row, header: Header, sized: Sized | None) -> str:
    """The one cause, with the figures that decided."""
    if row["waiting"]:
        return "Earlier bars were still on their way; only a halt is acted upon meanwhile."
    if row["reason"] == Reason.WITHIN_BAND and sized is not None:
        held, costs, sizing = row["exposure"], header.costs, header.sizing
        change = sized.wanted - held
        if sizing.mode == "network":
            return (
                f"A change of {percent(change, signed=True)} of equity is less than"
                f" {percent(sized.least)} (sizing.least_change)."
            )
        # The same utility that `decide` weighs, at what sizing wanted: limits may have cut that.
        gain = change * sized.drift - 0.5 * sized.curvature * (sized.wanted**2 - held**2)
        gain *= sizing.periods
        return (
            f"Moving by {percent(change, signed=True)} of equity would gain {percent(gain, 4)} and must exceed"
            f" {percent(sizing.no_trade_band * costs.per_side * abs(change), 4)}: {sizing.no_trade_band:g} × its cost."
        )
    if row["reason"] in HALTS:
        return "Halted, and flat already."
    if row["reason"] == Reason.AT_TARGET:
        return "The exposure is where it should be."
    told = str(REASONS.get(row["reason"], row["reason"]))
    return f"{told[:1].upper()}{told[1:]}."


def _change(now: float, before: float) -> float:
    return now / before - 1.0 if before else float("nan")


def sum_up_log(log: Log) -> dict[str, Any]:
    """Return counts, first and last bar of each reason, limit and action; halts from bar to bar; missing bars."""
    reasons = log.texts("reason")
    ts = log.ts_close
    halted = np.array([reason in HALTS for reason in reasons])
    episodes = []
    for reason, rows in groupby(range(len(reasons)), key=reasons.__getitem__):
        if reason in HALTS:
            held = list(rows)
            first, last = format_ns(int(ts[held[0]])), format_ns(int(ts[held[-1]]))
            told = _ordered(log, held[0]) if reason == Reason.HALT_ORDERED.value else ""
            episodes.append({"reason": reason, "first": first, "last": last, "bars": len(held), "told": told})
    longest = max(log.timeframe.ns, log.header.closed_ns)
    gaps = np.flatnonzero(np.diff(ts) > longest)
    days = np.unique(utc_day(ts[halted])).tolist()
    return {
        "instrument": log.header.instrument,
        "timeframe": log.header.timeframe,
        "model": log.header.model,
        "first": format_ns(int(ts[0])),
        "last": format_ns(int(ts[-1])),
        "bars": len(log),
        "orders": int(np.count_nonzero(log.floats("quantity"))),
        "reasons": _kinds(reasons, ts),
        "bound": _kinds_of_lists(log.column("bound"), ts),
        "actions": _kinds(log.texts("action"), ts),
        "halts": episodes,
        "days_halted": [str(np.datetime64(day, "D")) for day in days],
        "missing": [
            {"after": format_ns(int(ts[row])), "bars": int((ts[row + 1] - ts[row]) // log.timeframe.ns) - 1}
            for row in gaps[-_LATEST:]
        ],
        "gaps": len(gaps),
    }


def _ordered(log: Log, first: int) -> str:
    """Say who ordered a halt, and what became of the position; an order is carried out before the next bar closes."""
    position_T = log.floats("position")
    held, left = float(position_T[max(first - 1, 0)]), float(position_T[first])
    who = f"ordered by {orderer(log.row(first)['risk']['halt_text'])}"
    before = max(first - 1, 0)
    coming = float(log.floats("quantity")[before]) or float(log.floats("pending")[before])
    opening = before < first and coming != 0.0 and (held * coming >= 0.0 or abs(coming) > abs(held))
    if not held and not left and not opening:
        return f"{who}; no position was held"
    had, after = (f"{quantity:.10g}" if quantity else "nothing" for quantity in (held, left))
    also = f" with a {bought(f'{coming:.10g}')} under way" if opening else ""
    return f"{who}; {had} was held at the close before it{also}, {after} at the first in it"


def _kinds(values: list[str], ts: Any) -> list[dict[str, Any]]:
    """The most frequent first."""
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    for row, value in enumerate(values):
        first.setdefault(value, row)
        last[value] = row
    return [
        {
            "name": name,
            "bars": count,
            "share": count / max(len(ts), 1),
            "first": format_ns(int(ts[first[name]])),
            "last": format_ns(int(ts[last[name]])),
        }
        for name, count in sorted(Counter(values).items(), key=lambda item: (-item[1], item[0]))
    ]


def _kinds_of_lists(column: pa.Array, ts: Any) -> list[dict[str, Any]]:
    """The same of every name in a list; a share is one of all bars."""
    rows = pc.list_parent_indices(column).to_numpy()
    found = _kinds(pc.list_flatten(column).to_pylist(), ts[rows])
    return [kind | {"share": kind["bars"] / max(len(ts), 1)} for kind in found]


def count_words(kind: dict[str, Any]) -> tuple[str, ...]:
    """A row of a table: name, bars, share, first, last."""
    return (kind["name"], whole(kind["bars"]), percent(kind["share"]), kind["first"], kind["last"])
