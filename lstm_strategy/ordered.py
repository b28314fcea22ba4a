"""A halt that somebody ordered: who did, when, and what was held; in words."""

from __future__ import annotations

from typing import NamedTuple

from lstm_strategy.bars import format_ns

__all__ = ["HaltOrdered", "bought", "orderer"]

_SIGNAL, _KILL, _DASHBOARD = "signal ", "KILL: ", "dashboard: "
_SECOND_NS = 1_000_000_000


class HaltOrdered(NamedTuple):
    """A halt at the moment it was ordered: the venue's time (ns UTC), the reason given, what was held and under way.

    ``held``: signed quantities by instrument. ``under_way``: likewise, what orders sent before may still add to that.
    """

    ts: int
    reason: str
    held: dict[str, str]
    under_way: dict[str, str]

    @property
    def words(self) -> str:
        """Who ordered what, and what is closed."""
        held = ", ".join(f"{quantity} {name}" for name, quantity in self.held.items())
        closing = f"cancels orders, closes {held}" if held else "cancels orders"
        if self.under_way:
            coming = " and ".join(f"a {bought(quantity)} {name}" for name, quantity in self.under_way.items())
            closing += f"; {coming} under way: what still fills of it is closed"
        elif not held:
            closing += "; no position is open"
        when = format_ns(self.ts // _SECOND_NS * _SECOND_NS)
        return f"{when} a halt was ordered by {orderer(self.reason)}: {closing}"


def bought(quantity: str) -> str:
    """Return what a signed quantity of an order is in words, such as ``buy of 1.5``."""
    return f"{'sell' if quantity.startswith('-') else 'buy'} of {quantity.removeprefix('-')}"


def orderer(reason: str) -> str:
    """Return who ordered a halt, by how its reason begins."""
    for begins, who in ((_SIGNAL, "signal"), (_KILL, "the kill file"), (_DASHBOARD, "the dashboard's button")):
        if reason.startswith(begins):
            return f"{who} ({reason.removeprefix(begins)})"
    return f"order_halt ({reason})"
