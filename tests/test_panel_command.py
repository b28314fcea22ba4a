"""The backtest command on a panel: a walk-forward of two coins on one account, its report, and what is refused."""

from __future__ import annotations

import json
import multiprocessing
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from baseline_support import Constant
from catalog_support import bring_in
from chromium import browse, find_chromium
from command_support import run_cli

from lstm_strategy.cli_jobs import Places, job_of, recorded_job
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.experiment import load_experiment
from lstm_strategy.features import FeaturesConfig
from lstm_strategy.hyperparameters import NetworkConfig, SplitConfig, TargetConfig, TrainConfig, WalkForwardConfig
from lstm_strategy.nautilus import grid
from lstm_strategy.nautilus.parcel import pack, run_away
from lstm_strategy.research import parallel
from lstm_strategy.research.evaluate import evaluate
from lstm_strategy.research.fold_run import Plan
from lstm_strategy.sources.simulate import SimulationConfig, simulate, simulated_instrument

EXPERIMENT = """
name = "two"
[data]
instruments = ["B.SIM", "A.SIM"]
timeframe = "1h"
[split]
fit_end = 2020-03-01
stop_end = 2020-04-01
calibrate_end = 2020-05-01
[target]
horizons = [1]
[network]
hidden = 6
[train]
epochs = 1
batch = 4
chunk = 128
burn_in = 32
[sizing]
holding_bars = 48
no_trade_band = 0.01
[limits]
max_exposure = 0.6
max_gross = 0.9
[portfolio]
span = 120
max_turnover = 0.4
[model]
from = "walk_forward"
"""


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a catalog of two markets, and one fold's evaluation of both."""
    folder = tmp_path_factory.mktemp("two")
    history = []
    for row, name in enumerate(("A.SIM", "B.SIM")):
        market = SimulationConfig(instrument_id=name, bars=2_900, seed=4 + row, edge=0.2)
        bars, instrument = simulate(market), simulated_instrument(market)
        bring_in(folder / "catalog", bars, instrument)
        history.append((bars, instrument))
    plan = Plan(
        name="two",
        history=tuple(history),
        features=FeaturesConfig(),
        target=TargetConfig(horizons=(1,)),
        network=NetworkConfig(hidden=6),
        train=TrainConfig(epochs=1, batch=4, chunk=128, burn_in=32),
        models=folder / "models" / "two" / "folds",
        parts=folder / "runs" / "two" / "folds",
    )
    split = SplitConfig(fit_end="2020-03-01", stop_end="2020-04-01", calibrate_end="2020-05-01")
    walk = WalkForwardConfig(test_bars=240, folds=1, stop_bars=300, calibrate_bars=300)
    evaluate(plan, split, walk, folder / "runs" / "two", {"constant": Constant})
    return folder


def require_drawn(report: Path, place: Path) -> None:
    """In a browser, wide and narrow: no script error, every chart drawn, nothing beyond the edge."""
    browser = find_chromium()
    if browser is None:
        return
    with browse(browser, place / "profile") as page:
        for width in (1280, 390):
            page.open(report, width)
            assert page.errors == []
            charts = page.ask(
                "[...document.querySelectorAll('.chart')].map(chart => [chart.id.slice(6), chart.querySelectorAll("
                "'.scatterlayer path, .barlayer path').length > 0])"
            )
            assert {"exposures", "reasons", "equity", "trades"} <= {name for name, _ in charts}
            assert all(drawn for _, drawn in charts), charts
            items = (
                "[...document.querySelectorAll('body *:not(.scroll *)')]"  # wide tables scroll in a box of their own
            )
            assert page.ask(f"Math.max(...{items}.map(item => item.getBoundingClientRect().right))") <= width


def test_the_command_runs_all_instruments_on_one_account(
    walked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "two.toml"
    path.write_text(EXPERIMENT)
    places = ("--catalog", str(walked / "catalog"), "--runs", str(walked / "runs"), "--models", str(walked / "models"))
    code, out, err = run_cli(monkeypatch, capsys, "backtest", str(path), *places, "--json")
    assert code == 0, err
    summary = json.loads(out)
    folder = Path(summary["run_path"])
    parts = summary["instruments"]
    assert [part["instrument"] for part in parts] == ["A.SIM", "B.SIM"]  # sorted, whatever the file says
    assert summary["orders"] == sum(part["orders"] for part in parts) > 10
    assert min(part["orders"] for part in parts) > 0
    # What the names brought adds up to what the account did.
    gained = sum(part["result"] for part in parts)
    assert gained == pytest.approx(summary["net_return"] * 100_000.0, abs=1e-4)
    assert summary["lowest_cash"] >= 0.0
    equity = pq.read_table(folder / "equity.parquet")
    assert len(equity) == summary["bars"] == 240
    assert equity["gross"].to_numpy().max() <= 0.9 * 1.05  # a cap at the decision; prices move it on
    decisions = pq.read_table(folder / "decisions")
    assert decisions["target"].to_numpy().max() <= 0.6 * 1.02
    by_close = decisions["target"].to_numpy().reshape(2, -1).sum(axis=0)
    assert by_close.max() <= 0.9 * 1.02
    assert {row["name"]: row["error"] for row in summary["beside"]} == {
        "volatility target": "",
        "20-day momentum": "",
        "classical": "",
    }
    page = Path(summary["report"]).read_text()
    for text in ("By instrument", "2 instruments", "equal risk", "Exposure by instrument", "B.SIM", "20-day momentum"):
        assert text in page, text
    require_drawn(Path(summary["report"]), tmp_path)
    code, out, err = run_cli(
        monkeypatch, capsys, "backtest", str(path), *places, "--instrument", "A.SIM", "--no-beside", "--json"
    )
    assert code == 0, err
    alone = json.loads(out)
    assert alone["instrument"] == "A.SIM"
    assert "instruments" not in alone
    assert np.isfinite(alone["net_return"])


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('"B.SIM", "A.SIM"', '"A.SIM", "A.SIM"', "name at least one, each once"),
        ('"B.SIM", "A.SIM"', '"A.SIM", "C.SIM"', "C.SIM"),
        ("max_exposure = 0.6", 'side = "long_short"\nmax_exposure = 0.6', "cannot short"),
        ("span = 120", "span = 3", "portfolio.span is 3; it must be 40 to 100000"),
        ("span = 120", 'method = "equal"', "portfolio.method"),
        ("span = 120", "spam = 120", "portfolio"),
        ("holding_bars = 48", 'mode = "quantile"', 'portfolio.method = "separate"'),
    ],
)
def test_what_cannot_be_is_one_line(
    walked: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    old: str,
    new: str,
    told: str,
) -> None:
    path = tmp_path / "two.toml"
    assert old in EXPERIMENT
    path.write_text(EXPERIMENT.replace(old, new))
    places = ("--catalog", str(walked / "catalog"), "--runs", str(walked / "runs"))
    code, _, err = run_cli(monkeypatch, capsys, "backtest", str(path), *places, "--no-beside")
    assert code == 1
    flat = " ".join(err.split())
    assert told in flat, flat
    assert "Traceback" not in err


def test_costs_and_delays_are_tried_on_all_of_them_together(
    walked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(grid, "MULTIPLES", (0.0, 1.0))
    monkeypatch.setattr(grid, "DELAYS", (0, 2))
    path = tmp_path / "two.toml"
    path.write_text(EXPERIMENT)
    places = ("--catalog", str(walked / "catalog"), "--runs", str(walked / "runs"))
    words = ("backtest", str(path), *places, "--no-beside", "--sensitivity", "--json")
    code, out, err = run_cli(monkeypatch, capsys, *words)
    assert code == 0, err
    summary = json.loads(out)
    table = summary["sensitivity"]["sharpe"]
    assert table[1][0] == summary["sharpe"]
    assert table[0][0] > table[1][0]
    assert table[1][1] != table[1][0]
    assert "Costs and delays" in Path(summary["report"]).read_text()


def test_exits_rest_for_all_of_them(
    walked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "two.toml"
    path.write_text(EXPERIMENT.replace("[model]", "[exits]\nstop = 1.0\npause_bars = 3\n[model]"))
    places = ("--catalog", str(walked / "catalog"), "--runs", str(walked / "runs"))
    code, out, err = run_cli(monkeypatch, capsys, "backtest", str(path), *places, "--json")
    assert code == 0, err
    summary = json.loads(out)
    fills = pq.read_table(Path(summary["run_path"]) / "fills.parquet")
    exits = fills.filter(fills["exit"])
    assert set(exits["instrument"].to_pylist()) == {"A.SIM", "B.SIM"}
    assert summary["execution"]["exits"] == len(exits) > 4
    assert not any(row["error"] for row in summary["beside"])


def arrived(sent: Any) -> Any:
    """What comes out at the other end of a pipe between processes."""
    queue = multiprocessing.get_context("spawn").Queue()
    queue.put(sent)
    try:
        return queue.get(timeout=60)
    finally:
        queue.close()
        queue.join_thread()


def test_a_sweep_runs_all_of_them_on_one_account_anywhere(
    walked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "two.toml"
    path.write_text(EXPERIMENT + '[sweep]\n"limits.max_gross" = [0.7, 0.9]\n')
    places = ("--catalog", str(walked / "catalog"), "--runs", str(walked / "runs"))
    code, out, err = run_cli(monkeypatch, capsys, "sweep", str(path), *places, "--json")
    assert code == 0, err
    summary = json.loads(out)
    assert summary["instruments"] == ["B.SIM", "A.SIM"]
    assert "2 settings on 2 instruments, one account" in err
    code, out, err = run_cli(monkeypatch, capsys, "backtest", str(path), *places, "--no-beside", "--json")
    assert code == 0, err
    alone = json.loads(out)
    (row,) = [row for row in summary["settings"] if row["setting"] == "limits.max_gross=0.9"]
    assert (row["sharpe"], row["orders"], row["fees"]) == (alone["sharpe"], alone["orders"], alone["fees"])

    # What a machine without this one's folders is sent gives the same, to the last bit.
    setup = load_experiment(path)
    job, _ = job_of(setup, None, Places(walked / "catalog", walked / "models", walked / "runs"))
    job = recorded_job(job, tmp_path / "none.parquet")
    files, sent = pack({"it": job})
    here = grid.run_job(job)
    hidden = walked.rename(walked.with_name("hidden"))
    try:
        away = run_away(*arrived((files, sent["it"])))
    finally:
        hidden.rename(walked)
    assert away.figures == here.figures
    np.testing.assert_array_equal(away.equity, here.equity)
    assert here.figures["sharpe"] == alone["sharpe"]
    assert not any(str(walked) in str(value) for value in (sent["it"],))
    with pytest.raises(LSTMStrategyError, match="only recorded forecasts can be sent"):
        pack(
            {
                "it": job_of(setup, None, Places(walked / "catalog", walked / "models", walked / "runs"))[
                    0
                ].__replace__(members=tuple(member.__replace__(model=tmp_path) for member in job.members))
            }
        )


def test_a_sweep_tries_portfolios_exits_and_ways_of_execution(
    walked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each setting is what the experiment with those lines in it does by itself."""
    path = tmp_path / "two.toml"
    grid_of = (
        '"portfolio.method" = ["equal_risk", "separate"]\n"portfolio.max_turnover" = [0.3]\n'
        '"exits.stop" = [1.0]\n"execution.mode" = ["market", "post_only"]\n'
    )
    path.write_text(EXPERIMENT + "[sweep]\n" + grid_of)
    places = ("--catalog", str(walked / "catalog"), "--runs", str(walked / "runs"))
    code, out, err = run_cli(monkeypatch, capsys, "sweep", str(path), *places, "--json")
    assert code == 0, err
    rows = {row["setting"]: row for row in json.loads(out)["settings"]}
    assert len(rows) == 4
    assert len({(row["orders"], row["fees"]) for row in rows.values()}) == 4
    label = "portfolio.method=separate portfolio.max_turnover=0.3 exits.stop=1 execution.mode=post_only"
    own = EXPERIMENT.replace("max_turnover = 0.4", 'max_turnover = 0.3\nmethod = "separate"')
    path.write_text(own + '[exits]\nstop = 1.0\n[execution]\nmode = "post_only"\n')
    code, out, err = run_cli(monkeypatch, capsys, "backtest", str(path), *places, "--no-beside", "--json")
    assert code == 0, err
    alone = json.loads(out)
    assert alone["execution"]["exits"] > 0
    assert [rows[label][name] for name in ("sharpe", "orders", "fees")] == [
        alone[name] for name in ("sharpe", "orders", "fees")
    ]
    # The same settings again, others beside them: what is there is not run again.
    path.write_text(EXPERIMENT + "[sweep]\n" + grid_of.replace("[1.0]", "[1.0, 2.0]"))
    ran: list[Any] = []
    plain = grid.run_job
    monkeypatch.setattr(grid, "run_job", lambda job: ran.append(job) or plain(job))
    code, out, err = run_cli(monkeypatch, capsys, "sweep", str(path), *places, "--json")
    assert code == 0, err
    assert [job.members[0].exits.stop for job in ran] == [2.0] * 4
    again = {row["setting"]: row for row in json.loads(out)["settings"]}
    assert {name: again[name]["sharpe"] for name in rows} == {name: row["sharpe"] for name, row in rows.items()}
    for words, told in (
        (("--instrument", "A.SIM"), "one instrument is no portfolio"),
        ((), 'sweep, portfolio.method=equal_risk sizing.mode=quantile: portfolio.method is "equal_risk", but'),
    ):
        if not words:
            path.write_text(
                EXPERIMENT
                + '[sweep]\n"portfolio.method" = ["equal_risk"]\n"sizing.mode" = ["fixed_fraction", "quantile"]'
            )
        code, _, err = run_cli(monkeypatch, capsys, "sweep", str(path), *places, *words)
        assert code == 1
        assert told in " ".join(err.split())


def test_a_sweep_on_ray_finds_what_one_process_does(
    walked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ray's own workers are tried elsewhere; here a pool in their place, which gets all as a worker does: as bytes."""
    asked: list[tuple[int | None, str | None]] = []
    whole = parallel.open_pool

    @contextmanager
    def pool_of(shared: object, workers: int | None, ray: str | None) -> Iterator[parallel.Pool]:
        asked.append((workers, ray))
        with whole(arrived(shared)) as pool:
            yield pool

    monkeypatch.setattr(parallel, "open_pool", pool_of)
    path = tmp_path / "two.toml"
    path.write_text(EXPERIMENT + '[sweep]\n"limits.max_gross" = [0.7, 0.9]\n')
    found = []
    places = ("--catalog", str(walked / "catalog"), "--runs", str(walked / "runs"))
    for words in ((), ("--ray", "auto", "--workers", "3")):
        for done in (walked / "runs" / "two").glob("sweep-*"):
            shutil.rmtree(done)
        code, out, err = run_cli(monkeypatch, capsys, "sweep", str(path), *places, *words, "--json")
        assert code == 0, err
        found.append(json.loads(out)["settings"])
        assert ("working on this process" in err) == bool(words)
    assert found[0] == found[1]
    assert asked == [(3, "auto")]


def test_a_method_whose_package_is_missing_is_refused(
    walked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = __import__("importlib.util").util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name, *rest: None if name == "skfolio" else found(name, *rest)
    )
    path = tmp_path / "two.toml"
    path.write_text(EXPERIMENT.replace("span = 120", 'method = "mean_cvar"'))
    places = ("--catalog", str(walked / "catalog"), "--runs", str(walked / "runs"))
    code, _, err = run_cli(monkeypatch, capsys, "backtest", str(path), *places, "--no-beside")
    assert code == 1
    assert 'pip install "lstm-strategy[portfolio]"' in " ".join(err.split())
