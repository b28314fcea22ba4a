"""Luck in Sharpe ratios, against the papers' own examples, against scipy, and against loops that read like them."""

from __future__ import annotations

import math
import sys
from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.overfitting import (
    Moments,
    bootstrap,
    deflated_sharpe,
    expected_best_sharpe,
    figures,
    moments,
    probabilistic_sharpe,
    probability_of_overfitting,
)

DAY = 86_400_000_000_000


def test_the_papers_example_of_a_deflated_sharpe_ratio() -> None:
    # Bailey and López de Prado (2014), "A numerical example": annual 2.5 over 1,250 days, 100 trials of variance 1/2.
    found = Moments(1250, 2.5 / math.sqrt(250), -3.0, 10.0)
    assert expected_best_sharpe(100, 0.5 / 250) == pytest.approx(0.1132, abs=5e-5)
    assert deflated_sharpe(found, 100, 0.5 / 250) == pytest.approx(0.9004, abs=5e-5)
    assert deflated_sharpe(found, 46, 0.5 / 250) == pytest.approx(0.9505, abs=5e-5)
    assert deflated_sharpe(Moments(1250, 2.5 / math.sqrt(250), 0.0, 3.0), 88, 0.5 / 250) == pytest.approx(
        0.9505, abs=5e-5
    )


def test_probabilistic_sharpe_against_scipy() -> None:
    returns = stats.skewnorm.rvs(-4, loc=0.002, scale=0.01, size=300, random_state=5)
    found = moments(returns)
    sharpe = stats.tmean(returns) / stats.tstd(returns)
    assert found.sharpe == pytest.approx(sharpe, rel=1e-12)
    skewness, kurtosis = stats.skew(returns), stats.kurtosis(returns, fisher=False)
    assert (found.skewness, found.kurtosis) == pytest.approx((skewness, kurtosis), rel=1e-12)
    error = math.sqrt((1 - skewness * sharpe + (kurtosis - 1) / 4 * sharpe**2) / 299)
    for benchmark in (0.0, 0.05):
        assert probabilistic_sharpe(found, benchmark) == pytest.approx(stats.norm.cdf((sharpe - benchmark) / error))


def test_the_best_of_many_without_skill_is_expected_where_it_falls() -> None:
    drawn = np.random.default_rng(1).normal(0.0, 0.2, (20_000, 50)).max(axis=1)
    assert expected_best_sharpe(50, 0.04) == pytest.approx(drawn.mean(), rel=0.02)  # the paper's approximation
    assert expected_best_sharpe(1, 0.04) == 0.0
    with pytest.raises(LSTMStrategyError, match="trials is 0"):
        expected_best_sharpe(0, 0.04)


def test_a_single_trial_deflates_nothing_and_more_deflate_more() -> None:
    found = Moments(400, 0.08, 0.0, 3.0)
    assert deflated_sharpe(found, 1) == probabilistic_sharpe(found)
    deflated = [deflated_sharpe(found, trials) for trials in (1, 5, 50, 500)]
    assert deflated == sorted(deflated, reverse=True)
    # Without the trials' own variance: that of an estimate of 0 over as many days.
    assert deflated[2] == deflated_sharpe(found, 50, 1 / 399)


def crossed_by_hand(returns: np.ndarray, blocks: int) -> tuple[float, float]:
    """The paper's procedure as it is written, without a shortcut."""
    pieces = np.array_split(np.arange(len(returns)), blocks)
    logits, lost = [], []
    for chosen in combinations(range(blocks), blocks // 2):
        inside = np.concatenate([pieces[block] for block in chosen])
        outside = np.setdiff1d(np.arange(len(returns)), inside)
        first, second = (part.mean(axis=0) / part.std(axis=0, ddof=1) for part in (returns[inside], returns[outside]))
        best = int(np.argmax(first))
        omega = stats.rankdata(second)[best] / (returns.shape[1] + 1)
        logits.append(math.log(omega / (1 - omega)))
        lost.append(second[best] < 0)
    return float(np.mean(np.array(logits) <= 1e-12)), float(np.mean(lost))


@pytest.mark.parametrize(("days", "settings", "blocks"), [(203, 9, 6), (160, 4, 8), (64, 2, 4)])
def test_crossed_validation_does_as_the_paper_says(days: int, settings: int, blocks: int) -> None:
    returns = np.random.default_rng(days).normal(0.0003, 0.01, (days, settings))
    found = probability_of_overfitting(returns, blocks)
    assert (found.probability, found.loss) == pytest.approx(crossed_by_hand(returns, blocks), abs=1e-12)
    assert found.splits == math.comb(blocks, blocks // 2)


def test_noise_is_overfitted_half_the_time_and_skill_never() -> None:
    random = np.random.default_rng(3)
    noise = [probability_of_overfitting(random.normal(0, 0.01, (480, 20)), 8).probability for _ in range(30)]
    assert 0.4 < np.mean(noise) < 0.6
    skilled = random.normal(0, 0.01, (480, 20))
    skilled[:, 7] += 0.005
    assert probability_of_overfitting(skilled).probability < 0.001
    idle = np.zeros((480, 3))
    idle[:, 1:] = random.normal(0, 0.01, (480, 2))
    assert 0.0 <= probability_of_overfitting(idle).probability <= 1.0  # a setting that never trades is no mistake


@pytest.mark.parametrize(
    ("returns", "blocks", "told"),
    [
        (np.zeros((100, 1)), 16, "needs two of them"),
        (np.zeros((30, 2)), 16, "30 days cannot be cut into 16 blocks"),
        (np.zeros((30, 2)), 3, "even number"),
        (np.full((100, 2), np.nan), 16, "ruined"),
    ],
)
def test_what_cannot_be_crossed_is_said(returns: np.ndarray, blocks: int, told: str) -> None:
    with pytest.raises(LSTMStrategyError, match=told):
        probability_of_overfitting(returns, blocks)


def test_the_interval_of_independent_returns_is_the_textbooks() -> None:
    returns = np.random.default_rng(11).normal(0.001, 0.02, 1000)
    found = bootstrap(returns, 365.25)
    sharpe = returns.mean() / returns.std(ddof=1)
    error = math.sqrt((1 + sharpe**2 / 2) / 1000)  # Lo (2002), independent returns
    expected = (sharpe + np.array([-1.96, 1.96]) * error) * math.sqrt(365.25)
    assert found.sharpe == pytest.approx(expected, abs=0.2 * error * math.sqrt(365.25) * 1.96)
    path = np.cumprod(1 + returns)
    depth = (1 - path / np.maximum.accumulate(path)).max()
    assert found.max_drawdown[0] < depth < found.max_drawdown[1]
    assert found == bootstrap(returns, 365.25)  # seeded


def test_dependence_widens_the_interval() -> None:
    shocks = np.random.default_rng(12).normal(0.0, 0.01, 1500)
    slow = np.convolve(shocks, np.full(10, 0.1), mode="valid") + 0.0005
    mixed = np.random.default_rng(13).permutation(slow)
    mostly_flat = np.zeros(400)
    mostly_flat[:5] = (0.01, -0.02, 0.005, -0.03, 0.01)  # halted on the sixth day: most draws hold no move at all
    assert np.isfinite(bootstrap(mostly_flat, 365.25).sharpe).all()
    widths = [np.ptp(bootstrap(returns, 365.25).sharpe) for returns in (slow, mixed)]
    assert widths[0] > 1.8 * widths[1]
    assert bootstrap(slow, 365.25).block_days > 5


def test_figures_of_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    returns = np.random.default_rng(2).normal(0.002, 0.01, 250)
    equity, stamps = 1000 * np.cumprod(1 + returns), (np.arange(250) + 1) * DAY
    told = figures(stamps, equity, 1000.0, trials=20)
    assert told["probabilistic_sharpe"] == pytest.approx(probabilistic_sharpe(moments(returns)))
    assert told["deflated_sharpe"] == pytest.approx(deflated_sharpe(moments(returns), 20))
    assert (told["days"], told["trials"], told["missing"]) == (250, 20, "")
    assert told["intervals"]["sharpe"] == pytest.approx(list(bootstrap(returns, 365.25).sharpe))
    monkeypatch.setitem(sys.modules, "arch.bootstrap", None)
    without = figures(stamps, equity, 1000.0)
    assert without["intervals"] is None
    assert "install lstm-strategy[train]" in without["missing"]
    assert without["deflated_sharpe"] == without["probabilistic_sharpe"]


def test_nothing_to_judge_is_no_number() -> None:
    stamps = (np.arange(100) + 1) * DAY
    idle = figures(stamps, np.full(100, 50.0), 50.0)
    ruined = figures(stamps, np.linspace(50.0, -1.0, 100), 50.0)
    for told in (idle, ruined, figures(stamps[:1], np.array([50.0]), 50.0)):
        assert math.isnan(told["probabilistic_sharpe"])
        assert math.isnan(told["deflated_sharpe"])
        assert told["intervals"] is None
