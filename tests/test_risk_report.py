"""Value at risk and shortfall in the report: right law, right numbers; wrong law, found out."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from test_report import HOUR, LEVELS, NORMAL, START

from lstm_strategy.report.charts import draw_risk
from lstm_strategy.report.risk import kupiec, tails_of
from lstm_strategy.report.run_types import DecisionLog, EquityCurve, RecordedForecasts, Run, Summary

LEVELS_12 = (0.01, 0.05, 0.5, 0.9, 0.99)


def make_run(returns: np.ndarray, exposure: np.ndarray, quantiles: np.ndarray, levels: tuple[float, ...]) -> Run:
    """A run whose equity moves by exposure times return from each close to the next; targets are held at once."""
    bars = len(returns)
    stamps = START + HOUR * np.arange(1, bars + 1)
    price = 100 * np.cumprod(1 + np.concatenate([[0], returns[:-1]]))
    equity = 1000 * np.cumprod(1 + np.concatenate([[0], (exposure * returns)[:-1]]))
    # What the account held at each close is the bar before's; the order at the close makes it this bar's.
    held = np.concatenate([[0.0], exposure[:-1]])
    decisions = DecisionLog(stamps, exposure, held, np.ones(bars), price, np.ones(bars, bool), {}, {}, {})
    forecasts = RecordedForecasts(1, levels, stamps, quantiles.astype(np.float32))
    return Run(
        folder=Path("run"),
        summary=Summary(bars, 0, bars, 0, 0.0, 0.0, *[None] * 7, buy_and_hold=None),
        instrument="X",
        instruments=1,
        bar_ns=HOUR,
        equity=EquityCurve(stamps, equity, held, price, price),
        decisions=decisions,
        everyone=decisions,
        reasons=None,
        forecasts=(forecasts,),
        tearsheet=False,
        beside={},
        markets={},
    )


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_true_law_is_breached_as_often_as_it_says(sign: float) -> None:
    random = np.random.default_rng(4)
    sigma = np.where(np.arange(20_000) // 500 % 2, 0.004, 0.012)
    law = stats.skewnorm(-3)
    z = law.rvs(20_000, random_state=random)
    exposure = sign * np.where(np.arange(20_000) % 3, 0.8, 0.3)
    quantiles = sigma[:, None] * law.ppf(LEVELS)
    found = tails_of(make_run(np.expm1(sigma * z), exposure, quantiles, LEVELS))
    assert found is not None
    assert [tail.level for tail in found.tails] == [0.05, 0.01]
    for tail in found.tails:
        assert tail.bars == 19_999
        assert tail.p > 0.02
        assert abs(tail.breaches - tail.expected) < 3 * math.sqrt(tail.expected)
    # Flat beyond the outermost level: at 1 % the shortfall is the value at risk itself, and less than what is suffered.
    five, one = found.tails
    assert five.foreseen == pytest.approx(five.suffered, rel=0.12)
    assert one.foreseen < one.suffered


def test_a_law_too_narrow_is_found_out() -> None:
    random = np.random.default_rng(5)
    z = random.standard_normal(5_000)
    found = tails_of(make_run(0.01 * z, np.ones(5_000), 0.007 * np.tile(NORMAL, (5_000, 1)), LEVELS))
    assert found is not None
    assert all(tail.p < 1e-6 and tail.breaches > 1.5 * tail.expected for tail in found.tails)


def test_value_and_shortfall_by_hand() -> None:
    quantiles = np.tile([-0.04, -0.02, 0.0, 0.03, 0.05], (3, 1))
    run = make_run(np.array([-0.03, 0.06, 0.0]), np.array([1.0, -0.5, 0.0]), quantiles, LEVELS_12)
    found = tails_of(run)
    assert found is not None
    assert found.returns.tolist() == pytest.approx([-0.03, -0.03])  # the last bar has no next one
    assert found.at_risk[0.05][0] == pytest.approx(1 - math.exp(-0.02))
    # Short: what rises is lost. At 5 % halfway, in probability 0.04 of 0.09, from the level .99 down to .9.
    up = math.expm1(0.03) + (0.95 - 0.9) / 0.09 * (math.expm1(0.05) - math.expm1(0.03))
    assert found.at_risk[0.05][1] == pytest.approx(0.5 * up, rel=1e-6)
    five = found.tails[0]
    assert five.breaches == 2
    low, high = 1 - math.exp(-0.04), 1 - math.exp(-0.02)
    long = (0.01 * low + 0.04 * (low + high) / 2) / 0.05
    top = math.expm1(0.05)
    short = 0.5 * (0.01 * top + 0.04 * (top + up) / 2) / 0.05
    assert five.foreseen == pytest.approx((long + short) / 2, rel=1e-6)
    assert five.suffered == pytest.approx(0.03)


def test_holes_and_flat_bars_do_not_count() -> None:
    run = make_run(np.full(4, 0.01), np.array([1.0, 0.0, 1.0, 1.0]), np.tile(NORMAL, (4, 1)) * 0.01, LEVELS)
    found = tails_of(run)
    assert found is not None
    assert found.tails[0].bars == 2
    assert math.isnan(found.tails[0].suffered)
    none = make_run(np.full(4, 0.01), np.zeros(4), np.tile(NORMAL, (4, 1)) * 0.01, LEVELS)
    assert tails_of(none) is None


def test_kupiec_against_scipy() -> None:
    for breaches, bars, level in ((5, 250, 0.01), (0, 250, 0.01), (40, 500, 0.05), (25, 500, 0.05)):

        def likelihood(share: float) -> float:
            return float(stats.binom.logpmf(breaches, bars, share))  # noqa: B023

        ratio = 2 * (likelihood(breaches / bars) - likelihood(level))
        assert kupiec(breaches, bars, level) == pytest.approx(stats.chi2.sf(ratio, 1), abs=1e-9)


def test_bars_without_a_position_are_gaps_in_the_chart() -> None:
    """Bars 0, 1 and 4 of a position: steps to the close after bar 1, nothing drawn over bars 2 and 3, then bar 4."""
    ts = np.array([0, 1, 4], np.int64) * HOUR
    figure = draw_risk(ts, np.array([0.01, -0.02, 0.03]), {0.05: np.array([0.1, 0.2, 0.3])}, HOUR)
    returns, at_risk = figure["data"]
    hours = [int(text[11:13]) for text in returns["x"]]
    assert hours == [0, 1, 2, 2, 4, 5, 5]
    assert returns["y"] == [0.01, -0.02, -0.02, None, 0.03, 0.03, None]
    assert at_risk["y"] == [-0.1, -0.2, -0.2, None, -0.3, -0.3, None]
    assert at_risk["x"] == returns["x"]
    assert {line["line"]["shape"] for line in figure["data"]} == {"hv"}
    whole = draw_risk(np.arange(6_000, dtype=np.int64) * HOUR, np.zeros(6_000), {}, HOUR)["data"][0]
    assert whole["y"].count(None) == 1  # thinning leaves bars out, but no gap
