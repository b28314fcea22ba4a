"""The ``sweep`` command: a grid of policies over forecasts made once, and how far the best of them can be trusted."""

from __future__ import annotations

import hashlib
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich import box
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from lstm_strategy import artefact
from lstm_strategy.atomic import atomic_write
from lstm_strategy.bars import Timeframe
from lstm_strategy.cli_backtest import settings_of
from lstm_strategy.cli_options import (
    CATALOG,
    MODELS,
    RUNS,
    CatalogOption,
    ExperimentArgument,
    InstrumentOption,
    JsonOption,
    ModelOption,
    ModelsOption,
    RunsOption,
    WorkersOption,
    instrument_of,
)
from lstm_strategy.console import console, emit_json
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.experiment import load_experiment
from lstm_strategy.measures import daily_returns
from lstm_strategy.overfitting import deflated_sharpe, moments, probabilistic_sharpe, probability_of_overfitting
from lstm_strategy.schedule import Schedule

if TYPE_CHECKING:
    from lstm_strategy.nautilus.backtest import BacktestSettings
    from lstm_strategy.nautilus.grid import Outcome

__all__ = ["sweep_command"]

_BLOCKS, _SHOWN = 16, 20


def sweep_command(
    experiment: ExperimentArgument,
    instrument: InstrumentOption = None,
    model: ModelOption = None,
    catalog: CatalogOption = CATALOG,
    models: ModelsOption = MODELS,
    runs: RunsOption = RUNS,
    workers: WorkersOption = 1,
    as_json: JsonOption = False,
) -> None:
    """Run every combination of the experiment's \\[sweep] over forecasts that are made once.

    \\[sweep] lists values by dotted key, such as "sizing.target_volatility" = \\[0.2, 0.35, 0.5]. The best is judged as
    the best of many: deflated Sharpe ratio, probability of backtest overfitting. An interrupted sweep goes on where it
    was when the same command is run again.

    [bold]Example[/bold]: lstm-strategy sweep backtests/btcusdt_1h.toml --workers 2
    """
    began = time.perf_counter()
    setup = load_experiment(experiment)
    if len(chosen := setup.policies()) < 2:
        raise LSTMStrategyError(
            f'{experiment}: [sweep] lists {len(chosen)} setting; give values to compare, such as "sizing.tilt" = [0, 1]'
        )
    instrument_id = instrument_of(setup, instrument)
    settings, _ = settings_of(setup, instrument_id, model, catalog, models, runs)
    folder = runs / setup.name / f"sweep-{_hash([_identity(settings), setup.sizing.horizon])}"
    schedule = _forecasts(settings, folder)
    jobs = {
        label: msgspec.structs.replace(settings, model=schedule, sizing=sizing, limits=limits)
        for label, (sizing, limits) in chosen.items()
    }
    rows = _run(jobs, folder, workers)
    summary = _judge(rows, schedule.trials) | {
        "name": setup.name,
        "instrument": instrument_id,
        "model": schedule.label,
        "workers": workers,
        "seconds": round(time.perf_counter() - began, 1),
        "path": str(folder / "summary.json"),
    }
    with atomic_write(folder / "summary.json") as temporary:
        temporary.write_bytes(msgspec.json.format(msgspec.json.encode(summary), indent=1))
    _print(summary)
    if as_json:
        emit_json(summary)


def _identity(settings: BacktestSettings) -> list[Any]:
    """What the results depend on, beside the policy: model, bars, costs, dates, account."""
    from lstm_strategy.nautilus.catalog import read_catalog

    bars = read_catalog(settings.catalog, settings.instrument_id, Timeframe.parse(settings.timeframe))
    columns = (bars.ts_close, bars.open, bars.high, bars.low, bars.close, bars.volume)
    data = hashlib.sha256(b"".join(column.tobytes() for column in columns)).hexdigest()
    model = settings.model
    made = [artefact.load(model).manifest.digest] if isinstance(model, Path) else [turn.version for turn in model.turns]
    money = [settings.costs, settings.cash, settings.account, settings.delay, settings.volume_share]
    money += [settings.funding, settings.borrow]
    money += [settings.calibration] if settings.calibration.adaptive else []
    return [settings.instrument_id, data, made, settings.start, settings.end, *money]


def _forecasts(settings: BacktestSettings, folder: Path) -> Schedule:
    """Return the recorded forecasts: an evaluation's, or those of one run that steps, made once and kept."""
    from lstm_strategy.nautilus.backtest import trade
    from lstm_strategy.nautilus.source import recorded_from

    path = folder / "forecasts.parquet"
    if isinstance(settings.model, Schedule):
        return recorded_from(settings.model, settings.instrument_id, path)
    if not path.exists():
        with console.status("the model steps once through the bars"):
            table = trade(settings).tables["forecasts"]
        with atomic_write(path) as temporary:
            pq.write_table(table, temporary, compression="zstd")
    return recorded_from(artefact.load(settings.model), settings.instrument_id, path)


def _run(jobs: dict[str, BacktestSettings], folder: Path, workers: int) -> dict[str, dict[str, Any]]:
    """Return each setting's figures and daily returns; what a former run finished is read."""
    from lstm_strategy.nautilus.grid import run_grid

    paths = {
        label: folder / "settings" / f"{_hash([settings.sizing, settings.limits])}.parquet"
        for label, settings in jobs.items()
    }
    found = {label: _read(path) for label, path in paths.items()}
    waiting = {label: settings for label, settings in jobs.items() if found[label] is None}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("settings", total=len(jobs), completed=len(jobs) - len(waiting))

        def on_done(label: str, outcome: Outcome) -> None:
            _write(paths[label], outcome, jobs[label].cash)
            progress.advance(task)

        run_grid(waiting, workers=workers, on_done=on_done)
    rows = {label: _read(path) for label, path in paths.items()}
    return {label: row for label, row in rows.items() if row is not None}


def _write(path: Path, outcome: Outcome, cash: float) -> None:
    days, returns = daily_returns(outcome.ts_close, outcome.equity, cash)
    ruined = bool((outcome.equity <= 0.0).any())
    told = msgspec.json.encode(outcome.figures | {"ruined": ruined})
    with atomic_write(path) as temporary:
        pq.write_table(pa.table({"day": days, "return": returns}).replace_schema_metadata({"figures": told}), temporary)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        table = pq.read_table(path)
        figures = msgspec.json.decode((table.schema.metadata or {})[b"figures"], type=dict[str, Any])
    except (OSError, pa.ArrowException, KeyError, msgspec.MsgspecError):
        return None  # to be run
    return figures | {"day": table["day"].to_numpy(), "return": table["return"].to_numpy()}


def _judge(rows: dict[str, dict[str, Any]], trials: int) -> dict[str, Any]:
    """Return the settings, best Sharpe ratio first, and what being the best of so many is worth."""
    sound = {label: row for label, row in rows.items() if not row["ruined"]}
    found = {label: moments(row["return"]) for label, row in sound.items()}
    sharpes = [of.sharpe for of in found.values() if math.isfinite(of.sharpe)]
    variance = float(np.var(sharpes, ddof=1)) if len(sharpes) > 1 else None
    trials = len(rows) + trials - 1  # the network was chosen among some as well
    table = []
    for label, row in rows.items():
        figures = {name: value for name, value in row.items() if name not in ("day", "return")}
        own = found.get(label)
        table.append({"setting": label} | figures | {"probabilistic_sharpe": own and probabilistic_sharpe(own)})
    table.sort(key=lambda row: -math.inf if row["sharpe"] is None else row["sharpe"], reverse=True)
    best = found.get(table[0]["setting"])
    crossed, why = None, ""
    try:
        days = min(len(row["day"]) for row in sound.values()) if sound else 0
        returns = np.column_stack([row["return"] for row in sound.values()]) if sound else np.empty((0, 0))
        crossed = probability_of_overfitting(returns, max(min(_BLOCKS, days // 4 * 2), 2))
    except LSTMStrategyError as error:
        why = str(error)
    return {
        "settings": table,
        "trials": trials,
        "ruined": len(rows) - len(sound),
        "deflated_sharpe": None if best is None else deflated_sharpe(best, trials, variance),
        "probability_of_overfitting": None if crossed is None else crossed.probability,
        "probability_of_loss": None if crossed is None else crossed.loss,
        "splits": None if crossed is None else crossed.splits,
        "missing": why,
    }


def _print(summary: dict[str, Any]) -> None:
    settings = summary["settings"]
    title = f"{len(settings):,} settings on {escape(summary['instrument'])}, by Sharpe ratio after costs"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    keys = [part.partition("=")[0] for part in settings[0]["setting"].split(" ")]
    for key in keys:
        table.add_column(escape(key.partition(".")[2].replace("_", " ")))
    for heading in ("net return", "Sharpe", "deepest fall", "orders", "turnover a year"):
        table.add_column(heading, justify="right")
    for row in settings[:_SHOWN]:
        values = [escape(part.partition("=")[2]) for part in row["setting"].split(" ")]
        shares = (_percent(row["net_return"]), _number(row["sharpe"]), _percent(row["max_drawdown"]))
        table.add_row(*values, *shares, f"{row['orders']:,.0f}", _number(row["turnover"], 1))
    console.print(table)
    if len(settings) > _SHOWN:
        console.print(f"and {len(settings) - _SHOWN:,} more in {escape(summary['path'])}", soft_wrap=True)
    deflated, chance = summary["deflated_sharpe"], summary["probability_of_overfitting"]
    told = f"The best of {summary['trials']:,} trials: probability that its true Sharpe ratio is above zero (deflated)"
    console.print(f"{told} {_percent(deflated)}.", highlight=False)
    if chance is None:
        console.print(f"No probability of overfitting: {escape(summary['missing'])}", highlight=False)
    else:
        lost = _percent(summary["probability_of_loss"])
        console.print(
            f"Probability of backtest overfitting {_percent(chance)}: in that share of {summary['splits']:,} splits the"
            f" best of one half was no better than the median on the other; it lost money there in {lost}.",
            highlight=False,
        )


def _hash(value: Any) -> str:
    return hashlib.sha256(msgspec.json.encode(value)).hexdigest()[:8]


def _number(value: float | None, digits: int = 2) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def _percent(value: float | None) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{value:.1%}"
