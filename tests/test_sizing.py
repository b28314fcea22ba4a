"""Sizing: each rule by hand, horizons combined as stated, and abstention from what is too uncertain."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from venue_support import LEVELS, NORMAL

from lstm_strategy.bars import parse_ns
from lstm_strategy.decision import Costs, Decision, LimitsConfig, PortfolioState, Reason, RiskState, decide
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.forecast import Forecast, mean_of, std_of
from lstm_strategy.sizing import Shrinkage, SizingConfig, Trained, size

NOON = parse_ns("2024-05-01T12:00")
YEAR = 8760.0
COSTS = Costs(fee=0.001, spread=0.0004, slippage=0.0003)  # 0.0015 a side, 0.003 a round trip
BOTH_SIDES = LimitsConfig(side="long_short", max_exposure=1.0, max_step=2.0)


def normal(mean: float, std: float = 0.01, horizons: tuple[int, ...] = (1,), scale: float = 0.01) -> Forecast:
    """Quantiles of 5, 25, 50, 75 and 95 %, the same at every horizon but for √h."""
    rows = [mean * h + std * math.sqrt(h) * NORMAL for h in horizons]
    return Forecast(NOON, horizons, LEVELS, np.array(rows, np.float32), scale)


def decided(
    forecast: Forecast,
    sizing: SizingConfig,
    held: float = 0.0,
    trained: Trained | None = None,
    limits: LimitsConfig = BOTH_SIDES,
    costs: Costs = COSTS,
) -> Decision:
    known = trained or Trained({h: Shrinkage(1.0) for h in forecast.horizons}, 2.56)
    state = PortfolioState(NOON, 1000.0, held, RiskState.start(NOON, 1000.0))
    return decide(forecast, state, sizing, limits, costs, trained=known, bars_per_year=YEAR)


# Fixed fraction

FIXED = SizingConfig(mode="fixed_fraction", fraction=0.4)


@pytest.mark.parametrize(
    ("mean", "held", "target", "reason"),
    [
        (0.0016, 0.0, 0.4, Reason.REBALANCE),  # more than the cost of getting there
        (0.0014, 0.0, 0.0, Reason.WITHIN_BAND),
        (-0.0016, 0.0, -0.4, Reason.REBALANCE),
        (-0.0014, 0.4, 0.4, Reason.WITHIN_BAND),
        (-0.0016, 0.4, -0.4, Reason.REBALANCE),
        (0.0016, 0.4, 0.4, Reason.AT_TARGET),
    ],
)
def test_a_fixed_fraction_on_the_side_of_the_mean(mean: float, held: float, target: float, reason: Reason) -> None:
    found = decided(normal(mean), FIXED, held)
    assert (found.target, found.reason) == (target, reason)


def test_a_mean_that_is_not_believed_has_no_side() -> None:
    nothing = Trained({1: Shrinkage(0.0)})
    assert decided(normal(0.5), FIXED, 0.0, nothing).target == 0.0
    assert decided(normal(0.5), FIXED, 0.4, nothing).target == 0.0  # no reason to keep it, whatever closing costs
    assert decided(normal(-0.5), FIXED, limits=LimitsConfig()).bound == ("long_only",)


# Quantile rule

QUANTILE = SizingConfig(mode="quantile", fraction=0.4, interval=0.5)
# 50 % of a normal lie within .674 deviations: with one of .001, ± .000674.


@pytest.mark.parametrize(
    ("mean", "held", "target", "reason"),
    [
        (0.0037, 0.0, 0.4, Reason.REBALANCE),  # .0037 - .00067 > .003
        (0.0036, 0.0, 0.0, Reason.INTERVAL_INCLUDES_COST),
        (-0.0037, 0.0, -0.4, Reason.REBALANCE),
        (-0.0036, 0.0, 0.0, Reason.INTERVAL_INCLUDES_COST),
        (0.0016, 0.4, 0.4, Reason.INTERVAL_INCLUDES_COST),  # kept while the mean is on its side
        (-0.0014, 0.4, 0.4, Reason.WITHIN_BAND),  # not worth the cost of closing
        (-0.0016, 0.4, 0.0, Reason.REBALANCE),  # closed, and not turned
        (-0.0037, 0.4, -0.4, Reason.REBALANCE),
    ],
)
def test_the_quantile_rule_opens_where_the_interval_excludes_a_round_trip(
    mean: float, held: float, target: float, reason: Reason
) -> None:
    found = decided(normal(mean, 0.001), QUANTILE, held)
    assert (found.target, found.reason) == (target, reason)


@given(st.floats(-0.02, 0.02), st.floats(0.0005, 0.02), st.floats(0.0, 1.0), st.floats(0.1, 0.9))
@settings(deadline=None, max_examples=200)
def test_no_position_is_opened_whose_shrunk_interval_holds_the_cost(
    mean: float, std: float, slope: float, interval: float
) -> None:
    sizing = SizingConfig(mode="quantile", fraction=0.4, interval=interval)
    forecast = normal(mean, std)
    found = decided(forecast, sizing, trained=Trained({1: Shrinkage(slope)}))
    shift = (slope - 1.0) * forecast.mean(1)
    low, high = (forecast.quantile((1.0 + sign * interval) / 2, 1) + shift for sign in (-1, 1))
    if found.target:
        assert low > 0.003 or high < -0.003
        assert found.target * mean > 0.0


# Several horizons


def test_horizons_are_combined_by_inverse_variance() -> None:
    # By hand: years 1/8760 and 4/8760; annualised means 8760 * .001 * slope and 8760/4 * .002;
    # weights (years/std)²: (1/.01)² to (4/.02)² = 1 to 4.
    forecast = Forecast(NOON, (1, 4), (0.25, 0.5 - 1e-9, 0.5 + 1e-9, 0.75), np.empty((2, 4), np.float32), 0.01)
    forecast.quantiles_HQ[0] = [-0.009, -0.009, 0.011, 0.011]
    forecast.quantiles_HQ[1] = [-0.018, -0.018, 0.022, 0.022]
    trained = Trained({1: Shrinkage(0.5), 4: Shrinkage(1.0)})
    annual = (1 * 8760 * 0.0005 + 4 * 8760 / 4 * 0.002) / 5
    for horizon in (1, 4):
        sizing = SizingConfig(mode="mean_variance", horizon=horizon, horizons=(4, 1))
        found = size(forecast, 0.0, sizing, COSTS, trained, YEAR)
        assert found is not None
        assert found.drift == pytest.approx(annual * horizon / YEAR, rel=1e-4)
        assert found.wanted == pytest.approx(0.25 * found.drift / (1e-4 * horizon), rel=1e-4)


@given(st.floats(-0.01, 0.01), st.floats(0.001, 0.05), st.sampled_from([(1,), (1, 4), (24, 1, 4)]))
@settings(deadline=None, max_examples=100)
def test_horizons_that_agree_are_as_one(mean: float, std: float, horizons: tuple[int, ...]) -> None:
    forecast = normal(mean, std, (1, 4, 24))
    trained = Trained({h: Shrinkage(1.0) for h in (1, 4, 24)})
    one, all_of_them = (
        size(forecast, 0.0, SizingConfig(horizons=chosen), COSTS, trained, YEAR) for chosen in ((), horizons)
    )
    assert one is not None
    assert all_of_them is not None
    assert all_of_them.wanted == pytest.approx(one.wanted, rel=1e-4, abs=1e-5)


def test_of_a_long_holding_time_each_horizon_earns_its_own_share() -> None:
    # As above, held for 4 bars: the mean of one bar is earned in one of them, that of 4 in all.
    forecast = normal(0.0005, 0.01, (1, 4))
    forecast.quantiles_HQ[1] = 0.002 + 0.02 * NORMAL
    trained = Trained({1: Shrinkage(1.0), 4: Shrinkage(1.0)})
    for holding, share in ((None, 1.0), (1, 1.0), (4, (1 / 4 + 4) / 5), (8, (1 / 8 + 4 / 2) / 5)):
        sizing = SizingConfig(mode="mean_variance", horizons=(1, 4), holding_bars=holding)
        found = size(forecast, 0.0, sizing, COSTS, trained, YEAR)
        assert found is not None
        assert found.drift == pytest.approx(0.0005 * share, rel=1e-3)


@pytest.mark.parametrize("mode", ["mean_variance", "fixed_fraction"])
@pytest.mark.parametrize("holding", [1, 24, 168, 1000])
@pytest.mark.parametrize("held", [0.0, 0.2])
def test_an_hours_mean_does_not_pay_for_a_trade_by_being_held_for_longer(mode: Any, holding: int, held: float) -> None:
    mean = 0.4 * COSTS.per_side  # what it earns is less than what a trade costs
    sizing = SizingConfig(mode=mode, fraction=0.6, holding_bars=holding)
    assert decided(normal(mean, 0.002), sizing, held).target <= held  # less risk may be worth its cost


def test_a_mean_that_comes_and_goes_is_not_traded_at_a_loss() -> None:
    rng = np.random.default_rng(4)
    mean_T = 0.0006 * rng.standard_normal(3000)  # honestly forecast, gone after one bar
    sizing = SizingConfig(holding_bars=168, target_volatility=0.5)
    paid, earned, held = 0.0, 0.0, 0.5
    for mean in mean_T:
        target = decided(normal(float(mean)), sizing, held).target
        paid += COSTS.per_side * abs(target - held)
        earned += (target - 0.5) * float(mean)
        held = target
    assert earned - paid > -0.01


def test_a_horizon_that_is_not_finite_spoils_them_all() -> None:
    forecast = normal(0.001, 0.01, (1, 4))
    forecast.quantiles_HQ[1, 2] = np.nan
    assert decided(forecast, SizingConfig(horizons=(1, 4), no_trade_band=0.0)).reason == Reason.INVALID_FORECAST
    assert decided(forecast, SizingConfig(no_trade_band=0.0)).reason == Reason.REBALANCE


# Abstention


@pytest.mark.parametrize(
    ("settings", "width", "too_wide"),
    [
        ({"widest_interval": 1.01, "interval": 0.5, "width_unit": "scale"}, 1.348, True),
        ({"widest_interval": 1.36, "interval": 0.5, "width_unit": "scale"}, 1.348, False),
        ({"widest_interval": 2.0, "interval": 0.5}, 0.66, True),  # 1.348 / .66 = 2.04
        ({"widest_interval": 2.0, "interval": 0.5}, 0.69, False),
        ({"widest_interval": 1e9, "interval": 0.5}, math.nan, True),  # nothing known is nothing trusted
        ({}, math.nan, False),
    ],
)
def test_an_interval_that_is_too_wide_is_not_acted_on(settings: dict[str, Any], width: float, too_wide: bool) -> None:
    trained = Trained({1: Shrinkage(1.0)}, width)
    found = decided(normal(0.005), SizingConfig(mode="mean_variance", kelly_fraction=1.0, **settings), 0.1, trained)
    assert (found.reason == Reason.INTERVAL_TOO_WIDE) == too_wide
    assert (found.target == 0.1) == too_wide


def test_the_width_is_in_units_of_the_horizons_scale() -> None:
    sizing = SizingConfig(horizon=4, widest_interval=1.36, interval=0.5, width_unit="scale", no_trade_band=0.0)
    forecast = normal(0.0, 0.01, (1, 4))
    trained = Trained({1: Shrinkage(), 4: Shrinkage()})
    assert decided(forecast, sizing, trained=trained).reason == Reason.REBALANCE  # twice as wide, at twice the scale
    calm = normal(0.0, 0.01, (1, 4), scale=0.009)
    assert decided(calm, sizing, trained=trained).reason == Reason.INTERVAL_TOO_WIDE


# Doors


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("fraction", 0.0),
        ("interval", 1.0),
        ("interval", math.nan),
        ("widest_interval", 0.0),
        ("widest_interval", math.inf),
        ("horizons", (4, 24)),
        ("horizons", (1, 1)),
        ("reference_sharpe", 5e-324),
        ("reference_sharpe", 1e7),
        ("target_volatility", 1e308),
        ("kelly_fraction", 1e-7),
        ("volatility_floor", 1e300),
        ("volatility_floor", math.nan),
        ("tilt", 1e308),
        ("no_trade_band", 1e308),
    ],
)
def test_a_wrong_setting_is_refused_by_its_key(key: str, value: Any) -> None:
    with pytest.raises(LSTMStrategyError, match=rf"^sizing\.{key} is .*; it must be ") as refusal:
        SizingConfig(**{key: value})
    assert "\n" not in str(refusal.value)


# The moments of one forecast are those of many


@given(st.lists(st.floats(-0.125, 0.125, width=32), min_size=5, max_size=5))
@settings(deadline=None, max_examples=200)
def test_one_forecasts_moments_and_quantiles_are_the_arrays(values: list[float]) -> None:
    row = np.sort(np.array(values, np.float32))
    forecast = Forecast(NOON, (1,), LEVELS, row[None], 0.01)
    mean, std = forecast.moments(1)
    assert mean == pytest.approx(float(mean_of(row, LEVELS)), rel=1e-12, abs=1e-18)
    assert std == pytest.approx(float(std_of(row, LEVELS)), rel=1e-9, abs=1e-15)
    for level in (0.01, 0.05, 0.1, 0.5, 0.77, 0.95, 0.99):
        assert forecast.quantile(level, 1) == pytest.approx(np.interp(level, LEVELS, row), rel=1e-9, abs=1e-15)
