"""Funding and interest: who held pays, at the price then known, to the cent, and nobody else does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from catalog_support import bring_in
from engine_support import FREE, HOUR, PERPETUAL, SIGN, SPOT, make_bars, run, tell

from lstm_strategy.bars import Bars
from lstm_strategy.decision import LimitsConfig
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.nautilus.backtest import BacktestRun
from lstm_strategy.sources.funding import keep_funding

LONG_SHORT = LimitsConfig(side="long_short", daily_loss=1.0, max_drawdown=1.0, max_step=2.0, drift_tolerance=10.0)


def rising_bars(n: int, instrument: object = PERPETUAL) -> Bars:
    closes = 1000.0 + 5.0 * np.arange(n)
    return make_bars(closes - 2.0, closes, instrument)  # type: ignore[arg-type]


def run_with_rates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ts: list[int], rates: list[float], **changes: object
) -> BacktestRun:
    """Long until bar 20 closes, short from then on; one order each time."""
    tell(monkeypatch, lambda stamp: 0.001 if stamp < 20 * HOUR.ns else -0.001)
    bars = rising_bars(60)
    store = bring_in(tmp_path / "catalog", bars, PERPETUAL)
    if ts:
        keep_funding(store, PERPETUAL.id, np.array(ts), np.array(rates))
    options = {"limits": LONG_SHORT, "account": "margin", "costs": FREE, **changes}
    return run(tmp_path, bars, PERPETUAL, SIGN, **options)


def held_at(finished: BacktestRun, ts: int) -> float:
    """Quantity held at a moment, from the fills before it."""
    fills = finished.tables["fills"]
    stamps = fills["ts_filled"].cast("int64").to_numpy()
    signed = [f["quantity"] * (1 if f["side"] == "buy" else -1) for f in fills.to_pylist()]
    return float(np.sum(np.array(signed)[stamps < ts]))


def test_longs_pay_and_shorts_earn_a_positive_rate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    due = [8 * HOUR.ns, 16 * HOUR.ns + 3_000_000, 24 * HOUR.ns, 32 * HOUR.ns]
    rates = [0.001, 0.0005, 0.002, -0.001]
    with_rates = run_with_rates(tmp_path / "with", monkeypatch, due, rates)
    without = run_with_rates(tmp_path / "without", monkeypatch, due, rates, funding=False)
    # What each was worth at the last price known when it was due: a close, or the middle of the next open.
    prices = [1035.0, 1078.0, 1115.0, 1155.0]
    amounts = [-held_at(with_rates, ts) * price * rate for ts, price, rate in zip(due, prices, rates, strict=True)]
    assert [np.sign(amount) for amount in amounts] == [-1, -1, 1, -1]
    carry = with_rates.summary["carry"]
    assert carry["funding_paid"] == pytest.approx(-amounts[0] - amounts[1] - amounts[3], abs=1e-6)
    assert carry["funding_received"] == pytest.approx(amounts[2], abs=1e-6)
    assert carry["fundings"] == 4
    assert without.summary["carry"] == {"funding_paid": 0.0, "funding_received": 0.0, "fundings": 0, "interest": 0.0}
    # It reaches the account: equity, less what price moves made of the fills, is what was paid.
    fills = with_rates.tables["fills"].to_pylist()
    cash = 100_000.0 + sum(amounts)
    for fill in fills:
        cash -= fill["price"] * fill["quantity"] * (1 if fill["side"] == "buy" else -1)
    end = cash + held_at(with_rates, 60 * HOUR.ns) * 1295.0
    assert with_rates.record.equities[-1] == pytest.approx(end, abs=1e-4)
    assert with_rates.record.equities[-1] != without.record.equities[-1]


def test_what_is_due_at_a_close_falls_on_what_was_held_up_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The order of that close turns long into short one nanosecond later: the long pays.
    finished = run_with_rates(tmp_path, monkeypatch, [20 * HOUR.ns], [0.001])
    assert held_at(finished, 20 * HOUR.ns) > 0 > held_at(finished, 20 * HOUR.ns + 10)
    assert finished.summary["carry"]["funding_paid"] > 0
    assert finished.summary["carry"]["funding_received"] == 0
    # Ten milliseconds later the short earns.
    later = run_with_rates(tmp_path / "later", monkeypatch, [20 * HOUR.ns + 10_000_000], [0.001])
    assert later.summary["carry"]["funding_paid"] == 0
    assert later.summary["carry"]["funding_received"] > 0


def test_rates_before_the_run_cost_nothing_and_the_notes_tell_the_span(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    early = run_with_rates(tmp_path / "a", monkeypatch, [HOUR.ns // 2], [0.5])
    assert early.summary["carry"]["fundings"] == 0
    assert early.summary["notes"][0].startswith("Funding is included from 1970-01-01T00:30:00Z to")
    whole = run_with_rates(tmp_path / "b", monkeypatch, [HOUR.ns, 59 * HOUR.ns], [0.0001, 0.0001])
    assert whole.summary["notes"] == []
    none = run_with_rates(tmp_path / "c", monkeypatch, [], [])
    assert none.summary["notes"][0].startswith("Funding is not included")


def test_a_short_on_margin_pays_interest_day_by_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tell(monkeypatch, lambda stamp: -0.001)
    bars = make_bars(np.full(60, 1000.0), np.full(60, 1000.0))
    finished = run(tmp_path, bars, SPOT, SIGN, limits=LONG_SHORT, account="margin", borrow=0.365)
    interest = finished.summary["carry"]["interest"]
    # Filled at the open after bar 1; the days end at 24 h and 48 h, what is owed since has not been charged.
    first = -held_at(finished, 2 * HOUR.ns)
    assert first == pytest.approx(100.0, abs=0.01)
    assert interest == pytest.approx(100_000 * 0.365 / 365 * 47 / 24, rel=2e-3)
    assert finished.record.equities[-1] == pytest.approx(100_000 - interest, abs=1e-4)
    tell(monkeypatch, lambda stamp: 0.001)
    long = run(tmp_path / "long", bars, SPOT, SIGN, limits=LONG_SHORT, account="margin", borrow=0.365)
    assert long.summary["carry"]["interest"] == 0.0
    with pytest.raises(LSTMStrategyError, match=r"backtest.borrow is -0.1"):
        run(tmp_path / "no", bars, SPOT, SIGN, limits=LONG_SHORT, account="margin", borrow=-0.1)
