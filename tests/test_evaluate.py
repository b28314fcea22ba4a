"""Evaluation: the same table whatever the workers, nothing done twice, one line for what cannot be, a page to read."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import pyarrow.parquet as pq
import pytest
from chromium import browse, find_chromium

from lstm_strategy import artefact, cli
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.features import FeaturesConfig
from lstm_strategy.forecaster import Forecaster
from lstm_strategy.hyperparameters import NetworkConfig, SplitConfig, TargetConfig, TrainConfig, WalkForwardConfig
from lstm_strategy.research import fold_run
from lstm_strategy.research.evaluate import Evaluated, evaluate
from lstm_strategy.research.fold_run import Plan, read_part
from lstm_strategy.research.judgement import put_side_by_side
from lstm_strategy.sources.simulate import SimulationConfig, simulate, simulated_instrument
from lstm_strategy.sources.store import RawStore

BARS = 2_900
SPLIT = SplitConfig(fit_end="2020-03-01", stop_end="2020-04-01", calibrate_end="2020-05-01")
WALK = WalkForwardConfig(test_bars=240, folds=2, stop_bars=300, calibrate_bars=300)
MARKETS = [SimulationConfig(instrument_id=f"{name}.SIM", bars=BARS, seed=seed) for seed, name in enumerate("AB")]


@dataclass
class Constant:
    """The same quantiles for all; ``offset`` in the unit of the outcome."""

    offset: float = 0.0

    def forecast(self, samples, spans, target):
        row = np.linspace(-2, 2, len(target.levels)) + self.offset
        shape = (len(target.horizons), len(target.levels))
        return [np.broadcast_to(row, (len(sample.bars), *shape)).astype(np.float32) for sample in samples]


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
    assert artefact.versions(folder / "models") == []
    assert len(artefact.versions(folder / "models" / "pair" / "folds")) == 2
    assert not list((folder / "models").rglob("current"))


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


def test_rows_stand_side_by_side_whatever_their_order(done):
    rows = put_side_by_side(done)
    assert len(rows.table) == len(done.forecasts)
    np.testing.assert_allclose(rows.baselines["constant"][:, 6], 0.0, atol=1e-12)
    unit = rows.table.scale * np.sqrt(rows.table.horizon)
    wanted = {
        (row["ts_close"].value, row["instrument"], row["horizon"]): row["quantiles"][0]
        for row in done.forecasts.to_pandas().to_dict("records")
    }
    found = zip(rows.table.ts.tolist(), rows.table.instrument.tolist(), rows.table.horizon.tolist(), strict=True)
    np.testing.assert_allclose(rows.table.q_NQ[:, 0] * unit, [wanted[key] for key in found], rtol=1e-6)


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


def run_cli(monkeypatch, capsys, *words: str) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["lstm-strategy", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err


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
    asked = {"pinball", "baselines", "skill_over_best", "best_baseline", "dm_p", "coverage", "mae", "rmse", "rank_ic"}
    asked |= {"rank_ic_ci", "verdict"}
    assert asked | {"folds", "seeds", "forecasts_path", "by_instrument", "coverage_uncalibrated"} <= set(found)
    assert set(found["by_instrument"]) == {"A.SIM", "B.SIM"}
    assert all(asked <= set(group) for group in found["by_instrument"].values())
    assert (found["folds"], found["seeds"], set(found["baselines"])) == (2, [0], {"random_walk", "ewma"})
    assert pq.read_table(found["forecasts_path"]).equals(done.forecasts)
    assert " ".join(found["verdict"].split()) in " ".join(err.split())
    assert err.index(found["verdict"].split()[0]) < err.index("Mean pinball loss")

    browser = find_chromium()
    if browser is None:
        pytest.skip("no chromium, chromium-browser or google-chrome on PATH")
    with browse(browser, tmp_path / "profile") as page:
        for width, dark in ((1280, False), (390, True)):
            page.open(Path(found["report"]).resolve(), width, dark=dark)
            assert page.errors == []
            assert [url for url in page.requests if not url.startswith(("file:", "data:", "blob:"))] == []
            drawn = page.ask(
                "[...document.querySelectorAll('.chart')].map(chart => !!chart.querySelector('.main-svg'))"
            )
            assert drawn == [True] * 12
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
