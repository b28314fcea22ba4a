"""Value at risk over several bars: losses of the position kept, block by block, after the forecast alone."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import plotly.graph_objects as go
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from scipy import stats
from test_joint_risk import NAMES, TRUE
from test_report import HOUR, LEVELS, NORMAL, START, figures_of, text_of, write_run
from test_risk_report import LEVELS_12, make_run

from lstm_strategy.nautilus.correlations import upper_of
from lstm_strategy.report.charts import draw_risk
from lstm_strategy.report.joint_risk import Correlations, Holding, joint_tails, tails_of_account
from lstm_strategy.report.page import write_report
from lstm_strategy.report.risk import Tails, christoffersen, kupiec, tails_of
from lstm_strategy.report.risk_section import risk_section
from lstm_strategy.report.run_folder import read_run
from lstm_strategy.report.run_types import DecisionLog, EquityCurve, RecordedForecasts, Run

DAY = 24
PART = ("result", "mean_exposure", "largest_exposure")
WIDE = np.array([-0.04, -0.02, 0.0, 0.03, 0.05])  # at LEVELS_12


def blocks(run: Run, horizon: int = DAY) -> Run:
    """The same run of a model that forecasts no single bar, but so many."""
    return replace(run, forecasts=tuple(replace(of, horizon=horizon) for of in run.forecasts))


def less(run: Run, *rows: int) -> Run:
    """The same run, had these bars never come."""
    keep = np.ones(len(run.equity.ts_close), bool)
    keep[list(rows)] = False

    def cut(of: Any, *names: str) -> Any:
        return replace(of, **{name: getattr(of, name)[keep] for name in names})

    curve = cut(run.equity, "ts_close", "equity", "exposure", "price", "buy_and_hold")
    decisions = cut(run.decisions, "ts_close", "target", "exposure", "quantity", "price", "ordered")
    forecasts = tuple(cut(of, "ts_close", "quantiles_NQ") for of in run.forecasts)
    return replace(run, equity=curve, decisions=decisions, everyone=decisions, forecasts=forecasts)


def rows_of(found: Tails | None) -> list[int]:
    """Bars after the run's start of the closes that were judged, the first bar's being 0."""
    assert found is not None
    return ((found.ts_close - START) // HOUR - 1).tolist()


# one instrument


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_true_law_over_a_day_is_breached_as_often_as_it_says(sign: float) -> None:
    """A skewed law, so that a short position's loss is told by the other end; exposures change from bar to bar."""
    random, days = np.random.default_rng(4), 4_000
    sigma = np.repeat(np.where(np.arange(days) // 20 % 2, 0.002, 0.006), DAY)
    law = stats.gamma(DAY * 0.5)  # what 24 hours of gamma(0.5) add up to
    hours = (random.gamma(0.5, size=days * DAY) - 0.5) * sigma
    quantiles = sigma[:, None] * (law.ppf(LEVELS) - DAY * 0.5)
    exposure = sign * np.where(np.arange(days * DAY) % 5, 0.8, 0.3)
    found = tails_of(blocks(make_run(np.expm1(hours), exposure, quantiles, tuple(LEVELS))))
    assert found is not None
    assert found.horizon == DAY
    assert rows_of(found) == list(range(0, (days - 1) * DAY, DAY))
    for tail in found.tails:
        assert tail.bars == days - 1
        assert tail.p > 0.02
        assert tail.p_apart > 0.02
        assert abs(tail.breaches - tail.expected) < 3 * math.sqrt(tail.expected)
        assert not tail.too_few
    five, one = found.tails
    assert five.foreseen == pytest.approx(five.suffered, rel=0.12)
    assert one.foreseen < one.suffered  # flat beyond the outermost level


def test_what_was_known_a_block_too_late_is_found_out() -> None:
    """The same market: calm and wild days take turns, and a forecast of the day before is wrong on every day."""
    random, days = np.random.default_rng(5), 1_000
    sigma = np.repeat(np.where(np.arange(days) % 2, 0.002, 0.006), DAY)
    hours = np.expm1(sigma * random.standard_normal(days * DAY))
    right = sigma[:, None] * math.sqrt(DAY) * np.array(NORMAL)
    for quantiles, true in ((right, True), (np.roll(right, DAY, axis=0), False)):
        found = tails_of(blocks(make_run(hours, np.ones(days * DAY), quantiles, tuple(LEVELS))))
        assert found is not None
        assert (found.tails[0].p > 0.02) == true
        assert (found.tails[0].p < 1e-6) != true


def test_value_and_loss_by_hand_of_either_side() -> None:
    """Three bars at a time. The position of the first close counts alone: turned or closed inside, its loss goes on."""
    returns = np.array([-0.05, 0.02, -0.01, 0.03, 0.01, 0.02, 0.5])
    exposure = np.array([1.0, -1.0, 0.0, -0.5, 0.7, 0.7, 0.7])
    run = make_run(returns, exposure, np.tile(WIDE, (7, 1)), LEVELS_12)
    odd = replace(run, equity=replace(run.equity, equity=np.array([1.0, 9.0, 2.0, 8.0, 3.0, 7.0, 4.0])))
    for one in (run, odd):  # what the account earned has no part in it
        found = tails_of(blocks(one, 3))
        assert found is not None
        assert rows_of(found) == [0, 3]  # the seventh bar has no three after it
        assert ((found.ts_end - found.ts_close) // HOUR).tolist() == [3, 3]
        lost = 1 - 0.95 * 1.02 * 0.99, 0.5 * (1.03 * 1.01 * 1.02 - 1)
        assert found.returns == pytest.approx([-lost[0], -lost[1]])
        up = math.expm1(0.03) + (0.95 - 0.9) / 0.09 * (math.expm1(0.05) - math.expm1(0.03))
        assert found.at_risk[0.05] == pytest.approx([1 - math.exp(-0.02), 0.5 * up], rel=1e-6)
        assert found.at_risk[0.01] == pytest.approx([1 - math.exp(-0.04), 0.5 * math.expm1(0.05)], rel=1e-6)
        five, one_in_100 = found.tails
        assert (five.breaches, one_in_100.breaches) == (2, 2)
        low, high, top = 1 - math.exp(-0.04), 1 - math.exp(-0.02), math.expm1(0.05)
        shortfall = (0.01 * low + 0.04 * (low + high) / 2) / 0.05, 0.5 * (0.01 * top + 0.04 * (top + up) / 2) / 0.05
        assert five.foreseen == pytest.approx(sum(shortfall) / 2, rel=1e-6)
        assert one_in_100.foreseen == pytest.approx((low + 0.5 * top) / 2, rel=1e-6)  # the value at risk itself
        assert five.suffered == pytest.approx(sum(lost) / 2)


def test_prices_before_a_forecast_have_no_part_in_its_loss() -> None:
    """The price falls by half in one bar: a forecast made at its close knows it, one made before it does not."""
    for bar in range(24):  # it is the return from this close to the next
        returns = np.zeros(24)
        returns[bar] = -0.5
        found = tails_of(blocks(make_run(returns, np.ones(24), np.tile(WIDE, (24, 1)), LEVELS_12), 6))
        assert found is not None
        assert rows_of(found) == [0, 6, 12]  # of the last only five bars are known
        assert found.returns == pytest.approx([-0.5 * (start <= bar < start + 6) for start in (0, 6, 12)])


def test_a_missing_bar_leaves_its_block_out_and_no_other() -> None:
    returns = np.linspace(-0.02, 0.03, 41)
    run = make_run(returns, np.ones(41), np.tile(WIDE, (41, 1)), LEVELS_12)
    whole = tails_of(blocks(run, 8))
    assert rows_of(whole) == [0, 8, 16, 24, 32]
    assert whole is not None
    for gone in range(9, 16):  # inside the second
        found = tails_of(blocks(less(run, gone), 8))
        assert rows_of(found) == [0, 17, 25]  # of what follows, the next begins at the eighth bar that came
        assert found is not None
        moved = np.cumprod(1 + returns)
        assert found.returns[1:] == pytest.approx([moved[24] / moved[16] - 1, moved[32] / moved[24] - 1])
    # A bar is missing between two blocks' closes: the one that would end at it cannot.
    assert rows_of(tails_of(blocks(less(run, 8), 8))) == [9 + 8 * step for step in range(3)]
    # Closed for a night, as the experiment says: no hole.
    summary = msgspec.structs.replace(run.summary, closed_hours=12.0)
    night = less(replace(run, summary=summary), 10, 11, 12)
    assert rows_of(tails_of(blocks(night, 8))) == [0, 8, 19, 27]


def test_blocks_are_counted_from_the_first_decision_whatever_came_later() -> None:
    """A model that warms up, a position that comes and goes, and a forecast that fails do not move them."""
    returns, exposure = np.full(50, 0.01), np.ones(50)
    exposure[20:23] = 0.0
    run = blocks(make_run(returns, exposure, np.tile(WIDE, (50, 1)), LEVELS_12), 5)
    (forecasts,) = run.forecasts
    late = replace(forecasts, ts_close=forecasts.ts_close[7:], quantiles_NQ=forecasts.quantiles_NQ[7:].copy())
    late.quantiles_NQ[35 - 7] = np.nan
    found = tails_of(replace(run, forecasts=(late,)))
    assert rows_of(found) == [10, 15, 25, 30, 40]
    assert found is not None
    assert found.ts_first == START + HOUR


def test_a_halt_takes_later_blocks_away_but_not_the_loss_under_way() -> None:
    """Halted and flat from bar 8 on, after half a fall; the position of bar 4 is judged by all of it."""
    returns = np.zeros(20)
    returns[[6, 9]] = -0.1, -0.2
    exposure = np.ones(20)
    exposure[8:16] = 0.0  # the halt's order brings the target to nothing; from bar 16 on it trades again
    run = blocks(make_run(returns, exposure, np.tile(WIDE, (20, 1)), LEVELS_12), 6)
    found = tails_of(run)
    assert rows_of(found) == [0, 6]
    assert found is not None
    assert found.returns == pytest.approx([0.0, 0.9 * 0.8 - 1])
    # The halt's close begins a block: 12. Nothing could be sold at it, and what is held is still at risk.
    stuck = replace(run.decisions, ordered=np.arange(20) != 12, exposure=np.where(np.arange(20) == 12, 0.7, 0.0))
    assert rows_of(tails_of(replace(run, decisions=stuck))) == [0, 6, 12]
    # No equity, none known: no fraction of it is at risk.
    broke = replace(run.equity, equity=np.where(np.arange(20) == 6, -5.0, 1000.0))
    assert rows_of(tails_of(replace(run, equity=broke))) == [0]


@pytest.mark.parametrize("hole", [False, True])
def test_breaches_upon_each_other_are_those_of_blocks_that_touch(hole: bool) -> None:
    """Every breach is followed by another; left apart by a missing bar, none follows any."""
    random, days = np.random.default_rng(3), 600
    bad = np.zeros(days, bool)
    bad[random.choice(days // 6, 20, replace=False) * 6] = True
    bad |= np.roll(bad, 1)
    hours = np.zeros(days * 4)
    hours[1::4] = np.where(bad, -0.1, 0.001)
    run = make_run(hours, np.ones(days * 4), np.tile(WIDE, (days * 4, 1)), LEVELS_12)
    if hole:  # every other block
        run = replace(run, forecasts=(replace(run.forecasts[0], quantiles_NQ=run.forecasts[0].quantiles_NQ.copy()),))
        run.forecasts[0].quantiles_NQ[np.arange(days * 4) // 4 % 2 == 1] = np.nan
    found = tails_of(blocks(run, 4))
    assert found is not None
    if hole:
        assert math.isnan(found.tails[0].p_apart)
        return
    assert found.tails[0].breaches == 40
    assert found.tails[0].p_apart < 1e-10
    assert found.tails[0].p_apart == pytest.approx(christoffersen(bad[:-1], np.ones(days - 2, bool)))
    assert found.tails[0].p == pytest.approx(kupiec(40, days - 1, 0.05))


def test_too_few_blocks_are_not_tested() -> None:
    """A hundred at 5 %, five hundred at 1 %: from there on χ² rejects a true level about as often as it says."""

    def judged(days: int) -> tuple[bool, bool]:
        bars = days * 2 + 1
        found = tails_of(blocks(make_run(np.zeros(bars), np.ones(bars), np.tile(WIDE, (bars, 1)), LEVELS_12), 2))
        assert found is not None
        for tail in found.tails:
            assert tail.bars == days
            assert tail.too_few == math.isnan(tail.p)
        five, one = found.tails
        return not five.too_few, not one.too_few

    assert [judged(days) for days in (99, 100, 499, 500)] == [
        (False, False),
        (True, False),
        (True, False),
        (True, True),
    ]

    def rejected(bars: int, level: float) -> float:
        return float(
            sum(stats.binom.pmf(n, bars, level) for n in range(min(bars, 60)) if kupiec(n, bars, level) < 0.05)
        )

    for level in (0.05, 0.01):
        assert max(rejected(round(due / level), level) for due in (5, 6, 8, 10)) < 0.08
        assert rejected(round(2 / level), level) > 0.14
    # Of single bars all is as it was: judged, however few.
    found = tails_of(make_run(np.zeros(9), np.ones(9), np.tile(WIDE, (9, 1)), LEVELS_12))
    assert found is not None
    assert [tail.p for tail in found.tails] == [kupiec(0, 8, 0.05), kupiec(0, 8, 0.01)]


def test_the_shortest_horizon_is_judged_and_one_bar_as_before() -> None:
    random = np.random.default_rng(1)
    run = make_run(0.01 * random.standard_normal(300), np.ones(300), np.tile(WIDE, (300, 1)), LEVELS_12)
    (one,) = run.forecasts
    longer = tuple(replace(one, horizon=horizon, quantiles_NQ=2 * one.quantiles_NQ) for horizon in (4, DAY))
    alone, beside = tails_of(run), tails_of(replace(run, forecasts=(one, *longer)))
    assert alone is not None
    assert beside is not None
    assert (beside.horizon, beside.tails) == (1, alone.tails)
    assert np.array_equal(beside.returns, run.equity.equity[1:] / run.equity.equity[:-1] - 1)
    four = tails_of(replace(run, forecasts=longer))
    assert four is not None
    assert four.horizon == 4
    assert four.at_risk[0.01] == pytest.approx(1 - math.exp(-0.08))


# an account of several


def account(
    moves_TS: np.ndarray,
    weight_TS: np.ndarray,
    quantiles_TSQ: np.ndarray,
    upper_TP: np.ndarray,
    horizon: int,
    **gone: Any,
) -> Tails | None:
    """Positions decided at each close in names that move so from it to the next; ``absent`` [T, S]: no bar came.

    ``hours`` [T] are those of the closes.
    """
    bars, names = moves_TS.shape
    absent_TS = gone.get("absent", np.zeros((bars, names), bool))
    stamps = START + HOUR * gone.get("hours", np.arange(1, bars + 1))
    price_TS = 100 * np.cumprod(1 + np.vstack([np.zeros(names), moves_TS[:-1]]), axis=0)
    for row in np.flatnonzero(absent_TS.any(axis=1)):  # as a run records it: the last price
        price_TS[row] = np.where(absent_TS[row], price_TS[row - 1], price_TS[row])
    ones = np.ones(bars)
    holdings = {}
    for row, name in enumerate(NAMES[:names]):
        spoken = ~absent_TS[:, row]
        decided = DecisionLog(stamps, weight_TS[:, row], 9 * ones, ones, price_TS[:, row], ones > 0, {}, {}, {})
        quantiles_NQ = quantiles_TSQ[spoken, row].astype(np.float32)
        holdings[name] = Holding(decided, RecordedForecasts(horizon, tuple(LEVELS), stamps[spoken], quantiles_NQ))
    curve = EquityCurve(stamps, 1000 * ones, weight_TS.sum(axis=1), ones, ones)
    known = Correlations(NAMES[:names], stamps, upper_TP)
    return tails_of_account(curve, HOUR, holdings, known, gone.get("closed_ns", 0))


def test_the_true_law_of_an_account_over_several_bars() -> None:
    """Long and short; with the true correlations as often as it says, without any more often."""
    random, days, hours = np.random.default_rng(6), 3_000, 8
    sigma_TS = np.repeat(np.where(np.arange(days) // 25 % 2, 0.002, 0.005), hours)[:, None] * np.array([1.0, 1.5, 0.7])
    z_TS = random.standard_normal((days * hours, 3)) @ np.linalg.cholesky(TRUE).T
    quantiles = math.sqrt(hours) * sigma_TS[:, :, None] * np.array(NORMAL)
    weight_TS = random.choice([-0.8, -0.3, 0.0, 0.4, 1.0], (days * hours, 3))
    true_TP = np.tile(upper_of(TRUE), (days * hours, 1))
    found = account(np.expm1(sigma_TS * z_TS), weight_TS, quantiles, true_TP, hours)
    assert found is not None
    assert found.horizon == hours
    assert (np.diff(found.ts_close) >= hours * HOUR).all()
    assert len(found.returns) == days - 1 - (weight_TS[:-hours:hours] == 0.0).all(axis=1).sum()
    for tail in found.tails:
        assert tail.p > 0.02
        assert tail.p_apart > 0.02
    assert found.tails[0].foreseen == pytest.approx(found.tails[0].suffered, rel=0.12)
    long = np.full((days * hours, 3), 0.5)
    blind = account(np.expm1(sigma_TS * z_TS), long, quantiles, 0.0 * true_TP, hours)
    assert blind is not None
    assert all(tail.p < 1e-4 and tail.breaches > tail.expected for tail in blind.tails)


def test_an_account_by_hand_and_a_name_alone() -> None:
    """0.5 long of A, 0.25 short of B at each block's first close, and else something that must not count."""
    levels = np.array(LEVELS)
    a, b = (np.interp(levels, [0.05, 0.5, 0.95], row) for row in ([-0.02, 0.0, 0.02], [-0.03, 0.0, 0.03]))
    quantiles = np.tile(np.stack([a, b]), (7, 1, 1))
    moves = np.array([[0.01, 0.02], [0.03, -0.01], [-0.2, 0.1], [0.0, 0.05], [0.1, 0.0], [0.02, 0.3], [0.0, 0.0]])
    weight = np.full((7, 2), 0.9)
    weight[::3] = 0.5, -0.25
    found = account(moves, weight, quantiles, np.full((7, 1), 0.6), 3)
    assert found is not None
    assert rows_of(found) == [0, 3]
    grown = [np.prod(1 + moves[start : start + 3], axis=0) - 1 for start in (0, 3)]
    assert found.returns == pytest.approx([0.5 * own[0] - 0.25 * own[1] for own in grown])
    long, short = 0.5 * -math.expm1(-0.02), 0.25 * math.expm1(0.03)
    assert found.at_risk[0.05] == pytest.approx(math.sqrt(long**2 + short**2 - 1.2 * long * short), rel=1e-5)
    alone = tails_of(blocks(make_run(moves[:, 0], weight[:, 0], quantiles[:, 0], tuple(LEVELS)), 3))
    joint = account(moves[:, :1], weight[:, :1], quantiles[:, :1], np.zeros((7, 0)), 3)
    assert alone is not None
    assert joint is not None
    assert joint.returns == pytest.approx(alone.returns)
    for level, value in alone.at_risk.items():
        assert joint.at_risk[level] == pytest.approx(value)


def test_a_bar_that_a_held_name_lacks_breaks_the_accounts_block() -> None:
    """Prices fall for good in the bar that B lacks: the last price would hide it. Where B is not held, all counts."""
    moves = np.zeros((25, 2))
    absent = np.zeros((25, 2), bool)
    weight = np.tile([0.5, 0.4], (25, 1))
    weight[16:, 1] = 0.0
    quantiles = np.tile(np.array(NORMAL) * 0.01, (25, 2, 1))
    for gone in range(1, 24):
        absent[:] = False
        absent[gone, 1] = True
        found = account(moves, weight, quantiles, np.zeros((25, 1)), 4, absent=absent)
        broken = {start for start in (0, 4, 8, 12) if start <= gone <= start + 4}
        assert set(rows_of(found)) == {0, 4, 8, 12, 16, 20} - broken
    # A market that closes at other hours than the account's other one: its eight bars are not the account's eight.
    absent[:] = False
    absent[9:12, 1] = True
    found = account(moves, weight, quantiles, np.zeros((25, 1)), 8, absent=absent, closed_ns=12 * HOUR)
    assert rows_of(found) == [0, 16]
    # Both closed for the same night: no hole where the experiment says so.
    hours = np.arange(1, 26) + np.where(np.arange(25) < 9, 0, 6)
    for closed_ns, judged in ((6 * HOUR, [0, 22]), (7 * HOUR, [0, 8, 22])):
        found = account(moves, weight, quantiles, np.zeros((25, 1)), 8, hours=hours, closed_ns=closed_ns)
        assert rows_of(found) == judged


# words


SAID = (
    "The model forecasts no single bar: this is judged over 4 bars, its shortest horizon. The loss is what the position"
    " decided at a close would have lost over the next 4 bars if kept as it was, from close to close, without costs;"
    " what was traded meanwhile is not in it, and so this is no loss that the account had. Blocks begin every 4 bars,"
    " counted from the first of the run (2024-01-01 01:00), and do not overlap; those without a position or a forecast,"
    " and those with a missing bar, are left out."
)
FEW = "Too few: fewer than 5 breaches are due, so that neither p would mean much."
FLAT = (
    "The model's levels end at 1 % and 99 %, and nothing is assumed to lie beyond: the shortfall forecast is"
    " understated, and at 1 % it is no more than the value at risk itself."
)


def section(folder: Path) -> str:
    """What a reader sees of the section on risk, with the caption of its chart."""
    html = write_report(folder).read_text(encoding="utf-8")
    start = html.rindex("<h2>", 0, html.index("<h2>Risk</h2>"))
    return text_of(html[start : html.index("Worst days")]).replace("&#39;", "'").replace("&nbsp;", " ")


def cells_of(folder: Path, row: int) -> list[str]:
    table = (folder / "report.html").read_text(encoding="utf-8").split('<table id="tails">')[1].split("</table>")[0]
    return [
        re.sub("<[^>]+>", "", cell).strip() for cell in re.findall(r"<t[hd][^>]*>.*?</t[hd]>", table.split("<tr>")[row])
    ]


def test_the_page_names_the_horizon_and_shows_what_was_judged(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", horizons=(4, 24))
    said = section(folder)
    assert SAID in said
    assert FEW not in said
    assert FLAT in said
    assert "would have brought over the next 4 bars if kept" in said
    assert "5 % and in 1 % of such blocks" in said
    assert cells_of(folder, 1)[:2] == ["Next 4 bars", "Blocks at risk"]
    _, bars, due, breaches, p, *_ = cells_of(folder, 2)
    assert 600 < int(bars) <= (3_000 - 50) // 4
    assert due == f"{0.05 * int(bars):.0f}"
    assert abs(int(breaches) - int(due)) < 3 * math.sqrt(int(due))
    assert float(p) > 0.02
    figure = figures_of((folder / "report.html").read_text(encoding="utf-8"))["risk"]
    assert go.Figure(figure).data[0].name == "return over the next 4 bars"


def test_the_page_judges_an_account_over_the_shortest_horizon_of_all_its_names(tmp_path: Path) -> None:
    """A and B move as one, and so are twice the risk of A; only B is forecast for the next two bars."""
    folder = write_run(tmp_path / "run", bars=900, horizons=(4, 24), instrument="A")
    alone = tails_of(read_run(folder))
    decisions, forecasts = (pq.read_table(folder / f"{name}.parquet") for name in ("decisions", "forecasts"))

    def as_b(table: pa.Table) -> pa.Table:
        return table.set_column(table.column_names.index("instrument"), "instrument", pa.array(["B"] * len(table)))

    sooner = as_b(forecasts.filter(pc.equal(forecasts["horizon"], 24)))
    two = pa.array([2] * len(sooner), sooner.schema.field("horizon").type)
    sooner = sooner.set_column(sooner.column_names.index("horizon"), "horizon", two)
    pq.write_table(pa.concat_tables([decisions, as_b(decisions)]), folder / "decisions.parquet")
    pq.write_table(pa.concat_tables([forecasts, as_b(forecasts), sooner]), folder / "forecasts.parquet")
    one = pa.array([[1.0]] * 900, pa.list_(pa.float32()))
    known = pa.table({"ts_close": pq.read_table(folder / "equity.parquet")["ts_close"], "correlation": one})
    pq.write_table(known.replace_schema_metadata({"names": b'["A", "B"]'}), folder / "correlations.parquet")
    parts = [{"instrument": name, "orders": 1, "fees": 0.0} | dict.fromkeys(PART) for name in "AB"]
    summary = json.loads((folder / "summary.json").read_text()) | {"instruments": parts}
    (folder / "summary.json").write_text(json.dumps(summary))
    joint = joint_tails(read_run(folder))
    assert alone is not None
    assert joint is not None
    assert joint.horizon == 4
    assert np.array_equal(joint.ts_close, alone.ts_close)
    assert joint.returns == pytest.approx(2 * alone.returns)
    for level, value in alone.at_risk.items():
        assert joint.at_risk[level] == pytest.approx(2 * value)
    said = section(folder)
    assert (
        "The loss is what the positions decided at a close would have lost over the next 4 bars if kept as they" in said
    )
    assert "the correlations of single bars known at that close, taken for those of 4 bars" in said
    assert "the forecasts of all instruments made at that close" in said
    assert cells_of(folder, 1)[0] == "Next 4 bars"


def test_the_page_says_where_blocks_are_too_few(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", horizons=(24,))  # 125 days: 6 due at 5 %, one at 1 %
    assert FEW in section(folder)
    assert cells_of(folder, 2)[4] != "too few"
    assert cells_of(folder, 3)[4:6] == ["too few", "too few"]
    assert re.fullmatch(r"1\.\d", cells_of(folder, 3)[2])


def test_one_bar_is_told_as_before(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", bars=400)
    said = section(folder)
    assert "Breaches are bars that lost more than the value at risk" in said
    assert "block" not in said
    assert "too few" not in said.lower()
    assert FLAT in said
    assert cells_of(folder, 1)[:2] == ["Next bar", "Bars at risk"]


def relevel(folder: Path, low: int) -> None:
    """Keep of the forecasts' levels those from the ``low``-th to the ``low``-th from above."""
    table = pq.read_table(folder / "forecasts.parquet")
    for name in ("levels", "quantiles"):
        rows = [row[low:-low] for row in table[name].to_pylist()]
        column = table.column_names.index(name)
        table = table.set_column(column, name, pa.array(rows, table.schema.field(name).type))
    pq.write_table(table, folder / "forecasts.parquet")


@pytest.mark.parametrize("horizon", [1, 4])
def test_levels_beyond_the_models_outermost_are_named(tmp_path: Path, horizon: int) -> None:
    folder = write_run(tmp_path / "run", bars=600, horizons=(horizon,))
    relevel(folder, 1)
    told = (
        "The model's levels end at 5 % and 95 %, and nothing is assumed to lie beyond: the shortfall forecast is"
        " understated, and at 5 % it is no more than the value at risk itself. The value at risk at 1 % lies beyond,"
        " and is not judged."
    )
    assert told in section(folder)
    assert "expected to see exceeded in 5 % of " in section(folder)
    relevel(folder, 1)
    assert (
        "Value at risk is not judged: the model's levels, 10 % to 90 %, do not reach 5 % on both sides."
    ) in section(folder)


def test_a_finer_model_is_understated_a_little_and_one_sided_levels_are_told() -> None:
    run = make_run(np.zeros(9), np.ones(9), np.tile(WIDE, (9, 1)), (0.001, 0.05, 0.5, 0.95, 0.999))
    assert risk_section(run, tails_of(run))["ends"].endswith("lie beyond: the shortfall forecast is understated.")
    run = make_run(np.zeros(9), np.ones(9), np.tile(WIDE, (9, 1)), (0.005, 0.05, 0.5, 0.9, 0.99))
    assert "and at 1\N{NO-BREAK SPACE}% it can be no more than the value" in risk_section(run, tails_of(run))["ends"]


def test_the_page_says_why_nothing_was_judged(tmp_path: Path) -> None:
    run = blocks(make_run(np.zeros(9), np.zeros(9), np.tile(WIDE, (9, 1)), LEVELS_12), 4)
    none = tails_of(run)
    assert none is None
    said = "no close has a position, a forecast, and all of the 4 bars after it, where a block begins."
    assert risk_section(run, none)["missing"] == said
    short = blocks(make_run(np.zeros(9), np.ones(9), np.tile(WIDE, (9, 1)), LEVELS_12), 9)
    assert tails_of(short) is None
    assert risk_section(replace(run, forecasts=()), None)["missing"] == "the model never spoke."
    several = replace(run, markets={"A": run.equity}, folder=tmp_path)
    assert risk_section(several, None)["missing"] == "the run has no correlations.parquet; repeat it."


def test_a_block_is_drawn_to_its_end() -> None:
    """Blocks of 4 hours at 0, 4 and 12; the last lasts 7, over a night."""
    ts = np.array([0, 4, 12], np.int64) * HOUR
    lasts = np.array([4, 4, 7], np.int64) * HOUR
    returns, at_risk = draw_risk(ts, np.array([0.01, -0.02, 0.03]), {0.05: np.full(3, 0.1)}, lasts, 4)["data"]
    assert [int(text[11:13]) for text in returns["x"]] == [0, 4, 8, 8, 12, 19, 19]
    assert returns["y"] == [0.01, -0.02, -0.02, None, 0.03, 0.03, None]
    assert at_risk["x"] == returns["x"]
