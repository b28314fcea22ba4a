"""The simulated venue of paper trading: the backtest's fills, fees and delays, on the bars that a live feed brings.

NautilusTrader's own sandbox ignores bars, has no latency and charges nothing; this one is a sandbox in name and place
alone. A live feed tells a bar when it closes, and with it the open at which a backtest would have filled. So when bar t
closes, the orders of the close before it are filled first, at the open of bar t and stamped just after it, as in
`fills`; only then is the bar told to the strategy, which finds its position as a backtest's does. Orders, fills and
what they lead to are handled at once, not by way of the live engines' queues: in the backtest's order, whatever the
speed at which bars come.

Orders sent at a stop have no open to meet, as in a backtest: the run ends marked to market.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from nautilus_trader.accounting.factory import AccountFactory
from nautilus_trader.adapters.sandbox.config import SandboxExecutionClientConfig
from nautilus_trader.adapters.sandbox.execution import SandboxExecutionClient
from nautilus_trader.backtest.engine import SimulatedExchange
from nautilus_trader.backtest.execution_client import BacktestExecClient
from nautilus_trader.backtest.models import FillModel, LatencyModel
from nautilus_trader.common.component import TestClock
from nautilus_trader.common.config import ActorFactory, ImportableActorConfig
from nautilus_trader.common.providers import InstrumentProvider
from nautilus_trader.data.engine import DataEngine
from nautilus_trader.execution.engine import ExecutionEngine
from nautilus_trader.live.execution_client import LiveExecutionClient
from nautilus_trader.live.factories import LiveExecClientFactory
from nautilus_trader.model.enums import BookType, OmsType
from nautilus_trader.model.identifiers import AccountId, ClientId
from nautilus_trader.risk.engine import RiskEngine

from lstm_strategy.bars import Bars, BarsError, Timeframe
from lstm_strategy.nautilus.bar_path import path_quotes
from lstm_strategy.nautilus.engine import AccountType, EngineBar, EngineInstrument, Money, QuoteTick, Venue
from lstm_strategy.nautilus.fills import LATENCY_NS, StopLimitFills, open_quotes
from lstm_strategy.nautilus.history import of_the_future, on_grid, to_bar, to_bars
from lstm_strategy.nautilus.simulation import RateFeeModel, RateFeeModelConfig

__all__ = ["PaperVenue", "PaperVenueConfig", "Terms", "paper_factory"]


class Terms(NamedTuple):
    """What trading one instrument costs there, as fractions; the share of a bar's volume, and the fewest lots, offered
    at its open.
    """

    fee: float
    spread: float
    slippage: float
    volume_share: float
    least: int = 1


class PaperVenueConfig(SandboxExecutionClientConfig, frozen=True, kw_only=True):
    """Settings of `PaperVenue`, as `simulation.Simulation` has them.

    Parameters
    ----------
    terms : dict of Terms
        By instrument: those that are traded.
    timeframe : str
        Of the bars that are traded on.
    delay_ns : int
        How much later than the next open an order reaches the venue.
    modules : tuple of ImportableActorConfig
        What else happens there.
    inside_bars : bool
        Whether orders rest while a bar goes by (with `path_module` among the modules).
    """

    terms: dict[str, Terms]
    timeframe: str
    delay_ns: int = 0
    liquidation_fee: float = 0.0
    modules: tuple[ImportableActorConfig, ...] = ()
    inside_bars: bool = False


class _Exchange(SimulatedExchange):  # type: ignore[misc]
    """The engine's simulated exchange; orders are under way for a time that counts by bars, not by the wall."""

    def __init__(self, late_ns: int, clock: TestClock, **settings: Any) -> None:
        self._late_ns, self._time = late_ns, clock
        self._under_way: dict[Any, list[tuple[int, int, Any]]] = {}
        self._count = 0
        self.shown: Any = None  # whose market it is that moves
        self.told_ns = 0  # the strategy's time: the stamp of what it was told last
        super().__init__(clock=clock, latency_model=LatencyModel(0), use_message_queue=False, **settings)

    def send(self, command: Any) -> None:
        """Send a command on its way."""
        self._count += 1
        due = self.told_ns + self._late_ns
        heapq.heappush(self._under_way.setdefault(command.instrument_id, []), (due, self._count, command))

    def process(self, ts_now: int) -> None:
        """Let arrive what was sent long enough ago, then the modules act; as the backtest settles its venues.

        Only what is for the instrument that was shown: the others' markets are still those of the bar before.
        """
        self._time.set_time(ts_now)
        waiting = self._under_way.get(self.shown, [])
        while waiting and waiting[0][0] <= ts_now:
            while waiting and waiting[0][0] <= ts_now:
                super().send(heapq.heappop(waiting)[2])
            self.get_matching_engine(self.shown).iterate(ts_now)
        super().process(ts_now)


class PaperVenue(SandboxExecutionClient):
    """Fills orders at opens, and lets bars through once what they fill is known.

    Attributes
    ----------
    told : dict of int
        By instrument, the close of the last bar that the strategies have been told, and have acted upon.
    """

    def __init__(
        self, loop: Any, portfolio: Any, msgbus: Any, cache: Any, clock: Any, config: PaperVenueConfig
    ) -> None:
        venue, cash = Venue(config.venue), config.account_type == "CASH"
        account = AccountType.CASH if cash else AccountType.MARGIN
        self.test_clock = time = TestClock()
        # Not the sandbox's own: it would make an exchange with models of its own.
        LiveExecutionClient.__init__(
            self,
            loop=loop,
            client_id=ClientId(config.venue),
            venue=venue,
            oms_type=OmsType.NETTING,
            account_type=account,
            base_currency=None,
            instrument_provider=InstrumentProvider(),
            msgbus=msgbus,
            cache=cache,
            clock=clock,
            config=None,
        )
        self._set_account_id(AccountId(f"{config.venue}-001"))
        fees = {name: terms.fee for name, terms in config.terms.items()}
        self.exchange = _Exchange(
            LATENCY_NS + config.delay_ns,
            time,
            venue=venue,
            oms_type=OmsType.NETTING,
            account_type=account,
            starting_balances=[Money.from_str(balance) for balance in config.starting_balances],
            base_currency=None,
            default_leverage=config.default_leverage,
            leverages={},
            modules=[ActorFactory.create(module) for module in config.modules],
            portfolio=portfolio,
            msgbus=msgbus,
            cache=cache,
            fill_model=StopLimitFills() if config.inside_bars else FillModel(),
            fee_model=RateFeeModel(RateFeeModelConfig(fees=fees, liquidation_fee=config.liquidation_fee)),
            book_type=BookType.L1_MBP,
            bar_execution=False,
        )
        self._client = BacktestExecClient(
            exchange=self.exchange,
            msgbus=msgbus,
            cache=cache,
            clock=time,
            # A gap between close and open may overdraw a full purchase, as in a backtest.
            allow_cash_borrowing=cash,
        )
        self.exchange.register_client(self._client)
        self.exchange.initialize_account()
        self.told: dict[str, int] = {}
        self._settings, self._timeframe = config, Timeframe.parse(config.timeframe)
        self._kernel: Any = None

    def stand_before(self, kernel: Any) -> None:
        """Take the traded bars of a node (`NautilusKernel`) before its data engine does, and skip its queues."""
        self._kernel = kernel
        for endpoint, engine, kind, method in (
            ("DataEngine.process", kernel.data_engine, DataEngine, "process"),
            ("RiskEngine.execute", kernel.risk_engine, RiskEngine, "execute"),
            ("ExecEngine.execute", kernel.exec_engine, ExecutionEngine, "execute"),
            ("ExecEngine.process", kernel.exec_engine, ExecutionEngine, "process"),
        ):
            self._msgbus.deregister(endpoint, getattr(engine, method))
            at_once = _bound(getattr(kind, method), engine)
            self._msgbus.register(endpoint, self._on_data if kind is DataEngine else at_once)

    def give_back(self) -> None:
        """Give back the permission to borrow, which the engine keeps for the whole process and gives only once."""
        AccountFactory.deregister_cash_borrowing(self._settings.venue)

    def connect(self) -> None:
        """Stand ready; the instruments are known when their first bar comes."""
        self._client._set_connected(True)
        self._set_connected(True)

    def _on_data(self, data: Any) -> None:
        if not isinstance(data, EngineBar) or data.bar_type.instrument_id.value not in self._settings.terms:
            self._kernel.data_engine.process(data)
            return
        try:
            self._on_bar(data)
        except Exception as error:
            self._log.exception("The paper venue failed", error)
            for strategy in self._kernel.trader.strategies():
                strategy.fail("the paper venue", error)

    def _on_bar(self, bar: EngineBar) -> None:
        """Show the market what is new in a bar, then tell the bar; the strategy says what is wrong with any other."""
        ts_close = on_grid(bar.ts_event, self._timeframe)
        bars = self._read(bar, ts_close)
        instrument = self._cache.instrument(bar.bar_type.instrument_id)
        if bars is not None and instrument is not None:
            for quote in self._quotes(bars, instrument):
                self._show(quote)
            self._set_time(int(bars.ts_close[0]))
            closed = _on_time(bar, int(bars.ts_close[0]))
            for module in self.exchange.modules:
                module.pre_process(closed)
        DataEngine.process(self._kernel.data_engine, bar)
        if bars is not None:
            self.exchange.process(int(bars.ts_close[0]))
            self.told[bars.instrument_id] = int(bars.ts_close[0])

    def _read(self, bar: EngineBar, ts_close: int | None) -> Bars | None:
        name = bar.bar_type.instrument_id.value
        last = self.told.get(name, 0)
        if ts_close is None or ts_close <= last or of_the_future(ts_close, self._now(), last, self._timeframe):
            return None
        try:
            return to_bars(name, self._timeframe, [to_bar(bar, ts_close)])
        except BarsError:
            return None

    def _now(self) -> int:
        """Return the venue's time, as the strategies know it."""
        wall_ns = self._clock.timestamp_ns()
        return max((int(strategy.pace.now(wall_ns)) for strategy in self._kernel.trader.strategies()), default=wall_ns)

    def _quotes(self, bars: Bars, instrument: EngineInstrument) -> Iterator[QuoteTick]:
        terms = self._settings.terms[bars.instrument_id]
        yield from open_quotes(
            bars,
            instrument,
            spread=terms.spread,
            slippage=terms.slippage,
            volume_share=terms.volume_share,
            least=terms.least,
        )
        if self._settings.inside_bars:
            yield from path_quotes(bars, instrument, terms.volume_share)

    def _set_time(self, now: int) -> None:
        """Go on to an event's stamp; of several instruments those of one close overlap."""
        self.exchange.told_ns = now
        self.test_clock.set_time(now)

    def _show(self, quote: QuoteTick) -> None:
        """Let the market be here, then let what was sent before arrive; in the backtest's order."""
        now = int(quote.ts_init)
        self._set_time(now)
        self.exchange.shown = quote.instrument_id
        self.exchange.process_quote_tick(quote)
        DataEngine.process(self._kernel.data_engine, quote)
        self.exchange.process(now)


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


def _bound(method: Callable[[Any, Any], None], engine: Any) -> Callable[[Any], None]:
    return lambda message: method(engine, message)


def _on_time(bar: EngineBar, ts_close: int) -> EngineBar:
    """Return a bar with the stamp of its close; a venue's may lie a millisecond before."""
    prices = bar.open, bar.high, bar.low, bar.close
    return EngineBar(bar.bar_type, *prices, bar.volume, ts_close, ts_close)
