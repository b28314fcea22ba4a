"""What a backtest trades on, an artefact or a schedule of them: for the strategy a path, for the summary the facts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import numpy as np
import pyarrow as pa

from lstm_strategy.artefact import Artefact
from lstm_strategy.bars import Float, Stamps
from lstm_strategy.forecast import Forecasts
from lstm_strategy.schedule import Schedule, Turn, turn_of

__all__ = ["Source", "of_artefact", "of_schedule", "on_disk", "recorded_from"]

_ALWAYS = (0, 2**62)


@dataclass(frozen=True, slots=True)
class Source:
    """The facts about what speaks.

    ``trained_until`` is None where every bar's model is known to be older than the bar. ``spans`` are (first, last,
    version, baseline [H][Q]), in time order, first and last as in `Turn`.
    """

    name: str
    label: str
    horizons: tuple[int, ...]
    levels: tuple[float, ...]
    closed_hours: float
    trained_until: int | None
    trials: int
    spans: tuple[tuple[int, int, str, list[list[float]]], ...]

    @property
    def closed_ns(self) -> int:
        """The longest time between two closes that is the market being closed."""
        return round(self.closed_hours * 3_600e9)

    def baseline(self, ts_close: Stamps) -> Float:
        """Return the constant quantiles of the model whose turn each bar is, float64 [T, H, Q]; NaN where none."""
        found = np.full((len(ts_close), len(self.horizons), len(self.levels)), np.nan)
        for first, last, _, table in self.spans:
            if table:
                found[(ts_close >= first) & (ts_close <= last)] = table
        return found

    def to_table(self, forecasts: Forecasts) -> pa.Table:
        """Return the forecasts with the version that made each."""
        table = forecasts.to_table(self.label)
        if {version for _, _, version, _ in self.spans} == {self.label}:
            return table
        stamps = table["ts_close"].cast(pa.int64()).to_numpy()
        firsts = np.array([first for first, _, _, _ in self.spans])
        versions = pa.array([version for _, _, version, _ in self.spans], pa.string())
        rows = np.maximum(np.searchsorted(firsts, stamps, side="right") - 1, 0)
        index = table.schema.get_field_index("model_version")
        return table.set_column(index, "model_version", versions.take(pa.array(rows)))


def of_artefact(loaded: Artefact) -> Source:
    """Return the facts about one artefact, which speaks at every bar."""
    manifest = loaded.manifest
    label = f"{manifest.name}/{manifest.version}"
    return Source(
        name=manifest.name,
        label=label,
        horizons=manifest.horizons,
        levels=manifest.levels,
        closed_hours=manifest.features.closed_hours,
        trained_until=loaded.trained_until,
        trials=int(getattr(manifest, "trials", None) or 1),
        spans=((*_ALWAYS, label, manifest.baseline),),
    )


def of_schedule(schedule: Schedule) -> Source:
    """Return the facts about a schedule."""
    return Source(
        name=schedule.name,
        label=schedule.label,
        horizons=schedule.horizons,
        levels=schedule.levels,
        closed_hours=schedule.closed_hours,
        trained_until=None,
        trials=schedule.trials,
        spans=tuple((turn.first, turn.last, turn.version, turn.baseline) for turn in schedule.turns),
    )


@contextmanager
def on_disk(model: Path | Schedule) -> Iterator[Path]:
    """Yield what a strategy's ``model`` setting takes; a schedule's file is gone afterwards."""
    if isinstance(model, Path):
        yield model
        return
    with TemporaryDirectory(prefix="lstm-strategy-") as folder:
        path = Path(folder) / "schedule.json"
        path.write_bytes(msgspec.json.encode(model))
        yield path


def recorded_from(model: Artefact | Schedule, instrument_id: str, forecasts: Path) -> Schedule:
    """Return the schedule that says again what a run's forecasts.parquet holds; whoever made that run judged it.

    A walk-forward's are those of its evaluation, where they lie as well.
    """
    if isinstance(model, Schedule):
        if model.evaluation is None:
            return msgspec.structs.replace(model, recorded=str(forecasts), adapted=True)
        return msgspec.structs.replace(model, recorded=str(Path(model.evaluation) / "forecasts.parquet"))
    manifest = model.manifest
    turn: Turn = msgspec.structs.replace(
        turn_of(model, instrument_id, *_ALWAYS), version=model.label, trained_until=None
    )
    return Schedule(
        name=manifest.name,
        label=model.label,
        instrument_id=instrument_id,
        timeframe=manifest.timeframe,
        horizons=manifest.horizons,
        levels=manifest.levels,
        closed_hours=manifest.features.closed_hours,
        turns=(turn,),
        recorded=str(forecasts),
        adapted=True,
    )
