"""Backtests on a machine that shares no disc with the caller: what they read travels with them, as bytes."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

import msgspec

from lstm_strategy.bars import Timeframe
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.nautilus.backtest_settings import BacktestSettings
from lstm_strategy.nautilus.catalog import files_of
from lstm_strategy.nautilus.grid import Job, Outcome, members_of, run_job, with_members
from lstm_strategy.nautilus.market import open_market
from lstm_strategy.schedule import Schedule
from lstm_strategy.sources.funding import funding_path
from lstm_strategy.sources.store import RawStore

__all__ = ["Files", "pack", "run_away"]

type Files = dict[str, bytes]
"""By their paths below the folder in which a worker unpacks them."""

_CATALOG = PurePosixPath("catalog")


def pack(jobs: dict[str, Job]) -> tuple[Files, dict[str, Job]]:
    """Return what the jobs read, and the jobs as they may be sent: they name nothing of this machine.

    Bars, models and forecasts are verified here, once for all jobs on the same ones; a worker has no models to do so.

    Raises
    ------
    LSTMStrategyError
        For jobs whose forecasts are not recorded: their models would have to travel too; and as `open_market` does.
    """
    files: Files = {}
    names: dict[Path, str] = {}
    seen: set[bytes] = set()

    def sent(member: BacktestSettings) -> BacktestSettings:
        model = member.model
        if not isinstance(model, Schedule) or model.recorded is None:
            raise LSTMStrategyError(f"{member.instrument_id}: only recorded forecasts can be sent to other machines")
        told = msgspec.json.encode([str(member.catalog), member.instrument_id, model])
        if told not in seen:
            seen.add(told)
            open_market(member)
            _take(member, files)
        path = Path(model.recorded)
        if path not in names:
            names[path] = f"recorded/{len(names)}.parquet"
            files[names[path]] = path.read_bytes()
        turns = tuple(msgspec.structs.replace(turn, folder=None) for turn in model.turns)
        away = msgspec.structs.replace(model, recorded=names[path], evaluation=None, turns=turns)
        return msgspec.structs.replace(member, catalog=Path(_CATALOG), model=away, run_folder=None)

    return files, {name: with_members(job, [sent(member) for member in members_of(job)]) for name, job in jobs.items()}


def run_away(files: Files, job: Job) -> Outcome:
    """Run a job that `pack` gave, in a temporary folder with the files that came with it."""
    with TemporaryDirectory(prefix="lstm-strategy-") as place:
        root = Path(place)
        for name, content in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(content)

        def here(member: BacktestSettings) -> BacktestSettings:
            model = member.model
            if isinstance(model, Schedule):
                model = msgspec.structs.replace(model, recorded=str(root / str(model.recorded)))
            return msgspec.structs.replace(member, catalog=root / member.catalog, model=model)

        return run_job(with_members(job, [here(member) for member in members_of(job)]))


def _take(member: BacktestSettings, files: Files) -> None:
    root, store = member.catalog, RawStore(member.catalog)
    paths = files_of(root, member.instrument_id, Timeframe.parse(member.timeframe))
    rates = funding_path(store, member.instrument_id)
    for path in [*paths, *([rates] if rates.exists() else [])]:
        files[str(_CATALOG / path.relative_to(root).as_posix())] = path.read_bytes()
