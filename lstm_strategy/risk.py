"""Risk: what the limits remember from bar to bar, as one immutable value; pure."""

from __future__ import annotations

import math

import msgspec

from lstm_strategy.bars import NS_PER_HOUR, format_ns, utc_day
from lstm_strategy.errors import LSTMStrategyError, StateError
from lstm_strategy.formatting import percent
from lstm_strategy.limits import LimitsConfig

__all__ = ["FLAT", "RiskState", "Seen", "advance", "count_order", "halt", "resume"]

FLAT = 1e-4
"""Exposure below which a position counts as none: less than a basis point of equity is dust."""


class Seen(msgspec.Struct, frozen=True):
    """What a bar's close shows beside the equity.

    Parameters
    ----------
    position : float
        Signed quantity held.
    price : float
        The close.
    scale : float
        Causal volatility of one bar's log return, NaN where there is none.
    bar_ns, closed_ns : int
        Length of a bar; the longest time between two closes that is the market being closed.
    result : float
        What this name alone has gained or lost so far, in quote currency; NaN where it has the account to itself.
    """

    position: float
    price: float
    scale: float = math.nan
    bar_ns: int = 0
    closed_ns: int = 0
    result: float = math.nan


class RiskState(msgspec.Struct, frozen=True):
    """What the limits remember from bar to bar. Days and hours are UTC; a bar that closes with one ends it.

    Parameters
    ----------
    daily_halt, drawdown_halt, ordered_halt : bool
        The last two are latched: `resume` lifts them. ``halt_text`` says what happened, ``resume_text`` why the last
        one was lifted.
    hour, orders_hour, orders_day, turnover_day
        The running hour, and what was ordered in it and in ``day``; turnover is in units of equity.
    ts_close, price, scale, position
        Of the last bar seen; 0 where not known.
    side, side_since : int
        Side of the market last taken, and since when.
    trade_equity, losses, cooldown_until
        Equity before the running position was opened; losing positions in a row; until when they forbid an increase.
    fenced, stale : bool
        Whether the last bar jumped the price fence, or came after too many missing ones.
    result : float
        As last seen; ``trade_equity`` is of the same kind, where names share the equity.
    """

    day: int
    equity: float
    day_start_equity: float
    peak_equity: float
    daily_halt: bool = False
    drawdown_halt: bool = False
    ordered_halt: bool = False
    halt_text: str = ""
    resume_text: str = ""
    hour: int = 0
    orders_hour: int = 0
    orders_day: int = 0
    turnover_day: float = 0.0
    ts_close: int = 0
    price: float = 0.0
    scale: float = 0.0
    position: float = 0.0
    side: int = 0
    side_since: int = 0
    trade_equity: float = 0.0
    losses: int = 0
    cooldown_until: int = 0
    fenced: bool = False
    stale: bool = False
    result: float = 0.0

    @classmethod
    def start(cls, ts_close: int, equity: float, position: float = 0.0) -> RiskState:
        """Begin with no loss behind; a position that is there already is no turnover."""
        side = (position > 0.0) - (position < 0.0)
        return cls(
            day=utc_day(ts_close),
            equity=equity,
            day_start_equity=equity,
            peak_equity=equity,
            position=position,
            side=side,
            side_since=ts_close if side else 0,
            trade_equity=equity,
        )

    def encode(self) -> bytes:
        """Return the state as MessagePack."""
        return msgspec.msgpack.encode(self)

    @classmethod
    def decode(cls, content: bytes) -> RiskState:
        """Read what `encode` wrote; an older state lacks what it did not know.

        Raises
        ------
        LSTMStrategyError
            For anything else: going on without it might forget a halt.
        """
        try:
            return msgspec.msgpack.decode(content, type=cls)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise StateError(
                f"the saved risk state is damaged ({error}); a halt may be lost: look at the account, then remove it"
            ) from None


def advance(risk: RiskState, ts_close: int, equity: float, limits: LimitsConfig, seen: Seen | None = None) -> RiskState:
    """Return the limits' state after a bar closed with this equity; an equity that is not finite tells them nothing.

    The same bar may be seen again. Without ``seen`` only the losses are looked at.
    """
    if not math.isfinite(equity):
        return risk
    day, hour = utc_day(ts_close), (ts_close - 1) // NS_PER_HOUR
    # A clock that was set back brings no new day: what the day has lost and ordered counts until the next one begins.
    new_day, new_hour = day > risk.day, hour > risk.hour
    day, hour = max(day, risk.day), max(hour, risk.hour)
    day_start = risk.equity if new_day else risk.day_start_equity
    peak = max(risk.peak_equity, equity)
    drawdown_halt, text = risk.drawdown_halt, risk.halt_text
    if equity <= peak * (1.0 - limits.max_drawdown) and not drawdown_halt:
        drawdown_halt = True
        below = percent(1.0 - equity / peak, 2)
        text = f"{format_ns(ts_close)}: equity {equity:.10g} is {below} below its peak, {peak:.10g}"
    turnover = 0.0 if new_day else risk.turnover_day
    side, since, opening = risk.side, risk.side_since, risk.trade_equity
    losses, cooldown = risk.losses, risk.cooldown_until
    price, scale, position = risk.price, risk.scale, risk.position
    fenced, stale = risk.fenced, risk.stale
    alone = seen is None or math.isnan(seen.result)
    result = risk.result if seen is None or alone else seen.result
    if seen is not None:
        if ts_close != risk.ts_close:
            fenced, stale = _jumped(risk, ts_close, seen, limits), _late(risk, ts_close, seen, limits)
        if seen.position != position and equity > 0.0:
            unit = seen.price / equity
            before, now = _side(position * unit), _side(seen.position * unit)
            turnover += abs(seen.position - position) * unit
            if before != now:
                if before:  # a position is over
                    losses = losses + 1 if (equity if alone else result) < opening else 0
                    if limits.max_losses is not None and losses >= limits.max_losses:
                        losses, cooldown = 0, ts_close + round(limits.cooldown_hours * NS_PER_HOUR)
                now_worth, was_worth = (equity, risk.equity) if alone else (result, risk.result)
                opening = now_worth if before else was_worth
            if now and now != side:
                side, since = now, ts_close
        price, position = seen.price, seen.position
        if math.isfinite(seen.scale):
            scale = seen.scale
    return RiskState(
        day,
        equity,
        day_start,
        peak,
        (risk.daily_halt and not new_day) or equity <= day_start * (1.0 - limits.daily_loss),
        drawdown_halt,
        risk.ordered_halt,
        text,
        risk.resume_text,
        hour,
        0 if new_hour else risk.orders_hour,
        0 if new_day else risk.orders_day,
        turnover,
        ts_close,
        price,
        scale,
        position,
        side,
        since,
        opening,
        losses,
        cooldown,
        fenced,
        stale,
        result,
    )


def count_order(risk: RiskState) -> RiskState:
    """Return the state after one more order was sent on the last bar's decision."""
    return msgspec.structs.replace(risk, orders_hour=risk.orders_hour + 1, orders_day=risk.orders_day + 1)


def halt(risk: RiskState, reason: str) -> RiskState:
    """Latch a halt that somebody ordered, for a stated reason."""
    return msgspec.structs.replace(risk, ordered_halt=True, halt_text=_stated("halt", reason))


def resume(risk: RiskState, reason: str) -> RiskState:
    """Lift latched halts for a stated reason: the peak starts anew at today's equity. A daily halt stays.

    Raises
    ------
    LSTMStrategyError
        Without a reason.
    """
    return msgspec.structs.replace(
        risk,
        peak_equity=risk.equity,
        drawdown_halt=False,
        ordered_halt=False,
        halt_text="",
        resume_text=_stated("resume", reason),
    )


def _stated(what: str, reason: str) -> str:
    if not reason.strip():
        raise LSTMStrategyError(f"the reason to {what} is empty; say in a few words why")
    return reason.strip()


def _side(exposure: float) -> int:
    return 0 if abs(exposure) < FLAT else 1 if exposure > 0.0 else -1


def _jumped(risk: RiskState, ts_close: int, seen: Seen, limits: LimitsConfig) -> bool:
    """Compare two closes; the deviation is the one known before this bar, which would widen its own fence."""
    if not risk.price > 0.0:
        return False
    if limits.price_fence is not None and abs(seen.price / risk.price - 1.0) > limits.price_fence:
        return True
    if limits.price_fence_scales is None or not risk.scale > 0.0:
        return False
    bars = max((ts_close - risk.ts_close) / seen.bar_ns, 1.0) if seen.bar_ns else 1.0
    return abs(math.log(seen.price / risk.price)) > limits.price_fence_scales * risk.scale * math.sqrt(bars)


def _late(risk: RiskState, ts_close: int, seen: Seen, limits: LimitsConfig) -> bool:
    if limits.max_stale_bars is None or not risk.ts_close:
        return False
    return ts_close - risk.ts_close > max((limits.max_stale_bars + 1) * seen.bar_ns, seen.closed_ns)
