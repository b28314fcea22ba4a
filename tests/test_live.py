"""The node: paper on a replay equals the backtest, real orders at the local exchange, signals, keys, and bad input."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pyarrow.parquet as pq
import pytest
from catalog_support import bring_in
from node_support import started
from tiny_support import EXPERIMENT
from trading_support import KEY, new_secret, trading
from typer.testing import CliRunner

from lstm_strategy import artefact, registry
from lstm_strategy.bars import Timeframe
from lstm_strategy.cli import app
from lstm_strategy.cli_jobs import Places, job_of
from lstm_strategy.decision import Shrinkage
from lstm_strategy.decision_log_reader import read_log
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.experiment import load_experiment
from lstm_strategy.forecaster import Forecaster
from lstm_strategy.live_config import VENUES, LiveConfig
from lstm_strategy.nautilus import lookout
from lstm_strategy.nautilus import rehearsal as rehearsal_room
from lstm_strategy.nautilus import strategy as strategy_module
from lstm_strategy.nautilus.adapters import ADAPTERS, adapter_for, require_keys, require_offered
from lstm_strategy.nautilus.backtest import run_backtest
from lstm_strategy.nautilus.catalog import write_catalog
from lstm_strategy.nautilus.node_settings import hold_trader
from lstm_strategy.nautilus.pace import REAL_TIME, Pace
from lstm_strategy.nautilus.panel_backtest import PanelSettings, run_panel
from lstm_strategy.nautilus.reach import wait_until_reached
from lstm_strategy.nautilus.record import RunRecord
from lstm_strategy.nautilus.rehearsal import Rehearsal, rehearse
from lstm_strategy.nautilus.stamps import require_stamped_at_close
from lstm_strategy.nautilus.status import Decided, Observers
from lstm_strategy.nautilus.venue_clients import Wiring
from lstm_strategy.replay.recordings import market_from_catalog
from lstm_strategy.replay.server import ReplayConfig, serve
from lstm_strategy.risk import RiskState, resume
from lstm_strategy.sources.instruments import infer_instrument
from lstm_strategy.sources.simulate import SimulationConfig, simulate, simulated_instrument
from lstm_strategy.sources.store import RawStore

BTC, UNLISTED = "BTCUSDT.BINANCE", "NOSUCHUSDT.BINANCE"
HISTORY, BARS = 1_000, 120
CENTRE = -0.13  # of the means, in units of σ
LIMITS = """
[limits]
max_exposure = 1.0
daily_loss = 1.0
max_drawdown = 1.0
"""


@dataclass(frozen=True)
class Desk:
    """A folder as a user has it: a catalog, a model, experiments."""

    folder: Path
    model: Path

    def experiment(self, more: str = "", names: str = BTC, name: str = "experiment") -> Path:
        path = self.folder / f"{name}.toml"
        path.write_text(f"{EXPERIMENT.replace(BTC, names)}{LIMITS}{more}\n")
        return path

    def words(self, verb: str, experiment: Path, *more: str) -> list[str]:
        places = {"catalog": self.folder / "catalog", "runs": self.folder / "runs"}
        if self.model.name:
            places["model"] = self.model
        return [
            verb,
            str(experiment),
            *(word for key, path in places.items() for word in (f"--{key}", str(path))),
            *more,
        ]

    def run(self, verb: str, experiment: Path, *more: str) -> dict[str, Any]:
        done = CliRunner().invoke(app, self.words(verb, experiment, *more, "--json"))
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        assert done.exit_code == 0, done.output
        found: dict[str, Any] = msgspec.json.decode(done.stdout)
        return found

    def backtest(self, experiment: Path) -> dict[str, Any]:
        """As the command does it, less the report and the tearsheet, which take seconds."""
        places = Places(self.folder / "catalog", self.folder, self.folder / "runs", str(self.model))
        job, _ = job_of(load_experiment(experiment), None, places)
        folder = self.folder / "runs" / f"backtest-{time.time_ns()}"
        job = msgspec.structs.replace(job, run_folder=folder, tearsheet=False)
        return (run_panel(job) if isinstance(job, PanelSettings) else run_backtest(job)).summary

    def diff(self, a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any]:
        done = CliRunner().invoke(app, ["explain", "--diff", a["run_path"], b["run_path"], "--json"])
        found: dict[str, Any] = msgspec.json.decode(done.stdout)
        return found

    def start(self, verb: str, experiment: Path, *more: str, **environment: str) -> subprocess.Popen[str]:
        command = [
            sys.executable,
            "-c",
            "from lstm_strategy.cli import main; main()",
            *self.words(verb, experiment, *more),
        ]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ | environment
        )
        started(process)
        return process


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory, tiny_artefact: Path) -> Desk:
    folder = tmp_path_factory.mktemp("desk")
    tiny = artefact.load(tiny_artefact)
    # Untrained as it is, its means lie on one side; around their own average they change it often.
    shrinkage = [Shrinkage(1.0, CENTRE, 0.001), Shrinkage()]
    fits = tiny.manifest.instruments | {UNLISTED: tiny.manifest.instruments[BTC]}
    manifest = msgspec.structs.replace(tiny.manifest, shrinkage=shrinkage, instruments=fits)
    model = artefact.save(folder, manifest, tiny.graph, (tiny_artefact / "weights.safetensors").read_bytes())
    config = SimulationConfig(instrument_id=BTC, timeframe="1h", bars=HISTORY + BARS, seed=5, start="2022-01-01")
    bars, described = simulate(config), simulated_instrument(config)
    bring_in(folder / "catalog", bars, described)
    return Desk(folder, model)


@contextmanager
def exchange(desk: Desk, **options: Any) -> Iterator[Any]:
    """A local exchange in a thread, moved by hand: yields its URL and what steps it."""
    ready, loop = threading.Event(), asyncio.new_event_loop()
    found: dict[str, Any] = {}
    market = market_from_catalog(desk.folder / "catalog", BTC, Timeframe.parse("1h"))
    config = ReplayConfig(
        markets=(market,), step=True, shift=True, start=str(HISTORY), unfinished=False, updates=0, **options
    )

    async def run() -> None:
        found["stop"] = asyncio.Event()
        async with serve(config) as server:
            found["server"] = server
            ready.set()
            await found["stop"].wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(run(),))
    thread.start()
    assert ready.wait(60)

    class Handle:
        url = found["server"].http_url
        server = found["server"]

        @staticmethod
        def step(bars: int = 1) -> None:
            asyncio.run_coroutine_threadsafe(found["server"].step(bars), loop).result(60)

    try:
        yield Handle
    finally:
        loop.call_soon_threadsafe(found["stop"].set)
        thread.join(60)
        loop.close()


def summary_in(told: str) -> dict[str, Any]:
    """Return what ``--json`` wrote; the engine may tell of an error on the same pipe after it."""
    found: dict[str, Any] = msgspec.json.decode([line for line in told.splitlines() if line.startswith("{")][-1])
    return found


def read_until(process: subprocess.Popen[str], word: str, told: list[str]) -> str:
    assert process.stdout is not None
    for line in process.stdout:
        told.append(line)
        if word in line:
            return line
    raise AssertionError(f"{word!r} was never said:\n{''.join(told)}")


# -- paper -----------------------------------------------------------------------------------------------------------

_RESTING = '[exits]\nstop = 2.0\ntake_profit = 2.0\n[execution]\nmode = "post_only"\n'


@pytest.mark.parametrize(
    ("more", "orders"),
    [
        ("", 60),
        ("[backtest]\ndelay = 1\n", 20),
        ("[backtest]\nparticipation = 0.00001\n", 60),
        (_RESTING, 20),
        (_RESTING + "[backtest]\nparticipation = 0.00001\n", 20),
        ('side = "long_short"\n[backtest]\naccount = "margin"\nborrow = 0.9\n', 60),
    ],
    ids=["market", "delay", "participation", "exits", "share", "margin"],
)
def test_paper_on_a_replay_is_the_backtest_to_the_last_bit(desk: Desk, more: str, orders: int) -> None:
    experiment = desk.experiment(more)
    backtest = desk.backtest(experiment)
    paper = desk.run("paper", experiment, "--replay", "--speed", "1e9")
    found = desk.diff(backtest, paper)
    assert found["same"], found
    assert found["compared"] == BARS
    assert paper["orders"] == backtest["orders"] >= orders
    assert (paper["ended"], paper["mode"], paper["decisions"]) == ("replay", "replay", BARS)
    for key in ("net_return", "fees", "fills", "pinball", "carry", "liquidated"):
        assert paper[key] == backtest[key], key
    columns = {
        "fills": ("ts_filled", "side", "quantity", "price", "fee", "exit", "decided_price", "shortfall", "ts_sent"),
        "orders": ("ts_sent", "ts_last", "side", "quantity", "filled", "average_price", "status"),
    }
    for table, names in columns.items():
        a, b = (pq.read_table(Path(run["run_path"]) / f"{table}.parquet") for run in (backtest, paper))
        for column in names:
            assert a[column].to_pylist() == b[column].to_pylist(), (table, column)
    files = {path.name for path in Path(backtest["run_path"]).iterdir()} - {"tearsheet.html", "report.html"}
    assert files <= {path.name for path in Path(paper["run_path"]).iterdir()}


def test_a_perpetual_and_a_panel_are_the_backtest_too(desk: Desk, tmp_path: Path) -> None:
    perpetual, coins = "BTCUSDT-PERP.BINANCE", ("AAAUSDT.BINANCE", "BBBUSDT.BINANCE", "CCCUSDT.BINANCE")
    tiny = artefact.load(desk.model)
    fits = dict.fromkeys((perpetual, *coins), tiny.manifest.instruments[BTC])
    manifest = msgspec.structs.replace(tiny.manifest, instruments=fits)
    model = artefact.save(tmp_path, manifest, tiny.graph, (desk.model / "weights.safetensors").read_bytes())
    other = Desk(tmp_path, model)
    for row, name in enumerate(fits):
        bars = simulate(SimulationConfig(instrument_id=name, bars=HISTORY + 50, seed=row, start="2022-01-01"))
        described = infer_instrument(bars)
        bring_in(tmp_path / "catalog", bars, described)
    alone = other.experiment('side = "long_short"\n[backtest]\naccount = "margin"\n', names=perpetual)
    backtest = other.backtest(alone)
    paper = other.run("paper", alone, "--replay", "--speed", "1e9")
    assert other.diff(backtest, paper)["same"]
    assert paper["orders"] == backtest["orders"] > 20
    panel = other.experiment('[portfolio]\nmethod = "equal_risk"\nspan = 48\n', names='", "'.join(coins))
    panel.write_text(panel.read_text().replace('"mean_variance"', '"volatility_target"'))
    backtest = other.backtest(panel)
    paper = other.run("paper", panel, "--replay", "--speed", "1e9")
    assert other.diff(backtest, paper)["same"]
    assert paper["orders"] == backtest["orders"] >= 3
    assert {row["instrument"] for row in paper["instruments"]} == set(coins)
    assert paper["net_return"] == backtest["net_return"]
    known, seen = (pq.read_table(Path(run["run_path"]) / "correlations.parquet") for run in (backtest, paper))
    assert known.equals(seen)


def test_bars_may_be_fewer_and_a_run_of_none_leaves_its_log_alone(desk: Desk) -> None:
    experiment = desk.experiment()
    paper = desk.run("paper", experiment, "--replay", "--speed", "1e9", "--bars", "7")
    assert paper["decisions"] == 7
    assert (Path(paper["run_path"]) / "experiment.toml").read_text() == experiment.read_text()
    one = desk.run("paper", experiment, "--replay", "--speed", "1e9", "--bars", "1")
    assert (one["decisions"], "net_return" in one) == (1, False)


def test_a_node_that_keeps_only_its_last_bars_says_so_and_its_figures_are_of_those(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("--replay", "--speed", "360000", "--bars", "60")
    whole = desk.run("paper", desk.experiment(), *words)
    monkeypatch.setattr(strategy_module, "RunRecord", partial(RunRecord, most=20))
    paper = desk.run("paper", desk.experiment(), *words)
    folder, before = Path(paper["run_path"]), Path(whole["run_path"])
    kept = pq.read_table(folder / "equity.parquet")
    assert 20 <= len(kept) <= 22 < paper["decisions"] == whole["decisions"]
    columns = ["ts_close", "equity", "exposure", "price"]  # buy and hold begins anew
    assert kept.select(columns).equals(pq.read_table(before / "equity.parquet").select(columns)[-len(kept) :])
    for name in ("orders", "fills", "decisions"):
        assert len(pq.read_table(folder / f"{name}.parquet")) == len(pq.read_table(before / f"{name}.parquet"))
    first = kept["ts_close"][0].as_py()
    fills = pq.read_table(folder / "fills.parquet")
    assert paper["fills"] == sum(ts >= first for ts in fills["ts_filled"].to_pylist()) < whole["fills"]
    (note,) = [note for note in paper["notes"] if "keeps in memory" in note]
    assert f"the last {len(kept)} of {whole['decisions']} bars" in note
    assert not any("keeps in memory" in note for note in whole["notes"])


def test_a_replay_takes_the_time_that_its_speed_says(desk: Desk) -> None:
    began = time.monotonic()
    desk.run("paper", desk.experiment(), "--replay", "--speed", "7200", "--bars", "4")
    assert time.monotonic() - began > 2.0  # four hours


def test_holes_in_the_bars_are_asked_for_once_and_change_nothing(desk: Desk, tmp_path: Path) -> None:
    shutil.copytree(desk.folder / "catalog", tmp_path / "catalog")
    store = RawStore(tmp_path / "catalog")
    hour = Timeframe.parse("1h")
    bars = store.read(BTC, hour)
    rows = np.ones(len(bars), bool)
    rows[[HISTORY + 20, HISTORY + 21, HISTORY + 60]] = False
    described = store.read_instrument(BTC)
    shutil.rmtree(tmp_path / "catalog")
    kept = type(bars)(
        BTC, hour, *(c[rows] for c in (bars.ts_close, bars.open, bars.high, bars.low, bars.close, bars.volume))
    )
    store.write_instrument(described)
    store.merge(kept, replace=True)
    write_catalog(tmp_path / "catalog", kept, described)
    other = Desk(tmp_path, desk.model)
    experiment = other.experiment()
    backtest = other.backtest(experiment)
    paper = other.run("paper", experiment, "--replay", "--speed", "1e9")
    assert other.diff(backtest, paper)["same"]
    assert paper["decisions"] == BARS - 3


def test_a_history_that_is_too_short_is_said_and_waited_for(desk: Desk) -> None:
    early = desk.experiment("[backtest]\nstart = 2022-01-21T00:00:00Z\n", name="early")
    words = desk.words("paper", early, "--replay", "--speed", "1e9", "--bars", "60", "--json")
    done = CliRunner().invoke(app, words)
    assert "history: up to 2022-01-21T00:00:00Z; too short: ready in 16 of 496 bars" in done.stderr
    log = read_log(Path(msgspec.json.decode(done.stdout)["run_path"]))
    assert log.texts("reason")[:15] == ["no_forecast"] * 15
    assert "rebalance" in log.texts("reason")[16:]


def test_what_stops_the_strategy_ends_the_node_loudly_and_leaves_its_results(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    update, calls = Forecaster.update, []

    def fails(self: Forecaster, bar: Any, *more: Any) -> Any:
        calls.extend([bar] if bar.volume else [])  # what a model is compiled with has none
        if len(calls) == 20:
            raise RuntimeError("the graph is gone")
        return update(self, bar, *more)

    monkeypatch.setattr(Forecaster, "update", fails)
    before = set(desk.folder.glob("runs/tiny/paper/*"))
    with pytest.raises(RuntimeError, match="the graph is gone"):
        desk.run("paper", desk.experiment(), "--replay", "--speed", "1e9")
    (folder,) = set(desk.folder.glob("runs/tiny/paper/*")) - before
    summary = msgspec.json.decode((folder / "summary.json").read_bytes())
    assert (summary["ended"], summary["decisions"]) == ("failure", 19)


def test_silence_is_told_once_and_its_end_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookout, "_SILENT_S", 1.0)
    record = SimpleNamespace(total=0)
    told: list[str] = []
    strategy = SimpleNamespace(pace=Pace(speed=3600.0 * 40.0))  # a bar of an hour lasts a 40th of a second
    settings = SimpleNamespace(timeframe=Timeframe.parse("1h"), live=LiveConfig(silence=50.0), rehearsal=object())
    built = SimpleNamespace(strategy=strategy, records={BTC: record})
    observers = SimpleNamespace(trouble=told.append)

    async def watch() -> None:
        watching = asyncio.ensure_future(lookout.tell_of_silence(settings, built, observers))  # type: ignore[arg-type]
        await asyncio.sleep(2.0)
        assert told == []  # a replay has not begun
        for _ in range(5):
            record.total += 1
            await asyncio.sleep(0.25)
        assert told == []
        await asyncio.sleep(2.0)
        assert len(told) == 1
        assert told[0].startswith("no bar for 50 times 1h")
        record.total += 1
        await asyncio.sleep(0.6)
        assert told[1:] == ["bars come again"]
        watching.cancel()

    asyncio.run(watch())


def test_halts_between_bars_and_bars_of_the_future_are_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookout, "_LOOK_S", 0.01)
    told: list[Any] = []
    feed, keeper = SimpleNamespace(ignored="", swap=None), SimpleNamespace(ordered="")
    holder = SimpleNamespace(risk=None, feed=feed)
    strategy = SimpleNamespace(keeper=keeper, holders=lambda: {BTC: holder})
    clients = SimpleNamespace(exec_engine=SimpleNamespace(_clients={}))
    built = SimpleNamespace(strategy=strategy, node=SimpleNamespace(kernel=clients))
    observers = SimpleNamespace(trouble=told.append, latched=lambda *latched: told.append(latched))

    async def look() -> None:
        looking = asyncio.ensure_future(lookout.tell_of_trouble(built, observers, None))  # type: ignore[arg-type]
        for _ in range(2):
            await asyncio.sleep(0.1)
            feed.ignored += "Ignored a bar"
        await asyncio.sleep(0.1)
        keeper.ordered = "KILL: enough"
        await asyncio.sleep(0.1)
        keeper.ordered, holder.risk = "", resume(RiskState.start(0, 1.0), "looked into")
        await asyncio.sleep(0.1)
        keeper.ordered = "again"
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)

    asyncio.run(look())
    assert told == [
        f"{BTC}: Ignored a bar",
        ("halt_ordered", "KILL: enough"),
        ("", "looked into"),
        ("halt_ordered", "again"),  # however short before the end
    ]


# -- signals ---------------------------------------------------------------------------------------------------------


def test_signals_halt_and_end_a_node_in_a_stated_time(desk: Desk) -> None:
    node = desk.start("paper", desk.experiment(), "--replay", "--speed", "36000", "--json")
    told: list[str] = []
    read_until(node, " buy ", told)
    assert [line.split()[1] for line in told if line.startswith("✓")] == [
        "model:",
        "instrument:",
        "account:",
        "history:",
    ]
    told_price = told[-1].split(" after ")[1].split(":")[0]
    assert re.fullmatch(r"\d{1,3}(,\d{3})*\.\d{2}", told_price), told_price  # to the tick, of six digits and more too
    node.send_signal(signal.SIGUSR1)
    read_until(node, "flat, result", told)
    began = time.monotonic()
    node.send_signal(signal.SIGTERM)
    rest, _ = node.communicate(timeout=60)
    assert time.monotonic() - began < 5.0
    assert node.returncode == 0, rest
    summary = summary_in(rest)
    assert summary["ended"] == "signal"
    assert summary["days_halted"] >= 1
    assert summary["halts"] == []  # no limit was broken
    ordered = [line.split("! ")[1].strip() for line in told if "a halt was ordered" in line or "halt by order" in line]
    coming = rf"; a buy of [\d.]+ {BTC} under way: what still fills of it is closed"  # the order may be on its way yet
    held = rf"(, closes [\d.]+ {BTC}|{coming})"
    assert re.fullmatch(rf"\S+Z a halt was ordered by signal \(SIGUSR1\): cancels orders{held}", ordered[0])
    assert re.fullmatch(rf"{BTC}: \S+Z halt by order: [\d.]+ filled at [\d.]+; flat, result \S+ USDT", ordered[-1])
    assert summary["halts_ordered"] == ordered
    explained = CliRunner().invoke(app, ["explain", summary["run_path"], "--json"])
    said = msgspec.json.decode(explained.stdout)["summary"], msgspec.json.decode(explained.stdout)["ordered"]
    assert said[1] == ordered
    assert said[0]["halts"][-1]["told"].startswith("ordered by signal (SIGUSR1); ")
    closes = pq.read_table(Path(summary["run_path"]) / "decisions.parquet")["ts_close"].to_pylist()
    for name in ("orders", "fills"):  # one time rule: nothing is of the wall's clock
        table = pq.read_table(Path(summary["run_path"]) / f"{name}.parquet")
        assert all(closes[0] <= stamp <= closes[-1] for stamp in table["ts_sent"].to_pylist()), name
    log = (Path(summary["run_path"]) / "node.jsonl").read_text().splitlines()
    assert all("message" in msgspec.json.decode(line) for line in log)


def test_a_version_promoted_while_a_node_runs_takes_over(desk: Desk) -> None:
    models, first = desk.folder, artefact.load(desk.model)
    name, version = first.manifest.name, first.manifest.version
    manifest = msgspec.structs.replace(first.manifest, version="later")
    artefact.save(models, manifest, first.graph, (desk.model / "weights.safetensors").read_bytes())
    registry.promote(models, name, version)
    more = "[live]\nfollow = true\nfollow_poll = 0.1\nshadow_bars = 3"
    node = desk.start("paper", desk.experiment(more, name="follow"), "--replay", "--speed", "9000", "--json")
    told: list[str] = []
    try:
        read_until(node, " buy ", told)
        registry.promote(models, name, "later")
        found, until = "", time.monotonic() + 120.0
        while '"kind":"swap"' not in found and time.monotonic() < until:
            time.sleep(0.1)
            found = "".join(path.read_text() for path in (desk.folder / "runs").rglob("events.jsonl"))
    finally:
        node.send_signal(signal.SIGTERM)
        rest, _ = node.communicate(timeout=60)
    summary = summary_in(rest)
    models_told = pq.read_table(Path(summary["run_path"]) / "decisions.parquet")["model"].to_pylist()
    assert list(dict.fromkeys(models_told)) == [f"{name}/{version}", f"{name}/later"]


# -- live, on the local exchange -------------------------------------------------------------------------------------

LIVE = """
[live]
mode = "live"
flatten_on_stop = true
start_timeout = 1
"""
SECRET = new_secret()  # Ed25519: the adapter's user-data stream takes no other
KEYS = {"BINANCE_API_KEY": KEY, "BINANCE_API_SECRET": SECRET}


def secrets_in(*places: Path | str) -> list[str]:
    """Where a key or a secret stands."""
    files = [file for place in places if isinstance(place, Path) for file in place.rglob("*") if file.is_file()]
    found = [str(file) for file in files if any(word.encode() in file.read_bytes() for word in KEYS.values())]
    return found + [text for text in places if isinstance(text, str) and any(word in text for word in KEYS.values())]


def test_live_orders_reach_the_venue_and_a_stop_closes_the_position(desk: Desk) -> None:
    with exchange(desk, trading=trading(SECRET)) as venue:
        words = ("--yes-trade-real-money", "--base-url", venue.url, "--json")
        node = desk.start("live", desk.experiment(LIVE, name="live"), *words, **KEYS)
        told: list[str] = []
        read_until(node, "history:", told)
        account, bought = venue.server.trading.account, Decimal(0)
        for bar in range(40):
            venue.step()
            until = time.monotonic() + (0.1 if bar < 39 else 60.0)
            while not (bought := account.of("BTC").free) and time.monotonic() < until:
                time.sleep(0.01)
            if bought:
                break
        assert bought > 0, "".join(told)
        node.send_signal(signal.SIGTERM)
        rest, _ = node.communicate(timeout=60)
        assert node.returncode == 0, rest
        assert account.of("BTC").free < Decimal("0.001")  # a lot: fees are taken from the coins
        summary = summary_in(rest)
        assert (summary["mode"], summary["ended"]) == ("live", "signal")
        assert not secrets_in(Path(summary["run_path"]), desk.folder / "runs", rest, *told)


# -- what is refused -------------------------------------------------------------------------------------------------


def refused(desk: Desk, verb: str, experiment: Path, *more: str) -> str:
    with pytest.raises(LSTMStrategyError) as error:
        desk.run(verb, experiment, *more)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_real_money_needs_two_words_and_keys(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in KEYS:
        monkeypatch.delenv(name, raising=False)
    assert 'needs mode = "live"' in refused(desk, "live", desk.experiment(), "--yes-trade-real-money")
    experiment = desk.experiment(LIVE, name="live")
    assert "--yes-trade-real-money" in refused(desk, "live", experiment)
    assert "BINANCE_API_KEY and BINANCE_API_SECRET" in refused(desk, "live", experiment, "--yes-trade-real-money")
    monkeypatch.setenv("BINANCE_API_KEY", KEY)
    told = refused(desk, "live", experiment, "--yes-trade-real-money")
    assert "BINANCE_API_SECRET" in told
    assert KEY not in told
    monkeypatch.setenv("BINANCE_API_SECRET", SECRET)
    told = refused(desk, "live", experiment, "--yes-trade-real-money", "--base-url", "http://example.com:80")
    assert "must be on this machine" in told


def test_a_venue_that_is_down_is_waited_for_and_then_given_up(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    told = refused(desk, "paper", desk.experiment(), "--base-url", "http://127.0.0.1:9", "--start-timeout", "0.5")
    why = "binance cannot be reached: http://127.0.0.1:9/api/v3/ping (connection refused), for "
    assert told.startswith(why)
    assert told.endswith(
        "start that exchange (`lstm-strategy replay`), or mend --base-url, or wait longer (live.start_timeout)"
    )
    (run,) = (path.parent for path in desk.folder.rglob("events.jsonl") if "connection refused" in path.read_text())
    done = CliRunner().invoke(app, ["explain", str(run)])
    assert f"the node ended before its first decision: {why}" in str(done.exception)


def test_a_local_exchange_whose_bars_are_years_old_is_told_at_the_start(desk: Desk) -> None:
    market = market_from_catalog(desk.folder / "catalog", BTC, Timeframe.parse("1h"))

    async def said(*, shift: bool) -> list[str]:
        told: list[str] = []
        config = ReplayConfig(markets=(market,), step=True, shift=shift, start=str(HISTORY))
        async with serve(config) as server:
            settings = SimpleNamespace(
                ping=f"{server.http_url}/api/v3/ping",
                base_url=server.http_url,
                live=LiveConfig(),
                adapter=SimpleNamespace(name="binance"),
                names=(BTC,),
                timeframe=Timeframe.parse("1h"),
            )
            observers = SimpleNamespace(step=lambda *_: None, trouble=told.append)
            await wait_until_reached(settings, observers)  # type: ignore[arg-type]
        return told

    (told,) = asyncio.run(said(shift=False))
    assert re.match(r"the newest bar at http://127\.0\.0\.1:\d+ is [\d,]{4,} days old \(2022-02-\d\dT", told)
    assert "`lstm-strategy replay --shift`" in told
    assert asyncio.run(said(shift=True)) == []


def test_what_does_not_fit_is_one_line_before_anything_is_connected(desk: Desk, tmp_path: Path) -> None:
    short = '[live]\naccount = "cash"\n[backtest]\naccount = "margin"\n'
    text = desk.experiment(short, name="short").read_text().replace("[limits]", '[limits]\nside = "long_short"')
    (tmp_path / "short.toml").write_text(text)
    assert "cannot short" in refused(desk, "paper", tmp_path / "short.toml")
    assert "kraken" in refused(desk, "paper", desk.experiment('[live]\nvenue = "kraken"\n', name="kraken"))
    assert "must be one of" in refused(desk, "paper", desk.experiment('[live]\nvenue = "mtgox"\n', name="mtgox"))
    assert "belong to --replay" in refused(desk, "paper", desk.experiment(), "--speed", "2")
    with pytest.raises(LSTMStrategyError, match="no whole artefact"):
        Desk(desk.folder, tmp_path / "none").run("paper", desk.experiment(), "--replay")
    with pytest.raises(LSTMStrategyError, match=r"data\.timeframe is 7m; kraken offers"):
        require_offered(ADAPTERS["kraken"], Timeframe.parse("7m"))
    with pytest.raises(LSTMStrategyError, match="no test network"):
        adapter_for("kraken", ("BTC/USDT.KRAKEN",), {"spot"}, testnet=True)
    with pytest.raises(LSTMStrategyError, match="trades spot, not perpetual"):
        adapter_for("binance", ("BTCUSDT-PERP.BINANCE",), {"perpetual"}, testnet=False)
    with pytest.raises(LSTMStrategyError, match="no adapter trades equity at XNAS"):
        adapter_for(None, ("AAPL.XNAS",), {"equity"}, testnet=False)


def test_what_cannot_be_told_again_or_was_made_for_something_else_is_named(desk: Desk, tmp_path: Path) -> None:
    store = RawStore(tmp_path / "catalog")
    bars = simulate(SimulationConfig(instrument_id="BTC-USDT.OKX", bars=40, start="2022-02-11"))
    known = msgspec.structs.replace(infer_instrument(bars), id="BTC-USDT.OKX")
    store.write_instrument(known)
    store.merge(bars, replace=True)
    other = Desk(tmp_path, desk.model)
    experiment = other.experiment(names="BTC-USDT.OKX")
    assert "was not trained on BTC-USDT.OKX; it knows" in refused(other, "paper", experiment, "--replay")
    rehearsal = Rehearsal(catalog=tmp_path / "catalog", instrument_ids=("BTC-USDT.OKX",), timeframe="1h")

    async def play() -> None:
        async with rehearse(rehearsal):
            raise AssertionError

    with pytest.raises(LSTMStrategyError, match=r"named like BTCUSDT\.OKX"):
        asyncio.run(play())
    walk = desk.experiment('[model]\nfrom = "walk_forward"\n', name="walk")
    text = refused(Desk(desk.folder, Path("")), "paper", walk)
    assert "those models spoke of the past" in text


def test_a_slow_machine_loses_no_bar_of_a_replay(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Were the next told before a bar is done with, a run would end without its last."""
    clock = iter(np.arange(0.0, 1e6, 1.5))  # each look takes so long
    monkeypatch.setattr(rehearsal_room, "time", SimpleNamespace(monotonic=lambda: float(next(clock))))
    looks: list[int] = []

    def settled(close: int, _names: Any) -> bool:
        looks.append(close)
        return looks.count(close) == 10

    async def play() -> int:
        told = Rehearsal(catalog=desk.folder / "catalog", instrument_ids=(BTC,), timeframe="1h", bars=3, speed=1e9)
        async with rehearse(told) as stage:
            return await stage.play(settled)

    assert asyncio.run(play()) == 3
    assert [looks.count(close) for close in dict.fromkeys(looks)] == [10, 10, 10]


def test_one_process_holds_a_trader_id(tmp_path: Path, desk: Desk) -> None:
    with hold_trader(tmp_path, "DESK-001"):
        with pytest.raises(LSTMStrategyError, match="trader DESK-001 runs already"), hold_trader(tmp_path, "DESK-001"):
            pass
        with hold_trader(tmp_path, "DESK-002"):
            pass
    with hold_trader(tmp_path, "DESK-001"):
        pass
    with hold_trader(desk.folder / "runs" / ".traders", "tiny-PAPER"):
        assert "live.trader_id" in refused(desk, "paper", desk.experiment(), "--replay", "--bars", "2")


@pytest.mark.parametrize(
    "wrong",
    [
        {"venue": "nowhere"},
        {"trader_id": "no tag"},
        {"silence": 0.5},
        {"grace": -1.0},
        {"start_timeout": float("nan")},
        {"history": 0.0},
    ],
)
def test_live_settings_are_checked(wrong: dict[str, Any]) -> None:
    with pytest.raises(LSTMStrategyError, match=f"live.{next(iter(wrong))} is"):
        LiveConfig(**wrong)


# -- venues ----------------------------------------------------------------------------------------------------------

LISTED = {
    "binance": ("BTCUSDT.BINANCE",),
    "binance_futures": ("BTCUSDT-PERP.BINANCE",),
    "bybit": ("BTCUSDT-SPOT.BYBIT", "BTCUSDT-LINEAR.BYBIT"),
    "okx": ("BTC-USDT.OKX", "BTC-USDT-SWAP.OKX"),
    "kraken": ("BTC/USDT.KRAKEN",),
    "hyperliquid": ("BTC-USD-PERP.HYPERLIQUID",),
}


@pytest.mark.parametrize("name", VENUES)
@pytest.mark.parametrize("testnet", [False, True])
def test_every_venue_has_typed_configurations_without_keys(
    name: str, testnet: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nautilus_trader.config import LiveDataClientConfig, LiveExecClientConfig, TradingNodeConfig
    from nautilus_trader.live.factories import LiveDataClientFactory, LiveExecClientFactory

    adapter = ADAPTERS[name]
    if testnet and not adapter.testnet_ping:
        pytest.skip("the venue has no test network")
    keys = adapter.testnet_keys if testnet else adapter.keys
    for key in keys:
        monkeypatch.delenv(key, raising=False)
    with pytest.raises(LSTMStrategyError, match=" and ".join(keys)):
        require_keys(adapter, testnet=testnet)
    for key in keys:
        monkeypatch.setenv(key, KEY)
    require_keys(adapter, testnet=testnet)
    for instrument_id in LISTED[name]:
        clients = adapter.clients(Wiring((instrument_id,), testnet))
        assert isinstance(clients.data, LiveDataClientConfig)
        assert isinstance(clients.execution, LiveExecClientConfig)
        assert issubclass(clients.data_factory, LiveDataClientFactory)
        assert issubclass(clients.execution_factory, LiveExecClientFactory)
        assert {str(one) for one in clients.data.instrument_provider.load_ids} == {instrument_id}
        assert KEY not in repr(clients)
        other = adapter.clients(Wiring((instrument_id,), not testnet)) if adapter.testnet_ping else clients
        assert (other.execution == clients.execution) == (not adapter.testnet_ping)
        assert (other.data == clients.data) == (not adapter.testnet_ping)
        TradingNodeConfig(data_clients={"X": clients.data}, exec_clients={"X": clients.execution})


# -- time and telling ------------------------------------------------------------------------------------------------


def test_waits_shrink_with_speed_but_machines_do_not_race() -> None:
    assert REAL_TIME.now(7) == 7
    assert REAL_TIME.wall_s(30.0) == 30.0
    fast = Pace(lambda: 99, 3600.0)
    assert fast.now(7) == 99
    assert fast.wall_s(7200.0) == 2.0
    assert fast.wall_s(30.0) == 1.0
    assert fast.wall_s(0.2) == 0.2
    assert fast.wall_s(30.0, least=0.05) == 0.05


def test_bars_that_are_stamped_at_their_open_are_not_traded_on() -> None:
    hour, minute, second = (Timeframe.parse(text) for text in ("1h", "1m", "1s"))
    for timeframe in (hour, minute):
        bar = timeframe.ns
        for late in (-bar, 0, bar // 2, 3 * bar, 10_000 * bar):  # a replay of old bars comes years later
            require_stamped_at_close("X", 100 * bar, 100 * bar + late, timeframe)
        with pytest.raises(LSTMStrategyError, match=r"came 1\.0 bars later: the adapter stamps opens"):
            require_stamped_at_close("X", 100 * bar, 101 * bar + 50_000_000, timeframe)
    require_stamped_at_close("X", 0, second.ns, second)


def test_an_observer_that_fails_harms_nobody() -> None:
    class Watching:
        def __init__(self) -> None:
            self.told: list[Any] = []

        def on_step(self, step: str, text: str) -> None:
            self.told.append(step)

        def on_decided(self, told: Decided) -> None:
            self.told.append(told.instrument)

        def on_trouble(self, text: str) -> None:
            self.told.append(text)

    class Failing(Watching):
        def on_decided(self, told: Decided) -> None:
            raise ValueError("oh")

    good, bad = Watching(), Failing()
    observers = Observers([bad, good])
    for _ in range(2):
        observers.decided("X", None, None, None, 0.0, 1.0, 1.0)  # type: ignore[arg-type]
    assert good.told == ["an observer failed and is left out: ValueError: oh", "X", "X"]
