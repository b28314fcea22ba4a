"""Which histories ``data check`` puts side by side: two sources of one instrument, finer bars and coarser ones held."""

from __future__ import annotations

from pathlib import Path

from lstm_strategy.bars import Timeframe
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.sources.agreement import Agreement, Side, compare
from lstm_strategy.sources.files import Stamp, commonest_step, read_columns, step_text
from lstm_strategy.sources.store import RawStore

__all__ = ["agreements_of", "check_against", "file_side", "is_file", "not_held"]

_DAY = Timeframe.parse("1d")


def is_file(what: str) -> bool:
    """Say whether an argument means a file rather than an instrument of the catalog."""
    return Path(what).is_file() or what.lower().endswith((".csv", ".gz", ".parquet", ".feather"))


def check_against(
    store: RawStore, what: str | None, against: str, timeframe: Timeframe | None, stamps: tuple[Stamp, Stamp]
) -> Agreement:
    """Compare two sources of one instrument, each a file or an instrument of the catalog.

    Parameters
    ----------
    timeframe : Timeframe, optional
        Of ``what``. A file's is else told by its stamps, an instrument's is the one held.
    stamps : tuple
        What the stamps of either file mean.
    """
    if what is None:
        raise LSTMStrategyError(f"--against {against} needs something to compare; name a file or an instrument")
    first = file_side(Path(what), timeframe, stamps[0]) if is_file(what) else _held_side(store, what, timeframe, None)
    if is_file(against):
        return compare(first, file_side(Path(against), None, stamps[1]))
    return compare(first, _held_side(store, against, None, first.timeframe))


def agreements_of(store: RawStore, instrument_id: str, chosen: set[Timeframe]) -> list[Agreement]:
    """Compare every pair of lengths held of one instrument, one of them ``chosen``, the one a multiple of the other."""
    lengths = [length for name, length in store.entries() if name == instrument_id]
    pairs = [
        (fine, coarse)
        for fine in lengths
        for coarse in lengths
        if coarse.ns > fine.ns and coarse.ns % fine.ns == 0 and {fine, coarse} & chosen
    ]
    sides: dict[Timeframe, Side] = {}
    found = []
    try:
        equity = store.read_instrument(instrument_id).kind == "equity"
        for fine, coarse in pairs:
            if equity and coarse.ns >= _DAY.ns:  # the bars of one session make up no 24 hours
                continue
            for length in (fine, coarse):
                if length not in sides:
                    sides[length] = Side(instrument_id, length, store.read_columns(instrument_id, length))
            found.append(compare(sides[fine], sides[coarse]))
    except LSTMStrategyError:  # what cannot be read is an error of its entry
        return found
    return found


def file_side(path: Path, timeframe: Timeframe | None, stamp: Stamp) -> Side:
    """Read one file; without a timeframe its commonest step counts."""
    if timeframe is None:
        step = commonest_step(read_columns(path, Timeframe.parse("1s"), stamp)["ts_close"])
        if step is None:
            raise LSTMStrategyError(f"{path}: one bar does not tell its timeframe; pass --timeframe")
        timeframe = Timeframe.parse(step_text(step))
    return Side(str(path), timeframe, read_columns(path, timeframe, stamp))


def _held_side(store: RawStore, instrument_id: str, wanted: Timeframe | None, near: Timeframe | None) -> Side:
    """Return bars held of one instrument: of the ``wanted`` length, else like ``near``, else the only ones."""
    lengths = [length for name, length in store.entries() if name == instrument_id and wanted in (None, length)]
    if not lengths:
        raise not_held(store, instrument_id, wanted)
    if near is not None:
        fitting = [length for length in lengths if max(length.ns, near.ns) % min(length.ns, near.ns) == 0]
        lengths = [length for length in fitting if length.ns == near.ns] or fitting
        if not lengths:
            raise LSTMStrategyError(f"no bars held of {instrument_id} make up bars of {near}, or are made up of them")
    elif len(lengths) > 1:
        told = ", ".join(map(str, lengths))
        raise LSTMStrategyError(f"catalog {store.root} holds {instrument_id} as {told}; pass --timeframe")
    return Side(instrument_id, lengths[0], store.read_columns(instrument_id, lengths[0]))


def not_held(store: RawStore, instrument_id: str | None, timeframe: Timeframe | None) -> LSTMStrategyError:
    """Say that the catalog has nothing that fits, and what it has."""
    if instrument_id is None and timeframe is None:
        return LSTMStrategyError(
            f"catalog {store.root} holds nothing; bring bars in with"
            " `lstm-strategy data import FILE --instrument BTCUSDT.BINANCE --timeframe 1h`"
        )
    told = ", ".join(f"{name} {length}" for name, length in store.entries()) or "nothing"
    wanted = " ".join(str(part) for part in (instrument_id, timeframe) if part is not None)
    return LSTMStrategyError(f"catalog {store.root} does not hold {wanted}, nor is that a file; it holds {told}")
