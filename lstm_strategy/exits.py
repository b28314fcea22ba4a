"""Exits: where a position's stop and take-profit lie, how a stop trails, and when time is up; pure."""

from __future__ import annotations

import math

import msgspec

from lstm_strategy.forecast import Forecast
from lstm_strategy.reasons import Reason
from lstm_strategy.sizing import require

__all__ = ["ExitState", "ExitsConfig", "deviation", "due", "level_reached", "open_exits", "take_bar"]


class ExitsConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a position ends other than by a new decision; what is None is not used.

    Parameters
    ----------
    stop, take_profit : float
        Distance from the entry, in standard deviations of the forecast over ``horizon`` bars. The stop rests at the
        venue; the take-profit does where there is no stop, and is otherwise looked at when a bar closes.
    horizon : int
        Bars; one of the model's horizons.
    trailing : bool
        Whether the stop follows the closes: it only ever tightens.
    least_move : float
        Part of the stop's distance below which it is not moved: each move takes it off the venue for a moment.
    max_bars : int
        Bars that closed in the position after which it is closed.
    pause_bars : int
        Bars after an exit on which nothing may be opened.
    limit_offset : float
        How far beyond its trigger a stop-limit's limit lies, as a fraction (venues without stop-market orders).
    watchdog_bars : int
        Closes after which a stop that was reached and has not filled gives way to a market order.
    required : bool
        Whether nothing may be opened or added while a stop that should rest at the venue does not.
    """

    stop: float | None = None
    take_profit: float | None = None
    horizon: int = 1
    trailing: bool = False
    least_move: float = 0.1
    max_bars: int | None = None
    pause_bars: int = 0
    limit_offset: float = 0.005
    watchdog_bars: int = 1
    required: bool = True

    def __post_init__(self) -> None:
        for name in ("stop", "take_profit"):
            value = getattr(self, name)
            require(value is None or 0.0 < value < math.inf, f"exits.{name}", value, "above 0")
        for name in ("horizon", "watchdog_bars"):
            require(1 <= getattr(self, name) <= 1_000_000, f"exits.{name}", getattr(self, name), "1 to 1000000")
        require(self.max_bars is None or self.max_bars >= 1, "exits.max_bars", self.max_bars, "1 or above")
        require(self.pause_bars >= 0, "exits.pause_bars", self.pause_bars, "0 or above")
        require(0.0 <= self.least_move < 1.0, "exits.least_move", self.least_move, "0 or above, below 1")
        require(0.0 <= self.limit_offset < 0.5, "exits.limit_offset", self.limit_offset, "0 or above, below 0.5")
        require(not self.trailing or self.stop is not None, "exits.trailing", self.trailing, "false without exits.stop")

    @property
    def active(self) -> bool:
        """Whether anything but a decision ends a position."""
        return self.resting or self.max_bars is not None

    @property
    def resting(self) -> bool:
        """Whether an exit lies at the venue while there is a position."""
        return self.stop is not None or self.take_profit is not None


class ExitState(msgspec.Struct, frozen=True):
    """One position's exits.

    Parameters
    ----------
    side : int
        1 long, -1 short.
    stop, take_profit : float
        Prices; NaN where there is none, or none is known.
    bars : int
        Closed in the position.
    ts_close : int
        Of the last bar taken.
    beyond : int
        Bars in a row at whose close the stop had been reached.
    """

    side: int
    stop: float
    take_profit: float
    bars: int = 0
    ts_close: int = 0
    beyond: int = 0


def deviation(forecast: Forecast | None, horizon: int) -> float:
    """Return the forecast's standard deviation over ``horizon`` bars; NaN without a forecast or that horizon."""
    if forecast is None or horizon not in forecast.horizons:
        return math.nan
    return forecast.std(horizon)


def open_exits(side: int, entry: float, spread: float, config: ExitsConfig, ts_close: int) -> ExitState:
    """Return the exits of a position that was entered at a price.

    Parameters
    ----------
    spread : float
        The forecast's standard deviation, as a log return: levels are ``entry · exp(± multiple · spread)``.
    ts_close : int
        Of the last bar that closed before it.
    """
    stop = _away(entry, -side, config.stop, spread)
    return ExitState(side, stop, _away(entry, side, config.take_profit, spread), ts_close=ts_close)


def take_bar(
    state: ExitState,
    ts_close: int,
    close: float,
    spread: float,
    config: ExitsConfig,
    *,
    bar_ns: int,
    closed_ns: int = 0,
    triggered: bool = False,
) -> ExitState:
    """Return the exits after a bar closed in the position; the same bar twice changes nothing.

    Missing bars count, unless the market was closed. A trailing stop follows the close, and never away from the price.

    Parameters
    ----------
    bar_ns, closed_ns : int
        Length of a bar; the longest time between two closes that is the market being closed.
    triggered : bool
        Whether the venue has triggered the stop.
    """
    if ts_close <= state.ts_close:
        return state
    since = ts_close - state.ts_close
    bars = state.bars + (1 if since <= max(closed_ns, bar_ns) or not state.ts_close else since // bar_ns)
    reached = triggered or level_reached(state, close)
    stop = state.stop
    if config.trailing and not reached:  # once reached it stays where the venue has it
        moved = _away(close, -state.side, config.stop, spread)
        if math.isnan(stop):
            stop = moved
        elif math.isfinite(moved):
            stop = max(stop, moved) if state.side > 0 else min(stop, moved)
    return ExitState(state.side, stop, state.take_profit, bars, ts_close, state.beyond + 1 if reached else 0)


def level_reached(state: ExitState, price: float) -> bool:
    """Say whether a price lies at the stop, or beyond it."""
    return state.side * (price - state.stop) <= 0.0


def due(
    state: ExitState, close: float, config: ExitsConfig, *, resting: bool, limit: float = math.nan
) -> Reason | None:
    """Return why the position is to be closed at market now, None where it is not.

    Parameters
    ----------
    resting : bool
        Whether the stop lies at the venue; one that does not is carried out here.
    limit : float
        The resting stop's own limit price, NaN where it has none: beyond it, it cannot fill.
    """
    if state.beyond:
        jumped = state.side * (close - limit) < 0.0
        if not resting or jumped or state.beyond >= config.watchdog_bars:
            return Reason.STOP_UNFILLED
    if config.stop is not None and state.side * (close - state.take_profit) >= 0.0:
        return Reason.TAKE_PROFIT
    if config.max_bars is not None and state.bars >= config.max_bars:
        return Reason.TIME_STOP
    return None


def _away(price: float, side: int, multiple: float | None, spread: float) -> float:
    return math.nan if multiple is None else price * math.exp(side * multiple * spread)
