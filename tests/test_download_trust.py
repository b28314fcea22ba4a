"""What the downloader does not believe: bars of another origin, a venue that is mute for a moment, odd pages."""

from __future__ import annotations

import re
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from download_support import HOUR, bring, cli, config_of, exchange, market, same

from lstm_strategy.bars import parse_ns
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.nautilus.catalog import read_catalog
from lstm_strategy.replay.market import Market
from lstm_strategy.sources.ccxt_page import BadPageError, Page, page_of
from lstm_strategy.sources.download_market import MarketDownload
from lstm_strategy.sources.holes import known_holes, read_holes, record_holes
from lstm_strategy.sources.spans import Spans
from lstm_strategy.sources.store import COLUMNS, RawStore

BTC = "BTCUSDT.BINANCE"


def test_bars_of_a_replay_and_of_the_venue_never_mix(tmp_path: Path) -> None:
    recorded = market(500)
    for until in ("2020-01-05", None):  # each server listens at a port of its own
        with exchange(recorded) as server:
            bring(config_of(server.http_url, until=until), tmp_path)
    assert same(RawStore(tmp_path).read(BTC, HOUR), recorded.bars)
    files = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    for url in (None, "http://192.0.2.1:80"):
        for settings in ({}, {"timeframe": "1m"}, {"until": "2020-01-05"}):
            with pytest.raises(LSTMStrategyError, match="came from a local exchange, this download asks") as told:
                bring(config_of(url, **settings), tmp_path)
            assert (url or "binance itself") in str(told.value)
            assert "another --catalog" in str(told.value)
    assert files == {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    _, text = cli("data", "download", "binance", "BTC/USDT", "--dry-run", "--catalog", tmp_path, code=1)
    assert "another --catalog" in text.replace("\n", " ")


def test_origins_are_told_apart_by_scheme_host_and_port() -> None:
    told = {
        url: config_of(url).client.origin
        for url in (None, "http://127.0.0.1:1", "http://localhost", "http://[::1]:9/x", "https://a.b/api", "http://a.b")
    }
    assert list(told.values()) == [None, "local", "local", "local", "https://a.b:443", "http://a.b:80"]


def without(recorded: Market, rows: slice) -> Market:
    bars = recorded.bars
    columns = [np.delete(getattr(bars, name), rows) for name in COLUMNS]
    return type(recorded)(type(bars)(bars.instrument_id, bars.timeframe, *columns), recorded.instrument)


def test_a_mute_venue_settles_nothing(tmp_path: Path) -> None:
    recorded = market(2_000)
    until = "2020-03-01"
    with exchange(recorded) as server:  # 2015 to 2016: before the listing
        with pytest.raises(LSTMStrategyError, match="gave no bars of BTC/USDT 1h from 2015") as told:
            bring(config_of(server.http_url, since="2015-01-01", until="2016-01-01"), tmp_path)
        assert "\n" not in str(told.value)
        assert not list(tmp_path.rglob("holes.json"))
        _, text = cli(
            *("data", "download", "binance", "BTC/USDT", "--since", "2015-01-01", "--until", "2016-01-01"),
            *("--base-url", server.http_url, "--catalog", tmp_path),
            code=1,
        )
        assert "gave no bars" in text
    store = RawStore(tmp_path)
    with exchange(without(recorded, slice(500, 1_500))) as server:
        (result,) = bring(config_of(server.http_url, until=until), tmp_path)
        assert (result.held, result.holes) == (500, 0)
        (pending,) = read_holes(store.folder(BTC, HOUR))
        assert not pending.settled
        assert known_holes(store) == {}
    with exchange(recorded) as server:  # the venue speaks again: the same command brings the rest
        assert bring(config_of(server.http_url, until=until), tmp_path)[0].held == 60 * 24
    assert same(store.read(BTC, HOUR), recorded.bars[: 60 * 24])
    assert read_holes(store.folder(BTC, HOUR)) == []


def test_the_end_of_a_market_is_settled_by_two_runs_an_hour_apart(tmp_path: Path) -> None:
    held, denied = Spans([(0, 10 * HOUR.ns)]), Spans([(10 * HOUR.ns, 90 * HOUR.ns)])
    start = parse_ns("2024-01-01")
    sure = Spans([(0, held.end)])
    for minutes, asked, settled in ((0, 1, False), (30, 2, False), (61, 3, True)):
        now = start + minutes * 60_000_000_000
        (hole,) = record_holes(tmp_path, held, {"empty": denied}, sure, now)
        assert (hole.asked, hole.settled, hole.span) == (asked, settled, (held.end, 90 * HOUR.ns))
    more = Spans([(10 * HOUR.ns, 120 * HOUR.ns)])
    assert [hole.settled for hole in record_holes(tmp_path, held, {"empty": more}, sure, now)] == [True, False]
    late = now + 3_600_000_000_000
    (hole,) = record_holes(tmp_path, held, {"empty": more}, sure, late)
    assert (hole.settled, hole.span) == (True, (held.end, 120 * HOUR.ns))
    gap = Spans([(2 * HOUR.ns, 3 * HOUR.ns)])
    first, _ = record_holes(tmp_path, held.less(gap), {"empty": gap}, sure, late)
    assert (first.asked, first.settled) == (1, True)


def test_a_repair_in_vain_may_be_tried_again_after_a_day(tmp_path: Path) -> None:
    whole = market(1_000)
    settings = {"until": "2020-02-01", "repair": True}
    with exchange(without(whole, slice(100, 110))) as server:
        for asked in (1, 2, 3, 3):
            bring(config_of(server.http_url, **settings), tmp_path)
            folder = RawStore(tmp_path).folder(BTC, HOUR)
            assert [hole.asked for hole in read_holes(folder)] == [asked]
    path = folder / "holes.json"
    path.write_text(re.sub('"last_asked": "[^"]*"', '"last_asked": "2024-01-01"', path.read_text()))
    with exchange(whole) as server:
        assert bring(config_of(server.http_url, **settings), tmp_path)[0].added == 10
    assert read_holes(folder) == []


@pytest.mark.parametrize("target", ["http://localhost:{port}/x", "https://127.0.0.1:{port}/x", "//127.0.0.1:1/x"])
def test_a_redirect_to_somebody_else_is_refused_at_once(tmp_path: Path, target: str) -> None:
    asked: list[str] = []

    class Redirecting(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(302)
            self.send_header("Location", target.format(port=self.server.server_address[1]))
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Redirecting) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            with pytest.raises(LSTMStrategyError, match="redirects to another scheme, host or port"):
                bring(config_of(f"http://127.0.0.1:{server.server_address[1]}"), tmp_path)
        finally:
            server.shutdown()
    assert len(asked) == 1
    assert "/x" not in asked


def test_a_stamp_that_comes_twice_must_say_the_same() -> None:
    row = [1_600_000_200_000, 1.0, 3.0, 0.5, 2.0, 7.0]
    minute, now = 60_000_000_000, 1_600_100_000_000_000_000
    later = [row[0] + 60_000, *row[1:]]
    assert len(page_of([later, row, row, later], minute, now)) == 2
    with pytest.raises(BadPageError, match="stamp comes twice with other values at 2020-09-13T12:30:00Z"):
        page_of([row, later, [*row[:5], 8.0]], minute, now)


def test_what_the_engine_cannot_hold_is_refused_and_the_rest_reaches_its_catalog(tmp_path: Path) -> None:
    recorded = market(1_800)
    bars = recorded.bars
    columns = {name: getattr(bars, name).copy() for name in COLUMNS}
    columns["volume"][1_500] = 9e16
    wrong = type(recorded)(type(bars)(bars.instrument_id, bars.timeframe, **columns), recorded.instrument)
    with exchange(wrong) as server:
        options = ("--since", "2020-01-01", "--base-url", server.http_url, "--backoff", "0.01", "--catalog", tmp_path)
        _, text = cli("data", "download", "binance", "BTC/USDT", *options, code=1)
    assert "volume does not fit" in text.replace("\n", " ")
    assert same(RawStore(tmp_path).read(BTC, HOUR), bars[:1_000])
    assert same(read_catalog(tmp_path, BTC, HOUR), bars[:1_000])
    shutil.rmtree(tmp_path / "data")
    checked, _ = cli("data", "check", "--catalog", tmp_path, "--json", code=1)
    assert "lstm-strategy data rebuild" in checked["errors"][0]


def test_a_price_with_more_decimals_than_the_engine_keeps_is_refused() -> None:
    fake = SimpleNamespace(decimals=2, _instrument=lambda _: market(10).instrument)
    opens, good = np.array([HOUR.ns, 2 * HOUR.ns]), np.array([[1.5, 2.0, 1.25, 1.5, 7.0]] * 2)
    MarketDownload._refuse_beyond_engine(fake, Page(opens, good))  # type: ignore[arg-type]
    good[1, 3] = 1.500000000123
    with pytest.raises(BadPageError, match=r"price does not fit 8 decimals at 1970-01-01T02:00:00Z: 1\.500000000123"):
        MarketDownload._refuse_beyond_engine(fake, Page(opens, good))  # type: ignore[arg-type]
