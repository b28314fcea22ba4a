"""What a finished run's tables amount to: results, luck, scores of its forecasts, turnover, capacity, and notes."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lstm_strategy.bars import NS_PER_DAY, Bars, Float, Stamps, format_ns, utc_day
from lstm_strategy.decision import HALTS
from lstm_strategy.forecast import Forecasts
from lstm_strategy.measures import coverage, labels, max_drawdown, pinball, scaled_quantiles, sharpe
from lstm_strategy.nautilus.engine import EngineInstrument
from lstm_strategy.nautilus.instruments import from_engine
from lstm_strategy.nautilus.liquidation import Liquidated
from lstm_strategy.nautilus.record import RunRecord
from lstm_strategy.nautilus.source import Source
from lstm_strategy.overfitting import figures

__all__ = ["capacity", "execution", "funding_notes", "losses_of_margin", "results", "scores", "sum_up", "turnover"]

_PARTICIPATIONS = (0.01, 0.05, 0.1)
_FUNDING_NS = NS_PER_DAY  # longest time between fundings
_FITTING = 0.95  # share of the orders that must stay within a participation


def sum_up(
    source: Source,
    instrument: EngineInstrument,
    bars: Bars,
    record: RunRecord,
    forecasts: Forecasts,
    tables: dict[str, pa.Table],
    *,
    cash: float,
    liquidations: list[Liquidated],
    funding_known: tuple[int, int] | None = None,
    tried: int = 1,
) -> dict[str, Any]:
    """Return the summary of a run as plain values, NaN where a figure is not defined.

    Parameters
    ----------
    cash : float
        Equity before the first bar.
    liquidations : list of Liquidated
        In the order they happened.
    funding_known : tuple of int, optional
        First and last stamp of the funding rates that were charged.
    tried : int
        Configurations that this one was chosen from, beside the trials of the model's own tuning.
    """
    equity = tables["equity"]
    own = equity["equity"].to_numpy()
    halted = {utc_day(d.ts_close) for d in record.decisions if d.reason in HALTS}
    fees = tables["fills"]["fee"].to_numpy()
    in_sample = source.trained_until is not None and bool(bars.ts_close[0] <= source.trained_until)
    lost, notes = losses_of_margin(liquidations, instrument.quote_currency.code)
    notes += funding_notes(instrument, bars, funding_known)
    if in_sample:
        until = format_ns(source.trained_until or 0)
        notes.append(f"In sample: the model was trained on bars up to {until}; the results flatter.")
    return {
        "name": source.name,
        "closed_hours": source.closed_hours,
        "model": source.label,
        "currency": instrument.quote_currency.code,
        "instrument": bars.instrument_id,
        "timeframe": str(bars.timeframe),
        "start": format_ns(bars.ts_close[0]),
        "end": format_ns(bars.ts_close[-1]),
        "bars": len(bars),
        "decisions": len(record),
        "orders": len(tables["orders"]),
        "fills": len(tables["fills"]),
        "refusals": record.refused,
        "fees": float(fees.sum()),
        **results(bars.ts_close, own, cash),
        "ruined": bool((own <= 0.0).any()),
        **lost,
        "days_halted": len(halted),
        **scores(source, bars, forecasts),
        "buy_and_hold": results(bars.ts_close, equity["buy_and_hold"].to_numpy(), cash),
        "overfitting": figures(bars.ts_close, own, cash, trials=source.trials + tried - 1),
        "turnover": turnover(bars.ts_close, own, tables["fills"]),
        "capacity": capacity(bars, tables["fills"], cash),
        "execution": execution(tables["fills"]),
        "in_sample": in_sample,
        "notes": notes,
    }


def results(ts_close: Stamps, equity: Float, cash: float) -> dict[str, float]:
    """Return net return, annual Sharpe ratio and maximum drawdown of an equity curve that began with ``cash``."""
    return {
        "net_return": float(equity[-1]) / cash - 1.0,
        "sharpe": sharpe(ts_close, equity, cash),
        "max_drawdown": max_drawdown(equity, cash),
    }


def capacity(bars: Bars, fills: pa.Table, cash: float) -> list[dict[str, float]]:
    """Return, for some participations, the starting equity at which 95 % of the orders would stay within them.

    An order's participation is its filled quantity over the volume of the bar at whose open it filled; both grow alike
    with equity. What trades of this size would do to the price is not in it. Empty without fills.
    """
    if not len(fills):
        return []
    grouped = fills.group_by("order_id").aggregate([("quantity", "sum"), ("ts_filled", "min")])
    filled = grouped["ts_filled_min"].cast(pa.int64()).to_numpy()
    rows = np.minimum(np.searchsorted(bars.ts_close, filled), len(bars) - 1)
    with np.errstate(divide="ignore"):
        shares = grouped["quantity_sum"].to_numpy() / bars.volume[rows]
    share = float(np.quantile(shares, _FITTING, method="higher"))
    return [{"participation": part, "equity": cash * part / share} for part in _PARTICIPATIONS]


def execution(fills: pa.Table) -> dict[str, float]:
    """Return what fills cost against the prices they were decided on at: implementation shortfall, fees apart.

    ``shortfall`` is a fraction of what was traded on decisions, ``shortfall_paid`` its sum in quote currency;
    ``exits`` counts fills at resting exits, and ``exit_shortfall`` is theirs against their own levels.
    """
    value = fills["price"].to_numpy() * fills["quantity"].to_numpy()
    cost = np.nan_to_num(fills["shortfall"].cast(pa.float64()).to_numpy()) * value
    exits = fills["exit"].to_numpy(zero_copy_only=False).astype(bool)

    def share(rows: Any) -> float:
        total = float(value[rows].sum())
        return float(cost[rows].sum()) / total if total else math.nan

    return {
        "shortfall": share(~exits),
        "shortfall_paid": float(cost[~exits].sum()),
        "exits": int(exits.sum()),
        "exit_shortfall": share(exits),
    }


def turnover(ts_close: Stamps, equity: Float, fills: pa.Table) -> float:
    """Return the notional traded in a year, both sides, as a multiple of mean equity; NaN for a ruined account."""
    years = float(ts_close[-1] - ts_close[0]) / (365.25 * NS_PER_DAY)
    traded = pc.sum(pc.multiply(fills["price"], fills["quantity"])).as_py() or 0.0
    return float(traded) / float(equity.mean()) / years if bool((equity > 0.0).all()) else math.nan


def losses_of_margin(liquidations: list[Liquidated], currency: str) -> tuple[dict[str, Any], list[str]]:
    """Return what a summary says of liquidations, and the note on them: none without any."""
    told = {
        "liquidated": format_ns(liquidations[0].ts_close) if liquidations else None,
        "liquidations": [msgspec.to_builtins(lost) | {"ts_close": format_ns(lost.ts_close)} for lost in liquidations],
    }
    if not liquidations:
        return told, []
    first, fees = liquidations[0], math.fsum(lost.fee for lost in liquidations)
    times = "once" if len(liquidations) == 1 else f"{len(liquidations)} times"
    return told, [
        f"Liquidated {times}: first in the bar that closed at {format_ns(first.ts_close)}, {first.quantity:.10g} of"
        f" {first.instrument} at {first.price:.10g}, after which {first.equity:.2f} {currency} were left."
        f" Liquidation fees: {fees:.2f} {currency}."
    ]


def funding_notes(instrument: EngineInstrument, bars: Bars, funding_known: tuple[int, int] | None) -> list[str]:
    """Return what the figures leave out of a perpetual's funding, in plain sentences."""
    notes = []
    if from_engine(instrument).kind == "perpetual":
        first, last = funding_known or (0, 0)
        if funding_known is None:
            notes.append("Funding is not included: a perpetual pays or earns it every few hours, here it does not.")
        elif first > bars.ts_close[0] + _FUNDING_NS or last < bars.ts_close[-1] - _FUNDING_NS:
            span = f"{format_ns(first)} to {format_ns(last)}"
            notes.append(f"Funding is included from {span} alone; what was due outside is not known.")
    return notes


def scores(source: Source, bars: Bars, forecasts: Forecasts) -> dict[str, Any]:
    """Return scores by horizon, and their means: pinball loss beside constant quantiles' on the same rows, coverage."""
    by_horizon = []
    baseline_THQ = source.baseline(bars.ts_close)
    for row, horizon in enumerate(source.horizons):
        outcome = labels(bars.close, bars.ts_close, forecasts.scale_T, horizon, bars.timeframe.ns, source.closed_ns)
        quantiles = scaled_quantiles(forecasts, horizon)
        known = np.isfinite(quantiles).all(axis=1)
        by_horizon.append(
            {
                "horizon": horizon,
                "pinball": pinball(outcome, quantiles, source.levels),
                "pinball_baseline": pinball(outcome[known], baseline_THQ[known, row], source.levels),
                "coverage_80": coverage(outcome, quantiles, source.levels, 0.80),
                "coverage_98": coverage(outcome, quantiles, source.levels, 0.98),
            }
        )
    names = ("pinball", "pinball_baseline", "coverage_80", "coverage_98")
    means = {name: sum(scores[name] for scores in by_horizon) / len(by_horizon) for name in names}
    return means | {"by_horizon": by_horizon}
