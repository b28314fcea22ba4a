"""The order desk of one strategy and instrument: at most one working order, sent, awaited or cancelled."""

from __future__ import annotations

from decimal import Decimal

from nautilus_trader.trading.strategy import Strategy

from lstm_strategy.decision import Costs, Decision
from lstm_strategy.nautilus.account import Holdings, look
from lstm_strategy.nautilus.engine import EngineInstrument, Order, OrderSide
from lstm_strategy.nautilus.instruments import from_engine
from lstm_strategy.nautilus.orders import Action, Rules, plan_order

__all__ = ["Desk"]


class Desk:
    """Turns decisions into market orders.

    While an order of ours may still fill (open, in flight, being cancelled) no other is sent. Where the target has
    moved away from what that one leads to, it is cancelled, and the bar after its end decides anew.

    Parameters
    ----------
    tolerance : float
        How far, as a fraction of equity, the target may move before a working order is cancelled.
    set_aside : float
        Share of a purchase's price kept for its costs and for a higher fill (cash accounts).
    """

    def __init__(
        self,
        strategy: Strategy,
        instrument: EngineInstrument,
        *,
        may_short: bool,
        costs: Costs,
        cash_buffer: float,
        tolerance: float,
    ) -> None:
        neutral = from_engine(instrument)
        self._strategy, self._instrument = strategy, instrument
        self._rules, self._spot = Rules.of(neutral), neutral.kind == "spot"
        self._may_short, self._tolerance = may_short, tolerance
        self._set_aside = costs.per_side + cash_buffer
        self._last_order: Order | None = None

    def look(self, price: float) -> Holdings:
        """Return what we hold, have working, and are worth at this price."""
        strategy = self._strategy
        return look(
            strategy.cache, strategy.portfolio, self._instrument, strategy.id, price, self._last_order, spot=self._spot
        )

    def act(self, decision: Decision, held: Holdings, price: float) -> tuple[Decimal, Action]:
        """Send, cancel or wait; return the signed quantity sent, and what was done."""
        if held.working:
            moved = decision.target * held.equity - float(held.position + held.pending) * price
            if abs(moved) <= self._tolerance * held.equity:
                return Decimal(0), Action.AWAITING_ORDER
            # One in flight cannot be called back before the venue knows it.
            cancellable = [order for order in held.working if order.is_open and not order.is_pending_cancel]
            for order in cancellable:
                self._strategy.cancel_order(order)
            return Decimal(0), Action.CANCELLING if cancellable else Action.AWAITING_ORDER
        if decision.target == decision.exposure:
            return Decimal(0), Action.HELD
        quantity, action = plan_order(
            decision.target,
            held.equity,
            price,
            held.position,
            self._rules,
            can_short=self._may_short and not held.cash,
            sellable=held.sellable,
            spendable=None if held.spendable is None else held.spendable / (1.0 + self._set_aside),
        )
        if quantity:
            self._send(quantity, closes=quantity == -held.position)
        return quantity, action

    def close(self, *, flatten: bool) -> None:
        """Cancel our orders; close the position too if ``flatten``, less what working orders may still close."""
        held = self.look(0.0)
        self._strategy.cancel_all_orders(self._instrument.id)
        if flatten and held.position:
            side = 1 if held.position > 0 else -1
            closing = max(Decimal(0), -side * held.pending)
            left = abs(held.position) - closing
            if left > 0:
                self._send(-side * left, closes=not closing)

    def _send(self, quantity: Decimal, *, closes: bool) -> None:
        self._last_order = self._strategy.order_factory.market(
            self._instrument.id,
            OrderSide.BUY if quantity > 0 else OrderSide.SELL,
            self._instrument.make_qty(abs(quantity)),
            reduce_only=closes and not self._spot,  # spot venues know no such thing
        )
        self._strategy.submit_order(self._last_order)
