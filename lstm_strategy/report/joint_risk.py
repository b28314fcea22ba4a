"""Value at risk and shortfall of an account of several names: each one's forecast, and how they move together.

With signed exposures w, and of each name the loss a_i that its forecast exceeds with probability p and its median loss
c_i (both of the position w_i, fractions of equity), the account's is

    VaR_p = Σ c_i + √( Σ_ij d_i d_j s_i s_j ρ_ij ),   d_i = a_i − c_i,   s_i = sign w_i

and likewise for the shortfall. That is exact where the names' returns are jointly elliptical (McNeil, Frey and
Embrechts, "Quantitative risk management", 2nd edition, 2015, section 8.3), an approximation else. ρ are the
correlations that the decisions of that close were made with: of single bars, and taken for those of several.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lstm_strategy.bars import Float, Stamps
from lstm_strategy.errors import LSTMStrategyError, first_line_of
from lstm_strategy.report.risk import LEAST, Tails, decided, held_over, judge, judge_blocks, levels_in, tail_of
from lstm_strategy.report.run_folder import decisions_of, read_decisions, read_forecasts, stamps_of
from lstm_strategy.report.run_types import DecisionLog, EquityCurve, RecordedForecasts, Run

__all__ = ["Correlations", "Holding", "joint_tails", "tails_of_account"]


@dataclass(frozen=True, slots=True, eq=False)
class Correlations:
    """By close [T] the correlations above the diagonal, float64 [T, S (S − 1) / 2], of names in this order."""

    names: tuple[str, ...]
    ts_close: Stamps
    upper_TP: Float


@dataclass(frozen=True, slots=True, eq=False)
class Holding:
    """One name's decisions, and its forecasts of the shortest horizon that all names have."""

    decisions: DecisionLog
    forecasts: RecordedForecasts


def joint_tails(run: Run) -> Tails | None:
    """Judge the account of a run of several names; None where a name was never forecast, or for an older run.

    It is judged over the shortest horizon that all of them have.

    Raises
    ------
    LSTMStrategyError
        Where the correlations cannot be read.
    """
    correlations = _read_correlations(run)
    if correlations is None:
        return None
    table = read_decisions(run.folder)
    spoken = {name: {of.horizon: of for of in read_forecasts(run.folder, name)} for name in correlations.names}
    shared = set.intersection(*(set(own) for own in spoken.values()))
    if not shared:
        return None
    holdings = {
        name: Holding(decisions_of(table.filter(pc.equal(table["instrument"], name))), own[min(shared)])
        for name, own in spoken.items()
    }
    closed_ns = round(run.summary.closed_hours * 3_600e9)
    return tails_of_account(run.equity, run.bar_ns, holdings, correlations, closed_ns)


def tails_of_account(
    curve: EquityCurve, bar_ns: int, holdings: dict[str, Holding], correlations: Correlations, closed_ns: int = 0
) -> Tails | None:
    """Set the account's value at risk and shortfall against its losses, at closes where all names held were forecast.

    Of forecasts beyond one bar, against what the positions would have lost if they had been kept; a block in which a
    name that was held at its first close lacks a bar does not count.

    ``holdings`` are in the order of the correlations' names, their forecasts of one horizon.
    """
    names, n_rows = correlations.names, len(curve.ts_close)
    horizon = next(iter(holdings.values())).forecasts.horizon
    moved_TS = np.zeros((n_rows, len(names)))  # over the horizon, where it is more than a bar
    exposure_TS = np.zeros((n_rows, len(names)))
    known = np.isin(curve.ts_close, correlations.ts_close)
    levels = [levels_in(of.forecasts.levels) for of in holdings.values()]
    used = [level for level in levels[0] if all(level in own for own in levels)]
    losses = {level: np.zeros((3, n_rows, len(names))) for level in used}  # VaR, shortfall, median loss
    for column, of in enumerate(holdings.values()):
        rows = np.searchsorted(curve.ts_close, of.decisions.ts_close)
        exposure_TS[rows, column] = np.nan_to_num(decided(of.decisions))
        spoken = np.isin(of.forecasts.ts_close, curve.ts_close)
        at = np.searchsorted(curve.ts_close, of.forecasts.ts_close[spoken])
        quantiles_NQ, own = of.forecasts.quantiles_NQ[spoken], exposure_TS[at, column]
        for level, found in losses.items():
            found[0, at, column], found[1, at, column] = tail_of(quantiles_NQ, of.forecasts.levels, own, level)
            found[2, at, column] = tail_of(quantiles_NQ, of.forecasts.levels, own, 0.5)[0]
        if horizon > 1:
            held = np.abs(exposure_TS[:, column]) > LEAST
            moved_T = _own_move(curve.ts_close, rows, of.decisions.price, at, horizon, bar_ns, closed_ns)
            moved_TS[held, column] = moved_T[held]
        silent = np.ones(n_rows, bool)
        silent[at] = False
        known &= ~(silent & (np.abs(exposure_TS[:, column]) > LEAST))
    kept = np.flatnonzero(known & (np.abs(exposure_TS).max(axis=1) > LEAST))
    if not len(kept):
        return None
    side_NS = np.sign(exposure_TS[kept])
    upper_NP = correlations.upper_TP[np.searchsorted(correlations.ts_close, curve.ts_close[kept])]
    forecast = {}
    for level, (value_TS, shortfall_TS, median_TS) in losses.items():
        middle_N = median_TS[kept].sum(axis=1)
        spread = (_joined((loss_TS - median_TS)[kept] * side_NS, upper_NP) for loss_TS in (value_TS, shortfall_TS))
        at_risk, shortfall = (middle_N + width_N for width_N in spread)
        forecast[level] = at_risk, shortfall
    if horizon == 1:
        return judge(curve, bar_ns, kept, forecast)
    return judge_blocks(curve, horizon, kept, (exposure_TS * moved_TS).sum(axis=1)[kept], forecast)


def _own_move(
    ts_close: Stamps,
    rows: npt.NDArray[np.intp],
    price_D: Float,
    at: npt.NDArray[np.intp],
    horizon: int,
    bar_ns: int,
    closed_ns: int,
) -> Float:
    """Return a name's `held_over` by row of the account's curve [T], NaN where a bar of its own is missing on the way.

    At a close at which its bar is missing a decision carries the last price: only where it was forecast, in rows
    ``at``, is the price known to be that close's.
    """
    price_T, moved_T = np.full(len(ts_close), np.nan), np.full(len(ts_close), np.nan)
    price_T[rows] = price_D
    own = held_over(price_T[at], ts_close[at], horizon, bar_ns, closed_ns)
    whole = np.zeros(len(at), bool)
    whole[:-horizon] = at[horizon:] - at[:-horizon] == horizon
    moved_T[at] = np.where(whole, own, np.nan)
    return moved_T


def _joined(spread_NS: Float, upper_NP: Float) -> Float:
    """Return √(d'ρd) by row, from what stands above the diagonal of ρ."""
    first, second = np.triu_indices(spread_NS.shape[1], 1)
    square_N = (spread_NS**2).sum(axis=1) + 2.0 * (upper_NP * spread_NS[:, first] * spread_NS[:, second]).sum(axis=1)
    return np.asarray(np.sqrt(np.maximum(square_N, 0.0)))


def _read_correlations(run: Run) -> Correlations | None:
    path = run.folder / "correlations.parquet"
    if not path.exists():
        return None
    try:
        table = pq.read_table(path)
        names = msgspec.json.decode((table.schema.metadata or {})[b"names"], type=tuple[str, ...])
        pairs = len(names) * (len(names) - 1) // 2
        flat = pc.list_flatten(table["correlation"].combine_chunks()).to_numpy().astype(np.float64)
        return Correlations(names, stamps_of(table), flat.reshape(table.num_rows, pairs))
    except (OSError, pa.ArrowException, KeyError, ValueError, msgspec.MsgspecError) as error:
        raise LSTMStrategyError(f"{path} cannot be used: {first_line_of(error)}") from error
