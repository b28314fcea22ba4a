"""``python -m lstm_strategy``: the command line, as ``lstm-strategy``."""

from __future__ import annotations

from lstm_strategy.cli import main

__all__ = ()

main()
