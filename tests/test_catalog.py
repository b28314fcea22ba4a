"""The catalog: exact, idempotent, atomic, and the engine's own reader agrees."""

from __future__ import annotations

import json
import os
import shutil
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from engine_support import HOUR, PERPETUAL, SPOT, make_bars, random_bars
from hypothesis import given
from hypothesis import strategies as st
from nautilus_trader.model.data import Bar as EngineBar
from nautilus_trader.persistence.catalog import ParquetDataCatalog

from lstm_strategy.bars import Bars, Timeframe
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.instrument import Instrument
from lstm_strategy.nautilus.catalog import bar_type, read_catalog, read_instrument, write_catalog
from lstm_strategy.nautilus.fixed import decode, encode, precision_of, to_steps
from lstm_strategy.nautilus.instruments import from_engine, to_engine

COLUMNS = ("ts_close", "open", "high", "low", "close", "volume")
SHARE = Instrument(id="SPY.ARCA", kind="equity", base="SPY", quote="USD", tick="0.01", lot="1", min_notional=1.0)


def assert_same(one: Bars, other: Bars) -> None:
    for column in COLUMNS:
        np.testing.assert_array_equal(getattr(one, column), getattr(other, column))


@given(st.lists(st.integers(0, 10**15), min_size=1), st.integers(0, 16))
def test_fixed_point_is_exact(steps: list[int], precision: int) -> None:
    words = encode(np.array(steps, np.uint64), precision)
    assert [low + (high << 64) for low, high in words.tolist()] == [k * 10 ** (16 - precision) for k in steps]
    values, inexact = decode(words, precision)
    assert values.tolist() == [float(Decimal(k).scaleb(-precision)) for k in steps]
    assert not inexact.any()
    back, rounded = to_steps(values, precision)
    assert back.tolist() == steps
    assert not rounded.any()


def test_a_value_with_more_decimals_than_stated_is_noticed() -> None:
    words = encode(np.array([5, 7], np.uint64), 3)
    assert decode(words, 2)[1].tolist() == [True, True]
    assert to_steps(np.array([0.25, 0.255]), 2)[1].tolist() == [False, True]


@pytest.mark.parametrize(("step", "expected"), [("0.01000000", 2), ("1", 0), ("10", 0), ("1e-8", 8), ("0.5", 1)])
def test_precision_of(step: str, expected: int) -> None:
    assert precision_of(step) == expected


@pytest.mark.parametrize("instrument", [SPOT, PERPETUAL], ids=["spot", "perpetual"])
def test_round_trip(tmp_path: Path, instrument: Instrument) -> None:
    bars = random_bars(500, instrument)
    write_catalog(tmp_path, bars, instrument)
    assert_same(read_catalog(tmp_path, instrument.id, HOUR), bars)
    assert read_instrument(tmp_path, instrument.id) == instrument


def test_equity_round_trip() -> None:
    assert from_engine(to_engine(SHARE)) == SHARE


def test_the_engine_reads_it(tmp_path: Path) -> None:
    bars = random_bars(300)
    write_catalog(tmp_path, bars, SPOT)
    catalog = ParquetDataCatalog(tmp_path)
    read = catalog.bars([str(bar_type(SPOT.id, HOUR))])
    assert [bar.ts_event for bar in read] == bars.ts_close.tolist() == [bar.ts_init for bar in read]
    for column in COLUMNS[1:]:
        assert [float(str(getattr(bar, column))) for bar in read] == getattr(bars, column).tolist()
    assert catalog.instruments() == [to_engine(SPOT)]
    part = catalog.bars([str(bar_type(SPOT.id, HOUR))], start=int(bars.ts_close[10]), end=int(bars.ts_close[20]))
    assert len(part) == 11


def test_it_reads_what_the_engine_wrote(tmp_path: Path) -> None:
    bars = random_bars(300)
    write_catalog(tmp_path / "ours", bars, SPOT)
    theirs = ParquetDataCatalog(tmp_path / "theirs")
    theirs.write_data([to_engine(SPOT)])
    theirs.write_data(ParquetDataCatalog(tmp_path / "ours").bars([str(bar_type(SPOT.id, HOUR))]))
    (tmp_path / "theirs" / "engine.json").write_bytes((tmp_path / "ours" / "engine.json").read_bytes())
    assert_same(read_catalog(tmp_path / "theirs", SPOT.id, HOUR), bars)


def test_writing_again_replaces(tmp_path: Path) -> None:
    bars = random_bars(300)
    write_catalog(tmp_path, bars, SPOT)
    files = {path.relative_to(tmp_path) for path in tmp_path.rglob("*")}
    write_catalog(tmp_path, bars, SPOT)
    assert {path.relative_to(tmp_path) for path in tmp_path.rglob("*")} == files
    assert_same(read_catalog(tmp_path, SPOT.id, HOUR), bars)
    write_catalog(tmp_path, bars[50:200], SPOT)
    assert_same(read_catalog(tmp_path, SPOT.id, HOUR), bars[50:200])
    assert len(list(tmp_path.rglob("bar/*/*.parquet"))) == 1


@pytest.mark.parametrize("rows", [slice(0, 300), slice(0, 200), slice(50, 300)], ids=["same", "shorter", "later"])
def test_at_every_moment_there_are_bars_and_an_instrument(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: slice
) -> None:
    """What a reader sees, and what kill -9 leaves, before each change that a writer makes under data/."""
    bars, other = random_bars(300), random_bars(300, seed=1)
    write_catalog(tmp_path, bars, SPOT)
    seen = []

    def watch(module: object, name: str) -> None:
        change = getattr(module, name)

        def watched(*args: object, **kwargs: object) -> object:
            read = read_catalog(tmp_path, SPOT.id, HOUR)
            assert read_instrument(tmp_path, SPOT.id) == SPOT
            assert len(ParquetDataCatalog(tmp_path).instruments()) == 1
            assert len(list(tmp_path.rglob("bar/*/*.parquet"))) == 1
            seen.append(read.close.tolist())
            return change(*args, **kwargs)

        monkeypatch.setattr(module, name, watched)

    for module, name in ((os, "replace"), (os, "rename"), (os, "unlink"), (shutil, "rmtree"), (shutil, "move")):
        watch(module, name)
    write_catalog(tmp_path, other[rows], SPOT)
    monkeypatch.undo()
    assert len(seen) >= 3
    assert {tuple(closes) for closes in seen} == {tuple(bars.close)} or seen[-1] == other.close[rows].tolist()
    assert all(closes in (bars.close.tolist(), other.close[rows].tolist()) for closes in seen)
    assert_same(read_catalog(tmp_path, SPOT.id, HOUR), other[rows])
    (start, end) = ParquetDataCatalog(tmp_path).get_intervals(EngineBar, str(bar_type(SPOT.id, HOUR)))[0]
    assert [start, end] == other.ts_close[rows][[0, -1]].tolist()


def test_what_a_killed_writer_left_is_swept(tmp_path: Path) -> None:
    write_catalog(tmp_path, random_bars(10), SPOT)
    (folder,) = tmp_path.glob("data/bar/*")
    (tmp_path / ".staging-old").mkdir()
    (tmp_path / ".staging-old" / "file").touch()
    (folder / ".x.parquet.1-aa.tmp").touch()
    write_catalog(tmp_path, random_bars(10), SPOT)
    assert not list(tmp_path.glob(".staging*"))
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_reader_looks_again_where_a_file_was_renamed_under_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bars = random_bars(10)
    write_catalog(tmp_path, bars, SPOT)
    read, calls = pq.read_table, []

    def renamed(path: Path) -> object:
        calls.append(path)
        if len(calls) == 1:
            raise FileNotFoundError(path)
        return read(path)

    monkeypatch.setattr(pq, "read_table", renamed)
    assert_same(read_catalog(tmp_path, SPOT.id, HOUR), bars)


def test_a_changed_instrument_replaces_the_old_one(tmp_path: Path) -> None:
    bars = random_bars(10)
    write_catalog(tmp_path, bars, SPOT)
    as_perpetual = Instrument(id=SPOT.id, kind="perpetual", base="BTC", quote="USDT", tick="0.01", lot="0.001")
    write_catalog(tmp_path, bars, as_perpetual)
    assert read_instrument(tmp_path, SPOT.id).kind == "perpetual"
    assert len(ParquetDataCatalog(tmp_path).instruments()) == 1


def test_two_instruments_and_timeframes_live_side_by_side(tmp_path: Path) -> None:
    hourly, perpetual = random_bars(48), random_bars(48, PERPETUAL, seed=1)
    daily = Bars(SPOT.id, Timeframe.parse("1d"), np.array([24, 48]) * HOUR.ns, *[np.array([2.0, 3.0])] * 5)
    for bars, instrument in ((hourly, SPOT), (perpetual, PERPETUAL), (daily, SPOT)):
        write_catalog(tmp_path, bars, instrument)
    assert_same(read_catalog(tmp_path, SPOT.id, HOUR), hourly)
    assert_same(read_catalog(tmp_path, PERPETUAL.id, HOUR), perpetual)
    assert_same(read_catalog(tmp_path, SPOT.id, Timeframe.parse("1d")), daily)


def test_a_price_finer_than_the_tick_is_refused_and_the_old_bars_stay(tmp_path: Path) -> None:
    bars = random_bars(10)
    write_catalog(tmp_path, bars, SPOT)
    closes = bars.close.copy()
    closes[3] += 0.005
    with pytest.raises(LSTMStrategyError, match=r"high \d+\.\d+ at 1970-01-01T04:00:00Z has more decimals than tick"):
        write_catalog(tmp_path, make_bars(bars.open, closes), SPOT)
    assert_same(read_catalog(tmp_path, SPOT.id, HOUR), bars)
    assert not list(tmp_path.glob(".staging*"))


def test_refusals(tmp_path: Path) -> None:
    bars = random_bars(10)
    with pytest.raises(LSTMStrategyError, match="is not a catalog"):
        read_catalog(tmp_path, SPOT.id, HOUR)
    write_catalog(tmp_path, bars, SPOT)
    with pytest.raises(LSTMStrategyError, match="no bars ETHUSDT"):
        read_catalog(tmp_path, "ETHUSDT.BINANCE", HOUR)
    with pytest.raises(LSTMStrategyError, match="no instrument ETHUSDT"):
        read_instrument(tmp_path, "ETHUSDT.BINANCE")
    with pytest.raises(LSTMStrategyError, match=r"no bars BTCUSDT\.BINANCE-5-MINUTE"):
        read_catalog(tmp_path, SPOT.id, Timeframe.parse("5m"))
    with pytest.raises(LSTMStrategyError, match="do not belong"):
        write_catalog(tmp_path, bars, PERPETUAL)
    with pytest.raises(LSTMStrategyError, match="no bars to write"):
        write_catalog(tmp_path, bars[:0], SPOT)
    with pytest.raises(LSTMStrategyError, match="no bars of 7h"):
        bar_type(SPOT.id, Timeframe.parse("7h"))
    with pytest.raises(LSTMStrategyError, match="whole shares"):
        to_engine(Instrument(id="SPY.ARCA", kind="equity", base="SPY", quote="USD", tick="0.01", lot="0.1"))


def test_a_catalog_of_another_engine_is_refused(tmp_path: Path) -> None:
    bars = random_bars(10)
    write_catalog(tmp_path, bars, SPOT)
    (tmp_path / "engine.json").write_text(json.dumps({"engine": "nautilus_trader", "version": "2.0.0rc6"}))
    for attempt in (
        lambda: read_catalog(tmp_path, SPOT.id, HOUR),
        lambda: write_catalog(tmp_path, bars, SPOT),
        lambda: read_instrument(tmp_path, SPOT.id),
    ):
        with pytest.raises(LSTMStrategyError, match=r"written by nautilus_trader 2\.0\.0rc6"):
            attempt()
    (tmp_path / "engine.json").write_text("{}")
    with pytest.raises(LSTMStrategyError, match="does not say which engine"):
        read_catalog(tmp_path, SPOT.id, HOUR)
