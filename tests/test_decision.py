"""The decision: inside its limits whatever comes in, halted when it should be, and trading only where it pays."""

from __future__ import annotations

import copy
import math
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import norm

from lstm_strategy.bars import parse_ns
from lstm_strategy.decision import (
    Costs,
    Decision,
    LimitsConfig,
    PortfolioState,
    Reason,
    RiskState,
    Shrinkage,
    SizingConfig,
    Trained,
    advance,
    count_order,
    decide,
    resume,
)
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.forecast import Forecast
from lstm_strategy.hyperparameters import LEVELS

HOURS_PER_YEAR = 8760.0
NOON = parse_ns("2024-05-01T12:00")
HOUR = 3_600_000_000_000
FREE = Costs(fee=0.0)
HALTS = {Reason.HALT_DAILY_LOSS, Reason.HALT_DRAWDOWN, Reason.HALT_NO_EQUITY}


def normal(mean: float = 0.0, std: float = 0.01, horizon: int = 1) -> Forecast:
    quantiles = mean + std * norm.ppf(LEVELS)
    return Forecast(NOON, (horizon,), LEVELS, quantiles[None].astype(np.float32), std / math.sqrt(horizon))


def two_point(mean: float, std: float) -> Forecast:
    """Half mean - std, half mean + std: a mean and deviation that can be checked by hand."""
    levels = (0.25, 0.5 - 1e-9, 0.5 + 1e-9, 0.75)
    low, high = mean - std, mean + std
    return Forecast(NOON, (1,), levels, np.array([[low, low, high, high]], np.float32), std)


def state(exposure: float = 0.0, equity: float = 1000.0, **risk: Any) -> PortfolioState:
    return PortfolioState(NOON, equity, exposure, msgspec.structs.replace(RiskState.start(NOON, equity), **risk))


def decided(
    forecast: Forecast | None,
    held: float | PortfolioState = 0.0,
    sizing: SizingConfig | None = None,
    limits: LimitsConfig | None = None,
    costs: Costs = FREE,
    shrinkage: Shrinkage | None = None,
) -> Decision:
    return decide(
        forecast,
        held if isinstance(held, PortfolioState) else state(held),
        sizing or SizingConfig(),
        limits or LimitsConfig(),
        costs,
        trained=Trained({horizon: shrinkage or Shrinkage() for horizon in (sizing or SizingConfig()).used_horizons}),
        bars_per_year=HOURS_PER_YEAR,
    )


# Anything that a forecast, a portfolio and a configuration may say

any_number = st.floats(allow_nan=True, allow_infinity=True, width=32)
plausible = st.floats(-0.125, 0.125, width=32)
positive = st.floats(1e-4, 1e4)
any_sizing = st.builds(
    SizingConfig,
    mode=st.sampled_from(["volatility_target", "mean_variance"]),
    horizon=st.just(4),
    target_volatility=positive,
    reference_sharpe=positive,
    tilt=st.floats(0, 100),
    kelly_fraction=positive,
    volatility_floor=positive,
    holding_bars=st.none() | st.integers(1, 1000),
    no_trade_band=st.floats(0, 100),
    without_forecast=st.sampled_from(["flatten", "hold"]),
)
any_limits = st.builds(
    LimitsConfig,
    side=st.sampled_from(["long_only", "long_short"]),
    max_exposure=st.floats(0.01, 10),
    max_step=st.floats(0.01, 10),
    drift_tolerance=st.floats(0, 0.5),
)
any_costs = st.builds(Costs, fee=st.floats(-0.005, 0.1), spread=st.floats(0, 0.1), slippage=st.floats(0, 0.1))
any_shrinkage = st.builds(Shrinkage, slope=st.floats(0, 1), centre=st.floats(-1, 1))


@st.composite
def any_forecast(draw: st.DrawFn) -> Forecast:
    numbers = draw(st.sampled_from([plausible, any_number]))
    quantiles = np.sort(np.array(draw(st.lists(numbers, min_size=3, max_size=3)), np.float32))
    return Forecast(NOON, (4,), (0.1, 0.5, 0.9), quantiles[None], draw(st.floats(1e-6, 0.1) | any_number))


@st.composite
def any_state(draw: st.DrawFn) -> PortfolioState:
    equity = draw(st.floats(1, 1e9) | any_number)
    risk = RiskState(0, 1.0, 1.0, 1.0, draw(st.booleans()), draw(st.booleans()))
    risk = draw(st.sampled_from([risk, RiskState.start(NOON, 1.0)]))
    return PortfolioState(NOON, equity, draw(st.floats(-3, 3) | any_number), risk)


everything = given(st.none() | any_forecast(), any_state(), any_sizing, any_limits, any_costs, any_shrinkage)


@everything
@settings(deadline=None, max_examples=500)
def test_the_target_is_always_inside_the_limits(
    forecast: Forecast | None,
    portfolio: PortfolioState,
    sizing: SizingConfig,
    limits: LimitsConfig,
    costs: Costs,
    shrinkage: Shrinkage,
) -> None:
    found = decided(forecast, portfolio, sizing, limits, costs, shrinkage)
    held, cap = portfolio.exposure, limits.max_exposure
    lowest = 0.0 if limits.side == "long_only" else -cap
    assert math.isfinite(found.target)
    if lowest <= held <= cap:
        assert lowest <= found.target <= cap
    else:  # prices may carry a position over its limit by the tolerance; no decision makes that worse
        slack = limits.drift_tolerance * cap
        assert (lowest - slack if lowest else 0.0) <= found.target <= cap + slack
        assert min(held, lowest) <= found.target <= max(held, cap) or not math.isfinite(held)
    if abs(found.target - held) > limits.max_step * (1 + 1e-12):
        forced = {Reason.LIMIT_EXCEEDED, Reason.NO_FORECAST, Reason.INVALID_FORECAST}
        assert found.reason in HALTS | forced or not math.isfinite(held)
    if found.reason in {Reason.WITHIN_BAND, Reason.AT_TARGET}:
        assert found.target == held


@everything
@settings(deadline=None, max_examples=100)
def test_halted_is_flat_and_only_halted_is_called_so(
    forecast: Forecast | None,
    portfolio: PortfolioState,
    sizing: SizingConfig,
    limits: LimitsConfig,
    costs: Costs,
    shrinkage: Shrinkage,
) -> None:
    found = decided(forecast, portfolio, sizing, limits, costs, shrinkage)
    broke = not (0.0 < portfolio.equity < math.inf and math.isfinite(portfolio.exposure))
    halted = broke or portfolio.risk.daily_halt or portfolio.risk.drawdown_halt
    assert (found.reason in HALTS) == halted
    if halted:
        assert found.target == 0.0
        assert found.bound == (found.reason.value,)


@everything
@settings(deadline=None, max_examples=100)
def test_deciding_twice_is_deciding_once_and_changes_nothing(
    forecast: Forecast | None,
    portfolio: PortfolioState,
    sizing: SizingConfig,
    limits: LimitsConfig,
    costs: Costs,
    shrinkage: Shrinkage,
) -> None:
    assume(math.isfinite(portfolio.exposure))
    before = repr((copy.deepcopy(forecast), portfolio, sizing, limits, costs, shrinkage))
    first = decided(forecast, portfolio, sizing, limits, costs, shrinkage)
    assert first == decided(forecast, portfolio, sizing, limits, costs, shrinkage)
    assert repr((forecast, portfolio, sizing, limits, costs, shrinkage)) == before


# Sizes


def test_without_a_mean_the_exposure_is_target_over_forecast_volatility() -> None:
    # 1 % an hour is 0.01 * sqrt(8760) = 93.594871 % a year; a target of 30 % is then 0.32053 of the equity.
    found = decided(two_point(0.0, 0.01), sizing=SizingConfig(target_volatility=0.3))
    assert found.target == pytest.approx(0.320530, abs=1e-6)
    assert found.reason == Reason.REBALANCE


def test_a_raw_mean_is_not_believed() -> None:
    sizing = SizingConfig(target_volatility=0.3)
    assert decided(two_point(0.005, 0.01), sizing=sizing).target == pytest.approx(0.320530, abs=1e-6)
    assert decided(two_point(-0.005, 0.01), sizing=sizing).target == pytest.approx(0.320530, abs=1e-6)
    kelly = SizingConfig(mode="mean_variance")
    assert decided(two_point(0.005, 0.01), 0.7, kelly).target == 0.0
    assert decided(two_point(0.005, 0.01), 0.0, kelly).reason == Reason.AT_TARGET


def test_mean_variance_is_a_kelly_fraction() -> None:
    # 0.25 * 0.1 * 0.0008 / 0.01**2 = 0.2
    kelly = SizingConfig(mode="mean_variance", kelly_fraction=0.25)
    found = decided(two_point(0.0008, 0.01), 0.0, kelly, shrinkage=Shrinkage(slope=0.1))
    assert found.target == pytest.approx(0.2, rel=1e-5)
    short = decided(two_point(-0.0008, 0.01), 0.0, kelly, LimitsConfig(side="long_short"), shrinkage=Shrinkage(0.1))
    assert short.target == pytest.approx(-0.2, rel=1e-5)


def test_the_centre_is_no_foresight() -> None:
    # The mean's own average, 0.05 σ, is taken off: 0.25 * 1 * (0.0008 - 0.05 * 0.01) / 0.01**2 = 0.75
    kelly = SizingConfig(mode="mean_variance", kelly_fraction=0.25)
    found = decided(two_point(0.0008, 0.01), 0.0, kelly, shrinkage=Shrinkage(slope=1.0, centre=0.05))
    assert found.target == pytest.approx(0.75, rel=1e-5)


def test_the_centre_grows_with_the_root_of_the_horizon() -> None:
    kelly = SizingConfig(mode="mean_variance", kelly_fraction=0.25, horizon=4)
    forecast = Forecast(NOON, (1, 4), (0.25, 0.5 - 1e-9, 0.5 + 1e-9, 0.75), np.empty((2, 4), np.float32), 0.01)
    forecast.quantiles_HQ[0] = np.nan  # of no concern
    forecast.quantiles_HQ[1] = [-0.0192, -0.0192, 0.0208, 0.0208]
    # 0.25 * (0.0008 - 0.02 * 0.01 * sqrt(4)) / 0.02**2 = 0.25
    found = decided(forecast, 0.0, kelly, shrinkage=Shrinkage(slope=1.0, centre=0.02))
    assert found.target == pytest.approx(0.25, rel=1e-4)


@given(st.floats(0.001, 0.05), st.floats(0.01, 1.0), st.floats(0.0001, 0.01))
@settings(deadline=None, max_examples=60)
def test_a_shrunk_mean_tilts_the_exposure(std: float, slope: float, mean: float) -> None:
    loose = LimitsConfig(side="long_short", max_exposure=1e6, max_step=1e6, initial_margin=1e-6)
    tilted, plain, against = (
        decided(two_point(m, std), limits=loose, shrinkage=Shrinkage(slope)).target for m in (mean, 0.0, -mean)
    )
    assert against < plain < tilted
    untilted = decided(two_point(mean, std), sizing=SizingConfig(tilt=0.0), limits=loose, shrinkage=Shrinkage(slope))
    assert untilted.target == pytest.approx(plain, rel=1e-6)


def test_the_volatility_floor_bounds_the_exposure() -> None:
    loose = LimitsConfig(max_exposure=1e6, max_step=1e6, initial_margin=1e-6)
    sizing = SizingConfig(target_volatility=0.3, volatility_floor=0.1)
    assert decided(two_point(0.0, 1e-9), sizing=sizing, limits=loose).target == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("held", "limits", "target", "bound"),
    [
        (0.0, LimitsConfig(max_exposure=0.2), 0.2, ("max_exposure",)),
        (0.0, LimitsConfig(max_step=0.05), 0.05, ("max_step",)),
        (0.9, LimitsConfig(max_step=0.05), 0.85, ("max_step",)),
        (0.0, LimitsConfig(max_exposure=0.2, max_step=0.05), 0.05, ("max_exposure", "max_step")),
        (1.5, LimitsConfig(max_step=0.05), 0.320530, ("drift",)),
        (0.21, LimitsConfig(max_exposure=0.2, drift_tolerance=0.01), 0.2, ("max_exposure", "drift")),
        (-0.5, LimitsConfig(max_step=0.05), 0.320530, ("drift",)),
        (-0.01, LimitsConfig(drift_tolerance=0.5), 0.320530, ("drift",)),
    ],
)
def test_the_limit_that_bound_is_named(
    held: float, limits: LimitsConfig, target: float, bound: tuple[str, ...]
) -> None:
    found = decided(two_point(0.0, 0.01), held, SizingConfig(target_volatility=0.3), limits)
    assert (found.target, found.bound) == (pytest.approx(target, abs=1e-6), bound)


def test_long_only_bounds_a_gloomy_forecast_at_zero() -> None:
    kelly = SizingConfig(mode="mean_variance")
    found = decided(two_point(-0.005, 0.01), 0.3, kelly, shrinkage=Shrinkage(1.0))
    assert (found.target, found.bound) == (0.0, ("long_only",))


# The no-trade band


def utility(exposure: float, mean: float, std: float, sizing: SizingConfig) -> float:
    """Expected utility over the horizon, from the words of `SizingConfig`."""
    years = sizing.horizon / HOURS_PER_YEAR
    if sizing.mode == "mean_variance":
        drift, aversion = mean, 1.0 / sizing.kelly_fraction
    else:
        drift = sizing.reference_sharpe * std * math.sqrt(years) + sizing.tilt * mean
        aversion = sizing.reference_sharpe / sizing.target_volatility
    return exposure * drift - 0.5 * aversion * std**2 * exposure**2


@given(
    st.floats(0.0, 1.0),
    st.floats(-0.002, 0.002),
    st.floats(0.002, 0.02),
    st.sampled_from(["volatility_target", "mean_variance"]),
    st.floats(0.1, 3.0),
    st.none() | st.integers(1, 200),
    st.floats(0.0, 0.005),
)
@settings(deadline=None, max_examples=200)
def test_it_trades_exactly_where_the_gain_exceeds_the_cost(
    held: float, mean: float, std: float, mode: Any, band: float, holding_bars: int | None, fee: float
) -> None:
    sizing = SizingConfig(mode=mode, no_trade_band=band, holding_bars=holding_bars)
    costs = Costs(fee=fee, spread=0.0004, slippage=0.0001)
    forecast = two_point(mean, std)
    found = decided(forecast, held, sizing, costs=costs, shrinkage=Shrinkage(1.0))
    grid = np.linspace(0.0, 1.0, 100_001)
    lasts = holding_bars or 1
    earned = forecast.mean(1) / lasts  # once, however long a position is held; drift and risk go on
    values = utility(grid, earned, forecast.std(1), sizing)
    best = grid[np.argmax(values)]
    gain = (values.max() - utility(held, earned, forecast.std(1), sizing)) * lasts
    cost = band * (fee + 0.0002 + 0.0001) * abs(best - held)
    assume(abs(gain - cost) > 1e-8 + 1e-3 * cost)
    assume(abs(best - held) > 1.2e-4)  # less is no change
    if gain > cost:
        assert found.reason == Reason.REBALANCE
        assert found.target == pytest.approx(best, abs=2e-5)
    else:
        assert found.target == held


def test_a_band_of_zero_always_trades() -> None:
    held = decided(two_point(0.0, 0.01)).target + 2e-4
    for band, reason in ((0.0, Reason.REBALANCE), (1.0, Reason.WITHIN_BAND)):
        found = decided(two_point(0.0, 0.01), held, SizingConfig(no_trade_band=band), costs=Costs(fee=0.01))
        assert found.reason == reason


def test_less_than_a_basis_point_is_no_change() -> None:
    held = decided(two_point(0.0, 0.01)).target + 0.9e-4
    found = decided(two_point(0.0, 0.01), held, SizingConfig(no_trade_band=0.0), costs=Costs(fee=0.0))
    assert (found.reason, found.target) == (Reason.AT_TARGET, held)


def test_costs_count_fee_half_the_spread_and_slippage() -> None:
    assert Costs(fee=0.001, spread=0.0004, slippage=0.0003).per_side == pytest.approx(0.0015)


# No forecast, no equity


@pytest.mark.parametrize("forecast", [None, normal(math.nan), normal(0.0, math.nan), normal(math.inf)])
@pytest.mark.parametrize(
    ("without", "held", "target"),
    [
        ("flatten", 0.4, 0.0),
        ("flatten", 0.0, 0.0),
        ("hold", 0.4, 0.4),
        ("hold", 1.01, 1.01),
        ("hold", 1.5, 1.0),
        ("hold", -0.2, 0.0),
    ],
)
def test_without_a_forecast_it_flattens_or_holds(
    forecast: Forecast | None, without: Any, held: float, target: float
) -> None:
    found = decided(forecast, held, SizingConfig(without_forecast=without), LimitsConfig(max_step=0.1))
    assert found.target == target
    assert found.reason == (Reason.NO_FORECAST if forecast is None else Reason.INVALID_FORECAST)


@pytest.mark.parametrize("scale", [math.nan, math.inf])
def test_a_forecast_without_a_scale_is_none(scale: float) -> None:
    forecast = Forecast(NOON, (1,), LEVELS, normal().quantiles_HQ, scale)
    assert decided(forecast, 0.4).reason == Reason.INVALID_FORECAST


@pytest.mark.parametrize("equity", [0.0, -1.0, math.nan, math.inf])
def test_without_equity_it_is_flat(equity: float) -> None:
    found = decided(normal(), state(0.4, equity))
    assert (found.target, found.reason) == (0.0, Reason.HALT_NO_EQUITY)


# Halts

LOSSES = LimitsConfig(daily_loss=0.05, max_drawdown=0.3)


def walk(risk: RiskState, *steps: tuple[str, float], limits: LimitsConfig = LOSSES) -> RiskState:
    for stamp, equity in steps:
        risk = advance(risk, parse_ns(stamp), equity, limits)
    return risk


def started(stamp: str = "2024-05-01T12:00", equity: float = 1000.0) -> RiskState:
    return RiskState.start(parse_ns(stamp), equity)


def test_a_daily_loss_halts_until_the_next_day() -> None:
    risk = walk(started(), ("2024-05-01T13:00", 951.0))
    assert not risk.daily_halt
    risk = walk(risk, ("2024-05-01T14:00", 950.0))
    assert risk.daily_halt
    assert decided(normal(), PortfolioState(NOON, 950.0, 0.5, risk)).reason == Reason.HALT_DAILY_LOSS
    risk = walk(risk, ("2024-05-01T15:00", 999.0))  # a recovery does not lift it
    assert risk.daily_halt
    risk = walk(risk, ("2024-05-02T00:00", 960.0))  # this bar still belongs to the first of May
    assert risk.daily_halt
    risk = walk(risk, ("2024-05-02T01:00", 958.0))
    assert not risk.daily_halt
    assert risk.day_start_equity == 960.0
    assert decided(normal(), PortfolioState(NOON, 958.0, 0.5, risk)).reason not in HALTS


def test_a_clock_set_back_to_yesterday_lifts_no_daily_halt_and_forgets_no_order() -> None:
    risk = count_order(walk(started(), ("2024-05-01T13:00", 1000.0), ("2024-05-02T13:00", 940.0)))
    risk = walk(risk, ("2024-05-01T14:00", 940.0))
    assert (risk.daily_halt, risk.orders_day, risk.orders_hour, risk.day_start_equity) == (True, 1, 1, 1000.0)
    assert walk(risk, ("2024-05-02T14:00", 940.0)).daily_halt  # the day that it knew already is no new one
    assert not walk(risk, ("2024-05-03T01:00", 940.0)).daily_halt


def test_a_new_day_may_halt_at_once() -> None:
    risk = walk(started(), ("2024-05-01T13:00", 1000.0), ("2024-05-02T01:00", 940.0))
    assert risk.daily_halt
    assert walk(risk, ("2024-05-03T01:00", 900.0)).daily_halt is False  # 900 / 940 is -4.3 %


def test_the_days_loss_is_from_midnight_not_from_the_top() -> None:
    risk = walk(started(), ("2024-05-01T13:00", 1200.0), ("2024-05-01T14:00", 960.0))
    assert not risk.daily_halt
    assert risk.peak_equity == 1200.0


def test_a_drawdown_latches_until_resumed() -> None:
    risk = walk(started(), ("2024-05-01T13:00", 2000.0), ("2024-05-01T14:00", 1401.0))
    assert not risk.drawdown_halt
    risk = walk(risk, ("2024-05-01T15:00", 1400.0))
    assert risk.drawdown_halt
    risk = walk(risk, ("2024-05-02T12:00", 1900.0), ("2024-05-09T12:00", 2500.0), ("2024-05-10T12:00", 2100.0))
    assert risk.drawdown_halt
    assert decided(normal(), PortfolioState(NOON, 2100.0, 0.5, risk)).reason == Reason.HALT_DRAWDOWN
    resumed = resume(risk, "looked at")
    assert (resumed.drawdown_halt, resumed.peak_equity) == (False, 2100.0)
    assert not walk(resumed, ("2024-05-10T13:00", 2050.0)).drawdown_halt
    assert walk(resumed, ("2024-05-11T13:00", 1470.0)).drawdown_halt


def test_resuming_does_not_lift_a_daily_halt() -> None:
    risk = walk(started(), ("2024-05-01T13:00", 600.0))
    assert (risk.daily_halt, risk.drawdown_halt) == (True, True)
    assert (resume(risk, "looked at").daily_halt, resume(risk, "looked at").drawdown_halt) == (True, False)


def test_an_unknown_equity_neither_lifts_nor_blinds_a_halt() -> None:
    risk = walk(started(), ("2024-05-01T13:00", 1000.0), ("2024-05-02T00:00", math.nan))
    assert walk(risk, ("2024-05-02T01:00", 950.0)).daily_halt
    assert walk(resume(risk, "looked at"), ("2024-05-02T01:00", 700.0)).drawdown_halt
    assert walk(risk, ("2024-05-02T01:00", math.inf), ("2024-05-02T02:00", 1000.0)).drawdown_halt is False


@given(
    st.lists(st.tuples(st.integers(1, 40), st.floats(0.0, 2000.0)), min_size=1, max_size=40),
    st.floats(0.01, 1.0),
    st.floats(0.01, 1.0),
)
@settings(deadline=None, max_examples=100)
def test_halts_are_what_the_whole_history_says(
    steps: list[tuple[int, float]], daily_loss: float, max_drawdown: float
) -> None:
    limits = LimitsConfig(daily_loss=daily_loss, max_drawdown=max_drawdown)
    risk = RiskState.start(0, 1000.0)
    history: list[tuple[int, float]] = [(0, 1000.0)]
    fell = False
    for hours, equity in steps:
        ts = history[-1][0] + hours * HOUR
        risk = advance(risk, ts, equity, limits)
        history.append((ts, equity))
        peak = max(e for _, e in history)
        fell = fell or equity <= peak * (1.0 - max_drawdown)
        day = -(-ts // (24 * HOUR))  # days end at their midnight
        before = [e for at, e in history if -(-at // (24 * HOUR)) < day]
        opening = before[-1] if before else 1000.0
        today = [e for at, e in history[1:] if -(-at // (24 * HOUR)) == day]
        assert risk.drawdown_halt == fell
        assert risk.daily_halt == any(e <= opening * (1.0 - daily_loss) for e in today)
        assert resume(risk, "looked at").peak_equity == equity


def test_day_change_is_after_midnight_only() -> None:
    assert started("2024-05-01T00:00").day + 1 == started("2024-05-01T00:00:01").day == started("2024-05-02").day


# Doors


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        (SizingConfig, "target_volatility", 0.0),
        (SizingConfig, "target_volatility", math.nan),
        (SizingConfig, "reference_sharpe", math.inf),
        (SizingConfig, "kelly_fraction", -1.0),
        (SizingConfig, "volatility_floor", 0.0),
        (SizingConfig, "tilt", -0.1),
        (SizingConfig, "no_trade_band", math.nan),
        (SizingConfig, "horizon", 0),
        (SizingConfig, "holding_bars", 0),
        (SizingConfig, "holding_bars", 1_000_001),
        pytest.param(SizingConfig, "holding_bars", 10**400, id="beyond any float"),
        (LimitsConfig, "max_exposure", 0.0),
        (LimitsConfig, "max_step", math.nan),
        (LimitsConfig, "daily_loss", 1.1),
        (LimitsConfig, "max_drawdown", 0.0),
        (LimitsConfig, "drift_tolerance", -0.01),
        (Costs, "fee", 1.0),
        (Costs, "fee", -0.01),
        (Costs, "spread", math.nan),
        (Costs, "slippage", math.inf),
    ],
)
def test_a_wrong_setting_is_refused_by_its_key(section: type, key: str, value: float) -> None:
    named = section.__name__.removesuffix("Config").lower()
    with pytest.raises(LSTMStrategyError, match=rf"^{named}\.{key} is {value}; it must be ") as refusal:
        section(**{key: value})
    assert "\n" not in str(refusal.value)


# What a decision reads from a forecast


def test_moments_of_a_normal_forecast() -> None:
    levels = tuple(np.arange(1, 2000) / 2000)
    quantiles = 0.002 + 0.03 * norm.ppf(levels)
    forecast = Forecast(NOON, (1, 24), levels, np.array([quantiles * 0, quantiles], np.float32), 0.03)
    assert forecast.mean(24) == pytest.approx(0.002, abs=1e-8)
    assert forecast.std(24) == pytest.approx(0.03, rel=2e-3)
    assert forecast.quantile(0.05, 24) == pytest.approx(norm.ppf(0.05, 0.002, 0.03), abs=1e-6)
    assert forecast.probability_of_gain(24) == pytest.approx(norm.sf(0.0, 0.002, 0.03), abs=1e-5)
    assert (forecast.mean(1), forecast.std(1)) == (0.0, 0.0)


@given(st.lists(plausible, min_size=3, max_size=8), st.data())
@settings(deadline=None, max_examples=60)
def test_moments_are_integrals_of_the_quantile_function(values: list[float], data: st.DataObject) -> None:
    n = len(values)
    percents = data.draw(st.lists(st.integers(1, 99), min_size=n, max_size=n, unique=True))
    levels = tuple(sorted(percent / 100 for percent in percents))
    row = np.sort(np.array(values, np.float32))
    forecast = Forecast(NOON, (1,), levels, row[None], 0.01)

    def integral(power: int, centre: float = 0.0) -> float:
        edges = (0.0, *levels, 1.0)
        inside = pairwise(edges)
        return sum(quad(lambda p: (np.interp(p, levels, row) - centre) ** power, a, b)[0] for a, b in inside)

    mean = integral(1)
    assert forecast.mean(1) == pytest.approx(mean, abs=1e-12)
    assert forecast.std(1) == pytest.approx(math.sqrt(integral(2, mean)), rel=1e-6, abs=1e-9)
    level = data.draw(st.floats(levels[0], levels[-1]))
    assert row[0] <= forecast.quantile(level, 1) <= row[-1]


@pytest.mark.parametrize(
    ("quantiles", "probability"),
    [
        ((-0.02, 0.0, 0.02), 0.5),
        ((-0.01, 0.01, 0.03), 0.7),  # zero lies half way between the levels .1 and .5
        ((0.01, 0.02, 0.03), 0.9),  # no more can be said than the outermost level
        ((-0.03, -0.02, -0.01), 0.1),
    ],
)
def test_probability_of_gain_is_read_between_levels(quantiles: tuple[float, ...], probability: float) -> None:
    forecast = Forecast(NOON, (1,), (0.1, 0.5, 0.9), np.array([quantiles], np.float32), 0.01)
    assert forecast.probability_of_gain(1) == pytest.approx(probability, abs=1e-6)
