"""The order desk of one strategy and instrument: at most one working order and one exit, never at odds."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any, NamedTuple

import msgspec
from nautilus_trader.trading.strategy import Strategy

from lstm_strategy.decision import Costs, Decision
from lstm_strategy.execution import ExecutionConfig
from lstm_strategy.exits import ExitsConfig
from lstm_strategy.forecast import Forecast
from lstm_strategy.limits import CLOSING_FACTOR, LimitsConfig, require_tradable
from lstm_strategy.nautilus.account import Holdings, is_liquidation, look
from lstm_strategy.nautilus.engine import EngineInstrument, Order, OrderFilled, OrderSide
from lstm_strategy.nautilus.execution import Execution
from lstm_strategy.nautilus.exits import QUIET, Guard, Watch
from lstm_strategy.nautilus.instruments import from_engine
from lstm_strategy.nautilus.orders import Action, Rules, opens, outdated, plan_order
from lstm_strategy.reasons import RATES, Reason

__all__ = ["Desk"]

# How many of its deviations a price may rise between decision and fill before a full purchase overdraws the account.
_RESERVE_DEVIATIONS = 3.0


class _Plan(NamedTuple):
    """What is sent as soon as nothing of ours is left at the venue."""

    decision: Decision
    price: float
    scale: float
    position: Decimal
    share: float | None


class Desk:
    """Turns decisions into orders, and keeps a position's exit at the venue.

    While an order of ours may still fill (open, in flight, being cancelled) no other is sent. Where the target has
    moved away from what that one leads to, it is cancelled, and the bar after its end decides anew. Nothing that takes
    from the position is sent before the venue has confirmed that the exit is gone.

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
    decided : dict, optional
        Gets the price that each order was decided on at, by its identifier; an exit's is its own level.
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
        bar_ns: int = 0,
        exits: ExitsConfig | None = None,
        execution: ExecutionConfig | None = None,
        decided: dict[str, float] | None = None,
    ) -> None:
        neutral = from_engine(instrument)
        exits, execution = exits or ExitsConfig(), execution or ExecutionConfig()
        self._strategy, self._instrument, self.name = strategy, instrument, instrument.id.value
        self._rules, self._spot = Rules.of(neutral), neutral.kind == "spot"
        self._limits, self._tolerance = limits, tolerance
        self._checked = False
        self._cost, self._buffer, self._delay_bars = costs.per_side, cash_buffer, delay_bars
        self._buffer = max(self._buffer, execution.reserve)
        self._guard = Guard(strategy, instrument, exits, bar_ns) if exits.active else None
        self._execution = Execution(strategy.order_factory, instrument, execution, bar_ns, reduce_only=not self._spot)
        self.attentive = exits.active or execution.mode != "market"
        self._decided = decided
        self._then: _Plan | None = None
        self._sent, self._liquidated = 0, False
        self._last_order: Order | None = None
        self._account: Any = None  # the engine makes one, and changes it with each event
        self._price = math.inf  # before the first bar no order is below a minimum notional

    def look(self, price: float) -> Holdings:
        """Return what we hold, have working, and are worth at this price."""
        self._price = price
        if not self._checked and math.isfinite(price):
            self._checked = True  # once: what is held must still be closed by who refuses to trade
            require_tradable(self._limits, self._rules.smallest_notional(price))
        strategy = self._strategy
        last_exit = None if self._guard is None else self._guard.order
        if self._account is None:
            self._account = strategy.portfolio.account(self._instrument.id.venue)
        return look(
            strategy.cache,
            self._account,
            self._instrument,
            strategy.id,
            price,
            self._last_order,
            last_exit,
            spot=self._spot,
        )

    def watch(self, held: Holdings, ts_close: int, price: float, forecast: Forecast | None, closed_ns: int) -> Watch:
        """Return what the exits say of a bar's close, for the decision on it."""
        lost, self._liquidated = self._liquidated, False
        watch = QUIET if self._guard is None else self._guard.on_bar(held, ts_close, price, forecast, closed_ns)
        if self._strategy.adrift():
            watch = watch._replace(unprotected=True)
        return watch._replace(exit=Reason.LIQUIDATED) if lost else watch

    def learn(self, event: Any) -> None:
        """Note the fill by which a venue has closed our position; the next close tells it."""
        if isinstance(event, OrderFilled) and is_liquidation(event):
            self._liquidated = True

    def act(
        self, decision: Decision, held: Holdings, price: float, scale: float = 0.0, share: float | None = None
    ) -> tuple[Decimal, Action]:
        """Send, cancel or wait; return the signed quantity sent, and what was done.

        Parameters
        ----------
        scale : float
            Volatility of a bar.
        share : float, optional
            Most that a purchase may spend, now or when it no longer waits, where names share the cash.
        """
        held = _within(held, share)
        self._then = None  # what an older decision planned is out of date
        if held.working:
            # Beyond the rate of orders nothing takes the place of what was sent, unless it takes from the position.
            barred = decision.adds and not RATES.isdisjoint(decision.bound)
            late = not barred and self._execution.overdue(held.working, decision.ts_close)
            if late or outdated(decision, held.equity, price, held.position, held.pending, self._tolerance):
                if self.attentive and decision.target != decision.exposure and not barred:
                    self._then = _Plan(decision, price, scale, held.position, share)
                    if held.exits and self._takes(decision, held):
                        self._release(held)
                return Decimal(0), Action.CANCELLING if self._cancel(held) else Action.AWAITING_ORDER
            return Decimal(0), Action.AWAITING_ORDER
        if decision.target == decision.exposure:
            self._execution.end()
            return Decimal(0), Action.HELD
        if held.exits and self._takes(decision, held):
            quantity, action = self._plan(decision.target, held, price, scale)
            if not quantity:
                return quantity, action
            self._then = _Plan(decision, price, scale, held.position, share)
            self._release(held)
            return Decimal(0), Action.RELEASING
        return self._place(decision, held, price, scale)

    def tend(self) -> None:
        """Bring the exit in line with the position; to be called at each bar."""
        if self._guard is not None and self._then is None:
            self._guard.sync(self.look(self._price))

    def on_event(self, event: Any) -> None:
        """Go on with what waited for the venue, then look after the exit; of no use unless `attentive`."""
        self.note(event)
        if self._last_order is not None and self._last_order.is_closed and self._last_order.leaves_qty == 0:
            self._execution.end()  # what was worked is done: the next order has patience again
        held = self.look(self._price)
        plan = self._then
        if plan is None:
            self.tend()
        elif not held.working and (not held.exits or not self._takes(plan.decision, held)):
            self._then = None
            # A position that changed meanwhile is closed if it was to be; anything else is decided anew.
            unchanged = held.position == plan.position
            if unchanged or (plan.decision.target == 0.0 and held.position):
                self._place(plan.decision, _within(held, plan.share), plan.price, plan.scale)
            self.tend()

    def note(self, event: Any) -> None:
        """Tell the exits of an event while nothing but closing goes on."""
        if self._guard is not None:
            self._guard.on_event(event)

    def recall(self) -> None:
        """Call back what would add to the position, and forget what was to follow it."""
        held = self.look(self._price)
        if opens(held.position, held.pending):
            self._then = None
            self._cancel(held)

    def opening(self) -> Decimal:
        """Return what working orders would still add to the position, signed; 0 where they only take from it."""
        held = self.look(self._price)
        return held.pending if opens(held.position, held.pending) else Decimal(0)

    def newly_sent(self) -> int:
        """Return how many orders of decisions have been sent since the last call, those that had to wait included."""
        sent, self._sent = self._sent, 0
        return sent

    @property
    def uncounted(self) -> int:
        """How many `newly_sent` would return."""
        return self._sent

    def count_as_sent(self, orders: int) -> None:
        """Let `newly_sent` return so many more: sent before a restart, and not yet counted."""
        self._sent += orders

    def exits_state(self) -> bytes | None:
        """Return what a restart must know of the exits."""
        return None if self._guard is None else self._guard.encode()

    def restore_exits(self, content: bytes) -> None:
        """Take back what `exits_state` gave."""
        if self._guard is not None:
            self._guard.restore(content)

    def close(self, *, flatten: bool) -> Action:
        """Cancel our orders; if ``flatten``, exits too, then send what closes the position, as much as one order may.

        Exits stay at the venue, and in line with the position, unless ``flatten``. To be called again at every event
        until it says `Action.HELD`: nothing but them is left then, nor can anything arrive.
        """
        self._then = None
        held = self.look(self._price)
        self._cancel(held)
        if not flatten:
            self.tend()
            return Action.AWAITING_ORDER if held.working else Action.HELD
        if held.exits:
            self._release(held)
            return Action.AWAITING_ORDER
        long = held.position > 0
        closing = any((order.side == OrderSide.SELL) == long for order in held.working)
        if not held.position or closing:
            return Action.AWAITING_ORDER if held.working else Action.HELD
        quantity, action = self._plan(0.0, held, self._price, 0.0)
        if quantity:
            self._send(quantity, self._price, 0, closes=True, urgent=True)
        return action

    def _takes(self, decision: Decision, held: Holdings) -> bool:
        """Say whether a decision takes from the position, or turns it."""
        if not held.position:
            return False
        return decision.target == 0.0 or decision.target / decision.exposure < 1.0

    def _release(self, held: Holdings) -> None:
        if self._guard is not None:
            self._guard.release(held)

    def _cancel(self, held: Holdings) -> bool:
        """Call back what can be: an order in flight cannot before the venue knows it."""
        cancellable = [order for order in held.working if order.is_open and not order.is_pending_cancel]
        for order in cancellable:
            self._strategy.cancel_order(order)
        return bool(cancellable)

    def _place(self, decision: Decision, held: Holdings, price: float, scale: float) -> tuple[Decimal, Action]:
        target = decision.target
        quantity, action = self._plan(target, held, price, scale)
        if self._strategy.adrift() and opens(held.position, quantity):
            return Decimal(0), Action.NOT_READY
        if quantity:
            closes = target == 0.0 or quantity == -held.position
            takes = held.position * quantity < 0
            # With an exit off the venue nothing may rest that takes from the position: it would lie there unprotected.
            urgent = decision.reason != Reason.REBALANCE or (takes and self._guard is not None)
            self._send(quantity, price, decision.ts_close, closes=closes, urgent=urgent)
        return quantity, action

    def _plan(self, target: float, held: Holdings, price: float, scale: float) -> tuple[Decimal, Action]:
        largest = self._limits.max_order_notional  # a decision keeps to it in what is added to the position
        sellable = held.sellable
        if sellable is not None and held.exits:  # what an exit locks is free again when it is gone
            sellable += sum((order.leaves_qty.as_decimal() for order in held.exits), Decimal(0))
        free = held.cash or not held.equity > 0.0  # of margin, or of anything that might be opened
        return plan_order(
            target,
            held.equity,
            price,
            held.position,
            self._rules,
            can_short=self._limits.side == "long_short" and not held.cash,
            max_notional=None if largest is None else CLOSING_FACTOR * largest,
            sellable=sellable,
            spendable=None if held.spendable is None else held.spendable / (1.0 + self.set_aside(scale)),
            # Costs are paid from the margin.
            max_position=None if free else held.equity / (self._limits.initial_margin + self.set_aside(scale)),
        )

    def set_aside(self, scale: float) -> float:
        """Return what a purchase keeps back for its costs and a higher fill, as a fraction of its value."""
        if not self._delay_bars:
            return self._cost + self._buffer
        jump = _RESERVE_DEVIATIONS * scale * math.sqrt(1 + self._delay_bars)
        return self._cost + max(self._buffer, jump)

    def _send(
        self, quantity: Decimal, price: float = math.nan, ts_close: int = 0, *, closes: bool, urgent: bool = True
    ) -> None:
        order = self._execution.order(quantity, price, ts_close, closes=closes, urgent=urgent)
        self._last_order = order
        if self._decided is not None and math.isfinite(price):
            self._decided[order.client_order_id.value] = price
        self._sent += 1
        self._strategy.submit_order(order)


def _within(held: Holdings, share: float | None) -> Holdings:
    if share is None or held.spendable is None or held.spendable <= share:
        return held
    return msgspec.structs.replace(held, spendable=share)
