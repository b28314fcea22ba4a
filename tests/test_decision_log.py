"""The decision log: one row a bar from which the decision can be made again, readable whenever the writer dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from engine_support import HOUR, LOOSE, random_bars, run, tell

from lstm_strategy import atomic
from lstm_strategy.bars import Bar
from lstm_strategy.decision import (
    EXITS,
    FINE,
    Conditions,
    Costs,
    Decision,
    LimitsConfig,
    PortfolioState,
    Reason,
    RiskState,
    Shrinkage,
    SizingConfig,
)
from lstm_strategy.decision_again import decide_again, forecast_of
from lstm_strategy.decision_log import DECISIONS, DecisionLog, Entry, Header, Voice, gather, parts_of
from lstm_strategy.decision_log_reader import read_log
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.forecast import Forecast
from lstm_strategy.nautilus.record import Journal

VOICE = Voice(first=0, version="m/1", shrinkage={}, width=None, bars_per_year=8760.0)
HEADER = Header(
    instrument="BTCUSDT.BINANCE",
    timeframe="1h",
    model="m/1",
    sizing=SizingConfig(),
    limits=LimitsConfig(),
    costs=Costs(),
    voices=(VOICE,),
    features=("one", "two"),
)


def entry(hour: int, *, quantity: float = 0.0, spoken: bool = True, equity: float = 1000.0) -> Entry:
    ts = hour * HOUR.ns
    quantiles = np.array([[-0.01, 0.0, 0.01]], np.float32) * hour
    forecast = Forecast(ts, (1,), (0.1, 0.5, 0.9), quantiles, 0.01) if spoken else None
    return Entry(
        bar=Bar(ts, 10.0, 12.0, 9.0, 11.0, 5.0),
        forecast=forecast,
        x_F=np.array([hour, -hour], np.float32) if spoken else None,
        raw_HQ=quantiles * 2 if spoken else None,
        model="m/1",
        conditions=FINE,
        state=PortfolioState(ts, equity, 0.5, RiskState.start(ts, equity), 0.1),
        position=3.0,
        decision=Decision(ts, 0.5, 0.5, Reason.WITHIN_BAND, ("max_step", "drift")),
        waiting=False,
        action="held",
        quantity=quantity,
    )


def test_what_goes_in_comes_out(tmp_path: Path) -> None:
    log = DecisionLog(tmp_path / "run" / "decisions", HEADER)
    for hour in range(1, 6):
        log.add(entry(hour, spoken=hour > 2))
    log.flush()
    found = read_log(tmp_path / "run")
    assert found.ts_close.tolist() == [hour * HOUR.ns for hour in range(1, 6)]
    assert found.header == HEADER.__replace__(horizons=(1,), levels=(0.1, 0.5, 0.9))
    assert found.row(1)["features"] is found.row(1)["raw"] is found.row(1)["quantiles"] is None
    assert forecast_of(found.row(1), found.header) is None
    row = found.row(3)
    assert (row["features"], row["position"], row["pending"], row["bound"]) == (
        [4, -4],
        3.0,
        0.1,
        ["max_step", "drift"],
    )
    np.testing.assert_array_equal(forecast_of(row, found.header).quantiles_HQ, entry(4).forecast.quantiles_HQ)
    np.testing.assert_array_equal(found.matrix("raw")[3], entry(4).raw_HQ[0])
    assert np.isnan(found.matrix("features")[:2]).all()
    assert found.row(4)["risk"]["peak_equity"] == 1000.0
    assert found.floats("risk.day").tolist() == [0.0] * 5


def test_what_the_driver_knew_is_kept(tmp_path: Path) -> None:
    log = DecisionLog(tmp_path, HEADER)
    known = (FINE, Conditions(stale=True), Conditions(paused=True, exit=sorted(EXITS)[0]))
    for hour, conditions in enumerate(known, start=1):
        log.add(entry(hour)._replace(conditions=conditions))
    log.flush()
    found = read_log(tmp_path)
    assert found.texts("conditions.exit") == ["", "", sorted(EXITS)[0].value]
    assert found.floats("conditions.stale").tolist() == [0.0, 1.0, 0.0]
    last = found.row(2) | {"reason": ""}
    header = found.header.__replace__(voices=(VOICE.__replace__(shrinkage={1: Shrinkage()}),))
    assert decide_again(last, header).reason == sorted(EXITS)[0]


def test_memory_is_bounded_and_parts_are_whole(tmp_path: Path) -> None:
    log = DecisionLog(tmp_path, HEADER, part_rows=10)
    for hour in range(1, 36):
        log.add(entry(hour))
        assert len(log._entries) <= 10
    assert [pq.read_metadata(part).num_rows for part in parts_of(tmp_path)] == [10, 10, 10]
    assert len(read_log(tmp_path)) == 30
    log.flush()
    log.flush()
    assert len(read_log(tmp_path)) == 35
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith("part-")] == []
    gather(tmp_path, tmp_path / "whole.parquet", 35)
    whole = pq.ParquetFile(tmp_path / "whole.parquet")
    assert [whole.metadata.row_group(number).num_rows for number in range(whole.num_row_groups)] == [10, 10, 10, 5]
    assert whole.schema_arrow.names[: len(DECISIONS)] == DECISIONS.names
    with pytest.raises(LSTMStrategyError, match="holds 35 of 36 bars"):
        gather(tmp_path, tmp_path / "whole.parquet", 36)


def test_seconds_bring_it_to_disk_as_well(tmp_path: Path) -> None:
    """Who looks at a young node finds its decisions, and a node of days writes once a minute."""
    now, written = [0.0], []
    log = DecisionLog(tmp_path, HEADER, flush_s=60.0, clock=lambda: now[0])
    for second in range(300):
        now[0] = float(second)
        log.add(entry(second + 1))
        rows = len(read_log(tmp_path)) if parts_of(tmp_path) else 0
        if rows > (written[-1][1] if written else 0):
            written.append((second, rows))
    assert written == [(at, at + 1) for at in (1, 3, 7, 15, 31, 63, 123, 183, 243)]


def test_a_second_look_counts_unless_an_order_was_sent(tmp_path: Path) -> None:
    log = DecisionLog(tmp_path, HEADER, part_rows=2)
    for one in (entry(1), entry(2), entry(2, quantity=1.0), entry(2, equity=7.0), entry(3, equity=5.0), entry(3)):
        log.add(one)
    log.flush()
    found = read_log(tmp_path)
    assert found.floats("quantity").tolist() == [0.0, 1.0, 0.0]
    assert found.floats("equity").tolist() == [1000.0] * 3


def test_a_run_started_anew_goes_on_and_its_later_rows_count(tmp_path: Path) -> None:
    for hours, equity in (((1, 2, 3), 1.0), ((3, 4), 2.0)):
        log = DecisionLog(tmp_path, HEADER)
        for hour in hours:
            log.add(entry(hour, equity=equity))
        log.flush()
    found = read_log(tmp_path)
    assert (found.ts_close // HOUR.ns).tolist() == [1, 2, 3, 4]
    assert found.floats("equity").tolist() == [1.0, 1.0, 2.0, 2.0]
    assert [found.row(row)["equity"] for row in range(4)] == [1.0, 1.0, 2.0, 2.0]


def test_a_full_disk_stops_no_trading_and_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = DecisionLog(tmp_path, HEADER, part_rows=5)
    with monkeypatch.context() as full:
        full.setattr(atomic.os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        for hour in range(1, 31):
            if hour <= 5:
                log.add(entry(hour))
            else:
                with pytest.raises(LSTMStrategyError, match="the disk is full"):
                    log.add(entry(hour))
            assert len(log._entries) <= 11
    log.flush()
    assert log.lost == 20
    assert (read_log(tmp_path).ts_close // HOUR.ns).tolist() == list(range(21, 31))


def test_the_strategy_tells_a_full_disk_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    journal = Journal.__new__(Journal)
    journal._failed, journal._strategy = False, type("", (), {"log": type("", (), {"error": told.append})()})()

    def refuse() -> None:
        raise LSTMStrategyError("cannot write x: the disk is full")

    for act in (refuse, refuse, lambda: None, refuse):
        journal._try(act)
    assert len(told) == 2
    assert told[0].endswith("trading goes on, the decision log will lack bars")


DIES = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from test_decision_log import HEADER, DecisionLog, Path, entry
log = DecisionLog(Path(sys.argv[2]), HEADER, part_rows=50)
for hour in range(1, 10_000):
    log.add(entry(hour))
    if hour == 175:
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_run_leaves_what_was_flushed(tmp_path: Path) -> None:
    left = tmp_path / "run.decisions"
    command = [sys.executable, "-c", DIES, str(Path(__file__).parent), str(left)]
    done = subprocess.run(command, check=False, timeout=120, env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"})
    assert done.returncode == -signal.SIGKILL
    found = read_log(tmp_path / "run")  # by the name that the run would have had
    assert (found.ts_close // HOUR.ns).tolist() == list(range(1, 151))
    assert found.row(149)["features"] == [150.0, -150.0]


def test_a_backtest_writes_it_and_every_decision_can_be_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell(monkeypatch, lambda ts: 0.004 if ts // HOUR.ns % 7 < 4 else -0.004, warmup_bars=20)
    limits = LimitsConfig(max_drawdown=0.5, daily_loss=0.01, max_step=0.4, turnover_per_day=1.5)
    finished = run(tmp_path, random_bars(300), limits=limits, costs=Costs(), run_folder=tmp_path / "run")
    found = read_log(tmp_path / "run")
    assert len(found) == 300
    assert pq.read_table(found.path / "decisions.parquet", columns=DECISIONS.names).equals(finished.tables["decisions"])
    for row in range(len(found)):
        logged = found.row(row)
        decision = decide_again(logged, found.header_at(row))
        assert decision.target == logged["target"]
        assert decision.reason.value == logged["reason"]
        assert list(decision.bound) == logged["bound"]
        assert decision.cancel_opening == logged["cancel_opening"]
    reasons = set(finished.tables["decisions"]["reason"].to_pylist())
    assert {"rebalance", "halt_daily_loss", "no_forecast", "turnover_per_day"} <= reasons


def test_a_run_that_fails_leaves_its_log_and_is_not_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mean(ts: int) -> float:
        if ts == 30 * HOUR.ns:
            raise ZeroDivisionError("planted")
        return 0.001

    tell(monkeypatch, mean)
    with pytest.raises(ZeroDivisionError):
        run(tmp_path, random_bars(60), run_folder=tmp_path / "run")
    assert (read_log(tmp_path / "run").ts_close // HOUR.ns).tolist() == list(range(1, 30))
    with pytest.raises(LSTMStrategyError, match=r"run\.decisions is left from a run that did not finish"):
        run(tmp_path, random_bars(60), run_folder=tmp_path / "run")


def test_nothing_is_written_unless_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tell(monkeypatch, lambda _: 0.001)
    run(tmp_path, random_bars(30), limits=LOOSE)
    assert {path.name for path in tmp_path.iterdir()} == {"catalog"}
