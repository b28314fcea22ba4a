"""A simulated venue's account, taken to values that can be kept, and put back into the engine's cache and the venue.

Positions and orders go back as a cache database would bring them, under the names that the strategy knows; orders that
rest go into the venue's book as well, and those under way are on their way again.
"""

from __future__ import annotations

from decimal import Decimal
from itertools import chain
from typing import Any

from nautilus_trader.core.uuid import UUID4
from nautilus_trader.execution.messages import CancelOrder, SubmitOrder
from nautilus_trader.model.enums import LiquiditySide, OmsType, OrderSide, OrderType
from nautilus_trader.model.events import (
    OrderAccepted,
    OrderFilled,
    OrderInitialized,
    OrderPendingCancel,
    OrderSubmitted,
    OrderTriggered,
)
from nautilus_trader.model.identifiers import (
    AccountId,
    ClientId,
    ClientOrderId,
    PositionId,
    StrategyId,
    TradeId,
    TraderId,
    VenueOrderId,
)
from nautilus_trader.model.objects import Currency, Price, Quantity
from nautilus_trader.model.orders.unpacker import OrderUnpacker
from nautilus_trader.model.position import Position

from lstm_strategy.nautilus.carry import CarryModule
from lstm_strategy.nautilus.engine import BarType, EngineBar, InstrumentId, Money, Order
from lstm_strategy.nautilus.liquidation import LiquidationModule
from lstm_strategy.nautilus.paper_account import SHARED, KeptAccount, KeptBar, KeptOrder, KeptPosition

__all__ = ["go_on", "keep_bar", "money_of", "sum_up", "sum_up_each"]

_KEPT = "kept-"
_FEW = 3  # instruments, of which each is asked for by itself
_PRECISE = 12  # decimals of an average price


def money_of(fresh: list[str], kept: KeptAccount | None) -> list[Money]:
    """Return what an account begins with, or goes on with."""
    if kept is None:
        return [Money.from_str(balance) for balance in fresh]
    return [Money(Decimal(total), Currency.from_str(code)) for code, total in kept.balances.items()]


def sum_up(
    exchange: Any, submitted: dict[Any, int], cancelled: dict[Any, int], last: dict[str, KeptBar], since_ns: int
) -> KeptAccount:
    """Return what is kept of a simulated venue's account.

    Parameters
    ----------
    exchange : SimulatedExchange
    submitted, cancelled : dict
        When orders, or their ends, arrive there (ns), by identifier.
    last : dict
        By instrument, the bar that was told last, stamped at its close.
    """
    cache, account = exchange.cache, exchange.get_account()
    alive = {order.client_order_id: order for order in (*cache.orders_open(), *cache.orders_inflight())}
    return KeptAccount(
        kind="CASH" if account.is_cash_account else "MARGIN",
        balances={currency.code: str(total.as_decimal()) for currency, total in account.balances_total().items()},
        positions=[_keep_position(position) for position in cache.positions_open()],
        orders=[_keep_order(order, submitted.get(name), cancelled.get(name)) for name, order in alive.items()],
        bars=last,
        since_ns=since_ns,
        **_keep_carry(exchange),
    )


def sum_up_each(
    exchange: Any,
    submitted: dict[Any, int],
    cancelled: dict[Any, int],
    last: dict[str, KeptBar],
    since_ns: int,
    asked: set[InstrumentId],
) -> dict[str, KeptAccount]:
    """Return the same of some instruments alone, each by its name, with the balances of its currencies; and `SHARED`.

    An event of one instrument is one for the interest and the funding of all.
    """
    cache, account = exchange.cache, exchange.get_account()
    kind = "CASH" if account.is_cash_account else "MARGIN"
    found: dict[Any, KeptAccount] = {}
    carrying = {cache.instrument(InstrumentId.from_str(one.instrument)) for one in _carrying(exchange)}
    charged = {instrument.quote_currency for instrument in carrying if instrument is not None}
    for instrument_id in asked:
        name, instrument = instrument_id.value, cache.instrument(instrument_id)
        own = {instrument.get_base_currency(), instrument.quote_currency, instrument.get_cost_currency()}
        totals = {one.code: account.balance_total(one) for one in own | charged if one is not None}
        found[instrument_id] = KeptAccount(
            kind=kind,
            balances={code: str(total.as_decimal()) for code, total in totals.items() if total is not None},
            positions=[],
            orders=[],
            bars={name: last[name]} if name in last else {},
            owed={},
            since_ns=since_ns,
        )
    few = len(asked) <= _FEW
    of_each = ([*cache.positions_open(instrument_id=one)] for one in asked) if few else (cache.positions_open(),)
    for position in chain.from_iterable(of_each):
        if (one := found.get(position.instrument_id)) is not None:
            one.positions.append(_keep_position(position))
    alive = {order.client_order_id: order for order in (*cache.orders_open(), *cache.orders_inflight())}
    for key, order in alive.items():
        if (one := found.get(order.instrument_id)) is not None:
            one.orders.append(_keep_order(order, submitted.get(key), cancelled.get(key)))
    shared = KeptAccount(kind, {}, [], [], {}, since_ns=since_ns, **_keep_carry(exchange))
    return {instrument_id.value: one for instrument_id, one in found.items()} | {SHARED: shared}


def go_on(
    exchange: Any, kept: KeptAccount, instruments: list[Any], client: ClientId, account: AccountId
) -> dict[str, KeptBar]:
    """Put positions and orders back, and let the venue's modules know the last bars; return these, by instrument."""
    cache, known = exchange.cache, {instrument.id.value: instrument for instrument in instruments}
    trader = exchange.exec_client.trader_id
    for instrument in instruments:
        exchange.add_instrument(instrument)
    for position in kept.positions:
        _restore_position(cache, known[position.instrument], position, trader, account)
    for order in kept.orders:
        for due, command in _restore_order(exchange, order, client, account):
            exchange.put(due, command)
    last = {name: bar for name, bar in kept.bars.items() if name in known}
    for name, bar in ((name, _restore_bar(bar)) for name, bar in last.items()):
        for module in exchange.modules:
            if isinstance(module, CarryModule) and module.instrument == name:
                module.go_on(float(bar.close), kept.owed.get(name, 0.0), kept.reckoned.get(name, int(bar.ts_event)))
            elif isinstance(module, LiquidationModule):
                module.mark(bar)
    return last


def _carrying(exchange: Any) -> list[CarryModule]:
    return [module for module in exchange.modules if isinstance(module, CarryModule)]


def _keep_carry(exchange: Any) -> dict[str, Any]:
    known = [one for one in _carrying(exchange) if one.reckoned]
    owed, reckoned = {one.instrument: one.owed for one in known}, {one.instrument: one.reckoned for one in known}
    return {"owed": owed, "reckoned": reckoned}


def _keep_position(position: Any) -> KeptPosition:
    """Return what is kept of an open position."""
    quantity = str(position.signed_decimal_qty())
    names = position.instrument_id.value, position.strategy_id.value
    return KeptPosition(*names, quantity, float(position.avg_px_open), int(position.ts_opened))


def _keep_order(order: Order, submitted_due: int | None, cancelled_due: int | None) -> KeptOrder:
    """Return what is kept of an order that may still fill."""
    init = OrderInitialized.to_dict(order.init_event) | {"quantity": str(order.leaves_qty)}
    return KeptOrder(init, submitted_due, cancelled_due, bool(getattr(order, "is_triggered", False)))


def keep_bar(bar: EngineBar) -> KeptBar:
    """Return what is kept of a bar, stamped at its close."""
    prices = str(bar.open), str(bar.high), str(bar.low), str(bar.close)
    return KeptBar(str(bar.bar_type), int(bar.ts_event), prices, str(bar.volume))


def _restore_bar(kept: KeptBar) -> EngineBar:
    prices = map(Price.from_str, kept.prices)
    volume = Quantity.from_str(kept.volume)
    return EngineBar(BarType.from_str(kept.bar_type), *prices, volume, kept.ts_close, kept.ts_close)


def _restore_position(cache: Any, instrument: Any, kept: KeptPosition, trader: TraderId, account: AccountId) -> None:
    """Put an open position into the engine's cache, as one fill at its average price would have made it."""
    quantity, name = Decimal(kept.quantity), f"{kept.instrument}-{kept.strategy}"
    identity = f"{_KEPT}{kept.ts_opened}"
    fill = OrderFilled(
        trader_id=trader,
        strategy_id=StrategyId(kept.strategy),
        instrument_id=instrument.id,
        client_order_id=ClientOrderId(f"{identity}-{name}"),
        venue_order_id=VenueOrderId(f"{identity}-{name}"),
        account_id=account,
        trade_id=TradeId(identity),
        position_id=PositionId(name),
        order_side=OrderSide.BUY if quantity > 0 else OrderSide.SELL,
        order_type=OrderType.MARKET,
        last_qty=Quantity(abs(quantity), instrument.size_precision),
        last_px=Price(kept.entry, _PRECISE),
        currency=instrument.quote_currency,
        commission=Money(0, instrument.quote_currency),
        liquidity_side=LiquiditySide.NO_LIQUIDITY_SIDE,
        event_id=UUID4(),
        ts_event=kept.ts_opened,
        ts_init=kept.ts_opened,
    )
    cache.add_position(Position(instrument, fill), OmsType.NETTING)


def _restore_order(exchange: Any, kept: KeptOrder, client: ClientId, account: AccountId) -> list[tuple[int, Any]]:
    """Put an order into the engine's cache, and where it rests into the venue's book; return what is under way.

    Returns
    -------
    list of tuple
        When a command is due at the venue, and the command.
    """
    cache = exchange.cache
    order = OrderUnpacker.from_init(OrderInitialized.from_dict(kept.init))
    names = {
        "trader_id": order.trader_id,
        "strategy_id": order.strategy_id,
        "instrument_id": order.instrument_id,
        "client_order_id": order.client_order_id,
        "account_id": account,
    }
    now = int(order.ts_init)

    def event(kind: Any, **more: Any) -> None:
        order.apply(kind(**names, **more, event_id=UUID4(), ts_event=now, ts_init=now))

    event(OrderSubmitted)
    cache.add_order(order, position_id=None, client_id=client)
    due: list[tuple[int, Any]] = []
    venue_order_id = None
    asked = {"client_id": client, "command_id": UUID4(), "ts_init": now}
    if kept.submitted_due is not None:
        command = SubmitOrder(order.trader_id, order.strategy_id, order, **asked)
        due.append((kept.submitted_due, command))
    else:
        venue_order_id = VenueOrderId(
            f"{_KEPT}{order.client_order_id.value}"
        )  # the venue counts from 1 in each process
        event(OrderAccepted, venue_order_id=venue_order_id)
        cache.add_venue_order_id(order.client_order_id, venue_order_id)
        cache.update_order(order)
        exchange.get_matching_engine(order.instrument_id).accept_order(order)
        if kept.triggered:
            event(OrderTriggered, venue_order_id=venue_order_id)
    if kept.cancelled_due is not None:
        event(OrderPendingCancel, venue_order_id=venue_order_id)
        given = (order.trader_id, order.strategy_id, order.instrument_id, order.client_order_id, venue_order_id)
        due.append((kept.cancelled_due, CancelOrder(*given, **asked)))
    cache.update_order(order)
    return due
