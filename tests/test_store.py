"""RawStore and atomic writes: nothing twice, nothing lost, nothing half."""

from __future__ import annotations

import errno
import multiprocessing
import os
import resource
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from lstm_strategy.atomic import atomic_folder, atomic_write
from lstm_strategy.bars import Bars, BarsError, Timeframe
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.instrument import Instrument
from lstm_strategy.sources.simulate import SimulationConfig, simulate, simulated_instrument
from lstm_strategy.sources.store import MergeResult, RawStore

HOUR = Timeframe.parse("1h")


def some_bars(n: int = 100, **changed: Any) -> Bars:
    return simulate(SimulationConfig(bars=n, **changed))


def same(a: Bars, b: Bars) -> bool:
    return list(a) == list(b)


def files_below(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.rglob("*") if file.is_file() and file.name != ".lock")


def altered(bars: Bars, row: int) -> Bars:
    volume = bars.volume.copy()
    volume[row] += 1.0
    return Bars(bars.instrument_id, bars.timeframe, bars.ts_close, bars.open, bars.high, bars.low, bars.close, volume)


def test_the_same_range_twice_changes_nothing(tmp_path: Path) -> None:
    store, bars = RawStore(tmp_path), some_bars()
    assert store.merge(bars) == MergeResult(100, 0, 0, 100)
    file = store.path("SIM.SIM", HOUR)
    before = file.read_bytes(), file.stat().st_mtime_ns
    assert store.merge(bars) == MergeResult(0, 100, 0, 100)
    assert (file.read_bytes(), file.stat().st_mtime_ns) == before
    assert same(store.read("SIM.SIM", HOUR), bars)


def test_parts_in_any_order_make_the_whole(tmp_path: Path) -> None:
    store, bars = RawStore(tmp_path), some_bars()
    assert store.merge(bars[60:]) == MergeResult(40, 0, 0, 40)
    assert store.merge(bars[:30]) == MergeResult(30, 0, 0, 70)
    assert store.merge(bars[20:80]) == MergeResult(30, 30, 0, 100)
    assert same(store.read("SIM.SIM", HOUR), bars)


def test_other_values_are_refused_unless_replaced(tmp_path: Path) -> None:
    store, bars = RawStore(tmp_path), some_bars()
    store.merge(bars[:50])
    other = altered(bars, 42)
    with pytest.raises(LSTMStrategyError, match=r"1 bars .* first at 2020-01-02T19:00:00Z \(volume .*--replace"):
        store.merge(other)
    assert same(store.read("SIM.SIM", HOUR), bars[:50])
    assert store.merge(other, replace=True) == MergeResult(50, 49, 1, 100)
    assert same(store.read("SIM.SIM", HOUR), other)


def test_the_file_is_plain_parquet(tmp_path: Path) -> None:
    store, bars = RawStore(tmp_path), some_bars()
    store.merge(bars)
    table = pq.read_table(tmp_path / "raw" / "SIM" / "SIM" / "1h" / "bars.parquet", partitioning=None)
    assert [str(field.type) for field in table.schema] == ["timestamp[ns, tz=UTC]", *["double"] * 5]
    assert table["close"].to_pylist() == bars.close.tolist()


def test_entries_are_sorted_by_name_and_length(tmp_path: Path) -> None:
    store = RawStore(tmp_path)
    assert store.entries() == []
    for name, timeframe in (("SIM.SIM", "1d"), ("SIM.SIM", "30m"), ("ABC-X.SIM", "1h"), ("SIM.SIM", "1h")):
        store.merge(some_bars(instrument_id=name, timeframe=timeframe))
    assert [(name, str(length)) for name, length in store.entries()] == [
        ("ABC-X.SIM", "1h"),
        ("SIM.SIM", "30m"),
        ("SIM.SIM", "1h"),
        ("SIM.SIM", "1d"),
    ]


def test_what_is_missing_is_told_with_what_is_held_and_the_way_out(tmp_path: Path) -> None:
    store = RawStore(tmp_path)
    with pytest.raises(LSTMStrategyError, match="holds nothing"):
        store.read("BTCUSDT.BINANCE", HOUR)
    store.merge(some_bars())
    with pytest.raises(
        LSTMStrategyError, match=r"BTCUSDT.BINANCE 1h; it holds SIM.SIM 1h; .*`lstm-strategy data import"
    ):
        store.read("BTCUSDT.BINANCE", HOUR)
    with pytest.raises(LSTMStrategyError, match=r"instrument SIM\.SIM"):
        store.read_instrument("SIM.SIM")


def test_instruments_are_kept(tmp_path: Path) -> None:
    store, instrument = RawStore(tmp_path), simulated_instrument(SimulationConfig())
    assert not store.has_instrument("SIM.SIM")
    store.write_instrument(instrument)
    assert store.read_instrument("SIM.SIM") == instrument
    for broken in (b"{", b'{"id": 3}', instrument_json(instrument, tick="-1"), instrument_json(instrument, id="A.B")):
        (tmp_path / "raw" / "SIM" / "SIM" / "instrument.json").write_bytes(broken)
        with pytest.raises(LSTMStrategyError, match=r"instrument\.json .*import the bars again"):
            store.read_instrument("SIM.SIM")


def instrument_json(instrument: Instrument, **changed: str) -> bytes:
    import msgspec

    return msgspec.json.encode(msgspec.to_builtins(instrument) | changed)


def test_a_damaged_file_is_told(tmp_path: Path) -> None:
    store = RawStore(tmp_path)
    store.merge(some_bars())
    file = store.path("SIM.SIM", HOUR)
    file.write_bytes(file.read_bytes()[:500])
    with pytest.raises(LSTMStrategyError, match=r"bars\.parquet cannot be read"):
        store.read("SIM.SIM", HOUR)


def test_invalid_rows_on_disk_are_told(tmp_path: Path) -> None:
    store = RawStore(tmp_path)
    store.merge(some_bars())
    file = store.path("SIM.SIM", HOUR)
    table = pq.read_table(file, partitioning=None)
    low = np.asarray(table["low"]).copy()
    low[7] = 1e9
    pq.write_table(table.set_column(3, "low", [low]), file)
    with pytest.raises(BarsError, match=r"bars\.parquet.*low is above open or close at 2020-01-01T08:00:00Z"):
        store.read("SIM.SIM", HOUR)


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    store, bars = RawStore(tmp_path), some_bars(20_000)
    store.merge(bars[:100])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(LSTMStrategyError, match=r"cannot write .*bars\.parquet: .*nothing was changed"):
            store.merge(bars)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert same(store.read("SIM.SIM", HOUR), bars[:100])
    assert files_below(tmp_path) == ["bars.parquet"]
    assert store.merge(bars).total == 20_000


@pytest.mark.parametrize("failing", ["replace", "fsync"])
def test_no_space_is_said_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    target = tmp_path / "file"
    target.write_text("old")
    monkeypatch.setattr(os, failing, full)
    with (
        pytest.raises(LSTMStrategyError, match="file: the disk is full; nothing was changed"),
        atomic_write(target) as t,
    ):
        t.write_text("new")
    assert target.read_text() == "old"
    assert files_below(tmp_path) == ["file"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interruption_leaves_the_old_file(tmp_path: Path, error: type[BaseException]) -> None:
    target = tmp_path / "file"
    target.write_text("old")
    with pytest.raises(error), atomic_write(target) as temporary:  # noqa: PT012
        temporary.write_text("new")
        raise error
    assert target.read_text() == "old"
    assert files_below(tmp_path) == ["file"]


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "model" / "v1"
    with pytest.raises(RuntimeError), atomic_folder(target) as folder:  # noqa: PT012
        (folder / "weights").write_text("half")
        raise RuntimeError
    assert files_below(tmp_path) == []
    with atomic_folder(target) as folder:
        (folder / "inner").mkdir()
        (folder / "inner" / "weights").write_text("one")
        assert not target.exists()
    assert (target / "inner" / "weights").read_text() == "one"
    with pytest.raises(LSTMStrategyError, match="exists already"), atomic_folder(target):
        pass
    with pytest.raises(RuntimeError), atomic_folder(target, replace=True) as folder:
        raise RuntimeError
    assert (target / "inner" / "weights").read_text() == "one"
    with atomic_folder(target, replace=True) as folder:
        (folder / "weights").write_text("two")
    assert files_below(tmp_path) == ["weights"]
    assert [path.name for path in target.parent.iterdir()] == ["v1"]


def test_of_two_folders_of_one_name_the_first_stays(tmp_path: Path) -> None:
    target = tmp_path / "run"
    told = f"cannot write {target}: Directory not empty"
    with pytest.raises(LSTMStrategyError, match=told), atomic_folder(target), atomic_folder(target) as other:
        (other / "first").touch()
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert [path.name for path in target.iterdir()] == ["first"]


def test_a_folder_that_cannot_take_its_place_leaves_the_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "v1"
    with atomic_folder(target) as folder:
        (folder / "weights").write_text("old")
    rename, calls = os.rename, []

    def second_fails(source: Path, to: Path) -> None:
        calls.append(to)
        if len(calls) == 2:
            raise OSError(errno.EACCES, "Permission denied")
        rename(source, to)

    monkeypatch.setattr(os, "rename", second_fails)
    with pytest.raises(LSTMStrategyError, match="v1: Permission denied"), atomic_folder(target, replace=True) as folder:
        (folder / "weights").write_text("new")
    assert (target / "weights").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["v1"]


def _merge_part(root: Path, part: int) -> None:
    RawStore(root).merge(some_bars(1_000)[part * 100 : part * 100 + 150])


def test_writers_at_once_lose_nothing(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_merge_part, args=(tmp_path, part)) for part in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0] * 4
    assert same(RawStore(tmp_path).read("SIM.SIM", HOUR), some_bars(1_000)[:450])
