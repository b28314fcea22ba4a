"""What a node's event log tells of a run: the halts that somebody ordered, and how it ended."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

__all__ = ["read_ending", "read_ordered"]

_FILE = "events.jsonl"


class _Line(msgspec.Struct):
    """What is read of a line."""

    kind: str
    text: str = ""
    instrument: str | None = None


def read_ordered(run: Path) -> list[str]:
    """Return what is told of ordered halts, oldest first; nothing where the run has no event log."""
    lines = (line for line in _lines(run) if line.kind == "ordered")
    return [f"{line.instrument}: {line.text}" if line.instrument else line.text for line in lines]


def read_ending(run: Path) -> str | None:
    """Return why the node ended, "" where somebody stopped it, None where it is not said: it runs, or was killed."""
    *_, last = [None, *(line.text for line in _lines(run) if line.kind in ("start", "stop"))]
    ended = last is not None and last.startswith("ended")
    return last.removeprefix("ended").removeprefix(": ") if ended and last is not None else None


def _lines(run: Path) -> Iterator[_Line]:
    """Yield what can be read, oldest first: a node that is killed may leave half a line."""
    for file in sorted(run.glob(f"{_FILE}*"), key=lambda path: path.name, reverse=True):  # .3, .2, .1, the newest
        for content in file.read_bytes().splitlines():
            try:
                yield msgspec.json.decode(content, type=_Line)
            except msgspec.MsgspecError:
                continue
