"""Adaptive calibration: it covers again after the market has changed, never looks ahead, and stays within bounds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lstm_strategy import artefact
from lstm_strategy.bars import Bars
from lstm_strategy.conformal import STATIC, CalibrationConfig, Conformal
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.forecast import Forecast, Forecasts
from lstm_strategy.forecaster import Forecaster
from lstm_strategy.measures import labels
from lstm_strategy.sources.simulate import SimulationConfig, simulate

HOUR = 3_600_000_000_000
BTC = "BTCUSDT.BINANCE"
LEVELS, HORIZONS = (0.05, 0.25, 0.5, 0.75, 0.95), (1, 4)
NORMAL = np.array([-1.645, -0.674, 0.0, 0.674, 1.645])
SCALE = 0.01
QUICK = CalibrationConfig(adaptive=True, rate=0.05, widest=2.0)


def said(n: int, first: int = 1) -> Forecasts:
    """A normal law of the same width for ever."""
    unit_H = SCALE * np.sqrt(np.array(HORIZONS))
    quantiles_THQ = np.broadcast_to(unit_H[:, None] * NORMAL, (n, 2, 5)).astype(np.float32)
    return Forecasts(BTC, HORIZONS, LEVELS, (np.arange(n) + first) * HOUR, quantiles_THQ, np.full(n, SCALE))


def walk(widths: np.ndarray, seed: int = 1) -> np.ndarray:
    return 100.0 * np.exp(np.cumsum(np.random.default_rng(seed).normal(0.0, SCALE * widths)))


def tracker(config: CalibrationConfig = QUICK) -> Conformal:
    return Conformal(config, HORIZONS, LEVELS, HOUR)


def covered(forecasts: Forecasts, close: np.ndarray, rows: slice) -> np.ndarray:
    """Share of outcomes inside the 90 % interval, by horizon."""
    found = []
    for i, horizon in enumerate(HORIZONS):
        y = labels(close, forecasts.ts_close, np.ones(len(close)), horizon, HOUR)[rows] * np.sqrt(horizon)
        low, high = forecasts.quantiles_THQ[rows, i, 0], forecasts.quantiles_THQ[rows, i, -1]
        known = ~np.isnan(y)
        found.append(np.mean((low[known] < y[known]) & (y[known] <= high[known])))
    return np.array(found)


def test_it_covers_again_after_the_market_has_changed() -> None:
    widths = np.r_[np.ones(3_000), np.full(9_000, 1.7)]
    close, static = walk(widths), said(12_000)
    moved = tracker().run(static, close)
    before, after = slice(1_000, 3_000), slice(6_000, 12_000)
    assert (np.abs(covered(static, close, before) - 0.9) < 0.02).all()
    assert (np.abs(covered(moved, close, before) - 0.9) < 0.02).all()
    assert (covered(static, close, after) < 0.75).all()
    assert (np.abs(covered(moved, close, after) - 0.9) < 0.02).all()


def test_every_level_is_tracked_by_itself() -> None:
    close = walk(np.full(20_000, 0.5)) * np.exp(np.arange(20_000) * 0.2 * SCALE)  # narrower, and it rises
    moved = tracker().run(said(20_000), close)
    y = labels(close, moved.ts_close, np.ones(20_000), 1, HOUR)[8_000:-1]
    below = (y[:, None] <= moved.quantiles_THQ[8_000:-1, 0]).mean(axis=0)
    np.testing.assert_allclose(below, LEVELS, atol=0.015)


def test_nothing_is_learned_before_it_has_matured() -> None:
    close = walk(np.full(40, 3.0))
    one, static = tracker(), said(40)
    for row in range(40):
        forecast = one.step(int(static.ts_close[row]), close[row], static[row])
        assert forecast is not None
        # The bar's own close matures the forecast of the bar before, and of no horizon sooner than it is over.
        assert one.offsets_HQ[0].any() == (row >= 1)
        assert one.offsets_HQ[1].any() == (row >= 4)
        if row < 4:
            np.testing.assert_array_equal(forecast.quantiles_HQ[1], static.quantiles_THQ[row, 1])


@given(st.integers(1, 58), st.floats(0.5, 2.0))
def test_later_bars_change_nothing_said_before(cut: int, factor: float) -> None:
    close, static = walk(np.ones(60)), said(60)
    other = close.copy()
    other[cut + 1 :] *= factor
    wanted, found = (tracker().run(static, column).quantiles_THQ for column in (close, other))
    np.testing.assert_array_equal(found[: cut + 1], wanted[: cut + 1])


@settings(deadline=None)
@given(st.lists(st.floats(-0.9, 0.9), min_size=20, max_size=120), st.booleans())
def test_an_adversary_moves_nothing_beyond_its_bounds(moves: list[float], spiteful: bool) -> None:
    config = CalibrationConfig(adaptive=True, rate=0.2, widest=0.5)
    one, static, close = tracker(config), said(len(moves)), 100.0
    for row, move in enumerate(moves):
        before = one.offsets_HQ
        forecast = one.step(int(static.ts_close[row]), close, static[row])
        assert forecast is not None
        assert (np.abs(one.offsets_HQ) <= 0.5).all()
        assert (np.abs(one.offsets_HQ - before) <= 0.2 / np.array(HORIZONS)[:, None] + 1e-12).all()
        assert (np.diff(forecast.quantiles_HQ, axis=1) >= 0.0).all()
        assert np.isfinite(forecast.quantiles_HQ).all()
        # An adversary knows the forecast: always just outside, on one side or the other.
        edge = forecast.quantiles_HQ[0, 0] - 1e-4 if move < 0 else forecast.quantiles_HQ[0, -1] + 1e-4
        close *= np.exp(edge if spiteful else move)


def test_levels_stay_in_order_where_their_offsets_cross() -> None:
    config = CalibrationConfig(adaptive=True, rate=0.2, widest=5.0)
    one, static, crossed = tracker(config), said(50), False
    flat = replace(static, quantiles_THQ=(static.quantiles_THQ * 1e-3).astype(np.float32))  # so narrow that they do
    for row in range(50):
        forecast = one.step(int(flat.ts_close[row]), 100.0, flat[row])  # no move: always between two of them
        assert forecast is not None
        assert (np.diff(forecast.quantiles_HQ, axis=1) >= 0.0).all()
        crossed |= bool((np.diff(one.offsets_HQ * SCALE + flat.quantiles_THQ[row], axis=1) < 0).any())
    assert crossed


def test_what_is_no_number_teaches_nothing_and_stays_none() -> None:
    close = walk(np.full(60, 2.0))
    static = said(60)
    quantiles_THQ = static.quantiles_THQ.copy()
    quantiles_THQ[20, 0, 2], quantiles_THQ[20, 1, :] = np.nan, np.nan
    moved = tracker().run(replace(static, quantiles_THQ=quantiles_THQ), close)
    assert np.isnan(moved.quantiles_THQ[20, 0, 2])
    assert np.isnan(moved.quantiles_THQ[20, 1]).all()
    assert np.isfinite(np.delete(moved.quantiles_THQ, 20, axis=0)).all()
    one = tracker()
    for row in range(60):
        broken = quantiles_THQ[row] if row == 20 else static.quantiles_THQ[row]
        before = one.offsets_HQ
        one.step(int(static.ts_close[row]), close[row], Forecast(0, HORIZONS, LEVELS, broken, SCALE))
        if row == 21:
            assert one.offsets_HQ[0, 2] == before[0, 2]
            assert one.offsets_HQ[0, 1] != before[0, 1]
        if row == 24:
            np.testing.assert_array_equal(one.offsets_HQ[1], before[1])


def test_a_forecast_from_before_missing_bars_never_matures() -> None:
    close, static, one = walk(np.full(30, 2.0)), said(30), tracker()
    kept = np.r_[0:20, 21:30]  # one bar is missing
    for row in kept:
        before = one.offsets_HQ
        one.step(int(static.ts_close[row]), close[row], static[int(row)])
        changed = (one.offsets_HQ != before).any(axis=1)
        assert changed.tolist() == [row not in (0, 21), row not in (0, 1, 2, 3, 21, 22, 23, 24)], row
    whole = Conformal(QUICK, HORIZONS, LEVELS, 2 * HOUR)  # a market that closes for two hours has no hole there
    whole.run(static.at(kept), close[kept])
    holed = tracker()
    holed.run(static.at(kept), close[kept])
    assert (whole.offsets_HQ != holed.offsets_HQ).any()


# -- in the forecaster -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny(tiny_artefact: Path) -> artefact.Artefact:
    return artefact.load(tiny_artefact)


@pytest.fixture(scope="module")
def bars() -> Bars:
    made = simulate(SimulationConfig(instrument_id=BTC, bars=900, seed=4))
    rows = np.r_[0:640, 643:900]
    columns = ("ts_close", "open", "high", "low", "close", "volume")
    return Bars(BTC, made.timeframe, *(getattr(made, name)[rows] for name in columns))


def test_streamed_is_run_to_the_last_bit_across_snapshots(tiny: artefact.Artefact, bars: Bars) -> None:
    wanted, raw = Forecaster(tiny, BTC, QUICK).run_with_raw(bars)
    static, static_raw = Forecaster(tiny, BTC).run_with_raw(bars)
    np.testing.assert_array_equal(raw.quantiles_THQ, static_raw.quantiles_THQ)  # what parity compares
    assert (wanted.quantiles_THQ[600:] != static.quantiles_THQ[600:]).any()
    one = Forecaster(tiny, BTC, QUICK)
    one.warm_up(bars[:500])
    for row, bar in enumerate(bars[500:], start=500):
        if row % 90 == 0:
            state, one = one.state(), Forecaster(tiny, BTC, QUICK)
            one.restore(state)
        forecast = one.update(bar)
        assert forecast is not None
        np.testing.assert_array_equal(forecast.quantiles_HQ, wanted.quantiles_THQ[row])


def test_a_snapshot_of_another_calibration_is_refused_and_changes_nothing(tiny: artefact.Artefact, bars: Bars) -> None:
    makers = {
        config: Forecaster(tiny, BTC, config)
        for config in (STATIC, QUICK, CalibrationConfig(adaptive=True, rate=0.01, widest=2.0))
    }
    for forecaster in makers.values():
        forecaster.warm_up(bars[:550])
    for config, forecaster in makers.items():
        mine = forecaster.state()
        for other in makers.values():
            if other is not forecaster:
                with pytest.raises(LSTMStrategyError, match="calibrat"):
                    forecaster.restore(other.state())
        assert forecaster.state() == mine
        fresh = Forecaster(tiny, BTC, config)
        fresh.restore(mine)
        assert fresh.state() == mine


@pytest.mark.parametrize(
    ("key", "value"), [("rate", 0.0), ("rate", 0.3), ("rate", float("nan")), ("widest", 0.0), ("widest", 6.0)]
)
def test_settings_without_sense_are_refused(key: str, value: float) -> None:
    with pytest.raises(LSTMStrategyError, match=rf"calibration\.{key} is"):
        CalibrationConfig(adaptive=True, **{key: value})
