"""Bars from CSV, Parquet and feather files as exchanges and data vendors write them."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Literal

import numpy as np

from lstm_strategy.bars import NS_PER_DAY, NS_PER_HOUR, Bars, BarsError, Float, Stamps, Timeframe, format_ns
from lstm_strategy.sources.store import Columns
from lstm_strategy.sources.tables import numbers_of, read_table, stamps_of

__all__ = ["Stamp", "commonest_step", "read_columns", "read_file", "read_rates", "step_text"]

type Stamp = Literal["open", "close"]

_OPEN_STAMPS = ("open_time", "opentime", "ts_open", "open_ts", "time_open", "open_timestamp")
_CLOSE_STAMPS = ("close_time", "closetime", "ts_close", "close_ts", "time_close", "close_timestamp")
_STAMPS = ("ts", "timestamp", "datetime", "date_time", "time", "date", "unix", "t", "__index_level_0__", "")
_NUMBERS = {
    "open": ("open", "o", "open_price"),
    "high": ("high", "h", "high_price"),
    "low": ("low", "l", "low_price"),
    "close": ("close", "c", "close_price"),
    "volume": ("volume", "v", "vol", "base_volume", "volume_base"),
}
_FUNDING_STAMPS = ("funding_time", "fundingtime", "calc_time", *_STAMPS)
_FUNDING_RATES = ("funding_rate", "fundingrate", "last_funding_rate", "rate")
_LARGEST_RATE = 0.1  # beyond it a rate was written in per cent


def read_file(path: Path, instrument_id: str, timeframe: Timeframe, stamp: Stamp) -> Bars:
    """Read one file of bars; open stamps become close stamps here, and nowhere else.

    Parameters
    ----------
    path : Path
        ``.csv``, ``.csv.gz``, ``.parquet`` or ``.feather``. A CSV without a header is taken in the order of exchanges'
        dumps: stamp, open, high, low, close, volume. High and low that miss open or close by rounding are widened.
    stamp : {'open', 'close'}
        What the file's stamps mean. Naive times are UTC; numbers are seconds, milli-, micro- or nanoseconds since 1970,
        told apart by size. A close stamp 1 us, 1 ms or 1 s early (23:59:59.999) counts as its grid point.

    Raises
    ------
    BarsError
        One line naming the file, the row and the way out.
    """
    columns = read_columns(path, timeframe, stamp)
    stamps = np.asarray(columns["ts_close"], dtype=np.int64)
    _check_stamps(path, stamps, timeframe)
    try:
        return Bars(instrument_id, timeframe, **columns)
    except BarsError as error:
        raise BarsError(f"{path}: {error}") from error


def read_columns(path: Path, timeframe: Timeframe, stamp: Stamp) -> Columns:
    """Read the six columns, close-stamped, with duplicates, holes and wrong prices as they are; see `read_file`."""
    table = read_table(path)
    stamp_name, names = _match_names(path, table.column_names, stamp)
    ts = stamps_of(path, table[stamp_name], stamp_name)
    if stamp == "open":
        ts = ts + timeframe.ns
    else:
        early = -ts % timeframe.ns
        ts = np.where(np.isin(early, (1_000, 1_000_000, 1_000_000_000)), ts + early, ts)
    columns: Columns = {"ts_close": ts}
    for field, name in names.items():
        columns[field] = numbers_of(path, table[name], name, ts)
    _mend_rounding(columns)
    return columns


def read_rates(path: Path) -> tuple[Stamps, Float]:
    """Read one file of funding rates: when each was paid (ns, rising), and what longs paid, as a fraction of value.

    Raises
    ------
    BarsError
        One line naming the file and the way out.
    """
    table = read_table(path)
    plain = {re.sub(r"[\s-]+", "_", name.strip().lower()): name for name in table.column_names}
    found = [
        next((plain[name] for name in names if name in plain), None) for names in (_FUNDING_STAMPS, _FUNDING_RATES)
    ]
    stamp, rate = found
    if stamp is None or rate is None:
        missing, known = "stamps (ts, funding_time …)" if stamp is None else "rates (funding_rate, rate …)", list(plain)
        raise BarsError(f"{path}: no column of {missing}; found {', '.join(known)}")
    ts = stamps_of(path, table[stamp], stamp)
    values = numbers_of(path, table[rate], rate, ts)
    if not (np.abs(values) <= _LARGEST_RATE).all():
        raise BarsError(f"{path}: a rate is above {_LARGEST_RATE}; rates are fractions: 0.0001 is 0.01 %")
    ts, first = np.unique(ts, return_index=True)
    return ts, values[first]


def commonest_step(stamps: Stamps) -> int | None:
    """Return the commonest distance between neighbours in nanoseconds; None for fewer than two different stamps."""
    steps = np.diff(np.unique(stamps))
    if not len(steps):
        return None
    values, counts = np.unique(steps, return_counts=True)
    return int(values[counts.argmax()])


def step_text(step_ns: int) -> str:
    """Return a distance in nanoseconds as a timeframe such as ``15m``, or in seconds where it is none."""
    for unit, ns in (("d", NS_PER_DAY), ("h", NS_PER_HOUR), ("m", 60_000_000_000)):
        if step_ns % ns == 0:
            return f"{step_ns // ns}{unit}"
    return f"{step_ns / 1_000_000_000:g}s"


def _match_names(path: Path, found: list[str], stamp: Stamp) -> tuple[str, dict[str, str]]:
    """Return the column of stamps, and the columns of prices and volume by field."""
    plain = [re.sub(r"[\s-]+", "_", name.removeprefix("\ufeff").strip().strip('"').lower()) for name in found]
    told = ", ".join(name or "''" for name in found)

    def pick(candidates: tuple[str, ...]) -> str | None:
        for candidate in candidates:
            hits = [name for name, text in zip(found, plain, strict=True) if text == candidate]
            if len(hits) > 1:
                raise BarsError(f"{path}: columns {' and '.join(hits)} could both be {candidate!r}; rename one")
            if hits:
                return hits[0]
        return None

    own, other = (_OPEN_STAMPS, _CLOSE_STAMPS) if stamp == "open" else (_CLOSE_STAMPS, _OPEN_STAMPS)
    stamps = pick(own) or pick(_STAMPS)
    if stamps is None:
        contrary = pick(other)
        if contrary is not None:
            right = "close" if stamp == "open" else "open"
            raise BarsError(f"{path}: column {contrary!r} does not hold {stamp} stamps; pass --stamp {right}")
        raise BarsError(f"{path}: no column of stamps (ts, timestamp, date, open_time …); found {told}")
    names: dict[str, str] = {}
    for field, candidates in _NUMBERS.items():
        name = pick(candidates)
        if name is None:
            raise BarsError(f"{path}: column {field!r} is missing; found {told}")
        names[field] = name
    return stamps, names


def _mend_rounding(columns: Columns) -> None:
    """Widen high and low to open and close where they miss by rounding alone (1 part in 10^9): adjusted prices do."""
    top, bottom = np.maximum(columns["open"], columns["close"]), np.minimum(columns["open"], columns["close"])
    high, low = columns["high"], columns["low"]
    columns["high"] = np.where((high < top) & (high > top * (1 - 1e-9)), top, high)
    columns["low"] = np.where((low > bottom) & (low < bottom * (1 + 1e-9)), bottom, low)


def _check_stamps(path: Path, ts: Stamps, timeframe: Timeframe) -> None:
    steps = np.diff(ts)
    if len(steps) and (steps <= 0).all() and (steps < 0).any():
        raise BarsError(f"{path}: the newest bar comes first; sort the rows by time, oldest first")
    for wrong, problem in ((steps < 0, "is earlier than the row before"), (steps == 0, "is a duplicate")):
        if wrong.any():
            row = int(wrong.argmax()) + 1
            count = int(wrong.sum())
            raise BarsError(f"{path}: row {row}, bar closing {format_ns(ts[row])}, {problem} ({count} such rows)")
    step = commonest_step(ts)
    if step is not None and step != timeframe.ns:
        raise BarsError(f"{path}: the commonest step is {step_text(step)}, not {timeframe}; pass --timeframe to match")
    off = ts % timeframe.ns != 0
    if off.any():
        row = int(off.argmax())
        raise BarsError(
            f"{path}: row {row}, bar closing {format_ns(ts[row])}, is not on the {timeframe} grid of UTC"
            f" ({int(off.sum())} such rows)"
        )
    if ts[-1] > time.time_ns():
        row = int((ts > time.time_ns()).argmax())
        raise BarsError(
            f"{path}: row {row} closes at {format_ns(ts[row])}, in the future; drop the unfinished bar or check --stamp"
        )
