"""What can be told of a market from its bars and its name, where the venue has not been asked."""

from __future__ import annotations

from typing import Literal

import numpy as np

from lstm_strategy.bars import Bars, Float
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.instrument import Instrument, split_id

__all__ = ["Kind", "decimals_of", "infer_instrument", "on_grid", "step_decimals"]

type Kind = Literal["spot", "perpetual", "equity"]

_MAX_DECIMALS = 8
_RECENT = 5_000  # bars whose volumes tell the lot: venues coarsen it as a market grows
_MOST = 0.98  # of them; a few hold dust that no order could trade
_MAX_DECIMALS_SMALL = 12  # where a price is below 0.0001
_PERPETUAL = ("-PERP", "_PERP", "-SWAP", "_SWAP")
_QUOTES = (
    *("FDUSD", "USDT", "USDC", "BUSD", "TUSD", "USDP", "USDE", "PYUSD", "DAI", "USD", "EUR", "GBP", "JPY", "TRY"),
    *("AUD", "BRL", "CAD", "CHF", "KRW", "BTC", "ETH", "BNB"),
)
# Maker and taker: Binance's first tier; for shares a broker without commission, 1 basis point for levies.
_FEES: dict[Kind, tuple[float, float]] = {
    "spot": (0.001, 0.001),
    "perpetual": (0.0002, 0.0005),
    "equity": (0.0001, 0.0001),
}


def decimals_of(values: Float, share: float = 1.0) -> int:
    """Return the fewest decimals that write every value, or a ``share`` of them, to within 1 part in 10^14.

    8 at most, 12 for tiny values.
    """
    positive = values[values > 0]
    most = _MAX_DECIMALS_SMALL if len(positive) and positive.min() < 1e-4 else _MAX_DECIMALS
    for decimals in range(most):
        exact = np.abs(values - np.round(values, decimals)) <= 1e-14 * np.abs(values)
        if exact.all() or exact.mean() >= share:
            return decimals
    return most


def on_grid(bars: Bars) -> tuple[Bars, int]:
    """Return the bars with prices rounded to their `decimals_of`, and how many prices that changes visibly.

    Prices that a vendor adjusted have as many digits as a float; an engine that counts in ticks cannot hold those.
    """
    names = ("open", "high", "low", "close")
    decimals = decimals_of(np.concatenate([getattr(bars, name) for name in names]))
    rounded = {name: np.round(getattr(bars, name), decimals) for name in names}
    moved = sum(
        int((np.abs(rounded[name] - getattr(bars, name)) > 1e-14 * getattr(bars, name)).sum()) for name in names
    )
    return Bars(bars.instrument_id, bars.timeframe, bars.ts_close, volume=bars.volume, **rounded), moved


def step_decimals(step: str) -> int:
    """Return the decimals of a tick or lot given as text: 2 for ``0.01``, 0 for ``5``."""
    return len(f"{float(step):.16f}".rstrip("0").partition(".")[2])


def infer_instrument(
    bars: Bars,
    *,
    kind: Kind | None = None,
    base: str | None = None,
    quote: str | None = None,
    tick: str | None = None,
    lot: str | None = None,
    min_quantity: str | None = None,
    min_notional: float | None = None,
    maker_fee: float | None = None,
    taker_fee: float | None = None,
) -> Instrument:
    """Describe the market of ``bars``; what is named is taken, the rest is inferred.

    The symbol's ending tells the quote currency and a perpetual swap; without one it is an equity in USD. The tick is
    the decimals that all prices need, the lot those that nearly all of the newest volumes need (see `decimals_of`); an
    equity's tick is 0.01 at the coarsest, its lot 1. Default fees (maker, taker) as fractions: spot 0.001, 0.001;
    perpetual 0.0002, 0.0005; equity 0.0001, 0.0001.

    Raises
    ------
    LSTMStrategyError
        Where a named tick has fewer decimals than the prices.
    """
    symbol, _ = split_id(bars.instrument_id)
    name_kind, name_base, name_quote = _from_symbol(symbol)
    kind = kind or name_kind
    prices = np.concatenate([bars.open, bars.high, bars.low, bars.close])
    decimals = decimals_of(prices)
    if tick is None:
        tick = _step(max(decimals, 2) if kind == "equity" else decimals)
    elif step_decimals(tick) < decimals:
        raise LSTMStrategyError(
            f"{bars.instrument_id}: tick {tick} is coarser than prices with {decimals} decimals; leave --tick out"
        )
    if lot is None:
        lot = "1" if kind == "equity" else _step(decimals_of(bars.volume[-_RECENT:], _MOST))
    maker, taker = _FEES[kind]
    return Instrument(
        id=bars.instrument_id,
        kind=kind,
        base=base or name_base,
        quote=quote or name_quote,
        tick=tick,
        lot=lot,
        min_quantity=min_quantity,
        min_notional=min_notional,
        maker_fee=maker if maker_fee is None else maker_fee,
        taker_fee=taker if taker_fee is None else taker_fee,
    )


def _from_symbol(symbol: str) -> tuple[Kind, str, str]:
    """Return kind, base and quote by the symbol's ending."""
    pair, kind = symbol.upper(), "spot"
    for ending in _PERPETUAL:
        if pair.endswith(ending):
            pair, kind = pair.removesuffix(ending), "perpetual"
    for quote in _QUOTES:
        base = pair.removesuffix(quote).rstrip("-_")
        if pair.endswith(quote) and base:
            return ("perpetual" if kind == "perpetual" else "spot"), base, quote
    if kind == "perpetual":
        return "perpetual", pair, "USD"
    return "equity", pair, "USD"


def _step(decimals: int) -> str:
    return f"{10.0**-decimals:.{decimals}f}"
