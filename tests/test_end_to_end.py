"""The whole way on three markets: one with nothing to find, one with a planted edge, and real bitcoin."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
from command_support import run_cli
from scipy.stats import norm, spearmanr

from lstm_strategy import artefact
from lstm_strategy.decision import Costs, LimitsConfig, SizingConfig
from lstm_strategy.features import FeaturesConfig
from lstm_strategy.forecast import mean_of
from lstm_strategy.forecaster import Forecaster
from lstm_strategy.hyperparameters import NetworkConfig, SplitConfig, TargetConfig, TrainConfig
from lstm_strategy.measures import labels, pinball
from lstm_strategy.nautilus.backtest import BacktestSettings, run_backtest
from lstm_strategy.nautilus.catalog import write_catalog
from lstm_strategy.report.page import write_report
from lstm_strategy.research.fit import fit_model
from lstm_strategy.sources.simulate import SimulationConfig, simulate, simulated_instrument

SPLIT = SplitConfig(fit_end="2022-03-31", stop_end="2022-07-31", calibrate_end="2022-12-31")
TEST_START = SPLIT.spans()["test"][0]
DAY = 86_400_000_000_000
VOLATILITY = 0.6


class Market:
    """A simulated market with a model trained on it."""

    def __init__(self, folder: Path, **settings) -> None:
        config = SimulationConfig(bars=32_000, seed=100, volatility=VOLATILITY, **settings)
        self.bars, self.instrument, self.catalog = simulate(config), simulated_instrument(config), folder / "catalog"
        write_catalog(self.catalog, self.bars, self.instrument)
        fitted = fit_model(
            "market",
            [(self.bars, self.instrument)],
            FeaturesConfig(),
            TargetConfig(horizons=(1, 6)),
            SPLIT,
            NetworkConfig(hidden=24),
            TrainConfig(epochs=20, patience=6, seed=1),
            folder / "models",
        )
        self.model = fitted.path
        self.manifest = fitted.manifest

    def test_span(self):
        """Raw outcomes, raw quantiles and forecast means of the next bar over the test span."""
        forecasts = Forecaster(artefact.load(self.model), self.bars.instrument_id).run(self.bars)
        kept = self.bars.ts_close > TEST_START
        hour = self.bars.timeframe.ns
        outcome = labels(self.bars.close, self.bars.ts_close, np.ones(len(self.bars)), 1, hour)[kept]
        quantiles = forecasts.quantiles_THQ[kept, 0].astype(float)
        known = np.isfinite(outcome)
        return outcome[known], quantiles[known], mean_of(quantiles[known], forecasts.levels), forecasts.levels

    def backtest(self, **changes):
        settings = {
            "catalog": self.catalog,
            "instrument_id": self.bars.instrument_id,
            "timeframe": "1h",
            "model": self.model,
            "start": TEST_START,
            "limits": LimitsConfig(daily_loss=0.5, max_drawdown=0.9),
            "tearsheet": False,
        }
        return run_backtest(BacktestSettings(**(settings | changes))).summary


@pytest.fixture(scope="module")
def null(tmp_path_factory):
    return Market(tmp_path_factory.mktemp("null"), noise=True)


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    return Market(tmp_path_factory.mktemp("planted"), edge=0.15)


def test_nothing_is_found_where_nothing_is(null):
    outcome, quantiles, mean, levels = null.test_span()
    assert [shrinkage.slope for shrinkage in null.manifest.shrinkage] == [0.0, 0.0]
    assert spearmanr(mean, outcome, alternative="greater").pvalue > 0.05
    sigma = VOLATILITY / np.sqrt(365 * 24)
    oracle = norm.ppf(levels, loc=-(sigma**2) / 2, scale=sigma)
    assert pinball(outcome, quantiles, levels) >= pinball(outcome, oracle, levels)


def test_noise_traded_without_a_band_loses_its_fees(null):
    sizing = SizingConfig(mode="volatility_target", horizon=1, target_volatility=0.4, no_trade_band=0.0)
    end = TEST_START + 100 * DAY
    free = null.backtest(sizing=sizing, costs=Costs(fee=0.0), end=end)
    paid = null.backtest(sizing=sizing, costs=Costs(fee=0.001), end=end)
    assert paid["orders"] > 500
    assert paid["fees"] > 0
    lost = free["net_return"] - paid["net_return"]
    assert lost == pytest.approx(paid["fees"] / 100_000, rel=0.25)


def test_noise_is_not_traded_for_its_mean(null):
    summary = null.backtest(sizing=SizingConfig(mode="mean_variance", horizon=1), costs=Costs(fee=0.0001))
    assert summary["orders"] == 0
    assert summary["net_return"] == 0.0


def test_a_planted_edge_is_found(planted):
    outcome, _, mean, _ = planted.test_span()
    assert planted.manifest.shrinkage[0].slope > 0.3
    assert planted.manifest.shrinkage[0].p < 0.001
    found = spearmanr(mean, outcome)
    assert found.statistic > 0.08
    assert found.pvalue < 1e-6


def test_a_planted_edge_is_earned_at_once_and_gone_one_bar_later(planted):
    sizing, costs = SizingConfig(mode="mean_variance", horizon=1), Costs(fee=0.0001)
    limits = LimitsConfig(side="long_short", daily_loss=0.5, max_drawdown=0.9)
    at_once, late = (
        planted.backtest(
            sizing=sizing, costs=costs, limits=limits, account="margin", delay=delay, end=TEST_START + 120 * DAY
        )
        for delay in (0, 1)
    )
    assert at_once["sharpe"] > 2.0
    assert at_once["net_return"] > 0.2
    assert late["net_return"] < at_once["net_return"] / 4
    assert late["sharpe"] < 1.0


def test_live_forecasts_of_a_backtest_are_those_of_the_history(planted, tmp_path):
    folder = tmp_path / "run"
    sizing = SizingConfig(mode="mean_variance", horizon=1)
    planted.backtest(run_folder=folder, sizing=sizing, end=TEST_START + 60 * DAY)
    import pyarrow.parquet as pq

    lived = pq.read_table(folder / "forecasts.parquet", filters=[("horizon", "=", 1)]).to_pydict()
    forecasts = Forecaster(artefact.load(planted.model), planted.bars.instrument_id).run(planted.bars)
    rows = np.searchsorted(planted.bars.ts_close, [int(ts.value) for ts in lived["ts_close"]])
    history = forecasts.quantiles_THQ[rows, 0] / forecasts.scale_T[rows, None]
    stepped = np.array(lived["quantiles"]) / np.array(lived["scale"])[:, None]
    # The backtest started cold, one warm-up before; the history ran from the beginning.
    np.testing.assert_allclose(stepped, history, atol=1e-3)


def test_real_bitcoin_from_file_to_report(data_folder, tmp_path, monkeypatch, capsys):
    experiment = str(Path(__file__).parents[1] / "backtests" / "btcusdt_1h.toml")
    monkeypatch.chdir(tmp_path)
    file = str(data_folder / "crypto" / "BTCUSDT-1h.parquet")
    market = ("--instrument", "BTCUSDT.BINANCE", "--timeframe", "1h")
    for added in (64_524, 0):
        code, out, _ = run_cli(monkeypatch, capsys, "data", "import", file, *market, "--stamp", "open", "--json")
        assert (code, json.loads(out)["added"]) == (0, added)

    code, out, _ = run_cli(monkeypatch, capsys, "data", "check", "--json")
    checked = json.loads(out)
    assert code == 0
    expected = {"bars": 64_524, "gaps": 28, "missing_bars": 128, "largest_gap_bars": 33, "duplicates": 0}
    assert {key: checked[key] for key in expected} == expected
    assert checked["ohlc_violations"] == 0
    assert checked["errors"] == []
    assert run_cli(monkeypatch, capsys, "data", "check", "--strict")[0] == 1

    code, out, _ = run_cli(monkeypatch, capsys, "train", experiment, "--json")
    trained = json.loads(out)
    assert code == 0
    assert trained["pinball"] < trained["pinball_baseline"]

    code, out, _ = run_cli(monkeypatch, capsys, "forecast", experiment, "--json")
    forecast = json.loads(out)
    assert forecast["ts"] == "2025-01-01T00:00:00Z"
    assert np.array(forecast["quantiles"]).shape == (len(forecast["horizons"]), len(forecast["levels"]))
    assert forecast["model_version"] == trained["version"]

    code, out, _ = run_cli(monkeypatch, capsys, "backtest", experiment, "--json")
    tested = json.loads(out)
    assert code == 0
    assert tested["bars"] == tested["decisions"] == 8_784
    assert tested["pinball"] < tested["pinball_baseline"]
    assert tested["coverage_80"] == pytest.approx(0.80, abs=0.05)
    assert tested["coverage_98"] == pytest.approx(0.98, abs=0.02)
    assert tested["orders"] > 0
    assert tested["fees"] > 0
    assert tested["buy_and_hold"]["net_return"] == pytest.approx(1.200, abs=0.01)
    run = tmp_path / tested["run_path"]
    tables = ("orders", "fills", "positions", "equity", "decisions", "forecasts")
    assert {path.name for path in run.iterdir()} == {
        *(f"{name}.parquet" for name in tables),
        "beside.parquet",
        "summary.json",
        "tearsheet.html",
        "report.html",
    }
    assert run_cli(monkeypatch, capsys, "models", "verify", "btcusdt_1h", "--json")[1] == '{"ok":true,"reason":""}\n'


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("traain",), 2, "Did you mean 'train'?"),
        (("train",), 2, "Missing argument"),
        (("train", "nowhere.toml"), 1, "nowhere.toml: no such file"),
        (("models", "verify", "nobody"), 1, "no model 'nobody'"),
        (("backtest", "wrong.toml"), 1, "unknown key network.hiden; did you mean network.hidden?"),
        (("train", "empty.toml"), 1, "BTCUSDT.BINANCE"),
        (("data", "import", "no.csv", "--instrument", "A.B", "--timeframe", "1h"), 1, "no.csv"),
    ],
)
def test_a_mistake_is_one_line(words, code, told, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    text = (Path(__file__).parents[1] / "backtests" / "btcusdt_1h.toml").read_text()
    Path("empty.toml").write_text(text)
    Path("wrong.toml").write_text(text.replace("hidden", "hiden"))
    ended, out, err = run_cli(monkeypatch, capsys, *words)
    assert ended == code
    assert out == ""
    assert told in err
    assert len(err.strip().splitlines()) == 1
    assert "Traceback" not in err


def test_debug_shows_the_traceback(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    _, _, err = run_cli(monkeypatch, capsys, "--debug", "train", "nowhere.toml")
    assert "Traceback" in err


def test_a_model_of_other_features_or_timeframe_is_refused(planted, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    text = (Path(__file__).parents[1] / "backtests" / "demo.toml").read_text()
    models, catalog = str(planted.model.parents[1]), str(planted.catalog)
    label = f"market/{planted.manifest.version}"
    for name, old, new, told in (
        ("features.toml", "[target]", "[features]\nscale_span = 24\n[target]", "other features"),
        ("timeframe.toml", 'timeframe = "1h"', 'timeframe = "4h"', "trained on 1h bars, not 4h"),
        ("instrument.toml", "DEMOUSDT.SIM", "OTHER.SIM", "was not trained on OTHER.SIM"),
    ):
        Path(name).write_text(text.replace(old, new))
        words = ("backtest", name, "--model", label, "--models", models, "--catalog", catalog)
        code, _, err = run_cli(monkeypatch, capsys, *words)
        assert code == 1
        assert told in err


def test_a_backtest_on_bars_the_model_has_seen_is_refused(planted, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    text = (Path(__file__).parents[1] / "backtests" / "demo.toml").read_text()
    # The split of the file lies about a model that was trained on later bars.
    Path("leak.toml").write_text(text.replace("DEMOUSDT.SIM", "SIM.SIM"))
    label = f"market/{planted.manifest.version}"
    words = ("backtest", "leak.toml", "--model", label, "--models", str(planted.model.parents[1]))
    code, _, err = run_cli(monkeypatch, capsys, *words, "--catalog", str(planted.catalog))
    assert code == 1
    assert "was trained on bars up to 2023-01-01T00:00:00Z" in err or "2022-12-31" in err
    assert "--in-sample" in err


def test_a_run_in_sample_says_so_in_summary_and_report(planted, tmp_path):
    early = int(TEST_START) - 20 * DAY
    summary = planted.backtest(start=early, end=TEST_START + 20 * DAY, run_folder=tmp_path / "run")
    assert summary["in_sample"]
    assert "In sample: the model was trained on bars up to" in (tmp_path / "run" / "summary.json").read_text()
    assert "In sample: the model was trained on bars up to" in write_report(tmp_path / "run").read_text()
    assert not planted.backtest(end=TEST_START + 20 * DAY)["in_sample"]


def test_ctrl_c_keeps_the_checkpoint_and_the_same_command_goes_on(tmp_path):
    import signal
    import subprocess
    import time

    program = [str(Path(sys.executable).with_name("lstm-strategy"))]
    simulated = ["data", "simulate", "--instrument", "DEMOUSDT.SIM", "--timeframe", "1h", "--bars", "24000"]
    subprocess.run([*program, *simulated], cwd=tmp_path, check=True, capture_output=True, timeout=120)
    text = (Path(__file__).parents[1] / "backtests" / "demo.toml").read_text()
    (tmp_path / "demo.toml").write_text(text.replace("epochs = 40", "epochs = 400\npatience = 400"))
    with subprocess.Popen([*program, "train", "demo.toml"], cwd=tmp_path, stderr=subprocess.PIPE, text=True) as running:
        try:
            deadline = time.monotonic() + 120
            while not list(tmp_path.glob("models/demo/.checkpoint-*")) and time.monotonic() < deadline:
                time.sleep(0.1)
            time.sleep(1.0)
            running.send_signal(signal.SIGINT)
            _, err = running.communicate(timeout=180)  # a busy machine is slow to end
        finally:
            running.kill()
    assert running.returncode == 130
    assert "interrupted" in err
    assert len(list(tmp_path.glob("models/demo/.checkpoint-*.safetensors"))) == 1
    assert not list(tmp_path.glob("models/demo/*/manifest.json"))


def test_summary_survives_json(null):
    summary = null.backtest(sizing=SizingConfig(mode="mean_variance", horizon=1), end=TEST_START + 20 * DAY)
    assert json.loads(msgspec.json.encode(summary))["sharpe"] is None  # no order, no variation, no number
