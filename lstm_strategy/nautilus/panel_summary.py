"""What a finished run of several instruments amounts to: the account's results, and each instrument's part in them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lstm_strategy.bars import Float, Stamps, format_ns, utc_day
from lstm_strategy.decision import HALTS
from lstm_strategy.decision_log import STAMP
from lstm_strategy.nautilus.record import RunRecord
from lstm_strategy.nautilus.summary import (
    capacity,
    execution,
    funding_notes,
    losses_of_margin,
    results,
    scores,
    turnover,
)
from lstm_strategy.overfitting import figures
from lstm_strategy.portfolio import FALLBACK

if TYPE_CHECKING:
    from lstm_strategy.nautilus.panel_backtest import TradedPanel

__all__ = ["account_table", "sum_up_panel"]

_SCORES = ("pinball", "pinball_baseline", "coverage_80", "coverage_98")


def account_table(records: dict[str, RunRecord], cash: float, cost_per_side: dict[str, float]) -> pa.Table:
    """Return the account at each close: equity, net and gross exposure, and the same cash in equal parts in all names.

    Buy and hold puts each part in at its name's first close, and keeps it in cash until then; ``price`` is its value as
    an index that begins at 100.
    """
    stamps = next(iter(records.values())).ts_close
    equity = np.array(next(iter(records.values())).equities)
    exposure_ST = np.array([[decision.exposure for decision in record.decisions] for record in records.values()])
    held = np.zeros(len(stamps))
    for name, record in records.items():
        part, prices = cash / len(records), np.array(record.prices)
        known = np.flatnonzero(np.isfinite(prices))
        if not len(known):
            held += part
            continue
        held[: known[0]] += part
        held[known[0] :] += part / (prices[known[0]] * (1.0 + cost_per_side[name])) * prices[known[0] :]
    return pa.table(
        {
            "ts_close": pa.array(stamps, STAMP),
            "equity": pa.array(equity, pa.float64()),
            "exposure": pa.array(exposure_ST.sum(axis=0), pa.float64()),
            "gross": pa.array(np.abs(exposure_ST).sum(axis=0), pa.float64()),
            "price": pa.array(100.0 * held / held[0], pa.float64()),
            "buy_and_hold": pa.array(held, pa.float64()),
        }
    )


def sum_up_panel(traded: TradedPanel, *, cash: float, method: str, tried: int = 1) -> dict[str, Any]:
    """Return the summary of a run as plain values, NaN where a figure is not defined."""
    tables, markets, records = traded.tables, traded.markets, traded.records
    equity, first = tables["equity"], next(iter(markets.values()))
    stamps, own = equity["ts_close"].cast(pa.int64()).to_numpy(), equity["equity"].to_numpy()
    source = first.source
    halted = {utc_day(d.ts_close) for record in records.values() for d in record.decisions if d.reason in HALTS}
    rows = [_of_instrument(name, traded, stamps, own, cash) for name in records]
    in_sample = source.trained_until is not None and bool(stamps[0] <= source.trained_until)
    lost, notes = losses_of_margin(traded.liquidations, first.instrument.quote_currency.code)
    notes += _funding_notes(traded)
    fallen = sum(FALLBACK in decision.bound for decision in next(iter(records.values())).decisions)
    if fallen:
        notes.append(f"At {fallen} closes the method {method} could not be solved: equal risk took its place.")
    if in_sample:
        until = format_ns(source.trained_until or 0)
        notes.append(f"In sample: the model was trained on bars up to {until}; the results flatter.")
    told = list(traded.carry.values())
    means = {name: float(np.mean([row[name] for row in rows])) for name in _SCORES}
    return {
        "name": source.name,
        "closed_hours": source.closed_hours,
        "model": source.label,
        "currency": first.instrument.quote_currency.code,
        "instrument": None,
        "method": method,
        "timeframe": str(first.bars.timeframe),
        "start": format_ns(int(stamps[0])),
        "end": format_ns(int(stamps[-1])),
        "bars": len(stamps),
        "decisions": sum(len(record) for record in records.values()),
        "orders": len(tables["orders"]),
        "fills": len(tables["fills"]),
        "refusals": sum(record.refused for record in records.values()),
        "fees": float(tables["fills"]["fee"].to_numpy().sum()),
        **results(stamps, own, cash),
        "ruined": bool((own <= 0.0).any()),
        **lost,
        "days_halted": len(halted),
        **means,
        "by_horizon": [
            {name: float(np.mean([row["by_horizon"][number][name] for row in rows])) for name in _SCORES}
            | {"horizon": horizon}
            for number, horizon in enumerate(source.horizons)
        ],
        "buy_and_hold": results(stamps, equity["buy_and_hold"].to_numpy(), cash),
        "overfitting": figures(stamps, own, cash, trials=source.trials + tried - 1),
        "turnover": turnover(stamps, own, tables["fills"]),
        "capacity": _smallest([row["capacity"] for row in rows if row["capacity"]]),
        "execution": execution(tables["fills"]),
        "carry": {name: sum(getattr(carry, name) for carry in told) for name in msgspec.structs.asdict(told[0])},
        "in_sample": in_sample,
        "notes": notes,
        "instruments": rows,
    }


def _funding_notes(traded: TradedPanel) -> list[str]:
    """Return what the figures leave out of the funding, with the names where it is not all of them."""
    names: dict[str, list[str]] = {}
    for name, market in traded.markets.items():
        for note in funding_notes(market.instrument, market.bars, market.funding_known):
            names.setdefault(note, []).append(name)
    everyone = len(traded.markets)
    return [note if len(of) == everyone else f"{', '.join(of)}: {note}" for note, of in names.items()]


def _smallest(capacities: list[list[dict[str, float]]]) -> list[dict[str, float]]:
    """Return, for each participation, the equity at which the name that has least room comes to it."""
    return [
        {"participation": same[0]["participation"], "equity": min(one["equity"] for one in same)}
        for same in zip(*capacities, strict=True)
    ]


def _of_instrument(name: str, traded: TradedPanel, stamps: Stamps, own: Float, cash: float) -> dict[str, Any]:
    """Return one instrument's part: result in quote currency, trading, exposure, forecast scores."""
    market, record = traded.markets[name], traded.records[name]
    source, bars = market.source, market.bars
    fills = traded.tables["fills"]
    fills = fills.filter(pc.equal(fills["instrument"], name))
    bought = pc.equal(fills["side"], "buy")
    value = pc.multiply(fills["price"], fills["quantity"])
    flow = pc.sum(pc.if_else(bought, pc.negate(value), value)).as_py() or 0.0
    quantity = pc.sum(pc.if_else(bought, fills["quantity"], pc.negate(fills["quantity"]))).as_py() or 0.0
    fees = float(fills["fee"].to_numpy().sum())
    price = record.prices[-1]
    carry = traded.carry[name]
    held = quantity * price if math.isfinite(price) else 0.0
    exposure = np.array([decision.exposure for decision in record.decisions])
    forecasts = record.to_forecasts(source.horizons, source.levels)
    rows = np.searchsorted(stamps, bars.ts_close)  # closes without this name's bar have no forecast to be judged
    return {
        "instrument": name,
        "bars": len(bars),
        "absent": len(stamps) - len(bars),
        "orders": int(pc.sum(pc.equal(traded.tables["orders"]["instrument"], name)).as_py() or 0),
        "fees": fees,
        "result": flow - fees + held + carry.funding_received - carry.funding_paid - carry.interest,
        "turnover": turnover(stamps, own, fills),
        "mean_exposure": float(np.nanmean(np.abs(exposure))),
        "largest_exposure": float(np.nanmax(np.abs(exposure))),
        "capacity": capacity(bars, fills, cash),
        **scores(source, bars, forecasts.at(rows)),
    }
