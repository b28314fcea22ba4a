"""The simulated venue of paper trading: the backtest's fills, fees and delays, on the bars that a live feed brings.

NautilusTrader's own sandbox ignores bars, has no latency and charges nothing; this one is a sandbox in name and place
alone. A live feed tells a bar when it closes, and with it the open at which a backtest would have filled. So when bar t
closes, the orders of the close before it are filled first, at the open of bar t and stamped just after it, as in
`fills`; only then is the bar told to the strategy, which finds its position as a backtest's does. Orders, fills and
what they lead to are handled at once, not by way of the live engines' queues: in the backtest's order, whatever the
speed at which bars come.

Orders sent at a stop have no open to meet, as in a backtest: the run ends marked to market. Where the account is kept
(see `paper_account`), the next start goes on with it: orders that were under way, or rest, first meet the bars that
closed meanwhile, as far as the history tells them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from nautilus_trader.accounting.factory import AccountFactory
from nautilus_trader.adapters.sandbox.execution import SandboxExecutionClient
from nautilus_trader.backtest.execution_client import BacktestExecClient
from nautilus_trader.backtest.models import FillModel
from nautilus_trader.common.component import TestClock
from nautilus_trader.common.config import ActorFactory
from nautilus_trader.common.providers import InstrumentProvider
from nautilus_trader.data.engine import DataEngine
from nautilus_trader.execution.engine import ExecutionEngine
from nautilus_trader.live.execution_client import LiveExecutionClient
from nautilus_trader.model.enums import BookType, OmsType
from nautilus_trader.model.identifiers import AccountId, ClientId
from nautilus_trader.risk.engine import RiskEngine

from lstm_strategy.bars import Bars, BarsError, Timeframe
from lstm_strategy.nautilus.engine import AccountType, EngineBar, InstrumentId, Venue
from lstm_strategy.nautilus.fills import LATENCY_NS, StopLimitFills
from lstm_strategy.nautilus.history import of_the_future, on_grid, to_bar
from lstm_strategy.nautilus.keeper import any_ordered
from lstm_strategy.nautilus.paper_absent import Absent
from lstm_strategy.nautilus.paper_account import KeptAccount, open_book
from lstm_strategy.nautilus.paper_exchange import PaperExchange, PaperVenueConfig
from lstm_strategy.nautilus.paper_ledger import Ledger
from lstm_strategy.nautilus.paper_market import PaperMarket, at_close
from lstm_strategy.nautilus.paper_state import go_on, money_of
from lstm_strategy.nautilus.simulation import RateFeeModel, RateFeeModelConfig

__all__ = ["PaperVenue"]

_LOOK_S = 0.02


class PaperVenue(SandboxExecutionClient):
    """Fills orders at opens, and lets bars through once what they fill is known.

    Attributes
    ----------
    told : dict of int
        By instrument, the close of the last bar that the strategies have been told, and have acted upon.
    story : str
        Which account this is, in words; empty where it is not kept.
    """

    def __init__(
        self, loop: Any, portfolio: Any, msgbus: Any, cache: Any, clock: Any, config: PaperVenueConfig
    ) -> None:
        venue, cash = Venue(config.venue), config.account_type == "CASH"
        account = AccountType.CASH if cash else AccountType.MARGIN
        time = TestClock()
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
        book = open_book(config, msgbus.trader_id.value, clock.timestamp_ns())
        self._kept = None if book is None else book.kept
        self.story = "" if book is None else book.story
        fees = {name: terms.fee for name, terms in config.terms.items()}
        self.exchange = PaperExchange(
            LATENCY_NS + config.delay_ns,
            time,
            venue=venue,
            oms_type=OmsType.NETTING,
            account_type=account,
            starting_balances=money_of(config.starting_balances, self._kept),
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
        self._market = PaperMarket(self.exchange, time, config, self._tell)
        self._ledger = Ledger(book, self.exchange, clock)
        self._absent = Absent(loop, lambda: self._kernel.trader.strategies())
        self._acting = self._soon = False

    def stand_before(self, kernel: Any) -> None:
        """Take the traded bars of a node (`NautilusKernel`) before its data engine does, and skip its queues."""
        self._kernel, self.exchange.now = kernel, self._now
        self.exchange.ordered = lambda: not self._acting and any_ordered(kernel.trader.strategies())
        for endpoint, engine, kind, method in (
            ("DataEngine.process", kernel.data_engine, DataEngine, "process"),
            ("RiskEngine.execute", kernel.risk_engine, RiskEngine, "execute"),
            ("ExecEngine.execute", kernel.exec_engine, ExecutionEngine, "execute"),
            ("ExecEngine.process", kernel.exec_engine, ExecutionEngine, "process"),
        ):
            self._msgbus.deregister(endpoint, getattr(engine, method))
            at_once = _bound(getattr(kind, method), engine)
            self._msgbus.register(endpoint, self._on_data if kind is DataEngine else at_once)
        for topic in ("events.order.*", "events.position.*"):
            self._msgbus.subscribe(topic, self._ledger.note)
        if self._kept is not None:
            self._msgbus.deregister("DataEngine.response", kernel.data_engine.response)
            self._msgbus.register("DataEngine.response", self._on_response)

    def give_back(self) -> None:
        """Give back the account, and the permission to borrow, which the engine keeps for the process, given once."""
        AccountFactory.deregister_cash_borrowing(self._settings.venue)
        self._ledger.close()

    def connect(self) -> None:
        """Stand ready; the instruments are known when their first bar comes, or when a kept account needs them."""
        self._client._set_connected(True)
        if self._kept is None:
            self._ready()
        else:
            self.create_task(self._go_on(self._kept))

    @property
    def goes_on(self) -> bool:
        """Whether the account is an older one."""
        return self._kept is not None

    def _ready(self) -> None:
        self._ledger.begin()
        self._set_connected(True)
        self._ledger.write()

    async def _go_on(self, kept: KeptAccount) -> None:
        """Go on with an account that was kept, as soon as its instruments are known."""
        names = [name for name in kept.names if name in self._settings.terms]
        while None in (found := [self._cache.instrument(InstrumentId.from_str(name)) for name in names]):
            await asyncio.sleep(_LOOK_S)
        self._ledger.last = last = go_on(self.exchange, kept, found, self.id, self.account_id)
        self.told = {name: bar.ts_close for name, bar in last.items()}
        self.exchange.told_ns = max(self.told.values(), default=0)
        self._absent.begin(self.told)
        for name in self.told:
            self.exchange.hold(InstrumentId.from_str(name))
        self._ready()

    def _execute(self, command: Any) -> None:
        """Keep what a command makes of the account, once the handler that sent it has returned."""
        self._ledger.note(command)
        if self._ledger.begun and not self._acting:
            self._loop.call_soon(self._try, self._ledger.write_changed)

    def submit_order(self, command: Any) -> None:
        """Send an order on its way."""
        self._client.submit_order(command)
        self._execute(command)

    def cancel_order(self, command: Any) -> None:
        """Send the end of an order on its way."""
        self._client.cancel_order(command)
        self._execute(command)

    def _on_data(self, data: Any) -> None:
        if not isinstance(data, EngineBar) or data.bar_type.instrument_id.value not in self._settings.terms:
            self._kernel.data_engine.process(data)
            return
        self._try(self._on_bar, data)

    def _on_response(self, response: Any) -> None:
        """Let what rests, or was under way, meet the bars that closed while nobody was there; then tell the history."""
        bars = response.data if isinstance(response.data, list) else []
        if bars and isinstance(bars[0], EngineBar):
            self._try(self._meet, bars[0].bar_type.instrument_id.value, bars)
        self._kernel.data_engine.response(response)

    def _try(self, work: Callable[..., None], *given: Any) -> None:
        self._acting, acted = True, self._acting
        try:
            work(*given)
        except Exception as error:
            self._log.exception("The paper venue failed", error)
            for strategy in self._kernel.trader.strategies():
                strategy.fail("the paper venue", error)
        finally:
            self._acting = acted

    def _meet(self, name: str, bars: list[EngineBar]) -> None:
        """Show the market a history, as far as it is new, and the live bars that came before it; in order.

        What strategies send meanwhile meets the next live bar.
        """
        if name not in self._absent:
            return
        self._market.past, now = True, self._now()
        try:
            closed = [bar for bar in bars if (on_grid(bar.ts_event, self._timeframe) or 0) <= now]
            for bar in sorted([*closed, *self._absent.take(name)], key=lambda bar: int(bar.ts_event)):
                if (read := self._read(bar, on_grid(bar.ts_event, self._timeframe))) is not None:
                    self._market.show(read, bar)
                    self._settle(read, bar)
        finally:
            self._market.past = False
            self.exchange.told_ns = max(self.exchange.told_ns, self.told[name])
            self.exchange.let_go(InstrumentId.from_str(name), self.told[name])
        self._ledger.write()

    def _on_bar(self, bar: EngineBar) -> None:
        """Show the market what is new in a bar, then tell the bar; the strategy says what is wrong with any other."""
        name = bar.bar_type.instrument_id.value
        if not (waits := self._absent.awaits(name)):
            self._meet(name, [])
        bars = self._read(bar, on_grid(bar.ts_event, self._timeframe))
        if bars is not None and waits:
            self._absent.put_aside(name, bar, lambda: self._try(self._meet, name, []))
            bars = None
        if bars is not None:
            self._market.show(bars, bar)
        self._tell(bar)
        if bars is not None:
            self._settle(bars, bar)
            if self._ledger.touched:
                self._ledger.write_changed()
            elif self._ledger.begun and not self._soon:
                self._soon = True
                self._loop.call_soon(self._try, self._write_soon)

    def _write_soon(self) -> None:
        self._soon = False
        self._ledger.write_changed()

    def _tell(self, data: Any) -> None:
        DataEngine.process(self._kernel.data_engine, data)

    def _settle(self, bars: Bars, bar: EngineBar) -> None:
        ts_close = int(bars.ts_close[0])
        self.exchange.process(ts_close)
        self.told[bars.instrument_id] = ts_close
        self._ledger.told(at_close(bar, ts_close))

    def _read(self, bar: EngineBar, ts_close: int | None) -> Bars | None:
        name = bar.bar_type.instrument_id.value
        last = self.told.get(name, 0)
        if ts_close is None or ts_close <= last or of_the_future(ts_close, self._now(), last, self._timeframe):
            return None
        try:
            return Bars.of_one(name, self._timeframe, to_bar(bar, ts_close))
        except BarsError:
            return None

    def _now(self) -> int:
        """Return the venue's time, as the strategies know it."""
        wall_ns = self._clock.timestamp_ns()
        return max((int(strategy.pace.now(wall_ns)) for strategy in self._kernel.trader.strategies()), default=wall_ns)


def _bound(method: Callable[[Any, Any], None], engine: Any) -> Callable[[Any], None]:
    return lambda message: method(engine, message)
