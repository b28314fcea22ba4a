"""Building a node: clients, engines, simulated venue and strategy, all from the same settings as a backtest."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import msgspec
from nautilus_trader.cache.config import CacheConfig
from nautilus_trader.config import (
    LiveDataEngineConfig,
    LiveExecEngineConfig,
    LiveRiskEngineConfig,
    LoggingConfig,
    TradingNodeConfig,
)
from nautilus_trader.live.node import TradingNode
from nautilus_trader.portfolio.config import PortfolioConfig as EnginePortfolioConfig
from nautilus_trader.trading.config import ImportableStrategyConfig, StrategyFactory

from lstm_strategy.nautilus.backtest import strategy_of
from lstm_strategy.nautilus.bar_path import path_module
from lstm_strategy.nautilus.cache_database import cache_config
from lstm_strategy.nautilus.engine import InstrumentId
from lstm_strategy.nautilus.fence import fence
from lstm_strategy.nautilus.market import carry_modules, venue_modules
from lstm_strategy.nautilus.node_settings import NodeSettings
from lstm_strategy.nautilus.panel_backtest import PanelSettings, panel_strategy_of
from lstm_strategy.nautilus.paper_exchange import PaperVenueConfig, Terms
from lstm_strategy.nautilus.paper_factory import paper_factory
from lstm_strategy.nautilus.paper_venue import PaperVenue
from lstm_strategy.nautilus.rehearsal import Stage
from lstm_strategy.nautilus.source import on_disk
from lstm_strategy.nautilus.venue_clients import Wiring

__all__ = ["Built", "build_node"]

_CONNECTING_S, _DISCONNECTING_S = 30.0, 3.0
_HELD = 128  # bars, quotes and trades of an instrument that the engine's cache keeps; nobody here reads them there
_RACING = "1000/00:00:01"  # orders of a replay, whose days are seconds of the wall by which the engine counts


@dataclass(frozen=True, slots=True)
class Built:
    """A node that is ready to start; ``venue`` is the simulated one, where there is one."""

    node: TradingNode
    strategy: Any
    venue: PaperVenue | None

    @property
    def records(self) -> dict[str, Any]:
        """The rows of each instrument; known when the strategy has started."""
        seats = getattr(self.strategy, "seats", None)
        if seats is None:
            return {self.strategy.record.instrument_id: self.strategy.record}
        return {name: seat.record for name, seat in seats.items()}

    @property
    def decimals(self) -> dict[str, int]:
        """How many decimals the prices of each instrument have."""
        cache = self.node.cache
        ticks = {name: cache.instrument(InstrumentId.from_str(name)).price_increment for name in self.records}
        return {name: max(-tick.as_decimal().normalize().as_tuple().exponent, 0) for name, tick in ticks.items()}

    def settled(self, close: int, names: Sequence[str]) -> bool:
        """Say whether all work on the bars of a close is done (paper)."""
        told = {} if self.venue is None else self.venue.told
        return all(told.get(name, 0) >= close for name in names) and not self.strategy.collecting


def build_node(settings: NodeSettings, stage: Stage | None, stack: ExitStack) -> Built:
    """Return a node in the running loop; what it needs on disk is kept there until the stack is left."""
    clients = settings.adapter.clients(_wiring(settings, stage))
    node = TradingNode(_config(settings, clients, replayed=stage is not None), loop=asyncio.get_running_loop())
    made: list[PaperVenue] = []
    node.add_data_client_factory(settings.venue, clients.data_factory)
    real = clients.execution_factory
    node.add_exec_client_factory(settings.venue, real if settings.real else paper_factory(made))
    strategy = StrategyFactory.create(_strategy(settings, stack))
    if stage is not None:
        strategy.pace = stage.pace
    node.trader.add_strategy(strategy)
    if node.kernel.load_state:  # the engine has done so before it knew the strategy
        node.trader.load()
    node.build()
    for venue in made:
        venue.stand_before(node.kernel)
    return Built(node, strategy, made[0] if made else None)


def _wiring(settings: NodeSettings, stage: Stage | None) -> Wiring:
    wiring = Wiring(settings.names, settings.live.testnet, venue=settings.venue)
    if settings.real:
        place = None if settings.state_folder is None else str(settings.state_folder)
        wiring = wiring._replace(keep=settings.live.keep, record_dir=place)
    if stage is not None:
        return wiring._replace(testnet=False, http=stage.server.http_url, ws=stage.server.ws_url)
    if settings.base_url is not None:
        return wiring._replace(http=settings.base_url, ws=settings.base_url.replace("http", "ws", 1))
    return wiring


def _config(settings: NodeSettings, clients: Any, *, replayed: bool) -> TradingNodeConfig:
    shared, cache = settings.shared, cache_config(settings)
    limits = fence(shared.limits, settings.names, settings.timeframe.ns, inside_bars=shared.inside_bars)
    return TradingNodeConfig(
        trader_id=settings.trader_id,
        cache=msgspec.structs.replace(cache or CacheConfig(), tick_capacity=_HELD, bar_capacity=_HELD),
        load_state=cache is not None,
        save_state=cache is not None,
        logging=LoggingConfig(
            log_level="OFF",
            log_level_file="INFO",
            log_directory=str(settings.run_folder),
            log_file_name="node",
            log_file_format="json",
            log_colors=False,
        ),
        # At each fill it would log the balances of all currencies: of a hundred names 10 kB, and half a millisecond.
        portfolio=EnginePortfolioConfig(min_account_state_logging_interval_ms=60_000),
        data_engine=LiveDataEngineConfig(graceful_shutdown_on_exception=True),
        risk_engine=LiveRiskEngineConfig(
            max_order_submit_rate=_RACING if replayed else limits.max_order_submit_rate,
            max_notional_per_order=limits.max_notional_per_order,
            graceful_shutdown_on_exception=True,
        ),
        exec_engine=LiveExecEngineConfig(
            graceful_shutdown_on_exception=True,
            # The simulated venue answers in its own time, and knows no reports.
            inflight_check_interval_ms=2_000 if settings.real else 0,
            reconciliation=settings.real,
            # Of every fill the engine keeps what all currencies came to then, for as long as it runs.
            purge_account_events_interval_mins=1,
            purge_account_events_lookback_mins=1,
            **(clients.engine if settings.real else {}),
        ),
        data_clients={settings.venue: clients.data},
        exec_clients={settings.venue: clients.execution if settings.real else _paper(settings)},
        timeout_connection=_CONNECTING_S,
        timeout_disconnection=_DISCONNECTING_S,
        timeout_post_stop=0.1,  # what a stop leaves to be done is waited for before
    )


def _paper(settings: NodeSettings) -> PaperVenueConfig:
    shared, bar_ns = settings.shared, settings.timeframe.ns
    charged = {member.instrument_id: member.charged or member.costs for member in settings.members}
    modules = tuple(module for member in settings.members for module in carry_modules(member))
    path: tuple[Any, ...] = ()
    if shared.inside_bars:
        away = {name: costs.spread / 2.0 + costs.slippage for name, costs in charged.items()}
        path = (path_module(bar_ns, away),)
    others = venue_modules(settings.members)
    # In the backtest's order, which is not the same for one instrument and for several.
    modules += (*others, *path) if settings.portfolio is None else (*path, *others)
    share, least = shared.participation or shared.volume_share, 1 if shared.participation is None else 0
    return PaperVenueConfig(
        venue=settings.venue,
        starting_balances=[f"{shared.cash:.8f} {settings.currency}"],
        account_type=shared.account.upper(),
        terms={name: Terms(of.fee, of.spread, of.slippage, share, least) for name, of in charged.items()},
        timeframe=shared.timeframe,
        delay_ns=shared.delay * bar_ns,
        liquidation_fee=shared.liquidation_fee,
        modules=modules,
        inside_bars=shared.inside_bars,
        account_dir=None if settings.state_folder is None else str(settings.state_folder / "account"),
    )


def _strategy(settings: NodeSettings, stack: ExitStack) -> ImportableStrategyConfig:
    """Return the backtest's strategy, less what only a backtest may take for granted."""
    models = {member.instrument_id: stack.enter_context(on_disk(member.model)) for member in settings.members}
    own: dict[str, Any] = {
        "refill_holes": True,
        "flatten_on_stop": settings.live.flatten_on_stop,
        "history_timeout_s": settings.live.history,
        "parity_every": settings.live.parity_every,  # a venue revises what a catalog does not
        "follow": settings.live.follow,
        "follow_poll_s": settings.live.follow_poll,
        "shadow_bars": settings.live.shadow_bars,
        "decision_log": str(settings.run_folder / "decisions"),
        "state_dir": None if settings.state_folder is None else str(settings.state_folder),
    }
    if settings.real:  # what the venue knows of an earlier process is ours
        own["external_order_claims"] = list(settings.names)
    if settings.portfolio is None:
        importable = strategy_of(settings.shared, models[settings.names[0]], settings.timeframe, None)
    else:
        panel = PanelSettings(members=settings.members, portfolio=settings.portfolio)
        importable = panel_strategy_of(panel, models, None)
        own["portfolio"] = msgspec.to_builtins(settings.portfolio)
    return msgspec.structs.replace(importable, config=importable.config | own)
