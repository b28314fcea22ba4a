"""Participation: no more than a stated share of a bar's volume is filled within the bar, whatever is ordered.

A venue whose book is used up ends a market order there. So here: the share of a bar's volume is what its open offers
(`fills.open_quotes` with ``least`` 0), and every fill of ours within the bar takes from it.

- A market order fills up to what is left, at its one price; the rest of it is cancelled at once, and the next close
  decides anew, on what is then held. So does a stop, once it is met. Where nothing is left a market order is rejected,
  and a stop stays: it is looked at again at each price that follows.
- A limit order, and a stop-limit that was triggered, fills up to what is left and rests on: later bars go on with it.
- What a venue liquidates fills whole, and takes from the rest of the bar.

Found by running it (engine 1.231): left alone, the engine fills the rest of a market order one tick worse, whatever
size was shown. It tells of each fill before it goes on, and goes on no more where the order has ended meanwhile: that
is where this module ends it. ``liquidity_consumption`` does not help: what is used up still slips by one tick, and each
quote offers its size anew. Where orders fill inside bars it is the fill model that is asked before each fill
(`StopLimitFills`).
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from nautilus_trader.backtest.config import SimulationModuleConfig
from nautilus_trader.backtest.modules import SimulationModule
from nautilus_trader.common.config import ImportableActorConfig

from lstm_strategy.nautilus.engine import OrderFilled, OrderType, QuoteTick
from lstm_strategy.nautilus.fills import StopLimitFills

__all__ = ["ParticipationModule", "ParticipationModuleConfig", "participation_module"]

_HERE = "lstm_strategy.nautilus.participation"
_ORDERS = "events.order.*"
_RESTING = frozenset({OrderType.LIMIT, OrderType.STOP_LIMIT})


class ParticipationModuleConfig(SimulationModuleConfig, frozen=True, kw_only=True):
    """Settings of `ParticipationModule`.

    Parameters
    ----------
    bar_ns : int
        Length of a bar: what is offered is that of its first quote.
    """

    bar_ns: int


class ParticipationModule(SimulationModule):  # type: ignore[misc]
    """Counts what each bar still gives, and ends what cannot wait for the next one."""

    def __init__(self, config: ParticipationModuleConfig) -> None:
        super().__init__(config)
        self._bar_ns = config.bar_ns
        self._left: dict[Any, Decimal] = {}
        self._bars: dict[Any, int] = {}
        self._listening = False

    def pre_process(self, data: Any) -> None:
        """Take what a bar offers from its open, and listen from the first event of the market on."""
        if not self._listening:
            self._listening = True
            self.exchange.msgbus.subscribe(_ORDERS, self._on_order_event)
            if isinstance(model := self.exchange.fill_model, StopLimitFills):
                model.left, model.venue = self._left, self.exchange
        if isinstance(data, QuoteTick):
            bar = int(data.ts_event) // self._bar_ns
            if self._bars.get(data.instrument_id) != bar:  # the open may be shown again (`joint_quotes`)
                self._bars[data.instrument_id] = bar
                self._left[data.instrument_id] = data.bid_size.as_decimal()

    def process(self, ts_now: int) -> None:
        """Nothing: everything happens at fills."""

    def log_diagnostics(self, logger: Any) -> None:
        """Nothing: the orders' own ends tell it."""

    def reset(self) -> None:
        """Go on as it is: the engine keeps its subscriptions."""
        self._left.clear()
        self._bars.clear()

    def _on_order_event(self, event: Any) -> None:
        if not isinstance(event, OrderFilled):
            return
        name = event.instrument_id
        self._left[name] = max(self._left.get(name, Decimal(0)) - event.last_qty.as_decimal(), Decimal(0))
        order = self.exchange.cache.order(event.client_order_id)
        if order is not None and not order.is_closed and order.order_type not in _RESTING:
            self.exchange.get_matching_engine(name).cancel_order(order)


def participation_module(bar_ns: int) -> ImportableActorConfig:
    """Return the venue's setting that lets no bar give more than is offered."""
    return ImportableActorConfig(
        actor_path=f"{_HERE}:ParticipationModule",
        config_path=f"{_HERE}:ParticipationModuleConfig",
        config={"bar_ns": bar_ns},
    )
