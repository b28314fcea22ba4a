"""Value at risk and shortfall of an account of several names: each one's forecast, and how they move together.

With signed exposures w, and of each name the loss a_i that its forecast exceeds with probability p and its median loss
c_i (both of the position w_i, fractions of equity), the account's is

    VaR_p = Σ c_i + √( Σ_ij d_i d_j s_i s_j ρ_ij ),   d_i = a_i − c_i,   s_i = sign w_i

and likewise for the shortfall. That is exact where the names' returns are jointly elliptical (McNeil, Frey and
Embrechts, "Quantitative risk management", 2nd edition, 2015, section 8.3), an approximation else. ρ are the
correlations that the decisions of that close were made with.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lstm_strategy.bars import Float, Stamps
from lstm_strategy.errors import LSTMStrategyError, first_line_of
from lstm_strategy.report.risk import LEAST, Tails, decided, judge, levels_in, tail_of
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
    """One name's decisions, and its forecasts of the next bar."""

    decisions: DecisionLog
    forecasts: RecordedForecasts


def joint_tails(run: Run) -> Tails | None:
    """Judge the account of a run of several names; None where a name forecasts no next bar, or for an older run.

    Raises
    ------
    LSTMStrategyError
        Where the correlations cannot be read.
    """
    correlations = _read_correlations(run)
    if correlations is None:
        return None
    table, holdings = read_decisions(run.folder), {}
    for name in correlations.names:
        forecasts = next((found for found in read_forecasts(run.folder, name) if found.horizon == 1), None)
        if forecasts is None:
            return None
        holdings[name] = Holding(decisions_of(table.filter(pc.equal(table["instrument"], name))), forecasts)
    return tails_of_account(run.equity, run.bar_ns, holdings, correlations)


def tails_of_account(
    curve: EquityCurve, bar_ns: int, holdings: dict[str, Holding], correlations: Correlations
) -> Tails | None:
    """Set the account's value at risk and shortfall against its losses, at closes where all names held were forecast.

    ``holdings`` are in the order of the correlations' names.
    """
    names, n_rows = correlations.names, len(curve.ts_close)
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
    return judge(curve, bar_ns, kept, forecast)


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
