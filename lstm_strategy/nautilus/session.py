"""What actor and strategy work with from start on: verified model, timeframe, order desk; nothing that does not fit."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lstm_strategy.bars import NS_PER_YEAR, Timeframe
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.forecast import Forecast
from lstm_strategy.limits import LimitsConfig, require_consistent
from lstm_strategy.nautilus.desk import Desk
from lstm_strategy.nautilus.engine import AccountType
from lstm_strategy.nautilus.history import timeframe_of
from lstm_strategy.nautilus.model import Model, ScheduledModel, open_model
from lstm_strategy.registry import current
from lstm_strategy.sizing import SizingConfig
from lstm_strategy.speakers import Recorded

if TYPE_CHECKING:
    from lstm_strategy.nautilus.strategy import LSTMStrategy

__all__ = ["Session", "Stream", "open_session", "open_stream", "open_successor"]

# More than the warm-up is asked for, since weekends and outages leave holes in a span of time.
_HISTORY_FACTOR, _HISTORY_SLACK_BARS = 1.7, 72
_ORDERS = "events.order."


@dataclass(slots=True)
class Stream:
    """What forecasts need from start on. Another model may take the place of ``model`` between two bars.

    ``passed_over``: what is to be said of a current version that was refused at the start; empty where none was.
    """

    timeframe: Timeframe
    model: Model | ScheduledModel
    passed_over: str = field(default="", kw_only=True)

    def history_from(self, now: int) -> int:
        """Return the stamp from which on bars are needed: a warm-up ago, or from the last bar taken where later."""
        forecaster = self.model.forecaster
        bars = forecaster.warmup_bars * _HISTORY_FACTOR + _HISTORY_SLACK_BARS
        needed = int(bars * max(self.timeframe.ns, NS_PER_YEAR / self.model.bars_per_year))
        needed = now if self.model.whole_history else needed
        # Venues ask by the stamp of the open: the bar before the last one, once more, costs nothing.
        known = 0 if forecaster.last_ts is None else forecaster.last_ts - self.timeframe.ns
        return min(max(now - needed, known, 0), now)  # a clock that was set back finds a snapshot of the future

    def misses_bars_before(self, ts_close: int) -> bool:
        """Say whether there is a hole between the last bar taken and one closed at ``ts_close``."""
        last = self.model.forecaster.last_ts
        return last is not None and ts_close - last > self.hole_ns

    @property
    def hole_ns(self) -> int:
        """More than this between two closes is a hole."""
        return max(self.timeframe.ns, self.model.closed_ns)


@dataclass(slots=True)
class Session(Stream):
    """What trading needs beside."""

    desk: Desk

    limits: LimitsConfig

    def outside_range(self, forecast: Forecast | None) -> bool:
        """Say whether a feature behind this forecast lies beyond what training saw and the limits tolerate."""
        tolerance, forecaster = self.limits.feature_range, self.model.forecaster
        if forecast is None or tolerance is None or isinstance(forecaster, Recorded):
            return False
        return forecaster.outside_range(tolerance)


def open_stream(owner: Any, sizing: SizingConfig | None = None) -> Stream:
    """Return the model that an actor's or a strategy's settings name, with what ``sizing`` reads of it.

    Raises
    ------
    LSTMStrategyError
        Where bars are of another instrument, or the model does not fit.
    """
    settings = owner.settings
    if settings.bar_type.instrument_id != settings.instrument_id:
        raise LSTMStrategyError(f"bar_type {settings.bar_type} is not of instrument {settings.instrument_id}")
    timeframe, folder = timeframe_of(settings.bar_type), Path(settings.model)

    def opened(path: Path) -> Model | ScheduledModel:
        return open_model(path, settings.instrument_id.value, timeframe, sizing, settings.calibration)

    if not settings.follow:
        return Stream(timeframe, opened(folder))
    if not folder.is_dir():
        raise LSTMStrategyError(f"follow needs the folder of a model in a registry, models/NAME/VERSION; not {folder}")
    try:
        return Stream(timeframe, opened(current(folder.absolute().parent.parent, folder.absolute().parent.name)))
    except LSTMStrategyError as error:
        told = f"The current version is refused: {error}; {folder.parent.name}/{folder.name} is taken instead"
        return Stream(timeframe, opened(folder), passed_over=told)


def open_successor(settings: Any, folder: Path, running: Model) -> Model:
    """Return another version of the model that runs, verified, and fit for the same settings, log and limits.

    Raises
    ------
    LSTMStrategyError
        Where its files are not what was saved, or it is of another instrument or timeframe, or has other features,
        horizons or levels.
    """
    sizing: SizingConfig | None = getattr(settings, "sizing", None)
    timeframe = timeframe_of(settings.bar_type)
    model = open_model(folder, settings.instrument_id.value, timeframe, sizing, settings.calibration)
    if not isinstance(model, Model):
        raise LSTMStrategyError(f"{folder} is no artefact")
    ours, theirs = running.forecaster.artefact.manifest, model.forecaster.artefact.manifest
    if (theirs.name, theirs.version) != (folder.parent.name, folder.name):
        raise LSTMStrategyError(f"{folder} holds model {model.label}; copy whole folders, under their own names")
    for what in ("features", "horizons", "levels"):
        if getattr(ours, what) != getattr(theirs, what):
            raise LSTMStrategyError(f"it has other {what} than {running.label}; start the node with it")
    if sizing is not None:
        require_consistent(sizing, settings.limits, settings.costs, model.levels)
    return model


def open_session(strategy: LSTMStrategy) -> Session:
    """Return what the strategy's settings ask for.

    Raises
    ------
    LSTMStrategyError
        Where the engine does not know the instrument, bars are of another one, the account cannot short, or the model
        does not fit.
    """
    settings = strategy.settings
    instrument = strategy.cache.instrument(settings.instrument_id)
    if instrument is None:
        raise LSTMStrategyError(f"{settings.instrument_id} is not known to the engine; nothing can be traded")
    stream = open_stream(strategy, settings.sizing)
    timeframe, model = stream.timeframe, stream.model
    account = strategy.portfolio.account(settings.instrument_id.venue)
    if settings.limits.side == "long_short" and account is not None and account.type == AccountType.CASH:
        raise LSTMStrategyError(f"limits.side is long_short; the cash account {account.id} cannot short")
    if account is not None and account.type == AccountType.CASH and (others := _others_of(strategy)):
        _warn(
            strategy,
            f"{', '.join(others)} beside {strategy.id}: on the cash account {account.id} the equity seen here is its"
            " quote currency and the position of this strategy, so what another one buys there counts as a loss, and"
            " may halt; give each an account (or a sub-account) of its own, or use a margin account",
        )
    require_consistent(settings.sizing, settings.limits, settings.costs, model.levels)
    if settings.limits.feature_range is not None and isinstance(model.forecaster, Recorded):
        raise LSTMStrategyError("limits.feature_range needs features, and recorded forecasts have none: step the model")
    desk = Desk(
        strategy,
        instrument,
        limits=settings.limits,
        costs=settings.costs,
        cash_buffer=settings.cash_buffer,
        delay_bars=settings.delay_bars,
        tolerance=settings.retarget_tolerance,
        bar_ns=timeframe.ns,
        exits=settings.exits,
        execution=settings.execution,
        decided=None if strategy.record is None else strategy.record.decided,
    )
    return Session(timeframe, model, desk, settings.limits, passed_over=stream.passed_over)


def _others_of(strategy: LSTMStrategy) -> list[str]:
    """Return the other strategies of the same trader: the engine tells each of its own orders, by its name."""
    topics = {str(one.topic) for one in strategy.msgbus.subscriptions(f"{_ORDERS}*")}
    return sorted({topic.removeprefix(_ORDERS) for topic in topics} - {"*", str(strategy.id)})


def _warn(strategy: LSTMStrategy, text: str) -> None:
    strategy.log.warning(text)
