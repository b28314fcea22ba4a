"""Status: the values in which a running node shows itself: what it observed, what happened, one snapshot a decision."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import msgspec

from lstm_strategy.coverage import Coverage
from lstm_strategy.decision import Decision
from lstm_strategy.forecast import Forecast
from lstm_strategy.headroom import Headroom, Shared, Yardstick
from lstm_strategy.risk import RiskState

__all__ = ["Event", "Health", "Kind", "Latched", "Observed", "Point", "Snapshot"]

type Kind = Literal["start", "stop", "step", "fill", "refusal", "trouble", "halt", "ordered", "resumed", "swap"]
type Parity = Literal["proved", "unproved", "none"]


class Observed(msgspec.Struct, frozen=True, kw_only=True):
    """One decision as the node hands it over: references and numbers, nothing that takes time to make.

    Parameters
    ----------
    position : float
        Signed quantity held at the close.
    seen : int
        The wall's time, ns UTC.
    lag_s, inference_s : float
        From the bar's close to the decision by the venue's clock, and what features and network took; NaN if unknown.
    parity : "proved", "unproved" or "none"
        "none" where there is nothing to prove, as of recorded forecasts.
    problem : str
        What parity failed at, or what else is wrong with the bars.
    outside : float
        Deviations by which the worst feature lies outside what training saw; NaN if unknown.
    """

    instrument: str
    decision: Decision
    forecast: Forecast | None
    action: str
    quantity: float
    price: float
    equity: float
    risk: RiskState | None
    shared: Shared
    position: float
    yardstick: Yardstick
    model: str
    seen: int
    lag_s: float = math.nan
    inference_s: float = math.nan
    parity: Parity = "none"
    problem: str = ""
    outside: float = math.nan


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something to be told in words.

    Parameters
    ----------
    ts : int
        The wall's time, ns UTC.
    reason : str
        Of a halt that begins, one of `HALTS`.
    quantity : float
        Of a fill, signed.
    """

    kind: Kind
    text: str
    ts: int
    instrument: str = ""
    reason: str = ""
    quantity: float = 0.0


class Latched(msgspec.Struct, frozen=True, kw_only=True):
    """What is latched now, between bars as well: a reason of `HALTS`, or "" where nothing is, and why; ns UTC."""

    reason: str
    text: str
    ts: int


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the engine's clients are connected, and bars on their way; ``since`` by the wall's clock, ns UTC."""

    market_data: bool
    execution: bool
    collecting: bool
    since: int


class Point(NamedTuple):
    """What is kept of a decision for a picture.

    ``low`` and ``high`` are prices of the next close's interval, ``quantity`` was ordered, ``filled`` was traded until
    the next decision, for whatever reason; both are signed.
    """

    number: int
    ts_close: int
    price: float
    exposure: float
    equity: float
    low: float
    high: float
    target: float
    quantity: float
    reason: str
    action: str
    filled: float = 0.0


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """One decision with all that a person wants to see of it.

    Parameters
    ----------
    quantiles : tuple of tuple of float [H, Q]
        Log returns, as in `Forecast`; empty without a forecast, as ``horizons`` and ``levels`` then are.
    day_pnl : float
        Since 00:00 UTC by bar close, in quote currency.
    drawdown : float
        Fall from the peak of equity, as a fraction of it.
    halt : str
        What is latched, in words; empty where nothing is.
    """

    number: int
    instrument: str
    ts_close: int
    price: float
    equity: float
    position: float
    exposure: float
    target: float
    reason: str
    bound: tuple[str, ...]
    action: str
    quantity: float
    day_pnl: float
    drawdown: float
    gross: float
    net: float
    halt: str
    horizons: tuple[int, ...]
    levels: tuple[float, ...]
    quantiles: tuple[tuple[float, ...], ...]
    scale: float
    headroom: tuple[Headroom, ...]
    coverage: tuple[Coverage, ...]
    model: str
    lag_s: float
    inference_s: float
    parity: Parity
    problem: str
