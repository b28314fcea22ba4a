"""Measures against figures worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lstm_strategy.forecast import Forecasts
from lstm_strategy.measures import (
    coverage,
    daily_returns,
    labels,
    max_drawdown,
    pinball,
    scaled_quantiles,
    sharpe,
)

HOUR = 3_600_000_000_000
DAY = 24 * HOUR


def test_labels_are_log_returns_in_units_of_scale_and_stop_at_holes() -> None:
    close = np.array([1.0, math.e, math.e**3, math.e**4])
    ts = np.array([1, 2, 3, 5]) * HOUR
    scale = np.array([0.5, 1.0, 2.0, np.nan])
    np.testing.assert_allclose(labels(close, ts, scale, 1, HOUR), [2.0, 2.0, np.nan, np.nan])
    expected = [3.0 / (0.5 * math.sqrt(2)), np.nan, np.nan, np.nan]
    np.testing.assert_allclose(labels(close, ts, scale, 2, HOUR), expected)
    assert np.isnan(labels(close, ts, scale, 9, HOUR)).all()


def test_scaled_quantiles() -> None:
    quantiles = np.array([[[1.0, 2.0], [4.0, 8.0]]], np.float32)
    forecasts = Forecasts("A.B", (1, 4), (0.1, 0.9), np.array([HOUR]), quantiles, np.array([2.0]))
    np.testing.assert_allclose(scaled_quantiles(forecasts, 1), [[0.5, 1.0]])
    np.testing.assert_allclose(scaled_quantiles(forecasts, 4), [[1.0, 2.0]])


def test_pinball() -> None:
    outcome = np.array([1.0, np.nan, -1.0])
    # 0.1 and 0.9 of a distance of 1 on either side, each level once.
    assert pinball(outcome, np.array([0.0, 0.0]), (0.1, 0.9)) == pytest.approx(0.5)
    assert pinball(outcome[:1], np.array([0.0]), (0.1,)) == pytest.approx(0.1)
    assert pinball(outcome[2:], np.array([[0.0]]), (0.1,)) == pytest.approx(0.9)
    assert math.isnan(pinball(outcome[1:2], np.array([0.0]), (0.5,)))


def test_coverage() -> None:
    levels = (0.05, 0.1, 0.9, 0.95)
    table = np.tile([-2.0, -1.0, 1.0, 2.0], (5, 1))
    outcome = np.array([-1.5, -1.0, 0.0, 1.0, 3.0])
    assert coverage(outcome, table, levels, 0.8) == pytest.approx(3 / 5)
    assert coverage(outcome, table, levels, 0.9) == pytest.approx(4 / 5)
    assert coverage(np.array([1.45, 1.55, 0, 0, 0]), table, levels, 0.85) == pytest.approx(4 / 5)  # between levels
    assert math.isnan(coverage(outcome, table, levels, 0.98))


def test_sharpe_is_of_daily_returns() -> None:
    ts = np.array([12 * HOUR, DAY, DAY + 1 * HOUR, 2 * DAY, 3 * DAY])
    equity = np.array([50.0, 110.0, 1.0, 99.0, 118.8])
    days, returns = daily_returns(ts, equity, 100.0)
    assert days.tolist() == [0, 1, 2]
    np.testing.assert_allclose(returns, [0.1, -0.1, 0.2])
    expected = returns.mean() / returns.std(ddof=1) * math.sqrt(365.25)
    assert sharpe(ts, equity, 100.0) == pytest.approx(expected)
    five_of_seven = np.array([1, 2, 3, 4, 5, 8, 9, 10, 11, 12]) * DAY
    wiggle = 100.0 + np.arange(10) % 2
    _, returns = daily_returns(five_of_seven, wiggle, 100.0)
    expected = returns.mean() / returns.std(ddof=1) * math.sqrt(365.25 * 10 / 12)
    assert sharpe(five_of_seven, wiggle, 100.0) == pytest.approx(expected)
    assert math.isnan(sharpe(ts, np.full(5, 100.0), 100.0))
    assert math.isnan(sharpe(ts[:1], equity[:1], 100.0))


def test_max_drawdown_counts_from_the_start() -> None:
    assert max_drawdown(np.array([80.0, 120.0, 90.0]), 100.0) == pytest.approx(0.25)
    assert max_drawdown(np.array([75.0, 120.0, 100.0]), 100.0) == pytest.approx(0.25)
    assert max_drawdown(np.array([101.0, 102.0]), 100.0) == 0.0


def test_a_ruined_account_has_no_sharpe_and_lost_all() -> None:
    ts = np.arange(1, 8) * DAY
    equity = np.array([1.0, 0.5, -1e-3, -2.0, -2.0, -2.0, -2.0])
    assert math.isnan(sharpe(ts, equity, 1.0))
    assert math.isnan(sharpe(ts, np.array([1.0, 0.5, 0.0, 0.0, 0.0, 0.1, 0.2]), 1.0))
    assert max_drawdown(equity, 1.0) == 1.0
