"""Run the benchmarks and print one table: ``python -m benchmarks [NAME ...] [--json FILE] [--strict]``."""

from __future__ import annotations

import argparse
import importlib
import platform
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import msgspec

from benchmarks.common import Figure, print_table

# The demo first, whatever is asked for: a child's peak memory counts its parent's, and that grows.
NAMES = (
    *("demo", "features", "catalog", "download", "imports", "inference", "decision", "portfolio", "backtest"),
    *("live", "training"),
)


def main() -> int:
    """Return 1 where a target is missed and ``--strict`` was asked for, else 0."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}; all where none is named")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    parser.add_argument("--strict", action="store_true", help="fail where a target is missed")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.names if name not in NAMES]
    if unknown:
        parser.error(f"no benchmark {unknown[0]!r}; there are {', '.join(NAMES)}")
    figures: list[Figure] = []
    for name in sorted(set(arguments.names or NAMES), key=NAMES.index):
        figures += importlib.import_module(f"benchmarks.{name}").run()
    print_table(figures)
    if arguments.json:
        arguments.json.write_bytes(msgspec.json.format(msgspec.json.encode(_document(figures)), indent=1))
    return int(arguments.strict and any(figure.met is False for figure in figures))


def _document(figures: list[Figure]) -> dict[str, object]:
    packages = ("lstm-strategy", "nautilus_trader", "torch", "onnxruntime", "numba", "numpy")
    return {
        "when": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "machine": f"{platform.machine()}, {platform.system()}, Python {platform.python_version()}",
        "versions": {name: version(name) for name in packages},
        "figures": figures,
    }


if __name__ == "__main__":
    sys.exit(main())
