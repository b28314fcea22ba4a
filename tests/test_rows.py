"""Rows of a run: what is read is what was kept, in little memory."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest

from lstm_strategy.decision import Decision, Reason
from lstm_strategy.forecast import Forecast
from lstm_strategy.nautilus.orders import Action
from lstm_strategy.nautilus.record import RunRecord
from lstm_strategy.nautilus.rows import DecisionRows, ForecastRows

HORIZONS, LEVELS = (1, 4), (0.1, 0.5, 0.9)


def decision(row: int) -> Decision:
    bound = ("max_exposure", "turnover_per_day")[: row % 3]
    return Decision(row * 60, row / 7, -row / 3, list(Reason)[row % 4], bound, cancel_opening=row % 5 == 0)


def forecast(row: int) -> Forecast | None:
    if row % 4 == 0:
        return None
    quantiles_HQ = np.sort(np.random.default_rng(row).normal(size=(2, 3)).astype(np.float32))
    return Forecast(row * 60, HORIZONS, LEVELS, quantiles_HQ, 0.01 * row, float("nan") if row % 2 else 0.25)


def same(a: Forecast | None, b: Forecast | None) -> bool:
    if a is None or b is None:
        return a is b
    told = [(f.ts_close, f.horizons, f.levels, f.scale, np.float64(f.position).tobytes()) for f in (a, b)]
    return told[0] == told[1] and a.quantiles_HQ.dtype == np.float32 and np.array_equal(a.quantiles_HQ, b.quantiles_HQ)


def test_what_is_read_is_what_was_kept() -> None:
    decisions, forecasts = DecisionRows(), ForecastRows()
    assert (len(decisions), decisions.last_ts, len(forecasts)) == (0, -1, 0)
    kept: list[int] = []
    for row in range(60):
        decisions.append(decision(row))
        forecasts.append(forecast(row))
        kept.append(row)
        if row % 7 == 6:  # looked at again
            decisions.pop()
            forecasts.pop()
            kept.pop()
        if row in (20, 41):
            decisions.drop_first(5)
            forecasts.drop_first(5)
            del kept[:5]
        assert decisions.last_ts == kept[-1] * 60
        assert list(decisions) == [decision(one) for one in kept]
        assert all(same(a, forecast(one)) for a, one in zip(forecasts, kept, strict=True))
    assert same(forecasts[-1], forecast(kept[-1]))
    assert decisions[-1] == decision(kept[-1])
    assert decisions[3:9] == [decision(one) for one in kept[3:9]]
    assert [f is None for f in forecasts[:9]] == [one % 4 == 0 for one in kept[:9]]
    assert decisions.ts_close.tolist() == [one * 60 for one in kept]
    assert decisions.targets.tolist() == [decision(one).target for one in kept]
    assert decisions.exposures.tolist() == [decision(one).exposure for one in kept]
    missing = np.full((2, 3), np.nan, np.float32)
    quantiles = [missing if (told := forecast(one)) is None else told.quantiles_HQ for one in kept]
    np.testing.assert_array_equal(forecasts.quantiles(2, 3), np.array(quantiles))
    assert np.isnan(forecasts.scales).tolist() == [one % 4 == 0 for one in kept]
    with pytest.raises(IndexError):
        decisions[len(kept)]
    with pytest.raises(IndexError):
        forecasts[len(kept)]


def test_a_run_without_forecasts_has_rows_without() -> None:
    forecasts = ForecastRows()
    for _ in range(3):
        forecasts.append(None)
    assert list(forecasts) == [None, None, None]
    assert forecasts.quantiles(2, 3).shape == (3, 2, 3)
    assert np.isnan(forecasts.quantiles(2, 3)).all()


def test_forecasts_of_another_kind_are_refused() -> None:
    forecasts = ForecastRows()
    forecasts.append(forecast(1))
    other = Forecast(120, (1,), LEVELS, np.zeros((1, 3), np.float32), 0.01)
    with pytest.raises(ValueError, match=r"horizons \(1, 4\) and \(1,\)"):
        forecasts.append(other)


def test_a_bar_takes_little_memory() -> None:
    """A node that runs for weeks keeps each bar; as objects one took 650 bytes of these levels."""
    record = RunRecord("BTCUSDT.BINANCE")
    rows, made = 4_000, []

    def add(row: int) -> None:
        told: Any = forecast(4 * row + 1)
        record.add(decision(row), told, Action.HELD, 0.1 * row, 100.0 + row, 1_000.0 + row)

    for row in range(50):
        add(row)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for row in range(50, rows):
            add(row)
        made.append(tracemalloc.get_traced_memory()[0] - before)
    finally:
        tracemalloc.stop()
    assert len(record) == rows
    assert made[0] / rows < 200
    record.most = rows // 2
    for row in range(rows, rows + 10):
        add(row)
    assert (len(record), record.total) == (rows // 2 + 9, rows + 10)
    assert record.decisions[-1] == decision(rows + 9)
    assert same(record.forecasts[0], forecast(4 * (rows + 1 - rows // 2) + 1))


def test_refusals_are_counted_and_the_last_ones_kept() -> None:
    record = RunRecord("BTCUSDT.BINANCE")
    for row in range(1_500):
        record.refuse(f"refusal {row}")
    assert record.refused == 1_500
    assert [record.refusals[0], len(record.refusals), record.refusals[-1]] == ["refusal 500", 1_000, "refusal 1499"]
