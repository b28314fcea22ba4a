"""Orders, fills and positions of a finished run as Arrow tables with fixed columns."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import pyarrow as pa

from lstm_strategy.execution import shortfall
from lstm_strategy.nautilus.account import is_exit
from lstm_strategy.nautilus.engine import Order, fills_of, name_of_side, name_of_status

__all__ = ["Sent", "fills_table", "orders_table", "positions_table"]

_STAMP = pa.timestamp("ns", "UTC")
Columns = dict[str, tuple[pa.DataType, Callable[[Any], Any]]]

_ORDERS: Columns = {
    "ts_sent": (_STAMP, lambda order: order.ts_init),  # of a replay see `orders_table`
    "order_id": (pa.string(), lambda order: order.client_order_id.value),
    "instrument": (pa.string(), lambda order: order.instrument_id.value),
    "side": (pa.string(), name_of_side),
    "quantity": (pa.float64(), lambda order: float(order.quantity)),
    "filled": (pa.float64(), lambda order: float(order.filled_qty)),
    "average_price": (pa.float64(), lambda order: float(order.avg_px) if order.avg_px else None),
    "status": (pa.string(), name_of_status),
    "ts_last": (_STAMP, lambda order: order.ts_last),
}
_FILLS: Columns = {
    "ts_filled": (_STAMP, lambda fill: fill.ts_event),
    "order_id": (pa.string(), lambda fill: fill.client_order_id.value),
    "instrument": (pa.string(), lambda fill: fill.instrument_id.value),
    "side": (pa.string(), lambda fill: name_of_side(fill, "order_side")),
    "quantity": (pa.float64(), lambda fill: float(fill.last_qty)),
    "price": (pa.float64(), lambda fill: float(fill.last_px)),
    "fee": (pa.float64(), lambda fill: fill.commission.as_double()),
    "fee_currency": (pa.string(), lambda fill: fill.commission.currency.code),
}
_POSITIONS: Columns = {
    "ts_opened": (_STAMP, lambda position: position.ts_opened),
    "ts_closed": (_STAMP, lambda position: position.ts_closed or None),
    "instrument": (pa.string(), lambda position: position.instrument_id.value),
    "side": (pa.string(), lambda position: name_of_side(position, "entry")),
    "peak_quantity": (pa.float64(), lambda position: float(position.peak_qty)),
    "quantity": (pa.float64(), lambda position: position.signed_qty),
    "average_open": (pa.float64(), lambda position: position.avg_px_open),
    "average_close": (pa.float64(), lambda position: position.avg_px_close or None),
    "realized_pnl": (pa.float64(), lambda position: position.realized_pnl.as_double()),
    "currency": (pa.string(), lambda position: position.realized_pnl.currency.code),
}


class Sent(NamedTuple):
    """The market's time (ns) at which each order, and the end of one, was sent; by the order's identifier."""

    orders: dict[str, int]
    cancels: dict[str, int]


def orders_table(orders: Iterable[Order], sent: Sent | None = None) -> pa.Table:
    """Return one row per order, in the order they were sent.

    ``sent``: of a replay, whose orders the engine stamps by the wall's clock. One that never reached the market has no
    stamps, and comes last.
    """
    stamps: Columns = {
        "ts_sent": (_STAMP, lambda order: _sent(order, sent)),
        "ts_last": (_STAMP, lambda order: _last(order, sent)),
    }
    return _table(_ORDERS | stamps, sorted(orders, key=lambda order: _sent(order, sent) or order.ts_init))


def _last(order: Order, sent: Sent | None) -> int | None:
    """Return when something last became of an order; what it was asked itself the engine stamps by the wall's clock."""
    if sent is not None and order.is_pending_cancel:
        return sent.cancels.get(order.client_order_id.value)
    return None if _sent(order, sent) is None else int(order.ts_last)


def _sent(order: Order, sent: Sent | None) -> int | None:
    """Return when an order was sent; the venue makes some itself, and stamps those by the market's time."""
    if sent is not None and order.client_order_id.value in sent.orders:
        return sent.orders[order.client_order_id.value]
    return int(order.ts_init) if sent is None or order.venue_order_id is not None else None


def fills_table(orders: Iterable[Order], decided: dict[str, float], sent: Sent | None = None) -> pa.Table:
    """Return one row per fill, by time, with what it cost against the price that its order was decided on at.

    ``decided`` holds those prices by order; an exit's is its own level. ``shortfall`` is a fraction, fees apart.
    ``sent``: as for `orders_table`.
    """
    known = {order.client_order_id: order for order in orders}
    rows = sorted((fill for order in known.values() for fill in fills_of(order)), key=lambda fill: int(fill.ts_event))

    def price_of(fill: Any) -> float | None:
        order = known[fill.client_order_id]
        return level_of(order) if is_exit(order) else decided.get(order.client_order_id.value)

    def cost_of(fill: Any) -> float | None:
        price, side = price_of(fill), 1 if name_of_side(fill, "order_side") == "buy" else -1
        return None if price is None else shortfall(float(fill.last_px), price, side)

    columns: Columns = {
        "ts_sent": (_STAMP, lambda fill: _sent(known[fill.client_order_id], sent)),
        "exit": (pa.bool_(), lambda fill: is_exit(known[fill.client_order_id])),
        "decided_price": (pa.float64(), price_of),
        "shortfall": (pa.float64(), cost_of),
    }
    return _table(_FILLS | columns, rows)


def level_of(order: Order) -> float:
    """Return where an exit was to fill: a stop's trigger, a take-profit's limit."""
    return float(order.trigger_price if order.has_trigger_price else order.price)


def positions_table(positions: Iterable[Any]) -> pa.Table:
    """Return one row per position, closed ones included; a netted position starts anew each time it was flat."""
    return _table(_POSITIONS, sorted(positions, key=lambda position: int(position.ts_opened)))


def _table(columns: Columns, rows: list[Any]) -> pa.Table:
    return pa.table({name: pa.array([read(row) for row in rows], kind) for name, (kind, read) in columns.items()})
