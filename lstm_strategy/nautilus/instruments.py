"""Our engine-neutral `Instrument` as the engine's currency pair, perpetual or equity, and back."""

from __future__ import annotations

from decimal import Decimal
from typing import Literal

from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.instrument import Instrument, split_id
from lstm_strategy.nautilus.engine import (
    CryptoPerpetual,
    Currency,
    CurrencyPair,
    EngineInstrument,
    Equity,
    InstrumentId,
    Money,
    Price,
    Quantity,
    Symbol,
)
from lstm_strategy.nautilus.fixed import precision_of

__all__ = ["from_engine", "to_engine"]


def to_engine(instrument: Instrument) -> EngineInstrument:
    """Return the engine's instrument, stamped 0 so that writing it again changes nothing.

    Raises
    ------
    LSTMStrategyError
        Where the engine cannot hold it (an equity in fractions of a share, more than 16 decimals).
    """
    try:
        return _build(instrument)
    except (ValueError, ArithmeticError, TypeError) as error:
        raise LSTMStrategyError(f"{instrument.id}: the engine refuses this instrument: {error}") from error


def _build(instrument: Instrument) -> EngineInstrument:
    symbol, _ = split_id(instrument.id)
    price_precision, size_precision = precision_of(instrument.tick), precision_of(instrument.lot)
    quote = Currency.from_str(instrument.quote)

    def quantity(text: str | None) -> Quantity | None:
        return None if text is None else Quantity(Decimal(text), size_precision)

    common = {
        "instrument_id": InstrumentId.from_str(instrument.id),
        "raw_symbol": Symbol(symbol),
        "price_precision": price_precision,
        "price_increment": Price(Decimal(instrument.tick), price_precision),
        "max_quantity": quantity(instrument.max_quantity),
        "min_quantity": quantity(instrument.min_quantity),
        "maker_fee": Decimal(str(instrument.maker_fee)),
        "taker_fee": Decimal(str(instrument.taker_fee)),
        "ts_event": 0,
        "ts_init": 0,
    }
    if instrument.kind == "equity":
        if size_precision:
            raise LSTMStrategyError(f"{instrument.id}: lot is {instrument.lot}; the engine trades whole shares only")
        info = {"base": instrument.base, "min_notional": instrument.min_notional}
        return Equity(currency=quote, lot_size=quantity(instrument.lot), info=info, **common)
    common |= {
        "base_currency": Currency.from_str(instrument.base),
        "quote_currency": quote,
        "size_precision": size_precision,
        "size_increment": quantity(instrument.lot),
        "min_notional": None if instrument.min_notional is None else Money(instrument.min_notional, quote),
    }
    if instrument.kind == "spot":
        return CurrencyPair(**common)
    return CryptoPerpetual(settlement_currency=quote, is_inverse=False, **common)


def from_engine(engine_instrument: EngineInstrument) -> Instrument:
    """Return the neutral instrument.

    Raises
    ------
    LSTMStrategyError
        For a kind that this package does not trade: inverse or dated contracts, options.
    """
    kind: Literal["spot", "perpetual", "equity"]
    info = engine_instrument.info or {}
    minimum = engine_instrument.min_notional
    min_notional = None if minimum is None else minimum.as_double()
    if isinstance(engine_instrument, CurrencyPair):
        kind, base, lot = "spot", engine_instrument.base_currency.code, engine_instrument.size_increment
    elif isinstance(engine_instrument, CryptoPerpetual) and not engine_instrument.is_inverse:
        kind, base, lot = "perpetual", engine_instrument.base_currency.code, engine_instrument.size_increment
    elif isinstance(engine_instrument, Equity):
        kind, lot = "equity", engine_instrument.lot_size or engine_instrument.size_increment
        base = info.get("base") or engine_instrument.raw_symbol.value
        min_notional = info.get("min_notional")
    else:
        raise LSTMStrategyError(
            f"{engine_instrument.id} is a {type(engine_instrument).__name__};"
            " spot pairs, linear perpetuals and equities can be traded"
        )

    def text(value: Price | Quantity | None) -> str | None:
        return None if value is None else str(value)

    return Instrument(
        id=engine_instrument.id.value,
        kind=kind,
        base=base,
        quote=engine_instrument.quote_currency.code,
        tick=str(engine_instrument.price_increment),
        lot=str(lot),
        min_quantity=text(engine_instrument.min_quantity),
        max_quantity=text(engine_instrument.max_quantity),
        min_notional=min_notional,
        maker_fee=float(engine_instrument.maker_fee),
        taker_fee=float(engine_instrument.taker_fee),
    )
