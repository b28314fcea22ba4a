"""The position that a venue's reports make, and the trade that takes in what the account holds beside it."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from nautilus_trader.core.uuid import UUID4
from nautilus_trader.execution.reports import ExecutionMassStatus, FillReport, OrderStatusReport
from nautilus_trader.model.enums import LiquiditySide, OrderSide, OrderStatus, OrderType, TimeInForce
from nautilus_trader.model.identifiers import AccountId, ClientOrderId, TradeId, VenueOrderId
from nautilus_trader.model.objects import Money, Quantity

__all__ = ["adopt", "position_of"]


def position_of(status: ExecutionMassStatus, instrument: Any, cache: Any) -> Decimal:
    """Return the position that the engine makes of reports: trades less commission in coins, or orders without them.

    They come on top of what a database has kept of an earlier process, which may lack any of it: the last write before
    a kill, or all while it was down.
    """
    kept = cache.positions_open(instrument_id=instrument.id)
    position = sum((held.signed_decimal_qty() for held in kept), Decimal(0))
    for identity, order in status.order_reports.items():
        if order.instrument_id != instrument.id:
            continue
        sign = 1 if order.order_side == OrderSide.BUY else -1
        known = cache.order(order.client_order_id or cache.client_order_id(identity) or ClientOrderId(identity.value))
        counted = set() if known is None else set(known.trade_ids)
        fills = [fill for fill in status.fill_reports.get(identity, []) if fill.trade_id not in counted]
        traded = sum((fill.last_qty.as_decimal() for fill in fills), Decimal(0))
        in_coins = [fill.commission for fill in fills if fill.commission.currency == instrument.base_currency]
        if order.order_status in (OrderStatus.FILLED, OrderStatus.PARTIALLY_FILLED):
            before = Decimal(0) if known is None else known.filled_qty.as_decimal()
            traded = max(traded, order.filled_qty.as_decimal() - before)
        position += sign * traded - sum((amount.as_decimal() for amount in in_coins), Decimal(0))
    return position


def adopt(
    status: ExecutionMassStatus, instrument: Any, change: Decimal, last: Decimal, account: AccountId, now: int
) -> None:
    """Add a trade to the reports that changes the position by ``change``, at the last price, stamped ``now`` (ns)."""
    quantity, price = Quantity(abs(change), instrument.size_precision), instrument.make_price(last)
    shared = {
        "account_id": account,
        "instrument_id": instrument.id,
        "venue_order_id": VenueOrderId(f"adopted-{now}"),
        "order_side": OrderSide.BUY if change > 0 else OrderSide.SELL,
        "report_id": UUID4(),
        "ts_init": now,
    }
    order = OrderStatusReport(
        **shared,
        order_type=OrderType.LIMIT,
        time_in_force=TimeInForce.GTC,
        order_status=OrderStatus.FILLED,
        price=price,
        quantity=quantity,
        filled_qty=quantity,
        avg_px=price.as_decimal(),
        ts_accepted=now,
        ts_last=now,
    )
    fill = FillReport(
        **shared,
        trade_id=TradeId(f"adopted-{now}"),
        last_qty=quantity,
        last_px=price,
        commission=Money(0, instrument.quote_currency),
        liquidity_side=LiquiditySide.NO_LIQUIDITY_SIDE,
        ts_event=now,
    )
    status.add_order_reports([order])
    status.add_fill_reports([fill])
