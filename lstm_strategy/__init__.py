"""An LSTM forecaster that trades on NautilusTrader: one streaming step in research, backtest, paper and live."""

__version__ = "0.1.0"
