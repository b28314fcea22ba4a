"""The report: honest words, forecasts where they land, and a page that a browser draws without error."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from chromium import Page, browse, find_chromium

from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.forecast import Forecasts
from lstm_strategy.formatting import fixed, percent
from lstm_strategy.report import calibration, charts, sections, words
from lstm_strategy.report.page import write_report
from lstm_strategy.report.run_folder import read_run
from lstm_strategy.report.run_types import Summary
from lstm_strategy.report.thin import thin

CHARTS = ("fan", "reliability", "miscoverage", "equity", "drawdown", "exposure", "trades")
HOUR = 3_600_000_000_000
START = 1_704_067_200_000_000_000  # 2024-01-01
LEVELS = (0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
NORMAL = (-2.326, -1.645, -1.282, -0.842, -0.524, -0.253, 0.0, 0.253, 0.524, 0.842, 1.282, 1.645, 2.326)
NASTY = "X</script><script>alert(1)</script>&amp;.VENUE"

SUMMARY: dict[str, Any] = {
    "bars": 3000,
    "orders": 412,
    "fees": 1204.4,
    "net_return": -0.031,
    "sharpe": -0.21,
    "max_drawdown": 0.12,
    "pinball": 0.2261,
    "pinball_baseline": 0.2322,
    "coverage_80": 0.796,
    "coverage_98": 0.951,
    "decisions": 3000,
    "days_halted": 3,
    "seconds": 4.2,
    "run_path": "runs/x",
    "buy_and_hold": {"net_return": 1.2, "sharpe": 1.4, "max_drawdown": 0.31},
    "name": "btcusdt_1h",
    "instrument": "BTCUSDT.BINANCE",
    "timeframe": "1h",
    "model": "btcusdt_1h",
    "model_version": "20240101-abc",
    "something_else": [1, 2],
    "overfitting": {
        "days": 125,
        "trials": 12,
        "probabilistic_sharpe": 0.41,
        "deflated_sharpe": 0.07,
        "intervals": {"level": 0.95, "sharpe": [-2.5, 1.9], "max_drawdown": [0.08, 0.31], "block_days": 3},
        "missing": "",
    },
    "beside": [
        {"name": "volatility target", "error": "", "net_return": 0.4, "sharpe": 0.9, "max_drawdown": 0.2},
        {"name": "20-day momentum", "error": "overdrawn"},
    ],
    "sensitivity": {"multiples": [0.0, 1.0], "delays": [0, 1], "sharpe": [[0.31, 0.2], [-0.21, None]]},
    "turnover": 61.5,
    "carry": {"funding_paid": 812.5, "funding_received": 99.0, "fundings": 380, "interest": 0.0},
    "capacity": [{"participation": 0.05, "equity": 123456.7}],
}


def write_run(folder: Path, bars: int = 3000, horizons: tuple[int, ...] = (1, 4), **changes: Any) -> Path:
    """Write a run whose forecasts know the true law: normal returns, volatility in two regimes."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(7)
    summary = SUMMARY | {"bars": bars} | changes
    instrument = summary["instrument"]
    ts_close = START + HOUR * np.arange(1, bars + 1)
    sigma = np.where(np.arange(bars) // 200 % 2, 0.004, 0.009)
    returns = sigma * random.standard_normal(bars)
    price = 42_000 * np.exp(np.cumsum(returns))
    exposure = np.clip(0.006 / sigma + 0.1 * random.standard_normal(bars), 0.0, 1.0)
    equity = 100_000 * np.cumprod(1 + np.concatenate([[0], exposure[:-1] * np.expm1(returns[1:])]))
    stamps = pa.array(ts_close, pa.timestamp("ns", "UTC"))
    columns = {"ts_close": stamps, "equity": equity, "exposure": exposure, "price": price}
    pq.write_table(pa.table(columns | {"buy_and_hold": 100_000 * price / price[0]}), folder / "equity.parquet")

    held = 100_000 * np.exp(0.5 * np.log(price / price[0]))
    pq.write_table(pa.table({"ts_close": stamps, "volatility target": held}), folder / "beside.parquet")

    change = np.where(random.random(bars) < 0.1, random.normal(0, 0.2, bars), 0.0)
    reasons = np.where(change != 0.0, "rebalance", "within_no_trade_band")
    decisions = {
        "ts_close": stamps,
        "instrument": [instrument] * bars,
        "target": exposure + change,
        "exposure": exposure,
        "reason": reasons.tolist(),
        "bound": [["max_exposure"] if row % 7 == 0 else [] for row in range(bars)],
        "action": np.where(change != 0.0, "sent", "held").tolist(),
        "quantity": change,
        "price": price,
        "equity": equity,
    }
    pq.write_table(pa.table(decisions), folder / "decisions.parquet")

    ahead = np.array([[np.sqrt((sigma[row + 1 : row + 1 + h] ** 2).sum()) for h in horizons] for row in range(bars)])
    ahead[-1] = sigma[-1]
    quantiles = (ahead[:, :, None] * np.array(NORMAL)).astype(np.float32)
    quantiles[:50] = np.nan
    forecasts = Forecasts(instrument, horizons, LEVELS, ts_close, quantiles, sigma)
    pq.write_table(forecasts.to_table("20240101-abc"), folder / "forecasts.parquet")
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("report") / "run")


@pytest.fixture(scope="module")
def html(run: Path) -> str:
    return write_report(run).read_text()


def text_of(html: str) -> str:
    body = re.sub(r"<script.*?</script>", "", html, flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", body))  # \s takes the no-break spaces too


def test_the_verdict_and_the_numbers_are_in_the_page(html: str) -> None:
    text = text_of(html)
    assert "beat the constant-quantile baseline by 2.6 % (mean pinball loss 0.2261 against 0.2322)" in text
    assert "The strategy lost 3.1 % after 1,204 in fees; buy and hold gained 120.0 %." in text
    assert "It did not beat buy and hold after costs." in text
    assert "98 % interval held 95.1 % of outcomes (too narrow)" in text
    assert "Risk limits halted trading on 3 days" in text
    assert "BTCUSDT.BINANCE" in text
    assert "2024-01-01 to 2024-05-05" in text
    assert "within no trade band" in text
    assert "max exposure" in text
    assert "an order went to the venue" in text
    assert "tearsheet" not in text


def test_the_first_line_says_what_the_result_does_not_support(html: str) -> None:
    body = html[html.index("<body>") :]
    first = re.search(r"<p[^>]*>(.*?)</p>", body, re.DOTALL)
    assert first
    assert first[1].startswith("This result does not support a claim of skill: after 12 trials")
    assert "above zero is 7.0" in first[1]
    assert body.index(first[1]) < body.index("<h1>")


def test_judgement_is_in_the_page(html: str) -> None:
    text = text_of(html)
    assert "The same, deflated for 12 trials 7.0 %" in text
    assert "Sharpe ratio, 95 % interval −2.50 to 1.90" in text
    assert "volatility target +40.0 % 0.90 20.0 % – –" in text
    assert "20-day momentum could not be run: overdrawn" in text
    assert "Venue charges next open 1 bar later 0 × costs 0.31 0.20 1 × costs −0.21 –" in text
    assert "Capacity at 5 % of volume 123,457" in text
    assert "Turnover a year 61.5 × equity" in text
    assert "Funding, 380 times 812.50 paid, 99.00 received" in text
    assert "Interest on shorts" not in text
    lines = {trace["name"] for trace in figures_of(html)["equity"]["data"]}
    assert lines == {"strategy", "buy and hold", "volatility target"}


def test_months_multiply_to_the_whole_and_worst_days_are_the_worst(run: Path) -> None:
    read = read_run(run)
    head, year = sections.months_table(read)
    assert head[:2] == ("Year", "Jan")
    cells = [float(cell.rstrip("%\N{NO-BREAK SPACE}").replace("−", "-")) / 100 for cell in year[1:-1] if cell]
    assert len(cells) == 5
    whole = read.equity.equity[-1] / read.equity.equity[0] - 1
    assert np.prod(1 + np.array(cells)) - 1 == pytest.approx(whole, abs=0.004)
    assert year[-1] == percent(float(whole))
    days = (read.equity.ts_close - 1) // (24 * HOUR)
    ends = np.append(read.equity.equity[0], read.equity.equity[np.append(np.diff(days) > 0, True)])
    moved = ends[1:] / ends[:-1] - 1
    worst = sections.worst_days_table(read)
    assert [row[1] for row in worst] == [percent(float(value), 2) for value in np.sort(moved)[: len(worst)]]
    assert worst[0][0] == str(np.unique(days)[moved.argmin()].astype("datetime64[D]"))


def test_curves_of_other_bars_are_refused(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", bars=300)
    path = folder / "beside.parquet"
    pq.write_table(pq.read_table(path).slice(1), path)
    with pytest.raises(LSTMStrategyError, match="is not of the same bars"):
        write_report(folder)


@pytest.mark.parametrize(
    ("luck", "said"),
    [
        ({"deflated_sharpe": 0.96}, ""),
        ({"deflated_sharpe": 0.9499}, "after 12 trials"),
        ({"deflated_sharpe": 0.2, "trials": 1}, "after one trial"),
        ({"deflated_sharpe": None}, "no Sharpe ratio that could be judged"),
    ],
)
def test_the_first_line(luck: dict[str, Any], said: str) -> None:
    found = words.first_line(summary(overfitting=SUMMARY["overfitting"] | luck))
    assert said in found
    assert bool(found) == bool(said)
    assert words.first_line(summary(overfitting=None)) == ""
    assert words.first_line(summary(orders=0)) == ""  # the verdict says that it never traded


def test_the_page_is_whole_and_small(run: Path, html: str) -> None:
    from plotly.offline import get_plotlyjs

    script = get_plotlyjs()
    assert html.count(script) == 1
    rest = html.replace(script, "")
    assert not re.search(r"https?://|src=|<link", rest)
    assert len(rest) < 2_000_000
    assert not list(run.glob("*.tmp"))


def test_every_figure_is_valid_plotly(html: str) -> None:
    figures = figures_of(html)
    assert set(figures) == {*CHARTS, "risk", "reasons"}
    for figure in figures.values():
        go.Figure(figure)


def figures_of(html: str) -> dict[str, Any]:
    match = re.search(r'<script type="application/json" id="figures">(.*?)</script>', html, re.DOTALL)
    assert match
    return dict(json.loads(match[1]))


def test_forecasts_land_where_they_speak_of(run: Path) -> None:
    read = read_run(run)
    for recorded in read.forecasts:
        landed = calibration.land(recorded, read.equity, read.bar_ns)
        assert (landed.lands_at - landed.made_at == recorded.horizon * HOUR).all()
        assert np.isnan(landed.realised).sum() == recorded.horizon
        row = 500
        made = np.flatnonzero(read.equity.ts_close == landed.made_at[row])[0]
        assert landed.realised[row] == read.equity.price[made + recorded.horizon]
        np.testing.assert_allclose(
            landed.prices_NQ[row], read.equity.price[made] * np.exp(recorded.quantiles_NQ[row].astype(float))
        )
    fan = charts.draw_fan(calibration.land(read.forecasts[0], read.equity, read.bar_ns))
    price = next(trace for trace in fan["data"] if trace["name"] == "realised price")
    assert price["x"][-1] == "2024-05-05T01:00:00"  # one bar after the last close
    assert price["y"][-1] is None
    assert price["y"][-2] == pytest.approx(read.equity.price[-1], rel=1e-6)


def test_a_forecast_of_the_true_law_is_found_calibrated(run: Path) -> None:
    read = read_run(run)
    coverage = calibration.coverage_of(calibration.land(read.forecasts[0], read.equity, read.bar_ns))
    assert coverage is not None
    assert coverage.n == 3000 - 50 - 1
    error = coverage.below - np.array(LEVELS)
    chance = np.sqrt(np.array(LEVELS) * (1 - np.array(LEVELS)) / coverage.n)
    assert (np.abs(error) < 3.5 * chance).all()
    assert calibration.intervals_of(LEVELS)[:3] == [(98, 0, 12), (90, 1, 11), (80, 2, 10)]


def test_across_a_hole_a_forecast_has_no_outcome() -> None:
    from lstm_strategy.report.run_types import EquityCurve, RecordedForecasts

    ts_close = START + HOUR * np.array([1, 2, 5, 6])
    price = np.array([100.0, 101.0, 102.0, 103.0])
    curve = EquityCurve(ts_close, price, price, price, price)
    made = np.array([START + HOUR, START + 2 * HOUR, START + 3 * HOUR, START + 6 * HOUR])
    landed = calibration.land(RecordedForecasts(1, (0.5,), made, np.zeros((4, 1), np.float32)), curve, HOUR)
    assert ((landed.lands_at - START) // HOUR).tolist() == [2, 3, 7]
    np.testing.assert_array_equal(landed.realised, [101.0, np.nan, np.nan])


def test_thinning_keeps_ends_and_extremes() -> None:
    random = np.random.default_rng(1)
    line = np.cumsum(random.standard_normal(525_520))
    line[[7, 123_456, 400_001]] = np.nan, 1e6, -1e6
    rows = thin(line)
    assert len(rows) <= 4 * 1200
    assert rows[0] == 0
    assert rows[-1] == len(line) - 1
    assert {123_456, 400_001} <= set(rows.tolist())
    assert (np.diff(rows) > 0).all()
    assert thin(line[:100]).tolist() == list(range(100))


def summary(**changes: Any) -> Summary:
    import msgspec

    return msgspec.convert(SUMMARY | changes, Summary)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"pinball": 0.24}, "did worse than the constant-quantile baseline, by 3.4 %"),
        ({"pinball": 0.2322}, "is level with the constant-quantile baseline"),
        ({"pinball": None}, "There is no forecast to judge"),
        ({"coverage_80": 0.85}, "80 % interval held 85.0 % of outcomes (too wide)"),
        ({"coverage_80": 0.81}, "80 % interval held 81.0 % of outcomes (as it should)"),
        ({"orders": 0}, "The strategy never traded; buy and hold gained 120.0 %."),
        ({"net_return": 1.5}, "It beat buy and hold after costs."),
        ({"net_return": 0.0}, "The strategy ended where it began after 1,204 in fees"),
        ({"net_return": None}, "The strategy has no defined return"),
        ({"currency": "USDT"}, "after 1,204 USDT in fees"),
        ({"sharpe": 1.9}, "Its Sharpe ratio was higher (1.90 against 1.40), its deepest fall shallower"),
        ({"sharpe": 1.9}, "standard error of about 1.0, so this result cannot be told from luck"),
        ({"sharpe": 2.5}, "for independent returns"),
        ({"max_drawdown": -0.4}, "its deepest fall deeper (40.0 % against 31.0 %)"),
        ({"days_halted": 1}, "halted trading on 1 day."),
    ],
)
def test_verdict_says_what_the_numbers_say(changes: dict[str, Any], said: str) -> None:
    judged = summary(**changes)
    text = " ".join(words.forecast_verdict(judged) + words.strategy_verdict(judged, years=1.0))
    assert said in text.replace("\N{NO-BREAK SPACE}", " ")


@pytest.mark.parametrize(
    ("bars", "unit", "starts"),
    [
        (24 * 3, "day", ["2024-01-01", "2024-01-02", "2024-01-03"]),  # a bar that closes at 00:00 is the day's before
        (24 * 60, "week", ["2024-01-01", "2024-01-08", "2024-01-15"]),
        (24 * 600, "month", ["2024-01-01", "2024-02-01", "2024-03-01"]),
    ],
)
def test_reasons_are_shared_out_by_period(tmp_path: Path, bars: int, unit: str, starts: list[str]) -> None:
    folder = write_run(tmp_path / "run", bars=bars, days_halted=3)
    path = folder / "decisions.parquet"
    table = pq.read_table(path)
    reasons = ["within_no_trade_band"] * bars
    reasons[:24] = ["halt_daily_loss"] * 6 + ["halt_drawdown"] * 6 + ["rebalance"] * 6 + ["max_volatility"] * 6
    column = table.column_names.index("reason")
    pq.write_table(table.set_column(column, "reason", pa.array(reasons)), path)
    shares = read_run(folder).reasons
    assert shares is not None
    assert shares.unit == unit
    assert np.datetime_as_string(shares.starts[:3].astype("datetime64[ns]"), unit="D").tolist() == starts
    assert np.array_equal(shares.ends[:2], shares.starts[1:3])
    assert np.sum(list(shares.by_reason.values()), axis=0) == pytest.approx(np.ones(len(shares.starts)))
    first = {"day": 24, "week": 24 * 7, "month": 24 * 31}[unit]
    assert shares.by_reason["rebalance"][:2].tolist() == [6 / first, 0.0]
    figure = charts.draw_reasons(shares)
    layers = {trace["name"]: trace["y"][0] for trace in figure["data"]}
    assert layers["halted"] == pytest.approx(12 / first, rel=1e-6)  # of both kinds
    assert list(layers) == ["rebalance", "within no trade band", "max volatility", "halted"]
    assert figure["data"][0]["width"][0] == first * 3_600_000
    html = text_of(write_report(folder).read_text())
    assert f"Share of each {unit}'s decisions by reason" in html
    assert html.count("Risk limits halted trading on 3 days.") == 2


def test_rare_reasons_are_put_together(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", bars=300)
    table = pq.read_table(folder / "decisions.parquet")
    names = sorted(set(words.REASONS) - {"rebalance", "within_no_trade_band", "at_target"})
    names = [name for name in names if not name.startswith("halt_")]
    reasons = [names[min(row // 40, 3)] if row < 200 else names[row % len(names)] for row in range(300)]
    column = table.column_names.index("reason")
    pq.write_table(table.set_column(column, "reason", pa.array(reasons)), folder / "decisions.parquet")
    shares = read_run(folder).reasons
    assert shares is not None
    data = charts.draw_reasons(shares)["data"]
    assert [trace["name"] for trace in data][4:] == ["other reasons"]
    assert np.sum([trace["y"] for trace in data], axis=0) == pytest.approx(np.ones(len(shares.starts)), abs=1e-5)
    assert len({trace["marker"]["color"] for trace in data}) == 5


def test_a_decision_whose_exit_was_taken_off_first_is_drawn_too(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", bars=300)
    path = folder / "decisions.parquet"
    table = pq.read_table(path)
    quantity, target = table["quantity"].to_numpy().copy(), table["target"].to_numpy()
    actions = table["action"].to_pylist()
    row = int(np.flatnonzero(quantity == 0.0)[20])
    actions[row], target = "releasing_exit", np.where(np.arange(300) == row, 0.0, target)
    for name, column in (("action", actions), ("target", target)):
        table = table.set_column(table.column_names.index(name), name, pa.array(column))
    pq.write_table(table, path)
    read = read_run(folder)
    assert read.decisions.ordered.sum() == (quantity != 0.0).sum() + 1
    figure = charts.draw_trades(read.market, read.decisions, np.array([row]))
    assert [len(trace["x"]) for trace in figure["data"][1:]] == [0, 1]  # a sale
    assert f"{int((quantity != 0.0).sum()) + 1} decisions led to an order." in text_of(write_report(folder).read_text())


def test_every_reason_and_action_is_explained() -> None:
    from lstm_strategy.decision import Reason

    assert {reason.value for reason in Reason} <= set(words.REASONS)
    from lstm_strategy.nautilus.orders import Action

    assert {action.value for action in Action} <= set(words.ACTIONS)


def test_numbers_are_written_alike() -> None:
    assert percent(-0.031) == "−3.1\N{NO-BREAK SPACE}%"
    assert percent(-0.00001) == "0.0\N{NO-BREAK SPACE}%"
    assert percent(0.5, signed=True) == "+50.0\N{NO-BREAK SPACE}%"
    assert percent(float("nan")) == "–"
    assert fixed(1234567.891) == "1,234,567.89"


def test_names_from_outside_cannot_become_markup(tmp_path: Path) -> None:
    page = write_report(write_run(tmp_path / "run", bars=300, instrument=NASTY, name="<img src=x onerror=alert(1)>"))
    html = page.read_text()
    assert "<img" not in html
    assert "alert(1)</script>" not in html
    assert "&lt;img src=x" in html


def test_a_run_without_forecasts_or_trades_still_has_a_page(tmp_path: Path) -> None:
    nothing = {"pinball": None, "pinball_baseline": None, "coverage_80": None, "coverage_98": None, "sharpe": None}
    folder = write_run(tmp_path / "run", bars=300, orders=0, **nothing)
    plain = json.loads((folder / "summary.json").read_text())
    for name in ("overfitting", "beside", "sensitivity", "turnover", "capacity", "carry"):
        del plain[name]  # as older runs have it
    (folder / "summary.json").write_text(json.dumps(plain))
    for name in ("forecasts", "decisions"):
        path = folder / f"{name}.parquet"
        pq.write_table(pq.read_table(path).slice(0, 0), path)
    assert not {"overfitting", "beside", "sensitivity"} & set(json.loads((folder / "summary.json").read_text()))
    (folder / "tearsheet.html").touch()
    html = write_report(folder).read_text()
    assert set(figures_of(html)) == {"equity", "drawdown", "exposure", "trades"}
    assert "There is no forecast to judge" in html
    assert "No decision was recorded." in html
    assert 'href="tearsheet.html"' in html


def remove(name: str) -> Any:
    return lambda folder: (folder / name).unlink()


def damage(name: str) -> Any:
    return lambda folder: (folder / name).write_bytes(b"PAR1 not really")


def drop(name: str, column: str) -> Any:
    def do(folder: Path) -> None:
        pq.write_table(pq.read_table(folder / name).drop_columns(column), folder / name)

    return do


def reverse(folder: Path) -> None:
    table = pq.read_table(folder / "equity.parquet")
    pq.write_table(table.take(pa.array(range(len(table)))[::-1]), folder / "equity.parquet")


def forget(key: str) -> Any:
    def do(folder: Path) -> None:
        kept = {name: value for name, value in SUMMARY.items() if name != key}
        (folder / "summary.json").write_text(json.dumps(kept))

    return do


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (remove("summary.json"), r"has no summary\.json; it is not a finished run"),
        (remove("equity.parquet"), r"has no equity\.parquet"),
        (remove("decisions.parquet"), r"has no decisions\.parquet"),
        (remove("forecasts.parquet"), r"has no forecasts\.parquet"),
        (damage("summary.json"), r"summary\.json cannot be used: JSON is malformed"),
        (damage("equity.parquet"), r"equity\.parquet cannot be read as Parquet"),
        (drop("equity.parquet", "price"), r"equity\.parquet lacks the column 'price'"),
        (forget("fees"), r"summary\.json cannot be used: Object missing required field `fees`"),
        (reverse, r"ts_close does not increase"),
    ],
)
def test_a_broken_run_is_told_in_one_line(tmp_path: Path, spoil: Any, message: str) -> None:
    folder = write_run(tmp_path / "run", bars=300)
    (folder / "report.html").write_text("the old page")
    spoil(folder)
    with pytest.raises(LSTMStrategyError, match=message) as caught:
        write_report(folder)
    assert "\n" not in str(caught.value)
    assert (folder / "report.html").read_text() == "the old page"


def test_no_folder_is_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(LSTMStrategyError, match="is not a run folder"):
        write_report(tmp_path / "nowhere")


@pytest.mark.parametrize("library", ["plotly.offline", "jinja2"])
def test_without_the_extra_it_is_named(run: Path, monkeypatch: pytest.MonkeyPatch, library: str) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(LSTMStrategyError, match=r"lstm-strategy\[report\]"):
        write_report(run)


@pytest.fixture(scope="module")
def browser_page(tmp_path_factory: pytest.TempPathFactory) -> Any:
    browser = find_chromium()
    if browser is None:
        pytest.skip("no chromium, chromium-browser or google-chrome on PATH")
    with browse(browser, tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.fixture(scope="module")
def long_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("report") / "long", bars=60_000, instrument=NASTY)


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_browser_draws_every_chart(long_run: Path, browser_page: Page, width: int, dark: bool) -> None:
    report = long_run / "report.html"
    if not report.exists():
        write_report(long_run)
        assert report.stat().st_size < 8_000_000
    browser_page.open(report, width, dark=dark)
    assert browser_page.errors == []
    assert [url for url in browser_page.requests if not url.startswith(("file:", "data:", "blob:"))] == []
    assert browser_page.ask("document.querySelectorAll('.chart').length") == 9
    drawn = browser_page.ask(
        "[...document.querySelectorAll('.chart')].map(chart => chart.querySelector('.main-svg') !== null &&"
        " [...chart.querySelectorAll('.scatterlayer path, .barlayer path')]"
        ".some(path => (path.getAttribute('d') || '').length > 20))"
    )
    assert drawn == [True] * 9
    assert browser_page.ask("document.documentElement.scrollWidth") <= width
    items = "[...document.querySelectorAll('body *:not(.scroll *)')]"  # wide tables scroll in a box of their own
    widest = f"Math.max(...{items}.map(item => item.getBoundingClientRect().right))"
    assert browser_page.ask(widest) <= width
    colored = browser_page.ask("document.documentElement.outerHTML.includes('stroke: var(')")
    assert not colored
    ink = browser_page.ask("getComputedStyle(document.body).color")
    assert ink == ("rgb(228, 232, 236)" if dark else "rgb(27, 31, 36)")
