"""Value at risk of one account of several names: right law, right numbers; wrong correlations, found out."""

from __future__ import annotations

import math
from pathlib import Path

import msgspec
import numpy as np
import pyarrow.parquet as pq
import pytest
from panel_support import SEPARATE, THIRD, run_on, tell_each, walks, without
from scipy import stats
from test_report import HOUR, LEVELS, NORMAL, START
from test_risk_report import make_run

from lstm_strategy.covariance import Covariance
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.nautilus.correlations import upper_of
from lstm_strategy.portfolio import PortfolioConfig
from lstm_strategy.report.joint_risk import Correlations, Holding, tails_of_account
from lstm_strategy.report.page import write_report
from lstm_strategy.report.risk import Tails, christoffersen, tails_of
from lstm_strategy.report.run_types import DecisionLog, EquityCurve, RecordedForecasts

NAMES = ("A", "B", "C")
TRUE = np.array([[1.0, 0.7, 0.5], [0.7, 1.0, 0.2], [0.5, 0.2, 1.0]])


def account(
    returns_TS: np.ndarray, weight_TS: np.ndarray, quantiles_TSQ: np.ndarray, upper_TP: np.ndarray
) -> Tails | None:
    """An account that holds the weights from each close to the next, free of costs."""
    bars, names = returns_TS.shape
    stamps = START + HOUR * np.arange(1, bars + 1)
    equity = 1000 * np.cumprod(1 + np.concatenate([[0], (weight_TS * returns_TS).sum(axis=1)[:-1]]))
    curve = EquityCurve(stamps, equity, weight_TS.sum(axis=1), equity, equity)
    ones = np.ones(bars)
    holdings = {
        name: Holding(
            DecisionLog(stamps, weight_TS[:, row], 9 * ones, ones, ones, np.ones(bars, bool), {}, {}, {}),
            RecordedForecasts(1, tuple(LEVELS), stamps, quantiles_TSQ[:, row].astype(np.float32)),
        )
        for row, name in enumerate(NAMES[:names])
    }
    return tails_of_account(curve, HOUR, holdings, Correlations(NAMES[:names], stamps, upper_TP))


def drawn(bars: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Simple returns of three names whose volatility comes and goes, the true quantiles, and changing weights."""
    random = np.random.default_rng(seed)
    sigma_TS = np.where(np.arange(bars)[:, None] // 400 % 2, 0.004, 0.012) * np.array([1.0, 1.5, 0.7])
    z_TS = random.standard_normal((bars, 3)) @ np.linalg.cholesky(TRUE).T
    weight_TS = random.choice([-0.8, -0.3, 0.0, 0.4, 1.0], (bars, 3))
    return np.expm1(sigma_TS * z_TS), sigma_TS[:, :, None] * np.array(NORMAL), weight_TS


def test_the_true_law_is_breached_as_often_as_it_says() -> None:
    returns, quantiles, weight = drawn(20_000, 1)
    found = account(returns, weight, quantiles, np.tile(upper_of(TRUE), (20_000, 1)))
    assert found is not None
    flat = (weight[:-1] == 0.0).all(axis=1).sum()
    for tail in found.tails:
        assert tail.bars == 19_999 - flat
        assert tail.p > 0.02
        assert tail.p_apart > 0.02
        assert abs(tail.breaches - tail.expected) < 3 * math.sqrt(tail.expected)
    assert found.tails[0].foreseen == pytest.approx(found.tails[0].suffered, rel=0.12)


@pytest.mark.parametrize("wrong", [0.0, 0.95])
def test_wrong_correlations_are_found_out(wrong: float) -> None:
    """All long: unknown correlation is risk that is not seen; too much of it is risk that never comes."""
    returns, quantiles, _ = drawn(10_000, 2)
    found = account(returns, np.full((10_000, 3), 0.5), quantiles, np.full((10_000, 3), wrong))
    assert found is not None
    for tail in found.tails:
        assert tail.p < 1e-4
        assert (tail.breaches > tail.expected) == (wrong == 0.0)


def test_value_by_hand_for_a_pair_long_and_short() -> None:
    """Medians of 0; at 5 %: 0.5 · (1 − e^−.02) long of A, 0.25 · (e^.03 − 1) short of B, correlation 0.6."""
    levels = np.array(LEVELS)
    a, b = (np.interp(levels, [0.05, 0.5, 0.95], row) for row in ([-0.02, 0.0, 0.02], [-0.03, 0.0, 0.03]))
    quantiles = np.tile(np.stack([a, b]), (3, 1, 1))
    found = account(np.zeros((3, 2)), np.tile([0.5, -0.25], (3, 1)), quantiles, np.full((3, 1), 0.6))
    assert found is not None
    long, short = 0.5 * -math.expm1(-0.02), 0.25 * math.expm1(0.03)
    assert found.at_risk[0.05][0] == pytest.approx(math.sqrt(long**2 + short**2 - 2 * 0.6 * long * short), rel=1e-5)
    assert found.returns.tolist() == [0.0, 0.0]


def test_one_name_alone_is_what_it_is_by_itself() -> None:
    returns, quantiles, weight = drawn(3_000, 3)
    skewed = quantiles[:, 0] * np.where(np.array(NORMAL) < 0, 1.0, 0.6) - 1e-4
    alone = tails_of(make_run(returns[:, 0], weight[:, 0], skewed, tuple(LEVELS)))
    joint = account(returns[:, :1], weight[:, :1], skewed[:, None], np.zeros((3_000, 0)))
    assert alone is not None
    assert joint is not None
    assert joint.ts_close.tolist() == alone.ts_close.tolist()
    for level, value in alone.at_risk.items():
        assert joint.at_risk[level] == pytest.approx(value, rel=1e-9)
    for own, other in zip(joint.tails, alone.tails, strict=True):
        assert (own.breaches, own.p, own.p_apart) == (other.breaches, other.p, other.p_apart)
        assert own.foreseen == pytest.approx(other.foreseen)


def test_closes_without_a_forecast_of_what_is_held_do_not_count() -> None:
    returns, quantiles, weight = drawn(50, 4)
    weight[:] = 0.5
    whole = account(returns, weight, quantiles, np.tile(upper_of(TRUE), (50, 1)))
    assert whole is not None
    bars = 50
    stamps = START + HOUR * np.arange(1, bars + 1)
    ones = np.ones(bars)
    curve = EquityCurve(stamps, 1000 * ones, ones, ones, ones)
    spoken = np.arange(bars) % 5 > 0
    holdings = {}
    for row, name in enumerate(NAMES):
        rows = spoken if name == "B" else np.ones(bars, bool)
        held = np.where(np.arange(bars) < 10, 0.0, weight[:, row]) if name == "B" else weight[:, row]
        holdings[name] = Holding(
            DecisionLog(stamps, held, held, ones, ones, np.ones(bars, bool), {}, {}, {}),
            RecordedForecasts(1, tuple(LEVELS), stamps[rows], quantiles[rows, row].astype(np.float32)),
        )
    known = Correlations(NAMES, stamps[3:], np.tile(upper_of(TRUE), (bars - 3, 1)))
    found = tails_of_account(curve, HOUR, holdings, known)
    assert found is not None
    # From the fourth on; from the eleventh on, when B is held, those alone at which it spoke; the last has no next one.
    expected = [row for row in range(3, bars - 1) if row < 10 or row % 5]
    assert found.ts_close.tolist() == stamps[expected].tolist()


def test_christoffersen_finds_clusters_and_agrees_with_its_formula() -> None:
    rng = np.random.default_rng(0)
    apart = rng.random(5_000) < 0.05
    clustered = np.zeros(5_000, bool)
    clustered[rng.choice(1_000, 50, replace=False) * 5] = True
    clustered |= np.roll(clustered, 1)
    everywhere = np.ones(4_999, bool)
    assert christoffersen(apart, everywhere) > 0.02
    assert christoffersen(clustered, everywhere) < 1e-10
    table = np.array([[((~apart[:-1]) & ~apart[1:]).sum(), ((~apart[:-1]) & apart[1:]).sum()],
                      [(apart[:-1] & ~apart[1:]).sum(), (apart[:-1] & apart[1:]).sum()]])  # fmt: skip
    g = stats.chi2_contingency(table, correction=False, lambda_="log-likelihood")  # the same likelihood ratio
    assert christoffersen(apart, everywhere) == pytest.approx(g.pvalue, rel=1e-9)
    # Over a gap nothing follows.
    hits = np.array([False, True, True, False, False])
    ratio = 2 * (2 * math.log(1 / 2) - math.log(1 / 3) - 2 * math.log(2 / 3))
    assert christoffersen(hits, np.array([True, False, True, True])) == pytest.approx(stats.chi2.sf(ratio, 1))
    assert math.isnan(christoffersen(np.zeros(5, bool), np.ones(4, bool)))


# on the engine


@pytest.mark.parametrize("portfolio", [SEPARATE, PortfolioConfig(span=60, scale_span=12)], ids=["separate", "joint"])
def test_a_run_keeps_the_correlations_it_decided_with_and_its_report_judges_the_account(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, portfolio: PortfolioConfig
) -> None:
    """The names move by 1 % an hour, as is forecast; 0.6 of it together. B's bar 200 is missing."""
    tell_each(monkeypatch, lambda *_: 0.0 if portfolio is not SEPARATE else 1e-3)
    panel = walks(700, 0.6, seed=3)
    panel[1] = without(panel[1], 200)
    sizing = THIRD if portfolio is SEPARATE else msgspec.structs.replace(THIRD, mode="volatility_target")
    run_on(tmp_path, panel, portfolio, sizing=sizing, run_folder=tmp_path / "run")
    table = pq.read_table(tmp_path / "run" / "correlations.parquet")
    names = tuple(msgspec.json.decode(table.schema.metadata[b"names"]))
    assert names == tuple(bars.instrument_id for bars in panel)
    rows = np.array(table["correlation"].to_pylist())
    follows = Covariance(names, span=portfolio.span, scale_span=portfolio.scale_span, rows=1)
    closes = {bars.instrument_id: dict(zip(bars.ts_close.tolist(), bars.close.tolist(), strict=True)) for bars in panel}
    stamps = table["ts_close"].cast("int64").to_pylist()
    assert stamps == panel[0].ts_close.tolist()
    for ts, row in zip(stamps, rows, strict=True):
        follows.update(ts, np.array([closes[name].get(ts, math.nan) for name in names]))
        assert row == pytest.approx(upper_of(follows.correlation()), abs=1e-6)
    assert rows[-1] == pytest.approx(np.full(3, 0.6), abs=0.25)
    page = write_report(tmp_path / "run").read_text(encoding="utf-8")
    assert "each instrument's forecast and the correlations known at that close" in " ".join(page.split())
    cells = page.split('<table id="tails">')[1].split("</table>")[0].split("<tr>")[2].split('<td class="unit">')
    bars, due, breaches = (int(cell.partition("<")[0].replace(",", "")) for cell in cells[1:4])
    assert 600 < bars < 700
    assert abs(breaches - due) < 3 * math.sqrt(due)
    # Correlations that are not there: twice as many breaches.
    pq.write_table(
        table.set_column(1, "correlation", [[[-0.4] * 3] * len(rows)]).replace_schema_metadata(table.schema.metadata),
        tmp_path / "run" / "correlations.parquet",
    )
    page = write_report(tmp_path / "run").read_text(encoding="utf-8")
    cells = page.split('<table id="tails">')[1].split("</table>")[0].split("<tr>")[2].split('<td class="unit">')
    assert int(cells[3].partition("<")[0]) > 2 * breaches
    (tmp_path / "run" / "correlations.parquet").write_bytes(b"nothing")
    with pytest.raises(LSTMStrategyError, match=r"correlations\.parquet cannot be used"):
        write_report(tmp_path / "run")
    (tmp_path / "run" / "correlations.parquet").unlink()  # a run of an older version
    assert '<table id="tails">' not in write_report(tmp_path / "run").read_text(encoding="utf-8")
