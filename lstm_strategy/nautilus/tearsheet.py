"""The engine's own tearsheet, fed with mark-to-market returns: by itself it values closed positions alone."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pandas as pd
from nautilus_trader.analysis import (
    CAGR,
    CalmarRatio,
    MaxDrawdown,
    PortfolioAnalyzer,
    ProfitFactor,
    ReturnsAverage,
    ReturnsVolatility,
    SharpeRatio,
    SortinoRatio,
)

from lstm_strategy.bars import NS_PER_DAY, Float, Stamps, format_ns
from lstm_strategy.measures import daily_returns

__all__ = ["write_tearsheet"]


def write_tearsheet(path: Path, title: str, ts_close: Stamps, equity: Float, buy_and_hold: Float, cash: float) -> bool:
    """Draw daily mark-to-market returns beside buy and hold; return False where plotly is not installed.

    Parameters
    ----------
    ts_close : int64 [T]
    equity, buy_and_hold : float64 [T]
        At each bar's close, in the account's currency; both started with ``cash``.
    """
    returns, benchmark = (_series(ts_close, line, cash) for line in (equity, buy_and_hold))
    analyzer: Any = PortfolioAnalyzer()
    span = (ts_close[-1] - ts_close[0]) / NS_PER_DAY
    per_year = min(365, max(1, round(len(returns) / max(span, 1.0) * 365.25)))  # trading days, counted from the data
    annual = (CAGR, ReturnsVolatility, SharpeRatio, SortinoRatio, CalmarRatio)
    plain = (ReturnsAverage, MaxDrawdown, ProfitFactor)
    for statistic in (*(kind(per_year) for kind in annual), *(kind() for kind in plain)):
        analyzer.register_statistic(statistic)
    for when, value in returns.items():
        analyzer.add_return(when, value)
    change = float(equity[-1]) - cash
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the engine's own use of pandas and plotly
        try:
            from nautilus_trader.analysis.tearsheet import create_tearsheet_from_stats

            create_tearsheet_from_stats(
                stats_pnls={"PnL (total)": change, "PnL% (total)": change / cash * 100.0},
                stats_returns=analyzer.get_performance_stats_returns(),
                stats_general={},
                returns=returns,
                benchmark_returns=benchmark,
                benchmark_name="Buy and hold",
                output_path=str(path),
                title=f"<b>NautilusTrader</b> tearsheet of {title}<br><sub>daily mark-to-market returns</sub>",
                run_info={"First bar": format_ns(ts_close[0]), "Last bar": format_ns(ts_close[-1])},
                account_info={"Starting equity": f"{cash:,.2f}", "Ending equity": f"{float(equity[-1]):,.2f}"},
            )
        except ImportError:
            return False
    return True


def _series(ts_close: Stamps, equity: Float, cash: float) -> pd.Series[float]:
    days, returns = daily_returns(ts_close, equity, cash)
    return pd.Series(returns, index=pd.to_datetime(days * NS_PER_DAY, utc=True))
