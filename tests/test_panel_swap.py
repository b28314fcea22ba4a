"""Several instruments on real artefacts: models swapped under all of them, and parity that one of them has lost."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_support import LOOSE, random_bars
from nautilus_trader.backtest.engine import BacktestEngine
from panel_support import COINS, SEPARATE, play, strategy
from test_swap import Inline
from tiny_support import make_tiny

from lstm_strategy import artefact, registry
from lstm_strategy.bars import Bars
from lstm_strategy.decision import SizingConfig
from lstm_strategy.decision_again import voice_at
from lstm_strategy.decision_log_reader import read_logs
from lstm_strategy.forecaster import Forecaster
from lstm_strategy.nautilus import swap
from lstm_strategy.nautilus.catalog import bar_type
from lstm_strategy.nautilus.engine import EngineBar
from lstm_strategy.nautilus.instruments import to_engine
from lstm_strategy.nautilus.portfolio_strategy import LSTMPortfolioStrategy

WARM, SHADOW, END = 770, 6, 840
NAMES = sorted(COINS)
SIZING = SizingConfig(mode="volatility_target", horizon=1, target_volatility=0.1, tilt=0.0, no_trade_band=0.0)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    models = tmp_path_factory.mktemp("models")
    for version in ("1", "2"):
        make_tiny(models, instruments=NAMES, seed=10 + int(version), version=version)
    return models


@pytest.fixture
def models(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(made, tmp_path / "models")
    registry.promote(tmp_path / "models", "tiny", "1")
    monkeypatch.setattr(swap, "Task", Inline)
    return tmp_path / "models"


def bars_of(name: str) -> Bars:
    bars = random_bars(END, seed=NAMES.index(name) + 1)
    return Bars(name, bars.timeframe, bars.ts_close, bars.open, bars.high, bars.low, bars.close, bars.volume)


def engine_bar(bars: Bars, row: int, **changed: float) -> EngineBar:
    instrument, bar = to_engine(COINS[bars.instrument_id]), next(iter(bars[row : row + 1]))._replace(**changed)
    prices = (instrument.make_price(price) for price in (bar.open, bar.high, bar.low, bar.close))
    kind = bar_type(bars.instrument_id, bars.timeframe)
    return EngineBar(kind, *prices, instrument.make_qty(bar.volume), bar.ts_close, bar.ts_close)


class Fed(LSTMPortfolioStrategy):
    """Is told its histories at the first bar; does what it is told to before the first bar of a close."""

    deeds: dict[int, Callable[[Fed], None]]
    panel: dict[str, Bars]

    def request_bars(self, kind: Any, *, start: Any, callback: Any) -> None:
        self.asked = [*getattr(self, "asked", []), (kind.instrument_id.value, callback)]

    def on_bar(self, bar: Any) -> None:
        for name, answer in self.asked[:]:
            for row in range(WARM):
                self.on_historical_data(engine_bar(self.panel[name], row))
            self.asked.remove((name, answer))
            answer(None)
        deed = self.deeds.pop(bar.ts_event, None)
        if deed is not None:
            deed(self)
        super().on_bar(bar)


def fed(models: Path, tmp_path: Path, deeds: dict[int, Callable[[Fed], None]]) -> Fed:
    panel = {name: bars_of(name) for name in NAMES}
    settings = {
        "follow": True,
        "follow_poll_s": 3_600.0,
        "shadow_bars": SHADOW,
        "history_timeout_s": 1e9,
        "parity_every": 8,
        "refill_holes": False,
        "decision_log": str(tmp_path / "log"),
    }
    one = strategy(Fed, str(models / "tiny" / "1"), portfolio=SEPARATE, sizing=SIZING, limits=LOOSE, **settings)
    stamps = panel[NAMES[0]].ts_close
    one.deeds, one.panel = {int(stamps[row]): deed for row, deed in deeds.items()}, panel
    return one


def run(engines: list[BacktestEngine], one: Fed) -> None:
    play(engines, one, [one.panel[name][WARM:] for name in NAMES], {})
    assert one.failure is None
    for name in NAMES:
        record = one.seats[name].record
        assert record is not None
        assert record.ts_close.tolist() == one.panel[name].ts_close[WARM:].tolist()


def test_a_panels_models_are_swapped_between_two_closes_and_each_speaks_as_if_it_always_had(
    engines: list[BacktestEngine], models: Path, tmp_path: Path
) -> None:
    one = fed(models, tmp_path, {785: lambda _: registry.promote(models, "tiny", "2")})
    run(engines, one)
    for name, log in read_logs(tmp_path / "log").items():
        assert one.seats[name].feed.swap.swaps == 1
        spoke = np.array(log.texts("model"))
        first = int(np.flatnonzero(spoke == "tiny/2")[0])
        assert 785 - WARM + SHADOW < first <= 785 - WARM + SHADOW + 15
        assert spoke.tolist() == ["tiny/1"] * first + ["tiny/2"] * (END - WARM - first)
        assert (log.floats("conditions.parity") > 0).all()
        raw = log.matrix("raw")
        for version, rows in (("1", slice(0, first)), ("2", slice(first, None))):
            loaded = artefact.load(models / "tiny" / version)
            _, wanted, _ = Forecaster(loaded, name).trace(one.panel[name])
            np.testing.assert_array_equal(raw[rows], wanted[WARM:].reshape(len(raw), -1)[rows])
        stamps = one.panel[name].ts_close
        assert [voice.version for voice in log.header.voices] == ["tiny/1", "tiny/2"]
        assert voice_at(log.header, int(stamps[WARM + first - 1])).version == "tiny/1"
        assert voice_at(log.header, int(stamps[WARM + first])).version == "tiny/2"


def test_parity_that_one_name_has_lost_keeps_that_name_from_new_risk_and_no_other(
    engines: list[BacktestEngine], models: Path, tmp_path: Path
) -> None:
    lost, told = NAMES[1], 800

    def revise(one: Fed) -> None:
        bars = one.panel[lost]
        price = float(bars.close[told - 3])
        one.on_historical_data(engine_bar(bars, told - 3, close=price * 0.999, low=price * 0.99))

    one = fed(models, tmp_path, {told: revise})
    run(engines, one)
    for name, log in read_logs(tmp_path / "log").items():
        proved = log.floats("conditions.parity") > 0
        reasons = log.texts("reason")
        if name != lost:
            assert proved.all()
            assert "parity_unproved" not in reasons
            continue
        missed = np.flatnonzero(~proved)
        assert missed[0] == told - WARM
        assert proved[-1]  # it goes on from what is told now, and lifts its own halt
        for row in missed:
            assert abs(log.floats("target")[row]) <= abs(log.floats("exposure")[row]) + 1e-12
        assert "parity_unproved" in {reasons[row] for row in missed}
