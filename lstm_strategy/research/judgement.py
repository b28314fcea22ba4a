"""Judgement: an evaluation's tables put side by side row by row, scored, and summed up for people and programs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from lstm_strategy.bars import Float, format_ns
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.formatting import percent
from lstm_strategy.measures import coverage, pinball
from lstm_strategy.research.evaluate import Evaluated
from lstm_strategy.research.leaks import CHECKS
from lstm_strategy.research.scores_group import group_scores, pinball_N
from lstm_strategy.research.scores_types import ScoredTable, Scores

__all__ = ["Score", "SideBySide", "put_side_by_side", "sum_up"]

type Rows = npt.NDArray[np.bool_]
type Score = Callable[[ScoredTable, dict[str, Float]], Scores]

_ROW = ["fold", "instrument", "ts_close", "horizon"]
_INTERVALS = (0.8, 0.98)
_DRAWS = 400  # of the bootstrap, fold by fold


@dataclass(frozen=True, slots=True, eq=False)
class SideBySide:
    """Forecasts (the average of the seeds' quantiles) and all that is set beside them, in one order of rows.

    ``uncalibrated_NQ``, ``baselines`` (by name) and ``seeds`` (by seed) are quantiles as in ``table``; ``fold`` is [N].
    """

    table: ScoredTable
    uncalibrated_NQ: Float
    baselines: dict[str, Float]
    seeds: dict[int, Float]
    fold: npt.NDArray[np.int64]


def put_side_by_side(forecasts: pa.Table, baselines: pa.Table | None, seeds: tuple[int, ...]) -> SideBySide:
    """Find the rows that every seed forecast, and each baseline's on the same; NaN where a baseline has none.

    The tables are as in `lstm_strategy.research.evaluate.Evaluated`.
    """
    levels = tuple(forecasts["levels"][0].as_py())
    keys = _keys(forecasts)
    seed_of = forecasts["seed"].to_numpy()
    rows = pd.DataFrame()
    for seed in seeds:
        own = keys[seed_of == seed].assign(**{f"row{seed}": np.flatnonzero(seed_of == seed)})
        rows = own if rows.empty else rows.merge(own, on=_ROW, validate="one_to_one")
    rows = rows.sort_values(_ROW, ignore_index=True)
    if rows.empty:
        raise LSTMStrategyError("the seeds forecast no bar in common; nothing can be judged")
    picked = {seed: rows.pop(f"row{seed}").to_numpy() for seed in seeds}
    first = picked[seeds[0]]
    unit = forecasts["scale"].to_numpy()[first] * np.sqrt(rows["horizon"].to_numpy())
    quantiles, plain = (_matrix(forecasts, name, len(levels)) for name in ("quantiles", "uncalibrated"))
    drawn = {seed: quantiles[chosen] / unit[:, None] for seed, chosen in picked.items()}
    table = ScoredTable(
        ts=rows["ts_close"].to_numpy(),
        instrument=rows["instrument"].to_numpy().astype(str),
        horizon=rows["horizon"].to_numpy().astype(np.int64),
        y=forecasts["outcome"].to_numpy()[first] / unit,
        q_NQ=np.mean(list(drawn.values()), axis=0),
        scale=forecasts["scale"].to_numpy()[first],
        levels=levels,
    )
    uncalibrated = np.mean([plain[chosen] / unit[:, None] for chosen in picked.values()], axis=0)
    fold = rows["fold"].to_numpy().astype(np.int64)
    return SideBySide(table, uncalibrated, _beside(rows, baselines, len(levels)), drawn, fold)


def sum_up(evaluated: Evaluated, score: Score) -> dict[str, Any]:
    """Return the summary: the pooled scores and all breakdowns, as plain values.

    Beyond `Scores`: ``coverage_uncalibrated`` and, by horizon, ``reliability_uncalibrated``; ``by_fold`` with its
    intervals; ``by_month`` (coverage over time); ``seed_pinball``, its standard deviation ``seed_pinball_sd`` and that
    of the forecasts, ``seed_forecast_sd`` (None with one seed); dates and files.
    """
    rows = put_side_by_side(evaluated.forecasts, evaluated.baselines, evaluated.seeds)
    scores = score(rows.table, rows.baselines)
    table = rows.table
    judged = np.isfinite(table.y) & np.isfinite(table.q_NQ).all(axis=1)
    for q_NQ in rows.baselines.values():
        judged &= np.isfinite(q_NQ).all(axis=1)
    made = {
        "folds": len(evaluated.folds),
        "seeds": list(evaluated.seeds),
        "forecasts_path": str(evaluated.forecasts_path),
    }
    summary: dict[str, Any] = msgspec.to_builtins(scores)
    for name, group in summary["by_instrument"].items():
        own = judged & (table.instrument == name)
        group |= made | {"folds": len(np.unique(rows.fold[own]))}
    for horizon, group in summary["by_horizon"].items():
        own = judged & (table.horizon == int(horizon))
        group["reliability_uncalibrated"] = _reliability(replace(table, q_NQ=rows.uncalibrated_NQ), own)
    summary |= _between_seeds(rows, judged, scores.baselines.get(scores.best_baseline or ""))
    summary["verdict"] = " ".join(filter(None, [scores.verdict, summary.pop("seed_verdict")]))
    return summary | {
        **made,
        "baselines_path": None if evaluated.baselines_path is None else str(evaluated.baselines_path),
        "folds_path": str(evaluated.folds_path),
        "artefacts": [str(path) for path in evaluated.artefacts],
        "checks": list(CHECKS),
        "coverage_uncalibrated": _coverage(replace(table, q_NQ=rows.uncalibrated_NQ), judged),
        "by_fold": [_fold(evaluated, rows, number, judged) for number in np.unique(rows.fold[judged]).tolist()],
        "by_month": list(_months(rows, judged)),
    }


def _between_seeds(rows: SideBySide, judged: Rows, best: float | None) -> dict[str, Any]:
    """How much is the luck of the seed: spread of the losses, and of the forecasts in units of σ√h."""
    losses = {seed: _pinball(rows.table, q_NQ, judged) for seed, q_NQ in rows.seeds.items()}
    found: dict[str, Any] = {"seed_pinball": {str(seed): loss for seed, loss in losses.items()}}
    if len(losses) < 2:
        return found | {"seed_pinball_sd": None, "seed_forecast_sd": None, "seed_verdict": ""}
    spread = float(np.std(list(losses.values()), ddof=1))
    between = np.std([q_NQ[judged] for q_NQ in rows.seeds.values()], axis=0, ddof=1)
    mean = float(np.mean(list(losses.values())))
    said = f"Seeds: {len(losses)} networks differ by {percent(spread / mean, 2)} of pinball (standard deviation)"
    if best:
        gain = 1.0 - _pinball(rows.table, rows.table.q_NQ, judged) / best
        alone = sum(loss < best for loss in losses.values())
        below = percent(gain, 2, signed=True)
        said += f"; alone, {alone} of {len(losses)} lie below the best baseline, their average by {below}"
        if spread / mean >= abs(gain):
            said += ", no more than the luck of a seed"
    return found | {
        "seed_pinball_sd": spread,
        "seed_forecast_sd": float(np.sqrt((between**2).mean())),
        "seed_verdict": f"{said}.",
    }


def _beside(rows: pd.DataFrame, baselines: pa.Table | None, n_levels: int) -> dict[str, Float]:
    if baselines is None:
        return {}
    keys = _keys(baselines).assign(baseline=baselines["baseline"].to_pandas())
    values = np.vstack([_matrix(baselines, "quantiles", n_levels), np.full(n_levels, np.nan)])
    names = keys.pop("baseline").to_numpy()
    found = {}
    for name in dict.fromkeys(names):
        own = keys[names == name].assign(row=np.flatnonzero(names == name))
        where = rows.merge(own, on=_ROW, how="left", validate="one_to_one")["row"].fillna(-1).to_numpy().astype(int)
        found[str(name)] = values[where]
    return found


def _fold(evaluated: Evaluated, rows: SideBySide, number: int, judged: Rows) -> dict[str, Any]:
    chosen = judged & (rows.fold == number)
    spans = next(fold.spans for fold in evaluated.folds if fold.number == number)
    losses = {name: pinball_N(rows.table.y, q_NQ, rows.table.levels)[chosen] for name, q_NQ in rows.baselines.items()}
    order = np.lexsort((rows.table.horizon[chosen], rows.table.instrument[chosen], rows.table.ts[chosen]))
    own = group_scores(rows.table[chosen][order], {name: loss[order] for name, loss in losses.items()}, _DRAWS, 0)
    shown = {
        "pinball",
        "pinball_ci",
        "baselines",
        "skill",
        "skill_ci",
        "best_baseline",
        "dm_p",
        "rank_ic",
        "rank_ic_ci",
    }
    found = {name: value for name, value in msgspec.to_builtins(own).items() if name in shown}
    return found | {
        "fold": number,
        "spans": {name: [None if ts is None else format_ns(ts) for ts in span] for name, span in spans.items()},
        "rows": int(chosen.sum()),
        "coverage": _coverage(rows.table, chosen),
        "coverage_ci": {share: own.coverage_ci.get(share) for share in map(str, _INTERVALS)},
        "coverage_uncalibrated": _coverage(replace(rows.table, q_NQ=rows.uncalibrated_NQ), chosen),
    }


def _months(rows: SideBySide, judged: Rows) -> Iterable[dict[str, Any]]:
    month = rows.table.ts.astype("datetime64[ns]").astype("datetime64[M]")
    for each in np.unique(month[judged]):
        chosen = judged & (month == each)
        plain = _coverage(replace(rows.table, q_NQ=rows.uncalibrated_NQ), chosen)
        own = _coverage(rows.table, chosen)
        yield {"month": str(each), "rows": int(chosen.sum()), "coverage": own, "coverage_uncalibrated": plain}


def _coverage(table: ScoredTable, chosen: Rows) -> dict[str, float]:
    return {str(share): coverage(table.y[chosen], table.q_NQ[chosen], table.levels, share) for share in _INTERVALS}


def _reliability(table: ScoredTable, chosen: Rows) -> dict[str, float]:
    y, q_NQ = table.y[chosen, None], table.q_NQ[chosen]
    below_Q = ((y < q_NQ) + 0.5 * (y == q_NQ)).mean(axis=0)
    return {f"{level:g}": float(share) for level, share in zip(table.levels, below_Q, strict=True)}


def _pinball(table: ScoredTable, q_NQ: Float, chosen: Rows) -> float:
    return pinball(table.y[chosen], q_NQ[chosen], table.levels)


def _keys(table: pa.Table) -> pd.DataFrame:
    columns = {name: table[name] for name in _ROW}
    return pa.table(columns | {"ts_close": table["ts_close"].cast(pa.int64())}).to_pandas()  # type: ignore[no-any-return]


def _matrix(table: pa.Table, name: str, n_levels: int) -> Float:
    flat = table[name].combine_chunks().flatten().to_numpy()
    return np.asarray(flat.reshape(-1, n_levels), np.float64)
