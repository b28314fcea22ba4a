"""The simulated market has the habits it is said to have, and the edge of the size that was planted."""

from __future__ import annotations

import time

import numpy as np
import pytest

from lstm_strategy.bars import Bars, Float
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.sources.simulate import SimulationConfig, simulate, simulated_instrument

N = 100_000


def returns(bars: Bars) -> Float:
    return np.diff(np.log(bars.close))


def correlation(a: Float, b: Float) -> float:
    return float(np.corrcoef(a, b)[0, 1])


def kurtosis(values: Float) -> float:
    centred = values - values.mean()
    return float((centred**4).mean() / (centred**2).mean() ** 2)


@pytest.fixture(scope="module")
def market() -> Bars:
    return simulate(SimulationConfig(bars=N))


@pytest.fixture(scope="module")
def noise() -> Bars:
    return simulate(SimulationConfig(bars=N, noise=True))


def test_a_seed_is_a_market(market: Bars) -> None:
    again = simulate(SimulationConfig(bars=N))
    assert all(np.array_equal(getattr(market, name), getattr(again, name)) for name in ("ts_close", "close", "volume"))
    assert not np.array_equal(market.close, simulate(SimulationConfig(bars=N, seed=2)).close)


@pytest.mark.parametrize("noise", [True, False])
def test_more_bars_go_on_from_fewer(noise: bool) -> None:
    fewer, more = (simulate(SimulationConfig(bars=n, noise=noise)) for n in (999, 5_000))
    assert list(fewer) == list(more[:999])


def test_a_hundred_thousand_bars_take_less_than_a_second() -> None:
    started = time.process_time()  # whatever else the machine does
    simulate(SimulationConfig(bars=N, seed=3))
    assert time.process_time() - started < 1.0


def test_bars_lie_on_tick_and_open_at_the_close_before(market: Bars) -> None:
    assert np.array_equal(market.open[1:], market.close[:-1])
    for name in ("open", "high", "low", "close"):
        column = getattr(market, name)
        assert np.array_equal(column, np.round(column, 2))
    assert np.array_equal(market.volume, np.round(market.volume, 3))
    assert (market.volume > 0).all()
    coarse = simulate(SimulationConfig(bars=100, tick="0.5", lot="10"))
    assert (coarse.close % 0.5 == 0).all()
    assert (coarse.volume % 10 == 0).all()
    assert simulated_instrument(SimulationConfig(tick="0.5")).tick == "0.5"


def test_volatility_clusters_and_tails_are_fat(market: Bars) -> None:
    r = returns(market)
    assert r.std() * np.sqrt(8_760) == pytest.approx(0.6, rel=0.05)
    assert kurtosis(r) > 6
    assert correlation(np.abs(r[24:]), np.abs(r[:-24])) > 0.1


def test_range_and_volume_tell_of_volatility(market: Bars) -> None:
    size, spread = np.abs(returns(market)), np.log(market.high / market.low)
    assert correlation(spread[:-1], size) > 0.25
    assert correlation(np.log(market.volume[1:]), size) > 0.4
    # Parkinson: 4 ln 2 times the variance for a continuous path; 12 steps see 0.7 of it
    assert (spread**2).mean() / (4 * np.log(2) * returns(market).var()) == pytest.approx(0.7, abs=0.03)


def test_hours_and_weekdays_differ(market: Bars) -> None:
    r, hours = returns(market), market.ts_close[1:] // market.timeframe.ns - 1
    by_hour = np.array([r[hours % 24 == hour].std() for hour in range(24)])
    assert by_hour.max() / by_hour.min() > 1.5
    weekend = (hours // 24 + 3) % 7 >= 5
    assert r[weekend].std() / r[~weekend].std() == pytest.approx(0.7, abs=0.1)


def test_without_an_edge_nothing_predicts(market: Bars) -> None:
    r = returns(market)
    for lag in (1, 2, 24):
        assert abs(correlation(np.sign(r[lag:]), np.sign(r[:-lag]))) < 4 / np.sqrt(N)


def test_noise_is_independent_and_of_constant_variance(noise: Bars) -> None:
    r = returns(noise)
    assert kurtosis(r) == pytest.approx(3.0, abs=0.1)
    slices = np.array([part.var() for part in np.array_split(r, 20)])
    assert slices.std() / slices.mean() < 3 * np.sqrt(2 * 20 / N)
    for lag in (1, 2, 24, 168):
        assert abs(correlation(r[lag:], r[:-lag])) < 4 / np.sqrt(N)
        assert abs(correlation(np.abs(r[lag:]), np.abs(r[:-lag]))) < 4 / np.sqrt(N)
        assert abs(correlation(noise.volume[1:][:-lag], np.abs(r[lag:]))) < 4 / np.sqrt(N)
    by_hour = np.array([r[hour::24].var() for hour in range(24)])
    assert by_hour.std() / by_hour.mean() < 3 * np.sqrt(2 * 24 / N)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_no_position_earns_without_an_edge(seed: int) -> None:
    for quiet in (True, False):
        simple = np.expm1(returns(simulate(SimulationConfig(bars=N, seed=seed, noise=quiet))))
        assert abs(simple.mean()) < 4 * simple.std() / np.sqrt(N)


@pytest.mark.parametrize("edge", [0.05, 0.2, -0.3])
def test_the_planted_edge_has_its_size_and_lasts_one_bar(edge: float) -> None:
    r = returns(simulate(SimulationConfig(bars=N, edge=edge)))
    tolerance = 0.03  # 5 standard errors: volatility changes, so fewer bars count
    assert correlation(r[1:], r[:-1]) == pytest.approx(edge * np.sqrt(1 - edge**2), abs=tolerance)
    assert correlation(r[2:], r[:-2]) == pytest.approx(0.0, abs=tolerance)


def test_the_filtered_shock_predicts_with_exactly_the_edge() -> None:
    edge = 0.3
    bars = simulate(SimulationConfig(bars=N, edge=edge, regime_bars=1e12, timeframe="1m"))
    u = returns(bars)
    week = bars.ts_close[1:] // bars.timeframe.ns % (7 * 24 * 60)
    u = u / np.sqrt(np.array([np.mean(u[week // 60 == hour] ** 2) for hour in range(7 * 24)]))[week // 60]
    shock, shocks = 0.0, []
    for value in u:  # the moving average inverted: e_t = (u_t - edge e_{t-1}) / sqrt(1 - edge^2)
        shock = (value - edge * shock) / np.sqrt(1 - edge**2)
        shocks.append(shock)
    known = np.array(shocks[:-1])
    assert correlation(known, u[1:]) == pytest.approx(edge, abs=0.02)
    assert correlation(known[:-1], u[2:]) == pytest.approx(0.0, abs=0.02)


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("bars", 0, "bars is 0"),
        ("edge", 0.9, "edge is 0.9; it must be between"),
        ("tail_dof", 2.0, "tail_dof"),
        ("price", -1.0, "price"),
        ("volatility", 0.0, "volatility"),
        ("timeframe", "1w", "timeframe '1w'"),
        ("start", "soon", "'soon' is not a date"),
        ("instrument_id", "SIM", r"SYMBOL\.VENUE"),
    ],
)
def test_impossible_markets_are_refused(name: str, value: object, told: str) -> None:
    with pytest.raises(LSTMStrategyError, match=told):
        SimulationConfig(**{name: value})  # type: ignore[arg-type]


def test_noise_has_no_edge() -> None:
    with pytest.raises(LSTMStrategyError, match="0 where noise is true"):
        SimulationConfig(edge=0.1, noise=True)


def test_a_price_made_of_rounding_is_refused() -> None:
    with pytest.raises(LSTMStrategyError, match="fewer bars, less volatility or another seed"):
        simulate(SimulationConfig(bars=50_000, volatility=5.0))
