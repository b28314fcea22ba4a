"""Pages and spans: fresh bars are in a page or in the file at any moment, and each is read once."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lstm_strategy.bars import Bars, Timeframe
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.instrument import folder_of, split_id, symbol_of
from lstm_strategy.sources import pages
from lstm_strategy.sources.simulate import SimulationConfig, simulate
from lstm_strategy.sources.spans import Spans
from lstm_strategy.sources.store import MergeResult, RawStore

HOUR = Timeframe.parse("1h")


def some_bars(n: int = 1_000, **changed: object) -> Bars:
    return simulate(SimulationConfig(bars=n, **changed))  # type: ignore[arg-type]


def same(a: Bars, b: Bars) -> bool:
    return list(a) == list(b)


def folder_with(root: Path, *parts: Bars) -> tuple[RawStore, Path]:
    store = RawStore(root)
    folder = store.folder("SIM.SIM", HOUR)
    pages.prepare(folder)
    for part in parts:
        pages.write_page(folder, part)
    return store, folder


ranges = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)).map(sorted), max_size=8)


@given(ranges, ranges)
def test_spans_are_sets_of_numbers(first: list[list[int]], second: list[list[int]]) -> None:
    def numbers(spans: list[list[int]]) -> set[int]:
        return {number for start, end in spans for number in range(start, end)}

    a, b = Spans((start, end) for start, end in first), Spans((start, end) for start, end in second)
    assert numbers([list(span) for span in a]) == numbers(first)
    assert numbers([list(span) for span in a.less(b)]) == numbers(first) - numbers(second)
    assert numbers([list(span) for span in a.missing(5, 50)]) == set(range(5, 50)) - numbers(first)
    assert a.length == len(numbers(first))
    edges = [edge for span in a for edge in span]
    assert edges == sorted(set(edges))  # disjoint, and none that touch
    for place in (0, 7, 33):
        later = sorted(number for number in numbers(first) if number >= place)
        found = a.from_(place)
        assert (found is None) == (not later)
        assert found is None or found[0] == later[0]


@given(st.lists(st.integers(0, 40), unique=True).map(sorted))
def test_spans_of_stamps(opens: list[int]) -> None:
    spans = Spans.of(np.array(opens, dtype=np.int64), 1)
    assert spans == Spans((number, number + 1) for number in opens)


def test_readers_see_pages_and_file_as_one(tmp_path: Path) -> None:
    bars = some_bars()
    store, folder = folder_with(tmp_path, bars[:300], bars[300:600], bars[800:])
    assert store.entries() == [("SIM.SIM", HOUR)]
    assert same(store.read("SIM.SIM", HOUR), Bars("SIM.SIM", HOUR, *_columns(bars, np.r_[0:600, 800:1000])))
    pages.fold(folder)
    assert pages.page_files(folder) == []
    pages.write_page(folder, bars[600:800])
    assert same(store.read("SIM.SIM", HOUR), bars)
    assert list(store.spans("SIM.SIM", HOUR)) == [(bars.ts_close[0] - HOUR.ns, bars.ts_close[-1])]
    pages.fold(folder)
    assert same(store.read("SIM.SIM", HOUR), bars)
    assert sorted(file.name for file in folder.iterdir()) == [".lock", "bars.parquet"]


def _columns(bars: Bars, rows: np.ndarray) -> list[np.ndarray]:
    return [getattr(bars, name)[rows] for name in pages.COLUMNS]


def test_a_crash_between_writing_and_removing_doubles_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bars = some_bars()
    store, folder = folder_with(tmp_path, bars[:400], bars[400:500])
    with monkeypatch.context() as patch:
        patch.setattr(pages, "drop_pages", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            pages.fold(folder)
    assert len(pages.page_files(folder)) == 2
    assert same(store.read("SIM.SIM", HOUR), bars[:500])
    assert store.spans("SIM.SIM", HOUR).length == 500 * HOUR.ns
    pages.write_page(folder, bars[500:])
    pages.fold(folder)
    assert same(store.read("SIM.SIM", HOUR), bars)


def test_a_crash_while_folding_leaves_the_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    bars = some_bars()
    store, folder = folder_with(tmp_path, bars)
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            pages.fold(folder)
    assert same(store.read("SIM.SIM", HOUR), bars)
    (folder / "pages" / ".half.parquet.1-ab.tmp").write_bytes(b"torn")
    pages.sweep_up(folder)
    assert sorted(file.name for file in folder.rglob("*") if file.is_file()) == [
        ".lock",
        f"{bars.ts_close[0]}-{bars.ts_close[-1]}.parquet",
    ]


@given(st.lists(st.tuples(st.integers(0, 199), st.integers(1, 40)), min_size=1, max_size=12), st.integers(0, 12))
def test_folding_in_any_order_gives_the_sorted_union(
    tmp_path_factory: pytest.TempPathFactory, parts: list[tuple[int, int]], folded: int
) -> None:
    bars = some_bars(200)
    store, folder = folder_with(tmp_path_factory.mktemp("fold"))
    small, pages.BLOCK = pages.BLOCK, 32  # many row groups
    try:
        for number, (start, length) in enumerate(parts):
            pages.write_page(folder, bars[start : start + length])
            if number == folded:
                pages.fold(folder)
                pages.prepare(folder)
        pages.fold(folder)
    finally:
        pages.BLOCK = small
    rows = sorted({row for start, length in parts for row in range(start, min(200, start + length))})
    assert same(store.read("SIM.SIM", HOUR), Bars("SIM.SIM", HOUR, *_columns(bars, np.array(rows))))
    groups = pq.ParquetFile(folder / "bars.parquet").metadata
    assert [groups.row_group(n).num_rows for n in range(groups.num_row_groups - 1)] == [32] * (len(rows) - 1 >> 5)


def test_readers_meet_no_short_history_while_a_writer_folds(tmp_path: Path) -> None:
    bars = some_bars(40_000)
    store, folder = folder_with(tmp_path)
    durable, failures, over = [0], [], threading.Event()

    def write() -> None:
        try:
            for start in range(0, len(bars), 800):
                for first in range(start, start + 800, 100):
                    pages.write_page(folder, bars[first : first + 100])
                    durable[0] = first + 100
                pages.fold(folder)
                pages.prepare(folder)
        finally:
            over.set()

    def read() -> None:
        while not over.is_set():
            before = durable[0]
            try:
                if before:
                    entries = store.entries(), [("SIM.SIM", HOUR)]
                    found = len(store.read("SIM.SIM", HOUR)), store.spans("SIM.SIM", HOUR).length // HOUR.ns
                    if min(found) < before or entries[0] != entries[1]:
                        failures.append((before, found, entries[0]))
            except LSTMStrategyError as error:
                failures.append(error)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    write()
    for reader in readers:
        reader.join()
    assert failures == []
    assert len(store.read("SIM.SIM", HOUR)) == len(bars)


def test_a_file_that_is_gone_is_never_to_be_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, _ = folder_with(tmp_path, some_bars(10))
    monkeypatch.setattr(pages, "_read", lambda path: path.with_name("gone").read_bytes())
    with pytest.raises(LSTMStrategyError, match="try again") as told:
        store.read("SIM.SIM", HOUR)
    assert "remove" not in str(told.value)


def test_an_import_takes_the_pages_in(tmp_path: Path) -> None:
    bars = some_bars()
    store, folder = folder_with(tmp_path, bars[:300], bars[300:600])
    assert store.merge(bars[500:]) == MergeResult(400, 100, 0, 1_000)
    assert pages.page_files(folder) == []
    assert same(store.read("SIM.SIM", HOUR), bars)


def test_a_foreign_file_among_the_pages_is_told(tmp_path: Path) -> None:
    store, folder = folder_with(tmp_path, some_bars(10))
    (folder / "pages" / "notes.parquet").write_bytes(b"?")
    with pytest.raises(LSTMStrategyError, match=r"notes\.parquet is no page of bars"):
        store.read("SIM.SIM", HOUR)


def test_names_with_a_slash_stay_one_folder(tmp_path: Path) -> None:
    assert split_id("BTC/USD.KRAKEN") == ("BTC/USD", "KRAKEN")
    for symbol in ("BTC/USD", "xyz:TSLA-USD-PERP", "BTC-USDT-SWAP", "币安人生USDT"):
        assert "/" not in folder_of(symbol)
        assert symbol_of(folder_of(symbol)) == symbol
    store, bars = RawStore(tmp_path), some_bars(10, instrument_id="BTC/USD.KRAKEN")
    store.merge(bars)
    assert (tmp_path / "raw" / "KRAKEN" / "BTC%2FUSD" / "1h" / "bars.parquet").exists()
    assert store.entries() == [("BTC/USD.KRAKEN", HOUR)]
    for wrong in ("../BTC.KRAKEN", "/BTC.KRAKEN", "BTC/.KRAKEN", "A//B.KRAKEN", "A.B.C", "BTC%2FUSD.KRAKEN", "A.K/B"):
        with pytest.raises(LSTMStrategyError, match=r"not SYMBOL\.VENUE"):
            split_id(wrong)
