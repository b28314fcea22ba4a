"""`explain`: words and a picture for every bar; faults planted in live stepping are found at their bar, by name."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from chromium import browse, find_chromium
from engine_support import HOUR, LOOSE, SPOT, make_bars, random_bars, tell
from engine_support import run as run_told

from lstm_strategy import cli
from lstm_strategy.bars import Bar, Bars, format_ns
from lstm_strategy.decision import Costs, LimitsConfig, SizingConfig
from lstm_strategy.decision_log_reader import read_log
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.features import Features
from lstm_strategy.nautilus.backtest import BacktestSettings, run_backtest
from lstm_strategy.nautilus.catalog import write_catalog
from lstm_strategy.report.explain_diff import Difference, compare
from lstm_strategy.report.explain_words import explain_row, sum_up_log

FIRST, BARS = 600, 700  # the first traded row, and all of them
FAULT = 640  # its row
COSTS = Costs(fee=0.001)
SIZING = SizingConfig(horizon=4, target_volatility=0.5, holding_bars=48)

Make = Callable[..., Path]


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory, tiny_artefact: Path) -> Make:
    """Run the tiny model over a catalog; return the run folder."""

    def make(bars: Bars | None = None, **changes: Any) -> Path:
        folder = tmp_path_factory.mktemp("explain")
        held = random_bars(BARS) if bars is None else bars
        write_catalog(folder / "catalog", held, SPOT)
        options = {"sizing": SIZING, "costs": COSTS, "limits": LimitsConfig()} | changes
        run_backtest(
            BacktestSettings(
                catalog=folder / "catalog",
                instrument_id=SPOT.id,
                timeframe="1h",
                model=tiny_artefact,
                start=FIRST * HOUR.ns,
                run_folder=folder / "run",
                tearsheet=False,
                **options,
            )
        )
        return folder / "run"

    return make


@pytest.fixture(scope="module")
def sound(make: Make) -> Path:
    return make()


def differ(a: Path, b: Path, **options: Any) -> Difference:
    return compare(read_log(a), read_log(b), **options)


def close_of(row: int) -> str:
    return format_ns((row + 1) * HOUR.ns)


def command(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    monkeypatch.setattr(sys, "argv", ["lstm-strategy", "explain", *map(str, words)])
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    return int(exit_.value.code or 0)


def test_a_run_does_not_differ_from_itself(
    sound: Path, make: Make, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    again = make()
    assert (found := differ(sound, again)).stage is None
    assert (found.compared, found.bars, found.cells, found.settings) == (BARS - FIRST, {}, (), ())
    assert command(monkeypatch, "--diff", sound, again, "--json") == 0
    told = capsys.readouterr()
    assert json.loads(told.out)["same"] is True
    assert "No difference." in told.err


def test_a_bar_skipped_by_the_features_is_found(sound: Path, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Features.update

    def skipping(self: Features, bar: Bar, *rest: Any) -> Any:
        if bar.ts_close == (FAULT + 1) * HOUR.ns:
            return self._out, 0.01
        return whole(self, bar, *rest)

    monkeypatch.setattr(Features, "update", skipping)
    found = differ(sound, make())
    assert (found.stage, found.ts_close) == ("features", close_of(FAULT))
    names = {cell.name for cell in found.cells if cell.stage == "features"}
    assert {"return_1", "return_4", "scale", "hour_sin_1"} <= names
    assert "gap" not in names
    assert "of run B did not move from the bar before, as if this bar had been skipped" in found.why[0]
    assert "return_1" in found.why[0]
    assert found.bars["features"] > 40  # it never recovers


def test_one_feature_that_is_wrong_is_named(sound: Path, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Features.update

    def wrong(self: Features, bar: Bar, *rest: Any) -> Any:
        row = whole(self, bar, *rest)
        if row is not None and bar.ts_close >= (FAULT + 1) * HOUR.ns:
            row[0][self.config.names.index("rsi_14")] += np.float32(1e-6)
        return row

    monkeypatch.setattr(Features, "update", wrong)
    planted = make()
    found = differ(sound, planted)
    assert (found.stage, found.ts_close) == ("features", close_of(FAULT))
    (cell,) = [cell for cell in found.cells if cell.stage == "features"]
    assert cell.name == "rsi_14"
    assert cell.by == pytest.approx(1e-6, rel=0.1)
    assert found.bars["features"] == BARS - FAULT
    assert any("fault in stepping" in why for why in found.why)
    tolerant = differ(sound, planted, tolerance=1e-5, stages=("bar", "features"))
    assert tolerant.stage is None


def test_a_scale_that_lags_by_one_bar_is_found(sound: Path, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, before = Features.update, [0.01]

    def lagging(self: Features, bar: Bar, *rest: Any) -> Any:
        row = whole(self, bar, *rest)
        if row is None:
            return row
        before.append(row[1])
        return (row[0], before[-2]) if bar.ts_close >= (FAULT + 1) * HOUR.ns else row

    monkeypatch.setattr(Features, "update", lagging)
    found = differ(sound, make())
    assert (found.stage, found.ts_close) == ("features", close_of(FAULT))
    assert [cell.name for cell in found.cells if cell.stage == "features"] == ["scale"]
    assert found.why[0].startswith("scale of run B lags by one bar")
    assert not any(cell.name.startswith("raw") for cell in found.cells)  # the network saw the same
    assert any(cell.name == "quantile 0.01 at 1 bars" for cell in found.cells)


def test_a_network_that_lost_its_state_is_told_from_the_features(
    sound: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lstm_strategy import forecaster

    whole = forecaster.Forecaster.update

    def losing(self: Any, bar: Bar, *rest: Any) -> Any:
        if bar.ts_close == (FAULT + 1) * HOUR.ns:
            self._network.reset()
        return whole(self, bar, *rest)

    monkeypatch.setattr(forecaster.Forecaster, "update", losing)
    found = differ(sound, make())
    assert (found.stage, found.ts_close) == ("forecast", close_of(FAULT))
    assert found.cells[0].name.startswith("raw quantile")
    assert any("hidden state" in why for why in found.why)


def test_other_costs_are_found_in_the_decision(
    sound: Path, make: Make, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    other = make(costs=Costs(fee=0.0002), charged=COSTS)  # the venue charges the same
    found = differ(sound, other)
    assert found.stage == "decision"
    assert found.cells[0].name in {"target", "reason", "action", "quantity"}
    assert "costs.fee: 0.001 against 0.0002" in found.settings
    assert "with B's costs alone, run A would have decided as B did" in found.why[0]
    assert {"bar", "features", "forecast"}.isdisjoint(found.bars)
    assert command(monkeypatch, "--diff", sound, other) == 1
    told = capsys.readouterr().err
    assert f"The bar closed at {found.ts_close} differs first in: decision." in told
    assert command(monkeypatch, "--diff", sound, other, "--stage", "features", "--stage", "forecast") == 0


def test_what_the_venue_charges_is_found_in_the_state(sound: Path, make: Make) -> None:
    found = differ(sound, make(charged=Costs(fee=0.004)))
    assert found.stage == "state"
    assert "equity" in {cell.name for cell in found.cells}
    assert "charged otherwise" in found.why[0]
    sent = np.flatnonzero(read_log(sound).floats("quantity"))
    assert found.ts_close == close_of(FIRST + int(sent[0]) + 1)
    assert found.settings == ()  # the strategy was told the same
    assert f"decided at {close_of(FIRST + int(sent[0]))}" in found.why[0]


def test_a_fill_that_is_late_is_found_with_its_setting(sound: Path, make: Make) -> None:
    found = differ(sound, make(delay=2))
    assert found.stage == "state"
    assert {"position", "pending"} <= {cell.name for cell in found.cells}
    assert "delay_bars: 0 against 2" in found.settings
    assert "other settings: delay_bars: 0 against 2" in found.why


def test_other_bars_are_found(sound: Path, make: Make) -> None:
    bars = random_bars(BARS)
    volume = bars.volume.copy()
    volume[FAULT] += 1.0
    columns = (bars.open, bars.high, bars.low, bars.close)
    found = differ(sound, make(Bars(SPOT.id, HOUR, bars.ts_close, *columns, volume)))
    assert (found.stage, found.ts_close) == ("bar", close_of(FAULT))
    assert (found.cells[0].name, found.cells[0].by) == ("volume", 1.0)
    assert found.bars["bar"] == 1


def test_a_bar_missing_in_one_run_is_found(sound: Path, make: Make) -> None:
    bars = random_bars(BARS)
    kept = np.ones(BARS, bool)
    kept[FAULT] = False
    holed = make(make_bars(bars.open, bars.close, keep=kept))
    for pair, lacking in (((sound, holed), "run B"), ((holed, sound), "run A")):
        found = differ(*pair)
        assert (found.stage, found.ts_close) == ("missing", close_of(FAULT))
        assert lacking in found.why[0]
        assert found.bars["missing"] == 1
    assert sum_up_log(read_log(holed))["missing"] == [{"after": close_of(FAULT - 1), "bars": 1}]


def test_only_the_span_of_both_is_compared(sound: Path, tmp_path: Path) -> None:
    left = tmp_path / "cut.decisions"
    left.mkdir()
    table = pq.read_table(sound / "decisions.parquet")
    pq.write_table(table.slice(20, 50), left / "part-000000.parquet")
    found = differ(sound, tmp_path / "cut")
    assert (found.stage, found.compared) == (None, 50)
    assert found.notes == ("run A has 20 bars before and 30 after the span that is compared",)


def test_the_words_of_a_bar_say_what_was_done_and_why_not(sound: Path) -> None:
    log = read_log(sound)
    reasons, quantity = log.texts("reason"), log.floats("quantity")
    row = reasons.index("within_no_trade_band")
    said = explain_row(log, row)
    words = said["words"]
    assert words["bar"].startswith(f"BTCUSDT.BINANCE 1h, closed at {close_of(FIRST + row)}: open ")
    assert "4 bars ahead: 80\N{NO-BREAK SPACE}% between" in words["forecast"]
    assert "volatility_target at horizon 4 wanted an exposure of" in words["sizing"]
    assert "must exceed" in words["why nothing was done"]
    assert set(said["features"]) == set(log.header.features)
    sent = explain_row(log, int(np.flatnonzero(quantity)[0]))["words"]
    assert sent["action"].startswith("Sent an order to buy ")
    assert "why nothing was done" not in sent
    assert json.loads(json.dumps(said)) is not None


def halting(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run that loses 3 % on its second day, halts, and goes on the day after; its name must not break the page."""
    closes = np.full(96, 1000.0)
    closes[30:] = 960.0
    tell(monkeypatch, lambda _: 0.001, warmup_bars=3)
    bars = make_bars(np.concatenate([[1000.0], closes[:-1]]), closes)
    run_told(folder, bars, limits=LOOSE.__replace__(daily_loss=0.03), run_folder=folder / "run")
    return folder / "run"


def test_the_summary_tells_halts_and_firsts_and_lasts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = halting(tmp_path, monkeypatch)
    summary = sum_up_log(read_log(folder))
    assert summary["halts"] == [
        {
            "reason": "halt_daily_loss",
            "first": "1970-01-02T07:00:00Z",
            "last": "1970-01-03T00:00:00Z",
            "bars": 18,
            "told": "",
        }
    ]
    assert summary["days_halted"] == ["1970-01-02"]
    kinds = {kind["name"]: kind for kind in summary["reasons"]}
    assert kinds["no_forecast"] == {
        "name": "no_forecast",
        "bars": 2,
        "share": 2 / 96,
        "first": "1970-01-01T01:00:00Z",
        "last": "1970-01-01T02:00:00Z",
    }
    assert sum(kind["bars"] for kind in summary["reasons"]) == 96
    assert {kind["name"]: kind["bars"] for kind in summary["bound"]}["halt_daily_loss"] == 18
    assert command(monkeypatch, folder, "--json") == 0
    told = capsys.readouterr()
    assert json.loads(told.out)["summary"]["halts"] == summary["halts"]
    assert "days halted: 1, halts: 1" in told.err
    assert (folder / "explain.html").is_file()
    assert command(monkeypatch, folder, "--at", "1970-01-02T09:59", "--json") == 0
    said = json.loads(capsys.readouterr().out)["explained"]
    assert said["bar"]["ts_close"] == "1970-01-02T09:00:00Z"
    assert said["words"]["why nothing was done"] == "Halted, and flat already."


@pytest.mark.parametrize("width", [1280, 390])
def test_a_browser_draws_the_picture(sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    browser = find_chromium()
    if browser is None:
        pytest.skip("no chromium, chromium-browser or google-chrome on PATH")
    page = tmp_path / "why.html"
    at = close_of(FAULT)
    assert command(monkeypatch, sound, "--at", at, "--page", page, "--bars", 60) == 0
    with browse(browser, tmp_path / "profile") as tab:
        tab.open(page, width)
        assert tab.errors == []
        assert [url for url in tab.requests if not url.startswith(("file:", "data:", "blob:"))] == []
        paths = "[...chart.querySelectorAll('.main-svg .scatterlayer path')]"
        some = f"{paths}.some(path => (path.getAttribute('d') || '').length > 5)"
        drawn = tab.ask(f"[...document.querySelectorAll('.chart')].map(chart => {some})")
        assert drawn == [True] * 3
        assert tab.ask("document.documentElement.scrollWidth") <= width
        assert at in tab.ask("document.getElementById('words').textContent")
        points = "document.getElementById('chart-reasons').data.reduce((sum, trace) => sum + trace.x.length, 0)"
        assert tab.ask(points) == 60
        assert tab.ask("document.getElementById('chart-price').layout.shapes.length") == 1


def test_names_from_outside_cannot_break_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lstm_strategy.report.explain_page import write_explanation

    log = read_log(halting(tmp_path, monkeypatch))
    said = explain_row(log, 5)
    said["words"]["bar"] = "</script><script>alert(1)</script>"
    html = write_explanation(log, 5, tmp_path / "page.html", said).read_text()
    assert "<script>alert(1)" not in html


def test_bad_input_is_told_in_one_line(
    sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "young" / "decisions").mkdir(parents=True)
    shutil.copytree(sound, tmp_path / "old")
    table = pq.read_table(sound / "decisions.parquet")
    pq.write_table(table.replace_schema_metadata({}), tmp_path / "old" / "decisions.parquet")
    (tmp_path / "torn").mkdir()
    content = (sound / "decisions.parquet").read_bytes()
    (tmp_path / "torn" / "part-000000.parquet").write_bytes(content[: len(content) // 2])
    (tmp_path / "rotten").mkdir()
    rotten = bytearray(content)
    rotten[4 : len(content) // 2] = bytes(len(content) // 2 - 4)
    (tmp_path / "rotten" / "part-000000.parquet").write_bytes(rotten)
    (tmp_path / "none.decisions").mkdir()
    pq.write_table(table.slice(0, 0), tmp_path / "none.decisions" / "part-000000.parquet")
    for words, problem in (
        ((tmp_path / "nowhere",), "is not a run folder"),
        ((sound / "summary.json",), "is a file, not a run folder"),
        ((tmp_path / "empty",), "holds no decision log"),
        ((tmp_path / "young",), "holds no decision yet"),
        ((tmp_path / "old",), "is no decision log: it was written without one"),
        ((tmp_path / "torn",), "part-000000.parquet is damaged"),
        ((tmp_path / "rotten",), "part-000000.parquet is damaged"),
        ((tmp_path / "none",), "holds no bar yet"),
        ((sound, "--at", "2031-01-01"), "lies outside"),
        ((sound, "--at", "1970-01-01"), f"it holds the bars from {close_of(FIRST)}"),
        ((sound, "--at", "yesterday"), "is not a date"),
        ((sound, sound), "2 runs are named"),
        (("--diff", sound), "--diff compares two runs; 1 named"),
        (("--diff", sound, sound, "--stage", "price"), "stage 'price' is not known; there are bar, features"),
        (("--diff", sound, sound, "--tolerance", -1), "the tolerance is -1.0"),
    ):
        assert command(monkeypatch, *words) == 1
        told = capsys.readouterr().err.strip()
        assert problem in told, told
        assert told.startswith("error:"), told
        assert "\n" not in told, told
        assert "unexpected" not in told, told


def test_runs_of_other_markets_or_times_are_not_compared(sound: Path, tmp_path: Path) -> None:
    table = pq.read_table(sound / "decisions.parquet")
    for name, part in (("early", table.slice(0, 10)), ("late", table.slice(50, 10))):
        (tmp_path / name).mkdir()
        pq.write_table(part, tmp_path / name / "part-000000.parquet")
    with pytest.raises(LSTMStrategyError, match="the runs share no bar"):
        differ(tmp_path / "early", tmp_path / "late")
    key = b"lstm_strategy.decision_log"
    header = table.schema.metadata[key].replace(b"BTCUSDT", b"ETHUSDT")
    pq.write_table(table.replace_schema_metadata({key: header}), tmp_path / "early" / "part-000000.parquet")
    with pytest.raises(LSTMStrategyError, match=r"early of ETHUSDT\.BINANCE 1h: nothing to compare"):
        differ(sound, tmp_path / "early")
