"""Halts that somebody ordered: who did, in words, and what a run's event log tells of them."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import msgspec

from lstm_strategy.bars import format_ns

__all__ = ["HaltOrdered", "orderer", "read_ordered"]

_SIGNAL, _KILL, _DASHBOARD = "signal ", "KILL: ", "dashboard: "
_SECOND_NS = 1_000_000_000


class HaltOrdered(NamedTuple):
    """A halt at the moment it was ordered: the venue's time (ns UTC), the reason given, and what was held.

    ``held``: signed quantities by instrument.
    """

    ts: int
    reason: str
    held: dict[str, str]

    @property
    def words(self) -> str:
        """Who ordered what, and what is closed."""
        held = ", ".join(f"{quantity} {name}" for name, quantity in self.held.items())
        closing = f"cancels orders, closes {held}" if held else "cancels orders; no position is open"
        when = format_ns(self.ts // _SECOND_NS * _SECOND_NS)
        return f"{when} a halt was ordered by {orderer(self.reason)}: {closing}"


def orderer(reason: str) -> str:
    """Return who ordered a halt, by how its reason begins."""
    for begins, who in ((_SIGNAL, "signal"), (_KILL, "the kill file"), (_DASHBOARD, "the dashboard's button")):
        if reason.startswith(begins):
            return f"{who} ({reason.removeprefix(begins)})"
    return f"order_halt ({reason})"


class _Line(msgspec.Struct):
    """What is read of a line of an event log."""

    kind: str
    text: str = ""
    instrument: str | None = None


def read_ordered(run: Path) -> list[str]:
    """Return what a run's ``events.jsonl`` tells of ordered halts, oldest first; nothing where there is no such file.

    A line that cannot be read is left out: a node that is killed may leave half of one.
    """
    files = sorted(run.glob("events.jsonl*"), key=lambda path: path.name, reverse=True)  # .3, .2, .1, then the newest
    found = []
    for file in files:
        for content in file.read_bytes().splitlines():
            try:
                line = msgspec.json.decode(content, type=_Line)
            except msgspec.MsgspecError:
                continue
            if line.kind == "ordered":
                found.append(f"{line.instrument}: {line.text}" if line.instrument else line.text)
    return found
