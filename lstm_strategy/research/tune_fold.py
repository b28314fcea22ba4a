"""What one fold says of one trial's settings: the pinball loss of its test span, on the same bars for every trial."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from lstm_strategy.bars import Float
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.hyperparameters import SplitConfig, WalkForwardConfig
from lstm_strategy.research.batches import sequences
from lstm_strategy.research.fold_run import Plan, read_part, run_network, test_samples
from lstm_strategy.research.losses import constant_quantiles
from lstm_strategy.research.scores_group import pinball_N
from lstm_strategy.research.walk_forward import Fold, folds, require_bars
from lstm_strategy.search_space import Settings
from lstm_strategy.tune_config import TuneConfig

__all__ = ["Bench", "bench_of", "measure"]


@dataclass(frozen=True, slots=True, eq=False)
class Bench:
    """What every trial is judged by: bars up to ``cut`` alone, the experiment's own settings, folds and seeds."""

    plan: Plan
    folds: list[Fold]
    seeds: tuple[int, ...]
    cut: int


def bench_of(plan: Plan, split: SplitConfig, walk: WalkForwardConfig, config: TuneConfig) -> Bench:
    """Cut the history where the last training's data ends, and lay the search's folds into what is left.

    The last test span is that of the last fold of [walk_forward], else of [split]; purge and embargo before it are left
    out as well. The folds are spaced as [walk_forward] says, with spans as long as those of its last fold, and each is
    trained from scratch.

    Raises
    ------
    LSTMStrategyError
        Where there is too little data for the folds, naming fold and instrument.
    """
    timeframe, stamps = plan.history[0][0].timeframe, [bars.ts_close for bars, _ in plan.history]
    for bars, _ in plan.history:
        if not len(bars):
            raise LSTMStrategyError(f"{bars.instrument_id}: there are no bars; import some first")
    first, last = min(int(ts[0]) for ts in stamps), max(int(ts[-1]) for ts in stamps)
    spans = folds(walk, split, plan.target, timeframe, first, last)[-1].spans
    length = {name: _bars_in(span, last, timeframe.ns) for name, span in spans.items() if name != "fit"}
    if min(length.values()) < 1:
        raise LSTMStrategyError("the last test span holds no bars, so that none can be kept from the search; move it")
    cut = spans["calibrate"][1]
    assert cut is not None  # noqa: S101 - a span before the test ends at a date
    known = tuple((bars.between(None, cut), instrument) for bars, instrument in plan.history)
    test_bars = config.test_bars or length["test"]
    layout = WalkForwardConfig(
        test_bars=test_bars,
        folds=config.folds,
        train=walk.train,
        fit_bars=walk.fit_bars,
        stop_bars=length["stop"],
        calibrate_bars=length["calibrate"],
        purge=walk.purge,
        embargo=walk.embargo,
    )
    try:
        found = folds(layout, _until(split), plan.target, timeframe, first, cut)
        for fold in found:
            for bars, _ in known:
                require_bars(fold, bars, plan.features.warmup, plan.target.horizons)
    except LSTMStrategyError as error:
        told = f"the search's {config.folds} folds of {test_bars} bars (tune.folds, tune.test_bars)"
        raise LSTMStrategyError(f"{told}, which end before the last test span: {error}") from None
    return Bench(replace(plan, history=known), found, walk.seeds or (plan.train.seed,), cut)


def measure(bench: Bench, number: int, settings: Settings) -> float:
    """Train on one fold with a trial's settings; return the mean pinball loss of its test span.

    Every trial is judged on the bars, and in the unit σ√h, of the experiment's own settings, whatever its own features
    and scale are; where it says nothing (a longer warm-up after a hole), the constant quantiles of the fit span stand
    in. Several seeds are averaged as `evaluate` does, quantile by quantile. The files are not kept.
    """
    plan, fold = bench.plan, bench.folds[number]
    samples = test_samples(plan, fold)
    horizons, levels = plan.target.horizons, plan.target.levels
    constant_HQ = constant_quantiles(sequences(samples, fold.spans["fit"], horizons[-1]), levels).double().numpy()
    tables = []
    with TemporaryDirectory(prefix="lstm-strategy-tune-") as scratch:
        own = replace(plan, features=settings.features, network=settings.network, train=settings.train)
        own = replace(own, models=Path(scratch) / "models", parts=Path(scratch) / "parts")
        try:
            parts = [run_network(own, fold, seed)[0] for seed in bench.seeds]
        except LSTMStrategyError as error:
            raise LSTMStrategyError(f"{fold.label}: {str(error).replace(scratch, 'models')}") from error
        for part in parts:
            table = read_part(part)
            if table is None:
                raise LSTMStrategyError(
                    f"{fold.label}: the forecasts just written cannot be read; is the disk failing?"
                )
            tables.append(table)
    losses = []
    for sample in samples:
        unit_TH = sample.matrix.scale_T[:, None] * np.sqrt(np.array(horizons))
        drawn = [_quantiles(table, sample.bars.instrument_id, sample.bars.ts_close, horizons) for table in tables]
        q_THQ = np.mean(drawn, axis=0) / unit_TH[..., None]
        q_THQ = np.where(np.isnan(q_THQ), constant_HQ, q_THQ)
        judged_TH = ~np.isnan(sample.y_TH) & (sample.bars.ts_close > (fold.spans["test"][0] or 0))[:, None]
        losses.append(pinball_N(sample.y_TH[judged_TH].astype(np.float64), q_THQ[judged_TH], levels))
    loss = float(np.concatenate(losses).mean())
    if not np.isfinite(loss):
        raise LSTMStrategyError(f"{fold.label}: the loss is {loss}; it must be finite")
    return loss


def _quantiles(
    table: pa.Table, instrument_id: str, ts_close: npt.NDArray[np.int64], horizons: tuple[int, ...]
) -> Float:
    """Raw quantiles [T, H, Q] of one instrument at given stamps; NaN where the table has none."""
    rows = table.filter(pc.equal(table["instrument"], instrument_id))
    q_NQ = np.stack(rows["quantiles"].to_pylist()).astype(np.float64)
    stamps = rows["ts_close"].cast(pa.int64()).to_numpy()
    found = np.full((len(ts_close), len(horizons), q_NQ.shape[1]), np.nan)
    columns = np.searchsorted(np.array(horizons), rows["horizon"].to_numpy())
    found[np.searchsorted(ts_close, stamps), columns] = q_NQ
    return found


def _bars_in(span: tuple[int | None, int | None], last: int, bar_ns: int) -> int:
    start, end = span
    assert start is not None  # noqa: S101 - only the fit span may be open at its start
    return ((last if end is None else end) - start) // bar_ns


def _until(split: SplitConfig) -> SplitConfig:
    """The split without its test's end; where folds are laid out by length it gives no more than the start."""
    return msgspec.structs.replace(split, test_end=None)
