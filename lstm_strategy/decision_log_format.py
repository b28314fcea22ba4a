"""The decision log's format: a header of settings, a row a bar, and the columns that both become."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple, get_type_hints

import msgspec
import numpy as np
import pyarrow as pa

from lstm_strategy.bars import Bar
from lstm_strategy.decision import Conditions, Decision, PortfolioState
from lstm_strategy.forecast import Float32, Forecast
from lstm_strategy.limits import LimitsConfig
from lstm_strategy.risk import RiskState
from lstm_strategy.sizing import Costs, Shrinkage, Sized, SizingConfig

__all__ = ["CONDITIONS", "DECISIONS", "HEADER", "SCHEMA", "STAMP", "Entry", "Header", "Voice", "to_table"]

HEADER = b"lstm_strategy.decision_log"
STAMP = pa.timestamp("ns", "UTC")

DECISIONS = pa.schema(
    [
        ("ts_close", STAMP),
        ("instrument", pa.string()),
        ("target", pa.float64()),
        ("exposure", pa.float64()),
        ("reason", pa.string()),
        ("bound", pa.list_(pa.string())),
        ("action", pa.string()),
        ("quantity", pa.float64()),
        ("price", pa.float64()),
        ("equity", pa.float64()),
    ]
)
"""The columns that every record of decisions has; the log adds what they were made from."""

_KINDS = {int: pa.int64(), float: pa.float64(), bool: pa.bool_()}


def _struct(kind: type[msgspec.Struct] | type[Sized]) -> pa.StructType:
    """Return a column of a struct's fields; what is neither number nor truth is text."""
    return pa.struct([(name, _KINDS.get(of, pa.string())) for name, of in get_type_hints(kind).items()])


CONDITIONS, _RISK, _WORTH = _struct(Conditions), _struct(RiskState), _struct(Sized)
SCHEMA = pa.schema(
    [
        *DECISIONS,
        *((name, pa.float64()) for name in ("open", "high", "low", "volume", "position", "pending")),
        *((name, pa.float64()) for name in ("other_gross", "other_net", "scale", "forecast_position")),
        ("model", pa.string()),
        ("cancel_opening", pa.bool_()),
        ("waiting", pa.bool_()),
        *((name, pa.list_(pa.float32())) for name in ("features", "raw", "quantiles")),
        ("conditions", CONDITIONS),
        ("risk", _RISK),
        ("worth", _WORTH),
    ]
)


class Voice(msgspec.Struct, frozen=True, kw_only=True):
    """What training knows of the model that speaks from the bar closed at ``first`` on (see `Trained`)."""

    first: int
    version: str
    shrinkage: dict[int, Shrinkage]
    width: float | None
    bars_per_year: float


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """What holds for all rows of a file: whose decisions they are, by which settings, and what its numbers mean.

    Parameters
    ----------
    features : tuple of str [F]
        Empty where forecasts came without features, as recorded ones do.
    horizons, levels
        Of the forecasts; empty before the first one.
    closed_ns : int
        The longest time between two closes that is the market being closed.
    others : dict
        All other settings that orders may depend on, as plain values.
    joint : bool
        Whether others share the account: a portfolio said what the name is worth, limits held for all together.
    """

    instrument: str
    timeframe: str
    model: str
    sizing: SizingConfig
    limits: LimitsConfig
    costs: Costs
    voices: tuple[Voice, ...]
    features: tuple[str, ...] = ()
    horizons: tuple[int, ...] = ()
    levels: tuple[float, ...] = ()
    closed_ns: int = 0
    others: dict[str, Any] = {}
    joint: bool = False
    version: int = 1


class Entry(NamedTuple):
    """One bar.

    ``x_F`` are the features and ``raw_HQ`` the network's quantiles in units of σ√h, before calibration; both None where
    there were none. ``waiting``: earlier bars were still on their way, so that nothing but a halt was acted upon.
    ``worth`` is what a portfolio of several names gave this one; the state then counts all names' orders and turnover.
    A bar that was missing has a stamp, the last close before it, and NaN.
    """

    bar: Bar
    forecast: Forecast | None
    x_F: Float32 | None
    raw_HQ: Float32 | None
    model: str
    conditions: Conditions
    state: PortfolioState
    position: float
    decision: Decision
    waiting: bool
    action: str
    quantity: float
    worth: Sized | None = None


def to_table(entries: list[Entry], header: Header) -> pa.Table:
    """Return the rows in the log's schema, the header in its metadata."""
    bars, forecasts, xs, raws, models, conditions, states, positions, decisions, waiting, actions, quantities, worth = (
        zip(*entries, strict=True)
    )
    ts_close, opens, highs, lows, closes, volumes = zip(*bars, strict=True)
    columns: dict[str, Any] = {
        "ts_close": np.array(ts_close, np.int64),
        "instrument": [header.instrument] * len(entries),
        "target": [decision.target for decision in decisions],
        "exposure": [decision.exposure for decision in decisions],
        "reason": [decision.reason.value for decision in decisions],
        "bound": [list(decision.bound) for decision in decisions],
        "action": actions,
        "quantity": quantities,
        "price": closes,
        "equity": [state.equity for state in states],
        "open": opens,
        "high": highs,
        "low": lows,
        "volume": volumes,
        "position": positions,
        "pending": [state.pending for state in states],
        "other_gross": [state.other_gross for state in states],
        "other_net": [state.other_net for state in states],
        "scale": [None if forecast is None else forecast.scale for forecast in forecasts],
        "forecast_position": [None if forecast is None else forecast.position for forecast in forecasts],
        "model": models,
        "cancel_opening": [decision.cancel_opening for decision in decisions],
        "waiting": waiting,
        "features": _lists(xs),
        "raw": _lists(raws),
        "quantiles": _lists([None if forecast is None else forecast.quantiles_HQ for forecast in forecasts]),
        "conditions": _structs(conditions, CONDITIONS),
        "risk": _structs([state.risk for state in states], _RISK),
        "worth": pa.array([None if sized is None else sized._asdict() for sized in worth], _WORTH),
    }
    return pa.table(columns, schema=SCHEMA.with_metadata({HEADER: msgspec.json.encode(header)}))


def _structs(rows: Iterable[msgspec.Struct], kind: pa.StructType) -> pa.Array:
    columns = zip(*map(msgspec.structs.astuple, rows), strict=True)
    arrays = [pa.array(values, field.type) for values, field in zip(columns, kind, strict=True)]
    return pa.StructArray.from_arrays(arrays, fields=list(kind))


def _lists(rows: Any) -> pa.Array:
    """Return one flat list a row, null where there is none."""
    sizes = [0 if row is None else row.size for row in rows]
    ends = np.concatenate([[0], np.cumsum(sizes)])
    known = [row.ravel() for row in rows if row is not None]
    values = np.concatenate(known) if known else np.zeros(0, np.float32)
    offsets = pa.array(ends, pa.int32(), mask=np.array([*(row is None for row in rows), False]))
    return pa.ListArray.from_arrays(offsets, pa.array(values, pa.float32()))
