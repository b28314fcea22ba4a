"""Tables from CSV, Parquet and feather files, and their columns as stamps and numbers."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet as pq

from lstm_strategy.bars import NS_PER_YEAR, BarsError, Float, Stamps, format_ns, parse_ns
from lstm_strategy.errors import first_line_of

__all__ = ["numbers_of", "read_table", "stamps_of"]

_MAX_ROWS = 50_000_000
_MAX_BYTES = 8 << 30
_SUFFIXES = (".csv", ".csv.gz", ".parquet", ".feather")
_DUMPED = ("ts", "open", "high", "low", "close", "volume")  # the order of a CSV without a header
_FIGURES = re.compile(r"-?\d[\d.eE+:TZ -]*")
_EARLIEST, _LATEST = parse_ns("1900-01-01"), parse_ns("2200-01-01")
_TWO_YEARS = 2 * NS_PER_YEAR
_NS_PER_EPOCH_UNIT = (1_000_000_000, 1_000_000, 1_000, 1)  # s, ms, us, ns


def read_table(path: Path) -> pa.Table:
    """Read a whole file by its suffix: ``.csv``, ``.csv.gz``, ``.parquet`` or ``.feather``.

    A CSV without a header gets the names of exchanges' dumps: ts, open, high, low, close, volume.

    Raises
    ------
    BarsError
        One line naming the file and the way out.
    """
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
            if rows > _MAX_ROWS:
                raise BarsError(f"{path}: {rows:,} rows are more than {_MAX_ROWS:,}; split the file")
            table = pq.read_table(path, partitioning=None)
        elif name.endswith(".feather"):
            table = pyarrow.feather.read_table(path)
        else:
            table = _read_csv(path, gzipped=name.endswith(".gz"))
    except (OSError, EOFError, pa.ArrowException, ValueError) as error:
        raise BarsError(f"{path}: the file cannot be read ({first_line_of(error)})") from error
    if table.num_rows == 0:
        raise BarsError(f"{path}: the file has no rows")
    if table.num_rows > _MAX_ROWS:
        raise BarsError(f"{path}: {table.num_rows:,} rows are more than {_MAX_ROWS:,}; split the file")
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
    headless = len(cells) >= len(_DUMPED) and all(map(_FIGURES.fullmatch, cells[: len(_DUMPED)]))
    names = [*_DUMPED, *(f"column_{i}" for i in range(len(_DUMPED), len(cells)))] if headless else None
    return pa.csv.read_csv(
        pa.BufferReader(data),
        read_options=pa.csv.ReadOptions(column_names=names),
        parse_options=pa.csv.ParseOptions(delimiter=delimiter),
    )


def stamps_of(path: Path, column: pa.ChunkedArray, name: str) -> Stamps:
    """Return a column of dates, text or numbers since 1970 as nanoseconds UTC, int64 [T]; naive times are UTC."""
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


def numbers_of(path: Path, column: pa.ChunkedArray, name: str, ts: Stamps) -> Float:
    """Return a column as float64 [T], NaN where it is empty; what is no number is told with its row and stamp."""
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
