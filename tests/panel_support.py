"""Markets on paper for several instruments on one account, and forecasters that say what they are told for each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
from engine_support import FREE, LEVELS, LOOSE, NORMAL, PERPETUAL, SIGN, SPOT, ToldForecaster, make_bars

from lstm_strategy.bars import Bars
from lstm_strategy.decision import Shrinkage, Trained
from lstm_strategy.features import FeaturesConfig
from lstm_strategy.instrument import Instrument
from lstm_strategy.nautilus import market, session
from lstm_strategy.nautilus.backtest_settings import BacktestSettings
from lstm_strategy.nautilus.catalog import write_catalog
from lstm_strategy.nautilus.model import Model
from lstm_strategy.nautilus.panel_backtest import PanelRun, PanelSettings, run_panel
from lstm_strategy.portfolio import PortfolioConfig


def coin(base: str) -> Instrument:
    """A spot market like the one of `SPOT`, of another coin."""
    return msgspec.structs.replace(SPOT, id=f"{base}USDT.BINANCE", base=base)


AAA, BBB, CCC = coin("AAA"), coin("BBB"), coin("CCC")
FUTURE = msgspec.structs.replace(PERPETUAL, tick="0.01")
SEPARATE = PortfolioConfig(method="separate")


def walks(n: int, correlation: float = 0.6, seed: int = 0, jump: float = 0.001) -> list[Bars]:
    """Random walks that move together, each open somewhat away from the close before."""
    rng = np.random.default_rng(seed)
    common = rng.normal(0.0, 0.01, n)
    found = []
    for row, instrument in enumerate((AAA, BBB, CCC)):
        own = rng.normal(0.0, 0.01, n)
        moves = np.sqrt(correlation) * common + np.sqrt(1.0 - correlation) * own
        closes = np.round(100.0 * (row + 1) * np.exp(np.cumsum(moves)), 2)
        opens = np.round(np.concatenate([[100.0 * (row + 1)], closes[:-1]]) * (1.0 + rng.normal(0.0, jump, n)), 2)
        found.append(make_bars(opens, closes, instrument))
    return found


def without(bars: Bars, *rows: int) -> Bars:
    """The same bars, less some of them."""
    keep = np.ones(len(bars), bool)
    keep[list(rows)] = False
    columns = (bars.ts_close, bars.open, bars.high, bars.low, bars.close, bars.volume)
    return Bars(bars.instrument_id, bars.timeframe, *(column[keep] for column in columns))


def tell_each(monkeypatch: pytest.MonkeyPatch, mean: Callable[[str, int], float], warmup_bars: int = 0) -> None:
    """Put a `ToldForecaster` in the place of every artefact; ``mean`` is asked by instrument and stamp."""

    def open_model(_: Path, instrument_id: str, *__: object) -> Model:
        told = ToldForecaster(lambda ts: mean(instrument_id, ts), warmup_bars)
        return Model(told, "told/1", Trained({1: Shrinkage(1.0, 0.0, 0.0)}), 8760.0, 0)

    manifest = SimpleNamespace(
        name="told", version="1", horizons=(1,), levels=LEVELS, baseline=[list(NORMAL)], features=FeaturesConfig()
    )
    monkeypatch.setattr(session, "open_model", open_model)
    monkeypatch.setattr(market.artefact, "load", lambda _: SimpleNamespace(manifest=manifest, trained_until=0))


def run_on(
    tmp_path: Path, panel: list[Bars], portfolio: PortfolioConfig = SEPARATE, kind: Instrument = SPOT, **changes: object
) -> PanelRun:
    """Write the catalog and run on it; free of costs unless told otherwise."""
    folder = changes.pop("run_folder", None)
    members = []
    for bars in panel:
        base = bars.instrument_id.partition("USDT")[0]
        write_catalog(tmp_path / "catalog", bars, msgspec.structs.replace(kind, id=bars.instrument_id, base=base))
        options = {"limits": LOOSE, "costs": FREE, "sizing": SIGN, **changes}
        members.append(
            BacktestSettings(
                catalog=tmp_path / "catalog",
                instrument_id=bars.instrument_id,
                timeframe="1h",
                model=tmp_path / "model",
                **options,
            )
        )
    return run_panel(PanelSettings(members=tuple(members), portfolio=portfolio, run_folder=folder, tearsheet=False))
