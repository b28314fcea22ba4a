"""A market on paper for the engine's tests: bars with known opens, and forecasters that say what they are told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from lstm_strategy.bars import Bar, Bars, Timeframe
from lstm_strategy.decision import Costs, LimitsConfig, Shrinkage, SizingConfig, Trained
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.features import FeaturesConfig
from lstm_strategy.forecast import Forecast
from lstm_strategy.instrument import Instrument
from lstm_strategy.nautilus import market, session
from lstm_strategy.nautilus.backtest import BacktestRun, BacktestSettings, run_backtest
from lstm_strategy.nautilus.catalog import write_catalog
from lstm_strategy.nautilus.model import Model

HOUR = Timeframe.parse("1h")
LEVELS = (0.01, 0.1, 0.5, 0.9, 0.99)
NORMAL = np.array([-2.326, -1.2816, 0.0, 1.2816, 2.326])
SCALE = 0.01
SPOT = Instrument(
    id="BTCUSDT.BINANCE",
    kind="spot",
    base="BTC",
    quote="USDT",
    tick="0.01",
    lot="0.00001",
    min_quantity="0.00001",
    min_notional=10.0,
    taker_fee=0.001,
)
PERPETUAL = Instrument(
    id="BTCUSDT_PERP.BINANCE", kind="perpetual", base="BTC", quote="USDT", tick="0.1", lot="0.001", min_notional=5.0
)
FREE = Costs(fee=0.0)
# Full exposure in the direction of the mean, whatever its size; no halts in the way.
SIGN = SizingConfig(mode="mean_variance", kelly_fraction=1e6, no_trade_band=0.0)
LOOSE = LimitsConfig(daily_loss=1.0, max_drawdown=1.0, max_step=2.0, drift_tolerance=10.0)


def make_bars(
    opens: np.ndarray,
    closes: np.ndarray,
    instrument: Instrument = SPOT,
    first_close: int = 1,
    keep: np.ndarray | None = None,
) -> Bars:
    """Hourly bars closing at 1 h, 2 h, …; wicks of nothing, a volume nobody exhausts."""
    rows = np.ones(len(opens), bool) if keep is None else keep
    stamps = (np.arange(len(opens)) + first_close) * HOUR.ns
    high, low = np.maximum(opens, closes), np.minimum(opens, closes)
    columns = (stamps, opens, high, low, closes, np.full(len(opens), 1e6))
    return Bars(instrument.id, HOUR, *(column[rows] for column in columns))


def random_bars(n: int, instrument: Instrument = SPOT, seed: int = 0, volatility: float = 0.01) -> Bars:
    """A random walk at tick precision, each open at the close before."""
    decimals = len(instrument.tick.partition(".")[2])
    closes = np.round(1000.0 * np.exp(np.cumsum(np.random.default_rng(seed).normal(0, volatility, n))), decimals)
    return make_bars(np.concatenate([[1000.0], closes[:-1]]), closes, instrument)


class ToldForecaster:
    """Forecasts the means it was given by stamp, once it has seen its warm-up; otherwise like the real one."""

    def __init__(self, mean: Callable[[int], float], warmup_bars: int = 0) -> None:
        self.warmup_bars, self.last_ts, self.seen = warmup_bars, None, []
        self._mean = mean

    @property
    def ready(self) -> bool:
        return len(self.seen) >= self.warmup_bars

    def update(self, bar: Bar) -> Forecast | None:
        if self.last_ts is not None and bar.ts_close <= self.last_ts:
            raise LSTMStrategyError("not later")
        self.last_ts = bar.ts_close
        self.seen.append(bar.ts_close)
        if not self.ready:
            return None
        quantiles = (self._mean(bar.ts_close) + NORMAL * SCALE).astype(np.float32)[None]
        return Forecast(bar.ts_close, (1,), LEVELS, quantiles, SCALE)

    def warm_up(self, bars: Bars) -> None:
        for bar in bars:
            self.update(bar)

    def state(self) -> bytes:
        return str(self.last_ts).encode()

    def restore(self, state: bytes) -> None:
        if not state.isdigit():
            raise LSTMStrategyError("state is damaged")
        self.last_ts = int(state)


def tell(monkeypatch: pytest.MonkeyPatch, mean: Callable[[int], float], warmup_bars: int = 0) -> list[ToldForecaster]:
    """Put a `ToldForecaster` in the place of artefacts; returns the list in which each one made appears."""
    made: list[ToldForecaster] = []

    def open_model(*_: object) -> Model:
        made.append(ToldForecaster(mean, warmup_bars))
        return Model(made[-1], "told/1", Trained({1: Shrinkage(1.0, 0.0, 0.0)}), 8760.0, 0)

    manifest = SimpleNamespace(
        name="told", version="1", horizons=(1,), levels=LEVELS, baseline=[list(NORMAL)], features=FeaturesConfig()
    )
    monkeypatch.setattr(session, "open_model", open_model)
    monkeypatch.setattr(market.artefact, "load", lambda _: SimpleNamespace(manifest=manifest, trained_until=0))
    return made


def run(
    tmp_path: Path, bars: Bars, instrument: Instrument = SPOT, sizing: SizingConfig = SIGN, **changes: object
) -> BacktestRun:
    """Write the catalog and run on it; free of costs unless told otherwise."""
    write_catalog(tmp_path / "catalog", bars, instrument)
    options = {"limits": LOOSE, "costs": FREE, "tearsheet": False, "model": tmp_path / "model", **changes}
    return run_backtest(
        BacktestSettings(
            catalog=tmp_path / "catalog",
            instrument_id=instrument.id,
            timeframe="1h",
            sizing=sizing,
            **options,
        )
    )
