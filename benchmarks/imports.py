"""Imports: wall time of a fresh interpreter, beside one that imports nothing."""

from __future__ import annotations

import subprocess
import sys

from benchmarks.common import Figure, progress, report, side_by_side

__all__ = ["run"]

_REPETITIONS = 9


def run() -> list[Figure]:
    """The package itself, and what a live node needs of it; both figures include the interpreter's own start."""
    progress("imports")
    package, bare = side_by_side(lambda: _start("import lstm_strategy"), lambda: _start("pass"), _REPETITIONS)
    node, engine = side_by_side(
        lambda: _start("from lstm_strategy import LSTMStrategy"),
        lambda: _start("import nautilus_trader.trading.strategy, nautilus_trader.backtest.node"),
        3,
    )
    return [
        Figure(
            name="import lstm_strategy",
            value=package,
            unit="s",
            rival="a bare interpreter",
            rival_value=bare,
            ratio=bare / package,
            target="≤ 0.3 s",
            met=package <= 0.3,
        ),
        Figure(
            name="import LSTMStrategy",
            value=node,
            unit="s",
            rival="NautilusTrader alone",
            rival_value=engine,
            ratio=engine / node,
        ),
    ]


def _start(code: str) -> None:
    subprocess.run([sys.executable, "-c", code], check=True)


if __name__ == "__main__":
    report(run)
