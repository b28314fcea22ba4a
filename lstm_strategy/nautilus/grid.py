"""Many backtests side by side in processes of their own, each brought down to its equity and a few figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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

__all__ = [
    "DELAYS",
    "MULTIPLES",
    "Job",
    "Outcome",
    "forecasts_of",
    "members_of",
    "run_grid",
    "run_job",
    "sensitivity_grid",
]
__all__ += ["with_members"]

type Job = BacktestSettings | PanelSettings
"""A backtest of one instrument, or of several on one account."""

MULTIPLES = (0.0, 0.5, 1.0, 2.0, 4.0)
DELAYS = (0, 1, 2, 3)


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """One run: net_return, sharpe, max_drawdown, orders, fees, turnover, and equity at each bar's close [T]."""

    figures: dict[str, float]
    ts_close: Stamps
    equity: Float


def run_grid(
    jobs: Mapping[str, Job],
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
            found[name] = run_job(settings)
            on_done(name, found[name])
        return found
    # Spawned, since a fork of a process with threads may hang.
    pool = ProcessPoolExecutor(min(workers, len(jobs)), mp_context=get_context("spawn"))
    try:
        waiting = {pool.submit(run_job, settings): name for name, settings in jobs.items()}
        for future in as_completed(waiting):
            name = waiting[future]
            found[name] = future.result()
            on_done(name, found[name])
    finally:
        pool.shutdown(cancel_futures=True)
    return {name: found[name] for name in jobs}


def sensitivity_grid(job: Job) -> dict[str, Job]:
    """Return the runs at multiples of the costs and with delays, by ``multiple/delay``.

    The decisions count on the costs as they are all the while: what changes is what the venue charges, and how late it
    fills.
    """

    def charged(costs: Costs, multiple: float) -> Costs:
        return Costs(fee=costs.fee * multiple, spread=costs.spread * multiple, slippage=costs.slippage * multiple)

    return {
        f"{multiple:g}/{delay}": with_members(
            job,
            [
                replace(member, charged=charged(member.costs, multiple), delay=delay, run_folder=None)
                for member in members_of(job)
            ],
        )
        for multiple in MULTIPLES
        for delay in DELAYS
    }


def members_of(job: Job) -> tuple[BacktestSettings, ...]:
    """Return the settings of each of its instruments."""
    return job.members if isinstance(job, PanelSettings) else (job,)


def with_members(job: Job, members: Sequence[BacktestSettings]) -> Job:
    """Return the job with other settings for its instruments; nothing is written."""
    if isinstance(job, PanelSettings):
        return replace(job, members=tuple(members), run_folder=None)
    return members[0]


def forecasts_of(job: Job) -> pa.Table:
    """Run a job whose models step; return what they said, as `recorded_from` takes it."""
    return (trade_panel(job) if isinstance(job, PanelSettings) else trade(job)).tables["forecasts"]


def run_job(job: Job) -> Outcome:
    """Run one backtest, and bring it down to what is kept of it. Raises as `run_backtest` does."""
    tables = trade_panel(job).tables if isinstance(job, PanelSettings) else trade(job).tables
    equity, fills = tables["equity"], tables["fills"]
    ts_close, own = equity["ts_close"].cast(pa.int64()).to_numpy(), equity["equity"].to_numpy()
    figures = results(ts_close, own, members_of(job)[0].cash) | {
        "orders": float(len(tables["orders"])),
        "fees": float(fills["fee"].to_numpy().sum()),
        "turnover": turnover(ts_close, own, fills),
    }
    return Outcome(figures, ts_close, own)
