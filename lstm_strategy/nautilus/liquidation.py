"""Liquidation: a margin account that falls below its maintenance margin inside a bar loses the position there.

The engine enforces no margin (1.231 takes ``liquidation_enabled`` as a setting and looks at it nowhere). So this module
of the simulated venue does, after the rule of cross margin:

- The account is short of margin where equity, marked to market, is below the maintenance margin of all positions: a
  part of their values, by the venue's tiers where they are known (`margin`). A bar is looked at where it is worst for
  the position: the low for a long one, the high for a short one, whatever came first. An open is looked at by its bid
  or ask, before orders meet it.
- The position is then closed whole at the price at which the account became short, rounded to the tick against it; at
  the open where that lies beyond already. The venue charges its liquidation fee in the place of the usual one, and
  cancels the name's open orders. An order still under way (`backtest.delay`) arrives all the same.
- Where exits rest, the price takes the way through the bar that `bar_path` says, and a stop that lies before the
  liquidation price is met first.
- Of several names each is looked at by itself, the others at their last price: the one whose bar breaks the account is
  closed.
- A position is closed whole, in whatever tier it is: venues may take a large one down tier by tier.
- What is left, if anything, stays in the account, and below nothing it is a debt: no insurance fund steps in.
"""

from __future__ import annotations

import math
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Any

import msgspec
from nautilus_trader.backtest.config import SimulationModuleConfig
from nautilus_trader.backtest.modules import SimulationModule
from nautilus_trader.common.config import ImportableActorConfig
from nautilus_trader.core.uuid import UUID4
from nautilus_trader.model.enums import LiquiditySide
from nautilus_trader.model.identifiers import ClientOrderId, VenueOrderId
from nautilus_trader.model.orders import MarketOrder

from lstm_strategy.margin import Line, Maintenance, lines_of, margin_asked
from lstm_strategy.nautilus.account import LIQUIDATION
from lstm_strategy.nautilus.engine import EngineBar, InstrumentId, OrderSide, QuoteTick, fills_of

__all__ = [
    "Liquidated",
    "LiquidationModule",
    "LiquidationModuleConfig",
    "liquidated",
    "liquidation_module",
    "liquidation_price",
]

_HERE = "lstm_strategy.nautilus.liquidation"
_KEY = "lstm_strategy.liquidations"


class Liquidated(msgspec.Struct, frozen=True):
    """One liquidation: the close of the bar it fell into (ns), the signed quantity lost, and what was left.

    ``fee`` and ``equity`` (after it, marked to market) are in quote currency.
    """

    ts_close: int
    instrument: str
    quantity: float
    price: float
    fee: float
    equity: float


class LiquidationModuleConfig(SimulationModuleConfig, frozen=True, kw_only=True):
    """Settings of `LiquidationModule`.

    Parameters
    ----------
    lines : dict of tuple
        By name of those that share the account, rate and amount of each tier (`lines_of`).
    bar_ns : int
        Length of a bar.
    inside_bars : bool
        Whether quotes show the way through a bar (`bar_path`).
    """

    lines: dict[str, tuple[tuple[float, float], ...]]
    bar_ns: int
    inside_bars: bool = False


def liquidation_price(position: float, entry: float, margin: float, lines: tuple[Line, ...]) -> float:
    """Return the price at which a position is short of margin: below it a long one, above it a short one.

    Solves ``margin + position · (p − entry) = rate · |position| · p − amount`` for p in each tier. What is asked for is
    the largest of the right sides, so the account is short where it is short by any of them.

    Parameters
    ----------
    position : float
        Signed quantity, not 0.
    margin : float
        What the account has for it at its entry price: the balance and the other names' gains, less the margin that
        they need.
    """
    prices = [(position * entry - margin - amount) / (position - rate * abs(position)) for rate, amount in lines]
    return max(prices) if position > 0.0 else min(prices)


class LiquidationModule(SimulationModule):  # type: ignore[misc]
    """Closes what the account has no margin for, before anything else happens at that price."""

    def __init__(self, config: LiquidationModuleConfig) -> None:
        super().__init__(config)
        self._settings = config
        self._lines = {InstrumentId.from_str(name): lines for name, lines in config.lines.items()}
        self._ids = list(self._lines)
        self.reset()

    def pre_process(self, data: Any) -> None:
        """Look at the open, at each turn of the price where quotes show them, else at a bar's extreme."""
        if isinstance(data, EngineBar):
            name = data.bar_type.instrument_id
            if not self._settings.inside_bars:
                self._look(name, int(data.ts_event), (data.low, data.high), (data.open, data.open))
            self.mark(data)
        elif isinstance(data, QuoteTick) and data.bid_size > 0:
            name, ts, bar_ns = data.instrument_id, int(data.ts_event), self._settings.bar_ns
            prices = (data.bid_price, data.ask_price)
            opens = ts % bar_ns < bar_ns // 2
            before = prices if opens else self._marks.get(name, prices)
            self._look(name, ts, prices, before)
            self._marks[name] = prices

    def mark(self, bar: EngineBar) -> None:
        """Take a close as a name's last price."""
        self._marks[bar.bar_type.instrument_id] = (bar.close, bar.close)

    def process(self, ts_now: int) -> None:
        """Nothing: everything has happened before the event."""

    def log_diagnostics(self, logger: Any) -> None:
        """Nothing: the summary tells it."""

    def reset(self) -> None:
        """Begin anew."""
        self._marks: dict[Any, tuple[Any, Any]] = {}
        self._told: list[Liquidated] = []

    def _look(self, name: Any, ts: int, worst: tuple[Any, Any], before: tuple[Any, Any]) -> None:
        """Close the name's positions where the account falls short on the way from ``before`` to ``worst``.

        Both are (for a long position, for a short one).
        """
        for position in self.exchange.cache.positions_open(instrument_id=name):
            quantity, entry = float(position.signed_qty), float(position.avg_px_open)
            short = quantity < 0.0
            margin = self._margin(name)
            limit = liquidation_price(quantity, entry, margin, self._lines[name])
            reached, came_from = float(worst[short]), float(before[short])
            if (reached <= limit) if short else (reached >= limit):
                continue
            if self._settings.inside_bars and self._stopped_before(position, came_from, limit):
                continue
            instrument = self.exchange.cache.instrument(name)
            tick = instrument.price_increment.as_decimal()
            exact = max(limit, came_from) if short else min(limit, came_from)
            ticks = (Decimal(exact) / tick).to_integral_value(ROUND_CEILING if short else ROUND_FLOOR)
            price = instrument.make_price(max(ticks, Decimal(1)) * tick)
            self._close(position, price, ts)

    def _margin(self, name: Any) -> float:
        """Return what the account has for one name at its entry price, the others at their last prices."""
        account = self.exchange.get_account()
        currency = self.exchange.cache.instrument(name).quote_currency
        free = float(account.balance_total(currency).as_double())
        for other in self._ids:
            if other == name or other not in self._marks:
                continue
            for position in self.exchange.cache.positions_open(instrument_id=other):
                quantity = float(position.signed_qty)
                price = float(self._marks[other][quantity < 0.0])
                free += quantity * (price - float(position.avg_px_open))
                free -= margin_asked(abs(quantity) * price, self._lines[other])
        return free

    def _stopped_before(self, position: Any, came_from: float, limit: float) -> bool:
        """Say whether an exit rests between here and the liquidation price: it is met first."""
        closing = OrderSide.SELL if position.is_long else OrderSide.BUY
        low, high = min(came_from, limit), max(came_from, limit)
        return any(
            order.side == closing and order.has_trigger_price and low <= float(order.trigger_price) <= high
            for order in self.exchange.get_open_orders(position.instrument_id)
        )

    def _close(self, position: Any, price: Any, ts: int) -> None:
        """Fill an order of the venue's own at the price, and cancel what rests."""
        exchange, name = self.exchange, position.instrument_id
        matching = exchange.get_matching_engine(name)
        quantity = float(position.signed_qty)
        matching.iterate(ts)  # sets the venue's clock; its market has not moved yet
        order = MarketOrder(
            trader_id=position.trader_id,
            strategy_id=position.strategy_id,
            instrument_id=name,
            client_order_id=ClientOrderId(f"{LIQUIDATION}{name.symbol.value}-{len(self._told) + 1}"),
            order_side=OrderSide.SELL if position.is_long else OrderSide.BUY,
            quantity=position.quantity,
            init_id=UUID4(),
            ts_init=ts,
            reduce_only=True,
        )
        exchange.cache.add_order(order, position_id=position.id)
        told = (order.strategy_id, name, order.client_order_id)
        exchange.exec_client.generate_order_submitted(*told, ts)
        exchange.exec_client.generate_order_accepted(*told, VenueOrderId(order.client_order_id.value), ts)
        matching.fill_order(order, price, position.quantity, LiquiditySide.TAKER, None, position)
        for resting in exchange.get_open_orders(name):
            if not resting.is_pending_cancel:
                matching.cancel_order(resting)
        fee = math.fsum(fill.commission.as_double() for fill in fills_of(order))
        ts_close = -(-ts // self._settings.bar_ns) * self._settings.bar_ns
        self._told.append(Liquidated(ts_close, name.value, quantity, float(price), fee, self._equity(name)))
        exchange.cache.add(_KEY, msgspec.json.encode(self._told))

    def _equity(self, name: Any) -> float:
        """Return the balance with the other names' gains, when this one is closed."""
        currency = self.exchange.cache.instrument(name).quote_currency
        equity = float(self.exchange.get_account().balance_total(currency).as_double())
        for other in self._ids:
            for position in self.exchange.cache.positions_open(instrument_id=other):
                if other in self._marks:
                    quantity = float(position.signed_qty)
                    equity += quantity * (float(self._marks[other][quantity < 0.0]) - float(position.avg_px_open))
        return equity


def liquidation_module(maintenance: dict[str, Maintenance], bar_ns: int, *, inside_bars: bool) -> ImportableActorConfig:
    """Return the venue's setting that closes what there is no margin for."""
    return ImportableActorConfig(
        actor_path=f"{_HERE}:LiquidationModule",
        config_path=f"{_HERE}:LiquidationModuleConfig",
        config={
            "lines": {name: lines_of(asked) for name, asked in maintenance.items()},
            "bar_ns": bar_ns,
            "inside_bars": inside_bars,
        },
    )


def liquidated(cache: Any) -> list[Liquidated]:
    """Return a finished run's liquidations in the order they happened."""
    told = cache.get(_KEY)
    return [] if told is None else msgspec.json.decode(told, type=list[Liquidated])
