"""Participation: no order of a backtest takes more than a stated share of the bar it fills in; the rest is cancelled.

A venue whose book is used up ends a market order there. So here: an order fills at the open, up to the share of that
bar's volume which is offered (`fills.open_quotes` with ``least`` 0), and what is left of it is cancelled at once; the
next close decides anew, on what is then held. In a bar too thin for a single lot the order is rejected.

Found by running it (engine 1.231): left alone, the engine fills the rest of a market order one tick worse, whatever
size was shown. It tells of each fill before it goes on, and goes on no more where the order has ended meanwhile: that
is where this module ends it. ``liquidity_consumption`` does not help: what is used up still slips by one tick.
"""

from __future__ import annotations

from typing import Any

from nautilus_trader.backtest.config import SimulationModuleConfig
from nautilus_trader.backtest.modules import SimulationModule
from nautilus_trader.common.config import ImportableActorConfig

from lstm_strategy.nautilus.engine import OrderFilled

__all__ = ["ParticipationModule", "ParticipationModuleConfig", "participation_module"]

_HERE = "lstm_strategy.nautilus.participation"
_ORDERS = "events.order.*"


class ParticipationModuleConfig(SimulationModuleConfig, frozen=True, kw_only=True):
    """Settings of `ParticipationModule`: none; the size offered is that of the quotes."""


class ParticipationModule(SimulationModule):  # type: ignore[misc]
    """Ends each order at its first fill: what was offered there is all there is."""

    def __init__(self, config: ParticipationModuleConfig) -> None:
        super().__init__(config)
        self._listening = False

    def pre_process(self, data: Any) -> None:
        """Listen from the first event of the market on."""
        if not self._listening:
            self._listening = True
            self.exchange.msgbus.subscribe(_ORDERS, self._on_order_event)

    def process(self, ts_now: int) -> None:
        """Nothing: everything happens at fills."""

    def log_diagnostics(self, logger: Any) -> None:
        """Nothing: the orders' own ends tell it."""

    def reset(self) -> None:
        """Go on as it is: the engine keeps its subscriptions."""

    def _on_order_event(self, event: Any) -> None:
        if not isinstance(event, OrderFilled):
            return
        order = self.exchange.cache.order(event.client_order_id)
        if order is not None and not order.is_closed:
            self.exchange.get_matching_engine(event.instrument_id).cancel_order(order)


def participation_module() -> ImportableActorConfig:
    """Return the venue's setting that lets no order take more than is offered."""
    return ImportableActorConfig(
        actor_path=f"{_HERE}:ParticipationModule", config_path=f"{_HERE}:ParticipationModuleConfig", config={}
    )
