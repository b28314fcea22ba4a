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

__all__ = ["from_engine", "price_precision", "to_engine"]


def price_precision(instrument: Instrument) -> int:
    """Return the decimals of prices: the tick's, or the history's where those are more."""
    return max(precision_of(instrument.tick), instrument.price_decimals or 0)


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
    price_decimals, size_precision = price_precision(instrument), precision_of(instrument.lot)
    quote = Currency.from_str(instrument.quote)

    def quantity(text: str | None) -> Quantity | None:
        return None if text is None else Quantity(Decimal(text), size_precision)

    common = {
        "instrument_id": InstrumentId.from_str(instrument.id),
        "raw_symbol": Symbol(symbol),
        "price_precision": price_decimals,
        "price_increment": Price(Decimal(instrument.tick), price_decimals),
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
    return CryptoPerpetual(
        settlement_currency=Currency.from_str(instrument.settle or instrument.quote),
        is_inverse=instrument.inverse,
        multiplier=Quantity.from_str(instrument.multiplier),
        **common,
    )


def from_engine(engine_instrument: EngineInstrument) -> Instrument:
    """Return the neutral instrument.

    Raises
    ------
    LSTMStrategyError
        For a kind that this package does not trade: dated contracts, options, and contracts that are inverse or not
        of one unit of the base currency, whose size it would get wrong.
    """
    kind: Literal["spot", "perpetual", "equity"]
    info = engine_instrument.info or {}
    minimum = engine_instrument.min_notional
    min_notional = None if minimum is None else minimum.as_double()
    if isinstance(engine_instrument, CurrencyPair):
        kind, base, lot = "spot", engine_instrument.base_currency.code, engine_instrument.size_increment
    elif isinstance(engine_instrument, CryptoPerpetual):
        _refuse_contract(engine_instrument)
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

    def text(value: Quantity | None) -> str | None:
        return None if value is None else f"{value.as_decimal().normalize():f}"

    tick = str(engine_instrument.price_increment)
    finer = precision_of(tick) < engine_instrument.price_precision
    settle = getattr(engine_instrument, "settlement_currency", engine_instrument.quote_currency).code
    return Instrument(
        id=engine_instrument.id.value,
        kind=kind,
        base=base,
        quote=engine_instrument.quote_currency.code,
        tick=f"{Decimal(tick).normalize():f}" if finer else tick,
        lot=str(lot),
        min_quantity=text(engine_instrument.min_quantity),
        max_quantity=text(engine_instrument.max_quantity),
        min_notional=min_notional,
        maker_fee=float(engine_instrument.maker_fee),
        taker_fee=float(engine_instrument.taker_fee),
        settle=None if settle == engine_instrument.quote_currency.code else settle,
        price_decimals=engine_instrument.price_precision if finer else None,
    )


def _refuse_contract(swap: CryptoPerpetual) -> None:
    """Raise for a contract that is not worth its price in the quote currency."""
    contract = None
    if swap.is_inverse:
        contract = f"inverse: its contract is {swap.multiplier} {swap.quote_currency.code}, paid in base currency"
    elif swap.multiplier.as_decimal() != 1:
        contract = f"of {swap.multiplier} {swap.base_currency.code} a contract"
    if contract is not None:
        raise LSTMStrategyError(
            f"{swap.id} is {contract}; orders are sized for contracts of one unit of the base currency alone:"
            " study it, trade another"
        )
