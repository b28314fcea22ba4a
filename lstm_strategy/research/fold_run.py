"""One fold of a walk-forward: train or find its model, check it for leaks, forecast the test span, keep the table."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.torch import load as load_tensors

from lstm_strategy import __version__, artefact
from lstm_strategy.atomic import atomic_write
from lstm_strategy.bars import Bars, format_ns
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.features import FeaturesConfig
from lstm_strategy.forecast import Forecasts
from lstm_strategy.forecaster import Forecaster
from lstm_strategy.hyperparameters import NetworkConfig, TargetConfig, TrainConfig
from lstm_strategy.instrument import Instrument
from lstm_strategy.research.fit import data_hash, fit_spans
from lstm_strategy.research.labels import Sample, build_sample
from lstm_strategy.research.leaks import require_future_unseen, require_labels, require_purge, require_scaler
from lstm_strategy.research.walk_forward import Fold
from lstm_strategy.tune_config import NOT_TUNED, TuneConfig

__all__ = ["BaselineMaker", "Plan", "baseline_part", "read_part", "run_baseline", "run_network", "test_samples"]

type BaselineMaker = Any  # a callable without arguments that returns a `Baseline`


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """What all folds share; ``models`` keeps their artefacts, ``parts`` their tables."""

    name: str
    history: tuple[tuple[Bars, Instrument], ...]
    features: FeaturesConfig
    target: TargetConfig
    network: NetworkConfig
    train: TrainConfig
    models: Path
    parts: Path
    tuned: TuneConfig = NOT_TUNED


class NoMemoryError(LSTMStrategyError):
    """A fold that needs more memory than its process can have."""


def _within_memory[**P, R](work: Callable[P, R]) -> Callable[P, R]:
    """Say in one line that memory ran out; torch says so by a RuntimeError, numpy and pyarrow by a MemoryError."""

    @wraps(work)
    def told(*arguments: P.args, **named: P.kwargs) -> R:
        try:
            return work(*arguments, **named)
        except (MemoryError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and not re.search("allocate memory|out of memory", str(error)):
                raise
            raise NoMemoryError(
                "out of memory; try fewer --workers, a smaller train.batch or network.hidden, or fewer instruments"
            ) from None

    return told


@_within_memory
def run_network(plan: Plan, fold: Fold, seed: int, parent: Path | None = None) -> tuple[Path, Path]:
    """Return the fold's table and its artefact's folder; what a former run finished for the same bars is kept.

    ``parent`` is the artefact whose weights the training goes on from.
    """
    known = _until(plan, fold.spans["calibrate"][1])  # training is not even given what comes later
    config = msgspec.structs.replace(plan.train, seed=seed)
    learning = {name: span for name, span in fold.spans.items() if name != "test"}
    origin = parent.name if parent else ""
    settings = [plan.features, plan.target, learning, plan.network, config, origin]
    if plan.tuned.trials_run:  # an artefact says what it was chosen from
        settings.append([plan.tuned.trials_run, plan.tuned.study])
    made = _key("network", settings, known)
    version = f"fold{fold.number:02d}-seed{seed}-{made[:8]}"
    key = _key("forecasts", [made, fold.spans["test"]], _until(plan, fold.spans["test"][1]))
    part = plan.parts / f"{version}-{key[:8]}.parquet"

    saved = sorted((plan.models / plan.name).glob(f"{version}-*/manifest.json"))
    if saved and read_part(part, key) is not None:
        artefact.load(saved[0].parent)
        return part, saved[0].parent
    samples = [build_sample(*pair, plan.features, plan.target.horizons, fold.spans) for pair in known]
    for sample in samples:
        require_labels(sample, plan.target.horizons)
    require_purge(samples, fold.spans, plan.target.horizons)
    if saved:
        folder = saved[0].parent
    else:
        start = load_tensors((parent / "weights.safetensors").read_bytes()) if parent else None
        settings_of_fit = (known, plan.features, plan.target, fold.spans, plan.network, config, plan.models)
        folder = fit_spans(plan.name, version, *settings_of_fit, start=start, tuned=plan.tuned).path
    model = artefact.load(folder)
    require_scaler(folder, model, known, fold.spans)
    tables = []
    for sample in test_samples(plan, fold):
        tables.append(_forecast(model, sample, fold, seed))
        if not len(tables[-1]):  # else the verdict would quietly be on fewer instruments
            since, gap = format_ns(fold.spans["test"][0] or 0), plan.features.max_gap_bars
            raise LSTMStrategyError(
                f"{sample.bars.instrument_id}: the model warms up for {model.manifest.warmup_bars} bars, and is silent"
                f" over the whole test span from {since}: holes longer than features.max_gap_bars, {gap}, restart it;"
                " leave the instrument out, move the folds, or import what is missing"
            )
    _write_part(part, pa.concat_tables(tables), key)
    return part, folder


@_within_memory
def run_baseline(plan: Plan, fold: Fold, name: str, make: BaselineMaker) -> Path:
    """Fit a baseline on the fold's own spans and return its table: scaled quantiles at every bar of the test span."""
    part, key = baseline_part(plan, fold, name)
    if read_part(part, key) is not None:
        return part
    samples = test_samples(plan, fold)
    tables = []
    for sample, q_THQ in zip(samples, make().forecast(samples, fold.spans, plan.target), strict=True):
        kept = sample.bars.ts_close > (fold.spans["test"][0] or 0)
        q_NHQ, ts_close = np.asarray(q_THQ, np.float32)[kept], sample.bars.ts_close[kept]
        recorded = Forecasts(
            sample.bars.instrument_id, plan.target.horizons, plan.target.levels, ts_close, q_NHQ, np.ones(len(ts_close))
        )
        table = recorded.to_table(name).drop_columns(["levels", "scale"]).rename_columns({"model_version": "baseline"})
        tables.append(table.append_column("fold", pa.array(np.full(len(table), fold.number, np.int32))))
    _write_part(part, pa.concat_tables(tables), key)
    return part


def baseline_part(plan: Plan, fold: Fold, name: str) -> tuple[Path, str]:
    """Return the file of a baseline's table, and the key that it must carry."""
    bars = _until(plan, fold.spans["test"][1])
    key = _key("baseline", [name, plan.features, plan.target, fold.spans], bars)
    return plan.parts / f"fold{fold.number:02d}-{name}-{key[:8]}.parquet", key


def test_samples(plan: Plan, fold: Fold) -> list[Sample]:
    """Samples that end with the test span, so that no label is made of later bars."""
    known = _until(plan, fold.spans["test"][1])
    return [build_sample(*pair, plan.features, plan.target.horizons, fold.spans) for pair in known]


def read_part(path: Path, key: str | None = None) -> pa.Table | None:
    """Return a finished table; None where there is none, where it is damaged, or where it was made for another key."""
    try:
        table = pq.read_table(path, page_checksum_verification=True)
    except (OSError, pa.ArrowException):
        return None
    return table if key is None or (table.schema.metadata or {}).get(b"key") == key.encode() else None


def _forecast(model: artefact.Artefact, sample: Sample, fold: Fold, seed: int) -> pa.Table:
    """Stream the whole history through the model; keep the test span, before and after calibration, with outcomes."""
    start, bars = fold.spans["test"][0], sample.bars
    forecasts, raw = Forecaster(model, bars.instrument_id).run_with_raw(bars, exact=True)  # as stepping gives them
    inside = bars.between(start, None).ts_close
    require_future_unseen(model, bars, forecasts, int(inside[len(inside) // 2]))
    kept = bars.ts_close > (start or 0)
    table, plain = (found.at(np.flatnonzero(kept)).to_table(model.manifest.version) for found in (forecasts, raw))
    known_TH = ~np.isnan(forecasts.quantiles_THQ[kept][:, :, 0])
    root_H = np.sqrt(np.array(forecasts.horizons))
    outcome_TH = sample.y_TH[kept] * (sample.matrix.scale_T[kept, None] * root_H)
    for name, column in (
        ("fold", pa.array(np.full(len(table), fold.number, np.int32))),
        ("seed", pa.array(np.full(len(table), seed, np.int64))),
        ("uncalibrated", plain["quantiles"].combine_chunks()),
        ("outcome", pa.array(outcome_TH[known_TH], mask=np.isnan(outcome_TH[known_TH]))),
    ):
        table = table.append_column(name, column)
    return table


def _until(plan: Plan, end: int | None) -> list[tuple[Bars, Instrument]]:
    return [(bars.between(None, end), instrument) for bars, instrument in plan.history]


def _key(kind: str, settings: list[Any], history: list[tuple[Bars, Instrument]]) -> str:
    """Hash of settings and data: what was made with another key was made of something else."""
    data = [[bars.instrument_id, str(bars.timeframe), instrument.tick, data_hash(bars)] for bars, instrument in history]
    return hashlib.sha256(msgspec.json.encode([kind, __version__, settings, data])).hexdigest()


def _write_part(path: Path, table: pa.Table, key: str) -> None:
    if not len(table):
        raise LSTMStrategyError(f"{path.stem}: the test span holds no forecast; lengthen it, or import more history")
    with atomic_write(path) as temporary:
        pq.write_table(table.replace_schema_metadata({"key": key}), temporary, write_page_checksum=True)
