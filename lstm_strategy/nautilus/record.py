"""What a run leaves behind, bar by bar: in memory for a backtest's tables, on disk for whoever asks why."""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pyarrow as pa
from nautilus_trader.trading.config import StrategyConfig

from lstm_strategy.bars import Stamps
from lstm_strategy.decision import Decision
from lstm_strategy.decision_log import DECISIONS, PART_ROWS, STAMP, DecisionLog, Entry, Header
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.forecast import Float32, Forecast, Forecasts
from lstm_strategy.forecaster import Forecaster
from lstm_strategy.nautilus.idle import Idle
from lstm_strategy.nautilus.orders import Action
from lstm_strategy.nautilus.rows import DecisionRows, ForecastRows
from lstm_strategy.portfolio import PortfolioConfig
from lstm_strategy.speakers import Recorded, Switching

if TYPE_CHECKING:
    from lstm_strategy.nautilus.model import Model, ScheduledModel
    from lstm_strategy.nautilus.session import Session
    from lstm_strategy.nautilus.strategy import LSTMStrategy
    from lstm_strategy.nautilus.strategy_config import LSTMStrategyConfig

__all__ = ["Journal", "RunRecord", "Step", "open_journal", "step_of"]

_FEWEST_ROWS = 256  # of a decision log in memory: a megabyte

type Step = tuple[Float32 | None, Float32 | None, str]

_TOLD = {*StrategyConfig.__struct_fields__, "instrument_id", "bar_type", "model", "sizing", "limits", "costs"}
_TOLD |= {"record", "decision_log"}
_REFUSALS = 1_000  # kept in words


@dataclass(slots=True)
class RunRecord:
    """Grows by one row a bar; nothing is written before the run has ended.

    Where ``most`` is given, as on a node that may run for years, the oldest rows beyond it are dropped, a tenth of it
    at a time; ``dropped`` counts them, and the decision log has them all.
    """

    instrument_id: str
    decisions: DecisionRows = field(default_factory=DecisionRows)
    actions: list[Action] = field(default_factory=list)
    quantities: array[float] = field(default_factory=lambda: array("d"))
    prices: array[float] = field(default_factory=lambda: array("d"))
    equities: array[float] = field(default_factory=lambda: array("d"))
    forecasts: ForecastRows = field(default_factory=ForecastRows)
    refusals: deque[str] = field(default_factory=lambda: deque(maxlen=_REFUSALS))  # the last ones
    refused: int = 0
    decided: dict[str, float] = field(default_factory=dict)  # the price each order was decided on at, by identifier
    most: int | None = None
    dropped: int = 0
    listener: Callable[..., None] | None = None  # told what `add` is, with the instrument first

    def add(
        self,
        decision: Decision,
        forecast: Forecast | None,
        action: Action,
        quantity: float,
        price: float,
        equity: float,
    ) -> None:
        """Keep one bar's decision and what came of it; a second look at the last bar counts, unless one was sent."""
        if self.decisions.last_ts == decision.ts_close:
            if self.quantities[-1]:
                return
            for column in (*self._columns, self.decisions, self.forecasts):
                column.pop()
        self.decisions.append(decision)
        self.actions.append(action)
        self.quantities.append(quantity)
        self.prices.append(price)
        self.equities.append(equity)
        self.forecasts.append(forecast)
        if self.most is not None and len(self) >= self.most + max(self.most // 10, 1):
            excess = len(self) - self.most
            for column in self._columns:
                del column[:excess]
            self.decisions.drop_first(excess)
            self.forecasts.drop_first(excess)
            self.dropped += excess
        if self.listener is not None:
            self.listener(self.instrument_id, decision, forecast, action, quantity, price, equity)

    def refuse(self, text: str) -> None:
        """Keep what was said of an order that was refused, denied, or not cancelled."""
        self.refused += 1
        self.refusals.append(text)

    @property
    def _columns(self) -> tuple[Any, ...]:
        return self.actions, self.quantities, self.prices, self.equities

    def __len__(self) -> int:
        return len(self.decisions)

    @property
    def total(self) -> int:
        """Bars decided, dropped rows as well."""
        return self.dropped + len(self)

    @property
    def ts_close(self) -> Stamps:
        """Stamps of all decided bars, int64 [T]."""
        return self.decisions.ts_close

    def decisions_table(self) -> pa.Table:
        """Return one row per bar: the decision, what was done about it, and the account it saw."""
        decisions = self.decisions
        said, numbers = decisions.said, pa.array(decisions.numbers)
        columns: dict[str, Any] = {
            "ts_close": self.ts_close,
            "instrument": [self.instrument_id] * len(self),
            "target": decisions.targets,
            "exposure": decisions.exposures,
            "reason": pa.array([reason for reason, _, _ in said], pa.string()).take(numbers),
            "bound": pa.array([list(bound) for _, bound, _ in said], pa.list_(pa.string())).take(numbers),
            "action": self.actions,
            "quantity": np.array(self.quantities),
            "price": np.array(self.prices),
            "equity": np.array(self.equities),
        }
        return pa.table(columns, schema=DECISIONS)

    def equity_table(self, starting_cash: float, cost_per_side: float) -> pa.Table:
        """Return mark-to-market equity by bar close, beside the same cash in the instrument from the first close on."""
        prices = np.array(self.prices)
        shares = starting_cash / (prices[0] * (1.0 + cost_per_side)) if len(self) else 0.0
        return pa.table(
            {
                "ts_close": pa.array(self.ts_close, STAMP),
                "equity": pa.array(np.array(self.equities), pa.float64()),
                "exposure": pa.array(self.decisions.exposures, pa.float64()),
                "price": pa.array(prices, pa.float64()),
                "buy_and_hold": pa.array(shares * prices, pa.float64()),
            }
        )

    def to_forecasts(self, horizons: tuple[int, ...], levels: tuple[float, ...]) -> Forecasts:
        """Return the forecasts as arrays, NaN where there was none."""
        forecasts, positions = self.forecasts, self.forecasts.positions
        return Forecasts(
            self.instrument_id,
            horizons,
            levels,
            self.ts_close,
            forecasts.quantiles(len(horizons), len(levels)),
            forecasts.scales,
            None if np.isnan(positions).all() else positions,
        )


class Journal:
    """Hands every bar's decision to the log on disk; a disk that fails is told, and stops no trading."""

    def __init__(
        self, strategy: LSTMStrategy, session: Session, folder: Path, header: Header, idle: Idle, names: int
    ) -> None:
        def when_due() -> None:
            idle.give(folder, self.flush)

        self._strategy, self._session = strategy, session
        rows, due = (max(PART_ROWS // names, _FEWEST_ROWS), when_due) if idle.waits else (PART_ROWS, None)
        self._decision_log = DecisionLog(folder, header, part_rows=rows, when_due=due)
        self._failed, self._speaks = False, session.model.label

    def add(self, entry: Entry) -> None:
        """Keep one bar."""
        model, log = self._session.model, self._decision_log
        if model.label != self._speaks and entry.model == model.label:  # another has taken its place, and spoken
            (voice,) = model.voices
            voices = (*log.header.voices, msgspec.structs.replace(voice, first=entry.bar.ts_close))
            log.header, self._speaks = msgspec.structs.replace(log.header, voices=voices), model.label
        self._try(log.add, entry)

    def flush(self) -> None:
        """Write what is in memory."""
        self._try(self._decision_log.flush)

    def _try(self, act: Callable[..., None], *given: Entry) -> None:
        try:
            act(*given)
        except LSTMStrategyError as error:
            if not self._failed:
                self._strategy.log.error(f"{error}; trading goes on, the decision log will lack bars")
            self._failed = True
        else:
            self._failed = False


def step_of(model: Model | ScheduledModel, *, waiting: bool) -> Step:
    """Return features, raw quantiles and the version of who spoke at the last bar; a bar that waits was not stepped."""
    forecaster = model.forecaster
    if isinstance(forecaster, Forecaster | Switching) and not waiting:
        return (*forecaster.last_step, model.version)
    return None, None, model.version


def open_journal(
    strategy: LSTMStrategy,
    session: Session,
    portfolio: PortfolioConfig | None = None,
    idle: Idle | None = None,
    names: int = 1,
) -> Journal | None:
    """Return the journal of a strategy whose settings ask for one; ``portfolio``: where others share its account.

    ``idle``: by which it writes between bars, shared by all instruments. ``names``: how many these are; a node's share
    what is held in memory.

    Raises
    ------
    LSTMStrategyError
        Where its folder cannot be made.
    """
    settings, model = strategy.settings, session.model
    if settings.decision_log is None:
        return None
    header = Header(
        instrument=settings.instrument_id.value,
        timeframe=session.timeframe.text,
        model=model.label,
        sizing=settings.sizing,
        limits=settings.limits,
        costs=settings.costs,
        voices=model.voices,
        features=_features(model.forecaster),
        closed_ns=model.closed_ns,
        others={name: msgspec.to_builtins(getattr(settings, name)) for name in _others(settings)}
        | ({} if portfolio is None else {"portfolio": msgspec.to_builtins(portfolio)}),
        joint=portfolio is not None,
    )
    return Journal(strategy, session, Path(settings.decision_log), header, idle or Idle(strategy.clock), names)


def _others(settings: LSTMStrategyConfig) -> list[str]:
    """Names of the settings that are neither the engine's own nor told elsewhere in the header."""
    return [name for name in settings.__struct_fields__ if name not in _TOLD]


def _features(forecaster: Forecaster | Recorded | Switching) -> tuple[str, ...]:
    if isinstance(forecaster, Switching):
        return forecaster.features
    return forecaster.features.config.names if isinstance(forecaster, Forecaster) else ()
