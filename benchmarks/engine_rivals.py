"""What a backtest is timed beside: strategies without this package's streaming, and another backtester."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import torch
from nautilus_trader.model.enums import OrderSide
from nautilus_trader.trading.config import ImportableStrategyConfig, StrategyConfig
from nautilus_trader.trading.strategy import Strategy

from benchmarks.windows import WINDOW, forecast_windows
from lstm_strategy.artefact import load
from lstm_strategy.bars import Bars, Timeframe
from lstm_strategy.features import Features
from lstm_strategy.nautilus.engine import BarType, EngineBar, InstrumentId
from lstm_strategy.nautilus.history import to_bar
from lstm_strategy.network import StreamingLSTM

__all__ = ["Bare", "BareConfig", "Orders", "bare", "in_backtesting"]

Orders = dict[int, float]  # signed quantities by the close that they are decided at
_UNIT = 1e-5  # backtesting.py knows whole pieces only


class BareConfig(StrategyConfig, frozen=True, kw_only=True):
    """``orders``: a JSON file of `Orders`; ``windowed``: an artefact whose network is run over a window at each bar."""

    instrument_id: InstrumentId
    bar_type: BarType
    orders: str
    windowed: str | None = None


class Bare(Strategy):  # type: ignore[misc]
    """Sends orders that it was given, at market, and keeps no record."""

    def on_start(self) -> None:
        """Read what to send."""
        self._orders = msgspec.json.decode(Path(self.config.orders).read_bytes(), type=Orders)
        self._instrument = self.cache.instrument(self.config.instrument_id)
        self._forecast = None if self.config.windowed is None else _windowed(Path(self.config.windowed), self.config)
        self.subscribe_bars(self.config.bar_type)

    def on_bar(self, bar: EngineBar) -> None:
        """Forecast where that is asked for, then send what stands against this close."""
        if self._forecast is not None:
            self._forecast(bar)
        quantity = self._orders.get(bar.ts_event)
        if quantity is not None:
            side = OrderSide.BUY if quantity > 0 else OrderSide.SELL
            self.submit_order(
                self.order_factory.market(
                    self.config.instrument_id, side, self._instrument.make_qty(abs(quantity), round_down=True)
                )
            )


def bare(
    instrument_id: str, bar_type: BarType, orders: Orders, folder: Path, windowed: Path | None = None
) -> ImportableStrategyConfig:
    """Return the strategy that sends ``orders``."""
    path = folder / f"orders-{len(orders)}.json"
    path.write_bytes(msgspec.json.encode(orders))
    config = {"instrument_id": instrument_id, "bar_type": str(bar_type), "orders": str(path)}
    return ImportableStrategyConfig(
        strategy_path="benchmarks.engine_rivals:Bare",
        config_path="benchmarks.engine_rivals:BareConfig",
        config=config | {"windowed": None if windowed is None else str(windowed)},
    )


def _windowed(model: Path, config: BareConfig) -> Any:
    """The usual way: features into a rolling window, the whole window through torch at every bar."""
    torch.set_num_threads(1)
    artefact = load(model)
    manifest = artefact.manifest
    mean, std = (torch.tensor([getattr(f, name) for f in manifest.feature_ranges]) for name in ("mean", "std"))
    network = StreamingLSTM(manifest.network, mean, std, torch.tensor(manifest.baseline)).eval()
    fit = artefact.require_instrument(config.instrument_id.value)
    features = Features(manifest.features, Timeframe.parse(manifest.timeframe), fit.tick, fit.scale_floor)
    window = torch.zeros(WINDOW, 1, len(manifest.features.features))

    @torch.inference_mode()
    def forecast(bar: EngineBar) -> np.ndarray[Any, np.dtype[np.float32]] | None:
        row = features.update(to_bar(bar, bar.ts_event))
        if row is None:
            return None
        window[:-1] = window[1:].clone()
        window[-1, 0] = torch.from_numpy(row[0])
        return forecast_windows(network, window).numpy()

    return forecast


def in_backtesting(bars: Bars, orders: Orders, cash: float, fee: float) -> int:
    """Send the same orders in backtesting.py, filled at the next open; return how many trades it made."""
    from backtesting import Backtest
    from backtesting import Strategy as Rival

    frame = pd.DataFrame(
        {name.capitalize(): getattr(bars, name) * _UNIT for name in ("open", "high", "low", "close")}
        | {"Volume": bars.volume},
        index=pd.to_datetime(bars.ts_close),
    )
    sizes = [round(orders.get(stamp, 0.0) / _UNIT) for stamp in bars.ts_close.tolist()]

    class Told(Rival):  # type: ignore[misc]
        def init(self) -> None: ...

        def next(self) -> None:
            size = sizes[len(self.data) - 1]
            if size > 0:
                self.buy(size=size)
            elif size < 0:
                self.sell(size=-size)

    found = Backtest(frame, Told, cash=cash, commission=fee, margin=0.5, finalize_trades=True).run()
    return int(found["# Trades"])
