"""The order desk of one strategy and instrument: at most one working order, sent, awaited or cancelled."""

from __future__ import annotations

import math
from decimal import Decimal

from nautilus_trader.trading.strategy import Strategy

from lstm_strategy.decision import Costs, Decision
from lstm_strategy.limits import CLOSING_FACTOR, LimitsConfig, require_tradable
from lstm_strategy.nautilus.account import Holdings, look
from lstm_strategy.nautilus.engine import EngineInstrument, Order, OrderSide
from lstm_strategy.nautilus.instruments import from_engine
from lstm_strategy.nautilus.orders import Action, Rules, outdated, plan_order

__all__ = ["Desk"]

# How many of its deviations a price may rise between decision and fill before a full purchase overdraws the account.
_RESERVE_DEVIATIONS = 3.0


class Desk:
    """Turns decisions into market orders.

    While an order of ours may still fill (open, in flight, being cancelled) no other is sent. Where the target has
    moved away from what that one leads to, it is cancelled, and the bar after its end decides anew.

    Parameters
    ----------
    limits : LimitsConfig
        Whether a short position is allowed (a cash account never may), and how large an order may be.
    costs : Costs
        Kept back from every purchase on a cash account.
    cash_buffer : float
        Share of a purchase's price kept back beside the costs, for a higher fill.
    delay_bars : int
        Bars between a decision and its fill; with any, three deviations of the price over 1 + ``delay_bars`` bars are
        kept back where that is more than ``cash_buffer``. A larger jump overdraws the account nonetheless.
    tolerance : float
        How far, as a fraction of equity, the target may move before a working order is cancelled.
    """

    def __init__(
        self,
        strategy: Strategy,
        instrument: EngineInstrument,
        *,
        limits: LimitsConfig,
        costs: Costs,
        cash_buffer: float,
        delay_bars: int,
        tolerance: float,
    ) -> None:
        neutral = from_engine(instrument)
        self._strategy, self._instrument = strategy, instrument
        self._rules, self._spot = Rules.of(neutral), neutral.kind == "spot"
        self._limits, self._tolerance = limits, tolerance
        self._checked = False
        self._cost, self._buffer, self._delay_bars = costs.per_side, cash_buffer, delay_bars
        self._last_order: Order | None = None
        self._price = math.inf  # before the first bar no order is below a minimum notional

    def look(self, price: float) -> Holdings:
        """Return what we hold, have working, and are worth at this price."""
        self._price = price
        if not self._checked and math.isfinite(price):
            self._checked = True  # once: what is held must still be closed by who refuses to trade
            require_tradable(self._limits, self._rules.smallest_notional(price))
        strategy = self._strategy
        return look(
            strategy.cache, strategy.portfolio, self._instrument, strategy.id, price, self._last_order, spot=self._spot
        )

    def act(self, decision: Decision, held: Holdings, price: float, scale: float = 0.0) -> tuple[Decimal, Action]:
        """Send, cancel or wait; return the signed quantity sent, and what was done. ``scale``: volatility of a bar."""
        if held.working:
            if outdated(decision, held.equity, price, held.position, held.pending, self._tolerance):
                return Decimal(0), Action.CANCELLING if self._cancel(held) else Action.AWAITING_ORDER
            return Decimal(0), Action.AWAITING_ORDER
        if decision.target == decision.exposure:
            return Decimal(0), Action.HELD
        return self._place(decision.target, held, price, scale)

    def close(self, *, flatten: bool) -> Action:
        """Cancel our orders; if ``flatten``, send what closes the position, as much as one order may.

        To be called again at every event until it says `Action.HELD`: nothing is left then, nor can anything arrive.
        """
        held = self.look(self._price)
        self._cancel(held)
        long = held.position > 0
        closing = any((order.side == OrderSide.SELL) == long for order in held.working)
        if not (flatten and held.position) or closing:
            return Action.AWAITING_ORDER if held.working else Action.HELD
        return self._place(0.0, held, self._price, 0.0)[1]

    def _cancel(self, held: Holdings) -> bool:
        """Call back what can be: an order in flight cannot before the venue knows it."""
        cancellable = [order for order in held.working if order.is_open and not order.is_pending_cancel]
        for order in cancellable:
            self._strategy.cancel_order(order)
        return bool(cancellable)

    def _place(self, target: float, held: Holdings, price: float, scale: float) -> tuple[Decimal, Action]:
        largest = self._limits.max_order_notional  # a decision keeps to it in what is added to the position
        quantity, action = plan_order(
            target,
            held.equity,
            price,
            held.position,
            self._rules,
            can_short=self._limits.side == "long_short" and not held.cash,
            max_notional=None if largest is None else CLOSING_FACTOR * largest,
            sellable=held.sellable,
            spendable=None if held.spendable is None else held.spendable / (1.0 + self._set_aside(scale)),
        )
        if quantity:
            self._send(quantity, closes=target == 0.0 or quantity == -held.position)
        return quantity, action

    def _set_aside(self, scale: float) -> float:
        if not self._delay_bars:
            return self._cost + self._buffer
        jump = _RESERVE_DEVIATIONS * scale * math.sqrt(1 + self._delay_bars)
        return self._cost + max(self._buffer, jump)

    def _send(self, quantity: Decimal, *, closes: bool) -> None:
        self._last_order = self._strategy.order_factory.market(
            self._instrument.id,
            OrderSide.BUY if quantity > 0 else OrderSide.SELL,
            self._instrument.make_qty(abs(quantity)),
            reduce_only=closes and not self._spot,  # spot venues know no such thing
        )
        self._strategy.submit_order(self._last_order)
