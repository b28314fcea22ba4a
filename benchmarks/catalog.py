"""Catalog: writing a million bars as arrays, beside the engine's own writer fed with its own Bar objects."""

from __future__ import annotations

import tempfile
from pathlib import Path

from nautilus_trader.model.data import Bar
from nautilus_trader.model.objects import Price, Quantity
from nautilus_trader.persistence.catalog import ParquetDataCatalog

from benchmarks.common import Figure, market, progress, report, side_by_side
from lstm_strategy.bars import Bars
from lstm_strategy.nautilus.catalog import bar_type, write_catalog

__all__ = ["run"]

_BARS, _SOME, _REPETITIONS = 1_000_000, 50_000, 3


def run() -> list[Figure]:
    """Ours writes the million, checked for decimals; the engine's way is measured on fewer bars and scaled up."""
    progress("catalog")
    bars, instrument = market(_BARS, "1m")
    with tempfile.TemporaryDirectory() as folder:
        count = iter(range(100))

        def ours() -> None:
            write_catalog(Path(folder) / f"ours{next(count)}", bars, instrument)

        def engine() -> None:
            _write_objects(Path(folder) / f"engine{next(count)}", bars[:_SOME])

        seconds, engine_seconds = side_by_side(ours, engine, _REPETITIONS)
    engine_seconds *= _BARS / _SOME
    return [
        Figure(
            name="catalog write of 1,000,000 bars",
            value=seconds,
            unit="s",
            rival="Bar objects and write_data",
            rival_value=engine_seconds,
            ratio=engine_seconds / seconds,
            target="≤ 5 s",
            met=seconds <= 5.0,
        )
    ]


def _write_objects(root: Path, bars: Bars) -> None:
    kind = bar_type(bars.instrument_id, bars.timeframe)
    found = [
        Bar(
            kind,
            Price(bar.open, 2),
            Price(bar.high, 2),
            Price(bar.low, 2),
            Price(bar.close, 2),
            Quantity(bar.volume, 3),
            bar.ts_close,
            bar.ts_close,
        )
        for bar in bars
    ]
    ParquetDataCatalog(root).write_data(found)


if __name__ == "__main__":
    report(run)
