"""Which model speaks at which bar: a walk-forward's artefacts in turn, or forecasts that were recorded before."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lstm_strategy import artefact
from lstm_strategy.bars import Bars, Stamps, format_ns, parse_ns
from lstm_strategy.decision import Shrinkage
from lstm_strategy.errors import LSTMStrategyError, first_line_of
from lstm_strategy.features import Features
from lstm_strategy.fold_index import read_fold_index
from lstm_strategy.forecast import Float32, Forecasts

__all__ = ["Schedule", "Turn", "newest_evaluation", "read_schedule", "recording", "require_same_bars", "turn_of"]
__all__ += ["walk_forward_schedule"]

_ROW = ("ts_close", "instrument", "horizon", "model_version")


class Turn(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One model's turn.

    Parameters
    ----------
    version : str
        As in the recorded table's ``model_version``.
    first, last : int
        Bars that close from ``first`` to ``last``, both included, are forecast by it; nanoseconds.
    trained_until : int, optional
        Close of the last bar that it learned from; it must lie before ``first``. None where nothing was learned, or
        where the run that recorded it has judged that already.
    folder : str, optional
        The artefact's; None where only its forecasts are at hand.
    shrinkage : tuple of Shrinkage [H]
    baseline : [H][Q]
        Constant quantiles of its training span in units of σ√h; empty where there are none.
    trials : int
        Trials that led to its settings.
    position : bool
        Whether it has learned a position beside its quantiles.
    """

    version: str
    first: int
    last: int
    trained_until: int | None = None
    folder: str | None = None
    shrinkage: tuple[Shrinkage, ...]
    bars_per_year: float
    baseline: list[list[float]] = msgspec.field(default_factory=list)
    trials: int = 1
    position: bool = False


class Schedule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The turns of one instrument in time order. Bars in nobody's turn get no forecast.

    ``recorded`` is the Parquet file of the forecasts, as `Forecasts.to_table` makes it; None where the artefacts
    themselves step. ``evaluation`` is the folder of the evaluation that they come from, if any. ``adapted``: what was
    recorded is what a run said, its adaptive calibration included, and is said again as it is.

    Raises
    ------
    LSTMStrategyError
        Where turns overlap, where one has learned from bars that it would forecast at, or has nothing to step with.
    """

    name: str
    label: str
    instrument_id: str
    timeframe: str
    horizons: tuple[int, ...]
    levels: tuple[float, ...]
    closed_hours: float
    turns: tuple[Turn, ...]
    recorded: str | None = None
    evaluation: str | None = None
    adapted: bool = False

    def __post_init__(self) -> None:
        if not self.turns:
            raise LSTMStrategyError(f"{self.label} has no forecast of {self.instrument_id}; evaluate it first")
        for turn in self.turns:
            if turn.trained_until is not None and turn.trained_until >= turn.first:
                raise LSTMStrategyError(
                    f"{self.label}: model {turn.version} has learned from bars up to {format_ns(turn.trained_until)},"
                    f" but is to forecast from {format_ns(turn.first)} on; it would know the future: evaluate again"
                )
            if self.recorded is None and turn.folder is None:
                raise LSTMStrategyError(f"{self.label}: of {turn.version} there is no artefact to step with")
        for before, after in pairwise(self.turns):
            if not before.first <= before.last < after.first <= after.last:
                raise LSTMStrategyError(
                    f"{self.label}: the spans of {before.version} and {after.version} overlap; a bar has one model"
                )

    @property
    def closed_ns(self) -> int:
        """The longest time between two closes that is the market being closed."""
        return round(self.closed_hours * 3_600e9)

    @property
    def trials(self) -> int:
        """Most trials behind any of the turns."""
        return max(turn.trials for turn in self.turns)


def turn_of(loaded: artefact.Artefact, instrument_id: str, first: int, last: int) -> Turn:
    """Return the turn of an artefact that forecasts from the bar closed at ``first`` to that closed at ``last``."""
    manifest = loaded.manifest
    return Turn(
        version=manifest.version,
        first=first,
        last=last,
        trained_until=loaded.trained_until,
        shrinkage=tuple(manifest.shrinkage),
        bars_per_year=loaded.require_instrument(instrument_id).bars_per_year,
        baseline=manifest.baseline,
        trials=int(getattr(manifest, "trials", None) or 1),
        position=manifest.has_position,
    )


def newest_evaluation(runs: Path, name: str, wanted: str | None = None) -> Path:
    """Return the folder of the experiment's newest evaluation, or of the one called ``wanted``."""
    found = sorted((runs / name).glob("evaluation-*/folds.json"), key=lambda path: path.stat().st_mtime)
    if wanted is not None:
        found = [path for path in found if path.parent.name == wanted]
    if not found:
        told = f"no evaluation {wanted or ''}".rstrip()
        raise LSTMStrategyError(f"{runs / name} holds {told}; make one with: lstm-strategy evaluate EXPERIMENT.toml")
    return found[-1].parent


def walk_forward_schedule(
    evaluation: Path, instrument_id: str, *, seed: int | None = None, recorded: bool = True
) -> Schedule:
    """Return the turns of an evaluation's folds: each model speaks at the bars of its own test span, and no others.

    Parameters
    ----------
    evaluation : Path
        The folder with folds.json and forecasts.parquet.
    seed : int, optional
        Which of the seeds trades; the lowest where not given.
    recorded : bool
        Whether the recorded forecasts are used; else the artefacts step through the bars. Both give the same orders.
    """
    path = evaluation / "folds.json"
    rows = read_fold_index(path).folds
    seeds = sorted({row.seed for row in rows})
    if seed is not None and seed not in seeds:
        raise LSTMStrategyError(f"model.seed is {seed}; {path} holds {', '.join(map(str, seeds))}")
    turns, manifests = [], []
    for row in rows:
        if row.seed != (seeds[0] if seed is None else seed):
            continue
        folder = (evaluation / row.path).resolve()
        loaded = artefact.load(folder)
        if loaded.manifest.digest != row.digest:
            raise LSTMStrategyError(f"{folder} is not the model that {path} names; evaluate again")
        turn = turn_of(loaded, instrument_id, parse_ns(row.test_start) + 1, parse_ns(row.test_end))
        turns.append(msgspec.structs.replace(turn, folder=str(folder)))
        manifests.append(loaded.manifest)
    first = manifests[0]
    for manifest in manifests[1:]:
        if (manifest.horizons, manifest.levels, manifest.timeframe) != (first.horizons, first.levels, first.timeframe):
            raise LSTMStrategyError(f"{path}: its folds forecast different horizons or levels; evaluate again")
    return Schedule(
        name=first.name,
        label=f"{first.name}/{evaluation.name}",
        instrument_id=instrument_id,
        timeframe=first.timeframe,
        horizons=first.horizons,
        levels=first.levels,
        closed_hours=first.features.closed_hours,
        turns=tuple(sorted(turns, key=lambda turn: turn.first)),
        recorded=str(evaluation / "forecasts.parquet") if recorded else None,
        evaluation=str(evaluation),
    )


def read_schedule(path: Path) -> Schedule:
    """Read a schedule from JSON."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Schedule)
    except (OSError, msgspec.MsgspecError) as error:
        raise LSTMStrategyError(f"{path} is no schedule of models: {error}") from None


def recording(schedule: Schedule) -> Forecasts:
    """Read a schedule's recorded forecasts, each model's own turn alone; one row a bar that has one, in time order."""
    path = Path(str(schedule.recorded))
    try:
        told = [name for name in ("position",) if name in pq.read_schema(path).names]
        table = pq.read_table(
            path,
            columns=[*_ROW, "levels", "quantiles", "scale", *told],
            filters=[("instrument", "=", schedule.instrument_id)],
        )
    except (OSError, pa.ArrowException) as error:
        raise LSTMStrategyError(f"{path} cannot be used: {first_line_of(error)}; record it again") from None
    stamps, versions = _stamps(table), table["model_version"].to_numpy(zero_copy_only=False)
    rows: Any = np.zeros(len(table), bool)
    for turn in schedule.turns:
        rows |= (versions == turn.version) & (stamps >= turn.first) & (stamps <= turn.last)
    table = table.take(pa.array(np.flatnonzero(rows))).combine_chunks()
    shape = (-1, len(schedule.horizons), len(schedule.levels))
    levels = np.asarray(pc.list_flatten(table["levels"]))
    order = np.lexsort((table["horizon"].to_numpy(), _stamps(table)))
    grid = table["horizon"].to_numpy()[order].reshape(-1, shape[1]) if len(order) % shape[1] == 0 else np.empty((0, 0))
    ts_close = _stamps(table)[order].reshape(grid.shape) if grid.size else np.empty((0, 0), np.int64)
    whole = grid.size and (grid == schedule.horizons).all() and (ts_close == ts_close[:, :1]).all()
    if not whole or (np.diff(ts_close[:, 0]) <= 0).any() or (levels.reshape(-1, shape[2]) != schedule.levels).any():
        raise LSTMStrategyError(
            f"{path}: the forecasts of {schedule.instrument_id} are not one row for each bar and horizon"
            f" {list(schedule.horizons)} at the same levels; record them again"
        )
    quantiles: Float32 = np.asarray(pc.list_flatten(table["quantiles"]), np.float32).reshape(-1, shape[2])
    return Forecasts(
        schedule.instrument_id,
        schedule.horizons,
        schedule.levels,
        ts_close[:, 0],
        quantiles[order].reshape(shape),
        *(table[name].to_numpy()[order].reshape(grid.shape)[:, 0] for name in ("scale", *told)),
    )


def require_same_bars(schedule: Schedule, bars: Bars) -> None:
    """Refuse recorded forecasts whose scale is not that of the bars at hand: these have changed since.

    The features of each turn's artefact are run over the bars; the scale is a running figure, so that it differs from
    the first changed price on.
    """
    if schedule.recorded is None:
        return
    found = recording(schedule)
    for turn in schedule.turns:
        if turn.folder is None:
            continue
        loaded, known = artefact.load(Path(turn.folder)), bars.between(None, turn.last)
        fit = loaded.require_instrument(schedule.instrument_id)
        scale_T = Features(loaded.manifest.features, bars.timeframe, fit.tick, fit.scale_floor).run(known).scale_T
        kept = (found.ts_close >= turn.first) & (found.ts_close <= turn.last)
        ts_close, rows = found.ts_close[kept], np.searchsorted(known.ts_close, found.ts_close[kept])
        same = rows < len(known)
        rows = np.minimum(rows, len(known) - 1)
        same &= known.ts_close[rows] == ts_close
        same &= np.isclose(scale_T[rows], found.scale_T[kept], rtol=1e-9, atol=0.0)
        if not same.all():
            raise LSTMStrategyError(
                f"{schedule.label}: the bars of {schedule.instrument_id} have changed since it was recorded, first at"
                f" or before {format_ns(int(ts_close[int(same.argmin())]))}; run lstm-strategy evaluate again"
            )


def _stamps(table: pa.Table) -> Stamps:
    return np.asarray(table["ts_close"].cast(pa.int64()).to_numpy(), np.int64)
