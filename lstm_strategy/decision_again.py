"""Decide again on what one row of a decision log holds, and tell what stood behind it."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np

from lstm_strategy.decision import Conditions, Decision, PortfolioState, decide
from lstm_strategy.decision_log import Header, Voice
from lstm_strategy.decision_log_reader import Row
from lstm_strategy.forecast import Forecast
from lstm_strategy.joint_limits import share
from lstm_strategy.reasons import EXITS, HALTS
from lstm_strategy.risk import RiskState
from lstm_strategy.sizing import Shrinkage, Sized, Trained, size

__all__ = ["decide_again", "forecast_of", "size_again", "voice_at"]


def forecast_of(row: Row, header: Header) -> Forecast | None:
    """Return the forecast that a row holds."""
    if row["quantiles"] is None:
        return None
    shape = (len(header.horizons), len(header.levels))
    quantiles_HQ = np.array(row["quantiles"], np.float32).reshape(shape)
    position = row.get("forecast_position", math.nan)  # logs of an earlier version have none
    return Forecast(row["ts_close"], header.horizons, header.levels, quantiles_HQ, row["scale"], position)


def size_again(row: Row, header: Header) -> Sized | None:
    """Return what sizing wanted at a row, or a portfolio gave it, before any limit; None without a finite forecast."""
    if header.joint:
        return None if row["worth"] is None else Sized(**row["worth"])
    forecast = forecast_of(row, header)
    if forecast is None:
        return None
    trained, bars_per_year = _trained(header, row["ts_close"])
    return size(forecast, row["exposure"], header.sizing, header.costs, trained, bars_per_year)


def decide_again(row: Row, header: Header) -> Decision:
    """Decide on what a row holds: the logged decision, where the settings are the row's own.

    Of a name that shares its account, it is what was decided before the account's limits.
    """
    risk, conditions = _of(RiskState, row["risk"]), _of(Conditions, row["conditions"])
    values = {name: row[name] for name in ("ts_close", "equity", "exposure", "pending", "other_gross", "other_net")}
    trained, bars_per_year = _trained(header, row["ts_close"])
    decision = decide(
        forecast_of(row, header),
        PortfolioState(**values, risk=risk),
        header.sizing,
        share(header.limits) if header.joint else header.limits,
        header.costs,
        trained=trained,
        bars_per_year=bars_per_year,
        conditions=conditions,
        worth=size_again(row, header) if header.joint else None,
    )
    if row["waiting"] and decision.reason not in (*HALTS, *EXITS):
        return msgspec.structs.replace(decision, target=decision.exposure)
    return decision


def voice_at(header: Header, ts_close: int) -> Voice:
    """The model whose turn it is; the first one before all."""
    return [header.voices[0], *(voice for voice in header.voices if voice.first <= ts_close)][-1]


def _trained(header: Header, ts_close: int) -> tuple[Trained, float]:
    voice = voice_at(header, ts_close)
    none = dict.fromkeys(header.sizing.used_horizons, Shrinkage())
    width = math.nan if voice.width is None else voice.width
    return Trained(none | voice.shrinkage, width), voice.bars_per_year


def _of[S: msgspec.Struct](kind: type[S], values: dict[str, Any]) -> S:
    """Fill a struct; an older log lacks fields that are new, and knows some that are gone."""
    return msgspec.convert({name: value for name, value in values.items() if value is not None}, kind)
