"""Lifting latched halts in what a strategy keeps: which there are, and the state without them; never without why."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.risk import RiskState, resume
from lstm_strategy.state_file import Kept, SeatState, unpack_seats

__all__ = ["latched", "lift", "risks_of"]


def latched(risks: Mapping[str, RiskState | None], ordered: str = "") -> dict[str, list[str]]:
    """Return which halts somebody must lift, ``drawdown`` and ``ordered``, by instrument; none that has none.

    Parameters
    ----------
    ordered : str
        Why somebody halted them all; empty where nobody did.
    """
    found = {}
    for name, risk in risks.items():
        drawdown, halted = (False, False) if risk is None else (risk.drawdown_halt, risk.ordered_halt)
        halts = [halt for halt, on in (("drawdown", drawdown), ("ordered", halted or bool(ordered))) if on]
        if halts:
            found[name] = halts
    return found


def risks_of(kept: Kept) -> dict[str, RiskState]:
    """Return the limits' memory by instrument.

    Raises
    ------
    LSTMStrategyError
        Where it cannot be read.
    """
    found: dict[str, RiskState] = {}

    def look(name: str, risk: RiskState) -> RiskState:
        found[name] = risk
        return risk

    _through(kept, look)
    return found


def lift(kept: Kept, reason: str) -> Kept:
    """Return the state without its latched halts: the peak starts anew, a loss of the day stays (see `risk.resume`)."""
    parts = _through(kept, lambda _, risk: resume(risk, reason) if latched({"": risk}) else risk)
    return msgspec.structs.replace(kept, ordered="", parts=parts)


def _through(kept: Kept, change: Callable[[str, RiskState], RiskState]) -> dict[str, bytes]:
    """Return the parts with every instrument's risk state changed."""
    parts = dict(kept.parts)
    if "risk" in parts:
        parts["risk"] = change(next(iter(kept.models), ""), RiskState.decode(parts["risk"])).encode()
    if "seats" in parts:
        packed = unpack_seats(parts["seats"])
        try:
            seats = {name: msgspec.msgpack.decode(content, type=SeatState) for name, content in packed.items()}
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise LSTMStrategyError(f"the saved state of {kept.strategy_id} is damaged ({error})") from None
        for name, seat in seats.items():
            if seat.risk is not None:
                risk = change(name, RiskState.decode(seat.risk)).encode()
                seats[name] = msgspec.structs.replace(seat, risk=risk)
        parts["seats"] = msgspec.msgpack.encode({name: msgspec.msgpack.encode(seat) for name, seat in seats.items()})
    return parts
