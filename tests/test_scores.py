"""Scores against independent implementations and figures worked by hand; tests of significance on simulated nulls."""

from __future__ import annotations

import math
from dataclasses import replace

import msgspec
import numpy as np
import numpy.typing as npt
import pytest
import statsmodels.api as sm
from scipy.stats import binomtest, chi2, chi2_contingency, laplace, norm, spearmanr, ttest_1samp
from sklearn.metrics import mean_pinball_loss
from statsmodels.stats.multitest import multipletests

from lstm_strategy.bars import parse_ns
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.forecast import mean_of
from lstm_strategy.hyperparameters import LEVELS
from lstm_strategy.research.scores import ScoredTable, Scores, drift, score
from lstm_strategy.research.scores_errors import error_tables, expected_shortfall, largest_misses, var_tests
from lstm_strategy.research.scores_group import crps_N, group_scores, median_N, pinball_N
from lstm_strategy.research.scores_inference import (
    bootstrap_sums,
    christoffersen,
    diebold_mariano,
    holm,
    kupiec,
    mean_is_zero,
    psi,
)

Float = npt.NDArray[np.float64]
HOUR = 3_600_000_000_000
START = parse_ns("2024-01-01")


def table_of(
    y_SI: Float, q_SIQ: Float, *, levels: tuple[float, ...] = LEVELS, horizon: int = 1, scale: float = 0.01
) -> ScoredTable:
    """Rows by stamp, then instrument: outcomes y_SI of S stamps and I instruments."""
    stamps, instruments = y_SI.shape
    names = np.array([f"{chr(65 + i)}.SIM" for i in range(instruments)])
    return ScoredTable(
        ts=np.repeat(START + HOUR * np.arange(stamps), instruments),
        instrument=np.tile(names, stamps),
        horizon=np.full(y_SI.size, horizon),
        y=y_SI.ravel(),
        q_NQ=q_SIQ.reshape(y_SI.size, len(levels)),
        scale=np.full(y_SI.size, scale),
        levels=levels,
    )


def normal(mean: Float, deviation: float | Float = 1.0, levels: tuple[float, ...] = LEVELS) -> Float:
    return np.asarray(np.asarray(mean)[..., None] + np.asarray(deviation)[..., None] * norm.ppf(levels))


def world(stamps: int = 1_500, instruments: int = 2, seed: int = 0, skill: float = 0.3) -> tuple[ScoredTable, Float]:
    """Outcomes with a mean that is known, which the forecasts tell and the baseline does not."""
    random = np.random.default_rng(seed)
    mean = skill * random.standard_normal((stamps, instruments))
    common = random.standard_normal((stamps, 1))
    y = mean + math.sqrt(0.5) * (common + random.standard_normal((stamps, instruments)))
    table = table_of(y, normal(mean))
    return table, normal(np.zeros(y.size))


def test_pinball_is_scikit_learns() -> None:
    random = np.random.default_rng(1)
    y, q = random.standard_normal(400), np.sort(random.standard_normal((400, len(LEVELS))), axis=1)
    each = [mean_pinball_loss(y, q[:, i], alpha=level) for i, level in enumerate(LEVELS)]
    assert pinball_N(y, q, LEVELS).mean() == pytest.approx(np.mean(each), rel=1e-12)


def test_crps_is_that_of_the_law_behind_the_quantiles() -> None:
    levels = tuple(np.linspace(0.0005, 0.9995, 1_000))
    y = np.array([-2.0, -0.1, 0.0, 0.7, 3.0])
    exact = y * (2 * norm.cdf(y) - 1) + 2 * norm.pdf(y) - 1 / math.sqrt(math.pi)  # Gneiting and Raftery 2007
    np.testing.assert_allclose(crps_N(y, normal(np.zeros(5), levels=levels), levels), exact, atol=1e-3)
    # All mass on one point: the distance to it, on either side.
    point = np.full((2, 3), 1.0)
    np.testing.assert_allclose(crps_N(np.array([3.0, 0.5]), point, (0.2, 0.5, 0.7)), [2.0, 0.5], atol=0.2)
    levels = tuple(np.linspace(0.01, 0.99, 99))
    np.testing.assert_allclose(crps_N(np.array([3.0, 0.5]), np.ones((2, 99)), levels), [2.0, 0.5], rtol=1e-9)


def test_median_is_linear_between_levels() -> None:
    q = np.array([[0.0, 1.0, 4.0]])
    assert median_N(q, (0.1, 0.5, 0.9)).tolist() == [1.0]
    assert median_N(q, (0.1, 0.4, 0.8))[0] == pytest.approx(1.75)
    assert median_N(q, (0.6, 0.7, 0.8)).tolist() == [0.0]


def test_figures_are_those_of_scipy_and_of_the_definitions() -> None:
    table, baseline = world()
    scores = score(table, {"flat": baseline}, draws=300)
    mean, y = mean_of(table.q_NQ, LEVELS), table.y
    assert scores.rows == 3_000
    assert scores.stamps == 1_500
    assert scores.rank_ic == pytest.approx(spearmanr(mean, y).statistic, abs=1e-12)
    assert scores.direction == pytest.approx((np.sign(mean) == np.sign(y)).mean())
    up, said = (y > 0).mean(), (mean > 0).mean()
    assert scores.direction_by_chance == pytest.approx(up * said + (1 - up) * (1 - said))
    assert scores.mae == pytest.approx(np.abs(y - table.q_NQ[:, 6]).mean())
    assert scores.rmse == pytest.approx(math.sqrt(((y - mean) ** 2).mean()))
    assert scores.mae_raw == pytest.approx(scores.mae * 0.01)
    assert scores.rmse_raw == pytest.approx(scores.rmse * 0.01)
    assert set(scores.coverage) == {"0.98", "0.9", "0.8", "0.6", "0.4", "0.2"}
    inside = (y >= table.q_NQ[:, 2]) & (y <= table.q_NQ[:, 10])
    assert scores.coverage["0.8"] == pytest.approx(inside.mean())
    assert scores.width["0.8"] == pytest.approx(2 * norm.ppf(0.9))
    assert scores.reliability["0.05"] == pytest.approx((y < table.q_NQ[:, 1]).mean())
    assert sum(scores.pit) == pytest.approx(1.0)
    np.testing.assert_allclose(scores.pit, np.diff([0.0, *LEVELS, 1.0]), atol=0.02)
    assert scores.baselines["flat"] == pytest.approx(pinball_N(y, baseline, LEVELS).mean())
    assert scores.skill_over_best == pytest.approx(1 - scores.pinball / scores.baselines["flat"])
    assert scores.best_baseline == "flat"
    assert scores.crps == pytest.approx(crps_N(y, table.q_NQ, LEVELS).mean())
    assert scores.direction_above_chance == pytest.approx(scores.direction - scores.direction_by_chance)
    assert scores.direction_above_chance_ci is not None
    assert scores.direction_above_chance_ci[0] > 0.0
    assert scores.verdict.startswith("Better than every baseline: pinball ")
    assert "Directional skill found: rank IC 0." in scores.verdict


def test_every_figure_has_its_interval() -> None:
    """All that is a figure, by the fields of the struct: a new one without an interval is noticed."""
    table, baseline = world()
    random = np.random.default_rng(3)  # of changing width, so that this has an interval too
    table = replace(table, q_NQ=table.q_NQ * random.uniform(0.9, 1.1, (len(table), 1)))
    scores = score(table, {"flat": baseline}, draws=300)
    told = msgspec.to_builtins(scores)
    counts = {"rows", "stamps", "left_out", "levels", "best_baseline", "verdict", "dm", "dm_p"}
    others = {"by_instrument", "by_horizon", "var", "errors", "largest_misses"}
    others |= {"baselines", "direction_by_chance"}  # what they are set against: their uncertainty is the difference's
    figures = {name for name in told if not name.endswith("_ci")} - counts - others
    assert figures >= {"pinball", "crps", "mae", "rmse", "skill", "coverage", "width", "direction", "rank_ic", "pit"}
    for name in figures:
        value, interval = told[name], told[f"{name}_ci"]
        if isinstance(value, dict):
            assert value.keys() == interval.keys()
            value, interval = list(value.values()), list(interval.values())
        elif not isinstance(value, list):
            value, interval = [value], [interval]
        assert len(value) == len(interval) > 0
        for each, (low, high) in zip(value, interval, strict=True):
            assert low < each < high, name
            assert high - low < 0.2 * abs(each) + 0.05, name
    for rows in told["errors"].values():
        assert all(row["pinball_se"] > 0.0 and row["skill_se"] > 0.0 for row in rows)


@pytest.mark.parametrize("horizon", [1, 8])
def test_intervals_hold_the_truth_as_often_as_they_say(horizon: int) -> None:
    """Coins that move together, outcomes that overlap: intervals that counted rows would be far too narrow."""
    exact = np.random.default_rng(1).standard_normal(200_000)
    own, other = (pinball_N(exact, normal(np.zeros(1), s), LEVELS).mean() for s in (1.0, 1.3))
    truth = {"coverage": 0.8, "pinball": own, "skill": 1.0 - own / other, "reliability": 0.5}
    held = dict.fromkeys(truth, 0)
    for seed in range(30):
        random = np.random.default_rng([seed, horizon, 7])
        moves = 0.9 * random.standard_normal((600 + horizon, 1)) + 0.436 * random.standard_normal((600 + horizon, 4))
        total = np.cumsum(moves, axis=0)
        y = (total[horizon:] - total[:-horizon]) / math.sqrt(horizon)
        table = table_of(y, normal(np.zeros(y.shape)), horizon=horizon)
        wide = pinball_N(table.y, normal(np.zeros(1), 1.3), LEVELS)
        scores = group_scores(table, {"wide": wide}, 100, 0)
        intervals = (
            scores.coverage_ci["0.8"],
            scores.pinball_ci,
            scores.skill_ci["wide"],
            scores.reliability_ci["0.5"],
        )
        for name, (low, high) in zip(held, intervals, strict=True):
            held[name] += low <= truth[name] <= high
    assert min(held.values()) >= 24, held  # of 30; fewer than that come once in a thousand


def test_groups_are_the_same_figures_of_their_rows() -> None:
    table, baseline = world(stamps=400)
    table = replace(table, horizon=np.where(np.arange(len(table)) % 4 < 2, 1, 4))
    scores = score(table, {"flat": baseline}, draws=50)
    own = table.instrument == "B.SIM"
    alone = score(table[own], {"flat": baseline[own]}, draws=50)
    assert scores.by_instrument["B.SIM"] == alone.by_instrument["B.SIM"]
    assert scores.by_instrument["B.SIM"].pinball == alone.pinball
    assert set(scores.by_instrument) == {"A.SIM", "B.SIM"}
    assert set(scores.by_horizon) == {"1", "4"}
    shuffled = np.random.default_rng(0).permutation(len(table))
    assert score(table[shuffled], {"flat": baseline[shuffled]}, draws=50) == scores


def test_all_are_judged_on_the_same_rows_and_go_through_json() -> None:
    table, baseline = world(stamps=300)
    y, q, other = table.y.copy(), table.q_NQ.copy(), baseline.copy()
    y[3], q[7, 0], other[11, 2] = np.nan, np.nan, np.nan
    scores = score(replace(table, y=y, q_NQ=q), {"flat": other}, draws=50)
    assert (scores.rows, scores.left_out) == (597, 3)
    kept = np.setdiff1d(np.arange(600), [3, 7, 11])
    assert scores.baselines["flat"] == pytest.approx(pinball_N(table.y[kept], baseline[kept], LEVELS).mean())
    assert msgspec.json.decode(msgspec.json.encode(scores), type=Scores) == scores
    told = msgspec.to_builtins(scores)
    wanted = "pinball baselines skill_over_best best_baseline dm_p coverage mae rmse rank_ic rank_ic_ci verdict"
    assert set(wanted.split()) | {"by_instrument"} <= set(told)
    assert set(wanted.split()) <= set(told["by_instrument"]["A.SIM"])


def test_tables_that_cannot_be_scored_are_refused() -> None:
    table, baseline = world(stamps=20)
    with pytest.raises(LSTMStrategyError, match="none of the 40 rows has"):
        score(table, {"flat": np.full_like(baseline, np.nan)})
    with pytest.raises(LSTMStrategyError, match=r"baseline flat has shape \(40, 2\)"):
        score(table, {"flat": baseline[:, :2]})
    with pytest.raises(LSTMStrategyError, match="q_NQ has shape"):
        replace(table, levels=(0.1, 0.9))
    with pytest.raises(LSTMStrategyError, match="y has shape"):
        replace(table, y=table.y[:3])


@pytest.mark.parametrize("stamps", [1, 2, 5, 30])
def test_few_rows_and_no_baseline_give_figures_still(stamps: int) -> None:
    table, _ = world(stamps=stamps, instruments=1)
    scores = score(table, {}, draws=20)
    assert scores.best_baseline is None
    assert scores.dm_p is None
    assert scores.verdict.startswith("No baseline to compare with. ")
    assert msgspec.json.decode(msgspec.json.encode(scores), type=Scores) == scores


def test_verdicts_say_who_is_better() -> None:
    table, flat = world(stamps=2_000, skill=0.5)
    wide = normal(np.zeros(len(table)), 2.0)
    constant = replace(table, q_NQ=flat)
    scores = score(constant, {"wide": wide, "oracle": table.q_NQ}, draws=100)
    assert scores.best_baseline == "oracle"
    assert scores.skill_over_best is not None
    assert scores.skill_over_best < 0
    assert scores.rank_ic is None
    assert scores.verdict.startswith("Worse than the best baseline: pinball ")
    assert "; better than wide. No directional skill found: the mean never varies." in scores.verdict
    same = score(constant, {"same": flat}, draws=100)
    assert same.dm["same"].p == 1.0
    assert same.verdict.startswith("No sure difference from the best baseline: pinball 0.00\N{NO-BREAK SPACE}% below")
    some = score(constant, {"same": flat, "wide": wide}, draws=100)
    assert some.verdict.startswith("Better than wide, but not surely than the best baseline: ")


def test_diebold_mariano_is_a_mean_with_newey_west_errors() -> None:
    random = np.random.default_rng(2)
    noise = random.standard_normal(603)
    gain = 0.1 + noise[3:] + 0.8 * noise[2:-1] + 0.5 * noise[1:-2]
    lag, n = 69, 600  # three times 23
    centred = gain - gain.mean()
    variance = centred @ centred / n
    for k in range(1, lag + 1):
        variance += 2 * (1 - k / (lag + 1)) * (centred[k:] @ centred[:-k]) / n
    by_hand = gain.mean() / math.sqrt(variance / (n - 1)) / (1 + 1.79 * lag / n)
    statistic, p = diebold_mariano(gain, 24)
    assert statistic == pytest.approx(by_hand, rel=1e-9)
    assert p == pytest.approx(2 * norm.sf(abs(by_hand)))
    assert diebold_mariano(np.zeros(100), 1) == (0.0, 1.0)


@pytest.mark.parametrize("horizon", [1, 24])
def test_diebold_mariano_rejects_a_true_null_as_often_as_it_says(horizon: int) -> None:
    random = np.random.default_rng(horizon)
    rejected = 0
    for _ in range(1_000):
        noise = random.standard_t(5, 2_000 + horizon - 1)
        gain = np.convolve(noise, np.ones(horizon), "valid")  # outcomes that overlap err together
        rejected += diebold_mariano(gain, horizon)[1] < 0.05
    assert 0.03 <= rejected / 1_000 <= 0.08


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []
    random = np.random.default_rng(0)
    for p in (random.random(7), np.repeat(random.random(3) ** 4, 2), np.ones(2)):
        assert holm(p.tolist()) == multipletests(p, method="holm")[1].tolist()


def test_kupiec_and_christoffersen() -> None:
    # Kupiec by its formula, and near the exact binomial test.
    n, x, p = 1_000, 17, 0.01
    ratio = -2 * ((n - x) * math.log((1 - p) / (1 - x / n)) + x * math.log(p / (x / n)))
    assert kupiec(x, n, p) == pytest.approx(chi2.sf(ratio, 1))
    assert kupiec(x, n, p) == pytest.approx(binomtest(x, n, p).pvalue, abs=0.03)
    assert kupiec(10, 1_000, 0.01) == pytest.approx(1.0)
    assert kupiec(0, 250, 0.01) == pytest.approx(chi2.sf(-2 * 250 * math.log(0.99), 1))
    # Independence is the G test of the two-by-two table of violation after violation.
    random = np.random.default_rng(4)
    violated = random.random(3_000) < 0.05
    pairs = np.zeros((2, 2))
    np.add.at(pairs, (violated[:-1].astype(int), violated[1:].astype(int)), 1)
    wanted = chi2_contingency(pairs, correction=False, lambda_="log-likelihood").pvalue
    independence, conditional = christoffersen(violated, 0.05)
    assert independence == pytest.approx(wanted)
    assert conditional is not None
    assert conditional > 0.01
    clustered = np.repeat(random.random(300) < 0.05, 10)
    assert christoffersen(clustered, 0.05)[0] == pytest.approx(0.0, abs=1e-6)
    assert christoffersen(np.zeros(100, np.bool_), 0.01) == (None, None)


def test_value_at_risk_by_instrument_and_horizon() -> None:
    table, _ = world(stamps=4_000, skill=0.0)
    tests = var_tests(table)
    assert [(t.instrument, t.horizon, t.level) for t in tests] == [
        (name, 1, level) for name in ("A.SIM", "B.SIM") for level in (0.01, 0.05)
    ]
    for test in tests:
        assert test.rows == 4_000
        assert test.rate == test.violations / 4_000 == pytest.approx(test.level, rel=0.35)
        assert test.p_kupiec > 0.01
        assert test.shortfall_realised == pytest.approx(-norm.pdf(norm.ppf(test.level)) / test.level, abs=0.15)
    low, high = norm.ppf(0.01), norm.ppf(0.05)
    slope = (high - low) / math.log(5)  # an exponential tail
    assert tests[0].shortfall_forecast == pytest.approx(low - slope)
    assert tests[1].shortfall_forecast == pytest.approx(high - slope)
    sparse = var_tests(replace(table, horizon=np.full(len(table), 24)))
    assert sparse[0].rows == math.ceil(4_000 / 24)  # outcomes that overlap are counted once


def test_expected_shortfall_is_that_of_the_law() -> None:
    levels = (0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5)
    quantiles = np.array([laplace.ppf(levels), 2.0 + 3.0 * laplace.ppf(levels)])
    exact = [laplace.expect(lambda x: x, ub=laplace.ppf(level), conditional=True) for level in levels[:4]]
    for place in range(4):
        found = expected_shortfall(quantiles, levels, place)
        tolerance = 1e-6 if place < 2 else 0.03  # exact while the tail's own, by trapezoids above
        np.testing.assert_allclose(found, [exact[place], 2.0 + 3.0 * exact[place]], atol=3 * tolerance)


def test_a_shortfall_too_mild_is_noticed_and_a_true_one_seldom_refused() -> None:
    refused = {"true": 0, "mild": 0}
    for seed in range(60):
        y = np.random.default_rng([seed, 9]).laplace(size=(3_000, 1))
        law = np.broadcast_to(laplace.ppf(LEVELS), (3_000, 1, len(LEVELS)))
        mild = law.copy()
        mild[..., 0] = mild[..., 1] - 0.3 * (law[..., 1] - law[..., 0])  # as often beyond 5 %, but no deep tail
        for name, q in (("true", law), ("mild", mild)):
            (test,) = (each for each in var_tests(table_of(y, q)) if each.level == 0.05)
            assert test.p_shortfall is not None
            refused[name] += test.p_shortfall < 0.05
    assert refused["true"] <= 8
    assert refused["mild"] >= 55
    assert mean_is_zero(np.array([1.0, 2.0, 3.0, 4.0])) is None
    random = np.random.default_rng(0)
    for rows in (40, 3_000):
        value = random.standard_normal(rows) + 0.3 / math.sqrt(rows)
        assert mean_is_zero(value) == pytest.approx(ttest_1samp(value, 0.0).pvalue, abs=0.04)


def test_bootstrap_errors_are_those_of_a_mean() -> None:
    random = np.random.default_rng(6)
    series = random.standard_normal(800)
    for values, inflation in ((series, 1.0), (np.convolve(series, np.ones(12) / 12, "same"), None)):
        sums = bootstrap_sums(np.column_stack([values, np.ones(800)]), values, 1, 600, 0)
        np.testing.assert_allclose(sums[:, 1], 800)
        if inflation:
            expected = values.std() / math.sqrt(800)
        else:
            fitted = sm.OLS(values, np.ones(800)).fit(cov_type="HAC", cov_kwds={"maxlags": 20})
            expected = float(fitted.bse[0])
        assert (sums[:, 0] / 800).std() == pytest.approx(expected, rel=0.25)
    assert (
        bootstrap_sums(series[:, None], series, 1, 5, 0).tobytes()
        == bootstrap_sums(series[:, None], series, 1, 5, 0).tobytes()
    )


@pytest.mark.parametrize("horizon", [1, 8])
def test_no_directional_skill_is_found_in_noise(horizon: int) -> None:
    found, told = 0, 0
    for seed in range(20):
        random = np.random.default_rng([seed, horizon])
        moves = 0.6 * random.standard_normal((1_500, 1)) + 0.8 * random.standard_normal((1_500, 3))
        past, ahead = (
            moves[: -horizon - 8],
            np.stack([moves[i : len(moves) - 8 - horizon + i] for i in range(1, horizon + 1)]),
        )
        said = np.stack([np.convolve(column, 0.8 ** np.arange(40))[: len(past)] for column in past.T], axis=1)
        y = ahead.sum(axis=0) / math.sqrt(horizon)
        scores = score(table_of(y, normal(0.1 * said), horizon=horizon), {}, draws=300)
        assert scores.rank_ic_ci is not None
        found += scores.rank_ic_ci[0] > 0.0 or scores.rank_ic_ci[1] < 0.0
        told += "No directional skill found" in scores.verdict
    assert found <= 2
    assert told >= 18


def test_error_tables() -> None:
    table, baseline = world(stamps=24 * 40)
    scale = np.repeat(np.linspace(0.01, 0.03, 960), 2) * np.tile([1.0, 5.0], 960)
    table = replace(table, scale=scale)
    loss = pinball_N(table.y, table.q_NQ, LEVELS)
    tables = error_tables(table, pinball_N(table.y, baseline, LEVELS))
    assert list(tables) == ["month", "hour", "weekday", "volatility", "instrument", "horizon"]
    assert [row.key for row in tables["month"]] == ["2024-01", "2024-02"]
    assert [row.key for row in tables["hour"]] == [f"{hour:02d}" for hour in range(24)]
    assert tables["weekday"][0].key == "Monday"
    assert tables["weekday"][0].rows == 6 * 24 * 2  # 2024-01-01 was one
    assert [(row.key, row.rows) for row in tables["volatility"]] == [("low", 640), ("middle", 640), ("high", 640)]
    assert [row.key for row in tables["instrument"]] == ["A.SIM", "B.SIM"]
    hour = tables["hour"][5]
    assert hour.rows == 80
    assert hour.pinball == pytest.approx(loss.reshape(40, 24, 2)[:, 5].mean())
    by_stamp = loss.reshape(40, 24, 2)[:, 5].mean(axis=1)
    fitted = sm.OLS(by_stamp, np.ones(40)).fit(cov_type="HAC", cov_kwds={"maxlags": 4, "use_correction": False})
    assert hour.pinball_se == pytest.approx(float(fitted.bse[0]))
    other = pinball_N(table.y, baseline, LEVELS).reshape(40, 24, 2)[:, 5].mean(axis=1)
    ratio = by_stamp.mean() / other.mean()
    assert hour.skill_over_best == pytest.approx(1 - ratio)
    fitted = sm.OLS(by_stamp - ratio * other, np.ones(40)).fit(
        cov_type="HAC", cov_kwds={"maxlags": 4, "use_correction": False}
    )
    assert hour.skill_se == pytest.approx(float(fitted.bse[0]) / other.mean())
    low = tables["volatility"][0]
    assert low.pinball == pytest.approx(loss[:640].mean())
    assert error_tables(table, None)["month"][0].skill_over_best is None


def test_largest_misses_have_their_dates() -> None:
    table, _ = world(stamps=200)
    y = table.y.copy()
    y[2 * 30 + 1] = -12.0
    miss, *others = largest_misses(replace(table, y=y, horizon=np.full(400, 4)), 5)
    assert len(others) == 4
    assert (miss.ts, miss.instrument, miss.horizon, miss.y) == ("2024-01-02T06:00:00Z", "B.SIM", 4, -12.0)
    assert miss.log_return == pytest.approx(-12.0 * 0.01 * 2.0)
    assert miss.pinball > others[0].pinball


def test_psi_by_hand_and_drift() -> None:
    was = np.array([1.0] * 50 + [2.0] * 50)
    now = np.array([1.0] * 20 + [2.0] * 80)
    # Deciles fall on 1 and 2: shares .5/.5 become .2/.8.
    assert psi(was, now) == pytest.approx(-0.3 * math.log(0.4) + 0.3 * math.log(1.6))
    random = np.random.default_rng(8)
    same, moved = random.standard_normal((5_000, 2)), random.normal([0.0, 1.0], 1.0, (5_000, 2))
    still, shifted = drift(same, moved)
    assert still < 0.01
    assert shifted > 0.25
    assert psi(np.ones(10), np.ones(5)) == 0.0
    assert math.isnan(psi(np.array([np.nan]), now))
