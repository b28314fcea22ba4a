"""What to set beside a strategy, run by the same engine at the same costs: rules fed in as forecasts of their own."""

from __future__ import annotations

import math
from pathlib import Path
from statistics import NormalDist

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lstm_strategy.bars import NS_PER_DAY, Bars, Float
from lstm_strategy.decision import LimitsConfig, Shrinkage, SizingConfig
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.exits import ExitsConfig
from lstm_strategy.forecast import Forecasts, mean_of, std_of
from lstm_strategy.measures import pinball
from lstm_strategy.nautilus.backtest import BacktestSettings
from lstm_strategy.nautilus.source import of_schedule
from lstm_strategy.schedule import Schedule, recording

__all__ = [
    "MOMENTUM_DAYS",
    "best_classical",
    "classical_forecasts",
    "companions",
    "momentum_forecasts",
    "normal_forecasts",
]

MOMENTUM_DAYS = 20
_SHARED = ("target_volatility", "reference_sharpe", "volatility_floor", "no_trade_band")


def companions(settings: BacktestSettings, schedule: Schedule, bars: Bars, folder: Path) -> dict[str, BacktestSettings]:
    """Return the runs to set beside a strategy's own, by name; their forecasts are written to ``folder``.

    - ``volatility target``: long target_volatility / σ, σ the causal volatility that the model's own features measure.
    - ``20-day momentum``: as much, long after a rise and short (or flat, where limits allow no short) after a fall of
      the last 20 days: Moskowitz, Ooi and Pedersen, "Time series momentum", 2012, at a shorter span.
    - ``classical: NAME``: the strategy's own sizing and limits on the forecasts of the best of an evaluation's
      baselines on the same bars, best in hindsight. Their means count for nothing: no slope was fitted for them.

    Baselines know no position: in the mode ``network`` the last trades by the volatility target.

    The first two trade without halts, at the strategy's band and largest exposure; their changes of exposure, and what
    momentum foresees, are expected to last 20 days, or ``holding_bars`` where that is longer: a rule for months would
    else never pay.

    Parameters
    ----------
    schedule : Schedule
        The strategy's recorded forecasts: companions speak at the same bars.
    bars : Bars
        The catalog's, earlier ones included.
    """
    known, sizing, limits = recording(schedule), settings.sizing, settings.limits
    per_year = _bars_per_year(schedule, known)
    lasting = max(sizing.holding_bars or 1, round(MOMENTUM_DAYS / 365.25 * float(per_year.max())))
    shared = {name: getattr(sizing, name) for name in _SHARED}
    loose = LimitsConfig(
        side=limits.side,
        max_exposure=limits.max_exposure,
        max_step=limits.max_step,
        drift_tolerance=limits.drift_tolerance,
        daily_loss=1.0,
        max_drawdown=1.0,
    )
    long_only = msgspec.structs.replace(loose, side="long_only")
    targeting = SizingConfig(mode="volatility_target", horizon=sizing.horizon, holding_bars=lasting, tilt=0.0, **shared)
    # The aversion to risk that the volatility target implies, so that both weigh costs alike.
    following = SizingConfig(
        mode="mean_variance",
        horizon=lasting,
        kelly_fraction=sizing.target_volatility / sizing.reference_sharpe,
        **shared,
    )
    flat = np.zeros(len(known))
    none, whole = Shrinkage(), Shrinkage(1.0, 0.0, 0.0)
    made = {
        "volatility target": (normal_forecasts(known, sizing.horizon, flat), none, targeting, long_only),
        f"{MOMENTUM_DAYS}-day momentum": (
            momentum_forecasts(known, bars, following, per_year),
            whole,
            following,
            loose,
        ),
    }
    if schedule.evaluation is not None and (Path(schedule.evaluation) / "baselines.parquet").is_file():
        name, found = best_classical(known, Path(schedule.evaluation), sizing.horizon)
        if settings.exits.resting and settings.exits.horizon not in found.horizons:
            name = f"{name}, without exits"
        own = msgspec.structs.replace(sizing, mode="volatility_target") if sizing.mode == "network" else sizing
        made[f"classical: {name}"] = (found, none, own, msgspec.structs.replace(limits, feature_range=None))
    jobs = {}
    for number, (name, (forecasts, shrinkage, own_sizing, own_limits)) in enumerate(made.items()):
        path = folder / f"{number}.parquet"
        same = name.startswith("classical: ")  # the same policy, its adaptive calibration included
        turns = tuple(
            msgspec.structs.replace(
                turn, folder=None, trained_until=None, position=False, shrinkage=(shrinkage,) * len(forecasts.horizons)
            )
            for turn in schedule.turns
        )
        if forecasts.horizons != schedule.horizons:
            turns = tuple(msgspec.structs.replace(turn, baseline=[]) for turn in turns)
        told = msgspec.structs.replace(
            schedule, label=name, horizons=forecasts.horizons, turns=turns, recorded=str(path), adapted=not same
        )
        pq.write_table(of_schedule(told).to_table(forecasts), path)
        # Simple rules have no exits of ours; the same policy on other forecasts has, if those reach far enough.
        exits = settings.exits if same and not name.endswith(", without exits") else ExitsConfig()
        jobs[name] = msgspec.structs.replace(
            settings, model=told, sizing=own_sizing, limits=own_limits, exits=exits, run_folder=None
        )
    return jobs


def normal_forecasts(known: Forecasts, horizon: int, mean_T: Float) -> Forecasts:
    """Return forecasts whose standard deviation is scale √horizon, and whose mean is ``mean_T`` of that, to a float32.

    The quantiles are a normal law's, shifted and stretched so that `Forecast.mean` and `Forecast.std` give just these.
    """
    z_Q = np.array([NormalDist().inv_cdf(level) for level in known.levels])
    z_Q -= mean_of(z_Q, known.levels)
    z_Q /= std_of(z_Q, known.levels)
    unit_T = known.scale_T * math.sqrt(horizon)
    quantiles_TQ = (mean_T[:, None] + z_Q) * unit_T[:, None]
    return Forecasts(
        known.instrument_id,
        (horizon,),
        known.levels,
        known.ts_close,
        quantiles_TQ.astype(np.float32)[:, None],
        known.scale_T,
    )


def momentum_forecasts(known: Forecasts, bars: Bars, sizing: SizingConfig, bars_per_year: Float) -> Forecasts:
    """Return forecasts whose mean is ± the long-run drift that a volatility target believes in, by the last 20 days.

    No forecast where the bars do not reach 20 days back.
    """
    now = np.searchsorted(bars.ts_close, known.ts_close)
    then = np.searchsorted(bars.ts_close, known.ts_close - MOMENTUM_DAYS * NS_PER_DAY, side="right") - 1
    sign_T = np.where(then < 0, np.nan, np.sign(bars.close[now] - bars.close[np.maximum(then, 0)]))
    return normal_forecasts(
        known, sizing.horizon, sign_T * sizing.reference_sharpe * np.sqrt(sizing.horizon / bars_per_year)
    )


def best_classical(known: Forecasts, evaluation: Path, horizon: int) -> tuple[str, Forecasts]:
    """Return the baseline with the least pinball loss at ``horizon`` over the bars of ``known``, and its forecasts."""
    table = pq.read_table(evaluation / "baselines.parquet", filters=[("instrument", "=", known.instrument_id)])
    names = list(dict.fromkeys(table["baseline"].to_pylist()))
    if not names:
        raise LSTMStrategyError(f"{evaluation} has no baseline of {known.instrument_id}; evaluate again")
    outcome_T = _outcomes(known, evaluation, horizon)
    row = known.horizons.index(horizon)
    unit_T = known.scale_T * math.sqrt(horizon)
    found = {name: classical_forecasts(table, name, known) for name in names}
    losses = {
        name: pinball(outcome_T / unit_T, of.quantiles_THQ[:, row] / unit_T[:, None], known.levels)
        for name, of in found.items()
    }
    best = min(losses, key=lambda name: math.inf if math.isnan(losses[name]) else losses[name])
    return best, found[best]


def classical_forecasts(table: pa.Table, name: str, known: Forecasts) -> Forecasts:
    """Return a baseline's quantiles as log returns at the bars of ``known``; NaN where it has none."""
    own = table.filter(pc.equal(table["baseline"], name)).combine_chunks()
    q_NQ = np.asarray(pc.list_flatten(own["quantiles"]), np.float64).reshape(-1, len(known.levels))
    stamps, horizons = own["ts_close"].cast(pa.int64()).to_numpy(), own["horizon"].to_numpy()
    quantiles_THQ = np.full(known.quantiles_THQ.shape, np.nan, np.float32)
    for column, horizon in enumerate(known.horizons):
        chosen = np.flatnonzero(horizons == horizon)
        rows = np.searchsorted(known.ts_close, stamps[chosen])
        rows = np.minimum(rows, len(known) - 1)
        there = known.ts_close[rows] == stamps[chosen]
        unit_N = known.scale_T[rows[there]] * math.sqrt(horizon)
        quantiles_THQ[rows[there], column] = q_NQ[chosen[there]] * unit_N[:, None]
    quantiles_THQ[np.isnan(quantiles_THQ).any(axis=(1, 2))] = np.nan
    return Forecasts(known.instrument_id, known.horizons, known.levels, known.ts_close, quantiles_THQ, known.scale_T)


def _outcomes(known: Forecasts, evaluation: Path, horizon: int) -> Float:
    """The outcomes that the evaluation kept, at the bars of ``known``."""
    filters = [("instrument", "=", known.instrument_id), ("horizon", "=", horizon)]
    table = pq.read_table(evaluation / "forecasts.parquet", columns=["ts_close", "outcome"], filters=filters)
    rows = np.searchsorted(known.ts_close, table["ts_close"].cast(pa.int64()).to_numpy())
    outcome_T = np.full(len(known), np.nan)
    inside = rows < len(known)
    outcome_T[rows[inside]] = table["outcome"].to_numpy(zero_copy_only=False)[inside]
    return outcome_T


def _bars_per_year(schedule: Schedule, known: Forecasts) -> Float:
    firsts = np.array([turn.first for turn in schedule.turns])
    of_turn = np.array([turn.bars_per_year for turn in schedule.turns])
    return np.asarray(of_turn[np.maximum(np.searchsorted(firsts, known.ts_close, side="right") - 1, 0)])
