"""What the downloader does not believe: bars of another origin, a venue that is mute for a moment, odd pages."""

from __future__ import annotations

from pathlib import Path

import pytest
from download_support import HOUR, bring, cli, config_of, exchange, market, same

from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.sources.store import RawStore

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
