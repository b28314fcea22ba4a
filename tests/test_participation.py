"""No order takes more than its share of a bar; what is left of it ends there, and the next close decides anew."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from engine_support import HOUR, LOOSE, PERPETUAL, SIGN, SPOT, run, tell
from panel_support import AAA, BBB, run_on, tell_each

from lstm_strategy.bars import Bars
from lstm_strategy.decision import LimitsConfig, SizingConfig
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.execution import ExecutionConfig
from lstm_strategy.exits import ExitsConfig
from lstm_strategy.experiment import BacktestConfig
from lstm_strategy.instrument import Instrument
from lstm_strategy.nautilus.backtest import BacktestRun

SHARE = 0.25
COLUMNS = ("ts_close", "open", "high", "low", "close", "volume")


def thin_bars(n: int, instrument: Instrument, seed: int) -> Bars:
    """A random walk with volumes from none at all to more than anybody wants."""
    rng = np.random.default_rng(seed)
    closes = np.round(1000.0 * np.exp(np.cumsum(rng.normal(0, 0.01, n))), 1)
    opens = np.concatenate([[1000.0], closes[:-1]])
    volume = np.round(np.exp(rng.uniform(-9.0, 6.0, n)), 3) * (rng.random(n) > 0.1)
    stamps = (np.arange(n) + 1) * HOUR.ns
    return Bars(
        instrument.id, HOUR, stamps, opens, np.maximum(opens, closes), np.minimum(opens, closes), closes, volume
    )


def wicked_bars(n: int, instrument: Instrument, seed: int) -> Bars:
    """The same with wicks, so that what rests is met inside bars."""
    bars = thin_bars(n, instrument, seed)
    up, down = np.random.default_rng(seed + 100).exponential(0.01, (2, n))
    high, low = np.round(bars.high * (1.0 + up), 1), np.round(bars.low * (1.0 - down), 1)
    return Bars(instrument.id, HOUR, bars.ts_close, bars.open, high, low, bars.close, bars.volume)


def by_bar(finished: BacktestRun, bars: Bars) -> dict[int, float]:
    """Quantity filled in each bar, by row."""
    taken: dict[int, float] = defaultdict(float)
    for fill in finished.tables["fills"].to_pylist():
        taken[int(np.searchsorted(bars.ts_close, fill["ts_filled"].value))] += fill["quantity"]
    return taken


@pytest.mark.parametrize(("instrument", "account"), [(SPOT, "cash"), (PERPETUAL, "margin")])
@pytest.mark.parametrize("delay", [0, 2])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_no_bar_gives_more_than_its_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, instrument: Instrument, account: str, delay: int, seed: int
) -> None:
    bars = thin_bars(120, instrument, seed)
    tell(monkeypatch, lambda ts: 0.001 if ts // HOUR.ns % 20 < 13 else -0.001)
    limits = LOOSE if account == "cash" else msgspec.structs.replace(LOOSE, side="long_short")
    finished = run(tmp_path, bars, instrument, SIGN, account=account, limits=limits, participation=SHARE, delay=delay)
    taken = by_bar(finished, bars)
    assert len(taken) > 20
    for fill in finished.tables["fills"].to_pylist():  # none of it a tick worse
        assert fill["price"] == pytest.approx(bars.open[np.searchsorted(bars.ts_close, fill["ts_filled"].value)])
    for row, quantity in taken.items():
        assert quantity <= SHARE * bars.volume[row] + 1e-9
    statuses = finished.tables["orders"]["status"].to_pylist()
    assert {"canceled", "filled"} <= set(statuses)
    assert set(statuses[:-1]) <= {"canceled", "filled", "rejected"}
    # The desk's books are the account's: what filled is what is held, and nothing works on.
    held = sum(f["quantity"] * (1 if f["side"] == "buy" else -1) for f in finished.tables["fills"].to_pylist())
    last = finished.tables["decisions"].to_pylist()[-1]
    assert last["exposure"] * last["equity"] / last["price"] == pytest.approx(held, abs=1e-6)


def test_a_purchase_takes_several_bars_and_a_halt_sells_over_several(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closes = np.array([1000.0] * 8 + [900.0] * 8)
    opens = np.concatenate([[1000.0], closes[:-1]])
    volume = np.full(16, 160.0)
    stamps = (np.arange(16) + 1) * HOUR.ns
    bars = Bars(PERPETUAL.id, HOUR, stamps, opens, np.maximum(opens, closes), closes, closes, volume)
    tell(monkeypatch, lambda _: 0.001)
    limits = LimitsConfig(daily_loss=0.05, max_drawdown=1.0, max_step=2.0)
    finished = run(tmp_path, bars, PERPETUAL, SIGN, account="margin", limits=limits, participation=SHARE)
    rows = finished.tables["fills"].to_pylist()
    taken = [(f["side"], f["quantity"], int(np.searchsorted(stamps, f["ts_filled"].value)) + 1) for f in rows]
    assert taken == [
        *(("buy", 40.0, 2), ("buy", 40.0, 3), ("buy", 20.0, 4)),
        *(("sell", 40.0, 10), ("sell", 40.0, 11), ("sell", 20.0, 12)),
    ]
    reasons = finished.tables["decisions"]["reason"].to_pylist()
    assert reasons[8:] == ["halt_daily_loss"] * 8
    assert finished.tables["orders"]["status"].to_pylist() == ["canceled", "canceled", "filled"] * 2


def test_a_bar_without_volume_rejects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bars = thin_bars(6, PERPETUAL, 0)
    columns = (bars.ts_close, bars.open, bars.high, bars.low, bars.close, np.array([9e5, 0.0, 9e5, 9e5, 9e5, 9e5]))
    empty = Bars(bars.instrument_id, bars.timeframe, *columns)
    tell(monkeypatch, lambda _: 0.001)
    finished = run(tmp_path, empty, PERPETUAL, SIGN, account="margin", participation=SHARE)
    assert finished.tables["orders"]["status"].to_pylist()[:2] == ["rejected", "filled"]
    assert finished.summary["refusals"] == 1


def test_without_it_any_size_fills(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bars = thin_bars(60, PERPETUAL, 0)
    tell(monkeypatch, lambda _: 0.001)
    finished = run(tmp_path, bars, PERPETUAL, SIGN, account="margin")
    assert any(quantity > SHARE * bars.volume[row] for row, quantity in by_bar(finished, bars).items())


@pytest.mark.parametrize("share", [0.0, -0.1, 1.5])
def test_a_share_that_is_none_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: float) -> None:
    tell(monkeypatch, lambda _: 0.001)
    with pytest.raises(LSTMStrategyError, match=r"backtest\.participation is"):
        run(tmp_path, thin_bars(6, PERPETUAL, 0), PERPETUAL, SIGN, account="margin", participation=share)
    with pytest.raises(LSTMStrategyError, match=r"backtest\.participation is"):
        BacktestConfig(participation=share)


# orders that fill inside bars

WAYS: dict[str, dict[str, Any]] = {
    "stop": {"exits": ExitsConfig(stop=1.0, pause_bars=1)},
    "trailing": {"exits": ExitsConfig(stop=1.0, trailing=True), "execution": ExecutionConfig(mode="post_only")},
    "take_profit": {"exits": ExitsConfig(take_profit=0.5)},
    "both": {"exits": ExitsConfig(stop=0.7, take_profit=0.7, max_bars=6), "delay": 1},
    "post_only": {"execution": ExecutionConfig(mode="post_only", offset=0.002, deadline_bars=3)},
    "marketable": {"execution": ExecutionConfig(mode="marketable_limit", offset=0.001)},
    "rests": {"execution": ExecutionConfig(mode="marketable_limit", offset=0.0, rests=True)},
}


@pytest.mark.parametrize(("instrument", "account"), [(SPOT, "cash"), (PERPETUAL, "margin")], ids=["spot", "perpetual"])
@pytest.mark.parametrize("way", sorted(WAYS))
def test_no_bar_gives_more_than_its_share_to_what_rests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, instrument: Instrument, account: str, way: str
) -> None:
    bars = wicked_bars(250, instrument, 5)
    tell(monkeypatch, lambda ts: 0.001 if ts // HOUR.ns % 20 < 13 else -0.001)
    limits = LOOSE if account == "cash" else msgspec.structs.replace(LOOSE, side="long_short")
    finished = run(tmp_path, bars, instrument, SIGN, account=account, limits=limits, participation=SHARE, **WAYS[way])
    taken = by_bar(finished, bars)
    assert len(taken) > 12
    for row, quantity in taken.items():
        assert quantity <= SHARE * bars.volume[row] + 1e-9, row
    assert max(quantity / (SHARE * bars.volume[row]) for row, quantity in taken.items()) > 0.99  # it was in the way
    rows = finished.tables["fills"].to_pylist()
    for fill in rows:  # none at a better price than its bar has seen; what rested fills at its limit, jumped or not
        row = np.searchsorted(bars.ts_close, fill["ts_filled"].value)
        best = fill["price"] - bars.low[row] if fill["side"] == "buy" else bars.high[row] - fill["price"]
        assert best >= -0.11
    held = sum(f["quantity"] * (1 if f["side"] == "buy" else -1) for f in rows)
    last = finished.tables["decisions"].to_pylist()[-1]
    assert last["exposure"] * last["equity"] / last["price"] == pytest.approx(held, abs=1e-6)
    if "exits" in WAYS[way] and way != "both":
        assert any(fill["exit"] for fill in rows)


def market(rows: list[tuple[float, float, float, float, float]]) -> Bars:
    columns = np.array(rows, float).T
    return Bars(PERPETUAL.id, HOUR, (np.arange(len(rows)) + 1) * HOUR.ns, *columns)


def told(finished: BacktestRun) -> list[tuple[int, str, float, float]]:
    """Bar (from 1), side, quantity, price of each fill."""
    rows = finished.tables["fills"].to_pylist()
    return [
        (-(-row["ts_filled"].value // HOUR.ns), row["side"], round(row["quantity"], 3), row["price"]) for row in rows
    ]


FLAT = (1000.0, 1000.0, 1000.0, 1000.0)


def test_a_limit_order_rests_on_with_what_a_bar_did_not_give(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """100 coins at 999.0: 40, 40 and 20 in the bars that reach it."""
    dips = (1000.0, 1000.0, 990.0, 1000.0, 160.0)
    rows = [(*FLAT, 160.0), dips, (*FLAT, 160.0), dips, dips, (*FLAT, 160.0)]
    tell(monkeypatch, lambda _: 0.001)
    patient = ExecutionConfig(mode="post_only", offset=0.001, deadline_bars=10)
    finished = run(
        tmp_path, market(rows), PERPETUAL, SIGN, account="margin", participation=SHARE, execution=patient, limits=ONCE
    )
    assert told(finished) == [(2, "buy", 40.0, 999.0), (4, "buy", 40.0, 999.0), (5, "buy", 20.0, 999.0)]
    assert finished.tables["orders"]["status"].to_pylist() == ["filled"]


def test_a_stop_sells_what_the_bar_gives_and_the_rest_follows_at_the_next_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bought 100 at 1000; stopped at 950 in a bar that gives 30, closes beyond; 50 and 20 at the opens after it."""
    from test_exits_bars import FIVE_PERCENT

    rows = [(*FLAT, 1e6), (*FLAT, 1e6), (1000.0, 1000.0, 940.0, 945.0, 120.0), (944.0, 944.0, 944.0, 944.0, 200.0)]
    rows += [(943.0, 943.0, 943.0, 943.0, 200.0)] * 2
    tell(monkeypatch, lambda _: 0.001)
    stop = ExitsConfig(stop=FIVE_PERCENT, pause_bars=100)
    finished = run(
        tmp_path, market(rows), PERPETUAL, SIGN, account="margin", participation=SHARE, exits=stop, limits=ONCE
    )
    assert told(finished) == [
        (2, "buy", 100.0, 1000.0),
        (3, "sell", 30.0, 950.0),
        (4, "sell", 50.0, 944.0),
        (5, "sell", 20.0, 943.0),
    ]
    reasons = finished.tables["decisions"]["reason"].to_pylist()
    assert reasons[2:4] == ["stop_unfilled", "stop_unfilled"]
    assert "no_increase" not in reasons


def test_a_stop_that_is_met_when_nothing_is_left_is_looked_at_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bar without volume reaches the stop and comes back; the next one gives all there is at the stop."""
    from test_exits_bars import FIVE_PERCENT

    rows = [(*FLAT, 1e6), (*FLAT, 1e6), (1000.0, 1000.0, 940.0, 1000.0, 0.0), (1000.0, 1000.0, 940.0, 960.0, 1e6)]
    tell(monkeypatch, lambda _: 0.001)
    stop = ExitsConfig(stop=FIVE_PERCENT, pause_bars=100)
    finished = run(
        tmp_path, market(rows), PERPETUAL, SIGN, account="margin", participation=SHARE, exits=stop, limits=ONCE
    )
    assert told(finished) == [(2, "buy", 100.0, 1000.0), (4, "sell", 100.0, 950.0)]


def test_what_a_limit_order_took_of_a_bar_is_not_there_for_its_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """60 bought at 999.0 of a bar that gives 80: of the 60 that its fall stops at 949.1, 20 are sold in it."""
    from test_exits_bars import FIVE_PERCENT

    rows = [(*FLAT, 1e6), (1000.0, 1000.0, 930.0, 940.0, 320.0), (940.0, 940.0, 940.0, 940.0, 1e6)]
    tell(monkeypatch, lambda _: 0.001)
    finished = run(
        tmp_path,
        market(rows),
        PERPETUAL,
        SIGN,
        account="margin",
        participation=SHARE,
        exits=ExitsConfig(stop=FIVE_PERCENT, pause_bars=100),
        execution=ExecutionConfig(mode="post_only", offset=0.001, deadline_bars=10),
        limits=msgspec.structs.replace(ONCE, max_exposure=0.6),
    )
    assert told(finished) == [(2, "buy", 60.0, 999.0), (2, "sell", 20.0, 949.1), (3, "sell", 40.0, 940.0)]


ONCE = msgspec.structs.replace(LOOSE, orders_per_day=1)


@pytest.mark.parametrize("exits", [ExitsConfig(), ExitsConfig(stop=1.0)], ids=["market", "stops"])
def test_on_one_account_each_name_keeps_to_its_own_bars(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exits: ExitsConfig
) -> None:
    tell_each(monkeypatch, lambda name, ts: 0.001 if (ts // HOUR.ns + ord(name[0])) % 20 < 13 else -0.001)
    panel = [
        Bars(instrument.id, HOUR, *(getattr(wicked_bars(90, instrument, seed), column) for column in COLUMNS))
        for seed, instrument in enumerate((AAA, BBB))
    ]
    done = run_on(
        tmp_path,
        panel,
        sizing=SizingConfig(mode="fixed_fraction", fraction=0.5, no_trade_band=0.0),
        participation=SHARE,
        exits=exits,
    )
    assert any(fill["exit"] for fill in done.tables["fills"].to_pylist()) == exits.resting
    for bars in panel:
        taken: dict[int, float] = defaultdict(float)
        for fill in done.tables["fills"].to_pylist():
            if fill["instrument"] == bars.instrument_id:
                taken[int(np.searchsorted(bars.ts_close, fill["ts_filled"].value))] += fill["quantity"]
        assert len(taken) > 10
        assert all(quantity <= SHARE * bars.volume[row] + 1e-9 for row, quantity in taken.items())
    assert {"canceled", "filled"} <= {*done.tables["orders"]["status"].to_pylist()}
