"""Many backtests side by side in processes of their own, each brought down to its equity and a few figures."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context

import pyarrow as pa
from msgspec.structs import replace

from lstm_strategy.bars import Float, Stamps
from lstm_strategy.decision import Costs
from lstm_strategy.nautilus.backtest import BacktestSettings, trade
from lstm_strategy.nautilus.panel_backtest import PanelSettings, trade_panel
from lstm_strategy.nautilus.summary import results, turnover

__all__ = ["DELAYS", "MULTIPLES", "Outcome", "run_grid", "run_panel_job", "sensitivity_grid"]

MULTIPLES = (0.0, 0.5, 1.0, 2.0, 4.0)
DELAYS = (0, 1, 2, 3)


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """One run: net_return, sharpe, max_drawdown, orders, fees, turnover, and equity at each bar's close [T]."""

    figures: dict[str, float]
    ts_close: Stamps
    equity: Float


def run_grid(
    jobs: dict[str, BacktestSettings],
    *,
    workers: int = 1,
    on_done: Callable[[str, Outcome], None] = lambda name, outcome: None,
) -> dict[str, Outcome]:
    """Run each job; return its outcome by name, in the order of the jobs, whatever the number of workers.

    Raises
    ------
    LSTMStrategyError
        The first one that a job raises; jobs that had not begun are not run.
    """
    found: dict[str, Outcome] = {}
    if workers == 1 or len(jobs) < 2:
        for name, settings in jobs.items():
            found[name] = _run(settings)
            on_done(name, found[name])
        return found
    # Spawned, since a fork of a process with threads may hang.
    pool = ProcessPoolExecutor(min(workers, len(jobs)), mp_context=get_context("spawn"))
    try:
        waiting = {pool.submit(_run, settings): name for name, settings in jobs.items()}
        for future in as_completed(waiting):
            name = waiting[future]
            found[name] = future.result()
            on_done(name, found[name])
    finally:
        pool.shutdown(cancel_futures=True)
    return {name: found[name] for name in jobs}


def sensitivity_grid(settings: BacktestSettings) -> dict[str, BacktestSettings]:
    """Return the runs at multiples of the costs and with delays, by ``multiple/delay``.

    The decisions count on ``settings.costs`` all the while: what changes is what the venue charges, and how late it
    fills.
    """

    def charged(multiple: float) -> Costs:
        costs = settings.costs
        return Costs(fee=costs.fee * multiple, spread=costs.spread * multiple, slippage=costs.slippage * multiple)

    return {
        f"{multiple:g}/{delay}": replace(settings, charged=charged(multiple), delay=delay, run_folder=None)
        for multiple in MULTIPLES
        for delay in DELAYS
    }


def run_panel_job(name: str, settings: PanelSettings) -> dict[str, Outcome]:
    """Run several instruments on one account; return what came of it by the job's name, as `run_grid` does."""
    return {name: _outcome(trade_panel(settings).tables, settings.shared.cash)}


def _run(settings: BacktestSettings) -> Outcome:
    return _outcome(trade(settings).tables, settings.cash)


def _outcome(tables: dict[str, pa.Table], cash: float) -> Outcome:
    equity, fills = tables["equity"], tables["fills"]
    ts_close, own = equity["ts_close"].cast(pa.int64()).to_numpy(), equity["equity"].to_numpy()
    figures = results(ts_close, own, cash) | {
        "orders": float(len(tables["orders"])),
        "fees": float(fills["fee"].to_numpy().sum()),
        "turnover": turnover(ts_close, own, fills),
    }
    return Outcome(figures, ts_close, own)
