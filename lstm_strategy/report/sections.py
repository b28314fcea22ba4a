"""The tables that judge a run: luck, simple rules beside it, costs and delays, months, worst days, exposure."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from lstm_strategy.bars import Float, utc_day
from lstm_strategy.formatting import fixed, percent, whole
from lstm_strategy.measures import daily_returns
from lstm_strategy.report.halts_section import halts_section
from lstm_strategy.report.risk import Tails
from lstm_strategy.report.risk_section import risk_section
from lstm_strategy.report.run_types import Run, Summary

__all__ = ["beside_table", "luck_table", "months_table", "risk_facts", "sensitivity_table"]
__all__ += ["contents_of", "parts_table", "worst_days_table"]

Table = list[tuple[str, ...]]

_WORST = 8
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def luck_table(summary: Summary) -> Table:
    """How far the Sharpe ratio can be told from luck; empty where the run was not judged."""
    luck = summary.overfitting
    if luck is None:
        return []
    rows: Table = [
        ("Probability that the true Sharpe ratio is above 0", percent(luck.probabilistic_sharpe)),
        (
            f"The same, deflated for {whole(luck.trials)} trial{'s' * (luck.trials > 1)}",
            percent(luck.deflated_sharpe),
        ),
    ]
    if luck.intervals is not None:
        around, share = luck.intervals, percent(luck.intervals.level, 0)
        rows += [
            (f"Sharpe ratio, {share} interval", _between(*(fixed(end) for end in around.sharpe))),
            (f"Maximum drawdown, {share} interval", _between(*(percent(end) for end in around.max_drawdown))),
        ]
    return rows


def beside_table(summary: Summary) -> Table:
    """The strategy, buy and hold, and each rule: after the same costs."""
    if not summary.beside:
        return []
    held = summary.buy_and_hold
    rows: Table = [
        (
            "strategy",
            percent(summary.net_return, signed=True),
            fixed(summary.sharpe),
            percent(summary.max_drawdown),
            whole(summary.orders),
            fixed(summary.turnover, 1),
        ),
        (
            "buy and hold",
            percent(held.net_return, signed=True),
            fixed(held.sharpe),
            percent(held.max_drawdown),
            whole(max(len(summary.instruments), 1)),
            "–",
        ),
    ]
    for rule in summary.beside:
        if rule.error:
            rows.append((rule.name, "could not be run: " + rule.error))
            continue
        orders = "–" if rule.orders is None else whole(int(rule.orders))
        figures = (percent(rule.net_return, signed=True), fixed(rule.sharpe), percent(rule.max_drawdown))
        rows.append((rule.name, *figures, orders, fixed(rule.turnover, 1)))
    return rows


def parts_table(summary: Summary) -> Table:
    """One row an instrument: result, orders, fees, exposures, turnover, absent closes, forecast; empty where alone."""
    unit = f" {summary.currency}" if summary.currency else ""
    rows: Table = []
    for part in summary.instruments:
        model, baseline = part.pinball, part.pinball_baseline
        better = 1.0 - model / baseline if model is not None and baseline else None
        rows.append(
            (
                part.instrument,
                fixed(part.result, 0, signed=True) + unit,
                whole(part.orders),
                fixed(part.fees, 0) + unit,
                percent(part.mean_exposure),
                percent(part.largest_exposure),
                fixed(part.turnover, 1),
                whole(part.absent),
                percent(better, 2, signed=True),
                percent(part.coverage_80),
            )
        )
    return rows


def sensitivity_table(summary: Summary) -> Table:
    """Header, then one row a multiple of the costs; net Sharpe ratios by delay."""
    found = summary.sensitivity
    if found is None:
        return []
    delays = ("next open" if delay == 0 else f"{delay} bar{'s' * (delay > 1)} later" for delay in found.delays)
    body = [
        (f"{multiple:g} × costs", *(fixed(value) for value in row))
        for multiple, row in zip(found.multiples, found.sharpe, strict=True)
    ]
    return [("Venue charges", *delays), *body]


def months_table(run: Run) -> Table:
    """Header, then one row a year: the strategy's return in each month, and over the year's bars."""
    days, returns = _daily(run, run.equity.equity)
    month = (days.astype("datetime64[D]")).astype("datetime64[M]").astype(np.int64)
    growth = np.log1p(np.maximum(returns, -1.0 + 1e-12))
    rows: Table = [("Year", *_MONTHS, "All")]
    for year in np.unique(month // 12).tolist():
        cells = []
        for number in range(12):
            chosen = month == 12 * year + number
            cells.append(percent(math.expm1(float(growth[chosen].sum()))) if chosen.any() else "")
        rows.append((str(1970 + year), *cells, percent(math.expm1(float(growth[month // 12 == year].sum())))))
    return rows


def worst_days_table(run: Run) -> Table:
    """The strategy's worst UTC days, with what buy and hold did on them and the largest exposure."""
    days, own = _daily(run, run.equity.equity)
    _, held = _daily(run, run.equity.buy_and_hold)
    day_of_bar = utc_day(run.equity.ts_close)
    rows: Table = []
    for row in np.argsort(own, kind="stable")[:_WORST]:
        exposure = run.equity.exposure[day_of_bar == days[row]]
        largest = float(exposure[np.nanargmax(np.abs(exposure))]) if np.isfinite(exposure).any() else math.nan
        day = str(days[row].astype("datetime64[D]"))
        rows.append((day, percent(float(own[row]), 2), percent(float(held[row]), 2), percent(largest, 0)))
    return rows


def risk_facts(run: Run) -> Table:
    """Exposure, turnover and capacity in figures."""
    exposure = np.abs(run.equity.exposure[np.isfinite(run.equity.exposure)])
    facts: Table = [
        ("Bars in the market", percent(float((exposure > 1e-4).mean()))),
        ("Largest exposure", percent(float(exposure.max()))),
    ]
    summary, unit = run.summary, f" {run.summary.currency}" if run.summary.currency else ""
    if summary.turnover is not None:
        facts.append(("Turnover a year", f"{fixed(summary.turnover, 1)} × equity"))
    carry = summary.carry
    if carry.fundings:
        told = f"{fixed(carry.funding_paid, 2)} paid, {fixed(carry.funding_received, 2)} received{unit}"
        facts.append((f"Funding, {whole(carry.fundings)} times", told))
    if carry.interest:
        facts.append(("Interest on shorts", fixed(carry.interest, 2) + unit))
    facts += [
        (f"Capacity at {percent(room.participation, 0)} of volume", fixed(room.equity, 0) + unit)
        for room in summary.capacity
    ]
    return facts


def contents_of(run: Run, tails: Tails | None) -> dict[str, Any]:
    """All of them, by the names that the template knows."""
    luck = run.summary.overfitting
    return {
        "luck": luck_table(run.summary),
        "luck_missing": luck.missing if luck else "",
        "block_days": fixed(luck.intervals.block_days, 0) if luck and luck.intervals else "",
        "beside": beside_table(run.summary),
        "parts": parts_table(run.summary),
        "sensitivity": sensitivity_table(run.summary),
        "months": months_table(run),
        "worst_days": worst_days_table(run),
        "risk": risk_section(run, tails),
        "risk_facts": risk_facts(run),
        "halts": halts_section(run.summary.halts, run.summary.halts_ordered),
    }


def _daily(run: Run, line: Float) -> tuple[Any, Float]:
    return daily_returns(run.equity.ts_close, line, float(line[0]))


def _between(low: str, high: str) -> str:
    return f"{low} to {high}"
