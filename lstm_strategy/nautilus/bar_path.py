"""The way a backtest's price takes through a bar, so that resting orders fill inside it: open, high, low, close.

Between two quotes of one bar the market moves through every price: whatever lies on the way is met there, at its own
price. Between two bars it jumps: an order that the open lies beyond fills at the open, or not at all.

- A stop is met when it is touched; a limit order only when the price goes beyond it.
- What a fill leads to (a stop for a new position, a cancel) reaches the venue before the price moves on.
- Several names go their ways one after the other, each through its own bar; at an open all of them are shown before
  what waits is looked at.
- The high comes before the low. With one exit at the venue this matters in one case alone: a short that was entered by
  a limit order and has nothing but a take-profit may reach both in one bar.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import numpy as np
from nautilus_trader.backtest.config import SimulationModuleConfig
from nautilus_trader.backtest.modules import SimulationModule
from nautilus_trader.common.config import ImportableActorConfig

from lstm_strategy.bars import Bars
from lstm_strategy.nautilus.engine import EngineInstrument, Order, OrderSide, QuoteTick

__all__ = ["PathModule", "PathModuleConfig", "path_module", "path_quotes"]

_HERE = "lstm_strategy.nautilus.bar_path"
# When high, low and close are shown, in latencies: before the bar itself, so that on_bar comes last.
_BEFORE_CLOSE = (8, 6, 4)
_ROUNDS = 8  # messages to and fro between strategy and venue before the price moves on


def path_quotes(bars: Bars, instrument: EngineInstrument, volume_share: float, latency_ns: int = 1) -> list[QuoteTick]:
    """Return three quotes per bar, just before its close: high, low, close; no spread beyond a tick.

    At the high only the ask touches it, at the low only the bid: stops are met, limits are not. ``latency_ns``: how
    long an order is under way; answers to one quote are to arrive before the next.
    """
    tick, lot = float(instrument.price_increment), float(instrument.size_increment)
    size = np.maximum(np.floor(bars.volume * volume_share / lot + 1e-6), 1.0) * lot
    wide = bars.high - bars.low > tick / 2.0
    at_high, at_low = wide & (bars.close > bars.high - tick / 2.0), wide & (bars.close < bars.low + tick / 2.0)
    bids = (bars.high - tick * wide, bars.low, bars.close - tick * at_high)
    asks = (bars.high, bars.low + tick * wide, bars.close + tick * at_low)
    quotes: list[QuoteTick] = []
    for bid, ask, before in zip(bids, asks, _BEFORE_CLOSE, strict=True):
        stamps = (bars.ts_close - before * latency_ns).astype(np.uint64)
        precisions = instrument.price_precision, instrument.size_precision
        columns = (bid.copy(), ask.copy(), size, size, stamps, stamps)  # ours to write to, as the engine asks
        quotes += QuoteTick.from_raw_arrays_to_list(instrument.id, *precisions, *columns)
    return sorted(quotes, key=lambda quote: int(quote.ts_init))


class PathModuleConfig(SimulationModuleConfig, frozen=True, kw_only=True):
    """Settings of `PathModule`.

    Parameters
    ----------
    bar_ns : int
        Length of a bar: tells the quotes of an open from those inside.
    away : dict of float
        By instrument half the spread and the slippage, which an order that is met on the way and takes pays, as a
        fraction of price.
    latency_ns : int
        How long an order is under way.
    opened_ns : int
        How long after an open answers to it are let through: when all names have been shown theirs.
    """

    bar_ns: int
    away: dict[str, float]
    latency_ns: int = 1
    opened_ns: int = 0


class PathModule(SimulationModule):  # type: ignore[misc]
    """Shows the venue the prices between two quotes of a bar at which an order rests, one after the other."""

    def __init__(self, config: PathModuleConfig) -> None:
        super().__init__(config)
        self._settings = config
        self._at: dict[Any, Decimal] = {}
        self._inside = self._quoted = False

    def pre_process(self, data: Any) -> None:
        """Walk from the last price to this quote's, unless it opens a bar."""
        if self._inside or not isinstance(data, QuoteTick):
            return
        here = self._at.get(data.instrument_id)
        # An open lies just after a bar's close, all else just before the next one.
        since = data.ts_event % self._settings.bar_ns
        opens = since < self._settings.bar_ns // 2
        self._quoted = since >= self._settings.opened_ns
        bid, ask = data.bid_price.as_decimal(), data.ask_price.as_decimal()
        if opens or here is None:
            self._at[data.instrument_id] = (bid + ask) / 2
            return
        # A high is the ask, a low the bid; see `path_quotes`.
        there = ask if ask > here else bid if bid < here else here
        self._inside = True
        try:
            self._walk(data, here, there)
        finally:
            self._inside = False
        self._at[data.instrument_id] = there

    def process(self, ts_now: int) -> None:
        """Let the venue answer what the last quote led to."""
        if self._quoted and not self._inside:
            self._quoted = False
            self._inside = True
            try:
                self._settle(ts_now)
            finally:
                self._inside = False

    def log_diagnostics(self, logger: Any) -> None:
        """Nothing: fills tell it."""

    def reset(self) -> None:
        """Begin anew."""
        self._at, self._inside, self._quoted = {}, False, False

    def _settle(self, ts_now: int) -> None:
        for _ in range(_ROUNDS):
            self.exchange.process(ts_now + self._settings.latency_ns)

    def _walk(self, quote: QuoteTick, here: Decimal, there: Decimal) -> None:
        met: set[Any] = set()
        while found := next(self._on_the_way(quote, here, there, met), None):
            here, order = found
            met.add((order.client_order_id, bool(getattr(order, "is_triggered", False))))
            self.exchange.process_quote_tick(self._quote(quote, order, here))
            self._settle(int(quote.ts_event))

    def _on_the_way(
        self, quote: QuoteTick, here: Decimal, there: Decimal, met: set[Any]
    ) -> Iterator[tuple[Decimal, Order]]:
        """Yield price and order of what rests between, the nearest first."""
        up = there > here
        found = []
        for order in self.exchange.get_open_orders(quote.instrument_id):
            triggered = bool(getattr(order, "is_triggered", False))
            buys, stop = order.side == OrderSide.BUY, order.has_trigger_price and not triggered
            if buys != (up == stop) or (order.client_order_id, triggered) in met:
                continue  # stops are met with the market, limits against it
            level = (order.trigger_price if stop else order.price).as_decimal()
            reached = (level <= there if up else level >= there) if stop else (level < there if up else level > there)
            if reached and (level >= here if up else level <= here):
                found.append((level, order))
        yield from sorted(found, key=lambda pair: pair[0], reverse=not up)

    def _quote(self, quote: QuoteTick, order: Order, level: Decimal) -> QuoteTick:
        """Return the market at a level: at it for a limit order, half a spread and the slippage off for a stop."""
        instrument = self.exchange.cache.instrument(quote.instrument_id)
        tick = instrument.price_increment.as_decimal()
        bid = ask = level
        if order.has_trigger_price:
            away = level * Decimal(str(self._settings.away[quote.instrument_id.value])) / tick
            ticks = away.quantize(Decimal("1e-6")).to_integral_value("ROUND_CEILING") * tick
            bid, ask = max(level - ticks, tick), level + ticks
        return QuoteTick(
            quote.instrument_id,
            instrument.make_price(bid),
            instrument.make_price(ask),
            quote.bid_size,
            quote.ask_size,
            quote.ts_event,
            quote.ts_init,
        )


def path_module(bar_ns: int, away: dict[str, float], latency_ns: int = 1, opened_ns: int = 0) -> ImportableActorConfig:
    """Return the venue's setting that lets resting orders fill inside bars; see `PathModuleConfig`."""
    return ImportableActorConfig(
        actor_path=f"{_HERE}:PathModule",
        config_path=f"{_HERE}:PathModuleConfig",
        config={"bar_ns": bar_ns, "away": away, "latency_ns": latency_ns, "opened_ns": opened_ns},
    )
