"""Long and short on a perpetual with funding, through the commands alone: a planted signal, every coin accounted."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq
import pytest

from lstm_strategy import artefact, cli, registry
from lstm_strategy.bars import Bars, format_ns
from lstm_strategy.cli_tables import print_backtest
from lstm_strategy.console import console
from lstm_strategy.forecast import mean_of
from lstm_strategy.sources.simulate import SimulationConfig, simulate

NAME = "XYZUSDT_PERP.SIM"
HOUR = 3_600_000_000_000
EXPERIMENT = """name = "perp"
[data]
instruments = ["XYZUSDT_PERP.SIM"]
timeframe = "1h"
[split]
fit_end = 2020-07-01
stop_end = 2020-08-01
calibrate_end = 2020-10-01
[features]
features = [{ kind = "return", span = 1 }, { kind = "parkinson", span = 24 }]
[target]
horizons = [1]
[network]
hidden = 8
[train]
epochs = 15
patience = 5
batch = 4
mirror = 0.5
seed = 3
[sizing]
mode = "mean_variance"
horizon = 1
kelly_fraction = 0.1
[limits]
side = "long_short"
max_exposure = 1.5
max_step = 3.0
daily_loss = 0.2
max_drawdown = 0.5
[costs]
fee = 0.0002
spread = 0.0001
slippage = 0.0
[backtest]
account = "margin"
"""


class Perp:
    """What the commands left of a market in which a bar's return leans on the one before."""

    def __init__(self, folder: Path, call: Any) -> None:
        config = SimulationConfig(
            instrument_id=NAME, bars=7_800, seed=11, volatility=0.6, edge=0.3, start="2020-01-01", price=500.0
        )
        self.bars: Bars = simulate(config)
        opens = [format_ns(int(ts) - HOUR) for ts in self.bars.ts_close]
        columns = {name: getattr(self.bars, name) for name in ("open", "high", "low", "close", "volume")}
        csv.write_csv(pa.table({"ts": opens, **columns}), folder / "bars.csv")
        self.rate_ts = np.arange(
            int(self.bars.ts_close[0]) // (8 * HOUR) + 1, int(self.bars.ts_close[-1]) // (8 * HOUR)
        )
        self.rate_ts = self.rate_ts * 8 * HOUR
        self.rates = np.round(np.random.default_rng(1).normal(1e-4, 2e-4, len(self.rate_ts)), 8)
        stamps = [format_ns(int(ts)) for ts in self.rate_ts]
        csv.write_csv(pa.table({"ts": stamps, "rate": self.rates}), folder / "funding.csv")
        (path := folder / "perp.toml").write_text(EXPERIMENT)
        places = ("--catalog", str(folder / "catalog"))
        call("data", "import", str(folder / "bars.csv"), "--instrument", NAME, "--kind", "perpetual", "--base", "XYZ",
             "--quote", "USDT", "--timeframe", "1h", "--lot", "0.001", "--min-notional", "5", "--funding",
             str(folder / "funding.csv"), *places)  # fmt: skip
        places += ("--models", str(folder / "models"))
        self.trained = call("train", str(path), *places, "--json")
        self.summary = call("backtest", str(path), *places, "--runs", str(folder / "runs"), "--json")
        self.run = Path(self.summary["run_path"])
        self.models = folder / "models"

    def table(self, name: str, *columns: str) -> dict[str, np.ndarray]:
        table = pq.read_table(self.run / f"{name}.parquet", columns=list(columns))
        return {
            column: table[column].cast(pa.int64()).to_numpy()
            if pa.types.is_timestamp(table[column].type)
            else np.array(table[column].to_pylist())
            for column in columns
        }


@pytest.fixture(scope="module")
def perp(tmp_path_factory: pytest.TempPathFactory) -> Perp:
    folder = tmp_path_factory.mktemp("perp")
    patch = pytest.MonkeyPatch()

    def call(*words: str) -> Any:
        out = folder / "out.json"
        with out.open("w") as stream, patch.context() as here:
            here.setattr(sys, "argv", ["lstm-strategy", *words])
            here.setattr(sys, "stdout", stream)
            with pytest.raises(SystemExit) as ended:
                cli.main()
        assert not ended.value.code, words
        return json.loads(out.read_text()) if "--json" in words else None

    return Perp(folder, call)


def test_the_forecasts_decide_the_side(perp: Perp) -> None:
    """Believed means alone make orders: the target's side is the shrunk mean's, and both sides are held for long."""
    assert perp.trained["directional_skill"].startswith("found at 1 bar")
    decisions = perp.table("decisions", "ts_close", "scale", "reason", "target", "exposure")
    forecasts = perp.table("forecasts", "ts_close", "levels", "quantiles")
    levels = tuple(forecasts["levels"][0])
    means = mean_of(np.array(forecasts["quantiles"].tolist())[:, None, :], levels)[:, 0]
    (belief,) = artefact.load(registry.current(perp.models, "perp")).manifest.shrinkage
    mean_at = dict(zip(forecasts["ts_close"].tolist(), means.tolist(), strict=True))
    scale_at = dict(zip(decisions["ts_close"].tolist(), decisions["scale"].tolist(), strict=True))
    sent = [row for row, reason in enumerate(decisions["reason"]) if reason == "rebalance"]
    assert len(sent) > 150
    for row in sent:
        ts = int(decisions["ts_close"][row])
        believed = belief.slope * (mean_at[ts] - belief.centre * scale_at[ts])
        assert np.sign(decisions["target"][row]) == np.sign(believed)
    held = decisions["exposure"]
    assert (held > 0.05).mean() > 0.25
    assert (held < -0.05).mean() > 0.25
    turns = np.count_nonzero(np.diff(np.sign(held[np.abs(held) > 0.05])))
    assert turns > 100


def test_funding_is_paid_and_earned_on_what_was_held_when_it_fell_due(perp: Perp) -> None:
    """Each rate times the position and its value at that stamp, from the fills: nothing else moves the account."""
    fills = perp.table("fills", "ts_filled", "side", "quantity", "price", "fee")
    equity = perp.table("equity", "ts_close", "equity")
    signed = fills["quantity"] * np.where(fills["side"] == "buy", 1.0, -1.0)
    first, last = int(equity["ts_close"][0]), int(equity["ts_close"][-1])
    paid = received = 0.0
    count = 0
    for ts, rate in zip(perp.rate_ts.tolist(), perp.rates.tolist(), strict=True):
        position = signed[fills["ts_filled"] <= ts].sum()
        row = np.searchsorted(perp.bars.ts_close, ts)
        if not first <= ts < last or abs(position) < 1e-9:
            continue
        owed = position * perp.bars.close[row] * rate
        paid, received, count = paid + max(owed, 0.0), received + max(-owed, 0.0), count + 1
    carry = perp.summary["carry"]
    assert carry["fundings"] == pytest.approx(count, abs=1)
    assert carry["funding_paid"] == pytest.approx(paid, rel=2e-3)
    assert carry["funding_received"] == pytest.approx(received, rel=2e-3)
    assert min(paid, received) > 50.0
    # Cash, trades at their prices, fees and funding are all that there is.
    cash = 100_000.0 - (signed * fills["price"]).sum() - fills["fee"].sum()
    cash += carry["funding_received"] - carry["funding_paid"]
    worth = cash + signed.sum() * perp.bars.close[-1]
    assert equity["equity"][-1] == pytest.approx(worth, rel=1e-9)
    assert perp.summary["net_return"] == pytest.approx(worth / 100_000.0 - 1.0, rel=1e-9)


def test_the_console_says_which_margin_rule_held_and_what_a_sign_means(
    perp: Perp, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "width", 170)  # whatever the tests' own terminal says
    row = perp.summary["by_horizon"][0] | {"pinball": 1.01, "pinball_baseline": 1.0}
    print_backtest(perp.summary | {"by_horizon": [row]})
    told = capsys.readouterr().err
    assert f"margin: {perp.summary['margin']}\n" in told
    assert "−1.00\N{NO-BREAK SPACE}%" in told
    assert "better (+) or worse (−)" in told


def test_the_planted_signal_earns_on_both_sides_and_the_report_shows_it(perp: Perp) -> None:
    equity, decisions = perp.table("equity", "equity"), perp.table("decisions", "exposure")
    moved = np.diff(perp.bars.close[-len(equity["equity"]) :]) / perp.bars.close[-len(equity["equity"]) : -1]
    held = np.append(decisions["exposure"][1:], 0.0)[: len(moved)]
    for side in (1.0, -1.0):
        assert (held * moved)[held * side > 0.0].sum() > 0.05
    assert perp.summary["sharpe"] > 3.0
    assert {rule["name"] for rule in perp.summary["beside"]} == {"volatility target", "20-day momentum"}
    assert not any(rule["error"] for rule in perp.summary["beside"])
    page = (perp.run / "report.html").read_text(encoding="utf-8")
    assert perp.summary["margin"].startswith("margin account: one maintenance rate, 5")
    assert perp.summary["margin"].replace("'", "&#39;") in page
    assert f"Funding, {perp.summary['carry']['fundings']} times" in page
    assert '<table id="tails">' in page
    assert perp.summary["liquidations"] == []
