"""Several instruments in one strategy on the engine: one decision a close, shared cash and limits, absent names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from engine_support import HOUR, LOOSE
from panel_support import AAA, BBB, CCC, run_on, tell_each, walks, without

from lstm_strategy.bars import Bars
from lstm_strategy.decision import Costs, LimitsConfig, SizingConfig
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.nautilus.panel_backtest import PanelRun
from lstm_strategy.portfolio import PortfolioConfig

HALF = SizingConfig(mode="fixed_fraction", fraction=0.5, no_trade_band=0.0)


def up_and_down(name: str, ts: int) -> float:
    return 0.001 if (ts // HOUR.ns + 3 * ord(name[0])) % 7 < 4 else -0.001


def rows_of(done: PanelRun, name: str) -> list[dict[str, object]]:
    return [row for row in done.tables["decisions"].to_pylist() if row["instrument"] == name]


def test_every_name_fills_at_its_own_next_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tell_each(monkeypatch, up_and_down)
    panel = walks(60)
    panel[1] = without(panel[1], 20, 21, 33)
    done = run_on(tmp_path, panel, limits=LOOSE, sizing=HALF)
    opened = {
        (bars.instrument_id, ts - HOUR.ns): price
        for bars in panel
        for ts, price in zip(bars.ts_close.tolist(), bars.open.tolist(), strict=True)
    }
    orders = done.tables["orders"]
    sent = dict(zip(orders["order_id"].to_pylist(), orders["ts_sent"].cast("int64").to_pylist(), strict=True))
    fills = done.tables["fills"].to_pylist()
    assert len(fills) > 40
    refusals = [text for record in done.records.values() for text in record.refusals]
    print(refusals[:3], len(refusals))
    for fill in fills:
        decided = sent[fill["order_id"]] // HOUR.ns * HOUR.ns
        assert fill["price"] == opened[(fill["instrument"], decided)], fill
