"""Read a backtest's run folder into arrays, refusing with one line what is missing or damaged."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lstm_strategy.bars import Float, Stamps, Timeframe
from lstm_strategy.errors import LSTMStrategyError, first_line_of
from lstm_strategy.report.run_types import DecisionLog, EquityCurve, ReasonShares, RecordedForecasts, Run, Summary

__all__ = ["decisions_of", "read_decisions", "read_forecasts", "read_run", "stamps_of"]

_PERIODS = {"day": 45, "week": 550, "month": 10**9}  # the longest span in days that is told by them


def read_run(folder: Path) -> Run:
    """Read the run in ``folder``; of several instruments, the summary's (else the first) is kept.

    Raises
    ------
    LSTMStrategyError
        Where a file, a key or a column is missing or cannot be read.
    """
    if not folder.is_dir():
        raise LSTMStrategyError(f"{folder} is not a run folder; `lstm-strategy backtest` writes one")
    summary = _read_summary(folder)
    equity = _read_equity(folder)
    table = read_decisions(folder)
    names = pc.unique(table["instrument"]).to_pylist()
    instrument = summary.instrument or (str(names[0]) if names else "")
    return Run(
        folder=folder,
        summary=summary,
        instrument=instrument,
        instruments=max(len(names), 1),
        bar_ns=_bar_ns(summary, equity),
        equity=equity,
        decisions=decisions_of(table.filter(pc.equal(table["instrument"], instrument))),
        everyone=decisions_of(table),
        reasons=_reasons(table),
        forecasts=read_forecasts(folder, instrument),
        tearsheet=(folder / "tearsheet.html").is_file(),
        beside=_read_beside(folder, summary, equity),
        markets=_markets(table, equity) if summary.instruments else {},
    )


def _read_summary(folder: Path) -> Summary:
    path = folder / "summary.json"
    try:
        return msgspec.json.decode(path.read_bytes(), type=Summary)
    except FileNotFoundError as error:
        raise _missing(path) from error
    except (OSError, msgspec.DecodeError) as error:
        raise LSTMStrategyError(f"{path} cannot be used: {error}") from error


def _missing(path: Path) -> LSTMStrategyError:
    return LSTMStrategyError(
        f"{path.parent} has no {path.name}; it is not a finished run, repeat `lstm-strategy backtest`"
    )


def _table(folder: Path, name: str, columns: tuple[str, ...]) -> pa.Table:
    path = folder / name
    try:
        absent = [column for column in columns if column not in pq.read_schema(path).names]
        if absent:
            raise LSTMStrategyError(f"{path} lacks the column {absent[0]!r}; it needs {', '.join(columns)}")
        return pq.read_table(path, columns=list(columns))
    except FileNotFoundError as error:
        raise _missing(path) from error
    except (OSError, pa.ArrowException) as error:
        raise LSTMStrategyError(f"{path} cannot be read as Parquet: {first_line_of(error)}") from error


def read_decisions(folder: Path) -> pa.Table:
    """Return the decisions: of one file, or of several instruments one each."""
    columns = ("ts_close", "instrument", "target", "exposure", "reason", "bound", "action", "quantity", "price")
    files = sorted((folder / "decisions").glob("*.parquet"))
    if (folder / "decisions.parquet").exists() or not files:
        return _table(folder, "decisions.parquet", columns)
    tables = [_table(file.parent, file.name, columns) for file in files]
    return pa.concat_tables([table.replace_schema_metadata() for table in tables])


def _read_equity(folder: Path) -> EquityCurve:
    columns = ("ts_close", "equity", "exposure", "price", "buy_and_hold")
    table = _table(folder, "equity.parquet", columns)
    path = folder / "equity.parquet"
    if table.num_rows < 2:
        raise LSTMStrategyError(f"{path} holds {table.num_rows} bars; a report needs at least two")
    stamps = stamps_of(table)
    if (np.diff(stamps) <= 0).any():
        raise LSTMStrategyError(f"{path}: ts_close does not increase from row to row")
    return EquityCurve(stamps, *(_floats(table, name) for name in columns[1:]))


def _read_beside(folder: Path, summary: Summary, equity: EquityCurve) -> dict[str, Float]:
    """Equity by bar of what was run beside the strategy, on its own bars."""
    names = tuple(rule.name for rule in summary.beside if not rule.error)
    if not names:
        return {}
    table = _table(folder, "beside.parquet", ("ts_close", *names))
    if not np.array_equal(stamps_of(table), equity.ts_close):
        raise LSTMStrategyError(f"{folder / 'beside.parquet'} is not of the same bars as equity.parquet; run it again")
    return {name: _floats(table, name) for name in names}


def _markets(table: pa.Table, equity: EquityCurve) -> dict[str, EquityCurve]:
    """Each instrument's price and exposure, from its first bar on, beside the account's equity there."""
    found = {}
    for name in pc.unique(table["instrument"]).to_pylist():
        own = table.filter(pc.equal(table["instrument"], name))
        own = own.filter(pc.is_finite(own["price"]))
        stamps = stamps_of(own)
        rows = np.searchsorted(equity.ts_close, stamps)
        curves = (equity.equity[rows], _floats(own, "exposure"), _floats(own, "price"), equity.buy_and_hold[rows])
        found[str(name)] = EquityCurve(stamps, *curves)
    return found


def decisions_of(table: pa.Table) -> DecisionLog:
    """Return a table of decisions as arrays."""
    bounds = pc.list_flatten(table["bound"].combine_chunks())
    quantity = _floats(table, "quantity")
    released = pc.equal(table["action"], "releasing_exit").to_numpy()
    return DecisionLog(
        ts_close=stamps_of(table),
        target=_floats(table, "target"),
        exposure=_floats(table, "exposure"),
        quantity=quantity,
        price=_floats(table, "price"),
        ordered=released | (np.isfinite(quantity) & (quantity != 0.0)),
        reasons=_counts(table["reason"]),
        bounds=_counts(bounds),
        actions=_counts(table["action"]),
    )


def _reasons(table: pa.Table) -> ReasonShares | None:
    """Shares by month, week or day, whichever gives a legible number of periods; a bar counts where it opened."""
    if not table.num_rows:
        return None
    times = (stamps_of(table) - 1).astype("datetime64[ns]")
    days = int((times.max() - times.min()) / np.timedelta64(1, "D")) + 1
    unit = next(name for name, longest in _PERIODS.items() if days <= longest)
    period = times.astype("datetime64[M]") if unit == "month" else times.astype("datetime64[D]")
    if unit == "week":  # weeks begin on Mondays, as the first of 1970 was a Thursday
        period -= ((period.astype(np.int64) + 3) % 7).astype("timedelta64[D]")
    starts, rows = np.unique(period, return_inverse=True)
    ends = (
        starts + {"day": np.timedelta64(1, "D"), "week": np.timedelta64(7, "D"), "month": np.timedelta64(1, "M")}[unit]
    )
    totals = np.bincount(rows)
    reasons = table["reason"].combine_chunks()
    shares = {
        str(reason): np.bincount(rows, pc.equal(reasons, reason).to_numpy(zero_copy_only=False)) / totals
        for reason in pc.unique(reasons).to_pylist()
    }
    first, last = (of.astype("datetime64[ns]").astype(np.int64) for of in (starts, ends))
    return ReasonShares(unit, first, last, shares)


def read_forecasts(folder: Path, instrument: str) -> tuple[RecordedForecasts, ...]:
    """Return one instrument's forecasts by horizon, shortest first."""
    table = _table(folder, "forecasts.parquet", ("ts_close", "instrument", "horizon", "levels", "quantiles"))
    table = table.filter(pc.equal(table["instrument"], instrument)).combine_chunks()
    if table.num_rows == 0:
        return ()
    levels_NQ, quantiles_NQ = (_matrix(table, name, folder) for name in ("levels", "quantiles"))
    if levels_NQ.shape != quantiles_NQ.shape or (levels_NQ != levels_NQ[0]).any():
        raise LSTMStrategyError(f"{folder / 'forecasts.parquet'}: the levels differ from row to row")
    stamps, horizon_N = stamps_of(table), table["horizon"].to_numpy()
    levels = tuple(float(level) for level in levels_NQ[0])
    forecasts = []
    for horizon in np.unique(horizon_N):
        rows = np.flatnonzero(horizon_N == horizon)
        rows = rows[np.argsort(stamps[rows], kind="stable")]
        forecasts.append(
            RecordedForecasts(int(horizon), levels, stamps[rows], quantiles_NQ[rows].astype(np.float32, copy=False))
        )
    return tuple(forecasts)


def _matrix(table: pa.Table, name: str, folder: Path) -> npt.NDArray[np.floating]:
    lengths = pc.unique(pc.list_value_length(table[name])).to_pylist()
    if len(lengths) != 1 or not lengths[0]:
        raise LSTMStrategyError(f"{folder / 'forecasts.parquet'}: the lists in {name!r} differ in length")
    flat: npt.NDArray[np.floating] = pc.list_flatten(table[name]).to_numpy()
    return flat.reshape(-1, lengths[0])


def stamps_of(table: pa.Table) -> Stamps:
    """Return the column of closes, ns."""
    column = table["ts_close"]
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.timestamp("ns", column.type.tz))
    return np.asarray(column.cast(pa.int64()).to_numpy(), dtype=np.int64)


def _floats(table: pa.Table, name: str) -> Float:
    return np.asarray(table[name].cast(pa.float64()).to_numpy(zero_copy_only=False), dtype=np.float64)


def _counts(column: pa.ChunkedArray) -> dict[str, int]:
    counted = [(str(row["values"]), int(row["counts"])) for row in pc.value_counts(column).to_pylist()]
    return dict(sorted(counted, key=lambda item: (-item[1], item[0])))


def _bar_ns(summary: Summary, equity: EquityCurve) -> int:
    if summary.timeframe:
        return Timeframe.parse(summary.timeframe).ns
    return int(np.median(np.diff(equity.ts_close)))
