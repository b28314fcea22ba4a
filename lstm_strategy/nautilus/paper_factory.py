"""What a node makes its simulated venue with."""

from __future__ import annotations

from typing import Any

from nautilus_trader.live.factories import LiveExecClientFactory

from lstm_strategy.nautilus.paper_exchange import PaperVenueConfig
from lstm_strategy.nautilus.paper_venue import PaperVenue

__all__ = ["paper_factory"]


def paper_factory(made: list[PaperVenue]) -> type[LiveExecClientFactory]:
    """Return what a node makes its venue with; the venue is appended to ``made``."""

    class Factory(LiveExecClientFactory):
        """Makes one paper venue."""

        @staticmethod
        def create(  # type: ignore[override]
            loop: Any, name: str, config: PaperVenueConfig, portfolio: Any, msgbus: Any, cache: Any, clock: Any
        ) -> PaperVenue:
            venue = PaperVenue(loop, portfolio, msgbus, cache, clock, config)
            made.append(venue)
            return venue

    Factory.__name__ = "SandboxLiveExecClientFactory"  # the engine hands the portfolio to this name alone
    return Factory
