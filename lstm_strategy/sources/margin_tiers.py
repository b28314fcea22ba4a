"""A venue's margin tiers beside the bars they belong to: read from what venues and CCXT answer, checked, kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from lstm_strategy.atomic import atomic_write
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.margin import MarginTier, require_maintenance
from lstm_strategy.sources.store import RawStore

__all__ = ["keep_tiers", "read_tiers", "tiers_from_file"]

_FILE = "margin_tiers.json"
# Names of floor, cap, rate and amount: our own, Binance's `leverageBracket`, CCXT's `fetch_leverage_tiers`.
_NAMES = (
    ("above", "upto", "rate", "amount"),
    ("notionalFloor", "notionalCap", "maintMarginRatio", "cum"),
    ("minNotional", "maxNotional", "maintenanceMarginRate", "amount"),
)


def tiers_from_file(file: Path, symbol: str) -> tuple[MarginTier, ...]:
    """Return the tiers of one symbol from a JSON file.

    Takes a list of tiers, Binance's reply of ``/fapi/v1/leverageBracket`` (one symbol or many) and CCXT's of
    ``fetch_leverage_tiers``; with many, ``symbol`` is the venue's name of it, such as ``BTCUSDT`` or ``BTC/USDT:USDT``.

    Raises
    ------
    LSTMStrategyError
        For a file that does not read, has no such symbol, or a table that contradicts itself.
    """
    try:
        content = msgspec.json.decode(file.read_bytes())
    except (OSError, msgspec.DecodeError) as error:
        raise LSTMStrategyError(f"{file} cannot be read as JSON: {error}") from None
    rows = _rows(content, symbol, file)
    try:
        tiers = tuple(_tier(row) for row in rows)
    except (KeyError, TypeError, ValueError) as error:
        raise LSTMStrategyError(
            f"{file}: a tier of {symbol} lacks {error}; tiers have {', '.join(_NAMES[0])}, or Binance's or CCXT's names"
        ) from None
    tiers = tuple(sorted(tiers, key=lambda tier: tier.above))
    require_maintenance(tiers, f"{file}, {symbol}")
    return tiers


def keep_tiers(store: RawStore, instrument_id: str, tiers: tuple[MarginTier, ...]) -> Path:
    """Write the tiers beside the instrument's bars, in the place of what was there; return where."""
    require_maintenance(tiers, instrument_id)
    path = store.market_folder(instrument_id) / _FILE
    with atomic_write(path) as temporary:
        temporary.write_bytes(msgspec.json.format(msgspec.json.encode(tiers), indent=1) + b"\n")
    return path


def read_tiers(store: RawStore, instrument_id: str) -> tuple[MarginTier, ...]:
    """Return what `keep_tiers` wrote; nothing where there is none.

    Raises
    ------
    LSTMStrategyError
        For a file that is damaged.
    """
    path = store.market_folder(instrument_id) / _FILE
    if not path.exists():
        return ()
    try:
        tiers = msgspec.json.decode(path.read_bytes(), type=tuple[MarginTier, ...])
    except (OSError, msgspec.MsgspecError) as error:
        raise LSTMStrategyError(f"{path} cannot be read ({error}); bring the tiers in again, or remove it") from None
    require_maintenance(tiers, str(path))
    return tiers


def _rows(content: Any, symbol: str, file: Path) -> list[Any]:
    """Return the list of tiers in whatever stands around it."""
    if isinstance(content, dict) and "brackets" in content:
        content = [content]
    if isinstance(content, list) and content and isinstance(content[0], dict) and "brackets" in content[0]:
        content = {str(each.get("symbol")): each["brackets"] for each in content if isinstance(each, dict)}
    if isinstance(content, dict):
        if symbol not in content:
            held = ", ".join(sorted(map(str, content))[:5])
            raise LSTMStrategyError(f"{file} has no tiers of {symbol}; it has {held or 'none'}: name one with --symbol")
        content = content[symbol]
    if not isinstance(content, list) or not content:
        raise LSTMStrategyError(f"{file} has no list of tiers of {symbol}")
    return content


def _tier(row: Any) -> MarginTier:
    names = next((names for names in _NAMES if names[0] in row and names[2] in row), _NAMES[0])
    floor, cap, rate, amount = names
    told = row.get(amount, (row.get("info") or {}).get("cum"))
    return MarginTier(
        above=float(row[floor]),
        upto=None if row.get(cap) is None else float(row[cap]),
        rate=float(row[rate]),
        amount=None if told is None else float(told),
    )
