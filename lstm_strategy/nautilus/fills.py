"""How a backtest fills: one synthetic quote at each bar's open, met by orders that are one nanosecond slow.

A decision is made at the close of bar t. Its order reaches the simulated venue 1 ns later (``delay`` bars and 1 ns
later), and the next thing to happen there is the quote of the bar that opens then, 2 ns after that open. So it fills at
that bar's open: the ask for a purchase, the bid for a sale. Bars themselves move no price (``bar_execution`` is off).

Found by running it (engine 1.231):

- Over a hole in the data the order waits and fills at the open after the hole. ``delay`` counts time, not bars.
- The quote's size is a share of the bar's volume, at least one lot. A market order beyond it fills at once all the
  same, the rest one tick worse: large orders on thin markets are flattered. `participation` ends them there instead.
- Fees are charged on each part, in quote currency.
- A stop-limit fills at its trigger even where the market has jumped beyond it; `StopLimitFills` mends that.
- An order sent at the last bar, or on stop, has no quote to meet and stays unfilled: the run ends marked to market.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np
from nautilus_trader.backtest.models import FillModel
from nautilus_trader.model.book import OrderBook
from nautilus_trader.model.data import BookOrder
from nautilus_trader.model.enums import BookType, LiquiditySide

from lstm_strategy.bars import Bars
from lstm_strategy.nautilus.engine import EngineInstrument, OrderSide, OrderType, QuoteTick, TimeInForce

__all__ = ["LATENCY_NS", "StopLimitFills", "open_quotes"]

LATENCY_NS = 1
_QUOTE_NS = 2


def open_quotes(
    bars: Bars, instrument: EngineInstrument, *, spread: float, slippage: float, volume_share: float, least: int = 1
) -> list[QuoteTick]:
    """Return one quote per bar, just after the bar's open.

    Parameters
    ----------
    spread, slippage : float
        The whole spread, and the slippage of one side, as fractions of price. Bid and ask are rounded to the tick, away
        from the open.
    volume_share : float
        The part of a bar's volume that is offered at the quote.
    least : int
        Lots offered in any bar, however thin.
    """
    tick, lot = float(instrument.price_increment), float(instrument.size_increment)
    away = spread / 2.0 + slippage
    nearly = 1e-6  # of a tick: prices on the grid stay there
    bid = np.maximum(np.floor(bars.open * (1.0 - away) / tick + nearly), 1.0) * tick
    ask = np.maximum(np.ceil(bars.open * (1.0 + away) / tick - nearly), 1.0) * tick
    size = np.maximum(np.floor(bars.volume * volume_share / lot + nearly), least) * lot
    stamps = (bars.ts_close - bars.timeframe.ns + _QUOTE_NS).astype(np.uint64)
    return list(
        QuoteTick.from_raw_arrays_to_list(
            instrument.id, instrument.price_precision, instrument.size_precision, bid, ask, size, size, stamps, stamps
        )
    )


class StopLimitFills(FillModel):  # type: ignore[misc]
    """Fills a triggered stop-limit at the market, or at its limit where the market comes to it; never at its trigger.

    Attributes
    ----------
    left : dict of Decimal, optional
        By instrument what a bar still gives (`participation`): no fill takes more, whatever size is shown. Without it
        a stop-limit fills whole at one price, and all else as the engine has it.
    venue : SimulatedExchange, optional
        Whose model this is; needed with ``left``.
    """

    left: dict[Any, Decimal] | None = None
    venue: Any = None

    def get_orderbook_for_fill_simulation(
        self, instrument: EngineInstrument, order: Any, best_bid: Any, best_ask: Any
    ) -> OrderBook | None:
        """Return the market as such an order meets it; None leaves the order to the engine."""
        left = None if self.left is None else self.left.get(instrument.id)
        if left is None and order.order_type != OrderType.STOP_LIMIT:
            return None
        book = OrderBook(instrument.id, BookType.L2_MBP)
        size = order.leaves_qty
        if order.has_price and order.liquidity_side != LiquiditySide.TAKER:
            best_bid = best_ask = order.price
        if left is not None and left < size.as_decimal():
            size = instrument.make_qty(left)
            if order.has_price or not left > 0:
                self._fill_in_part(instrument, order, best_ask if order.side == OrderSide.BUY else best_bid, size)
                return book
        for side, price in ((OrderSide.BUY, best_bid), (OrderSide.SELL, best_ask)):
            book.add(BookOrder(side, price, size, int(side)), 0, 0)
        return book

    def _fill_in_part(self, instrument: EngineInstrument, order: Any, price: Any, size: Any) -> None:
        """Fill what is left here, and empty the venue's book, on which the engine falls back.

        Left to itself the engine takes a limit order that was filled in part for one that the market has gone through,
        and fills the rest too.
        """
        matching = self.venue.get_matching_engine(instrument.id)
        if size > 0:
            matching.fill_order(order, price, size, order.liquidity_side, None, None)
        if order.time_in_force == TimeInForce.IOC and not order.is_closed:
            matching.cancel_order(order)
        matching.get_book().clear(0, 0)
