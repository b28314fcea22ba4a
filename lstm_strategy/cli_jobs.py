"""What an experiment's backtests run: one instrument, or all on one account, and the models that speak."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from lstm_strategy import artefact
from lstm_strategy.bars import format_ns, parse_ns
from lstm_strategy.cli_options import instrument_of, model_folder, model_of, warn_of_other_training
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.experiment import Experiment
from lstm_strategy.margin import Maintenance, words_of
from lstm_strategy.schedule import Schedule, newest_evaluation, walk_forward_schedule
from lstm_strategy.sources.margin_tiers import read_tiers
from lstm_strategy.sources.store import RawStore

if TYPE_CHECKING:
    from lstm_strategy.nautilus.backtest import BacktestSettings
    from lstm_strategy.nautilus.grid import Job

__all__ = ["Places", "job_of", "margin_told", "new_run_folder", "recorded_job", "settings_of"]

_MAINTENANCE = 0.05  # of a position's value, where nobody says what the venue asks for


class Places(NamedTuple):
    """Where a command looks for bars, models and runs; ``model`` names one where it is not the experiment's own."""

    catalog: Path
    models: Path
    runs: Path
    model: str | None = None


def new_run_folder(base: Path, version: str) -> Path:
    """Return the name of a folder for a run that begins now: the moment, to a thousandth, and the model's hash."""
    now = datetime.now(UTC)
    return base / f"{now:%Y%m%dT%H%M%S}.{now.microsecond // 1_000:03}-{version[-8:]}"


def job_of(setup: Experiment, instrument: str | None, places: Places, *, in_sample: bool = False) -> tuple[Job, str]:
    """Return what a backtest runs, and the version it runs on: without ``instrument`` all of them on one account.

    Raises
    ------
    LSTMStrategyError
        For an instrument that the experiment does not have; and as `settings_of` does.
    """
    if instrument is not None or len(setup.data.instruments) == 1:
        return settings_of(setup, instrument_of(setup, instrument), places, in_sample=in_sample)
    from lstm_strategy.nautilus.panel_backtest import PanelSettings

    pairs = [settings_of(setup, name, places, in_sample=in_sample) for name in setup.data.instruments]
    return PanelSettings(members=tuple(member for member, _ in pairs), portfolio=setup.portfolio), pairs[0][1]


def settings_of(
    setup: Experiment, instrument_id: str, places: Places, *, in_sample: bool = False
) -> tuple[BacktestSettings, str]:
    """Return what a backtest of one instrument runs, and the version it runs on; refuse bars the model has seen."""
    from lstm_strategy.nautilus.backtest import BacktestSettings

    catalog, models, runs, model = places
    start, end = setup.split.spans()["test"]
    source: Path | Schedule
    if setup.model.source == "walk_forward" and model is None:
        source = _walk_forward(setup, instrument_id, runs)
        version = source.label
        start, end = source.turns[0].first - 1, source.turns[-1].last
    else:
        loaded = model_of(setup, models, model)
        loaded.require_instrument(instrument_id)
        source, version = model_folder(setup, models, model), loaded.manifest.version
        start = parse_ns(setup.backtest.start) if setup.backtest.start else start
        if not in_sample and (start is None or start < loaded.trained_until):
            begins, last = format_ns(start) if start else "the first bar", format_ns(loaded.trained_until)
            raise LSTMStrategyError(
                f"the backtest starts at {begins}, but model {loaded.label} was trained on bars up to {last}:"
                " its results would flatter; start later, or say --in-sample"
            )
    settings = BacktestSettings(
        catalog=catalog,
        instrument_id=instrument_id,
        timeframe=setup.data.timeframe,
        model=source,
        sizing=setup.sizing,
        calibration=setup.calibration,
        limits=setup.limits,
        exits=setup.exits,
        execution=setup.execution,
        costs=setup.costs.of(RawStore(catalog).read_instrument(instrument_id)),
        start=parse_ns(setup.backtest.start) if setup.backtest.start else start,
        end=parse_ns(setup.backtest.end) if setup.backtest.end else end,
        cash=setup.backtest.cash,
        account=setup.backtest.account,
        delay=setup.backtest.delay,
        funding=setup.backtest.funding,
        borrow=setup.backtest.borrow,
        maintenance=_maintenance(setup, RawStore(catalog), instrument_id),
        liquidation_fee=setup.backtest.liquidation_fee,
        participation=setup.backtest.participation,
        tried=setup.backtest.tried,
    )
    return settings, version


def _maintenance(setup: Experiment, store: RawStore, instrument_id: str) -> Maintenance:
    """Return what the experiment says, else the tiers kept beside the bars, else one rate."""
    if setup.backtest.maintenance is not None:
        return setup.backtest.maintenance
    return read_tiers(store, instrument_id) or _MAINTENANCE


def margin_told(setup: Experiment, catalog: Path, instrument_ids: Sequence[str]) -> str:
    """Say which rule of margin holds, and where it comes from; by instrument where it is not the same for all."""
    if setup.backtest.account == "cash":
        return "cash account: no loan, no shorts, nothing to liquidate"
    store, given = RawStore(catalog), setup.backtest.maintenance is not None
    rules: dict[str, list[str]] = {}
    for name in instrument_ids:
        kept = "the venue's, by data tiers" if read_tiers(store, name) else "default; data tiers keeps a venue's own"
        rule = f"{words_of(_maintenance(setup, store, name))} ({'backtest.maintenance' if given else kept})"
        rules.setdefault(rule, []).append(name)
    told = (rule if len(rules) == 1 else f"{', '.join(names)}: {rule}" for rule, names in rules.items())
    return f"margin account: {'; '.join(told)}"


def _walk_forward(setup: Experiment, instrument_id: str, runs: Path) -> Schedule:
    evaluation = newest_evaluation(runs, setup.name, setup.model.evaluation)
    recorded = setup.model.forecasts == "recorded"
    schedule = walk_forward_schedule(evaluation, instrument_id, seed=setup.model.seed, recorded=recorded)
    loaded = artefact.load(Path(str(schedule.turns[0].folder)))
    loaded.require(timeframe=setup.data.timeframe, features=setup.features)
    loaded.shrinkage(setup.sizing.horizon)
    warn_of_other_training(setup, loaded)
    return schedule


def recorded_job(job: Job, forecasts: Path) -> Job:
    """Return the job over what its models have said, to be said again without a network.

    ``forecasts`` is what a run of it wrote; a walk-forward's lie with its evaluation.
    """
    from lstm_strategy.nautilus.grid import members_of, with_members
    from lstm_strategy.nautilus.source import recorded_from

    members = []
    for member in members_of(job):
        model = member.model if isinstance(member.model, Schedule) else artefact.load(member.model)
        schedule = recorded_from(model, member.instrument_id, forecasts)
        members.append(member.__replace__(model=schedule))
    return with_members(job, members)
