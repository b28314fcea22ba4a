"""The benchmarks' own sums: when a loss was reached, what counts as met, and which runs are on record."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from benchmarks.peers import compare, task
from benchmarks.peers.peer import Clock
from benchmarks.real import main
from benchmarks.real_runs import Run, configuration_of, count, note, read_runs
from lstm_strategy.experiment import Experiment, load_experiment

ROOT = Path(__file__).resolve().parents[1]
OURS = [(1.0, 0.30), (2.0, 0.21), (3.0, 0.20)]
THEIRS = [(5.0, 0.28), (10.0, 0.22), (20.0, 0.23)]


def peer(curve: list[tuple[float, float]]) -> dict[str, object]:
    return {"name": "Peer", "setting": "defaults", "curves": [curve]}


def test_the_loss_to_reach_is_the_worse_of_both_bests() -> None:
    assert compare.equal_loss(OURS, THEIRS, constant=0.32, share=1.0) == pytest.approx(0.22)
    assert compare.equal_loss(OURS, THEIRS, constant=0.32, share=0.95) == pytest.approx(0.225)
    assert compare.reached(OURS, 0.22) == 2.0
    assert compare.reached(THEIRS, 0.22) == 10.0
    assert compare.reached(THEIRS, 0.21) is None


def test_a_peer_is_held_to_the_same_loss_and_gets_no_worse_time_than_its_own() -> None:
    figure = compare.training_figure([OURS], peer(THEIRS), constant=0.32)
    assert (figure.value, figure.rival_value, figure.ratio, figure.met) == (2.0, 10.0, 5.0, True)
    assert "never" not in figure.rival


def test_a_peer_that_never_beats_constant_quantiles_is_said_to_never_get_there() -> None:
    figure = compare.training_figure([OURS], peer([(5.0, 0.5), (7.0, 0.4)]), constant=0.32)
    assert (figure.value, figure.rival_value) == (3.0, 7.0)  # 95 % of our own gain, and the peer's whole time
    assert figure.rival.endswith("never, stopped")
    assert figure.met is False


def test_the_clock_stands_while_it_is_told_to_and_ends_by_patience() -> None:
    def work(seconds: float) -> None:
        until = time.process_time() + seconds
        while time.process_time() < until:
            pass

    clock = Clock(longest=1e9, patience=0.02)
    clock.go()
    work(0.01)
    spent = clock.stand()
    work(0.1)
    assert clock.stand() == spent >= 0.01
    assert clock.note(0.3) is False
    clock.go()
    work(0.05)
    clock.stand()
    assert clock.note(0.4) is True


def test_history_and_walk_forward_are_told_in_bars_a_cpu_second() -> None:
    ours = {"rows": 3_000, "cpu": 0.1, "folds": 4}
    figure = compare.history_figure(ours, peer(THEIRS) | {"history": {"rows": 2_000, "cpu": 4.0}})
    assert (figure.value, figure.rival_value, figure.met) == (30_000, 500, True)
    figure = compare.walk_figure("own", ours | {"cpu": 1.0}, None)
    assert figure.rival_value == compare.RECORDED_FREQAI
    assert "recorded" in figure.rival
    assert figure.met is False


RUN = Run(
    date="2026-01-01",
    configuration="0123abcd",
    what='with "quotes" and a \\',
    folds=3,
    pinball=0.22729,
    best_baseline="lightgbm",
    skill_over_best=-0.0011,
    pinball_last_fold=0.2244,
)


def test_a_run_is_recorded_once_and_other_figures_count_again(tmp_path: Path) -> None:
    path = tmp_path / "runs.toml"
    assert count(path) == 0
    assert note(path, RUN)
    assert read_runs(path) == [RUN]
    assert not note(path, RUN)
    other = Run(**{name: getattr(RUN, name) for name in RUN.__struct_fields__} | {"pinball_last_fold": 0.2245})
    assert note(path, other)
    assert read_runs(path) == [RUN, other]


def test_the_record_in_the_repository_is_readable() -> None:
    assert count(ROOT / "benchmarks" / "real_runs.toml") >= 1


def test_a_configuration_is_what_shapes_the_forecasts() -> None:
    experiment = load_experiment(ROOT / "backtests" / "panel_1h.toml")
    changed = {name: getattr(experiment, name) for name in experiment.__struct_fields__}
    same = Experiment(**changed | {"name": "another"})
    assert configuration_of(same) == configuration_of(experiment)
    fewer = Experiment(**changed | {"data": type(experiment.data)(instruments=("BTCUSDT.BINANCE",), timeframe="1h")})
    assert configuration_of(fewer) != configuration_of(experiment)


def test_without_market_data_the_real_figures_are_skipped_with_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LSTM_STRATEGY_TEST_DATA", str(tmp_path))
    monkeypatch.setattr("sys.argv", ["benchmarks.real"])
    assert task.data_folder() is None
    assert main() == 0
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "LSTM_STRATEGY_TEST_DATA" in told
