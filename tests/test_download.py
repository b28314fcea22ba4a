"""The downloader against the local exchange: nothing lost, nothing doubled, whatever goes wrong; it ends by itself."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from download_support import HOUR, START, bring, cli, command, config_of, digest, exchange, market, same

from lstm_strategy.bars import Timeframe
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.nautilus.catalog import read_catalog
from lstm_strategy.replay.faults import Fault
from lstm_strategy.sources.holes import known_holes, read_holes
from lstm_strategy.sources.lock import hold_catalog
from lstm_strategy.sources.store import RawStore

BTC = "BTCUSDT.BINANCE"

# Every fault that can befall a request for history, as often as a patient client must bear it.
PASSING: dict[str, Fault] = {
    "drop": Fault(kind="drop", probability=0.15, path="klines"),
    "cut": Fault(kind="cut", probability=0.15, path="klines"),
    "delay": Fault(kind="delay", probability=0.2, seconds=0.02),
    "timeout": Fault(kind="delay", nth=4, seconds=1.5, path="klines"),
    "429": Fault(kind="status", status=429, probability=0.15, path="klines"),
    "429 at the start": Fault(kind="status", status=429, nth=1, times=3, retry_after=0),
    "418": Fault(kind="status", status=418, nth=3, times=2, retry_after=0, path="klines"),
    "500": Fault(kind="status", status=500, probability=0.15, path="klines"),
    "502": Fault(kind="status", status=502, probability=0.15, path="klines"),
    "503": Fault(kind="status", status=503, probability=0.15, path="klines"),
    "504": Fault(kind="status", status=504, probability=0.15, path="klines"),
    "content_type": Fault(kind="content_type", probability=0.3),
    "truncated": Fault(kind="truncated", probability=0.15, path="klines"),
    "malformed": Fault(kind="malformed", probability=0.15, path="klines"),
    "maintenance": Fault(kind="maintenance", nth=5, seconds=0.1, path="klines"),
    "clock ahead": Fault(kind="clock_skew", nth=1, seconds=7200.0, path="/time"),
    "clock behind": Fault(kind="clock_skew", nth=2, seconds=-86_400.0 * 30, path="/time"),
    "duplicate": Fault(kind="duplicate", probability=0.5, rows=7),
    "reorder": Fault(kind="reorder", probability=0.5, rows=7),
    "skip": Fault(kind="skip", probability=0.3, rows=9),
    "short_page": Fault(kind="short_page", probability=0.4, rows=700),
    "overlap": Fault(kind="overlap", probability=0.5, rows=20),
    "since_ignored": Fault(kind="since_ignored", probability=0.2),
    "revise": Fault(kind="revise", nth=1, amount=0.03),
    "unfinished": Fault(kind="unfinished", nth=1),
    "nan": Fault(kind="nan", nth=3),
    "huge_price": Fault(kind="huge_price", nth=3, times=2),
    "negative_volume": Fault(kind="negative_volume", nth=3),
    "future": Fault(kind="future", nth=3),
    "wrong_unit": Fault(kind="wrong_unit", nth=3),
    "redirect": Fault(kind="redirect", nth=4, path="klines"),
    "huge_reply": Fault(kind="huge_reply", nth=4, size=64 << 20, path="klines"),
}


@pytest.mark.parametrize("name", sorted(PASSING))
def test_each_fault_alone_costs_nothing(tmp_path: Path, name: str) -> None:
    recorded = market(10_000)
    with exchange(recorded, faults=(PASSING[name],)) as server:
        (result,) = bring(config_of(server.http_url, timeout_s=1.0), tmp_path)
        injected = server.state()["faults"]
    assert sum(injected.values()) > 0
    assert same(RawStore(tmp_path).read(BTC, HOUR), recorded.bars)
    assert (result.added, result.held, result.holes) == (10_000, 10_000, 0)


MIXED = tuple(
    Fault(kind=fault.kind, probability=0.03, rows=fault.rows, path=fault.path, status=fault.status, retry_after=0)
    for name, fault in PASSING.items()
    if fault.kind not in ("delay", "maintenance", "huge_reply", "redirect", "clock_skew")
)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_all_faults_mixed_cost_nothing(tmp_path: Path, seed: int) -> None:
    markets = market(10_000), market(10_000, "ETHUSDT.BINANCE", seed=2)
    with exchange(*markets, faults=MIXED, seed=seed) as server:
        config = config_of(server.http_url, "BTC/USDT", "ETH/USDT", retries=20)
        results = bring(config, tmp_path)
        assert len(server.state()["faults"]) >= 8
    store = RawStore(tmp_path)
    for recorded in markets:
        assert same(store.read(recorded.instrument.id, HOUR), recorded.bars)
    assert [result.hole_bars for result in results] == [0, 0]


def test_another_protocol_with_small_pages_newest_first(tmp_path: Path) -> None:
    made = market(3_000, "BTCUSD.COINBASE")
    recorded = type(made)(made.bars, msgspec.structs.replace(made.instrument, base="BTC", quote="USD"))
    faults = tuple(fault for fault in MIXED if not fault.path)
    with exchange(recorded, faults=faults) as server:
        config = config_of(server.http_url, "BTC/USD", exchange="coinbaseexchange", since="2015-01-01", retries=20)
        (result,) = bring(config, tmp_path)
        requests = server.state()["requests"]
        assert same(RawStore(tmp_path).read("BTC-USD.COINBASE", HOUR), recorded.bars)
        assert result.holes == 1  # before the listing
        assert requests < 150  # five years of hours before it are 146 pages
        assert bring(config, tmp_path)[0].added == 0


def test_holes_of_the_venue_are_recorded_and_left_alone(tmp_path: Path) -> None:
    whole = market(3_000)
    lacking = np.r_[100:103, 1_000:2_500]
    recorded = type(whole)(_without(whole.bars, lacking), whole.instrument)
    store = RawStore(tmp_path)
    with exchange(recorded) as server:
        config = config_of(server.http_url, until="2020-05-01")
        (result,) = bring(config, tmp_path)
        assert same(store.read(BTC, HOUR), recorded.bars[: result.held])
        holes = read_holes(store.folder(BTC, HOUR))
        assert [(hole.reason, hole.asked) for hole in holes] == [("empty", 1), ("empty", 1)]
        assert result.hole_bars == 1_503
        assert list(known_holes(store)) == [(BTC, HOUR)]
        before = server.state()["requests"]
        assert bring(config, tmp_path)[0].requests == 0
        assert server.state()["requests"] == before  # all that is wanted is held or known to lack
        for asked in (2, 3):
            assert bring(config_of(server.http_url, until="2020-05-01", repair=True), tmp_path)[0].requests > 0
            assert {hole.asked for hole in read_holes(store.folder(BTC, HOUR))} == {asked}
        assert bring(config_of(server.http_url, until="2020-05-01", repair=True), tmp_path)[0].requests == 0
    with exchange(whole) as server:  # the venue has found its bars again
        for hole in (store.folder(BTC, HOUR) / "holes.json",):
            hole.unlink()
        bring(config_of(server.http_url, since=None, until="2020-05-01", repair=True), tmp_path)
    assert same(store.read(BTC, HOUR), whole.bars[:2_904])
    assert read_holes(store.folder(BTC, HOUR)) == []


def _without(bars: Any, rows: Any) -> Any:
    keep = np.ones(len(bars), dtype=bool)
    keep[rows] = False
    columns = [getattr(bars, name)[keep] for name in ("ts_close", "open", "high", "low", "close", "volume")]
    return type(bars)(bars.instrument_id, bars.timeframe, *columns)


def test_kill_at_any_moment_then_the_same_command_finishes(tmp_path: Path) -> None:
    source, kills = random.Random(5), 8
    recorded = market(20_000)
    slow = Fault(kind="delay", probability=0.5, seconds=0.03, path="klines")
    with exchange(recorded, faults=(slow, *MIXED)) as server:
        options = ("--since", START, "--base-url", server.http_url, "--backoff", "0.01", "--retries", "20", "--catalog")
        arguments = ("data", "download", "binance", "BTC/USDT", *options, tmp_path / "killed")
        landed = 0
        for _ in range(kills):
            process = subprocess.Popen(command(*arguments), stderr=subprocess.DEVNULL)
            time.sleep(source.uniform(0.6, 2.2))
            process.send_signal(signal.SIGKILL)
            landed += process.wait() == -signal.SIGKILL
        assert landed >= 2
        told, _ = cli(*arguments, "--json")
        assert told["markets"][0]["held"] == 20_000
        again, _ = cli(*arguments, "--json")
        assert (again["markets"][0]["added"], again["catalog_written"]) == (0, [])
    store = RawStore(tmp_path / "killed")
    assert digest(store.read(BTC, HOUR)) == digest(recorded.bars)
    assert digest(read_catalog(store.root, BTC, HOUR)) == digest(recorded.bars)
    left = [file.name for file in tmp_path.rglob("*") if file.name.endswith(".tmp") or file.parent.name == "pages"]
    assert left == []


def test_the_first_word_of_the_issue_holds_on_real_history(tmp_path: Path, data_folder: Path) -> None:
    from lstm_strategy.replay.recordings import market_from_file

    recorded = market_from_file(data_folder / "crypto" / "BTCUSDT-1h.parquet", BTC)
    rules = data_folder / "meta" / "binance_spot_exchangeInfo_majors.json"
    with exchange(recorded, exchange_info=rules) as server:
        arguments = ("--since", "2017-08-17", "--base-url", server.http_url, "--catalog", tmp_path, "--json")
        told, _ = cli("data", "download", "binance", "BTC/USDT", "--timeframe", "1h", *arguments)
    store = RawStore(tmp_path)
    assert told["markets"][0]["held"] == 64_524  # the last one too: it is midnight there, and it has closed
    assert same(store.read(BTC, HOUR), recorded.bars)
    assert told["markets"][0]["hole_bars"] == 128 + 4  # and the first day's four hours before the listing
    instrument = store.read_instrument(BTC)
    assert (instrument.tick, instrument.lot, instrument.min_notional) == ("0.01", "0.00001", 5.0)
    checked, text = cli("data", "check", "--catalog", tmp_path, "--json")
    assert "28 (128 bars)" in text
    assert (checked["gaps"], checked["missing_bars"], checked["errors"]) == (28, 128, [])


def test_only_what_is_new_is_asked_for(tmp_path: Path) -> None:
    recorded = market(2_500)
    with exchange(recorded) as server:
        first = bring(config_of(server.http_url, until="2020-02-01"), tmp_path)[0]
        assert (first.held, first.first, first.last) == (744, "2020-01-01T01:00:00Z", "2020-02-01T00:00:00Z")
        assert bring(config_of(server.http_url, until="2020-02-01"), tmp_path)[0].requests == 0
        rest = bring(config_of(server.http_url, since=None), tmp_path)[0]
        assert (rest.added, rest.held) == (2_500 - 744, 2_500)
    assert same(RawStore(tmp_path).read(BTC, HOUR), recorded.bars)


def test_dry_run_asks_nobody(tmp_path: Path) -> None:
    arguments = ("binance", "BTC/USDT", "--since", START, "--until", "2020-01-11", "--base-url", "http://127.0.0.1:9")
    told, text = cli("data", "download", *arguments, "--dry-run", "--json", "--catalog", tmp_path / "none")
    assert told["markets"][0]["bars"] == 240
    assert "would ask for 240 bars in 1 spans, 2020-01-01T00:00:00Z to 2020-01-11T00:00:00Z" in text
    assert not (tmp_path / "none").exists()


def test_two_downloads_at_once(tmp_path: Path) -> None:
    with hold_catalog(tmp_path, "data download binance ETH/USDT"):
        _, text = cli("data", "download", "binance", "BTC/USDT", "--since", START, "--catalog", tmp_path, code=1)
        assert "is being written by `data download binance ETH/USDT` (process" in text
        _, text = cli("data", "simulate", "--bars", "10", "--catalog", tmp_path, code=1)
        assert "is being written by `data download binance ETH/USDT` (process" in text
    assert not (tmp_path / "raw").exists()
    (tmp_path / ".writer.lock").write_text('{"what": "data download", "pid": 1, "since": "long ago"}')
    with hold_catalog(tmp_path, "data rebuild"):  # what a dead process left is no lock
        pass


def test_rebuild_makes_the_catalog_from_the_raw_bars(tmp_path: Path) -> None:
    import shutil

    recorded = market(300)
    with exchange(recorded) as server:
        arguments = ("data", "download", "binance", "BTC/USDT", "--since", START, "--base-url", server.http_url)
        cli(*arguments, "--catalog", tmp_path)
        shutil.rmtree(tmp_path / "data")
        assert cli("data", "rebuild", "--catalog", tmp_path, "--json")[0]["catalog_written"] == [f"{BTC} 1h"]
        assert same(read_catalog(tmp_path, BTC, HOUR), recorded.bars)
        (tmp_path / "raw" / "BINANCE" / "BTCUSDT" / "instrument.json").unlink()
        _, text = cli("data", "rebuild", "--catalog", tmp_path, code=1)
        assert "run its download or import again" in text.replace("\n", " ")
        shutil.rmtree(tmp_path / "data")
        assert cli(*arguments, "--catalog", tmp_path, "--json")[0]["catalog_written"] == [f"{BTC} 1h"]
    assert same(read_catalog(tmp_path, BTC, HOUR), recorded.bars)


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"exchange": "binanse"}, "CCXT knows no exchange 'binanse'; near it are binance"),
        ({"symbols": ("BTC/USTD",)}, "binance has no spot market 'BTC/USTD' among its 1; near it are BTC/USDT"),
        ({"timeframe": "7h"}, "binance has no bars of 7h; it has 1s, 1m"),
        ({"funding": True}, "only swaps have funding rates"),
        ({"since": "2024-01-01", "until": "2020-01-01"}, "--since 2024-01-01 is not before --until 2020-01-01"),
        ({"since": "2100-01-01"}, "--since 2100-01-01 lies in the future"),
        ({"since": None}, "nothing is held of BTC/USDT 1h; say from when on, such as --since 2018-01-01"),
        ({"base_url": "file:///etc/passwd"}, "--base-url is not an http:// or https:// address"),
        ({"base_url": "http://me:word@host"}, "--base-url must be scheme, host, port and path alone"),
        ({"proxy": "socks5://host"}, "--proxy is not an http:// or https:// address"),
        ({"exchange": "coinbaseexchange", "market": "swap"}, "has no swap market"),
    ],
)
def test_what_cannot_work_fails_at_once(tmp_path: Path, changed: dict[str, Any], problem: str) -> None:
    with exchange(market(50)) as server:
        symbols = changed.pop("symbols", ("BTC/USDT",))
        with pytest.raises(LSTMStrategyError) as told:
            bring(config_of(changed.pop("base_url", server.http_url), *symbols, **changed), tmp_path)
        assert problem in str(told.value)
        assert "\n" not in str(told.value)
        assert server.state()["requests"] <= 12
    assert not (tmp_path / "raw").exists()


@pytest.mark.parametrize(
    ("fault", "problem"),
    [
        (Fault(kind="nan", nth=3, every=1, path="klines"), "close is not a number at 20"),
        (Fault(kind="huge_price", nth=3, every=1, path="klines"), "high is beyond belief at 20"),
        (Fault(kind="negative_volume", nth=3, every=1, path="klines"), "volume is not positive at 20"),
        (Fault(kind="future", nth=3, every=1, path="klines"), "stamp lies in the future at 20"),
        (
            Fault(kind="wrong_unit", nth=3, every=1, path="klines"),
            "stamp is not in milliseconds but, it seems, in seconds",
        ),
        (Fault(kind="redirect", nth=3, every=1, path="klines"), "it redirects without end"),
        (Fault(kind="huge_reply", nth=3, every=1, path="klines"), "the reply is longer than 8 MiB"),
        (Fault(kind="status", status=404, nth=3, every=1, path="klines"), "after 3 retries: OperationFailed"),
        (
            Fault(kind="status", status=500, nth=3, every=1, path="klines"),
            "after 3 retries: ExchangeNotAvailable HTTP 500",
        ),
        (Fault(kind="malformed", nth=3, every=1, path="klines"), "after 3 retries: BadResponse the reply is not JSON"),
        (Fault(kind="status", status=429, retry_after=86_400, nth=3, path="klines"), "asks for 86400 s of silence"),
    ],
)
def test_a_hostile_server_is_refused_and_what_came_is_kept(tmp_path: Path, fault: Fault, problem: str) -> None:
    import resource

    recorded = market(10_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with exchange(recorded, faults=(fault,)) as server, pytest.raises(LSTMStrategyError) as told:
        bring(config_of(server.http_url, retries=3), tmp_path)
    assert problem in str(told.value)
    assert "\n" not in str(told.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 150_000  # KiB
    kept = RawStore(tmp_path).read(BTC, HOUR)
    assert same(kept, recorded.bars[: len(kept)])
    assert len(kept) == 2_000


def test_a_key_reaches_neither_log_nor_file_nor_another_host(tmp_path: Path) -> None:
    canary = "canary-5c1d7f0e"
    keys = {"BINANCE_API_KEY": canary, "BINANCE_API_SECRET": canary, "OKX_API_KEY": canary}
    refusing = Fault(kind="status", status=400, nth=4, every=1, path="klines")
    with exchange(market(5_000), faults=(refusing,)) as server:
        arguments = ("binance", "BTC/USDT", "--since", START, "--base-url", server.http_url, "--catalog", tmp_path)
        patience = ("--retries", "2", "--backoff", "0.01", "--json")
        told, text = cli("--debug", "data", "download", *arguments, *patience, code=1, **keys)
        assert canary not in text + str(told) + str(server.state())
    for file in tmp_path.rglob("*"):
        assert not file.is_file() or canary.encode() not in file.read_bytes()


def test_a_full_disk_is_told_and_tears_nothing(tmp_path: Path) -> None:
    recorded = market(5_000)
    with exchange(recorded) as server:
        arguments = ("binance", "BTC/USDT", "--since", START, "--base-url", server.http_url, "--catalog", tmp_path)
        small = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, -1)); "
        words = command("data", "download", *arguments)
        words[2] = small + words[2]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 1
        assert "cannot write" in done.stderr
        assert "Traceback" not in done.stderr
        bring(config_of(server.http_url), tmp_path)
    assert same(RawStore(tmp_path).read(BTC, HOUR), recorded.bars)


def test_minutes_of_two_markets_share_one_client(tmp_path: Path) -> None:
    minute = Timeframe.parse("1m")
    from lstm_strategy.replay.recordings import simulated_market
    from lstm_strategy.sources.simulate import SimulationConfig

    both = [
        simulated_market(SimulationConfig(instrument_id=f"{name}USDT.BINANCE", timeframe="1m", bars=4_000, start=START))
        for name in ("BTC", "ETH")
    ]
    with exchange(*both) as server:
        results = bring(config_of(server.http_url, "BTC/USDT", "ETHUSDT", timeframe="1m"), tmp_path)
    assert [result.instrument for result in results] == [BTC, "ETHUSDT.BINANCE"]
    for recorded in both:
        assert same(RawStore(tmp_path).read(recorded.instrument.id, minute), recorded.bars)
