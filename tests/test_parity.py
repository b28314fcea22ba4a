"""Parity while trading: what is stepped equals what is made offline, and what does not is named, halts, and mends."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
from engine_support import SPOT, random_bars
from test_strategy import LateHistory, config, engine_bars, play

from lstm_strategy import artefact
from lstm_strategy.artefact import Artefact
from lstm_strategy.bars import Bar, Bars, format_ns
from lstm_strategy.decision import LimitsConfig, SizingConfig
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.features import Features
from lstm_strategy.forecast import Forecast
from lstm_strategy.forecaster import Forecaster
from lstm_strategy.nautilus.backtest import BacktestSettings, run_backtest
from lstm_strategy.nautilus.catalog import write_catalog
from lstm_strategy.nautilus.parity import Monitor
from lstm_strategy.parity import Parity

BARS = random_bars(900)
OTHERS = random_bars(900, seed=1)  # of another market: what the stream told wrong
WARM = 550  # bars of history, before the live ones
EVERY, TOLERANCE = 8, 1e-3


@pytest.fixture(scope="module")
def tiny(tiny_artefact: Path) -> Artefact:
    return artefact.load(tiny_artefact)


class Pair:
    """A forecaster and its proof, as a feed drives them."""

    def __init__(self, model: Artefact, history: Bars | None = BARS[:WARM]) -> None:
        self.live = Forecaster(model, SPOT.id)
        self.parity = Parity(self.live, every=EVERY, tolerance=TOLERANCE)
        self.forecasts: list[Forecast | None] = []
        if history is not None:
            self.parity.past(history)
            self.live.warm_up(history)

    def take(self, bars: Bars) -> None:
        for bar in bars:
            forecast = self.live.update(bar)
            self.forecasts.append(forecast)
            self.parity.took(bar, np.nan if forecast is None else forecast.position)


def without(bars: Bars, row: int) -> Bars:
    kept = np.delete(np.arange(len(bars)), row)
    columns = ("ts_close", "open", "high", "low", "close", "volume")
    return Bars(bars.instrument_id, bars.timeframe, *(getattr(bars, name)[kept] for name in columns))


def bar_of(row: int, **changes: float) -> Bar:
    return next(iter(BARS[row : row + 1]))._replace(**changes)


# -- the proof itself --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", ["history", "nothing", "snapshot", "hole"])
def test_parity_is_proved_at_once_and_stays_so(tiny: Artefact, start: str) -> None:
    pair = Pair(tiny, None if start in ("nothing", "snapshot") else BARS[:WARM])
    bars = without(BARS, 600) if start == "hole" else BARS
    if start == "snapshot":
        before = Forecaster(tiny, SPOT.id)
        before.warm_up(BARS[:WARM])
        pair.live.restore(before.state())
        pair.parity.restored()
    assert not pair.parity.proved
    first = 0 if start == "nothing" else WARM
    for row in range(first, len(bars)):
        pair.take(bars[row : row + 1])
        assert pair.parity.proved, pair.parity.problems
        assert pair.parity._exact
    assert pair.parity._checks >= (len(bars) - first) // EVERY


@pytest.fixture(scope="module")
def hybrid(tiny: Artefact, tmp_path_factory: pytest.TempPathFactory) -> Artefact:
    """The same model with a convolution before its LSTM: one pass of it rounds otherwise than its steps."""
    import torch
    from safetensors.torch import save

    from lstm_strategy.hyperparameters import NetworkConfig
    from lstm_strategy.network import StreamingLSTM
    from lstm_strategy.research.export import export

    config, n_features = NetworkConfig(kind="cnn_lstm", hidden=8, dropout=0.0), len(tiny.manifest.features.names)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        start = torch.tensor(tiny.manifest.baseline)
        network = StreamingLSTM(config, torch.zeros(n_features), torch.ones(n_features), start)
    weights = save({name: tensor.contiguous() for name, tensor in network.state_dict().items()})
    manifest = msgspec.structs.replace(tiny.manifest, network=config)
    return artefact.load(artefact.save(tmp_path_factory.mktemp("hybrid"), manifest, export(network), weights))


def test_parity_of_a_hybrid_is_proved_within_its_rounding(hybrid: Artefact) -> None:
    pair = Pair(hybrid)
    for row in range(WARM, 700):
        pair.take(BARS[row : row + 1])
        assert pair.parity.proved, pair.parity.problems
    pair.parity.told(bar_of(690, volume=7.0))
    pair.take(BARS[700:702])
    assert pair.parity.mended == 1
    assert pair.parity.proved
    corrupt(pair.live, lambda _: True, by=1e-3)
    pair.take(BARS[702:712])
    assert "differs" in pair.parity.problems


def corrupt(live: Forecaster, when: Callable[[int], bool], column: int = 3, by: float = 0.25) -> str:
    """Plant a bug in live stepping alone; return the feature's name."""
    stepped = live.features.update

    def wrong(bar: Bar, *context: Any) -> Any:
        row = stepped(bar, *context)
        if row is not None and when(bar.ts_close):
            row[0][column] += np.float32(by)
        return row

    live.features.update = wrong  # type: ignore[method-assign]
    return live.artefact.manifest.features.names[column]


@pytest.mark.parametrize("by", [0.25, 1e-5])
def test_a_bug_in_live_stepping_is_found_and_named(tiny: Artefact, by: float) -> None:
    pair, since = Pair(tiny), int(BARS.ts_close[613])
    name = corrupt(pair.live, lambda ts: ts >= since, by=by)
    pair.take(BARS[WARM:613])
    assert pair.parity.proved
    pair.take(BARS[613 : 613 + EVERY])
    problem = pair.parity.problems["differs"]
    assert problem.startswith(f"feature {name} at the bar closed at {format_ns(since)} is ")
    pair.take(BARS[613 + EVERY : 700])
    if by > 0.1:
        assert not pair.parity.proved  # as long as it lasts


def test_a_bug_that_is_over_is_lifted_when_the_network_has_forgotten_it(tiny: Artefact) -> None:
    pair, at = Pair(tiny), int(BARS.ts_close[600])
    corrupt(pair.live, lambda ts: ts == at, by=3.0)
    proved = []
    for row in range(WARM, 900):
        pair.take(BARS[row : row + 1])
        proved.append(pair.parity.proved)
    halted = np.flatnonzero(~np.array(proved)) + WARM
    assert 600 <= halted[0] < 600 + EVERY
    assert len(halted) >= EVERY
    assert (np.diff(halted) == 1).all()
    assert proved[-1]


def test_a_damaged_network_is_found_and_its_quantile_named(tiny: Artefact) -> None:
    pair = Pair(tiny)
    pair.take(BARS[WARM:600])
    network = pair.live._network
    network.restore((np.frombuffer(network.state(), np.float32) + 0.1).tobytes())
    pair.take(BARS[600:610])
    assert pair.parity.problems["differs"].startswith("raw quantile 0.01 at horizon 1 at the bar closed at ")


def test_a_cold_start_does_not_trust_what_is_remembered(tiny: Artefact) -> None:
    """The snapshot was damaged before it was hashed: whoever starts from it agrees with it."""
    broken, history = Forecaster(tiny, SPOT.id), 780
    broken.warm_up(BARS[:100])
    broken.features._floats[2] *= 2.0  # the EW sum of squared returns
    broken.features._settings[0] /= 50.0  # which then hardly decays
    broken.warm_up(BARS[100:history])
    pair = Pair(tiny, None)
    pair.live.restore(broken.state())
    pair.parity.restored()
    pair.take(BARS[history : history + 2])
    assert pair.parity.proved
    assert pair.parity.wants_past
    for bar in BARS[:history]:
        pair.parity.told(bar)
    pair.parity.nothing_more()
    assert not pair.parity.wants_past
    assert pair.parity.proved
    assert pair.parity.bars_held == history + 2
    pair.take(BARS[history + 2 : history + 12])
    assert pair.parity.problems["cold"].startswith("after a cold start, feature ")


def test_what_is_held_is_bounded(tiny: Artefact) -> None:
    pair = Pair(tiny, None)
    pair.parity.keep = 100
    pair.take(BARS)
    assert 100 <= pair.parity.bars_held <= 100 + 256
    assert len(pair.parity._held) == len(pair.parity._stamps)
    assert len(pair.parity._new) < EVERY


# -- the venue tells otherwise -----------------------------------------------------------------------------------------


def test_a_bar_revised_after_use_halts_until_it_is_mended(tiny: Artefact) -> None:
    pair = Pair(tiny)
    pair.take(BARS[WARM:610])
    pair.parity.told(bar_of(605))  # as it was
    assert pair.parity.proved
    revised = bar_of(605, close=bar_of(605).low, volume=7.0)
    pair.parity.told(revised)
    when = format_ns(revised.ts_close)
    told = pair.parity.problems["revised"]
    assert told == (f"the bar closed at {when} was revised after use: close {revised.close}, used {bar_of(605).close}")
    assert not pair.parity.proved
    pair.take(BARS[610:611])
    assert not pair.parity.proved  # this bar's forecast is still made of what was
    pair.take(BARS[611:613])
    assert pair.parity.proved
    assert pair.parity.mended == 1
    truth = Forecaster(tiny, SPOT.id)
    columns = {name: getattr(BARS, name).copy() for name in ("open", "high", "low", "close", "volume")}
    for name, column in columns.items():
        column[605] = getattr(revised, name)
    wanted = truth.run(Bars(SPOT.id, BARS.timeframe, BARS.ts_close, *columns.values())[:613])
    assert pair.forecasts[-1] is not None
    np.testing.assert_array_equal(pair.forecasts[-1].quantiles_HQ, wanted.quantiles_THQ[612])
    pair.take(BARS[613:700])
    assert pair.parity.proved


def test_the_newest_bar_may_still_change(tiny: Artefact) -> None:
    pair = Pair(tiny)
    pair.take(BARS[WARM:610])
    pair.parity.told(bar_of(609, volume=3.0))
    assert pair.parity.proved


@pytest.mark.parametrize("swapped", [False, True])
def test_the_last_word_on_the_newest_bar_counts_as_soon_as_the_next_one_comes(tiny: Artefact, swapped: bool) -> None:
    """The venue tells a bar, and a moment later tells it again otherwise: nobody asks for it a second time."""
    pair, at = Pair(tiny), 860 if swapped else 609  # what takes over is mended by the bars held: a warm-up and a half
    pair.take(BARS[WARM : at + 1])
    last = bar_of(at)
    pair.parity.retold(bar_of(at - 1, volume=5.0))  # not the newest: `told` hears of it
    pair.parity.retold(last)
    revised = last._replace(high=2.0 * last.high, close=1.5 * last.high)
    pair.parity.retold(last._replace(volume=3.0))
    pair.parity.retold(revised)  # the last word
    assert pair.parity.proved, "whatever was decided on it stands"
    assert not pair.parity.problems
    if swapped:  # another model takes its place between the two bars, warmed on the bars as they were told first
        fresh = Forecaster(tiny, SPOT.id)
        fresh.warm_up(BARS[: at + 1])
        after = Parity(fresh, every=EVERY, tolerance=TOLERANCE)
        after.restored(pair.parity)
        pair.live, pair.parity = fresh, after
    pair.take(BARS[at + 1 : at + 2])
    (told,) = pair.parity.problems.values()
    said = f"high {revised.high}, used {last.high}"
    assert told == f"the bar closed at {format_ns(last.ts_close)} was revised after use: {said}"
    assert not pair.parity.proved, "no new risk on what was made of it"
    pair.take(BARS[at + 2 : at + 4])
    assert pair.parity.proved, pair.parity.problems
    assert pair.parity.mended == 1
    columns = {name: getattr(BARS, name).copy() for name in ("open", "high", "low", "close", "volume")}
    for name, column in columns.items():
        column[at] = getattr(revised, name)
    wanted = Forecaster(tiny, SPOT.id).run(Bars(SPOT.id, BARS.timeframe, BARS.ts_close, *columns.values())[: at + 4])
    assert pair.forecasts[-1] is not None
    np.testing.assert_array_equal(pair.forecasts[-1].quantiles_HQ, wanted.quantiles_THQ[at + 3])
    pair.take(BARS[at + 4 : at + 30])
    assert pair.parity.proved
    assert pair.parity.mended == 1, "once"


def test_the_newest_bar_told_again_as_it_was_is_no_revision(tiny: Artefact) -> None:
    pair = Pair(tiny)
    pair.take(BARS[WARM:610])
    pair.parity.retold(bar_of(609, volume=3.0))
    pair.parity.retold(bar_of(609))  # taken back: the last word is the first
    pair.take(BARS[610:640])
    assert pair.parity.proved
    assert pair.parity.mended == 0


def test_a_bar_that_comes_too_late_takes_its_place(tiny: Artefact) -> None:
    pair = Pair(tiny)
    pair.take(BARS[WARM:600])
    pair.parity.missed(int(BARS.ts_close[601]))
    assert "missing" in pair.parity.problems
    pair.take(BARS[601:605])
    assert not pair.parity.proved
    assert pair.parity.wants_past
    pair.parity.told(bar_of(600))
    pair.parity.mend()
    pair.take(BARS[605:606])
    assert pair.parity.proved
    wanted = Forecaster(tiny, SPOT.id).run(BARS[:606])
    assert pair.forecasts[-1] is not None
    np.testing.assert_array_equal(pair.forecasts[-1].quantiles_HQ, wanted.quantiles_THQ[605])


def test_a_hole_that_the_venue_has_itself_is_no_problem(tiny: Artefact) -> None:
    pair = Pair(tiny)
    pair.take(BARS[WARM:600])
    pair.parity.missed(int(BARS.ts_close[601]))
    pair.take(BARS[601:603])
    pair.parity.nothing_more()
    assert pair.parity.proved


@pytest.mark.parametrize(("every", "tolerance"), [(0, 1e-3), (24, 0.0), (24, 1.0)])
def test_it_cannot_be_set_aside(every: int, tolerance: float) -> None:
    settings = SimpleNamespace(parity_every=every, parity_tolerance=tolerance, refill_holes=True)
    with pytest.raises(LSTMStrategyError, match="parity_every is"):
        Monitor(None, SimpleNamespace(), None, settings)  # type: ignore[arg-type]


# -- on the engine -----------------------------------------------------------------------------------------------------


def test_a_planted_bug_ends_new_risk_in_a_backtest(
    tmp_path: Path, tiny_artefact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    since, column, stepped = int(BARS.ts_close[700]), 3, Features.update

    def wrong(self: Features, bar: Bar, *context: Any) -> Any:
        row = stepped(self, bar, *context)
        if row is not None and bar.ts_close >= since:
            row[0][column] += np.float32(0.25)
        return row

    monkeypatch.setattr(Features, "update", wrong)
    write_catalog(tmp_path / "catalog", BARS, SPOT)
    run = run_backtest(
        BacktestSettings(
            catalog=tmp_path / "catalog",
            instrument_id=SPOT.id,
            timeframe="1h",
            model=tiny_artefact,
            sizing=SizingConfig(horizon=4, no_trade_band=0.0),
            limits=LimitsConfig(daily_loss=0.9, max_drawdown=0.9),
            start=int(BARS.ts_close[599]),
            parity_every=20,
            tearsheet=False,
        )
    )
    decisions = run.record.decisions
    blocked = [decision.ts_close for decision in decisions if "parity_unproved" in decision.bound]
    assert since <= min(blocked) < since + 24 * BARS.timeframe.ns
    found = min(blocked)
    assert any(decision.target > decision.exposure for decision in decisions if decision.ts_close < since)
    assert not any(decision.target > decision.exposure + 1e-9 for decision in decisions if decision.ts_close >= found)


class Watched(LateHistory):
    """Notes at each bar that closed whether parity is proved, and what was forecast; answers when it is told to."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.seen: dict[int, tuple[bool, Forecast | None]] = {}
        self.answers: dict[int, list[Any]] = {}  # bars that answer the newest request, by the bar before which they do

    def on_bar(self, bar: Any) -> None:
        if bar.ts_event in self.answers:
            for past in self.answers[bar.ts_event]:
                self.on_historical_data(past)
            self.callbacks[-1](None)
        super(LateHistory, self).on_bar(bar)

    def _on_closed(self, bar: Bar, forecast: Forecast | None, *, waiting: bool) -> None:
        if not waiting:
            assert self._feed is not None
            self.seen[bar.ts_close] = (self._feed.proved, forecast)
        super()._on_closed(bar, forecast, waiting=waiting)


def watched(model: Path, **changes: Any) -> Watched:
    sizing = SizingConfig(horizon=4, no_trade_band=0.0)
    settings = {"parity_every": EVERY, "history_timeout_s": 1e9} | changes
    return Watched(config(model=str(model), sizing=sizing, **settings))


def test_a_gap_that_is_refilled_leaves_the_forecasts_of_a_run_without_one(
    engines: list[Any],
    tiny_artefact: Path,
    tiny: Artefact,
) -> None:
    strategy, data = watched(tiny_artefact), engine_bars(BARS)
    first, before, after = (int(BARS.ts_close[row]) for row in (WARM, 603, 606))
    strategy.answers = {first: data[:WARM], after + BARS.timeframe.ns: data[600:606]}
    play(engines, strategy, [*data[WARM:603], *data[606:650]])
    assert strategy.failure is None
    wanted = Forecaster(tiny, SPOT.id).run(BARS[:650])
    assert before not in strategy.seen
    assert sorted(strategy.seen)[-1] == int(BARS.ts_close[649])
    for row in [*range(WARM, 603), *range(607, 650)]:
        proved, forecast = strategy.seen[int(BARS.ts_close[row])]
        assert proved
        assert forecast is not None
        np.testing.assert_array_equal(forecast.quantiles_HQ, wanted.quantiles_THQ[row])


def test_a_gap_that_nobody_answers_for_halts_and_an_answer_later_heals_it(
    engines: list[Any],
    tiny_artefact: Path,
    tiny: Artefact,
) -> None:
    strategy = watched(tiny_artefact, history_timeout_s=1.5 * 3600, history_attempts=2)
    data = engine_bars(BARS)
    strategy.answers = {int(BARS.ts_close[WARM]): data[:WARM], int(BARS.ts_close[620]): data[590:619]}
    play(engines, strategy, [*data[WARM:603], *data[606:650]])
    assert strategy.failure is None
    state = {row: strategy.seen.get(int(BARS.ts_close[row])) for row in range(WARM, 650)}
    halted = [row for row, seen in state.items() if seen is not None and not seen[0]]
    assert halted
    assert min(halted) > 606
    assert max(halted) <= 620
    wanted = Forecaster(tiny, SPOT.id).run(BARS[:650])
    for row in range(621, 650):
        proved, forecast = strategy.seen[int(BARS.ts_close[row])]
        assert proved
        assert forecast is not None
        np.testing.assert_array_equal(forecast.quantiles_HQ, wanted.quantiles_THQ[row])


def test_a_bar_that_the_venue_revises_is_found_when_it_is_asked_again(
    engines: list[Any],
    tiny_artefact: Path,
) -> None:
    strategy, data = watched(tiny_artefact), engine_bars(BARS)
    other = engine_bars(OTHERS)
    asked = int(BARS.ts_close[WARM + 3 * EVERY + 1])
    revised = [*data[WARM + 2 * EVERY : WARM + 2 * EVERY + 5], other[WARM + 2 * EVERY + 5]]
    strategy.answers = {int(BARS.ts_close[WARM]): data[:WARM], asked: revised}
    play(engines, strategy, data[WARM : WARM + 60])
    assert strategy.failure is None
    halted = [ts for ts, (proved, _) in sorted(strategy.seen.items()) if not proved]
    assert halted == []  # mended before the next bar was decided on
    assert strategy._feed._monitor.parity.mended == 1
    assert len(strategy.callbacks) >= 1 + 59 // EVERY


def test_a_correction_that_was_lost_comes_with_the_bars_that_were_missed(
    engines: list[Any],
    tiny_artefact: Path,
    tiny: Artefact,
) -> None:
    """A bar told wrong, then the socket is gone: the history of what was missed has the bar's right values too."""
    strategy, data, other = watched(tiny_artefact, parity_every=200), engine_bars(BARS), engine_bars(OTHERS)
    first, after, answered = (int(BARS.ts_close[row]) for row in (WARM, 606, 607))
    strategy.answers = {first: data[:WARM], answered: data[601:606]}
    play(engines, strategy, [*data[WARM:602], other[602], *data[606:650]])
    assert strategy.failure is None
    wanted = Forecaster(tiny, SPOT.id).run(BARS[:650])
    halted = [ts for ts, (proved, _) in sorted(strategy.seen.items()) if not proved]
    assert halted == [after]  # decided on before the right bar was worked in
    for row in [*range(WARM, 602), *range(607, 650)]:
        proved, forecast = strategy.seen[int(BARS.ts_close[row])]
        assert proved
        assert forecast is not None
        off = np.abs(forecast.quantiles_HQ - wanted.quantiles_THQ[row]).max() / forecast.scale
        assert off <= TOLERANCE, row
    _, wrong = strategy.seen[int(BARS.ts_close[602])]
    assert wrong is not None
    assert np.abs(wrong.quantiles_HQ - wanted.quantiles_THQ[602]).max() / wrong.scale > 10 * TOLERANCE


def test_what_the_venue_did_not_answer_is_asked_for_again(
    engines: list[Any],
    tiny_artefact: Path,
    tiny: Artefact,
) -> None:
    """A bar told wrong, and for long no answer: the first one that comes covers it; the next ask for no more."""
    strategy, data, other = watched(tiny_artefact), engine_bars(BARS), engine_bars(OTHERS)
    answered, last = WARM + 9 * EVERY + 1, WARM + 120
    since = int(BARS.ts_close[WARM])
    strategy.answers = {since: data[:WARM], int(BARS.ts_close[answered]): data[WARM - 1 : answered - 1]}
    play(engines, strategy, [*data[WARM : WARM + 3], other[WARM + 3], *data[WARM + 4 : last]])
    assert strategy.failure is None
    asked = [(ts - since) // BARS.timeframe.ns for ts in strategy.asked_from]
    unanswered = [row for row, ts in zip(asked, strategy.asked_from, strict=True) if ts > BARS.ts_close[0]][:9]
    assert max(unanswered) <= 3
    assert asked[-1] > 9 * EVERY - 6
    assert strategy._feed._monitor.parity.mended == 1
    wanted = Forecaster(tiny, SPOT.id).run(BARS[:last])
    for row in range(answered, last):
        proved, forecast = strategy.seen[int(BARS.ts_close[row])]
        assert proved
        assert forecast is not None
        off = np.abs(forecast.quantiles_HQ - wanted.quantiles_THQ[row]).max() / forecast.scale
        assert off <= TOLERANCE, row
