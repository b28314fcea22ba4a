"""A paper account outlives its node, `kill -9` included: positions, stops and orders under way are one and the same."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pyarrow.parquet as pq
import pytest
from nautilus_trader.backtest.execution_client import BacktestExecClient
from nautilus_trader.common.component import MessageBus, TestClock
from nautilus_trader.common.factories import OrderFactory
from nautilus_trader.core.uuid import UUID4
from nautilus_trader.data.engine import DataEngine
from nautilus_trader.data.messages import DataResponse
from nautilus_trader.execution.engine import ExecutionEngine
from nautilus_trader.execution.messages import CancelOrder, SubmitOrder
from nautilus_trader.model.data import DataType
from nautilus_trader.model.enums import BookType, OmsType
from nautilus_trader.model.identifiers import StrategyId, TraderId
from nautilus_trader.model.objects import Price, Quantity
from nautilus_trader.portfolio.portfolio import Portfolio
from nautilus_trader.risk.engine import RiskEngine
from nautilus_trader.test_kit.stubs.component import TestComponentStubs
from test_live import BTC, Desk
from test_redis import HISTORY, CommandNode, Venue, desk, own_runs, until, venue  # noqa: F401 - desk is a fixture
from typer.testing import CliRunner

from lstm_strategy import artefact
from lstm_strategy.bars import Timeframe
from lstm_strategy.cli import app
from lstm_strategy.decision import Shrinkage
from lstm_strategy.errors import LSTMStrategyError, StateError
from lstm_strategy.forecast import mean_of
from lstm_strategy.forecaster import Forecaster
from lstm_strategy.nautilus.carry import CarryModule, CarryModuleConfig
from lstm_strategy.nautilus.engine import AccountType, BarType, EngineBar, OrderFilled, OrderSide, QuoteTick
from lstm_strategy.nautilus.engine import Venue as EngineVenue
from lstm_strategy.nautilus.fills import StopLimitFills
from lstm_strategy.nautilus.flows import Flows
from lstm_strategy.nautilus.instruments import to_engine
from lstm_strategy.nautilus.pace import Pace
from lstm_strategy.nautilus.paper_account import AccountBook, KeptAccount, KeptOrder, KeptPosition, account_of
from lstm_strategy.nautilus.paper_exchange import PaperExchange, PaperVenueConfig, Terms
from lstm_strategy.nautilus.paper_ledger import Ledger
from lstm_strategy.nautilus.paper_state import go_on, keep_bar, money_of, sum_up
from lstm_strategy.nautilus.paper_venue import PaperVenue
from lstm_strategy.nautilus.simulation import RateFeeModel, RateFeeModelConfig
from lstm_strategy.replay.market import Market
from lstm_strategy.sources.simulate import SimulationConfig, simulate, simulated_instrument
from lstm_strategy.sources.store import RawStore
from lstm_strategy.state_file import Kept
from lstm_strategy.state_folder import StateFolder

MARGIN = """
side = "long_short"
[backtest]
account = "margin"
borrow = 0.5
delay = 1
[exits]
stop = 2.0
horizon = 4
[live]
start_timeout = 5
"""
SPOT = """
[exits]
stop = 1.0
horizon = 1
[live]
start_timeout = 5
"""
BARS = 10


class PaperNode(CommandNode):
    """A `lstm-strategy paper`, on a venue whose bars are told by hand."""

    def __init__(self, desk: Desk, experiment: Path, url: str, *more: str) -> None:  # noqa: F811
        super().__init__("paper", desk, experiment, url, *more)
        self.paper, self.state = self.told("✓ paper: "), Path(self.told("state: "))

    def kept(self) -> KeptAccount:
        found, _ = StateFolder(self.state / "account").read()
        assert found is not None
        return account_of(found)

    def has_told(self, ts_close: int, names: tuple[str, ...] = (BTC,)) -> bool:
        bars = self.kept().bars
        return all(name in bars and bars[name].ts_close >= ts_close for name in names)

    def close_bar(self, exchange: Venue, names: tuple[str, ...] = (BTC,)) -> KeptAccount:
        """Close a bar; return the account when all that follows from it is done."""
        ts_close = step(exchange)
        until(lambda: self.has_told(ts_close, names), self)  # written when its handlers have returned
        return self.kept()


def step(exchange: Venue) -> int:
    """Close a bar, and return its stamp."""
    asyncio.run_coroutine_threadsafe(exchange.server.step(), exchange.loop).result(20)
    return closes(exchange)[-1]


def closes(exchange: Venue) -> list[int]:
    now = exchange.server.exchange.now()
    return [int(ts) for ts in market_of(exchange).bars.ts_close if ts <= now]


def market_of(exchange: Venue) -> Market:
    return exchange.server.exchange.plan.markets[0]


def seen(account: KeptAccount) -> Any:
    """What must be the same whatever the process that kept it: not the names of orders, nor the wall's time."""
    what = ("order_side", "order_type", "quantity", "options", "tags")
    orders = [
        [{name: order.init.get(name) for name in what}, order.submitted_due, order.cancelled_due, order.triggered]
        for order in account.orders
    ]
    positions = [(one.instrument, one.strategy, one.quantity, round(one.entry, 8)) for one in account.positions]
    owed = {name: round(amount, 9) for name, amount in account.owed.items()}
    return account.balances, positions, sorted(map(str, orders)), account.bars, owed


def held_by(account: KeptAccount) -> Decimal:
    return sum((Decimal(one.quantity) for one in account.positions), Decimal(0))


def stops_of(account: KeptAccount) -> Decimal:
    """What all stops together would sell."""
    stops = [order.init for order in account.orders if order.init["order_type"] == "STOP_LIMIT"]
    return sum((Decimal(one["quantity"]) for one in stops), Decimal(0))


def dip(catalog: Path, row: int) -> None:
    """Let a bar's low reach further down than any stop stands."""
    store = RawStore(catalog)
    bars = store.read(BTC, Timeframe.parse("1h"))
    low = bars.low.copy()
    low[row] *= 0.98
    store.merge(replace(bars, low=low), replace=True)


def restless(desk: Desk, folder: Path) -> Desk:  # noqa: F811
    """Return a desk whose model changes its mind; untrained as it is, its means lie on one side at most hours."""
    tiny = artefact.load(desk.model)
    told = Forecaster(tiny, BTC).run(RawStore(desk.folder / "catalog").read(BTC, Timeframe.parse("1h")))
    traded = slice(HISTORY, HISTORY + BARS)
    centre = float(np.median(mean_of(told.quantiles_THQ[traded, 0], told.levels) / told.scale_T[traded]))
    manifest = msgspec.structs.replace(tiny.manifest, shrinkage=[Shrinkage(1.0, centre, 0.001), Shrinkage()])
    weights = (desk.model / "weights.safetensors").read_bytes()
    return Desk(desk.folder, artefact.save(folder, manifest, tiny.graph, weights))


def trade(desk: Desk, folder: Path, more: str, kills: set[int]) -> list[Any]:  # noqa: F811
    """Return the account after each bar, of nodes that were killed after some of them."""
    own = own_runs(desk, folder)
    experiment, found = own.experiment(more), []
    with venue(own) as exchange:
        node = PaperNode(own, experiment, exchange.server.http_url)
        assert node.paper.startswith("new, with 100000.00000000 USDT; kept in ")
        for bar in range(BARS):
            account = node.close_bar(exchange)
            found.append(seen(account))
            if bar in kills:
                node.kill()
                node = PaperNode(own, experiment, exchange.server.http_url)
                assert node.paper.startswith("goes on from "), node.said
                held = held_by(account)
                assert f"; {float(held):g} {BTC}, " in node.account or (not held and "; no position" in node.account)
                assert seen(node.kept()) == found[-1], "a start changes nothing"
        node.end()
    return found


def test_killed_and_started_again_it_is_the_account_that_never_was(desk: Desk, tmp_path: Path) -> None:  # noqa: F811
    """Orders under way, stops, interest owed, short positions: with and without kills the same after every bar."""
    desk = restless(desk, tmp_path)
    whole = trade(desk, tmp_path / "whole", MARGIN, set())
    assert any(positions for _, positions, *_ in whole)
    assert len({str((positions, orders)) for _, positions, orders, *_ in whole}) > 3, "else this proves little"
    assert any("STOP" in str(orders) for _, _, orders, *_ in whole)
    broken = trade(desk, tmp_path / "broken", MARGIN, {2, 7})
    for bar, (wanted, found) in enumerate(zip(whole, broken, strict=True)):
        assert found == wanted, f"after bar {bar}"


def test_a_stop_that_was_reached_while_nobody_was_there_has_filled(desk: Desk, tmp_path: Path) -> None:  # noqa: F811
    own = own_runs(desk, tmp_path / "own")
    dip(own.folder / "catalog", HISTORY + 10)  # whatever the hours of these bars, and so the forecasts, are
    experiment = own.experiment(SPOT)
    text = experiment.read_text().replace('mode = "mean_variance"\n', 'mode = "volatility_target"\ntilt = 0.0\n')
    experiment.write_text(text.replace("kelly_fraction = 0.05\n", "target_volatility = 0.2\n"))
    with venue(own) as exchange:
        url, bars = exchange.server.http_url, market_of(exchange).bars
        node = PaperNode(own, experiment, url)
        for _ in range(16):
            account = node.close_bar(exchange)
            stops = [order.init for order in account.orders if order.init["order_type"] == "STOP_LIMIT"]
            row = len(closes(exchange))
            level = float(stops[0]["options"]["trigger_price"]) if stops else 0.0
            reached = np.flatnonzero(bars.low[row : row + 7] < level)
            if len(reached) and all(order.cancelled_due is None for order in account.orders):
                break
        else:
            raise AssertionError("no stop rested while all else was done")
        node.kill()
        for _ in range(reached[0] + 2):
            step(exchange)
        node = PaperNode(own, experiment, url)
        until(lambda: node.has_told(closes(exchange)[-1]), node)
        after = node.kept()
        assert f"; {float(account.positions[0].quantity):g} {BTC}, " in node.account, "as it was kept"
        # What was bought at the first open that was missed came on top, and has a stop of its own now.
        bought = sum((Decimal(o.init["quantity"]) for o in account.orders if o.submitted_due is not None), Decimal(0))
        assert held_by(after) == held_by(account) + bought - Decimal(stops[0]["quantity"]) == bought
        assert Decimal(after.balances["BTC"]) == bought
        assert stops_of(after) <= bought
        paid = Decimal(account.balances["USDT"]) - Decimal(after.balances["USDT"])
        opened, low = (float(column[row + at]) for column, at in ((bars.open, 0), (bars.low, reached[0])))
        got = (float(bought) * opened * 1.0005 - float(paid)) / float(stops[0]["quantity"])
        assert low * 0.999 < got <= level, "at its own price or the open, less costs"

        # Killed in the midst of a bar, whatever that one leads to: coins and position are one, and one stop at most.
        for pause in (0.01,):
            step(exchange)
            time.sleep(pause)
            node.kill()
            node = PaperNode(own, experiment, url)
            account = node.close_bar(exchange)
            assert Decimal(account.balances.get("BTC", "0")) == held_by(account)
            assert sum(order.init["order_type"] == "STOP_LIMIT" for order in account.orders) <= 1
            assert stops_of(account) <= held_by(account)

        # Another one is begun only when it is asked for, and the old one is not lost.
        node.end()
        before = node.kept()
        node = PaperNode(own, experiment, url, "--anew")
        assert node.paper.startswith("new, with ")
        assert "put aside: " in node.said
        assert "100,000.00 USDT; no position" in node.account
        aside = StateFolder(Path(node.told("put aside: ")) / "account")
        found, _ = aside.read()
        assert found is not None
        assert account_of(found) == before
        node.end()


def test_of_several_names_each_goes_on(desk: Desk, tmp_path: Path) -> None:  # noqa: F811
    """Two coins on one account: killed, the bars of both that were missed, then on, with every coin accounted for."""
    names = ("AAAUSDT.BINANCE", "BBBUSDT.BINANCE")
    tiny, store = artefact.load(desk.model), RawStore(tmp_path / "catalog")
    fits = dict.fromkeys(names, tiny.manifest.instruments[BTC])
    manifest = msgspec.structs.replace(tiny.manifest, instruments=fits)
    weights = (desk.model / "weights.safetensors").read_bytes()
    own = Desk(tmp_path, artefact.save(tmp_path, manifest, tiny.graph, weights))
    began = time.strftime("%Y-%m-%dT%H:00:00Z", time.gmtime(time.time() - 3600 * (HISTORY + 30)))
    for row, name in enumerate(names):
        config = SimulationConfig(instrument_id=name, timeframe="1h", bars=HISTORY + 30, seed=row, start=began)
        store.write_instrument(simulated_instrument(config))
        store.merge(simulate(config), replace=True)
    more = '[portfolio]\nmethod = "equal_risk"\nspan = 48\n' + SPOT
    experiment = own.experiment(more, names='", "'.join(names))
    text = experiment.read_text().replace('mode = "mean_variance"\n', 'mode = "volatility_target"\ntilt = 0.0\n')
    experiment.write_text(text.replace("kelly_fraction = 0.05\n", "target_volatility = 0.1\n"))
    with venue(own, names) as exchange:
        node = PaperNode(own, experiment, exchange.server.http_url)
        for _ in range(8):
            account = node.close_bar(exchange, names)
            if {one.instrument for one in account.positions} == set(names):
                break
        assert len(account.positions) == 2
        node.kill()
        step(exchange)
        step(exchange)
        node = PaperNode(own, experiment, exchange.server.http_url)
        until(lambda: node.has_told(closes(exchange)[-1], names), node)
        for _ in range(2):
            account = node.close_bar(exchange, names)
            for name in names:
                mine = [one for one in account.positions if one.instrument == name]
                held = sum((Decimal(one.quantity) for one in mine), Decimal(0))
                assert Decimal(account.balances.get(name[:3], "0")) == held
                stops = [order.init for order in account.orders if order.init["instrument_id"] == name]
                assert sum(one["order_type"] == "STOP_LIMIT" for one in stops) <= 1
        assert account.positions
        node.end()
        summary = msgspec.json.decode((Path(node.told("run: ")) / "summary.json").read_bytes())
        equity = pq.read_table(Path(node.told("run: ")) / "equity.parquet")["equity"].to_pylist()
        assert summary["net_return"] == pytest.approx(equity[-1] / equity[0] - 1.0), "of this start, not of the first"


# -- what cannot go on -------------------------------------------------------------------------------------------------

ACCOUNT = KeptAccount(kind="CASH", balances={"USDT": "5"}, positions=[], orders=[], bars={}, owed={}, since_ns=1)


def book(path: Path, **changes: Any) -> AccountBook:
    given: dict[str, Any] = {"trader": "T-1", "kind": "CASH", "names": [BTC], "cash": "5 USDT", "now_ns": 7}
    return AccountBook(path, **given | changes)


def test_an_account_that_does_not_fit_is_refused_in_one_line_with_the_way_out(tmp_path: Path) -> None:
    first = book(tmp_path)
    assert first.kept is None
    assert first.since_ns == 7
    first.write(ACCOUNT, 9)
    with pytest.raises(LSTMStrategyError, match="is held by another process"):
        book(tmp_path)
    first.close()
    second = book(tmp_path)
    assert second.kept == ACCOUNT
    assert second.since_ns == 1
    second.close()

    # What has become of an instrument since takes the place of what was known of it, and of nothing else's.
    order = KeptOrder({"instrument_id": BTC, "client_order_id": "1"})
    eth = KeptPosition("ETHUSDT.BINANCE", "S", "1", 2.0, 3)
    both = msgspec.structs.replace(ACCOUNT, orders=[order], positions=[KeptPosition(BTC, "S", "1", 2.0, 3), eth])
    third = book(tmp_path / "third")
    assert not third.amend({BTC: ACCOUNT}, 9)  # of nothing
    third.write(both, 9)
    assert third.amend({BTC: msgspec.structs.replace(ACCOUNT, owed={BTC: 0.5}, balances={"USDT": "7"})}, 10)
    third.close()
    wanted = msgspec.structs.replace(ACCOUNT, balances={"USDT": "7"}, positions=[eth], owed={BTC: 0.5})
    fourth = book(tmp_path / "third", names=[BTC, eth.instrument])
    assert fourth.kept == wanted
    fourth.close()

    def refused(**changes: Any) -> str:
        with pytest.raises(LSTMStrategyError) as error:
            book(tmp_path, **changes)
        assert "\n" not in str(error.value)
        assert "--anew" in str(error.value)
        return str(error.value)

    assert "is a cash account, and the experiment asks for a margin one" in refused(kind="MARGIN")
    position = {"instrument": "ETHUSDT.BINANCE", "strategy": "S", "quantity": "1", "entry": 2.0, "ts_opened": 3}
    write(tmp_path, msgspec.json.encode(msgspec.to_builtins(ACCOUNT) | {"positions": [position]}))
    assert "holds ETHUSDT.BINANCE, which is not traded here" in refused()
    for rubbish in (b"{}", b"[1]", msgspec.json.encode(msgspec.to_builtins(ACCOUNT) | {"more": 1})):
        write(tmp_path, rubbish)
        assert "holds no paper account" in refused()
    for name in ("state.0", "state.1", "state.synced"):
        (tmp_path / name).write_bytes(b"rubbish")
    with pytest.raises(LSTMStrategyError, match="no other is left"):
        book(tmp_path)


def write(path: Path, content: bytes) -> None:
    folder = StateFolder(path)
    folder.acquire("a test")
    folder.write(Kept("paper account", {}, 1, "", {"account": content}))
    folder.release()


def test_a_state_that_is_torn_is_refused_with_anew_as_the_way_out(desk: Desk, tmp_path: Path) -> None:  # noqa: F811
    own = own_runs(desk, tmp_path / "own")
    state = own.folder / "runs" / "tiny" / "paper" / "state"
    with venue(own) as exchange:
        words = own.words("paper", own.experiment(SPOT), "--base-url", exchange.server.http_url)
        for place in (state / "account", state):
            place.mkdir(parents=True)
            (place / "state.0").write_bytes(b"rubbish")
            refused = CliRunner().invoke(app, words)
            assert isinstance(refused.exception, StateError)
            told = str(refused.exception)
            assert f"{place / 'state.0'} " in told
            assert told.endswith("; or put account and state aside, and begin with new ones: --anew")
            shutil.rmtree(state)


def test_a_replay_keeps_none(desk: Desk) -> None:  # noqa: F811
    done = CliRunner().invoke(app, desk.words("paper", desk.experiment(), "--replay", "--anew"))
    assert isinstance(done.exception, LSTMStrategyError)
    assert "--replay keeps no account" in str(done.exception)


# -- orders, one by one ------------------------------------------------------------------------------------------------

DESCRIBED = simulated_instrument(SimulationConfig(instrument_id=BTC))
OTHER = simulated_instrument(SimulationConfig(instrument_id="ETHUSDT.BINANCE"))
HOUR_NS = 3_600_000_000_000
DUE = 5 * HOUR_NS


class Bench:
    """A simulated venue with an execution engine, and nothing else."""

    def __init__(self, kept: KeptAccount | None = None, modules: tuple[Any, ...] = ()) -> None:
        self.clock = clock = TestClock()
        trader = TraderId("T-1")
        self.bus, self.cache = bus, _ = MessageBus(trader, clock), TestComponentStubs.cache()
        portfolio = Portfolio(bus, self.cache, clock)
        self.engine = ExecutionEngine(bus, self.cache, clock)
        self.exchange = PaperExchange(
            1,
            clock,
            venue=EngineVenue("BINANCE"),
            oms_type=OmsType.NETTING,
            account_type=AccountType.MARGIN if modules else AccountType.CASH,
            starting_balances=money_of(["1000 USDT", "3 BTC"], kept),
            base_currency=None,
            default_leverage=Decimal(1),
            leverages={},
            modules=list(modules),
            portfolio=portfolio,
            msgbus=bus,
            cache=self.cache,
            fill_model=StopLimitFills(),
            fee_model=RateFeeModel(RateFeeModelConfig()),
            book_type=BookType.L1_MBP,
            bar_execution=False,
        )
        client = BacktestExecClient(exchange=self.exchange, msgbus=bus, cache=self.cache, clock=clock)
        self.exchange.register_client(client)
        self.exchange.initialize_account()
        self.engine.register_client(client)
        client.start()
        self.instrument, self.other = both = [to_engine(DESCRIBED), to_engine(OTHER)]
        for instrument in both:
            self.cache.add_instrument(instrument)
        self.factory = OrderFactory(trader, StrategyId("S-1"), clock)
        if kept is not None:
            go_on(self.exchange, kept, both, client.id, client.account_id)
        else:
            for instrument in both:
                self.exchange.add_instrument(instrument)
        self.client = client

    def submit(self, order: Any) -> Any:
        self.cache.add_order(order)
        asked = {"command_id": UUID4(), "ts_init": 0}
        self.client.submit_order(SubmitOrder(order.trader_id, order.strategy_id, order, **asked))
        return order

    def cancel(self, order: Any) -> None:
        asked = {"command_id": UUID4(), "ts_init": 0}
        names = (order.trader_id, order.strategy_id, order.instrument_id, order.client_order_id, order.venue_order_id)
        self.client.cancel_order(CancelOrder(*names, **asked))

    def show(self, price: str, ts: int, instrument: Any = None, offered: int = 1000) -> None:
        """Let the market be at a price, with a spread of a tick."""
        instrument = instrument or self.instrument
        bid = Price.from_str(price)
        ask = Price(bid.as_decimal() + Decimal("0.01"), 2)
        size = Quantity(Decimal(offered), instrument.size_precision)
        self.exchange.shown = instrument.id
        self.exchange.process_quote_tick(QuoteTick(instrument.id, bid, ask, size, size, ts, ts))
        self.exchange.process(ts)

    def kept(self) -> KeptAccount:
        due = self.exchange.due(SubmitOrder), self.exchange.due(CancelOrder)
        return sum_up(self.exchange, *due, {}, 1)


def test_orders_go_on_where_they_were() -> None:
    """Resting, triggered and not yet filled, on the way there, on the way out: as if nothing had been in between."""
    first = Bench()
    names, size = first.instrument.id, first.instrument.make_qty
    price = first.instrument.make_price
    first.show("100.00", 1)
    rests = first.submit(first.factory.limit(names, OrderSide.BUY, size(1), price(90)))
    stop = first.submit(first.factory.stop_limit(names, OrderSide.SELL, size(2), price(97), price(98), tags=["exit"]))
    leaves = first.submit(first.factory.limit(names, OrderSide.BUY, size(1), price(80)))
    first.show("99.00", 3)
    first.show("95.00", 5)  # jumps over the limit: triggered, and nobody pays that much
    assert stop.status_string() == "TRIGGERED"
    assert rests.status_string() == leaves.status_string() == "ACCEPTED"
    first.exchange.told_ns = DUE
    first.cancel(leaves)
    comes = first.submit(first.factory.market(names, OrderSide.BUY, size(1)))
    assert comes.status_string() == "SUBMITTED"

    kept = msgspec.json.decode(msgspec.json.encode(first.kept()), type=KeptAccount)
    second = Bench(kept)
    found = {name: second.cache.order(name.client_order_id) for name in (rests, stop, leaves, comes)}
    assert [order.status_string() for order in found.values()] == [
        "ACCEPTED",
        "TRIGGERED",
        "PENDING_CANCEL",
        "SUBMITTED",
    ]
    assert found[stop].tags == ["exit"]
    assert len(second.exchange.get_open_orders(names)) == 3
    assert second.kept() == kept, "and so it is kept again"
    for bench in (first, second):
        bench.show("96.00", 9)
        bench.show("97.50", DUE + 1)  # the limit is met; the market order and the cancel arrive
    for order, other in found.items():
        assert (other.status_string(), other.filled_qty, other.avg_px) == (
            order.status_string(),
            order.filled_qty,
            order.avg_px,
        )
    assert [order.status_string() for order in found] == ["ACCEPTED", "FILLED", "CANCELED", "FILLED"]
    assert second.kept().balances == first.kept().balances
    assert second.kept().positions == first.kept().positions


def test_what_is_sent_before_missed_bars_have_come_meets_none_of_them() -> None:
    bench = Bench()
    name = bench.instrument.id
    bench.show("100.00", 1)
    bench.exchange.hold(name)
    order = bench.submit(bench.factory.market(name, OrderSide.BUY, bench.instrument.make_qty(1)))
    bench.show("50.00", 10)  # of the past
    assert order.status_string() == "SUBMITTED"
    bench.exchange.let_go(name, 20)
    bench.show("60.00", 20)
    assert order.status_string() == "SUBMITTED"
    bench.show("70.00", 21)
    assert order.status_string() == "FILLED"
    assert order.avg_px == pytest.approx(70.01)


def test_a_name_that_stays_silent_keeps_nothing_of_the_others_from_being_written(tmp_path: Path) -> None:
    """What waits for its missed bars is written as well: a later process brings them, and it meets none of those."""
    bench = Bench()
    both, other = [bench.instrument.id, bench.other.id], bench.other
    account = book(tmp_path, names=[name.value for name in both])
    ledger = Ledger(account, bench.exchange, bench.clock)
    ledger.begin()
    bench.show("100.00", 1)
    bench.show("10.00", 1, other)
    leaves = bench.submit(bench.factory.limit(other.id, OrderSide.BUY, other.make_qty(1), other.make_price(5)))
    bench.show("10.00", 3, other)
    assert leaves.status_string() == "ACCEPTED"
    ledger.write()
    bench.exchange.hold(other.id)  # as after a restart
    bench.exchange.now = lambda: DUE
    waits = bench.submit(bench.factory.market(other.id, OrderSide.BUY, other.make_qty(1)))
    bench.cancel(leaves)
    bench.submit(bench.factory.market(both[0], OrderSide.BUY, bench.instrument.make_qty(1)))
    bench.show("100.00", 5)
    for name in both:
        ledger.note(SimpleNamespace(instrument_id=name))
    ledger.write_changed()
    found, _ = StateFolder(tmp_path).read()  # whoever is killed now, or
    assert found is not None
    ledger.close()  # ends well
    again = book(tmp_path, names=[name.value for name in both])
    kept = again.kept
    again.close()
    assert kept is not None
    assert kept == account_of(found)
    assert [(one.instrument, one.quantity) for one in kept.positions] == [(BTC, "1.000")]
    assert Decimal(kept.balances["USDT"]) == Decimal("899.99")
    due = {one.init["client_order_id"]: (one.submitted_due, one.cancelled_due) for one in kept.orders}
    assert due == {waits.client_order_id.value: (DUE + 1, None), leaves.client_order_id.value: (None, DUE + 1)}

    second = Bench(kept)
    second.exchange.hold(other.id)
    found_waiting, found_leaving = (second.cache.order(one.client_order_id) for one in (waits, leaves))
    second.show("8.00", DUE, other)  # opened before it was sent
    assert found_waiting.status_string() == "SUBMITTED"
    assert found_leaving.status_string() == "PENDING_CANCEL"
    second.show("9.00", DUE + 2, other)  # after it
    assert found_waiting.avg_px == pytest.approx(9.01)
    assert found_leaving.status_string() == "CANCELED"


@pytest.mark.parametrize("offered", [1000, 3])
def test_a_fill_that_comes_again_since_the_account_did_not_know_of_it_is_counted_once(offered: int) -> None:
    """Not by its name: the next process gives that name to another fill."""
    flows, told = Flows(), []

    def begin(kept: KeptAccount | None = None) -> Bench:
        bench = Bench(kept)

        def hear(event: Any) -> None:
            if isinstance(event, OrderFilled):
                told.append(event)
                flows.count(event, bench.cache.order(event.client_order_id))

        bench.bus.subscribe("events.order.*", hear)
        return bench

    first = begin()
    first.show("90.00", 1)
    bought = first.submit(first.factory.limit(first.instrument.id, OrderSide.BUY, size_of(first, 5), price_of(first)))
    account = first.kept()  # on its way
    flows.value = 0.0
    first.show("100.00", 3, offered=offered)
    wanted = pytest.approx(-100.01 * 5)
    assert flows.value == wanted
    assert len(told) == (1 if offered > 5 else 2)  # in parts
    state = msgspec.msgpack.decode(msgspec.msgpack.encode((flows.value, flows.left)))

    flows = Flows()  # killed: the strategy knows of the fill, the account does not
    flows.restore(*state)
    second = begin(account)
    second.show("100.00", 3, offered=offered)
    assert second.cache.order(bought.client_order_id).status_string() == "FILLED"
    assert flows.value == wanted

    part, flows = told[0], Flows()  # killed between the parts: of a fill that is larger now the rest is counted
    flows.restore(-100.01 * 2, {bought.client_order_id.value: "3"})
    flows.count(part, SimpleNamespace(client_order_id=bought.client_order_id, leaves_qty=size_of(first, 1)))
    assert flows.value == pytest.approx(-100.01 * 4)
    flows.restore(*state)
    second.exchange.told_ns = 6
    second.factory.set_client_order_id_count(1)  # else a second of the clock sets it apart
    second.submit(second.factory.market(second.instrument.id, OrderSide.SELL, size_of(second, 2)))
    second.show("100.00", 9)
    assert flows.value == pytest.approx(-100.01 * 5 + 200.0)
    assert len({event.trade_id for event in told}) < len(told)


def size_of(bench: Bench, size: int) -> Quantity:
    return bench.instrument.make_qty(size)


def price_of(bench: Bench) -> Price:
    return bench.instrument.make_price(100.01)


def held_short(path: Path, kills: set[tuple[int, str]]) -> tuple[Decimal, dict[str, float]]:
    """Return the balance and what is owed after two days of a short position beside another name, told after it.

    Killed after bars of some hours and names.
    """
    names, book_names = (BTC, "ETHUSDT.BINANCE"), [BTC, "ETHUSDT.BINANCE"]
    funding = {"funding_ts": (30 * HOUR_NS,), "funding_rates": (0.001,)}

    def begin() -> tuple[Bench, AccountBook, Ledger]:
        modules = [
            CarryModule(CarryModuleConfig(component_id=name, instrument_id=name, borrow=0.5, **funding))
            for name in names
        ]
        account = book(path, kind="MARGIN", names=book_names)
        bench = Bench(account.kept, tuple(modules))
        ledger = Ledger(account, bench.exchange, bench.clock)
        ledger.last = {} if account.kept is None else dict(account.kept.bars)
        ledger.begin()
        ledger.write()
        return bench, account, ledger

    bench, account, ledger = begin()
    other = bench.other
    bench.show("10.00", 1, other)
    bench.submit(bench.factory.market(other.id, OrderSide.SELL, other.make_qty(50)))
    bench.show("10.00", 3, other)
    ledger.write()
    for hour in range(1, 49):
        for name in names:
            price = Price.from_str(f"{10 + hour % 7}.00")
            ts, bar_type = hour * HOUR_NS, BarType.from_str(f"{name}-1-HOUR-LAST-EXTERNAL")
            bar = EngineBar(bar_type, price, price, price, price, Quantity.from_int(1), ts, ts)
            for module in bench.exchange.modules:
                module.pre_process(bar)
            ledger.told(bar)
            ledger.write_changed()
            if (hour, name) in kills:
                account.close()
                bench, account, ledger = begin()
    account.close()
    kept = account_of(StateFolder(path).read()[0] or Kept("", {}, 0, "", {}))
    return Decimal(kept.balances["USDT"]), kept.owed


def test_interest_and_funding_are_paid_once_whenever_it_is_killed(tmp_path: Path) -> None:
    """An event of one name is one for the interest of all: what it charged is known with the balance it left."""
    wanted, owed = held_short(tmp_path / "whole", set())
    assert Decimal(999) < wanted < Decimal(1001)
    assert wanted != Decimal("1000.00000000"), "else nothing was charged"
    for number, kills in enumerate(
        [{(24, BTC)}, {(25, BTC)}, {(30, BTC), (31, BTC)}, {(31, "ETHUSDT.BINANCE")}, {(24, "ETHUSDT.BINANCE")}]
    ):
        found = held_short(tmp_path / str(number), kills)
        assert found[0] == wanted, kills
        assert found[1] == pytest.approx(owed, rel=1e-9), kills


# -- a live bar before the history ----------------------------------------------------------------------------------


class PaperDesk:
    """A paper venue on an account that goes on, before a kernel of which a strategy is imagined."""

    def __init__(self, path: Path, feed: Any, now: Callable[[], int]) -> None:
        clock, trader = TestClock(), TraderId("T-2")
        self.bus, self.cache, self.path = MessageBus(trader, clock), TestComponentStubs.cache(), path
        portfolio = Portfolio(self.bus, self.cache, clock)
        self.instrument = to_engine(DESCRIBED)
        self.cache.add_instrument(self.instrument)
        config = PaperVenueConfig(
            venue="BINANCE",
            account_type="CASH",
            starting_balances=["1000 USDT"],
            terms={BTC: Terms(0.0, 0.0, 0.0, 1.0)},
            timeframe="1h",
            inside_bars=True,
            account_dir=str(path),
        )
        self.venue = PaperVenue(asyncio.get_running_loop(), portfolio, self.bus, self.cache, clock, config)
        self.failures: list[Exception] = []
        self.strategy = strategy = SimpleNamespace(
            pace=Pace(now),
            holders=lambda: {BTC: SimpleNamespace(feed=feed)},
            fail=lambda _, error: self.failures.append(error),
        )
        engines = {
            "data_engine": DataEngine(self.bus, self.cache, clock),
            "risk_engine": RiskEngine(portfolio, self.bus, self.cache, clock),
            "exec_engine": ExecutionEngine(self.bus, self.cache, clock),
        }
        engines["exec_engine"].register_client(self.venue)
        self.venue.stand_before(SimpleNamespace(trader=SimpleNamespace(strategies=lambda: [strategy]), **engines))
        self.factory = OrderFactory(trader, StrategyId("S-1"), clock)

    def submit(self, order: Any) -> Any:
        self.cache.add_order(order)
        asked = {"command_id": UUID4(), "ts_init": 0}
        self.venue.submit_order(SubmitOrder(order.trader_id, order.strategy_id, order, **asked))
        return order

    def tell(self, bar: EngineBar) -> None:
        self.bus.send("DataEngine.process", bar)

    def answer(self, bars: list[EngineBar]) -> None:
        """Answer with a history."""
        asked = {"correlation_id": UUID4(), "response_id": UUID4(), "start": None, "end": None, "ts_init": 0}
        what = DataType(EngineBar, metadata={"bar_type": bars[0].bar_type})
        self.bus.send("DataEngine.response", DataResponse(self.venue.id, self.venue.venue, what, bars, **asked))

    def kept(self) -> KeptAccount:
        found, _ = StateFolder(self.path).read()
        assert found is not None
        return account_of(found)


@pytest.mark.parametrize("comes", ["the history first", "a live bar first", "no history at all"])
def test_what_rests_meets_the_bars_that_were_missed_before_any_live_one(tmp_path: Path, comes: str) -> None:
    """At the price of the bar that reached it, whichever of the two is faster; and what is sent meets none of them."""
    first = Bench()
    name, size, price = first.instrument.id, first.instrument.make_qty, first.instrument.make_price
    bar_type = BarType.from_str(f"{BTC}-1-HOUR-LAST-EXTERNAL")

    def bar(hour: int, *prices: float) -> EngineBar:
        ts = hour * HOUR_NS
        return EngineBar(bar_type, *map(price, prices), size(1000), ts, ts)

    first.show("100.00", HOUR_NS)
    stop = first.submit(first.factory.stop_limit(name, OrderSide.SELL, size(2), price(97), price(98)))
    first.show("100.00", HOUR_NS + 2)
    bars = {BTC: keep_bar(bar(1, 100, 100, 100, 100))}
    account = book(tmp_path, trader="T-2")
    account.write(msgspec.structs.replace(first.kept(), bars=bars), 9)
    account.close()
    missed, live = [bar(2, 100, 101, 90, 95), bar(3, 110, 111, 109, 110)], bar(4, 112, 113, 111, 112)

    async def go_through() -> tuple[Any, Any, KeptAccount]:
        feed, now = SimpleNamespace(collecting=True), 4 * HOUR_NS
        bench = PaperDesk(tmp_path, feed, lambda: now)
        venue_ = bench.venue
        venue_.connect()
        while not venue_.is_connected:
            await asyncio.sleep(0.01)
        market = bench.submit(bench.factory.market(name, OrderSide.BUY, size(1)))  # at the start, of what is known then
        if comes == "the history first":
            bench.answer(missed)
            feed.collecting = False
            bench.tell(live)
        else:
            bench.tell(live)
            assert venue_.told[BTC] == HOUR_NS
            if comes == "a live bar first":
                bench.answer(missed)
            feed.collecting = False
            await asyncio.sleep(0.25)
            assert venue_.told[BTC] == 4 * HOUR_NS
        now += HOUR_NS
        bench.tell(bar(5, 120, 121, 119, 120))
        await asyncio.sleep(0.01)
        venue_.give_back()
        assert not bench.failures
        return bench.cache.order(stop.client_order_id), market, bench.kept()

    found, market, kept = asyncio.run(go_through())
    wanted = {"the history first": 112.0}.get(comes, 120.0)  # the first live bar after it was known what was missed
    assert market.avg_px == pytest.approx(wanted, abs=0.02)
    if comes == "no history at all":
        assert found.status_string() == "ACCEPTED"  # no bar that came has reached it
    else:
        assert (found.status_string(), found.avg_px) == ("FILLED", pytest.approx(97.0))
    assert kept.bars[BTC].ts_close == 5 * HOUR_NS
    assert len(kept.orders) == (comes == "no history at all")


@pytest.mark.parametrize("ordered", ["", "KILL: enough"])
def test_a_halt_ordered_inside_a_bar_is_not_filled_at_its_open(tmp_path: Path, ordered: str) -> None:
    """What answers a close fills at the next open; what somebody orders later at the first price after that."""
    first = Bench()
    name, size, price = first.instrument.id, first.instrument.make_qty, first.instrument.make_price
    bar_type = BarType.from_str(f"{BTC}-1-HOUR-LAST-EXTERNAL")
    first.show("100.00", HOUR_NS)

    def bar(hour: int, value: int) -> EngineBar:
        ts = hour * HOUR_NS
        return EngineBar(bar_type, price(value), price(value + 1), price(value - 1), price(value), size(1000), ts, ts)

    account = book(tmp_path, trader="T-2")
    account.write(msgspec.structs.replace(first.kept(), bars={BTC: keep_bar(bar(1, 100))}), 9)
    account.close()

    async def go_through() -> tuple[float, int]:
        now = 2 * HOUR_NS
        bench = PaperDesk(tmp_path, SimpleNamespace(collecting=False), lambda: now)
        bench.venue.connect()
        while not bench.venue.is_connected:
            await asyncio.sleep(0.01)
        bench.tell(bar(2, 110))
        bench.strategy.keeper = SimpleNamespace(ordered=ordered)
        now += HOUR_NS // 2
        order = bench.submit(bench.factory.market(name, OrderSide.SELL, size(1)))
        now = 3 * HOUR_NS
        bench.tell(bar(3, 120))
        bench.venue.give_back()
        assert not bench.failures
        return float(order.avg_px), int(order.ts_last)

    paid, filled = asyncio.run(go_through())
    if ordered:  # on the way that prices are taken to have gone inside the bar
        assert 2 * HOUR_NS + HOUR_NS // 2 < filled <= 3 * HOUR_NS
    else:
        assert (paid, filled // HOUR_NS) == (pytest.approx(120.0, abs=0.02), 2)
        assert filled - 2 * HOUR_NS < HOUR_NS // 100
