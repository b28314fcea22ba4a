"""A margin account that falls short inside a bar loses its position there, at that price and with the venue's fee."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from engine_support import FREE, HOUR, PERPETUAL, SIGN, run, tell

from lstm_strategy.bars import Bars, format_ns, parse_ns
from lstm_strategy.decision import LimitsConfig
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.exits import ExitsConfig
from lstm_strategy.nautilus.backtest import BacktestRun
from lstm_strategy.nautilus.backtest_settings import BacktestSettings
from lstm_strategy.nautilus.liquidation import liquidation_price
from lstm_strategy.sources.files import read_file
from lstm_strategy.sources.instruments import on_grid

BOLD = LimitsConfig(
    side="long_short", max_exposure=2.0, max_step=4.0, daily_loss=1.0, max_drawdown=1.0, drift_tolerance=10.0
)
FLAT = (1000.0, 1000.0, 1000.0, 1000.0)


def market(rows: list[tuple[float, float, float, float]]) -> Bars:
    columns = np.array(rows, float).T
    return Bars(PERPETUAL.id, HOUR, (np.arange(len(rows)) + 1) * HOUR.ns, *columns, np.full(len(rows), 1e6))


def played(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: list[Any], mean: Callable[[int], float], **changes: Any
) -> BacktestRun:
    """Twice the equity in the direction of the mean, at 5 % maintenance and a fee of 1 % on what is liquidated."""
    tell(monkeypatch, mean)
    options = {"account": "margin", "limits": BOLD, "maintenance": 0.05, "liquidation_fee": 0.01, **changes}
    return run(tmp_path, market(rows), PERPETUAL, SIGN, **options)


def fills(finished: BacktestRun) -> list[tuple[int, str, float, float]]:
    """Bar (from 1), side, price, quantity."""
    rows = finished.tables["fills"].to_pylist()
    return [
        (-(-row["ts_filled"].value // HOUR.ns), row["side"], row["price"], round(row["quantity"], 3)) for row in rows
    ]


@pytest.mark.parametrize("position", [0.7, -1.3])
@pytest.mark.parametrize("margin", [500.0, -20.0, 3000.0])
@pytest.mark.parametrize("maintenance", [0.004, 0.05, 0.5])
def test_the_price_is_where_equity_is_the_margin_asked_for(position: float, margin: float, maintenance: float) -> None:
    price = liquidation_price(position, 1000.0, margin, ((maintenance, 0.0),))
    assert margin + position * (price - 1000.0) == pytest.approx(maintenance * abs(position) * price)
    worse = price - math.copysign(1.0, position)
    assert margin + position * (worse - 1000.0) < maintenance * abs(position) * worse


def test_a_long_is_closed_at_the_low_that_breaks_it_and_the_account_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 200 coins bought at 1000 with 100,000: short of margin below (200,000 - 100,000) / (200 · .95) = 526.3
    rows = [FLAT, FLAT, (1000.0, 1000.0, 500.0, 1000.0), FLAT, FLAT]
    finished = played(tmp_path, monkeypatch, rows, lambda _: 1e-3)
    assert fills(finished)[:2] == [(2, "buy", 1000.0, 200.0), (3, "sell", 526.3, 200.0)]
    left = 100_000.0 - 200.0 * (1000.0 - 526.3) - 0.01 * 200.0 * 526.3
    (lost,) = finished.summary["liquidations"]
    assert lost == {
        "ts_close": format_ns(3 * HOUR.ns),
        "instrument": PERPETUAL.id,
        "quantity": 200.0,
        "price": 526.3,
        "fee": pytest.approx(1052.6),
        "equity": pytest.approx(left),
    }
    assert finished.summary["liquidated"] == format_ns(3 * HOUR.ns)
    assert finished.summary["notes"][0].startswith("Liquidated once: first in the bar that closed at 1970-01-01T03:00")
    assert finished.record.equities[2] == pytest.approx(left)
    decisions = finished.tables["decisions"].to_pylist()
    assert [d["reason"] for d in decisions][:4] == ["rebalance", "at_target", "liquidated", "rebalance"]
    assert decisions[2]["exposure"] == decisions[2]["target"] == 0.0
    # What is left is traded on, from the next close.
    assert fills(finished)[2] == (5, "buy", 1000.0, round(math.floor(2 * left) / 1000.0, 3))
    assert finished.tables["orders"]["status"].to_pylist() == ["filled"] * 3


def test_a_low_just_above_it_closes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [FLAT, FLAT, (1000.0, 1000.0, 526.4, 1000.0), FLAT]
    finished = played(tmp_path, monkeypatch, rows, lambda _: 1e-3)
    assert finished.summary["liquidations"] == []
    assert finished.summary["liquidated"] is None
    assert len(fills(finished)) == 1


def test_a_short_is_closed_at_the_high(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # 100,000 + 200 · (1000 - p) = .05 · 200 · p at p = 1428.57
    rows = [FLAT, FLAT, (1000.0, 1500.0, 1000.0, 1000.0), FLAT]
    finished = played(tmp_path, monkeypatch, rows, lambda _: -1e-3)
    assert fills(finished)[:2] == [(2, "sell", 1000.0, 200.0), (3, "buy", 1428.6, 200.0)]
    assert finished.summary["liquidations"][0]["quantity"] == -200.0


def test_an_open_beyond_it_closes_at_the_open_and_may_leave_a_debt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gap = (400.0, 1000.0, 400.0, 1000.0)
    rows = [FLAT, FLAT, gap, FLAT, FLAT]
    finished = played(tmp_path, monkeypatch, rows, lambda _: 1e-3)
    assert fills(finished) == [(2, "buy", 1000.0, 200.0), (3, "sell", 400.0, 200.0)]
    assert finished.summary["liquidations"][0]["equity"] == pytest.approx(-20_000.0 - 800.0)
    decisions = finished.tables["decisions"].to_pylist()
    assert [d["reason"] for d in decisions[2:]] == ["halt_no_equity"] * 3
    assert decisions[2]["bound"] == ["halt_no_equity", "liquidated"]
    assert finished.summary["ruined"]


def test_the_fee_of_the_run_is_charged_on_everything_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [FLAT, FLAT, (1000.0, 1000.0, 500.0, 1000.0), FLAT]
    costs = FREE.__class__(fee=0.001)
    finished = played(tmp_path, monkeypatch, rows, lambda _: 1e-3, costs=costs)
    own, *_, venue = [fill for fill in finished.tables["fills"].to_pylist() if fill["ts_filled"].value <= 3 * HOUR.ns]
    assert own["fee"] == pytest.approx(0.001 * own["price"] * own["quantity"])
    assert venue["fee"] == pytest.approx(0.01 * venue["price"] * venue["quantity"])
    assert venue["order_id"].startswith("LIQUIDATION-")


def test_without_maintenance_nothing_is_liquidated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [FLAT, FLAT, (1000.0, 1000.0, 400.0, 1000.0), FLAT]
    finished = played(tmp_path, monkeypatch, rows, lambda _: 1e-3, maintenance=0.0)
    assert finished.summary["liquidations"] == []


@pytest.mark.parametrize(("stop_at", "closed_at", "exits"), [(800.0, 800.0, 1), (520.0, 526.3, 0)])
def test_a_stop_on_the_way_is_met_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_at: float, closed_at: float, exits: int
) -> None:
    from test_exits_bars import DEVIATION

    stop = ExitsConfig(stop=-math.log(stop_at / 1000.0) / DEVIATION, pause_bars=100)
    rows = [FLAT, FLAT, (1000.0, 1010.0, 500.0, 1000.0), FLAT]
    finished = played(tmp_path, monkeypatch, rows, lambda _: 1e-3, exits=stop)
    assert fills(finished)[1] == (3, "sell", closed_at, 200.0)
    assert finished.summary["execution"]["exits"] == exits
    assert len(finished.summary["liquidations"]) == 1 - exits
    early = [order for order in finished.tables["orders"].to_pylist() if order["ts_sent"].value <= 3 * HOUR.ns]
    assert {order["status"] for order in early} <= {"filled", "canceled"}
    # A stop that the venue and the strategy call back at once is gone when the second of them arrives.
    assert len(finished.record.refusals) == 1 - exits
    assert all(refusal.startswith("OrderCancelRejected") for refusal in finished.record.refusals)


def test_margins_that_no_venue_asks_for_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LSTMStrategyError, match=r"would liquidate at 1\.25 times equity"):
        played(tmp_path, monkeypatch, [FLAT] * 3, lambda _: 1e-3, maintenance=0.8)
    with pytest.raises(LSTMStrategyError, match=r"backtest\.liquidation_fee is 1\.5"):
        played(tmp_path, monkeypatch, [FLAT] * 3, lambda _: 1e-3, liquidation_fee=1.5)


def test_of_two_names_the_one_whose_bar_breaks_the_account_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both at once and a half of equity, on one account: what the other has gained stands in for the one that falls."""
    from panel_support import AAA, BBB, FUTURE, run_on, tell_each

    tell_each(monkeypatch, lambda *_: 1e-3)
    rows = {
        AAA.id: [FLAT, FLAT, (1000.0, 1000.0, 300.0, 1000.0), FLAT, FLAT],
        BBB.id: [FLAT, FLAT, FLAT, FLAT, FLAT],
    }
    panel = []
    for name, bars in rows.items():
        columns = np.array(bars, float).T
        panel.append(Bars(name, HOUR, (np.arange(len(bars)) + 1) * HOUR.ns, *columns, np.full(len(bars), 1e6)))
    bold = LimitsConfig(max_exposure=1.5, max_step=4.0, daily_loss=1.0, max_drawdown=1.0, drift_tolerance=10.0)
    done = run_on(tmp_path, panel, kind=FUTURE, account="margin", limits=bold, maintenance=0.05, liquidation_fee=0.01)
    (lost,) = done.summary["liquidations"]
    # 150 of each at 1000: short where 100,000 + 150 · (p - 1000) - .05 · 150,000 = .05 · 150 · p
    price = math.floor(100 * (150_000.0 - 100_000.0 + 7_500.0) / (150.0 * 0.95)) / 100
    assert (lost["instrument"], lost["price"], lost["quantity"]) == (AAA.id, pytest.approx(price), 150.0)
    assert lost["equity"] == pytest.approx(100_000.0 - 150.0 * (1000.0 - price) - 0.01 * 150.0 * price)
    assert done.summary["liquidated"] == format_ns(3 * HOUR.ns)
    reasons = {
        name: [r["reason"] for r in done.tables["decisions"].to_pylist() if r["instrument"] == name] for name in rows
    }
    assert reasons[AAA.id][2] == "liquidated"
    assert "liquidated" not in reasons[BBB.id]


def test_no_order_needs_more_margin_than_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five times the equity is asked for, at an initial margin of a fifth: what costs take is missing from it."""
    limits = LimitsConfig(
        side="long_short",
        max_exposure=5.0,
        max_step=10.0,
        daily_loss=1.0,
        max_drawdown=1.0,
        drift_tolerance=10.0,
        initial_margin=0.2,
    )
    costs = FREE.__class__(fee=0.001)
    finished = played(tmp_path, monkeypatch, [FLAT] * 4, lambda _: 1e-3, limits=limits, costs=costs)
    (_, _, price, quantity), *more = fills(finished)
    spent = 0.001 * price * quantity
    assert 0.2 * price * quantity <= 100_000.0 - spent
    assert price * quantity > 0.98 * 500_000.0 / (1.0 + 5 * 0.003)
    assert more == []
    short = played(tmp_path / "s", monkeypatch, [FLAT] * 4, lambda _: -1e-3, limits=limits, costs=costs)
    assert fills(short)[0] == (2, "sell", price, quantity)


@pytest.mark.parametrize(("name", "value"), [("max_exposure", 6.0), ("max_gross", 6.0), ("max_net", 5.5)])
def test_caps_that_no_margin_allows_are_refused(name: str, value: float) -> None:
    with pytest.raises(LSTMStrategyError, match=rf"limits\.{name} is {value}; with limits\.initial_margin 0\.2"):
        LimitsConfig(initial_margin=0.2, **{"max_exposure": 1.0, name: value})
    with pytest.raises(LSTMStrategyError, match=r"limits\.initial_margin is 0\.01, below backtest\.maintenance"):
        BacktestSettings(
            catalog=Path(),
            instrument_id="A.B",
            timeframe="1h",
            model=Path(),
            account="margin",
            limits=LimitsConfig(initial_margin=0.01),
        )
    assert LimitsConfig(initial_margin=0.2).within_margin.max_gross == 5.0
    assert LimitsConfig(initial_margin=0.2, max_gross=2.0).within_margin.max_gross == 2.0


def test_six_times_long_does_not_survive_may_2021(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data_folder: Path
) -> None:
    """Bitcoin's perpetual fell by 18 % within one hour of 19 May 2021; brought back to 6 times equity at each close."""
    whole = read_file(data_folder / "perp" / "BTCUSDT_PERP-1h.parquet", PERPETUAL.id, HOUR, "open")
    bars = on_grid(whole.between(parse_ns("2021-05-18T20:00"), parse_ns("2021-05-20T00:00")))[0]
    instrument = msgspec.structs.replace(PERPETUAL, tick="0.01")
    limits = msgspec.structs.replace(BOLD, max_exposure=6.0)
    tell(monkeypatch, lambda _: 1e-3)
    finished = run(tmp_path, bars, instrument, SIGN, account="margin", limits=limits, liquidation_fee=0.0125)
    lost = finished.summary["liquidations"][0]
    row = int(np.searchsorted(bars.ts_close, parse_ns(lost["ts_close"])))
    assert lost["ts_close"].startswith("2021-05-19")
    assert bars.low[row] <= lost["price"] <= bars.open[row]
    before, quantity = finished.record.equities[row - 1], lost["quantity"]
    assert lost["price"] == pytest.approx((quantity * bars.open[row] - before) / (quantity * 0.95), rel=1e-3)
    assert lost["fee"] == pytest.approx(0.0125 * quantity * lost["price"])
    assert 0.0 < lost["equity"] < before
    assert finished.tables["decisions"]["reason"].to_pylist()[row] == "liquidated"
