"""One strategy over one catalog through the engine's BacktestNode, with next-open fills."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import msgspec
from nautilus_trader.accounting.factory import AccountFactory
from nautilus_trader.backtest.config import (
    BacktestDataConfig,
    BacktestEngineConfig,
    BacktestRunConfig,
    BacktestVenueConfig,
    FeeModelConfig,
    ImportableFeeModelConfig,
    ImportableFillModelConfig,
    ImportableLatencyModelConfig,
)
from nautilus_trader.backtest.models import FeeModel
from nautilus_trader.backtest.node import BacktestNode
from nautilus_trader.common.config import ImportableActorConfig, LoggingConfig
from nautilus_trader.persistence.config import DataCatalogConfig
from nautilus_trader.trading.config import ImportableStrategyConfig

from lstm_strategy.limits import LimitsConfig
from lstm_strategy.nautilus.account import is_liquidation
from lstm_strategy.nautilus.catalog import engine_path
from lstm_strategy.nautilus.engine import BarType, EngineBar, EngineInstrument, Money, QuoteTick
from lstm_strategy.nautilus.fence import fence
from lstm_strategy.nautilus.fills import LATENCY_NS
from lstm_strategy.nautilus.history import timeframe_of

__all__ = ["RateFeeModel", "RateFeeModelConfig", "Simulation", "simulate"]

_HERE = "lstm_strategy.nautilus.simulation"
_COLLECT_EVERY = 50_000  # objects made
_STOP_LIMITS = ImportableFillModelConfig(
    fill_model_path="lstm_strategy.nautilus.fills:StopLimitFills",
    config_path="nautilus_trader.backtest.config:FillModelConfig",
    config={},
)


class RateFeeModelConfig(FeeModelConfig, frozen=True):
    """Fees as fractions of notional; the experiment may override those of the instrument."""

    fee: float = 0.0
    fees: dict[str, float] = msgspec.field(default_factory=dict)  # by instrument, where they differ
    liquidation_fee: float = 0.0


class RateFeeModel(FeeModel):  # type: ignore[misc]
    """Charges one rate on every fill, in quote currency."""

    def __init__(self, config: RateFeeModelConfig) -> None:
        self._fee = Decimal(str(config.fee))
        self._fees = {name: Decimal(str(fee)) for name, fee in config.fees.items()}
        self._liquidation_fee = Decimal(str(config.liquidation_fee))

    def get_commission(self, order: Any, fill_qty: Any, fill_px: Any, instrument: Any) -> Money:
        """Return the commission of one fill."""
        notional = instrument.notional_value(quantity=fill_qty, price=fill_px)
        fee = self._fees.get(instrument.id.value, self._fee) if self._fees else self._fee
        if is_liquidation(order):
            fee = self._liquidation_fee
        return Money(notional.as_decimal() * fee, instrument.quote_currency)


@dataclass(frozen=True, slots=True)
class Simulation:
    """What one run of the engine needs.

    Parameters
    ----------
    start, end : int
        Nanoseconds. Bars with ``start < ts_close <= end`` are traded; those before serve as history.
    delay_ns : int
        How much later than the next open an order reaches the venue.
    fee : float
        Fraction of notional.
    limits : LimitsConfig
        What the engine's own risk checks are set from.
    modules : tuple of ImportableActorConfig
        What else happens at the venue, such as `carry_module`.
    inside_bars : bool
        Whether orders rest at the venue while a bar goes by (with `path_module`).
    others : tuple of BarType
        Of further instruments on the same venue, whose ``quotes`` are among the others'.
    latency_ns : int
        How long an order is under way beside ``delay_ns``.
    fees : dict of float
        By instrument, where they are not ``fee``.
    liquidation_fee : float
        Charged in their place where the venue closes a position for want of margin.
    """

    catalog: Path
    bar_type: BarType
    instrument: EngineInstrument
    quotes: list[QuoteTick]
    strategy: ImportableStrategyConfig
    start: int
    end: int
    cash: float
    account: Literal["cash", "margin"]
    delay_ns: int
    fee: float
    limits: LimitsConfig
    modules: tuple[ImportableActorConfig, ...] = ()
    inside_bars: bool = False
    others: tuple[BarType, ...] = ()
    latency_ns: int = LATENCY_NS
    fees: dict[str, float] = field(default_factory=dict)
    liquidation_fee: float = 0.0


@contextmanager
def simulate(simulation: Simulation) -> Iterator[Any]:
    """Run to the end and yield the engine, for its strategy, cache and reports; dispose of it afterwards.

    An exception in ``on_start`` comes out of here; one in a later handler is kept by the strategy (`failure`).
    """
    latency = {
        "base_latency_nanos": simulation.latency_ns,
        "insert_latency_nanos": simulation.delay_ns,
        "update_latency_nanos": simulation.delay_ns,
        "cancel_latency_nanos": simulation.delay_ns,
    }
    venue = BacktestVenueConfig(
        name=simulation.instrument.id.venue.value,
        oms_type="NETTING",
        account_type=simulation.account.upper(),
        starting_balances=[f"{simulation.cash:.8f} {simulation.instrument.quote_currency.code}"],
        bar_execution=False,
        fill_model=_STOP_LIMITS if simulation.inside_bars else None,
        modules=list(simulation.modules) or None,
        # A gap between close and open may overdraw a full purchase; without this the engine quietly ends the run.
        allow_cash_borrowing=simulation.account == "cash",
        latency_model=ImportableLatencyModelConfig(
            latency_model_path="nautilus_trader.backtest.models:LatencyModel",
            config_path="nautilus_trader.backtest.config:LatencyModelConfig",
            config=latency,
        ),
        fee_model=ImportableFeeModelConfig(
            fee_model_path=f"{_HERE}:RateFeeModel",
            config_path=f"{_HERE}:RateFeeModelConfig",
            config={
                "fee": simulation.fee,
                "fees": simulation.fees,
                "liquidation_fee": simulation.liquidation_fee,
            },
        ),
    )
    catalog = engine_path(simulation.catalog)
    bar_types = (simulation.bar_type, *simulation.others)
    bars = [
        BacktestDataConfig(
            catalog_path=catalog,
            data_cls=EngineBar,  # the class itself: with its name, bar_types would be ignored
            bar_types=[str(bar_type)],
            start_time=simulation.start + 1,
            end_time=simulation.end,
        )
        for bar_type in bar_types
    ]
    run = BacktestRunConfig(
        engine=BacktestEngineConfig(
            logging=LoggingConfig(bypass_logging=True),
            risk_engine=fence(
                simulation.limits,
                [bar_type.instrument_id.value for bar_type in bar_types],
                timeframe_of(simulation.bar_type).ns,
                inside_bars=simulation.inside_bars,
            ),
            catalogs=[DataCatalogConfig(path=catalog, fs_protocol="file")],
            strategies=[simulation.strategy],
        ),
        venues=[venue],
        data=bars,
        start=simulation.start,
        end=simulation.end,
        raise_exception=True,
        dispose_on_completion=False,
    )
    node = BacktestNode([run])
    try:
        with warnings.catch_warnings():
            # The engine's own use of pandas is not ours to mend.
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.simplefilter("ignore", FutureWarning)
            node.build()
            engine: Any = node.get_engine(run.id)
            for quotes in _by_instrument(simulation.quotes):
                engine.add_data(quotes, sort=False)
            with _settled_heap():
                node.run()
            yield engine
    finally:
        node.dispose()  # type: ignore[no-untyped-call]
        # The engine keeps this permission for the whole process and refuses to be given it twice.
        AccountFactory.deregister_cash_borrowing(simulation.instrument.id.venue.value)


@contextmanager
def _settled_heap() -> Iterator[None]:
    """Let the garbage collector walk seldom, and never through what lived before: libraries and data stay."""
    thresholds, frozen = gc.get_threshold(), gc.get_freeze_count()
    gc.set_threshold(_COLLECT_EVERY, *thresholds[1:])
    if not frozen:  # or else it is somebody's who freezes for himself
        gc.freeze()
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        if not frozen:
            gc.unfreeze()


def _by_instrument(quotes: list[QuoteTick]) -> list[list[QuoteTick]]:
    """Return the quotes of each instrument, as the engine takes them."""
    found: dict[str, list[QuoteTick]] = {}
    for quote in quotes:
        found.setdefault(quote.instrument_id.value, []).append(quote)
    return list(found.values())
