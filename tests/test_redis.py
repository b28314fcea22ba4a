"""The engine's cache in a real Redis: what a killed node knows again, and what it does where Redis is gone or stale."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from decimal import Decimal
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import redis as redis_client
from node_support import started
from test_live import BTC, KEYS, SECRET, Desk
from trading_support import trading
from typer.testing import CliRunner

from lstm_strategy.bars import Timeframe
from lstm_strategy.cli import app
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.live_config import CACHE_PASSWORD, LiveConfig
from lstm_strategy.nautilus import lease as lease_module
from lstm_strategy.nautilus.cache_database import cache_config, told_of_cache
from lstm_strategy.replay.recordings import market_from_catalog
from lstm_strategy.replay.server import ReplayConfig, ReplayServer, serve
from lstm_strategy.sources.simulate import SimulationConfig, simulate, simulated_instrument
from lstm_strategy.sources.store import RawStore
from lstm_strategy.state_folder import StateFolder

HISTORY, BARS = 700, 30
MORE = """
[exits]
stop = 4.0
horizon = 4
trailing = true
least_move = 0.0
[live]
mode = "live"
start_timeout = 5
cache = "{cache}"
"""
KEY = "lstm-strategy:trader:tiny-LIVE"
PASSWORD = "canary-redis-0123456789"  # noqa: S105
BINARY = shutil.which("redis-server")
needs_redis = pytest.mark.skipif(BINARY is None, reason="redis-server is not installed")
BOUND_S, LOT = 120.0, Decimal("0.001")


class Redis:
    """A redis-server of our own, which writes to its folder only when it is told to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}"
        self.start()

    def start(self) -> None:
        """Start with what `save` left."""
        assert BINARY is not None
        words = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        self.process = subprocess.Popen(
            [BINARY, *words, "--dir", str(self.folder), "--requirepass", PASSWORD], stdout=subprocess.DEVNULL
        )
        until(self.answers)

    def answers(self) -> bool:
        try:
            return self.ask("PING") == "+PONG"
        except OSError:
            return False

    def ask(self, *words: str) -> str:
        """Return the first line of the answer."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=5.0) as connection:
            connection.sendall(f"AUTH {PASSWORD}\r\n{' '.join(words)}\r\n".encode())
            with connection.makefile() as lines:
                assert lines.readline() == "+OK\n"
                return lines.readline().strip()

    def read(self, key: str) -> bytes:
        """Return a value, whatever its kind."""
        with closing(redis_client.Redis(port=self.port, password=PASSWORD)) as client:
            return client.dump(key) or b""

    def die(self) -> None:
        self.process.kill()
        self.process.wait()


class Venue:
    """The local exchange, whose bars are told by hand, and what a strategy has there."""

    def __init__(self, server: ReplayServer, loop: asyncio.AbstractEventLoop) -> None:
        assert server.trading is not None
        self.server, self.loop, self.trading = server, loop, server.trading

    @property
    def coins(self) -> Decimal:
        balance = self.trading.account.of("BTC")
        return balance.free + balance.locked

    @property
    def sent(self) -> int:
        return len(self.trading.books["BTCUSDT"].orders)

    @property
    def stops(self) -> list[Decimal]:
        resting = list(self.trading.books["BTCUSDT"].open.values())
        assert all((order.type, order.side) == ("STOP_LOSS_LIMIT", "SELL") for order in resting)
        return [order.left for order in resting]

    def close_bars(self, count: int, node: Node) -> None:
        """Close bars one by one, each when the one before was decided on and its stop rests; the last one's too."""
        for _ in range(count):
            written = node.written()
            asyncio.run_coroutine_threadsafe(self.server.step(), self.loop).result(20)
            until(partial(changed, node, written), node)
            until(self.whole, node)
            time.sleep(0.2)  # an order that follows from the last one's fill
            until(self.whole, node)

    def whole(self) -> bool:
        """Say whether one stop covers what the account holds."""
        return len(self.stops) == (self.coins >= LOT) and 0 <= self.coins - sum(self.stops) < LOT


class CommandNode:
    """A node of its own process, as a command starts it, and what it said; there when its history is."""

    def __init__(self, verb: str, desk: Desk, experiment: Path, url: str, *more: str, **environment: str) -> None:
        self.file = desk.folder / f"said-{time.time_ns()}"
        words = desk.words(verb, experiment, "--base-url", url, *more)
        with self.file.open("w") as file:
            self.process = started(
                subprocess.Popen(
                    [sys.executable, "-c", "from lstm_strategy.cli import main; main()", *words],
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    env=os.environ | {"COLUMNS": "300"} | environment,
                )
            )
        self.told("✓ history: ")
        self.account = self.told("✓ account: ")

    @property
    def said(self) -> str:
        return self.file.read_text()

    def told(self, begin: str) -> str:
        """Wait for a line that begins so, and return the rest."""
        until(lambda: f"\n{begin}" in self.said or self.process.poll() is not None, self)
        found = [line for line in self.said.splitlines() if line.startswith(begin)]
        assert found, self.said
        return found[-1].removeprefix(begin)

    def end(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)
        assert self.process.returncode == 0, self.said

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


class Node(CommandNode):
    """A `lstm-strategy live` with its cache in a Redis."""

    def __init__(self, desk: Desk, experiment: Path, url: str) -> None:
        keys = KEYS | {CACHE_PASSWORD: PASSWORD}
        super().__init__("live", desk, experiment, url, "--yes-trade-real-money", **keys)
        self.cache, self.folder = self.told("✓ cache: "), Path(self.told("run: "))

    def written(self) -> int:
        """Return the number of its state: each bar that is decided on makes one, as does what changes it."""
        kept, _ = StateFolder(self.folder.parent / "state").read()
        return 0 if kept is None else kept.number


def changed(node: Node, before: int) -> bool:
    return node.written() > before


def until(held: Callable[[], Any], node: CommandNode | None = None) -> None:
    late = time.monotonic() + BOUND_S
    while not held():
        assert time.monotonic() < late, "in vain" if node is None else node.said
        time.sleep(0.02)


@contextmanager
def redis(folder: Path) -> Iterator[Redis]:
    folder.mkdir()
    server = Redis(folder)
    try:
        yield server
    finally:
        server.die()


@asynccontextmanager
async def leases(folder: Path, ttl_s: float, renew_s: float, *, count: int = 2) -> AsyncIterator[tuple[Any, ...]]:
    """Yield a Redis, and the leases of one trader id that so many machines would have there."""
    with redis(folder) as server:
        database: Any = SimpleNamespace(host="127.0.0.1", port=server.port, password=PASSWORD, ssl=False)
        clients = [lease_module._client(database) for _ in range(count)]
        yield (
            server,
            *(lease_module.Lease(one, "DESK-001", server.url, ttl_s=ttl_s, renew_s=renew_s) for one in clients),
        )
        for client in clients:
            await client.aclose()


async def soon(held: Callable[[], bool]) -> None:
    """Wait until it is so; a busy machine takes longer."""
    async with asyncio.timeout(BOUND_S):
        while not held():
            await asyncio.sleep(0.02)


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory, tiny_artefact: Path) -> Desk:
    """A catalog whose last bars are of the last hours: the node asks for history up to now."""
    folder = tmp_path_factory.mktemp("desk")
    began = time.strftime("%Y-%m-%dT%H:00:00Z", time.gmtime(time.time() - 3600 * (HISTORY + BARS)))
    config = SimulationConfig(instrument_id=BTC, timeframe="1h", bars=HISTORY + BARS, seed=5, start=began)
    store = RawStore(folder / "catalog")
    store.write_instrument(simulated_instrument(config))
    store.merge(simulate(config), replace=True)
    return Desk(folder, tiny_artefact)


def own_runs(desk: Desk, folder: Path) -> Desk:
    """Return a desk without a past."""
    shutil.copytree(desk.folder / "catalog", folder / "catalog")
    return Desk(folder, desk.model)


@contextmanager
def venue(desk: Desk, names: tuple[str, ...] = (BTC,)) -> Iterator[Venue]:
    markets = tuple(market_from_catalog(desk.folder / "catalog", name, Timeframe.parse("1h")) for name in names)
    account = trading(SECRET, spread=0.0002)
    config = ReplayConfig(markets=markets, step=True, start=str(HISTORY), unfinished=False, updates=0, trading=account)
    loop, ready, stop, found = asyncio.new_event_loop(), threading.Event(), asyncio.Event(), []

    async def run() -> None:
        async with serve(config) as server:
            found.append(Venue(server, loop))
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(run(),))
    thread.start()
    assert ready.wait(BOUND_S)
    try:
        yield found[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(BOUND_S)
        loop.close()


def experiment(desk: Desk, cache: str) -> Path:
    path = desk.experiment(MORE.format(cache=cache))
    sizing = 'mode = "volatility_target"\ntilt = 0.0\ntarget_volatility = 0.2'
    path.write_text(
        path.read_text().replace('mode = "mean_variance"\n', sizing + "\n").replace("kelly_fraction = 0.05\n", "")
    )
    return path


def position(told: str) -> Decimal:
    """Return what a step of the start tells: "BALANCES; 3.2 BTCUSDT.BINANCE, 1 open orders"."""
    return Decimal(told.split(f" {BTC}, ")[0].rpartition(" ")[2])


def refuse_to_start(desk: Desk, path: Path, url: str, server: Redis, state: Path) -> None:
    """A start that fails after it has connected leaves the state in Redis as it is."""
    key = "trader-tiny-LIVE:strategies:LSTMStrategy-000:state"
    before = server.read(key)
    assert len(before) > 1_000, "a forecaster's snapshot, counters and exits"
    files = {name: (state / name).read_bytes() for name in ("state.0", "state.1", "state.synced")}
    for name in files:
        (state / name).write_bytes(b"rubbish")
    node = desk.start("live", path, "--yes-trade-real-money", "--base-url", url, **KEYS, **{CACHE_PASSWORD: PASSWORD})
    said, _ = node.communicate(timeout=BOUND_S)
    for name, content in files.items():
        (state / name).write_bytes(content)
    assert node.returncode == 1, said
    assert "no other is left, and a halt may be lost" in said
    assert "✓ cache: " in said, "it had connected"
    assert server.read(key) == before


@needs_redis
def test_killed_nodes_know_position_and_stop_whatever_became_of_redis(desk: Desk, tmp_path: Path) -> None:
    with redis(tmp_path / "redis") as server, venue(desk) as exchange:
        path = experiment(desk, server.url)
        url = exchange.server.http_url
        node = Node(desk, path, url)
        assert node.cache == f"{server.url}: no position, 0 open orders of 0"
        exchange.close_bars(3, node)
        node.kill()
        coins, sent, stops = exchange.coins, exchange.sent, exchange.stops
        assert coins > 1

        # The cache knows all of it before the venue is asked, and the venue changes nothing of it.
        node = Node(desk, path, url)
        known = f"{float(coins):g} {BTC}, 1 open orders"
        assert node.cache == f"{server.url}: {known} of {sent}"
        assert node.account.endswith(f"; {known}")
        assert (exchange.sent, exchange.stops) == (sent, stops), "a start sends nothing"
        exchange.close_bars(1, node)

        # A halt goes into Redis with the clean stop; lifted in the state folder, which is what counts, it is gone.
        node.process.send_signal(signal.SIGUSR1)
        until(lambda: exchange.coins < LOT and not exchange.stops, node)
        node.end()
        assert server.ask("EXISTS", KEY) == ":0", "its lease was given back"
        state = str(node.folder.parent / "state")
        refuse_to_start(desk, path, url, server, Path(state))
        done = CliRunner().invoke(app, ["resume", state, "--reason", "the drill is over"])
        assert done.exit_code == 0, done.output
        node = Node(desk, path, url)
        assert ", 0 open orders" in node.cache
        log = (node.folder / "node.jsonl").read_text()
        assert 0 < log.index("Loaded state") < log.index("Going on from")
        exchange.close_bars(1, node)
        assert exchange.coins > 1, "it trades"

        # Redis dies and comes back empty: the node says so and trades on; the next start finds no position in it.
        server.die()
        exchange.close_bars(2, node)
        node.told("! live.cache: ")
        server.start()
        until(lambda: "answers again" in node.said, node)
        exchange.close_bars(2, node)
        node.kill()
        sent, stops = exchange.sent, exchange.stops
        node = Node(desk, path, url)
        assert f" {BTC}, " not in node.cache, "else this proves nothing"
        assert node.account.endswith(f"; {float(exchange.coins):g} {BTC}, 1 open orders")
        assert (exchange.sent, exchange.stops) == (sent, stops)
        exchange.close_bars(2, node)

        # Redis hangs, its connections open: the end is not held up by what is still to be written.
        server.process.send_signal(signal.SIGSTOP)
        exchange.close_bars(1, node)
        sent, coins = exchange.sent, exchange.coins
        node.end()
        assert exchange.whole()
        assert (exchange.sent, exchange.coins) == (sent, coins)
        found = [file for file in desk.folder.rglob("*") if file.is_file()]
        assert not [file for file in found if PASSWORD.encode() in file.read_bytes()]


@needs_redis
def test_without_its_redis_a_node_says_so_in_one_line_and_sends_nothing(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv(CACHE_PASSWORD, raising=False)
    with venue(desk) as exchange, redis(tmp_path / "redis") as server:
        path = experiment(desk, server.url)
        asked = "--yes-trade-real-money", "--base-url", exchange.server.http_url

        def refused() -> str:
            with pytest.raises(LSTMStrategyError) as error:
                desk.run("live", path, *asked)
            assert "\n" not in str(error.value)
            assert str(error.value).startswith(f"live.cache: {server.url} does not serve")
            return str(error.value)

        assert "NOAUTH" in refused()
        monkeypatch.setenv(CACHE_PASSWORD, "canary-wrong")
        told = refused()
        assert CACHE_PASSWORD in told
        assert "canary-wrong" not in told
        server.die()
        assert "refused" in refused()
        assert exchange.sent == 0


@needs_redis
def test_of_two_machines_with_one_trader_id_one_trades(desk: Desk, tmp_path: Path) -> None:
    """Each has a folder of its own, so that nothing but Redis can tell them of each other."""
    desk = own_runs(desk, tmp_path / "first")
    with venue(desk) as exchange, redis(tmp_path / "redis") as server:
        path, url = experiment(desk, server.url), exchange.server.http_url
        path.write_text(path.read_text() + "flatten_on_stop = true\n")
        node = Node(desk, path, url)
        exchange.close_bars(1, node)
        sent = exchange.sent
        asked = ("--yes-trade-real-money", "--base-url", url, "--runs", str(tmp_path / "elsewhere"))
        other = desk.start("live", path, *asked, **KEYS, **{CACHE_PASSWORD: PASSWORD})
        said, _ = other.communicate(timeout=BOUND_S)
        assert other.returncode == 1, said
        errors = [line for line in said.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1, said
        assert errors[0].startswith(f"error: trader tiny-LIVE runs already (process {node.process.pid} on "), said
        assert "live.trader_id; nothing was sent" in errors[0]
        assert "✓ account" not in said
        assert exchange.sent == sent
        exchange.close_bars(1, node)

        # It was not heard of for so long that another took over: it ends, and leaves position and stop to that one.
        assert server.ask("SET", KEY, "another") == "+OK"
        node.process.wait(BOUND_S)
        assert node.process.returncode == 1, node.said
        (error,) = [line for line in node.said.splitlines() if line.startswith("error: ")]
        assert error.startswith("error: another node runs under trader tiny-LIVE now (another), by redis://127.0.0.1")
        assert exchange.coins > 1
        assert exchange.whole()
        assert server.ask("GET", KEY) == "$7", "another's is not given back"


@needs_redis
def test_a_lease_lapses_with_its_node_and_is_never_two_nodes(tmp_path: Path) -> None:
    async def work() -> None:
        async with leases(tmp_path / "redis", 1.0, 0.1, count=3) as (server, one, two, three):
            told: list[str] = []
            await one.take(told.append)
            keeping = asyncio.ensure_future(one.keep())
            for other in (two, three):
                with pytest.raises(LSTMStrategyError, match=rf"DESK-001 runs already \(process {os.getpid()} on "):
                    await other.take(told.append)
            keeping.cancel()  # killed: nobody gives it back
            told.clear()
            began = time.monotonic()
            await two.take(told.append)
            assert time.monotonic() - began < 15.0
            assert "waiting until it has lapsed" in told[0]

            # One of this machine that has ended is not waited for.
            child = subprocess.Popen([sys.executable, "-c", ""])
            child.wait()
            ended = f"process {child.pid} on here, {lease_module._machine()}-01234567"
            with closing(redis_client.Redis(port=server.port, password=PASSWORD)) as client:
                held = client.get("lstm-strategy:trader:DESK-001")
                client.set("lstm-strategy:trader:DESK-001", ended, px=60_000)
                began = time.monotonic()
                await three.take(told.append)
                assert time.monotonic() - began < 30.0, "it would lapse in a minute"
                for other in ("process 1 on here, 00000000-01234567", ended.replace(f" {child.pid} ", " 1 ")):
                    assert not lease_module._has_ended(other), "elsewhere, or alive"
                assert isinstance(held, bytes)
                client.set("lstm-strategy:trader:DESK-001", held, px=1_000)

            # The first was only asleep: it hears that it has lost it, and takes nothing from the other.
            lost: list[str] = []
            one.on_lost(lost.append)
            await asyncio.wait_for(one.keep(), 5.0)
            assert "another node runs under trader DESK-001 now" in lost[0]
            one.on_lost(lost.append)
            assert lost[0] == lost[1], "whoever asks later is told as well"
            await one.give_back()
            assert await two.renew(), "what it gives back was not its own"

            # Redis forgets everything: who runs takes it again.
            with closing(redis_client.Redis(port=server.port, password=PASSWORD)) as client:
                client.flushall()
            assert await two.renew()
            keeping = asyncio.ensure_future(two.keep())
            with pytest.raises(LSTMStrategyError, match="runs already"):
                await three.take(told.append)
            keeping.cancel()
            await two.give_back()
            await three.take(told.append)

    asyncio.run(work())


def test_paper_keeps_its_account_itself_and_leaves_redis_alone() -> None:
    settings: Any = SimpleNamespace(live=LiveConfig(cache="redis://127.0.0.1:1"), real=False)
    assert cache_config(settings) is None
    assert told_of_cache(settings, None) == "not used: a paper account lies in the state folder"


def test_the_cache_is_kept_between_processes_and_not_flushed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE_PASSWORD, PASSWORD)
    settings: Any = SimpleNamespace(live=LiveConfig(cache="rediss://[::1]"), real=True)
    config = cache_config(settings)
    assert config is not None
    assert config.database is not None
    assert (config.flush_on_start, config.use_instance_id, config.use_trader_prefix) == (False, False, True)
    assert (config.database.host, config.database.port, config.database.ssl) == ("::1", 6379, True)
    assert config.database.password == PASSWORD
    assert PASSWORD not in repr(config)
    assert LiveConfig().cache is None


@pytest.mark.parametrize(
    "wrong",
    ["127.0.0.1:6379", "redis://", "redis://u:canary@host:1", "redis://host:1/2", "redis://host:x", "http://h:1"],
)
def test_an_address_is_checked_and_never_told(wrong: str) -> None:
    with pytest.raises(LSTMStrategyError, match=rf"live\.cache must be redis://HOST:PORT.*{CACHE_PASSWORD}") as error:
        LiveConfig(cache=wrong)
    assert "canary" not in str(error.value)


@needs_redis
def test_a_node_that_cannot_renew_takes_no_risk_before_another_can_take_its_lease(tmp_path: Path) -> None:
    async def work() -> None:
        async with leases(tmp_path / "redis", 1.5, 0.2) as (server, one, two):
            assert one.adrift()
            await one.take(print)
            keeping, lost = asyncio.ensure_future(one.keep()), list[str]()
            one.on_lost(lost.append)
            await asyncio.sleep(2.0)  # longer than it lasts
            await soon(lambda: not one.adrift())

            # Cut off from Redis, which serves the other.
            async def unreachable() -> None:
                raise redis_client.ConnectionError("cut off")

            reach, one._lock.reacquire = one._lock.reacquire, unreachable
            for _ in range(3):
                with suppress(LSTMStrategyError):
                    await two.take(lambda _: None)
                    break
            assert one.adrift()
            assert not lost, "it cannot know"
            assert "another node may take it" in one.told(adrift=True)

            one._lock.reacquire = reach
            kept = asyncio.ensure_future(two.keep())
            await asyncio.wait_for(keeping, 5.0)
            assert "another node runs under trader DESK-001 now" in lost[0]
            assert one.adrift()

            # Redis hangs, and goes on: so does who holds it.
            server.process.send_signal(signal.SIGSTOP)
            await asyncio.sleep(1.6)
            assert two.adrift()
            server.process.send_signal(signal.SIGCONT)
            await soon(lambda: not two.adrift())
            kept.cancel()

    asyncio.run(work())


@needs_redis
def test_a_lease_that_another_held_meanwhile_or_that_nobody_renews_is_lost(tmp_path: Path) -> None:
    async def work() -> None:
        async with leases(tmp_path / "redis", 0.5, 0.1) as (server, one, two):
            await one.take(print)
            for _ in range(2):  # it lapses, and nobody wants it
                await asyncio.sleep(0.7)
                assert await one.renew()

            await asyncio.sleep(0.7)
            await two.take(print)
            await two.give_back()
            lost: list[str] = []
            one.on_lost(lost.append)
            await asyncio.wait_for(one.keep(), 5.0)
            assert lost == [f"another node runs under trader DESK-001 now (which has ended since), by {server.url}"], (
                "what it did to the account is not known"
            )
            assert server.ask("EXISTS", "lstm-strategy:trader:DESK-001") == ":0"

            # What renews it ends by an error that nobody thought of.
            await two.take(print)
            two.on_lost(lost.append)

            async def broken() -> bool:
                raise ValueError("a reply that makes no sense")

            two.renew = broken  # type: ignore[method-assign]
            keeping = asyncio.ensure_future(two.keep())
            keeping.add_done_callback(two.ended)
            await asyncio.wait([keeping], timeout=5.0)
            await asyncio.sleep(0)
            assert "is not renewed any more (ValueError: a reply that makes no sense)" in lost[1]

    asyncio.run(work())
