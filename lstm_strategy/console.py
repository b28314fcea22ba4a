"""Where commands speak: people read standard error, programs read one JSON object on standard output."""

from __future__ import annotations

import sys
from typing import Any

import msgspec
from rich.console import Console

__all__ = ["console", "emit_json"]

console = Console(stderr=True)


def emit_json(result: Any) -> None:
    """Print one object on standard output; numbers that are not finite become null."""
    sys.stdout.write(msgspec.json.encode(result).decode() + "\n")
    sys.stdout.flush()
