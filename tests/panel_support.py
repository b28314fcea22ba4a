"""Markets on paper for several instruments on one account, and forecasters that say what they are told for each."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
from engine_support import FREE, HOUR, LEVELS, LOOSE, NORMAL, PERPETUAL, SIGN, SPOT, ToldForecaster, make_bars
from nautilus_trader.backtest.engine import BacktestEngine, BacktestEngineConfig
from nautilus_trader.common.config import LoggingConfig
from nautilus_trader.model.currencies import USDT
from nautilus_trader.model.enums import AccountType, OmsType
from nautilus_trader.model.identifiers import Venue

from lstm_strategy.bars import Bars
from lstm_strategy.decision import Costs, Shrinkage, SizingConfig, Trained
from lstm_strategy.features import FeaturesConfig
from lstm_strategy.instrument import Instrument
from lstm_strategy.nautilus import market, session
from lstm_strategy.nautilus.backtest_settings import BacktestSettings
from lstm_strategy.nautilus.catalog import bar_type, write_catalog
from lstm_strategy.nautilus.engine import EngineBar, InstrumentId, Money
from lstm_strategy.nautilus.instruments import to_engine
from lstm_strategy.nautilus.model import Model
from lstm_strategy.nautilus.panel_backtest import PanelRun, PanelSettings, run_panel
from lstm_strategy.nautilus.portfolio_config import LSTMPortfolioStrategyConfig, PanelMember
from lstm_strategy.nautilus.portfolio_strategy import LSTMPortfolioStrategy
from lstm_strategy.portfolio import PortfolioConfig


def coin(base: str) -> Instrument:
    """A spot market like the one of `SPOT`, of another coin."""
    return msgspec.structs.replace(SPOT, id=f"{base}USDT.BINANCE", base=base)


AAA, BBB, CCC = coin("AAA"), coin("BBB"), coin("CCC")
FUTURE = msgspec.structs.replace(PERPETUAL, tick="0.01")
SEPARATE = PortfolioConfig(method="separate")
COINS = {coin.id: coin for coin in (AAA, BBB, CCC)}
THIRD = SizingConfig(mode="fixed_fraction", fraction=0.3, no_trade_band=0.0)


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


def strategy[S: LSTMPortfolioStrategy](kind: type[S] = LSTMPortfolioStrategy, model: str = "told", **changes: Any) -> S:
    """Return a strategy of the three coins; by `tell_each` its forecasters are told."""
    members = tuple(
        PanelMember(
            instrument_id=InstrumentId.from_str(name), bar_type=bar_type(name, HOUR), model=model, costs=Costs(fee=0.0)
        )
        for name in COINS
    )
    options = {"portfolio": SEPARATE, "sizing": THIRD, "limits": LOOSE, "record": True}
    return kind(LSTMPortfolioStrategyConfig(members=members, **(options | changes)))


def play(
    engines: list[BacktestEngine], made: LSTMPortfolioStrategy, panel: list[Bars], late: dict[tuple[str, int], int]
) -> None:
    """Run over bars that reach the strategy as late as told, in nanoseconds by name and row."""
    engine = BacktestEngine(BacktestEngineConfig(logging=LoggingConfig(bypass_logging=True)))
    engines.append(engine)
    engine.add_venue(Venue("BINANCE"), OmsType.NETTING, AccountType.CASH, [Money(100_000, USDT)])
    for coin in COINS.values():
        engine.add_instrument(to_engine(coin))
    engine.add_strategy(made)
    for bars in panel:
        instrument = to_engine(COINS[bars.instrument_id])
        data = [
            EngineBar(
                bar_type(bars.instrument_id, HOUR),
                *(instrument.make_price(price) for price in (bar.open, bar.high, bar.low, bar.close)),
                instrument.make_qty(bar.volume),
                bar.ts_close,
                bar.ts_close + late.get((bars.instrument_id, row), 0),
            )
            for row, bar in enumerate(bars)
        ]
        engine.add_data(sorted(data, key=lambda bar: int(bar.ts_init)), sort=False)
    engine.sort_data()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the engine's own use of pandas
        engine.run()
