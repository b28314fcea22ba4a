"""Funding rates: downloaded beside the bars, resumed, and read with the time when each was known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from download_support import HOUR, START, bring, cli, config_of, exchange, market

from lstm_strategy.bars import parse_ns
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.nautilus.catalog import read_instrument
from lstm_strategy.replay.faults import Fault
from lstm_strategy.replay.market import Funding as Recorded
from lstm_strategy.replay.market import Market
from lstm_strategy.sources.files import read_rates
from lstm_strategy.sources.funding import keep_funding, read_funding
from lstm_strategy.sources.store import RawStore

SWAP = "BTCUSDT-PERP.BINANCE"


def recorded(bars: int = 20_000) -> Market:
    made = market(bars, SWAP)
    ts = made.bars.ts_close[7::8]
    rate = np.round(np.random.default_rng(1).normal(1e-4, 1e-4, len(ts)), 8)
    instrument = made.instrument.__class__(
        id=SWAP, kind="perpetual", base="BTC", quote="USDT", tick="0.01", lot="0.001"
    )
    return Market(made.bars, instrument, Recorded(ts, rate))


@pytest.mark.parametrize(
    "faults", [(), (Fault(kind="drop", nth=2, path="funding"), Fault(kind="truncated", nth=4, path="funding"))]
)
def test_funding_lies_beside_the_bars(tmp_path: Path, faults: tuple[Fault, ...]) -> None:
    made = recorded()
    assert made.funding is not None
    with exchange(made, faults=faults) as server:
        first = config_of(server.http_url, market="swap", funding=True, until="2021-01-01")
        (result,) = bring(first, tmp_path)
        assert result.instrument == SWAP
        assert (result.held, result.funding_added) == (366 * 24, 366 * 3 - 1)
        (result,) = bring(config_of(server.http_url, market="swap", funding=True), tmp_path)
        assert result.funding_held == len(made.funding.ts)
        (again,) = bring(config_of(server.http_url, market="swap", funding=True), tmp_path)
        assert (again.added, again.funding_added) == (0, 0)
    store = RawStore(tmp_path)
    assert list(store.entries()) == [(SWAP, HOUR)]
    held = read_funding(store, SWAP)
    assert np.array_equal(held.ts, made.funding.ts)
    assert np.array_equal(held.rate, made.funding.rate)
    assert (held.ts_available >= held.ts).all()


def test_the_swap_is_in_the_catalog_under_the_adapters_name(tmp_path: Path) -> None:
    with exchange(recorded(500)) as server:
        arguments = ("binance", "BTC/USDT", "--market", "swap", "--funding", "--since", START, "--catalog", tmp_path)
        told, _ = cli("data", "download", *arguments, "--base-url", server.http_url, "--json")
    assert told["markets"][0]["funding_held"] == 62
    instrument = read_instrument(tmp_path, SWAP)
    assert (instrument.kind, instrument.base, instrument.multiplier) == ("perpetual", "BTC", "1")
    assert instrument == RawStore(tmp_path).read_instrument(SWAP)


def test_what_is_held_stays_and_what_is_missing_is_told(tmp_path: Path) -> None:
    store = RawStore(tmp_path)
    with pytest.raises(LSTMStrategyError, match=r"no funding rates of BTCUSDT-PERP.BINANCE; get them with"):
        read_funding(store, SWAP)
    ts = parse_ns("2024-01-01") + np.arange(4) * 8 * HOUR.ns
    assert keep_funding(store, SWAP, ts[2:], np.array([3e-4, 4e-4])) == 2
    assert keep_funding(store, SWAP, ts[:3], np.array([1e-4, 2e-4, 9e-4])) == 2
    assert read_funding(store, SWAP).rate.tolist() == [1e-4, 2e-4, 3e-4, 4e-4]
    file = store.market_folder(SWAP) / "funding.parquet"
    file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(LSTMStrategyError, match=r"funding\.parquet cannot be read"):
        read_funding(store, SWAP)


def test_rates_come_from_a_file_beside_bars(tmp_path: Path) -> None:
    bars, rates = tmp_path / "bars.csv", tmp_path / "rates.csv"
    rows = [f"{parse_ns(START) // 10**6 + row * 3_600_000},100,101,99,100.{row},5" for row in range(1, 10)]
    bars.write_text("\n".join(["open_time,open,high,low,close,volume", *rows]))
    stamps = [parse_ns(START) // 10**6 + row * 28_800_000 for row in (2, 1, 1)]
    text = "\n".join(["fundingTime,fundingRate", *(f"{ts},0.000{number}" for number, ts in enumerate(stamps, 1))])
    rates.write_text(text)
    catalog = tmp_path / "catalog"
    given = ("data", "import", bars, "--instrument", SWAP, "--timeframe", "1h", "--catalog", catalog, "--json")
    swap = ("--kind", "perpetual", "--base", "BTC", "--quote", "USDT", "--funding", rates)
    assert "2 funding rates added, 0 held already" in cli(*given, *swap)[1]
    held = read_funding(RawStore(catalog), SWAP)
    assert held.ts.tolist() == [ts * 10**6 for ts in stamps[1::-1]]
    assert held.rate.tolist() == [0.0002, 0.0001]
    assert "0 funding rates added, 2 held already" in cli(*given, *swap)[1]
    spot = (*given[:4], "BTCUSDT.BINANCE", *given[5:], *swap[-2:])
    assert "only perpetuals pay funding" in cli(*spot, code=1)[1].replace("\n", " ")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ts,open\n1,2", "no column of rates"),
        ("when,rate\n1,2", "no column of stamps"),
        ("ts,rate\n2021-01-01,0.5", "rates are fractions"),
        ("ts,rate\n2021-01-01,none", "not a number"),
    ],
)
def test_a_file_that_holds_no_rates_is_told(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "rates.csv").write_text(text)
    with pytest.raises(LSTMStrategyError, match=message):
        read_rates(tmp_path / "rates.csv")
