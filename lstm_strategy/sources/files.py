"""Bars from CSV, Parquet and feather files as exchanges and data vendors write them."""

from __future__ import annotations

import gzip
import re
import time
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet as pq

from lstm_strategy.bars import Bars, BarsError, Float, Stamps, Timeframe, format_ns, parse_ns
from lstm_strategy.sources.store import Columns

__all__ = ["MAX_ROWS", "Stamp", "commonest_step", "read_columns", "read_file", "read_rates", "step_text"]

type Stamp = Literal["open", "close"]

MAX_ROWS = 50_000_000
_MAX_BYTES = 8 << 30
_SUFFIXES = (".csv", ".csv.gz", ".parquet", ".feather")

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
_EARLIEST, _LATEST = parse_ns("1900-01-01"), parse_ns("2200-01-01")
_TWO_YEARS = 2 * 365 * 86_400_000_000_000
_NS_PER_EPOCH_UNIT = (1_000_000_000, 1_000_000, 1_000, 1)  # s, ms, us, ns


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
    table = _read_table(path)
    stamp_name, names = _match_names(path, table.column_names, stamp)
    ts = _stamps_ns(path, table[stamp_name], stamp_name)
    if stamp == "open":
        ts = ts + timeframe.ns
    else:
        early = -ts % timeframe.ns
        ts = np.where(np.isin(early, (1_000, 1_000_000, 1_000_000_000)), ts + early, ts)
    columns: Columns = {"ts_close": ts}
    for field, name in names.items():
        columns[field] = _numbers(path, table[name], name, ts)
    _mend_rounding(columns)
    return columns


def read_rates(path: Path) -> tuple[Stamps, Float]:
    """Read one file of funding rates: when each was paid (ns, rising), and what longs paid, as a fraction of value.

    Raises
    ------
    BarsError
        One line naming the file and the way out.
    """
    table = _read_table(path)
    plain = {re.sub(r"[\s-]+", "_", name.strip().lower()): name for name in table.column_names}
    found = [
        next((plain[name] for name in names if name in plain), None) for names in (_FUNDING_STAMPS, _FUNDING_RATES)
    ]
    stamp, rate = found
    if stamp is None or rate is None:
        missing, known = "stamps (ts, funding_time …)" if stamp is None else "rates (funding_rate, rate …)", list(plain)
        raise BarsError(f"{path}: no column of {missing}; found {', '.join(known)}")
    ts = _stamps_ns(path, table[stamp], stamp)
    values = _numbers(path, table[rate], rate, ts)
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
    for unit, ns in (("d", 86_400_000_000_000), ("h", 3_600_000_000_000), ("m", 60_000_000_000)):
        if step_ns % ns == 0:
            return f"{step_ns // ns}{unit}"
    return f"{step_ns / 1_000_000_000:g}s"


def _read_table(path: Path) -> pa.Table:
    name = path.name.lower()
    if not name.endswith(_SUFFIXES):
        raise BarsError(f"{path}: the suffix is not one of {', '.join(_SUFFIXES)}")
    try:
        if not path.is_file():
            raise BarsError(f"{path}: there is no such file")
        size = path.stat().st_size
        if size == 0:
            raise BarsError(f"{path}: the file is empty")
        if size > _MAX_BYTES:
            raise BarsError(f"{path}: {size / 2**30:.1f} GiB is more than one import takes; split the file")
        if name.endswith(".parquet"):
            rows = pq.read_metadata(path).num_rows
            if rows > MAX_ROWS:
                raise BarsError(f"{path}: {rows:,} rows are more than {MAX_ROWS:,}; split the file")
            table = pq.read_table(path, partitioning=None)
        elif name.endswith(".feather"):
            table = pyarrow.feather.read_table(path)
        else:
            table = _read_csv(path, gzipped=name.endswith(".gz"))
    except (OSError, EOFError, pa.ArrowException, ValueError) as error:
        text = str(error).strip().splitlines()
        raise BarsError(f"{path}: the file cannot be read ({text[0] if text else type(error).__name__})") from error
    if table.num_rows == 0:
        raise BarsError(f"{path}: the file has no rows")
    if table.num_rows > MAX_ROWS:
        raise BarsError(f"{path}: {table.num_rows:,} rows are more than {MAX_ROWS:,}; split the file")
    return table


def _read_csv(path: Path, *, gzipped: bool) -> pa.Table:
    with path.open("rb") as file:
        data = gzip.GzipFile(fileobj=file).read(_MAX_BYTES + 1) if gzipped else file.read(_MAX_BYTES + 1)
    if len(data) > _MAX_BYTES:
        raise BarsError(f"{path}: unpacked it is more than one import takes; split the file")
    first = data[:4096].removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace").splitlines()
    if not first or not data.strip():
        raise BarsError(f"{path}: the file is empty")
    delimiter = max(",;\t", key=first[0].count)
    cells = [cell.strip().strip('"') for cell in first[0].split(delimiter)]
    headless = len(cells) >= 6 and all(re.fullmatch(r"-?\d[\d.eE+:TZ -]*", cell) for cell in cells[:6])
    names = ["ts", *_NUMBERS, *(f"column_{i}" for i in range(6, len(cells)))] if headless else None
    return pa.csv.read_csv(
        pa.BufferReader(data),
        read_options=pa.csv.ReadOptions(column_names=names),
        parse_options=pa.csv.ParseOptions(delimiter=delimiter),
    )


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


def _stamps_ns(path: Path, column: pa.ChunkedArray, name: str) -> Stamps:
    if column.null_count:
        row = int(np.asarray(column.is_null()).argmax())
        raise BarsError(f"{path}: row {row} has no stamp in column {name!r}")
    kind = column.type
    if pa.types.is_dictionary(kind):
        column, kind = column.cast(kind.value_type), kind.value_type
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        try:
            ns = np.asarray(column.cast(pa.timestamp("ns", getattr(kind, "tz", None))).cast(pa.int64()))
        except pa.ArrowInvalid as error:
            raise BarsError(f"{path}: column {name!r} holds stamps beyond 1677..2262") from error
    elif pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        ns = _epoch_ns(path, np.asarray(column.cast(pa.float64()) if pa.types.is_decimal(kind) else column), name)
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        ns = _text_ns(path, column, name)
    else:
        raise BarsError(f"{path}: column {name!r} is of type {kind}, not dates or numbers of seconds")
    wrong = (ns < _EARLIEST) | (ns > _LATEST)
    if wrong.any():
        row = int(wrong.argmax())
        raise BarsError(
            f"{path}: row {row} is stamped {format_ns(int(ns[row]))}, outside 1900 and today: {column[row]}"
        )
    return ns


def _epoch_ns(path: Path, values: npt.NDArray[np.generic], name: str) -> Stamps:
    """Return epoch numbers as nanoseconds, the unit by the largest; a second unit shows as a leap of decades."""
    size = np.abs(values.astype(np.float64))
    if not np.isfinite(size).all():
        raise BarsError(f"{path}: row {int((~np.isfinite(size)).argmax())} has no stamp in column {name!r}")
    unit = np.digitize(size, (1e10, 1e13, 1e16))  # each unit reaches from April 1970 to 2286
    largest = int(unit.max())
    if size.max() < 1e7 or size.max() >= 1e19:
        raise BarsError(f"{path}: column {name!r} holds {values[0]}, which is no count of s, ms, us or ns since 1970")
    factor = _NS_PER_EPOCH_UNIT[largest]
    whole = values.astype(np.int64)
    ns = whole * factor
    if values.dtype.kind == "f":
        ns = ns + np.rint((values.astype(np.float64) - whole) * factor).astype(np.int64)
    mixed = (unit != largest) & (np.abs(np.diff(ns, prepend=ns[size.argmax()])) > _TWO_YEARS)
    if mixed.any():
        row = int(mixed.argmax())
        raise BarsError(
            f"{path}: column {name!r} mixes units of time, row {row} has {values[row]}, others {values[-1]}"
        )
    return np.asarray(ns, dtype=np.int64)


def _text_ns(path: Path, column: pa.ChunkedArray, name: str) -> Stamps:
    numeric = pc.match_substring_regex(column, r"^\s*-?\d+(\.\d+)?\s*$")
    if pc.all(numeric).as_py():
        return _epoch_ns(path, np.asarray(pc.utf8_trim_whitespace(column).cast(pa.float64())), name)
    import pandas as pd  # slow to import, needed for text alone

    texts = pd.Series(column.to_pylist())
    when = pd.to_datetime(texts, format="ISO8601", utc=True, errors="coerce")
    bad = when.isna().to_numpy() | np.asarray(numeric)
    if bad.any():
        row = int(bad.argmax())
        raise BarsError(f"{path}: row {row} of column {name!r} is {texts[row]!r}, not a date such as 2024-01-31 12:00")
    return np.asarray(when.dt.tz_localize(None).to_numpy().astype("datetime64[ns]").astype(np.int64))


def _numbers(path: Path, column: pa.ChunkedArray, name: str, ts: Stamps) -> Float:
    try:
        return np.asarray(column.cast(pa.float64()).to_numpy(zero_copy_only=False), dtype=np.float64)
    except pa.ArrowException:
        for row, value in enumerate(column.to_pylist()):
            try:
                float(value if value is not None else "nan")
            except (TypeError, ValueError):
                where = f"row {row}, bar closing {format_ns(int(ts[row]))}"
                raise BarsError(f"{path}: column {name!r} holds {value!r}, not a number ({where})") from None
        return np.array([float("nan") if value is None else float(value) for value in column.to_pylist()])


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
