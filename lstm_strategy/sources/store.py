"""RawStore: the truth on disk, close-stamped bars as plain Parquet that any tool can read."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from lstm_strategy.atomic import atomic_write, exclusive
from lstm_strategy.bars import Bars, BarsError, Timeframe, format_ns
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.instrument import Instrument, folder_of, split_id, symbol_of
from lstm_strategy.sources import pages
from lstm_strategy.sources.pages import COLUMNS
from lstm_strategy.sources.spans import Spans

__all__ = ["COLUMNS", "Columns", "MergeResult", "RawStore", "columns_of"]

# The six columns [T] as they are found, not validated: ts_close int64 ns, the others float64.
type Columns = dict[str, npt.NDArray[Any]]


class MergeResult(NamedTuple):
    """Bars of one merge: new ones, ones that were there with the same values, overwritten ones, and all held now."""

    added: int
    unchanged: int
    replaced: int
    total: int


def columns_of(bars: Bars) -> Columns:
    """Return the six arrays of ``bars`` by name."""
    return {name: getattr(bars, name) for name in COLUMNS}


class RawStore:
    """Bars and instruments under ``root/raw/<VENUE>/<SYMBOL>/``; a timeframe's bars in ``bars.parquet``.

    While a download runs, and after one that was killed, the newest lie in ``pages/`` beside it; reading sees both.

    Parameters
    ----------
    root : Path
        The catalog folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, instrument_id: str, timeframe: Timeframe) -> Path:
        """Return where the bars of one instrument and timeframe lie, there or not."""
        return self.folder(instrument_id, timeframe) / "bars.parquet"

    def folder(self, instrument_id: str, timeframe: Timeframe) -> Path:
        """Return the folder of one instrument and timeframe, there or not."""
        return self.market_folder(instrument_id) / timeframe.text

    def market_folder(self, instrument_id: str) -> Path:
        """Return the folder of one instrument: what is known of it, and all its timeframes."""
        symbol, venue = split_id(instrument_id)
        return self.root / "raw" / venue / folder_of(symbol)

    def has(self, instrument_id: str, timeframe: Timeframe) -> bool:
        """Say whether there are bars."""
        folder = self.folder(instrument_id, timeframe)
        return bool(pages.page_files(folder)) or (folder / "bars.parquet").exists()  # a fold goes from first to second

    def entries(self) -> list[tuple[str, Timeframe]]:
        """Return instrument and timeframe of everything held, sorted by instrument, then by length of bar."""
        raw = self.root / "raw"
        folders = {file.parents[1] for file in raw.glob("*/*/*/pages/*.parquet")}  # before a fold moves them
        folders |= {file.parent for file in raw.glob("*/*/*/bars.parquet")}
        found = []
        for folder in folders:
            venue, symbol, timeframe = folder.parts[-3:]
            if not any(part.startswith(".") for part in (venue, symbol, timeframe)):
                found.append((f"{symbol_of(symbol)}.{venue}", Timeframe.parse(timeframe)))
        return sorted(found, key=lambda entry: (entry[0], entry[1].ns, entry[1].text))

    def read_columns(self, instrument_id: str, timeframe: Timeframe) -> Columns:
        """Return the columns as they lie on disk, not validated: for quality checks.

        Raises
        ------
        LSTMStrategyError
            Where there are none, or the file cannot be read.
        """
        path = self.path(instrument_id, timeframe)
        if not self.has(instrument_id, timeframe):
            raise self._missing(instrument_id, timeframe)
        try:
            table = pages.read_table(path.parent)
        except (OSError, pa.ArrowException, ValueError) as error:
            raise _unreadable(path, error, "import the bars again") from error
        columns: Columns = {name: table[name].to_numpy() for name in COLUMNS[1:]}
        return {"ts_close": table["ts_close"].cast(pa.int64()).to_numpy(), **columns}

    def read(self, instrument_id: str, timeframe: Timeframe) -> Bars:
        """Return all bars of one instrument and timeframe.

        Raises
        ------
        LSTMStrategyError
            Where there are none (the message says what there is), or they are not valid.
        """
        columns = self.read_columns(instrument_id, timeframe)
        try:
            return Bars(instrument_id, timeframe, **columns)
        except BarsError as error:
            raise BarsError(
                f"{self.path(instrument_id, timeframe)}: {error}; see `lstm-strategy data check`"
            ) from error

    def spans(self, instrument_id: str, timeframe: Timeframe) -> Spans:
        """Return the opening times (ns) that bars cover; none where there are no bars. Little memory is needed."""
        path = self.path(instrument_id, timeframe)
        try:
            return pages.read_spans(path.parent, timeframe.ns)
        except (OSError, pa.ArrowException, ValueError, KeyError) as error:
            raise _unreadable(path, error, "fetch again") from error

    def merge(self, bars: Bars, *, replace: bool = False) -> MergeResult:
        """Add bars to those held, by stamp; bars already held with the same values change nothing.

        Raises
        ------
        LSTMStrategyError
            Where a stamp is held with other values, unless ``replace``; the store is then as it was.
        """
        path = self.path(bars.instrument_id, bars.timeframe)
        with exclusive(path.parent):
            if not self.has(bars.instrument_id, bars.timeframe):
                if len(bars):
                    self._write(path, bars)
                return MergeResult(len(bars), 0, 0, len(bars))
            held = self.read(bars.instrument_id, bars.timeframe)
            new = ~np.isin(bars.ts_close, held.ts_close)
            differs = ~new
            rows = np.searchsorted(held.ts_close, bars.ts_close[differs])
            same = np.ones(len(rows), dtype=bool)
            for name in COLUMNS[1:]:
                same &= getattr(held, name)[rows] == getattr(bars, name)[differs]
            differs[differs] = ~same
            replaced = int(differs.sum())
            if replaced and not replace:
                raise self._conflict(held, bars, differs)
            result = MergeResult(int(new.sum()), int(same.sum()), replaced, len(held) + int(new.sum()))
            if result.added or replaced:
                self._write(path, _union(held, bars, new | differs))
        return result

    def read_instrument(self, instrument_id: str) -> Instrument:
        """Return what is known of the market.

        Raises
        ------
        LSTMStrategyError
            Where nothing is, or the file does not read.
        """
        path = self.market_folder(instrument_id) / "instrument.json"
        try:
            instrument = msgspec.json.decode(path.read_bytes(), type=Instrument)
        except FileNotFoundError as error:
            raise self._missing(instrument_id, None) from error
        except (OSError, msgspec.DecodeError, LSTMStrategyError) as error:
            raise LSTMStrategyError(f"{path} cannot be read ({_first_line(error)}); import the bars again") from error
        if instrument.id != instrument_id:
            raise LSTMStrategyError(f"{path} describes {instrument.id}, not {instrument_id}; import the bars again")
        return instrument

    def has_instrument(self, instrument_id: str) -> bool:
        """Say whether `read_instrument` has something to read."""
        return (self.market_folder(instrument_id) / "instrument.json").exists()

    def write_instrument(self, instrument: Instrument) -> None:
        """Keep what is known of the market, in place of what was known before."""
        encoded = msgspec.json.format(msgspec.json.encode(instrument), indent=2)
        with atomic_write(self.market_folder(instrument.id) / "instrument.json") as temporary:
            temporary.write_bytes(encoded + b"\n")

    def _write(self, path: Path, bars: Bars) -> None:
        """Write all there is to the file; pages that were there are in it and go."""
        waiting = pages.page_files(path.parent)
        with atomic_write(path) as temporary:
            pq.write_table(pages.table_of(bars), temporary, compression="zstd", row_group_size=pages.BLOCK)
        pages.drop_pages(waiting)

    def _missing(self, instrument_id: str, timeframe: Timeframe | None) -> LSTMStrategyError:
        held = ", ".join(f"{name} {length}" for name, length in self.entries())
        wanted = f"{instrument_id} {timeframe}" if timeframe else f"instrument {instrument_id}"
        command = f"lstm-strategy data import FILE --instrument {instrument_id} --timeframe {timeframe or '1h'}"
        return LSTMStrategyError(
            f"catalog {self.root} does not hold {wanted}; it holds {held or 'nothing'}; bring it in with `{command}`"
        )

    def _conflict(self, held: Bars, bars: Bars, differs: npt.NDArray[np.bool_]) -> LSTMStrategyError:
        row = int(differs.argmax())
        there = int(np.searchsorted(held.ts_close, bars.ts_close[row]))
        name = next(n for n in COLUMNS[1:] if getattr(held, n)[there] != getattr(bars, n)[row])
        return LSTMStrategyError(
            f"{bars.instrument_id} {bars.timeframe}: {int(differs.sum())} bars are held with other values, first at"
            f" {format_ns(bars.ts_close[row])} ({name} {getattr(held, name)[there]} held, {getattr(bars, name)[row]}"
            " given); pass --replace to overwrite them"
        )


def _union(held: Bars, bars: Bars, taken: npt.NDArray[np.bool_]) -> Bars:
    """Return held bars with the ``taken`` ones of ``bars`` added or put in place of those of the same stamp."""
    kept = ~np.isin(held.ts_close, bars.ts_close[taken])
    order = np.argsort(np.concatenate([held.ts_close[kept], bars.ts_close[taken]]), kind="stable")
    columns = {name: np.concatenate([getattr(held, name)[kept], getattr(bars, name)[taken]])[order] for name in COLUMNS}
    return Bars(bars.instrument_id, bars.timeframe, **columns)


def _unreadable(path: Path, error: Exception, then: str) -> LSTMStrategyError:
    advice = "try again" if isinstance(error, FileNotFoundError) else f"remove it and {then}"
    return LSTMStrategyError(f"{path} cannot be read ({_first_line(error)}); {advice}")


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
