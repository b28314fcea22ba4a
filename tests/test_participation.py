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


def test_beside_orders_that_fill_inside_bars_it_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tell(monkeypatch, lambda _: 0.001)
    settings: dict[str, Any] = {"account": "margin", "participation": SHARE, "exits": ExitsConfig(stop=1.0)}
    with pytest.raises(LSTMStrategyError, match=r"backtest\.participation is 0\.25, but exits that rest"):
        run(tmp_path, thin_bars(6, PERPETUAL, 0), PERPETUAL, SIGN, **settings)


def test_on_one_account_each_name_keeps_to_its_own_bars(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tell_each(monkeypatch, lambda name, ts: 0.001 if (ts // HOUR.ns + ord(name[0])) % 20 < 13 else -0.001)
    panel = [
        Bars(instrument.id, HOUR, *(getattr(thin_bars(90, instrument, seed), column) for column in COLUMNS))
        for seed, instrument in enumerate((AAA, BBB))
    ]
    done = run_on(
        tmp_path,
        panel,
        sizing=SizingConfig(mode="fixed_fraction", fraction=0.5, no_trade_band=0.0),
        participation=SHARE,
    )
    for bars in panel:
        taken: dict[int, float] = defaultdict(float)
        for fill in done.tables["fills"].to_pylist():
            if fill["instrument"] == bars.instrument_id:
                taken[int(np.searchsorted(bars.ts_close, fill["ts_filled"].value))] += fill["quantity"]
        assert len(taken) > 10
        assert all(quantity <= SHARE * bars.volume[row] + 1e-9 for row, quantity in taken.items())
    assert {"canceled", "filled"} <= {*done.tables["orders"]["status"].to_pylist()}
