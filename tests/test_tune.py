"""Tuning: nothing of the last test span, the same trials again, no crash loses any, one line for what cannot be."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import msgspec
import numpy as np
import optuna
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command_support import run_cli

from lstm_strategy import artefact
from lstm_strategy.bars import Bars
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.experiment import load_experiment
from lstm_strategy.features import FeatureConfig, FeaturesConfig
from lstm_strategy.hyperparameters import NetworkConfig, SplitConfig, TargetConfig, TrainConfig, WalkForwardConfig
from lstm_strategy.research import fold_run, tune_fold
from lstm_strategy.research import search as search_module
from lstm_strategy.research import tune as tuning
from lstm_strategy.research.fold_run import Plan
from lstm_strategy.research.parallel import WorkerLostError
from lstm_strategy.research.tune import tune
from lstm_strategy.research.tune_fold import bench_of, measure
from lstm_strategy.search_space import Settings, Space
from lstm_strategy.sources.simulate import SimulationConfig, simulate, simulated_instrument
from lstm_strategy.sources.store import RawStore
from lstm_strategy.tune_config import TuneConfig

SPLIT = SplitConfig(fit_end="2020-03-01", stop_end="2020-04-01", calibrate_end="2020-05-01")
WALK = WalkForwardConfig(test_bars=200, folds=2, stop_bars=300, calibrate_bars=300)
MARKETS = [SimulationConfig(instrument_id=f"{name}.SIM", bars=2_600, seed=seed) for seed, name in enumerate("AB")]
SPACE = {"network.hidden": {"low": 4, "high": 64}, "train.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}}
CONFIG = TuneConfig(space=SPACE, feature_groups={"calendar": ("hour_sin_1", "hour_cos_1")}, folds=3, test_bars=150)


@functools.cache
def history():
    return tuple((simulate(market), simulated_instrument(market)) for market in MARKETS)


def plan_of(**changes) -> Plan:
    settings = {
        "name": "pair",
        "history": history(),
        "features": FeaturesConfig(),
        "target": TargetConfig(horizons=(1, 3)),
        "network": NetworkConfig(hidden=6),
        "train": TrainConfig(epochs=1, batch=4, chunk=128, burn_in=32),
        "models": Path(),
        "parts": Path(),
    }
    return Plan(**(settings | changes))


def work(bench, number, settings) -> float:
    """A loss without a network: a width of 20 is best."""
    rate = abs(np.log(settings.train.learning_rate / 2e-3)) / 100
    return 0.2 + abs(settings.network.hidden - 20) / 1_000 + rate + number / 50


def search(runs: Path, trials: int = 12, config: TuneConfig = CONFIG, **changes):
    return tune(plan_of(), SPLIT, WALK, config, runs, **({"trials": trials, "work": work} | changes))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return search(tmp_path_factory.mktemp("whole"))


def told(tuned) -> list[tuple]:
    return [(trial.state, trial.params, trial.folds, trial.pinball) for trial in tuned.trials]


def test_the_experiments_own_settings_come_first_and_the_best_is_the_best(whole):
    assert [trial.own for trial in whole.trials] == [True, *[False] * 11]
    assert whole.own.params == {
        "network.hidden": 6,
        "train.learning_rate": 2e-3,
        "feature_groups.calendar": True,
    }
    assert whole.own.folds == pytest.approx([0.214, 0.234, 0.254])
    assert whole.own.pinball == pytest.approx(0.234)
    complete = [trial for trial in whole.trials if trial.state == "complete"]
    assert whole.best.pinball == min(trial.pinball for trial in complete) < whole.own.pinball
    assert whole.settings.network.hidden == whole.best.params["network.hidden"]
    assert whole.settings.train.epochs == 1
    assert max(whole.importance, key=whole.importance.__getitem__) == "network.hidden"
    assert whole.pinball_std == pytest.approx(np.std([trial.pinball for trial in complete], ddof=1))


def test_trials_that_fall_behind_are_given_up_between_folds(whole):
    pruned = [trial for trial in whole.trials if trial.state == "pruned"]
    assert pruned
    for trial in pruned:
        assert len(trial.folds) < 3
        assert trial.pinball is None
        earlier = [other.folds[0] for other in whole.trials[: trial.number] if other.state == "complete"]
        assert len(earlier) >= 5
        assert trial.folds[0] > np.median(earlier)


def test_the_same_seed_gives_the_same_trials_in_whatever_storage(whole, tmp_path):
    first = told(whole)[:7]
    assert told(search(tmp_path / "again", 7)) == first
    assert told(search(tmp_path / "database", 7, storage=f"sqlite:///{tmp_path}/study.db")) == first
    assert told(search(tmp_path / "file", 7, storage=str(tmp_path / "a" / "study.log"))) == first
    assert told(search(tmp_path / "other", 7, seed=1)) != first


@pytest.mark.parametrize("calls", [1, 5, 17])
def test_an_interrupted_study_goes_on_as_it_would_have_gone(whole, tmp_path, calls):
    done = []

    def interrupted(*arguments):
        if len(done) == calls:
            raise KeyboardInterrupt
        done.append(arguments[1])
        return work(*arguments)

    with pytest.raises(KeyboardInterrupt):
        search(tmp_path, work=interrupted)
    counted = []
    again = search(tmp_path, work=lambda *arguments: counted.append(1) or work(*arguments))
    assert told(again) == told(whole)
    assert len(counted) + calls == sum(len(trial.folds) for trial in whole.trials)  # no fold was done twice
    assert told(search(tmp_path, work=never)) == told(whole)


def never(*_):
    raise AssertionError("all of it had been done before")


KILLED = """
import sys, time
sys.path.insert(0, {tests!r})
import test_tune

def slow(bench, number, settings):
    if number == 1 and settings.network.hidden != 6:
        print("in the middle", flush=True)
        time.sleep(60)
    return test_tune.work(bench, number, settings)

test_tune.search(test_tune.Path({runs!r}), work=slow)
"""


def test_a_killed_study_is_whole_again(whole, tmp_path):
    code = KILLED.format(tests=str(Path(__file__).parent), runs=str(tmp_path))
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "in the middle\n"
        process.send_signal(signal.SIGKILL)
    journal = next(tmp_path.glob("tune-*/journal.log"))
    with journal.open("a") as file:
        file.write('{"op_code": 6, "worker')  # killed while it wrote, too
    Path(f"{journal}.lock").symlink_to(journal)
    began = time.monotonic()
    again = search(tmp_path)
    assert time.monotonic() - began < 20  # a dead process's lock is not waited for
    assert [(t.state, t.params, t.folds) for t in again.trials] == [(t.state, t.params, t.folds) for t in whole.trials]
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(journal)))
    states = [trial.state.name for trial in optuna.load_study(study_name=again.study, storage=storage).trials]
    assert "RUNNING" not in states
    assert states.count("FAIL") == 1


def test_the_last_test_span_is_never_seen(tmp_path):
    """Whatever stands in the bars after the cut, and whether they are there at all, the study is the same."""

    def sum_of_all(bench, number, settings):
        assert all(bars.ts_close[-1] <= bench.cut for bars, _ in bench.plan.history)
        columns = [bars.close.sum() + bars.volume.sum() for bars, _ in bench.plan.history]
        return float(sum(columns)) / 1e9 + settings.network.hidden / 1_000 + number / 50

    bench = bench_of(plan_of(), SPLIT, WALK, CONFIG)
    last = history()[0][0].ts_close[-1]
    hour = history()[0][0].timeframe.ns
    assert bench.cut == last - 200 * hour  # where the last test span begins
    assert [fold.spans["test"] for fold in bench.folds] == [
        (bench.cut - (3 - n) * 150 * hour, bench.cut - (2 - n) * 150 * hour) for n in range(3)
    ]
    embargoed = bench_of(plan_of(), SPLIT, msgspec.structs.replace(WALK, purge=13, embargo=7), CONFIG)
    assert embargoed.cut == bench.cut - (13 - 3 + 7) * hour  # nor what purge and embargo leave out

    def spoilt(bars: Bars, first: int) -> Bars:
        later = bars.ts_close > first
        columns = {
            name: np.where(later, 3.0, getattr(bars, name)) for name in ("open", "high", "low", "close", "volume")
        }
        return Bars(bars.instrument_id, bars.timeframe, bars.ts_close, **columns)

    plans = [
        plan_of(history=tuple((spoilt(bars, first), kept) for bars, kept in history()))
        for first in (last, bench.cut, bench.cut - hour)
    ]
    studies = [
        tune(plan, SPLIT, WALK, CONFIG, tmp_path / str(number), trials=7, work=sum_of_all)
        for number, plan in enumerate(plans)
    ]
    assert told(studies[0]) == told(studies[1])
    assert studies[0].study == studies[1].study
    assert told(studies[2]) != told(studies[1])  # one bar earlier and it would have been noticed
    assert studies[2].study != studies[1].study


def test_a_split_alone_is_kept_from_the_search_too():
    split = msgspec.structs.replace(SPLIT, fit_end="2020-03-10", stop_end="2020-03-25", calibrate_end="2020-04-09")
    bench = bench_of(plan_of(), split, WalkForwardConfig(), msgspec.structs.replace(CONFIG, folds=1))
    assert bench.cut == split.spans()["calibrate"][1]
    assert bench.folds[-1].spans["test"][1] == bench.cut
    hour = history()[0][0].timeframe.ns
    assert [(end - start) // hour for start, end in list(bench.folds[0].spans.values())[1:]] == [360, 360, 150]


def test_another_experiments_study_is_not_continued(whole, tmp_path):
    for changes in (
        {"network": NetworkConfig(hidden=7)},
        {"features": FeaturesConfig(scale_span=50)},
        {"target": TargetConfig(horizons=(1,))},
        {"history": history()[:1]},
    ):
        other = tune(plan_of(**changes), SPLIT, WALK, CONFIG, whole.folder.parent, trials=1, work=work)
        assert other.study != whole.study
        assert len(other.trials) == 1
    config = msgspec.structs.replace(CONFIG, space=SPACE | {"network.layers": {"choices": [1, 2]}})
    assert search(whole.folder.parent, 1, config).study != whole.study
    assert told(search(whole.folder.parent, work=never)) == told(whole)


def test_a_trial_that_cannot_be_trained_is_told_and_counts(tmp_path):
    def refusing(bench, number, settings):
        if settings.network.hidden > 30:
            raise LSTMStrategyError("fold 0: too wide")
        return work(bench, number, settings)

    tuned = search(tmp_path, 8, work=refusing)
    failed = [trial for trial in tuned.trials if trial.state == "failed"]
    assert len(tuned.trials) == 8
    assert {trial.error for trial in failed} == {"fold 0: too wide"}
    assert {trial.params["network.hidden"] > 30 for trial in failed} == {True}
    assert tuned.best.params["network.hidden"] <= 30


def test_an_experiment_that_cannot_be_trained_itself_ends_the_search(tmp_path):
    def refusing(*_):
        raise LSTMStrategyError("fold 0: no luck")

    with pytest.raises(LSTMStrategyError, match=r"^the experiment's own settings cannot be tried: fold 0: no luck$"):
        search(tmp_path, work=refusing)
    assert search(tmp_path, 1).own.pinball == pytest.approx(0.234)  # what it was about has been mended


def dying(bench, number, settings):
    if settings.network.hidden > 25:
        os._exit(9)
    return work(bench, number, settings)


def test_a_worker_that_dies_is_one_line_and_others_go_on_from_there(tmp_path):
    with pytest.raises(LSTMStrategyError) as caught:
        search(tmp_path, 6, work=dying, workers=2)
    assert str(caught.value).startswith("a worker process died, perhaps for want of memory; try fewer --workers")
    assert str(caught.value).endswith("what is finished is kept, and the same command goes on from there")
    assert "\n" not in str(caught.value)
    tuned = search(tmp_path, 6)
    assert len(tuned.trials) == 6
    for trial in tuned.trials:
        assert trial.folds == [
            work(None, number, Settings(FeaturesConfig(), *_settings(trial))) for number in range(len(trial.folds))
        ]


def test_a_trial_whose_workers_die_again_and_again_is_given_up(tmp_path):
    def lost(bench, number, settings):
        if settings.network.hidden > 50 and number == 1:
            raise WorkerLostError("the worker died")
        return work(bench, number, settings)

    for _ in range(3):
        with pytest.raises(LSTMStrategyError, match=r"^the worker died; what is finished is kept"):
            search(tmp_path, 3, work=lost)
    tuned = search(tmp_path, 3, work=lost)
    assert [(trial.params["network.hidden"] > 50, trial.error) for trial in tuned.trials] == [
        (False, None),
        (True, "its worker died 3 times, perhaps for want of memory"),
        (False, None),
    ]


def _settings(trial) -> tuple[NetworkConfig, TrainConfig]:
    rate = trial.params["train.learning_rate"]
    return NetworkConfig(hidden=trial.params["network.hidden"]), TrainConfig(learning_rate=rate)


def test_time_runs_out_between_folds_and_what_they_gave_is_kept(tmp_path, monkeypatch):
    calls = []
    for module in (tuning, search_module):  # a clock on which each fold takes 0.3 s, and nothing else any
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: 0.3 * len(calls)))

    def slow(*arguments):
        calls.append(arguments[1])
        return work(*arguments)

    with pytest.raises(
        LSTMStrategyError, match="time ran out before the experiment's own settings were judged on all 3"
    ):
        search(tmp_path, work=slow, timeout=0.5)
    assert calls == [0, 1]
    tuned = search(tmp_path, work=slow, timeout=0.5)
    assert calls[2:4] == [2, 0]  # the third fold of the own settings; then the first of another trial
    assert tuned.late
    assert [trial.own for trial in tuned.trials] == [True]
    assert not search(tmp_path, 2, timeout=60).late


@pytest.mark.parametrize(
    ("storage", "told"),
    [
        ("sqlite:////nowhere/at/all.db", "storage sqlite:////nowhere/at/all.db cannot be reached (unable to open"),
        ("nothing://host/name", "storage nothing://host/name cannot be reached ("),
        ("mysql+nodriver://me:secret@host/name", "storage mysql+nodriver://me:***@host/name cannot be reached ("),
        ("/proc/nowhere/study.log", "storage /proc/nowhere/study.log cannot be used (No such file or directory)"),
        (__file__, "is no Optuna journal; name another --storage, a database by its URL"),
    ],
)
def test_a_storage_out_of_reach_is_one_line_without_its_password(tmp_path, storage, told):
    with pytest.raises(LSTMStrategyError) as caught:
        search(tmp_path, storage=storage)
    assert told in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)
    Path(f"{storage}.running").rmdir() if storage == __file__ else None


def test_folds_that_do_not_fit_before_the_last_test_span_are_one_line(tmp_path):
    with pytest.raises(
        LSTMStrategyError, match=r"^the search's 30 folds of 150 bars \(tune.folds, tune.test_bars\), which"
    ):
        search(tmp_path, config=msgspec.structs.replace(CONFIG, folds=30))
    with pytest.raises(LSTMStrategyError, match=r"^tune.space is empty; say what may vary"):
        search(tmp_path, config=TuneConfig())


def test_every_trial_is_judged_on_the_same_bars_in_the_same_unit(tmp_path, monkeypatch):
    """A model that says the same raw quantiles gets the same loss, whatever its own scale; silence costs nothing."""
    plan = plan_of(target=TargetConfig(horizons=(1,), levels=(0.1, 0.5, 0.9)))
    bench = bench_of(plan, SPLIT, WALK, msgspec.structs.replace(CONFIG, folds=1))
    fold = bench.folds[0]
    samples = fold_run.test_samples(bench.plan, fold)
    silent = []

    def recorded(own, fold, seed, parent=None):
        assert own.history == bench.plan.history
        rows = []
        for sample in samples:
            stamps = sample.bars.ts_close[sample.bars.ts_close > fold.spans["test"][0]]
            rows += [(ts, sample.bars.instrument_id, 1, [-0.01, 0.0, 0.01]) for ts in stamps[len(silent) :]]
        names = ("ts_close", "instrument", "horizon", "quantiles")
        table = pa.table(dict(zip(names, map(list, zip(*rows, strict=True)), strict=True)))
        table = table.set_column(0, "ts_close", table["ts_close"].cast(pa.timestamp("ns", "UTC")))
        part = tmp_path / "part.parquet"
        pq.write_table(table, part)
        return part, tmp_path

    monkeypatch.setattr(tune_fold, "run_network", recorded)
    losses = [
        measure(bench, 0, Settings(FeaturesConfig(scale_span=span), plan.network, plan.train)) for span in (48, 24, 96)
    ]
    assert losses[0] == losses[1] == losses[2]
    expected, constant = [], []
    for sample in samples:
        inside = (sample.bars.ts_close > fold.spans["test"][0]) & ~np.isnan(sample.y_TH[:, 0])
        y, unit = sample.y_TH[inside, 0].astype(float), sample.matrix.scale_T[inside]
        error = y[:, None] - np.array([-0.01, 0.0, 0.01]) / unit[:, None]
        levels = np.array([0.1, 0.5, 0.9])
        expected.append(np.maximum(levels * error, (levels - 1) * error).mean(axis=1))
        constant.append(sample.y_TH[span_of(sample, fold), 0])
    assert losses[0] == pytest.approx(np.concatenate(expected).mean(), rel=1e-9)

    silent += [None] * 10  # ten bars of each coin without a word: the fit span's constant quantiles stand in
    quantiles = np.nanquantile(np.concatenate(constant), [0.1, 0.5, 0.9])
    for sample, losses_N in zip(samples, expected, strict=True):
        y = sample.y_TH[sample.bars.ts_close > fold.spans["test"][0], 0][:10].astype(float)
        error = y[:, None] - quantiles
        losses_N[:10] = np.maximum(levels * error, (levels - 1) * error).mean(axis=1)
    own = measure(bench, 0, Settings(plan.features, plan.network, plan.train))
    assert own == pytest.approx(np.concatenate(expected).mean(), rel=1e-6)


def span_of(sample, fold):
    """Rows of the fit span whose label and whose features are known."""
    start, end = fold.spans["fit"]
    hour = sample.bars.timeframe.ns
    inside = (sample.bars.ts_close > start) & (sample.bars.ts_close + hour <= end)
    return inside & sample.matrix.valid_T


EXPERIMENT = """
# what is known of the pair
name = "pair"
[data]
instruments = ["A.SIM", "B.SIM"]
timeframe = "1h"
[split]
fit_end = 2020-03-01
stop_end = 2020-03-20
calibrate_end = 2020-04-05
[walk_forward]
test_bars = 200
folds = 2
stop_bars = 300
calibrate_bars = 300
[target]
horizons = [1, 3]
[network]
hidden = 6 # small
[train]
epochs = 1
batch = 4
chunk = 128
burn_in = 32
[tune]
folds = 1
test_bars = 150
[tune.space]
network.hidden = {choices = [6, 7, 8]} # wide enough
"train.learning_rate" = {low = 1e-3, high = 1e-2, log = true}
[tune.feature_groups]
calendar = ["hour_sin_1", "hour_cos_1", "hour_sin_2", "hour_cos_2", "weekday_sin_1", "weekday_cos_1"]
slow = [{kind = "return", span = 48}]
[sizing]
horizon = 1
"""


@pytest.fixture(scope="module")
def catalog(tmp_path_factory) -> Path:
    store = RawStore(tmp_path_factory.mktemp("catalog"))
    for market in MARKETS:
        store.write_instrument(simulated_instrument(market))
        store.merge(simulate(market))
    return store.root


def test_from_the_command_line_to_a_model_that_knows_its_trials(catalog, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("pair.toml").write_text(EXPERIMENT)
    code, out, err = run_cli(
        monkeypatch, capsys, "tune", "pair.toml", "--trials", "2", "--catalog", str(catalog), "--json"
    )
    assert code == 0, err
    found = json.loads(out)
    assert (found["trials"], found["trials_run"], found["states"]["complete"]) == (2, 2, 2)
    assert {"best", "own", "better_by", "importance", "pinball_std", "storage", "note", "table"} <= set(found)
    assert found["own"]["params"]["network.hidden"] == 6
    assert "no bar after" in found["note"]
    assert " ".join(found["note"].split()) in " ".join(err.split())
    assert not list(Path().rglob("*.onnx"))  # models of trials are not kept

    text = Path(found["tuned"]).read_text()
    assert "# what is known of the pair" in text
    tuned = load_experiment(Path(found["tuned"]))
    assert tuned.network.hidden == found["best"]["params"]["network.hidden"]
    assert tuned.train.learning_rate == found["best"]["params"]["train.learning_rate"]
    assert tuned.tune.trials_run == 2
    assert tuned.tune.study == found["study"]
    listed = {feature.name for feature in tuned.features.features}
    assert ("return_48" in listed) == found["best"]["params"]["feature_groups.slow"]
    assert ("hour_sin_1" in listed) == found["best"]["params"]["feature_groups.calendar"]
    assert set(tuned.space().own.values()) == set(found["best"]["params"].values())

    code, out, err = run_cli(monkeypatch, capsys, "train", found["tuned"], "--catalog", str(catalog), "--json")
    assert code == 0, err
    manifest = artefact.load(Path(json.loads(out)["path"])).manifest
    assert (manifest.trials, manifest.study) == (2, found["study"])
    assert manifest.trials_pinball_std == pytest.approx(found["pinball_std"])

    monkeypatch.setattr(tuning, "tune", functools.partial(tune, work=work))
    again = run_cli(monkeypatch, capsys, "tune", found["tuned"], "--trials", "3", "--catalog", str(catalog), "--json")
    assert json.loads(again[1])["trials_run"] == 5  # what had been tried before counts


def test_an_artefact_of_no_search_counts_one_trial(tiny_artefact):
    manifest = artefact.load(tiny_artefact).manifest
    assert (manifest.trials, manifest.study, manifest.trials_pinball_std) == (1, "", None)


@pytest.mark.parametrize(
    ("space", "told"),
    [
        ('"network.hiden" = {choices = [6]}', "tune.space: unknown key network.hiden; did you mean network.hidden?"),
        ('"limits.side" = {choices = ["flat"]}', "tune.space: unknown key limits.side; settings of features, network"),
        ('"train.seed" = {low = 0, high = 9}', "tune.space: train.seed cannot vary: the luckiest seed is no setting"),
        ('"features.features" = {choices = []}', "tune.space: features.features cannot vary: name [tune.feature_sets]"),
        (
            '"network.hidden" = 32',
            "tune.space.network.hidden is 32; write {choices = [...]} or {low = ..., high = ...}",
        ),
        ('"network.hidden" = {choices = []}', "tune.space.network.hidden.choices is []; write a list of values"),
        ('"network.hidden" = {choices = [6, 6]}', "tune.space.network.hidden.choices is [6, 6]; name each once"),
        ('"network.hidden" = {choices = [6, "x"]}', "Expected `int`, got `str`"),
        ('"network.hidden" = {choices = [6], log = true}', "write a list of values, and nothing beside it"),
        ('"network.hidden" = {low = 9, high = 3}', "tune.space.network.hidden is 9 to 3; low must be below high"),
        ('"network.hidden" = {low = 1.5, high = 8}', "whole numbers are needed for network.hidden"),
        ('"network.hidden" = {low = 1, high = inf}', "whole numbers are needed for network.hidden"),
        ('"network.hidden" = {low = 1}', "tune.space.network.hidden is 1 to None"),
        ('"network.hidden" = {low = 1, high = 9, steps = 2}', "tune.space.network.hidden: unknown key steps; allowed"),
        ('"network.hidden" = {low = 1, high = 8, step = 2}', "step 2; a whole number of steps must lead from low"),
        (
            '"network.hidden" = {low = 1, choices = [6]}',
            "tune.space.network.hidden needs either choices, or low and high",
        ),
        ('"network.hidden" = {low = 7, high = 9}', "network.hidden is 6, which tune.space does not hold (7 to 9)"),
        ('"network.hidden" = {low = 0, high = 9}', "network.hidden is 0; it must be 1 to 4096; narrow it"),
        ('"train.learning_rate" = {low = 0.0, high = 0.1, log = true}', "with low above 0 and without a step"),
        ('"network.kind" = {low = 1, high = 2}', "but network.kind is no number; write choices"),
        (
            '"train.chunk" = {choices = [32, 128]}',
            "tune.space allows train.chunk = 32, which is refused: train.burn_in",
        ),
        ("[tune.feature_groups]\nx = []", "tune.feature_groups.x is empty; name features or remove it"),
        (
            '[tune.feature_groups]\nx = ["hour_sin"]',
            "names 'hour_sin', which is none of the experiment's features; did",
        ),
        (
            '[tune.feature_groups]\nx = ["gap", {kind = "rsi", span = 9}]',
            "mixes features of the experiment with new ones",
        ),
        ('[tune.feature_sets]\nx = ["gap", "gap"]', "features.features names gap twice"),
        (
            '[tune.feature_sets]\nexperiment = ["gap"]',
            "tune.feature_sets.experiment is the name of the experiment's own",
        ),
        ('[tune.feature_sets]\nx = ["gap"]\n[tune.feature_groups]\ny = ["gap"]', "exclude each other; remove one"),
        ("", "tune.space is empty; say what may vary, such as [tune.space] with"),
    ],
)
def test_a_mistake_is_one_line_before_anything_is_trained(catalog, tmp_path, monkeypatch, capsys, space, told):
    monkeypatch.chdir(tmp_path)
    start, end = EXPERIMENT.index("network.hidden ="), EXPERIMENT.index("[sizing]")
    Path("pair.toml").write_text(f"{EXPERIMENT[:start]}{space}\n{EXPERIMENT[end:]}")
    code, out, err = run_cli(monkeypatch, capsys, "tune", "pair.toml", "--trials", "2", "--catalog", str(catalog))
    assert (code, out) == (1, "")
    assert told in err
    assert len(err.strip().splitlines()) == 1


def test_no_trials_are_wrongly_called(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("pair.toml").write_text(EXPERIMENT)
    code, out, err = run_cli(monkeypatch, capsys, "tune", "pair.toml", "--trials", "0")
    assert (code, out) == (2, "")
    assert "Invalid value for '--trials'" in err


def test_one_of_several_feature_lists_is_taken():
    own = Settings(FeaturesConfig(), NetworkConfig(hidden=6), TrainConfig())
    config = TuneConfig(
        feature_sets={"few": ("return_1", FeatureConfig("rsi", 9)), "clock": ("hour_sin_1", "hour_cos_1")}
    )
    space = Space(config, own)
    assert space.own == {"feature_set": "experiment"}
    assert space.settings({"feature_set": "few"}).features.names == ("return_1", "rsi_9")
    assert space.settings({"feature_set": "clock"}).features.names == ("hour_sin_1", "hour_cos_1")
    assert space.settings(space.own) == own
