"""The forecaster: streamed = run to the last bit, causal, warmed up when it says so, and deaf to impossible bars."""

from __future__ import annotations

import hashlib
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lstm_strategy import artefact
from lstm_strategy.artefact import Artefact, FeatureRange
from lstm_strategy.bars import Bar, Bars, BarsError, Timeframe, format_ns
from lstm_strategy.conformal import CalibrationConfig
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.features import AsOf, FeatureConfig, Features, FeaturesConfig
from lstm_strategy.forecast import Forecasts
from lstm_strategy.forecaster import Forecaster
from lstm_strategy.sources.simulate import SimulationConfig, simulate

BTC = "BTCUSDT.BINANCE"
HOUR = Timeframe.parse("1h")
WARMUP = 496  # the tiny artefact's
SHARED = settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])


def keep(bars: Bars, rows: np.ndarray) -> Bars:
    columns = (bars.ts_close, bars.open, bars.high, bars.low, bars.close, bars.volume)
    return Bars(bars.instrument_id, bars.timeframe, *(column[rows] for column in columns))


def some_bars(n: int, timeframe: str = "1h", seed: int = 4) -> Bars:
    return simulate(SimulationConfig(instrument_id=BTC, timeframe=timeframe, bars=n, seed=seed))


# A short gap, then a long one once forecasts have begun, then a short one again.
BARS = keep(some_bars(1400), np.r_[0:300, 302:620, 640:1300, 1304:1400])
N = len(BARS)


@pytest.fixture(scope="module")
def tiny(tiny_artefact: Path) -> Artefact:
    return artefact.load(tiny_artefact)


@pytest.fixture(scope="module")
def quick(tiny: Artefact) -> Artefact:
    """The same graph, its features cut to a warm-up of 25 bars: many starts fit into a short history."""
    short = tuple(
        feature if feature.kind == "macd" else msgspec.structs.replace(feature, span=min(feature.span, 2))
        for feature in tiny.manifest.features.features
    )
    names = [feature.name for feature in short]
    for i, name in enumerate(names):  # no name twice
        if name in names[:i]:
            short = (*short[:i], FeatureConfig("return", 2 + i), *short[i + 1 :])
    short = tuple(FeatureConfig("macd", 2, 5, 2) if f.kind == "macd" else f for f in short)
    features = FeaturesConfig(scale_span=5, max_gap_bars=3, features=short)
    ranges = [FeatureRange(name, 0.0, 1.0, -8.0, 8.0) for name in features.names]
    quick = msgspec.structs.replace(tiny.manifest, features=features, feature_ranges=ranges, warmup_bars=40)
    return Artefact(quick, tiny.graph, tiny.weights)


@pytest.fixture(scope="module")
def whole(tiny: Artefact) -> Forecasts:
    return Forecaster(tiny, BTC).run(BARS)


def same(found: Forecasts, wanted: Forecasts, rows: slice = slice(None)) -> None:
    np.testing.assert_array_equal(found.quantiles_THQ, wanted.quantiles_THQ[rows])
    np.testing.assert_array_equal(found.scale_T, wanted.scale_T[rows])
    np.testing.assert_array_equal(found.ts_close, wanted.ts_close[rows])


# Parity


def test_streamed_is_run_to_the_bit_at_every_bar(tiny: Artefact, whole: Forecasts) -> None:
    forecaster, forecasts = Forecaster(tiny, BTC), 0
    for t, bar in enumerate(BARS):
        found, wanted = forecaster.update(bar), whole[t]
        assert (found is None) == (wanted is None)
        if found is not None and wanted is not None:
            np.testing.assert_array_equal(found.quantiles_HQ, wanted.quantiles_HQ)
            assert (found.ts_close, found.scale) == (wanted.ts_close, wanted.scale)
            assert (found.horizons, found.levels) == ((1, 4), wanted.levels)
            forecasts += 1
    # 618 bars before the long gap and 756 after it, 495 of each to warm up.
    assert forecasts == (618 - 495) + (756 - 495)


@SHARED
@given(st.lists(st.tuples(st.integers(0, N), st.sampled_from(["run", "update", "restore"])), max_size=6))
def test_any_split_is_the_same(tiny: Artefact, whole: Forecasts, cuts: list[tuple[int, str]]) -> None:
    forecaster, at = Forecaster(tiny, BTC), 0
    for end, how in [*sorted(cuts), (N, "run")]:
        if how == "restore" and forecaster.last_ts is not None:
            state, forecaster = forecaster.state(), Forecaster(tiny, BTC)
            forecaster.restore(state)
        if how == "update":
            for t, bar in enumerate(BARS[at:end], start=at):
                found, wanted = forecaster.update(bar), whole[t]
                assert (found is None) == (wanted is None)
                if found is not None and wanted is not None:
                    np.testing.assert_array_equal(found.quantiles_HQ, wanted.quantiles_HQ)
        else:
            same(forecaster.run(BARS[at:end]), whole, slice(at, end))
        at = end


def test_after_a_restore_it_goes_on_at_every_bar(quick: Artefact) -> None:
    bars = BARS[250:370]  # with the short gap
    wanted = Forecaster(quick, BTC).run(bars)
    assert not np.isnan(wanted.quantiles_THQ[39:]).any()
    forecaster = Forecaster(quick, BTC)
    for t, bar in enumerate(bars):
        state, forecaster = forecaster.state(), Forecaster(quick, BTC)
        forecaster.restore(state)
        found = forecaster.update(bar)
        assert (found is None) == (t < 39)
        if found is not None:
            np.testing.assert_array_equal(found.quantiles_HQ, wanted.quantiles_THQ[t])


def test_a_result_is_not_overwritten_by_the_next(tiny: Artefact) -> None:
    forecaster = Forecaster(tiny, BTC)
    forecaster.warm_up(BARS[:600])
    first = forecaster.update(next(iter(BARS[600:])))
    assert first is not None
    kept = first.quantiles_HQ.copy()
    for bar in BARS[601:610]:
        assert not np.array_equal(forecaster.update(bar).quantiles_HQ, kept)  # type: ignore[union-attr]
    np.testing.assert_array_equal(first.quantiles_HQ, kept)


def test_two_forecasters_share_nothing(tiny: Artefact, whole: Forecasts) -> None:
    one, other = Forecaster(tiny, BTC), Forecaster(tiny, BTC)
    one.warm_up(BARS[:550])
    other.warm_up(some_bars(700, seed=9))
    same(one.run(BARS[550:]), whole, slice(550, None))


# Causality


def test_cutting_off_the_future_changes_no_forecast(quick: Artefact) -> None:
    bars = BARS[250:450]
    wanted = Forecaster(quick, BTC).run(bars)
    for end in range(1, len(bars) + 1):
        same(Forecaster(quick, BTC).run(bars[:end]), wanted, slice(end))


def test_altering_the_future_changes_no_forecast(quick: Artefact) -> None:
    bars = BARS[250:450]
    wanted = Forecaster(quick, BTC).run(bars)
    shaken = np.exp(np.random.default_rng(5).normal(0, 0.1, len(bars)))
    for end in range(1, len(bars)):
        factor = np.where(np.arange(len(bars)) < end, 1.0, shaken)
        columns = (column * factor for column in (bars.open, bars.high, bars.low, bars.close, bars.volume))
        found = Forecaster(quick, BTC).run(Bars(BTC, HOUR, bars.ts_close, *columns))
        np.testing.assert_array_equal(found.quantiles_THQ[:end], wanted.quantiles_THQ[:end])
        if end >= 40:
            assert not np.array_equal(found.quantiles_THQ[end], wanted.quantiles_THQ[end])


def test_the_last_bar_is_in_the_forecast(tiny: Artefact) -> None:
    last = next(iter(BARS[599:600]))
    forecasts = []
    for close in (last.low, last.high):
        forecaster = Forecaster(tiny, BTC)
        forecaster.warm_up(BARS[:599])
        forecasts.append(forecaster.update(last._replace(close=close)))
    assert not np.array_equal(forecasts[0].quantiles_HQ, forecasts[1].quantiles_HQ)  # type: ignore[union-attr]


# Warm-up and gaps


def test_nothing_is_forecast_before_the_measured_warm_up(tiny: Artefact, whole: Forecasts) -> None:
    forecaster = Forecaster(tiny, BTC)
    assert forecaster.warmup_bars == WARMUP
    assert (forecaster.last_ts, forecaster.ready) == (None, False)
    forecaster.warm_up(BARS[: WARMUP - 1])
    assert not forecaster.ready
    assert np.isnan(whole.quantiles_THQ[: WARMUP - 1]).all()
    assert forecaster.update(next(iter(BARS[WARMUP - 1 :]))) is not None
    assert (forecaster.ready, forecaster.last_ts) == (True, BARS.ts_close[WARMUP - 1])


def test_a_long_gap_starts_the_warm_up_again(tiny: Artefact, whole: Forecasts) -> None:
    gap = 618
    assert not np.isnan(whole.quantiles_THQ[gap - 1]).any()
    assert np.isnan(whole.quantiles_THQ[gap : gap + WARMUP - 1]).all()
    same(Forecaster(tiny, BTC).run(BARS[gap:]), whole, slice(gap, None))
    forecaster = Forecaster(tiny, BTC)
    forecaster.warm_up(BARS[:gap])
    assert forecaster.ready
    assert forecaster.update(next(iter(BARS[gap:]))) is None
    assert not forecaster.ready


def test_several_long_gaps_in_one_run(quick: Artefact) -> None:
    bars = keep(some_bars(400), np.r_[0:60, 70:80, 90:190, 191:250, 300:400])
    wanted = Forecaster(quick, BTC).run(bars)
    held = ~np.isnan(wanted.quantiles_THQ[:, 0, 0])
    assert np.flatnonzero(held).tolist() == [*range(39, 60), *range(109, 229), *range(268, 329)]
    forecaster = Forecaster(quick, BTC)
    for t, bar in enumerate(bars):
        found = forecaster.update(bar)
        if found is not None:
            np.testing.assert_array_equal(found.quantiles_HQ, wanted.quantiles_THQ[t])
    assert forecaster.ready


def test_a_cold_start_agrees_with_the_long_run_after_the_measured_warm_up(tiny: Artefact) -> None:
    from lstm_strategy.research.fit import measure_warmup

    bars = some_bars(3000)
    measured = measure_warmup(tiny, bars, samples=12)
    assert 480 <= measured <= WARMUP
    long_run = Forecaster(tiny, BTC).run(bars)
    unit = long_run.scale_T[:, None, None] * np.sqrt([1, 4])[:, None]
    for end in range(1500, 3000, 97):
        cold = Forecaster(tiny, BTC).run(bars[end - WARMUP : end])
        difference = (cold.quantiles_THQ[-1] - long_run.quantiles_THQ[end - 1]) / unit[end - 1]
        assert 0.0 <= np.abs(difference).max() <= 1e-3


# Quantiles


def test_quantiles_are_returns_in_order(tiny: Artefact, whole: Forecasts) -> None:
    held = whole.quantiles_THQ[~np.isnan(whole.quantiles_THQ[:, 0, 0])]
    assert (np.diff(held, axis=-1) >= 0).all()
    assert np.ptp(held[:, 0, 3]) > 0.0
    # The untrained network says about the normal's quantiles, in units of σ√h.
    spread = np.median(held[:, :, -1] - held[:, :, 0], axis=0)
    scale = np.nanmedian(whole.scale_T)
    assert spread == pytest.approx(4.6 * scale * np.array([1.0, 2.0]), rel=0.2)


def test_calibration_is_added_in_units_of_the_scale(tiny: Artefact) -> None:
    manifest = tiny.manifest
    still = Artefact(msgspec.structs.replace(manifest, calibration=[[0.0] * 7] * 2), tiny.graph, tiny.weights)
    lifted = Artefact(msgspec.structs.replace(manifest, calibration=[[0.25] * 7, [-0.5] * 7]), tiny.graph, tiny.weights)
    bars = BARS[:600]
    before, after = (Forecaster(model, BTC).run(bars) for model in (still, lifted))
    shift = (after.quantiles_THQ - before.quantiles_THQ)[WARMUP:] / before.scale_T[WARMUP:, None, None]
    np.testing.assert_allclose(shift[:, 0], 0.25, atol=1e-5)
    np.testing.assert_allclose(shift[:, 1], -0.5 * math.sqrt(4), atol=1e-5)


def test_calibration_cannot_make_quantiles_cross(tiny: Artefact) -> None:
    wild = [[3.0, -3.0, 0.0, 2.0, -2.0, 0.0, -9.0]] * 2
    crossing = Artefact(msgspec.structs.replace(tiny.manifest, calibration=wild), tiny.graph, tiny.weights)
    forecaster = Forecaster(crossing, BTC)
    found = forecaster.run(BARS[:600]).quantiles_THQ[WARMUP:]
    assert (np.diff(found, axis=-1) >= 0).all()
    assert (np.diff(found, axis=-1) == 0).any()
    last = forecaster.update(next(iter(BARS[600:])))
    assert (np.diff(last.quantiles_HQ, axis=-1) >= 0).all()  # type: ignore[union-attr]


def test_the_scale_is_the_features_own(tiny: Artefact, whole: Forecasts) -> None:
    matrix = Features(FeaturesConfig(), HOUR, tick=0.01, scale_floor=1e-4).run(BARS)
    np.testing.assert_array_equal(whole.scale_T, matrix.scale_T)


# Doors


def bad_bars(last: Bar) -> dict[str, Bar]:
    after = last._replace(ts_close=last.ts_close + HOUR.ns)
    return {
        "the same stamp": last,
        "an earlier stamp": last._replace(ts_close=last.ts_close - HOUR.ns),
        "off the grid": after._replace(ts_close=after.ts_close + 60_000_000_000),
        "one ns early": after._replace(ts_close=after.ts_close - 1),
        "no close": after._replace(close=math.nan),
        "no open": after._replace(open=math.nan),
        "no high": after._replace(high=math.nan),
        "no low": after._replace(low=math.nan),
        "no volume": after._replace(volume=math.nan),
        "endless high": after._replace(high=math.inf),
        "endless volume": after._replace(volume=math.inf),
        "high below low": after._replace(high=after.low, low=after.high),
        "high below close": after._replace(high=after.close * 0.999, open=after.low, low=after.low),
        "low above open": after._replace(low=after.open * 1.001, close=after.high),
        "zero low": after._replace(low=0.0),
        "negative prices": after._replace(open=-1.0, high=-1.0, low=-1.0, close=-1.0),
        "negative volume": after._replace(volume=-1.0),
    }


@pytest.mark.parametrize("case", sorted(bad_bars(Bar(0, 1.0, 1.0, 1.0, 1.0, 1.0))))
def test_an_impossible_bar_is_refused_and_changes_nothing(tiny: Artefact, whole: Forecasts, case: str) -> None:
    forecaster = Forecaster(tiny, BTC)
    forecaster.warm_up(BARS[:600])
    before = forecaster.state()
    bad = bad_bars(next(iter(BARS[599:600])))[case]
    with pytest.raises(BarsError) as refused:
        forecaster.update(bad)
    assert str(refused.value).startswith(f"{BTC}: the bar closed at {format_ns(bad.ts_close)} ")
    assert len(str(refused.value).splitlines()) == 1
    assert forecaster.state() == before
    same(forecaster.run(BARS[600:]), whole, slice(600, None))


def test_a_context_that_nothing_reads_changes_nothing(tiny: Artefact) -> None:
    forecaster = Forecaster(tiny, BTC)
    forecaster.warm_up(BARS[:600])
    before = forecaster.state()
    with pytest.raises(LSTMStrategyError, match="context holds funding"):
        forecaster.update(next(iter(BARS[600:])), {"funding": AsOf(0.0001, 0)})
    assert forecaster.state() == before


def test_a_history_that_is_not_later_is_refused(tiny: Artefact) -> None:
    forecaster = Forecaster(tiny, BTC)
    forecaster.warm_up(BARS[:600])
    before = forecaster.state()
    with pytest.raises(BarsError, match="is not later than the last one, 2020-01-26T02:00:00Z"):
        forecaster.run(BARS[590:700])
    assert forecaster.state() == before
    assert len(forecaster.run(BARS[600:600])) == 0
    assert forecaster.state() == before


def test_bars_of_another_market_are_refused(tiny: Artefact) -> None:
    with pytest.raises(LSTMStrategyError, match=r"not trained on ETHUSDT\.BINANCE; it knows BTCUSDT\.BINANCE"):
        Forecaster(tiny, "ETHUSDT.BINANCE")
    forecaster = Forecaster(tiny, BTC)
    for bars, told in (
        (simulate(SimulationConfig(bars=9)), "bars are of SIM.SIM 1h; this forecaster takes BTCUSDT.BINANCE 1h"),
        (some_bars(9, "4h"), "bars are of BTCUSDT.BINANCE 4h; this forecaster takes BTCUSDT.BINANCE 1h"),
    ):
        with pytest.raises(LSTMStrategyError, match=told):
            forecaster.run(bars)
    assert forecaster.last_ts is None


# Snapshots


def refused(forecaster: Forecaster, state: bytes) -> str:
    before = forecaster.state()
    with pytest.raises(LSTMStrategyError) as error:
        forecaster.restore(state)
    assert forecaster.state() == before
    return str(error.value)


def hashed(content: bytes) -> bytes:
    return hashlib.sha256(content).digest() + content


@pytest.fixture(scope="module")
def snapshot(tiny: Artefact) -> bytes:
    forecaster = Forecaster(tiny, BTC)
    forecaster.warm_up(BARS[:600])
    return forecaster.state()


def test_a_damaged_snapshot_is_refused(tiny: Artefact, snapshot: bytes) -> None:
    forecaster = Forecaster(tiny, BTC)
    forecaster.warm_up(BARS[:10])
    for place in np.linspace(0, len(snapshot) - 1, 200).astype(int).tolist():
        flipped = bytearray(snapshot)
        flipped[place] ^= 0x10
        assert "forecaster state is damaged (its hash differs)" in refused(forecaster, bytes(flipped))
    for state in (b"", b"x", snapshot[:31], snapshot[:-1], snapshot + b"\x00"):
        assert "forecaster state is damaged" in refused(forecaster, state)


def test_a_foreign_snapshot_is_refused(tiny: Artefact, quick: Artefact, snapshot: bytes) -> None:
    forecaster = Forecaster(tiny, BTC)
    forecaster.warm_up(BARS[:10])

    def other(artefact_: Artefact, **changes: Any) -> bytes:
        model = Artefact(msgspec.structs.replace(artefact_.manifest, **changes), artefact_.graph, artefact_.weights)
        instrument_id = next(iter(model.manifest.instruments))
        return Forecaster(model, instrument_id).state()

    told = refused(forecaster, other(tiny, version="2"))
    assert told == "forecaster state is of tiny/2 on BTCUSDT.BINANCE, not of tiny/1 on BTCUSDT.BINANCE; warm up instead"
    elsewhere = {"ETHUSDT.BINANCE": tiny.manifest.instruments[BTC]}
    assert "is of tiny/1 on ETHUSDT.BINANCE, not" in refused(forecaster, other(tiny, instruments=elsewhere))
    assert "it belongs to other features" in refused(forecaster, other(quick))


def test_a_snapshot_of_another_shape_is_refused(tiny: Artefact, snapshot: bytes) -> None:
    forecaster = Forecaster(tiny, BTC)
    document = msgspec.msgpack.decode(snapshot[32:])
    for content in (b"", b"\xc1", b"\x01", msgspec.msgpack.encode({"model": "tiny/1"})):
        refused(forecaster, hashed(content))
    for key, part in (("network", document["network"][:-4]), ("network", b"abc"), ("features", b"")):
        refused(forecaster, hashed(msgspec.msgpack.encode(document | {key: part})))


def test_a_snapshot_names_its_last_bar(tiny: Artefact, snapshot: bytes) -> None:
    assert msgspec.msgpack.decode(snapshot[32:])["last_ts"] == BARS.ts_close[599]
    forecaster = Forecaster(tiny, BTC)
    forecaster.restore(snapshot)
    assert (forecaster.last_ts, forecaster.ready) == (BARS.ts_close[599], True)
    assert forecaster.state() == snapshot


TAKES_BARS = """
import sys
from dataclasses import replace
from pathlib import Path
from numba.core.dispatcher import Dispatcher
from lstm_strategy import conformal, features_kernel, forecast_kernel, lstm_kernel
from lstm_strategy.artefact import load
from lstm_strategy.conformal import CalibrationConfig
from lstm_strategy.forecaster import Forecaster
from lstm_strategy.sources.simulate import SimulationConfig, simulate

rooms = conformal, features_kernel, forecast_kernel, lstm_kernel
kernels = {one.__name__: one for room in rooms for one in vars(room).values() if isinstance(one, Dispatcher)}
artefact = load(Path(sys.argv[1]))
(name,) = artefact.manifest.instruments
bars = replace(simulate(SimulationConfig(bars=600, timeframe="1h")), instrument_id=name)
for adaptive in (False, True):
    forecaster = Forecaster(artefact, name, CalibrationConfig(adaptive=adaptive))
    compiled = {kernel: len(one.signatures) for kernel, one in kernels.items()}
    forecaster.run(bars[:550])
    forecaster.restore(forecaster.state())
    for bar in bars[550:]:
        forecaster.update(bar).moments(1)
    assert compiled == {kernel: len(one.signatures) for kernel, one in kernels.items()}, compiled
"""


def test_nothing_is_compiled_at_a_bar(tiny_artefact: Path) -> None:
    """With a cold cache the first bar kept a node's loop waiting for seven seconds."""
    done = subprocess.run([sys.executable, "-c", TAKES_BARS, tiny_artefact], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("adaptive", [False, True])
def test_what_compiles_it_leaves_no_trace(tiny: Artefact, adaptive: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Forecaster(tiny, BTC, CalibrationConfig(adaptive=adaptive))
    monkeypatch.setattr(Forecaster, "_compile", lambda self: None)
    untouched = Forecaster(tiny, BTC, CalibrationConfig(adaptive=adaptive))
    assert opened.state() == untouched.state()
    assert (opened.last_ts, opened.ready, opened.last_step) == (None, False, (None, None))
