"""Where commands speak: people read standard error, programs read one JSON object on standard output."""

from __future__ import annotations

import os
import sys
from typing import Any

import msgspec
from rich.console import Console

__all__ = ["console", "emit_json"]

_PIPED = 170  # columns where nobody's window says how many: a table in a file is not to break what one copies


def _width() -> int | None:
    """Return the width of what is no terminal; None lets a terminal, or COLUMNS, say its own."""
    return None if Console(stderr=True).is_terminal or os.environ.get("COLUMNS") else _PIPED


console = Console(stderr=True, width=_width())


def emit_json(result: Any) -> None:
    """Print one object on standard output; numbers that are not finite become null."""
    sys.stdout.write(msgspec.json.encode(result).decode() + "\n")
    sys.stdout.flush()
