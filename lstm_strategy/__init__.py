"""An LSTM forecaster that trades on NautilusTrader: one streaming step in research, backtest, paper and live."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lstm_strategy.artefact import Artefact as Artefact
    from lstm_strategy.artefact import load as load_artefact
    from lstm_strategy.bars import Bar, Bars, Timeframe
    from lstm_strategy.decision import Costs, Decision, LimitsConfig, PortfolioState, SizingConfig, decide
    from lstm_strategy.errors import LSTMStrategyError
    from lstm_strategy.experiment import Experiment, load_experiment
    from lstm_strategy.features import Features, FeaturesConfig
    from lstm_strategy.forecast import Forecast, Forecasts
    from lstm_strategy.forecaster import Forecaster
    from lstm_strategy.nautilus.portfolio_config import LSTMPortfolioStrategyConfig
    from lstm_strategy.nautilus.portfolio_strategy import LSTMPortfolioStrategy
    from lstm_strategy.nautilus.strategy import LSTMStrategy, LSTMStrategyConfig

__version__ = "0.1.0"

# Where each public name lives; loaded on first use, so that importing the package costs nothing and needs no torch.
_HOMES = {
    "Artefact": "artefact",
    "load_artefact": "artefact:load",
    "Bar": "bars",
    "Bars": "bars",
    "Timeframe": "bars",
    "Costs": "decision",
    "Decision": "decision",
    "LimitsConfig": "decision",
    "PortfolioState": "decision",
    "SizingConfig": "decision",
    "decide": "decision",
    "LSTMStrategyError": "errors",
    "Experiment": "experiment",
    "load_experiment": "experiment",
    "Features": "features",
    "FeaturesConfig": "features",
    "Forecast": "forecast",
    "Forecasts": "forecast",
    "Forecaster": "forecaster",
    "LSTMPortfolioStrategy": "nautilus.portfolio_strategy",
    "LSTMPortfolioStrategyConfig": "nautilus.portfolio_config",
    "LSTMStrategy": "nautilus.strategy",
    "LSTMStrategyConfig": "nautilus.strategy",
}

__all__ = [
    "Artefact",
    "Bar",
    "Bars",
    "Costs",
    "Decision",
    "Experiment",
    "Features",
    "FeaturesConfig",
    "Forecast",
    "Forecaster",
    "Forecasts",
    "LSTMPortfolioStrategy",
    "LSTMPortfolioStrategyConfig",
    "LSTMStrategy",
    "LSTMStrategyConfig",
    "LSTMStrategyError",
    "LimitsConfig",
    "PortfolioState",
    "SizingConfig",
    "Timeframe",
    "decide",
    "load_artefact",
    "load_experiment",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _HOMES[name].partition(":")
    value = getattr(importlib.import_module(f"{__name__}.{module}"), attribute or name)
    globals()[name] = value
    return value
