"""Evaluation: the same table whatever the workers, nothing done twice, one line for what cannot be, a page to read."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
import pyarrow.parquet as pq
import pytest
from baseline_support import Constant, Hungry, Killed
from chromium import browse, find_chromium
from command_support import run_cli
from scipy.stats import spearmanr
from sklearn.metrics import mean_pinball_loss

from lstm_strategy import artefact, registry
from lstm_strategy.bars import parse_ns
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.features import FeatureConfig, FeaturesConfig
from lstm_strategy.fold_index import read_fold_index
from lstm_strategy.forecast import mean_of
from lstm_strategy.forecaster import Forecaster
from lstm_strategy.formatting import percent
from lstm_strategy.hyperparameters import NetworkConfig, SplitConfig, TargetConfig, TrainConfig, WalkForwardConfig
from lstm_strategy.measures import pinball
from lstm_strategy.research import fold_run
from lstm_strategy.research.baselines_prophet import ProphetQuantiles
from lstm_strategy.research.evaluate import Evaluated, evaluate
from lstm_strategy.research.fold_run import Plan, read_part, run_baseline
from lstm_strategy.research.judgement import _between_seeds, put_side_by_side, sum_up
from lstm_strategy.research.scores import score
from lstm_strategy.research.walk_forward import folds
from lstm_strategy.sources.simulate import SimulationConfig, simulate, simulated_instrument
from lstm_strategy.sources.store import RawStore

BARS = 2_900
SPLIT = SplitConfig(fit_end="2020-03-01", stop_end="2020-04-01", calibrate_end="2020-05-01")
WALK = WalkForwardConfig(test_bars=240, folds=2, stop_bars=300, calibrate_bars=300)
MARKETS = [SimulationConfig(instrument_id=f"{name}.SIM", bars=BARS, seed=seed) for seed, name in enumerate("AB")]


def never(*_):
    raise AssertionError("this had been finished before")


def plan_of(folder: Path, **changes) -> Plan:
    settings = {
        "name": "pair",
        "history": tuple((simulate(market), simulated_instrument(market)) for market in MARKETS),
        "features": FeaturesConfig(),
        "target": TargetConfig(horizons=(1, 3)),
        "network": NetworkConfig(hidden=6),
        "train": TrainConfig(epochs=1, batch=4, chunk=128, burn_in=32),
        "models": folder / "models" / "pair" / "folds",
        "parts": folder / "runs" / "folds",
    }
    return Plan(**(settings | changes))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("evaluation")


@pytest.fixture(scope="module")
def done(folder) -> Evaluated:
    return evaluate(plan_of(folder), SPLIT, WALK, folder / "runs", {"constant": Constant})


def test_the_table_holds_every_bar_of_every_test_span(done):
    table = done.forecasts
    assert table.column_names == [
        *("ts_close", "instrument", "horizon", "levels", "quantiles", "scale", "model_version", "fold", "seed"),
        *("uncalibrated", "outcome"),
    ]
    assert len(table) == 2 * 2 * 240 * 2  # folds, instruments, bars, horizons
    assert pq.read_table(done.forecasts_path).equals(table)
    bars = simulate(MARKETS[1])
    rows = table.to_pandas().query("instrument == 'B.SIM' and fold == 1 and horizon == 3")
    assert rows["ts_close"].astype("int64").tolist() == bars.ts_close[-240:].tolist()
    outcome = np.log(bars.close[-237:] / bars.close[-240:-3])
    np.testing.assert_allclose(rows["outcome"].to_numpy()[:-3], outcome, atol=1e-7)
    assert rows["outcome"].iloc[-3:].isna().all()  # outcomes beyond the test span do not count


def test_recorded_forecasts_are_those_of_stepping(done):
    model, bars = artefact.load(done.artefacts[0]), simulate(MARKETS[0])
    start, end = done.folds[0].spans["test"]
    forecaster = Forecaster(model, "A.SIM")
    stepped = {bar.ts_close: forecaster.update(bar) for bar in bars.between(None, end)}
    rows = done.forecasts.to_pandas().query("instrument == 'A.SIM' and fold == 0 and horizon == 1")
    wanted = np.stack([stepped[ts].quantiles_HQ[0] for ts in rows["ts_close"].astype("int64")])
    np.testing.assert_array_equal(np.stack(rows["quantiles"].tolist()), wanted)
    assert rows["ts_close"].astype("int64").min() > start
    assert set(rows["model_version"]) == {model.manifest.version}


def test_every_folds_model_is_kept_with_its_dates_and_none_is_current(done, folder):
    assert [path.parent for path in done.artefacts] == [folder / "models" / "pair" / "folds" / "pair"] * 2
    for path, fold in zip(done.artefacts, done.folds, strict=True):
        assert path.name.startswith(f"fold{fold.number:02d}-seed0-")
        assert artefact.load(path).trained_until == fold.spans["calibrate"][1]
    assert registry.versions(folder / "models") == []
    assert len(registry.versions(folder / "models" / "pair" / "folds")) == 2
    assert not list((folder / "models").rglob("current"))


def test_the_index_of_folds_stands_beside_the_forecasts(done, folder):
    assert done.folds_path == done.forecasts_path.parent / "folds.json"
    index = read_fold_index(done.folds_path)
    table = done.forecasts.to_pandas()
    for row, fold, path in zip(index.folds, done.folds, done.artefacts, strict=True):
        assert (row.fold, row.seed) == (fold.number, 0)
        assert (
            (done.folds_path.parent / row.path).resolve() == path.resolve() == done.networks[fold.number, 0].resolve()
        )
        assert parse_ns(row.trained_until) == fold.spans["calibrate"][1] <= parse_ns(row.test_start)
        own = table.query(f"fold == {fold.number}")
        assert set(own["model_version"]) == {row.model.partition("/")[2]}
        for ts in own["ts_close"].astype("int64").unique()[[0, 100, -1]]:
            assert index.at(int(ts)) == row
    assert index.at(done.folds[0].spans["test"][0]) is None


def test_two_processes_give_the_same_table(done, tmp_path):
    again = evaluate(plan_of(tmp_path), SPLIT, WALK, tmp_path, {"constant": Constant}, workers=2)
    assert again.forecasts.equals(done.forecasts)
    assert again.baselines.equals(done.baselines)
    assert again.forecasts_path.read_bytes() == done.forecasts_path.read_bytes()
    assert again.forecasts_path.parent.name == done.forecasts_path.parent.name


def test_what_is_finished_is_not_done_again(done, folder, monkeypatch):
    monkeypatch.setattr(fold_run, "fit_spans", never)
    monkeypatch.setattr(fold_run, "_write_part", never)
    again = evaluate(plan_of(folder), SPLIT, WALK, folder / "runs", {"constant": Constant})
    assert again.forecasts.equals(done.forecasts)


def test_a_killed_evaluation_goes_on_and_a_damaged_table_is_made_anew(done, folder, monkeypatch):
    first, second = (sorted((folder / "runs" / "folds").glob(f"fold0{number}-seed*"))[0] for number in (0, 1))
    whole = first.read_bytes()
    first.unlink()  # killed between the model and its table
    second.write_bytes(second.read_bytes()[:-3_000] + bytes(3_000))
    monkeypatch.setattr(fold_run, "fit_spans", never)
    again = evaluate(plan_of(folder), SPLIT, WALK, folder / "runs", {"constant": Constant})
    assert again.forecasts.equals(done.forecasts)
    assert first.read_bytes() == whole


def test_a_table_of_other_settings_or_data_is_not_ours(done, folder):
    part = sorted((folder / "runs" / "folds").glob("fold00-seed*"))[0]
    key = pq.read_schema(part).metadata[b"key"].decode()
    assert read_part(part, key) is not None
    assert read_part(part, key[::-1]) is None
    plan = plan_of(folder)
    assert fold_run.baseline_part(plan, done.folds[0], "x")[1] == fold_run.baseline_part(plan, done.folds[0], "x")[1]
    shorter = tuple((bars.between(None, done.folds[0].spans["test"][1] - 1), kept) for bars, kept in plan.history)
    longer = tuple((bars[:-100], kept) for bars, kept in plan.history)  # differs after the fold's test span alone
    keys = [
        fold_run.baseline_part(each, done.folds[0], "x")[1]
        for each in (plan, plan_of(folder, history=longer), plan_of(folder, history=shorter))
    ]
    assert keys[0] == keys[1] != keys[2]
    assert (
        fold_run.baseline_part(plan_of(folder, target=TargetConfig(horizons=(1, 2))), done.folds[0], "x")[1] != keys[0]
    )


def test_a_fold_that_fails_is_named_and_the_others_are_kept(folder, tmp_path, monkeypatch):
    honest = fold_run.run_network
    from lstm_strategy.research import evaluate as module

    def failing(plan, fold, seed, parent=None):
        if fold.number == 1:
            raise LSTMStrategyError("no luck")
        return honest(plan, fold, seed, parent)

    monkeypatch.setattr(module, "run_network", failing)
    with pytest.raises(
        LSTMStrategyError, match=r"^fold 1 \(test .*\): no luck; what is finished is kept, and"
    ) as caught:
        evaluate(plan_of(folder), SPLIT, WALK, tmp_path, {})
    assert "\n" not in str(caught.value)
    assert len(list((folder / "runs" / "folds").glob("fold00-seed*"))) == 1


def test_a_killed_worker_is_one_line_and_what_was_finished_is_kept(done, folder, tmp_path, monkeypatch):
    spared = tmp_path / "spared"
    beside = {"killed": partial(Killed, spared=spared)}
    told = r"^a worker process died, perhaps for want of memory; try fewer --workers.*what is finished is kept"
    with pytest.raises(LSTMStrategyError, match=told) as caught:
        evaluate(plan_of(folder), SPLIT, WALK, folder / "runs", beside, workers=2)
    assert "\n" not in str(caught.value)
    spared.touch()
    monkeypatch.setattr(fold_run, "fit_spans", never)
    again = evaluate(plan_of(folder), SPLIT, WALK, folder / "runs", beside)
    assert again.forecasts.equals(done.forecasts)


def test_a_fold_without_memory_is_named(done, folder):
    told = r"^fold 0 \(test .*\), baseline hungry: out of memory; try fewer --workers.*what is finished is kept"
    with pytest.raises(LSTMStrategyError, match=told) as caught:
        evaluate(plan_of(folder), SPLIT, WALK, folder / "runs", {"hungry": Hungry})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("timeframe", ["1h", "1d"])
def test_prophet_is_fitted_anew_in_every_fold(tmp_path, monkeypatch, timeframe):
    prophet = pytest.importorskip("prophet")
    market = SimulationConfig(bars=900, timeframe=timeframe, start="2018-01-01")
    plan = plan_of(tmp_path, history=((simulate(market), simulated_instrument(market)),))
    plan = replace(plan, features=FeaturesConfig(scale_span=24, features=(FeatureConfig("return"),)))
    bars = plan.history[0][0]
    walk = WalkForwardConfig(test_bars=100, folds=2, stop_bars=100, calibrate_bars=100)
    found = folds(walk, SPLIT, plan.target, bars.timeframe, int(bars.ts_close[0]), int(bars.ts_close[-1]))
    fitted = []
    fit = prophet.Prophet.fit

    def noting(self, frame, **settings):
        fitted.append(frame["ds"].max().value)
        return fit(self, frame, **settings)

    monkeypatch.setattr(prophet.Prophet, "fit", noting)
    tables = [pq.read_table(run_baseline(plan, fold, "prophet", ProphetQuantiles)) for fold in found]
    ends = [fold.spans["stop"][1] - horizon * bars.timeframe.ns for fold in found for horizon in plan.target.horizons]
    assert all(0 <= end - last <= 2 * bars.timeframe.ns for last, end in zip(fitted, ends, strict=True))
    widths = []
    for table, fold in zip(tables, found, strict=True):
        rows = table.to_pandas().query("horizon == 1")
        start, end = fold.spans["test"]
        assert len(rows) == 100
        assert rows["ts_close"].astype("int64").between(start + 1, end).all()
        q = np.stack(rows["quantiles"].tolist())
        assert np.isfinite(q).all()
        assert (np.diff(q, axis=1) > 0).all()
        widths.append(q[0, -1] - q[0, 0])
        spread = np.ptp(q[:, 6])  # hours have a daily season, days a weekly one
        assert spread > 0.01
    assert widths[0] != widths[1]


def test_a_fold_with_a_missing_instrument_is_told_before_anything_is_trained(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(fold_run, "fit_spans", never)
    (whole, first), (bars, second) = plan_of(folder).history
    late = plan_of(folder, history=((whole, first), (bars[2_500:], second)))
    with pytest.raises(LSTMStrategyError, match=r"B\.SIM is missing in fold 0 .*: its fit span"):
        evaluate(late, SPLIT, WALK, tmp_path, {})
    with pytest.raises(LSTMStrategyError, match="shorter than the longest"):
        evaluate(late, SPLIT, msgspec.structs.replace(WALK, purge=2), tmp_path, {})


def test_a_warm_start_goes_on_from_the_fold_before(done, folder, monkeypatch):
    starts = []
    honest = fold_run.fit_spans

    def noting(*arguments, start=None, **options):
        starts.append(start)
        return honest(*arguments, start=start, **options)

    monkeypatch.setattr(fold_run, "fit_spans", noting)
    warm = evaluate(
        plan_of(folder), SPLIT, msgspec.structs.replace(WALK, warm_start=True), folder / "runs", {"constant": Constant}
    )
    assert warm.artefacts[0] == done.artefacts[0]  # the first has nothing to go on from, and was there
    assert warm.artefacts[1] != done.artefacts[1]
    assert len(starts) == 1
    before = fold_run.load_tensors((done.artefacts[0] / "weights.safetensors").read_bytes())
    assert all(np.array_equal(before[name], starts[0][name]) for name in before)
    longer = msgspec.structs.replace(WALK, warm_start=True, warm_epochs=2)
    tuned = evaluate(plan_of(folder), SPLIT, longer, folder / "runs", {"constant": Constant})
    assert tuned.artefacts[0] == done.artefacts[0]
    assert len(starts) == 2
    assert [artefact.load(path).manifest.training.epochs for path in tuned.artefacts] == [1, 2]
    with pytest.raises(LSTMStrategyError, match="warm_epochs belongs to warm_start = true"):
        msgspec.structs.replace(WALK, warm_epochs=1)


def test_rows_stand_side_by_side_whatever_their_order(done):
    rows = put_side_by_side(done.forecasts, done.baselines, done.seeds)
    assert len(rows.table) == len(done.forecasts)
    np.testing.assert_allclose(rows.baselines["constant"][:, 6], 0.0, atol=1e-12)
    unit = rows.table.scale * np.sqrt(rows.table.horizon)
    wanted = {
        (row["ts_close"].value, row["instrument"], row["horizon"]): row["quantiles"][0]
        for row in done.forecasts.to_pandas().to_dict("records")
    }
    found = zip(rows.table.ts.tolist(), rows.table.instrument.tolist(), rows.table.horizon.tolist(), strict=True)
    np.testing.assert_allclose(rows.table.q_NQ[:, 0] * unit, [wanted[key] for key in found], rtol=1e-6)


def test_the_luck_of_the_seed_is_told(done, folder):
    both = evaluate(
        plan_of(folder), SPLIT, msgspec.structs.replace(WALK, seeds=(0, 5)), folder / "runs", {"constant": Constant}
    )
    assert both.artefacts[0] == done.artefacts[0]
    assert list(both.networks) == [(0, 0), (0, 5), (1, 0), (1, 5)]
    summary = sum_up(both, score)
    rows = put_side_by_side(both.forecasts, both.baselines, both.seeds)
    losses = [pinball(rows.table.y, rows.seeds[seed], rows.table.levels) for seed in (0, 5)]
    assert list(summary["seed_pinball"].values()) == pytest.approx(losses)
    assert summary["seed_pinball_sd"] == pytest.approx(np.std(losses, ddof=1))
    known = np.isfinite(rows.table.y)
    apart = (rows.seeds[0] - rows.seeds[5])[known]
    assert summary["seed_forecast_sd"] == pytest.approx(np.sqrt((apart**2 / 2).mean()))
    assert summary["seed_forecast_sd"] > 0.001
    assert "Seeds: 2 networks differ by " in summary["verdict"]
    assert "alone, 2 of 2 lie below the best baseline" in summary["verdict"]
    assert "luck of a seed" not in summary["verdict"]
    alone = sum_up(done, score)
    assert (alone["seed_pinball_sd"], alone["seed_forecast_sd"]) == (None, None)
    assert "Seeds" not in alone["verdict"]


def test_a_lead_smaller_than_the_seeds_apart_is_called_luck(done):
    rows = put_side_by_side(done.forecasts, done.baselines, done.seeds)
    judged = np.isfinite(rows.table.y)
    widths = {1: 0.8, 2: 1.6}
    rows = replace(rows, seeds={seed: rows.table.q_NQ * width for seed, width in widths.items()})
    found = _between_seeds(rows, judged, pinball(rows.table.y[judged], rows.table.q_NQ[judged], rows.table.levels))
    assert found["seed_verdict"].endswith("their average by 0.00\N{NO-BREAK SPACE}%, no more than the luck of a seed.")


EXPERIMENT = """
name = "pair"
[data]
instruments = ["A.SIM", "B.SIM"]
timeframe = "1h"
[split]
fit_end = 2020-03-01
stop_end = 2020-04-01
calibrate_end = 2020-05-01
[walk_forward]
test_bars = 240
folds = 2
stop_bars = 300
calibrate_bars = 300
[target]
horizons = [1, 3]
[network]
hidden = 6
[train]
epochs = 1
batch = 4
chunk = 128
burn_in = 32
[sizing]
horizon = 1
"""


CHARTS = ("fan-recent", "fan-storm", "skill", "reliability", "miscoverage", "pit", "coverage")
CHARTS += ("error-volatility", "error-hour", "error-weekday", "error-month", "importance")
# What is wrong with a chart, in words: nothing drawn, a plot too small to read, words beyond the edge or on each other.
DRAWN = """chart => {
  const plot = chart.querySelector('.cartesianlayer'), area = chart.querySelector('.nsewdrag');
  const edge = chart.getBoundingClientRect();
  if (!plot || !area) return 'nothing is drawn';
  if (![...plot.querySelectorAll('path')].some(path => (path.getAttribute('d') || '').length > 8)) return 'no marks';
  const size = area.getBoundingClientRect();
  if (size.height < 105 || size.width < 190) return `plot of ${size.width} by ${size.height}`;
  const words = [...chart.querySelectorAll('.legendtext, .xtick text, .ytick text, .xtitle, .ytitle')]
    .map(word => [word.textContent, word.getBoundingClientRect()]).filter(([, box]) => box.width > 0);
  if (words.length < 5) return 'axes without words';
  const gone = words.find(([, b]) => b.left < edge.left - 1 || b.right > edge.right + 1 || b.bottom > edge.bottom + 1);
  if (gone) return `${gone[0]} is cut off`;
  for (const [told, a] of words) for (const [other, b] of words)
    if (told !== other && Math.min(a.right, b.right) - Math.max(a.left, b.left) > 2
        && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 4) return `${told} stands on ${other}`;
  return '';
}"""
FAN_VALUES = "JSON.stringify(document.getElementById('chart-fan-storm').data.map(trace => trace.y))"


@pytest.fixture(scope="module")
def catalog(tmp_path_factory) -> Path:
    store = RawStore(tmp_path_factory.mktemp("catalog"))
    for market in MARKETS:
        store.write_instrument(simulated_instrument(market))
        store.merge(simulate(market))
    return store.root


def test_from_the_command_line_to_a_page_in_a_browser(done, folder, catalog, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("pair.toml").write_text(EXPERIMENT)
    words = ("evaluate", "pair.toml", "--catalog", str(catalog), "--models", str(folder / "models"), "--json")
    code, out, err = run_cli(monkeypatch, capsys, *words, "--baselines", "random_walk,ewma")
    assert code == 0, err
    found = json.loads(out)
    assert found["artefacts"] == [str(path) for path in done.artefacts]  # the same models, found again
    assert set(found["by_instrument"]) == {"A.SIM", "B.SIM"}
    assert pq.read_table(found["forecasts_path"]).equals(done.forecasts)
    assert " ".join(found["verdict"].split()) in " ".join(err.split())
    assert err.index(found["verdict"].split()[0]) < err.index("Mean pinball loss")
    said = " ".join(err.split())  # a share has its sign, and its column says what the sign means
    assert all(percent(skill, 2, signed=True) in err for skill in found["skill"].values())
    assert "(+)" in said
    assert "(−)" in said
    page = Path(found["report"]).read_text(encoding="utf-8")
    assert "Network better (+) or worse (−) than" in page
    assert {row["feature"] for row in found["importance"]} == set(FeaturesConfig().names)
    assert all(len(row["by_fold"]) == 2 and row["spread"] >= 0.0 for row in found["importance"])
    assert [row["later"] for row in found["drift"]["rows"]] == ["test of fold 0", "test of fold 1", "test of fold 1"]
    assert found["drift"]["told"][0].startswith("Largest drift of a feature: ")
    assert all(" ".join(told.split()) in " ".join(err.split()) for told in found["drift"]["told"])
    the_figures_are_right(found)
    the_page_is_drawn(found, tmp_path)


def test_without_baselines_and_weighing_the_rest_is_told(done, folder, catalog, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("pair.toml").write_text(EXPERIMENT)
    words = ("evaluate", "pair.toml", "--catalog", str(catalog), "--models", str(folder / "models"), "--json")
    code, out, err = run_cli(monkeypatch, capsys, *words, "--baselines", "none", "--importance", "0")
    assert code == 0, err
    found = json.loads(out)
    assert (found["importance"], found["baselines"], found["best_baseline"], found["dm_p"]) == ([], {}, None, None)
    assert found["verdict"].startswith("No baseline to compare with. ")
    page = Path(found["report"]).read_text()
    assert 'id="chart-fan-recent"' in page
    assert 'id="chart-skill"' not in page
    assert 'id="chart-importance"' not in page


def the_figures_are_right(found):
    """All that `--json` promises, pooled and by instrument, computed anew from the tables with other libraries."""
    table = pq.read_table(found["forecasts_path"]).to_pandas()
    beside = pq.read_table(found["baselines_path"]).to_pandas()
    assert (found["folds"], found["seeds"], set(found["baselines"])) == (2, [0], {"random_walk", "ewma"})
    for name, group in ({None: found} | found["by_instrument"]).items():
        own = table if name is None else table[table["instrument"] == name]
        own = own[own["outcome"].notna()]
        unit = (own["scale"] * np.sqrt(own["horizon"])).to_numpy()
        y, q = own["outcome"].to_numpy() / unit, np.stack(own["quantiles"].tolist()) / unit[:, None]
        levels = own["levels"].iloc[0]

        def loss(q, y=y, levels=levels):
            each = [mean_pinball_loss(y, q[:, place], alpha=level) for place, level in enumerate(levels)]
            return pytest.approx(np.mean(each), rel=1e-5)

        assert group["pinball"] == loss(q)
        keys = ["ts_close", "instrument", "horizon", "fold"]
        for baseline in ("random_walk", "ewma"):
            rows = own[keys].merge(beside[beside["baseline"] == baseline], on=keys, how="left", validate="one_to_one")
            assert group["baselines"][baseline] == loss(np.stack(rows["quantiles"].tolist()))
        best = min(group["baselines"], key=group["baselines"].get)
        assert group["best_baseline"] == best
        assert group["skill_over_best"] == pytest.approx(1 - group["pinball"] / group["baselines"][best])
        assert group["dm_p"] == group["dm"][best]["p_holm"]
        assert 0.0 <= group["dm_p"] <= 1.0
        inside = (y >= q[:, 2]) & (y <= q[:, 10])
        assert group["coverage"]["0.8"] == pytest.approx(inside.mean())
        assert set(group["coverage"]) == {"0.98", "0.9", "0.8", "0.6", "0.4", "0.2"}
        mean = mean_of(q, tuple(levels))
        assert group["mae"] == pytest.approx(np.abs(y - q[:, 6]).mean(), rel=1e-5)
        assert group["rmse"] == pytest.approx(np.sqrt(((y - mean) ** 2).mean()), rel=1e-5)
        assert group["rank_ic"] == pytest.approx(spearmanr(mean, y).statistic, abs=1e-3)
        low, high = group["rank_ic_ci"]
        assert low < group["rank_ic"] < high
        assert (group["folds"], group["seeds"], group["forecasts_path"]) == (2, [0], found["forecasts_path"])
        assert group["verdict"].endswith(".")


def the_page_is_drawn(found, tmp_path):
    browser = find_chromium()
    if browser is None:
        pytest.skip("no chromium, chromium-browser or google-chrome on PATH")
    with browse(browser, tmp_path / "profile") as page:
        for width, dark in ((1280, False), (390, True)):
            page.open(Path(found["report"]).resolve(), width, dark=dark)
            assert page.errors == []
            assert [url for url in page.requests if not url.startswith(("file:", "data:", "blob:"))] == []
            charts = page.ask("[...document.querySelectorAll('.chart')].map(chart => chart.id)")
            assert charts == [f"chart-{name}" for name in CHARTS]
            assert page.ask(f"[...document.querySelectorAll('.chart')].map({DRAWN})") == [""] * len(CHARTS)
            for option, bars in (("#fan-instrument", "B.SIM"), ("#fan-horizon", "3")):
                before = page.ask(FAN_VALUES)
                page.ask(
                    f"(select => {{ select.value = '{bars}'; select.dispatchEvent(new Event('change')); return 1 }})"
                    f"(document.querySelector('{option}'))"
                )
                assert page.ask(FAN_VALUES) != before
            assert page.errors == []
            assert page.ask("document.documentElement.scrollWidth") <= width
            text = page.ask("document.getElementById('verdict').innerText")
            assert found["verdict"].split(":")[0] in text


@pytest.mark.parametrize(
    ("old", "new", "words", "told"),
    [
        ("", "", ("--baselines", "ewwma"), "no baseline 'ewwma'; there are random_walk, ewma"),
        ("folds = 2", "folds = 2\npurge = 2", (), "walk_forward.purge is 2, shorter than the longest of"),
        ("folds = 2", "folds = 20", (), "fold 0 (test"),
        ('"B.SIM"', '"C.SIM"', (), "C.SIM"),
        ("folds = 2", "fold = 2", (), "unknown key walk_forward.fold; did you mean walk_forward.folds?"),
    ],
)
def test_a_mistake_is_one_line(catalog, tmp_path, monkeypatch, capsys, old, new, words, told):
    monkeypatch.chdir(tmp_path)
    Path("pair.toml").write_text(EXPERIMENT.replace(old, new) if old else EXPERIMENT)
    code, out, err = run_cli(monkeypatch, capsys, "evaluate", "pair.toml", "--catalog", str(catalog), *words)
    assert (code, out) == (1, "")
    assert told in err
    assert len(err.strip().splitlines()) == 1
