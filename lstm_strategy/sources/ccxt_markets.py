"""Markets as CCXT tells of them: their names in NautilusTrader, and their steps, minimums and fees."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal, InvalidOperation
from typing import Any, Literal

from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.instrument import Instrument, split_id

__all__ = ["MarketKind", "find_market", "instrument_id_of", "instrument_of", "venue_of"]

type MarketKind = Literal["spot", "swap"]
type Market = Mapping[str, Any]

# CCXT's precision modes.
_DECIMAL_PLACES, _SIGNIFICANT_DIGITS, _TICK_SIZE = 2, 3, 4

_MOST_QUANTITY = Decimal(10) ** 13  # the engine's largest quantity is 3.4e13
_DEFAULT_FEES = {"spot": (0.001, 0.001), "perpetual": (0.0002, 0.0005)}
_NEAR = 5


def _binance(market: Market) -> str:
    native = str(market["id"])
    if market.get("spot"):
        return native
    return native.replace("_", "-") if native.endswith("_PERP") else f"{native}-PERP"


def _bybit(market: Market) -> str:
    kind = "SPOT" if market.get("spot") else "INVERSE" if market.get("inverse") else "LINEAR"
    return f"{market['id']}-{kind}"


def _native(market: Market) -> str:
    return str(market["id"])


def _slashed(market: Market) -> str:
    return f"{market['base']}/{market['quote']}"


def _hyperliquid(market: Market) -> str:
    name = (market.get("info") or {}).get("name")
    if market.get("spot"):
        return f"{market['base']}-{market['quote']}-SPOT"
    return f"{name or market.get('baseName') or market['base']}-USD-PERP"


def _other(market: Market) -> str:
    native = str(market["id"])
    named = market.get("spot") or any(word in native.upper() for word in ("PERP", "SWAP"))
    return native if named else f"{native}-PERP"


# CCXT exchange: (NautilusTrader venue, its symbol of a market). As NautilusTrader's own adapters name them, so that
# history, backtest and live trading speak of one instrument.
#
#              CCXT BTC/USDT    BTC/USDT:USDT         BTC/USD:BTC
#   binance    BTCUSDT          BTCUSDT-PERP          BTCUSD-PERP
#   bybit      BTCUSDT-SPOT     BTCUSDT-LINEAR        BTCUSD-INVERSE
#   okx        BTC-USDT         BTC-USDT-SWAP         BTC-USD-SWAP
#   kraken     BTC/USDT         PF_XBTUSD (krakenfutures BTC/USD:USD)    PI_XBTUSD
#   coinbase   BTC-USDT         BIP-20DEC30-CDE
#   hyperliquid  PURR-USDC-SPOT  BTC-USD-PERP (BTC/USDC:USDC)
#
# Any other exchange: its name in capitals, its own name of the market, swaps with -PERP where the name does not say so.
_NAMES: dict[str, tuple[str, Callable[[Market], str]]] = {
    "binance": ("BINANCE", _binance),
    "binanceusdm": ("BINANCE", _binance),
    "binancecoinm": ("BINANCE", _binance),
    "bybit": ("BYBIT", _bybit),
    "okx": ("OKX", _native),
    "kraken": ("KRAKEN", _slashed),
    "krakenfutures": ("KRAKEN", _native),
    "coinbase": ("COINBASE", _native),
    "coinbaseexchange": ("COINBASE", _native),
    "hyperliquid": ("HYPERLIQUID", _hyperliquid),
}


def venue_of(exchange: str) -> str:
    """Return NautilusTrader's name of a CCXT exchange."""
    return _NAMES[exchange][0] if exchange in _NAMES else exchange.upper()


def instrument_id_of(exchange: str, market: Market) -> str:
    """Return NautilusTrader's identifier of a CCXT market, such as ``BTCUSDT-PERP.BINANCE``.

    Raises
    ------
    LSTMStrategyError
        Where the market's name cannot be one.
    """
    name = _NAMES[exchange][1] if exchange in _NAMES else _other
    instrument_id = f"{name(market)}.{venue_of(exchange)}"
    try:
        split_id(instrument_id)
    except LSTMStrategyError as error:
        symbol, native = market.get("symbol"), market.get("id")
        raise LSTMStrategyError(f"{exchange} {symbol!r}: its name {native!r} will not do: {error}") from error
    return instrument_id


def find_market(exchange: str, markets: Mapping[str, Market], wanted: str, kind: MarketKind) -> Market:
    """Return the one market that ``wanted`` names.

    Parameters
    ----------
    wanted : str
        A CCXT symbol (``BTC/USDT``, of a swap also without its settlement), the venue's own name or NautilusTrader's.

    Raises
    ------
    LSTMStrategyError
        With the nearest names, where there is none, or more than one.
    """
    traded = [market for market in markets.values() if market.get(kind) and _is_named(market)]
    symbol = wanted.rpartition(".")[0] if wanted.endswith(f".{venue_of(exchange)}") else wanted
    ways: tuple[Callable[[Market], tuple[str, ...]], ...] = (
        lambda market: (market["symbol"],),
        lambda market: (market["symbol"].partition(":")[0],),
        lambda market: (market["id"], *_engine_names(exchange, market)),
        lambda market: (market["symbol"].upper(), str(market["id"]).upper()),
    )
    for names in ways:
        found = [market for market in traded if symbol in names(market)]
        if len(found) > 1:
            told = ", ".join(sorted(market["symbol"] for market in found))
            raise LSTMStrategyError(f"{exchange} has more than one {kind} market {wanted!r}: name one of {told}")
        if found:
            return found[0]
    known = {market["symbol"].upper(): market["symbol"] for market in traded}
    known |= {str(market["id"]).upper(): market["symbol"] for market in traded}
    near = difflib.get_close_matches(symbol.upper(), known, n=2 * _NEAR, cutoff=0.5)
    told = ", ".join(list(dict.fromkeys(known[name] for name in near))[:_NEAR])
    other = "swap" if kind == "spot" else "spot"
    elsewhere = [m["symbol"] for m in markets.values() if m.get(other) and symbol in (m["symbol"], m["id"])]
    hint = f"; near it are {told}" if told else ""
    hint += f"; {elsewhere[0]} is there with --market {other}" if elsewhere else ""
    raise LSTMStrategyError(f"{exchange} has no {kind} market {wanted!r} among its {len(traded):,}{hint}")


def instrument_of(exchange: str, market: Market, precision_mode: int, price_decimals: int) -> Instrument:
    """Return what CCXT says of a market.

    Parameters
    ----------
    precision_mode : int
        The exchange's ``precisionMode``: whether ``precision`` is a step, a number of decimals, or of digits.
    price_decimals : int
        Decimals that the history needs. Kept where they are more than the tick's, and the tick itself where the venue
        counts digits: then its tick moves with the price.

    Raises
    ------
    LSTMStrategyError
        For anything but spot markets and perpetual swaps, or where step or lot is not told.
    """
    symbol = market.get("symbol")
    if not (market.get("spot") or market.get("swap")):
        raise LSTMStrategyError(f"{exchange} {symbol} is a {market.get('type')}; spot markets and swaps can be had")
    kind: Literal["spot", "perpetual"] = "spot" if market.get("spot") else "perpetual"
    precision, limits = market.get("precision") or {}, market.get("limits") or {}
    history = Decimal(1).scaleb(-price_decimals)
    tick = history if precision_mode == _SIGNIFICANT_DIGITS else _step(precision.get("price"), precision_mode)
    lot = _step(precision.get("amount"), precision_mode if precision_mode != _SIGNIFICANT_DIGITS else _DECIMAL_PLACES)
    if lot is None:
        lot = _decimal((limits.get("amount") or {}).get("min"))
    if tick is None:
        tick = history
    if lot is None or lot <= 0 or tick <= 0:
        raise LSTMStrategyError(f"{exchange} {symbol}: CCXT tells neither lot nor smallest amount; it cannot be traded")
    amounts = limits.get("amount") or {}
    least, most = _decimal(amounts.get("min")), _decimal(amounts.get("max"))
    if most is not None and most >= _MOST_QUANTITY:
        most = None
    maker, taker = _DEFAULT_FEES[kind]
    contract = (_decimal(market.get("contractSize")) if kind == "perpetual" else None) or Decimal(1)
    settle = market.get("settle") if kind == "perpetual" else None
    return Instrument(
        id=instrument_id_of(exchange, market),
        kind=kind,
        base=str(market["base"]),
        quote=str(market["quote"]),
        tick=_text(tick),
        lot=_text(lot),
        min_quantity=_text((least / lot).to_integral_value(ROUND_CEILING) * lot) if least else None,
        max_quantity=_text((most / lot).to_integral_value(ROUND_FLOOR) * lot) if most else None,
        min_notional=_number((limits.get("cost") or {}).get("min")) or None,
        maker_fee=_fee(market.get("maker"), maker),
        taker_fee=_fee(market.get("taker"), taker),
        inverse=bool(market.get("inverse")),
        multiplier=_text(contract),
        settle=str(settle) if settle and settle != market["quote"] else None,
        price_decimals=price_decimals if price_decimals > -int(tick.normalize().as_tuple().exponent) else None,
    )


def _is_named(market: Market) -> bool:
    return bool(market.get("symbol") and market.get("id") and market.get("base") and market.get("quote"))


def _engine_names(exchange: str, market: Market) -> tuple[str, ...]:
    try:
        return (split_id(instrument_id_of(exchange, market))[0],)
    except LSTMStrategyError:
        return ()


def _step(precision: Any, mode: int) -> Decimal | None:
    """Return a step: told as itself, or as the number of its decimals (negative: of zeros before the point)."""
    told = _decimal(precision)
    if told is None:
        return None
    return Decimal(1).scaleb(-int(told)) if mode == _DECIMAL_PLACES else told


def _decimal(value: Any) -> Decimal | None:
    """Return a number as CCXT has it, float or text, as the decimal that it was."""
    if value is None or isinstance(value, bool):
        return None
    try:
        number = Decimal(str(value))
    except InvalidOperation:
        return None
    return number if number.is_finite() else None


def _number(value: Any) -> float | None:
    number = _decimal(value)
    return None if number is None or number <= 0 else float(number)


def _fee(value: Any, otherwise: float) -> float:
    number = _decimal(value)
    return otherwise if number is None or not math.fabs(number) < 1 else float(number)


def _text(value: Decimal) -> str:
    return f"{value.normalize():f}"
