"""The decision log of several instruments: each name's decisions can be made again, read after a kill, and compared."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from engine_support import HOUR
from panel_support import AAA, BBB, CCC, FUTURE, SEPARATE, run_on, tell_each, walks, without

from lstm_strategy import cli
from lstm_strategy.bars import format_ns
from lstm_strategy.console import console
from lstm_strategy.decision import Costs, LimitsConfig, SizingConfig
from lstm_strategy.decision_again import decide_again
from lstm_strategy.decision_log import DECISIONS
from lstm_strategy.decision_log_reader import read_log, read_logs
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.nautilus.panel_backtest import PanelRun
from lstm_strategy.nautilus.seat import Seat
from lstm_strategy.portfolio import PortfolioConfig
from lstm_strategy.report.explain_panel import compare_panels
from lstm_strategy.report.explain_words import explain_row

RISK = PortfolioConfig(method="equal_risk", span=60, scale_span=20)
SIZING = SizingConfig(mode="volatility_target", target_volatility=0.6, tilt=3.0, no_trade_band=0.1, holding_bars=48)
LIMITS = LimitsConfig(
    side="long_short",
    max_exposure=0.5,
    max_gross=0.8,
    max_net=0.6,
    daily_loss=0.02,
    orders_per_day=15,
    max_drawdown=0.9,
)
JOINT = {"max_gross", "max_net", "orders_per_hour", "orders_per_day", "turnover_per_day"}


def told(name: str, ts: int) -> float:
    return 0.002 if (ts // HOUR.ns + 3 * ord(name[0])) % 11 < 6 else -0.002


def made(folder: Path, monkeypatch: pytest.MonkeyPatch, portfolio: PortfolioConfig = RISK, **changes: Any) -> PanelRun:
    tell_each(monkeypatch, told)
    panel = walks(180, seed=2)
    panel[1] = without(panel[1], 100, 101, 150)
    options = {"sizing": SIZING, "limits": LIMITS, "account": "margin", "funding": False, "costs": Costs(fee=0.0005)}
    return run_on(folder, panel, portfolio, FUTURE, run_folder=folder / "run", **options | changes)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> PanelRun:
    folder = tmp_path_factory.mktemp("panel")
    with pytest.MonkeyPatch.context() as patch:
        return made(folder, patch)


def run_of(done: PanelRun) -> Path:
    return Path(done.summary["run_path"])


def explain(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    monkeypatch.setattr(sys, "argv", ["lstm-strategy", "explain", *map(str, words)])
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    return int(exit_.value.code or 0)


def test_every_close_of_every_name_is_there_and_says_what_the_run_did(sound: PanelRun) -> None:
    logs = read_logs(run_of(sound))
    assert list(logs) == [AAA.id, BBB.id, CCC.id]
    for name, log in logs.items():
        assert len(log) == 180
        assert log.header.joint
        assert log.header.others["portfolio"]["method"] == "equal_risk"
        own = pq.read_table(run_of(sound) / "decisions" / f"{name}.parquet", columns=DECISIONS.names)
        rows = sound.tables["decisions"].filter(np.array(sound.tables["decisions"]["instrument"]) == name)
        assert own.replace_schema_metadata().equals(rows.replace_schema_metadata())
    missing = read_log(run_of(sound), BBB.id)
    assert np.flatnonzero(np.isnan(missing.floats("open"))).tolist() == [100, 101, 150]
    words = explain_row(missing, 101)["words"]
    assert "missing; the last close before was" in words["bar"]
    assert words["forecast"] == "None: there was no bar to forecast from."
    assert not list(run_of(sound).parent.glob("*.decisions"))


@pytest.mark.parametrize("portfolio", [RISK, SEPARATE], ids=["equal risk", "separate"])
def test_each_decision_can_be_made_again_from_its_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, portfolio: PortfolioConfig
) -> None:
    done = made(tmp_path, monkeypatch, portfolio)
    joined = again = 0
    for log in read_logs(run_of(done)).values():
        for number in range(len(log)):
            row = log.row(number)
            alone = decide_again(row, log.header_at(number))
            if JOINT & set(row["bound"]) and row["target"] != alone.target:
                joined += 1
                assert abs(row["target"]) <= max(abs(alone.target), abs(row["exposure"])) + 1e-12
                words = explain_row(log, number)["words"]["decision"]
                assert "the limits that all names keep together changed it" in words
            else:
                again += row["reason"] == "rebalance"
                assert alone.target == row["target"], row
                assert (alone.reason.value, alone.exposure) == (row["reason"], row["exposure"])
    assert joined > 10
    assert again > 10


def test_what_a_killed_run_left_can_be_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    act = Seat.act

    def failing(self: Seat, decision: Any, spendable: float | None) -> Any:
        if decision.ts_close == 120 * HOUR.ns:
            raise ZeroDivisionError("planted")
        return act(self, decision, spendable)

    monkeypatch.setattr(Seat, "act", failing)
    with pytest.raises(ZeroDivisionError):
        made(tmp_path, monkeypatch)
    logs = read_logs(tmp_path / "run")
    assert {name: log.ts_close[-1] // HOUR.ns for name, log in logs.items()} == dict.fromkeys(logs, 120)
    assert len(logs) == 3
    with pytest.raises(LSTMStrategyError, match=r"run\.decisions is left from a run that did not finish"):
        made(tmp_path, monkeypatch)


def test_the_command_tells_all_names_in_short_and_one_in_full(
    sound: PanelRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console, "width", 200)  # it may have been made where a test says 80
    at = format_ns(102 * HOUR.ns)
    assert explain(monkeypatch, run_of(sound), "--at", at, "--json") == 0
    shown = capsys.readouterr()
    panel = json.loads(shown.out)["instruments"]
    assert panel[BBB.id]["explained"]["bar"]["reason"] == "stale_data"
    assert panel[AAA.id]["explained"]["bar"]["reason"] != "stale_data"
    assert "stale data" in shown.err
    assert CCC.id in shown.err
    assert explain(monkeypatch, run_of(sound)) == 0
    assert "days halted" in capsys.readouterr().err
    page = tmp_path / "page.html"
    assert explain(monkeypatch, run_of(sound), "--instrument", BBB.id, "--at", at, "--page", page) == 0
    err = capsys.readouterr().err
    assert "missing; the last close before" in err
    assert "other names hold" in err
    assert BBB.id in page.read_text()
    assert explain(monkeypatch, run_of(sound), "--instrument", "X.BINANCE") == 1
    assert "name one of them, not X.BINANCE" in " ".join(capsys.readouterr().err.split())
    assert explain(monkeypatch, run_of(sound), "--page", page) == 1
    assert "name it by --instrument" in " ".join(capsys.readouterr().err.split())


def test_the_name_in_which_two_runs_part_first_is_found(
    sound: PanelRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    same = made(tmp_path / "same", monkeypatch)
    assert explain(monkeypatch, "--diff", run_of(sound), run_of(same)) == 0
    capsys.readouterr()

    def other(name: str, ts: int) -> float:
        return -told(name, ts) if (name, ts) == (CCC.id, 130 * HOUR.ns) else told(name, ts)

    tell_each(monkeypatch, other)
    panel = walks(180, seed=2)
    panel[1] = without(panel[1], 100, 101, 150)
    options = {"sizing": SIZING, "limits": LIMITS, "account": "margin", "funding": False, "costs": Costs(fee=0.0005)}
    planted = run_on(tmp_path, panel, RISK, FUTURE, run_folder=tmp_path / "run", **options)
    name, found = compare_panels(read_logs(run_of(sound)), read_logs(run_of(planted)))
    assert (name, found.stage, found.ts_close) == (CCC.id, "forecast", format_ns(130 * HOUR.ns))
    assert explain(monkeypatch, "--diff", run_of(sound), run_of(planted), "--json") == 1
    shown = capsys.readouterr()
    assert json.loads(shown.out)["instrument"] == CCC.id
    assert f"The bar of {CCC.id} closed at {found.ts_close} differs first in: forecast." in shown.err
    # Alone, another name shows no more than that something else differs.
    assert explain(monkeypatch, "--diff", run_of(sound), run_of(planted), "--instrument", AAA.id, "--json") == 1
    assert json.loads(capsys.readouterr().out)["stage"] in ("state", "decision")
    with pytest.raises(LSTMStrategyError, match="name one that both have with --instrument"):
        compare_panels(read_logs(run_of(sound)), {AAA.id: read_log(run_of(planted), AAA.id)})
