"""Models that change while the strategy runs: verified, warmed, tried in shadow, then swapped; no bar is left out."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pyarrow.parquet as pq
import pytest
from engine_support import SPOT, random_bars
from nautilus_trader.backtest.engine import BacktestEngine
from test_strategy import LateHistory, config, engine_bars, play

from lstm_strategy import artefact, registry
from lstm_strategy.bars import Bar, Timeframe
from lstm_strategy.conformal import CalibrationConfig
from lstm_strategy.decision import SizingConfig
from lstm_strategy.decision_again import voice_at
from lstm_strategy.decision_log_reader import read_log
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.forecast import Forecast
from lstm_strategy.forecaster import Forecaster
from lstm_strategy.live_config import LiveConfig
from lstm_strategy.nautilus import swap
from lstm_strategy.nautilus.model import Model, open_model
from lstm_strategy.nautilus.parity import Monitor
from lstm_strategy.nautilus.session import Stream, open_successor
from lstm_strategy.nautilus.strategy_config import LSTMStrategyConfig
from lstm_strategy.parity import Parity

BARS = random_bars(1_100)
WARM, SHADOW = 800, 10
POLL_S = 3_600.0  # one look at the registry a bar


@pytest.fixture(scope="module")
def second(tiny_artefact: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another training of the same model, as version 2."""
    import torch
    from safetensors.torch import load, save

    from lstm_strategy.network import StreamingLSTM
    from lstm_strategy.research.export import export

    manifest = artefact.load(tiny_artefact).manifest
    n_features, start = len(manifest.features.names), torch.tensor(manifest.baseline)
    network = StreamingLSTM(manifest.network, torch.zeros(n_features), torch.ones(n_features), start)
    weights = load((tiny_artefact / "weights.safetensors").read_bytes())
    network.load_state_dict({name: tensor * 0.9 for name, tensor in weights.items()})
    network.load_state_dict({name: weights[name] for name in weights if name.startswith("feature")}, strict=False)
    tensors = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    changed = msgspec.structs.replace(manifest, version="2")
    return artefact.save(tmp_path_factory.mktemp("second"), changed, export(network), save(tensors))


@pytest.fixture
def models(tiny_artefact: Path, second: Path, tmp_path: Path) -> Path:
    """A registry with both versions, the first of them current."""
    for folder in (tiny_artefact, second):
        shutil.copytree(folder, tmp_path / "models" / "tiny" / folder.name)
    registry.promote(tmp_path / "models", "tiny", "1")
    return tmp_path / "models"


class Inline:
    """Work that is done at once, so that the engine's clock does not run ahead of it."""

    done = True

    def __init__(self, work: Callable[[], Any]) -> None:
        self.found, self.error = None, None
        try:
            self.found = work()
        except Exception as error:
            self.error = error


@pytest.fixture
def inline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(swap, "Task", Inline)


class Followed(LateHistory):
    """Keeps who spoke at each bar; does something to the registry before some of them; tells what was logged."""

    def __init__(self, settings: LSTMStrategyConfig, deeds: dict[int, Callable[[], Any]]) -> None:
        super().__init__(settings)
        self.deeds = {int(BARS.ts_close[row]): deed for row, deed in deeds.items()}
        self.spoken: list[tuple[int, str, Forecast | None, bool]] = []

    def on_bar(self, bar: Any) -> None:
        if bar.ts_event in self.deeds:
            self.deeds.pop(bar.ts_event)()
        super().on_bar(bar)

    def _on_closed(self, bar: Bar, forecast: Forecast | None, *, waiting: bool) -> None:
        assert self._session is not None
        assert self._feed is not None
        if not waiting:
            self.spoken.append((bar.ts_close, self._session.model.label, forecast, self._feed.proved))
        super()._on_closed(bar, forecast, waiting=waiting)

    @property
    def swapper(self) -> swap.Swap:
        assert self._feed is not None
        return self._feed._swap

    def who(self) -> dict[str, int]:
        return dict(Counter(label for _, label, _, _ in self.spoken))


def followed(models: Path, deeds: dict[int, Callable[[], Any]], **changes: Any) -> Followed:
    settings = {
        "model": str(models / "tiny" / "1"),
        "sizing": SizingConfig(horizon=4, no_trade_band=0.0),
        "follow": True,
        "follow_poll_s": POLL_S,
        "shadow_bars": SHADOW,
        "history_timeout_s": 1e9,
        "parity_every": 8,
        "refill_holes": False,
    }
    strategy = Followed(config(**(settings | changes)), deeds)
    strategy.answer_at = int(BARS.ts_close[WARM])
    return strategy


def drive(engines: list[BacktestEngine], strategy: Followed, end: int = 1_000) -> None:
    data = engine_bars(BARS[:end])
    strategy.answer = tuple(data[:WARM])
    play(engines, strategy, data[WARM:])
    if strategy.failure is not None:
        raise strategy.failure
    # Every bar has exactly one decision, whoever speaks, and nothing was left out.
    assert [ts for ts, *_ in strategy.spoken] == BARS.ts_close[WARM:end].tolist()
    assert strategy.record is not None
    assert strategy.record.ts_close.tolist() == BARS.ts_close[WARM:end].tolist()
    assert all(forecast is not None for _, _, forecast, _ in strategy.spoken)
    assert all(proved for *_, proved in strategy.spoken)


def forecasts_of(folder: Path, end: int) -> np.ndarray:
    return Forecaster(artefact.load(folder), SPOT.id).run(BARS[:end]).quantiles_THQ


@pytest.mark.usefixtures("inline")
def test_a_new_version_takes_over_between_two_bars_as_if_it_had_run_all_along(
    engines: list[BacktestEngine],
    models: Path,
    tmp_path: Path,
) -> None:
    log = tmp_path / "log"
    promote = {850: lambda: registry.promote(models, "tiny", "2")}
    strategy = followed(models, promote, decision_log=str(log))
    drive(engines, strategy)
    first = next(row for row, (_, label, _, _) in enumerate(strategy.spoken, WARM) if label == "tiny/2")
    assert 850 + SHADOW < first <= 850 + SHADOW + 12  # the engine's clock gives one slice a bar
    assert strategy.who() == {"tiny/1": first - WARM, "tiny/2": 1_000 - first}
    assert strategy.swapper.swaps == 1
    before, after = (forecasts_of(models / "tiny" / version, 1_000) for version in ("1", "2"))
    assert (before[first:] != after[first:]).any(axis=(1, 2)).all()
    for row, (_, label, forecast, _) in enumerate(strategy.spoken, WARM):
        assert forecast is not None
        # To the last bit: the bars held reach back to the first one.
        np.testing.assert_array_equal(forecast.quantiles_HQ, (before if label == "tiny/1" else after)[row])
    rows = [row for part in sorted(log.glob("*.parquet")) for row in pq.read_table(part).to_pylist()]
    assert [row["model"] for row in rows] == [label for _, label, _, _ in strategy.spoken]
    header = read_log(log).header
    assert [voice.version for voice in header.voices] == ["tiny/1", "tiny/2"]
    assert voice_at(header, int(BARS.ts_close[first - 1])).version == "tiny/1"
    assert voice_at(header, int(BARS.ts_close[first])).version == "tiny/2"


@pytest.mark.usefixtures("inline")
def test_promoted_twice_in_a_row_rolled_back_and_promoted_again(
    engines: list[BacktestEngine],
    models: Path,
) -> None:
    third = msgspec.structs.replace(artefact.load(models / "tiny" / "1").manifest, version="3")
    graph, weights = ((models / "tiny" / "1" / name).read_bytes() for name in ("model.onnx", "weights.safetensors"))
    artefact.save(models, third, graph, weights)
    deeds = {
        830: lambda: registry.promote(models, "tiny", "2"),
        836: lambda: registry.promote(models, "tiny", "3"),  # while the second is in shadow
        890: lambda: registry.rollback(models, "tiny"),
        940: lambda: registry.promote(models, "tiny", "1"),
        944: lambda: registry.rollback(models, "tiny"),  # before it has spoken
    }
    strategy = followed(models, deeds)
    drive(engines, strategy)
    labels = [label for _, label, _, _ in strategy.spoken]
    order = [label for row, label in enumerate(labels) if row == 0 or labels[row - 1] != label]
    assert order == ["tiny/1", "tiny/3", "tiny/2"]


@pytest.mark.usefixtures("inline")
@pytest.mark.parametrize(
    "flaw", ["graph", "manifest", "missing", "timeframe", "instrument", "features", "levels", "renamed", "gone"]
)
def test_a_version_that_does_not_fit_is_refused_once_and_the_other_trades_on(
    engines: list[BacktestEngine],
    models: Path,
    flaw: str,
) -> None:
    folder = models / "tiny" / "2"
    loaded = artefact.load(folder)
    manifest = loaded.manifest

    def spoil() -> None:
        registry.promote(models, "tiny", "2")
        weights = (folder / "weights.safetensors").read_bytes()
        changes: dict[str, Any] = {}
        match flaw:
            case "graph":
                (folder / "model.onnx").write_bytes(loaded.graph[:-1] + b"?")
            case "manifest":
                path = folder / "manifest.json"
                path.write_bytes(path.read_bytes().replace(b'"warmup_bars": 496', b'"warmup_bars": 497'))
            case "missing":
                (folder / "weights.safetensors").unlink()
            case "gone":
                (models / "tiny" / "current").unlink()
            case "timeframe":
                changes = {"timeframe": "4h"}
            case "instrument":
                changes = {"instruments": {"ETHUSDT.BINANCE": manifest.instruments[SPOT.id]}}
            case "features":
                fewer = msgspec.structs.replace(manifest.features, scale_span=manifest.features.scale_span + 1)
                changes = {"features": fewer}
            case "levels":
                changes = {"levels": (0.02, *manifest.levels[1:])}
            case "renamed":
                changes = {"version": "4"}
        if changes:
            shutil.rmtree(folder)
            saved = artefact.save(models, msgspec.structs.replace(manifest, **changes), loaded.graph, weights)
            if flaw == "renamed":
                saved.rename(folder)

    strategy = followed(models, {830: spoil})
    told: list[str] = []
    refuse = swap.Swap._refuse

    def noted(self: swap.Swap, why: str) -> None:
        told.append(why)
        refuse(self, why)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(swap.Swap, "_refuse", noted)
        drive(engines, strategy, 900)
    assert strategy.who() == {"tiny/1": 100}
    assert len(told) == (0 if flaw == "gone" else 1)
    assert strategy.swapper.swaps == 0


@pytest.mark.usefixtures("inline")
def test_a_refused_version_that_is_mended_takes_over(engines: list[BacktestEngine], models: Path) -> None:
    path = models / "tiny" / "2" / "model.onnx"
    whole = path.read_bytes()

    def spoil() -> None:
        registry.promote(models, "tiny", "2")
        path.write_bytes(b"?" + whole[1:])

    strategy = followed(models, {830: spoil, 850: lambda: path.write_bytes(whole)})
    drive(engines, strategy, 890)
    assert set(strategy.who()) == {"tiny/1", "tiny/2"}
    assert strategy.spoken[50 + SHADOW][1] == "tiny/1"


@pytest.mark.usefixtures("inline")
def test_one_that_forecasts_no_numbers_never_speaks(
    engines: list[BacktestEngine],
    models: Path,
) -> None:
    folder = models / "tiny" / "2"
    loaded = artefact.load(folder)
    weights = (folder / "weights.safetensors").read_bytes()
    huge = msgspec.structs.replace(loaded.manifest, calibration=[[3e38] * 7] * 2)
    shutil.rmtree(folder)
    artefact.save(models, huge, loaded.graph, weights)
    update = Forecaster.update

    def broken(self: Forecaster, bar: Bar, *context: Any) -> Forecast | None:
        forecast = update(self, bar, *context)
        if self.artefact.manifest.version == "2" and forecast is not None:
            forecast.quantiles_HQ[0, 0] = np.nan
        return forecast

    strategy = followed(models, {830: lambda: registry.promote(models, "tiny", "2")})
    with pytest.MonkeyPatch.context() as patch, np.errstate(over="ignore"):
        patch.setattr(Forecaster, "update", broken)
        drive(engines, strategy, 900)
    assert set(strategy.who()) == {"tiny/1"}


@pytest.mark.usefixtures("inline")
@pytest.mark.parametrize("where", ["warm_up", "update", "restored"])
def test_one_that_raises_at_any_step_stops_nothing(
    engines: list[BacktestEngine],
    models: Path,
    where: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    owner = Parity if where == "restored" else Forecaster
    kept = getattr(owner, where)

    def broken(self: Any, *given: Any) -> Any:
        forecaster = self._live if where == "restored" else self
        if forecaster.artefact.manifest.version == "2":
            raise RuntimeError("the graph fails\nwith much to say")
        return kept(self, *given)

    monkeypatch.setattr(owner, where, broken)
    strategy = followed(models, {805: lambda: registry.promote(models, "tiny", "2")}, shadow_bars=1)
    drive(engines, strategy, 840)
    assert strategy.who() == {"tiny/1": 40}
    assert [strategy.swapper._registry.refused(models / "tiny" / version) for version in "12"] == [False, True]


@pytest.mark.parametrize(
    ("flaw", "told"),
    [("horizon", "says 7 quantiles"), ("input", "does not step"), ("nan", "no numbers"), ("position", "no position")],
)
def test_a_graph_with_the_right_hash_that_cannot_speak_is_refused(models: Path, flaw: str, told: str) -> None:
    import onnx
    import torch
    from onnx import numpy_helper

    from lstm_strategy.network import StreamingLSTM
    from lstm_strategy.research.export import export

    folder = models / "tiny" / "2"
    loaded, weights = artefact.load(folder), (folder / "weights.safetensors").read_bytes()
    manifest, graph = loaded.manifest, loaded.graph
    if flaw in ("horizon", "input"):
        n_features = len(manifest.features.names) - (flaw == "input")
        start = torch.tensor(manifest.baseline[: 1 if flaw == "horizon" else 2])
        graph = export(StreamingLSTM(manifest.network, torch.zeros(n_features), torch.ones(n_features), start))
    elif flaw == "nan":
        onnx_model = onnx.load_from_string(graph)
        for at, tensor in enumerate(onnx_model.graph.initializer):
            array = numpy_helper.to_array(tensor)
            if array.dtype == np.float32 and array.size > 50:
                spoiled = numpy_helper.from_array(np.full_like(array, np.nan), tensor.name)
                onnx_model.graph.initializer[at].CopyFrom(spoiled)
        graph = onnx_model.SerializeToString()
    else:
        training = msgspec.structs.replace(manifest.training, objective="sharpe")
        manifest = msgspec.structs.replace(manifest, training=training)
    shutil.rmtree(folder)
    artefact.save(models, manifest, graph, weights)
    settings = followed(models, {}).settings
    running = open_model(models / "tiny" / "1", SPOT.id, Timeframe.parse("1h"), settings.sizing)
    assert isinstance(running, Model)
    with pytest.raises(LSTMStrategyError, match=told):
        open_successor(settings, folder, running)


def test_a_position_that_is_no_number_is_not_sane() -> None:
    quantiles_HQ = np.array([[-1.0, 0.0, 1.0]], np.float32)
    for has_position, position, sane in ((True, np.nan, False), (True, 0.5, True), (False, np.nan, True)):
        model: Any = SimpleNamespace(
            forecaster=SimpleNamespace(artefact=SimpleNamespace(manifest=SimpleNamespace(has_position=has_position)))
        )
        assert Model.may_say(model, Forecast(0, (1,), (0.1, 0.5, 0.9), quantiles_HQ, 1.0, position)) is sane


class LastingNames:
    """A clock that holds the name of a timer that has fired until another is set, and refuses it meanwhile."""

    def __init__(self) -> None:
        self.alerts: dict[str, Callable[[Any], None]] = {}
        self.fired = ""

    @property
    def timer_names(self) -> list[str]:
        return [*self.alerts, self.fired]

    def timestamp_ns(self) -> int:
        return 0

    def set_timer(self, *_: Any, **__: Any) -> None:
        pass

    def set_time_alert_ns(self, name: str, _at: int, callback: Callable[[Any], None]) -> None:
        assert name not in self.timer_names
        self.alerts[name] = callback

    def cancel_timer(self, name: str) -> None:
        self.alerts.pop(name, None)

    def run(self) -> int:
        """Fire what is set, and what that sets; return how often."""
        times = 0
        while self.alerts:
            self.fired, callback = self.alerts.popitem()
            callback(SimpleNamespace(name=self.fired))
            times += 1
        return times


@pytest.mark.usefixtures("inline")
def test_bars_mended_just_before_the_turn_are_taken_first_and_no_tick_is_lost(models: Path) -> None:
    settings, clock, failures = followed(models, {}, shadow_bars=5).settings, LastingNames(), []
    log = SimpleNamespace(info=lambda _: None, warning=lambda _: None, error=lambda _: None)
    owner = SimpleNamespace(id="X", log=log, clock=clock, fail=lambda *told: failures.append(told))
    running = open_model(models / "tiny" / "1", SPOT.id, Timeframe.parse("1h"), None)
    stream = Stream(Timeframe.parse("1h"), running)
    monitor = Monitor(owner, stream, settings.bar_type, settings)
    swapper = swap.Swap(owner, stream, settings.bar_type, settings, monitor)
    monitor.start()
    assert monitor.parity is not None
    monitor.past(BARS[:780])
    running.forecaster.warm_up(BARS[:780])
    bars = list(BARS[:820])

    def take(bar: Bar) -> None:
        swapper.turn()
        monitor.took(bar, stream.model.forecaster.update(bar), 0)
        swapper.took(bar)

    for bar in bars[780:800]:
        take(bar)
    registry.promote(models, "tiny", "2")
    swapper._on_poll(None)
    assert clock.run() > 3  # the whole warm-up, without another look at the registry
    assert swapper._warm
    for bar in bars[800:805]:
        take(bar)
    old = bars[801]
    bars[801] = old._replace(high=old.high * 1.05, close=old.high * 1.04, volume=old.volume * 3)
    monitor.told(bars[801])
    monitor.parity.mend()
    assert monitor.parity.mended == 1
    assert not {"missing", "revised"} & monitor.parity.problems.keys()
    take(bars[805])
    assert stream.model.label == "tiny/1"
    clock.run()
    for bar in bars[806:]:
        take(bar)
    assert (stream.model.label, swapper.swaps, failures) == ("tiny/2", 1, [])
    truth = Forecaster(artefact.load(models / "tiny" / "2"), SPOT.id)
    for bar in bars:
        truth.update(bar)
    for ours, theirs in zip(stream.model.forecaster.last_step, truth.last_step, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.usefixtures("inline")
def test_the_warm_up_goes_in_slices_and_waits_for_bars(
    engines: list[BacktestEngine],
    models: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A successor that needs more bars than are held speaks later; its first forecasts are a cold start's."""
    folder = models / "tiny" / "2"
    loaded, weights = artefact.load(folder), (folder / "weights.safetensors").read_bytes()
    shutil.rmtree(folder)
    longer = msgspec.structs.replace(loaded.manifest, warmup_bars=600)
    artefact.save(models, longer, loaded.graph, weights)
    slices: list[int] = []
    warm_up = Forecaster.warm_up

    def counted(self: Forecaster, bars: Any) -> None:
        if self.artefact.manifest.version == "2":
            slices.append(len(bars))
        warm_up(self, bars)

    monkeypatch.setattr(Forecaster, "warm_up", counted)
    strategy = followed(models, {805: lambda: registry.promote(models, "tiny", "2")})
    drive(engines, strategy, 940)
    first = next(row for row, (_, label, _, _) in enumerate(strategy.spoken, WARM) if label == "tiny/2")
    assert first >= 600 * 3 // 2 + SHADOW
    assert sum(slices) >= 600 * 3 // 2
    assert max(slices) <= 256
    assert len(slices) > 3
    assert strategy.swapper.longest_s < 0.1  # usually one or two milliseconds; this machine has much to do


@pytest.mark.usefixtures("inline")
def test_a_wide_network_warms_up_bar_by_bar(
    engines: list[BacktestEngine], models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a width of 512 a bar takes longer than a slice may: sixteen at once kept the loop waiting."""
    slices: list[int] = []
    warm_up = Forecaster.warm_up

    def slow(self: Forecaster, bars: Any) -> None:
        if self.artefact.manifest.version == "2":
            slices.append(len(bars))
            until = time.perf_counter() + 0.0012 * len(bars)
            while time.perf_counter() < until:
                pass
        warm_up(self, bars)

    monkeypatch.setattr(Forecaster, "warm_up", slow)
    strategy = followed(models, {805: lambda: registry.promote(models, "tiny", "2")})
    drive(engines, strategy, 900)
    assert max(slices) == slices[0] == 4
    assert set(slices[1:]) == {1}
    assert strategy.who()["tiny/2"] > 0


@pytest.mark.usefixtures("inline")
def test_adaptive_calibration_of_the_new_version_has_learned_on_the_bars_held(
    engines: list[BacktestEngine],
    models: Path,
) -> None:
    adaptive = CalibrationConfig(adaptive=True, rate=0.1)
    promote = {850: lambda: registry.promote(models, "tiny", "2")}
    strategy = followed(models, promote, calibration=adaptive)
    drive(engines, strategy, 900)
    wanted = Forecaster(artefact.load(models / "tiny" / "2"), SPOT.id, adaptive).run(BARS[:900])
    assert strategy.spoken[-1][1] == "tiny/2"
    assert strategy.spoken[-1][2] is not None
    np.testing.assert_array_equal(strategy.spoken[-1][2].quantiles_HQ, wanted.quantiles_THQ[-1])


def test_a_thread_verifies_while_bars_go_on(engines: list[BacktestEngine], models: Path) -> None:
    strategy = followed(models, {810: lambda: registry.promote(models, "tiny", "2")}, shadow_bars=1)
    drive(engines, strategy, 1_100)
    assert strategy.who().get("tiny/2", 0) > 0


def test_at_least_one_forecast_is_heard_in_shadow() -> None:
    assert LiveConfig(shadow_bars=1).shadow_bars == 1
    with pytest.raises(LSTMStrategyError, match="shadow_bars is 0; it must be 1 to"):
        LiveConfig(shadow_bars=0)


def test_a_start_takes_the_current_version_or_the_one_named(
    engines: list[BacktestEngine],
    models: Path,
) -> None:
    registry.promote(models, "tiny", "2")
    strategy = followed(models, {})
    drive(engines, strategy, 810)
    assert strategy.who() == {"tiny/2": 10}
    (models / "tiny" / "2" / "model.onnx").write_bytes(b"?")
    strategy = followed(models, {})
    drive(engines, strategy, 810)
    assert strategy.who() == {"tiny/1": 10}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"follow_poll_s": 0.0}, "follow_poll_s is 0.0"),
        ({"shadow_bars": 0}, "shadow_bars 0"),
        ({"model": "nowhere/tiny/1"}, "follow needs the folder of a model"),
    ],
)
def test_settings_without_sense_are_refused(
    engines: list[BacktestEngine],
    models: Path,
    changes: dict[str, Any],
    told: str,
) -> None:
    strategy = followed(models, {}, **changes)
    with pytest.raises(LSTMStrategyError, match=told):
        play(engines, strategy, engine_bars(BARS[:3]))
