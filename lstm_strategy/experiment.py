"""An experiment: one TOML file, read into frozen, typed sections; nothing unknown is let through."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

import msgspec

from lstm_strategy.bars import Timeframe
from lstm_strategy.conformal import CalibrationConfig
from lstm_strategy.decision import Costs, LimitsConfig, SizingConfig
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.execution import ExecutionConfig
from lstm_strategy.exits import ExitsConfig
from lstm_strategy.features import FeaturesConfig
from lstm_strategy.hyperparameters import (
    NetworkConfig,
    SplitConfig,
    TargetConfig,
    TrainConfig,
    WalkForwardConfig,
    date_of,
)
from lstm_strategy.instrument import Instrument, split_id
from lstm_strategy.live_config import LiveConfig
from lstm_strategy.margin import MarginTier, require_maintenance
from lstm_strategy.policy_grid import Policy, SweepGrid, policies
from lstm_strategy.portfolio import PortfolioConfig
from lstm_strategy.search_space import Settings, Space
from lstm_strategy.toml_file import read_toml
from lstm_strategy.tune_config import TuneConfig

__all__ = ["BacktestConfig", "CostsConfig", "DataConfig", "Experiment", "ModelConfig", "load_experiment"]


class DataConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which bars: instruments (a panel where there are several) at one timeframe."""

    instruments: tuple[str, ...]
    timeframe: str

    def __post_init__(self) -> None:
        if not self.instruments or len(set(self.instruments)) != len(self.instruments):
            raise LSTMStrategyError(f"data.instruments is {list(self.instruments)}; name at least one, each once")
        for instrument_id in self.instruments:
            split_id(instrument_id)
        Timeframe.parse(self.timeframe)


class CostsConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Costs beside the venue's fee, as fractions of price: the whole spread, the slippage a side.

    ``fee`` replaces the taker fee of the instrument.
    """

    fee: float | None = None
    spread: float = 0.0002
    slippage: float = 0.0001

    def __post_init__(self) -> None:
        Costs(fee=self.fee or 0.0, spread=self.spread, slippage=self.slippage)  # refuses what is no fraction

    def of(self, instrument: Instrument) -> Costs:
        """Return the costs of trading this instrument."""
        fee = instrument.taker_fee if self.fee is None else self.fee
        return Costs(fee=fee, spread=self.spread, slippage=self.slippage)


class BacktestConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The backtest: dates (UTC; the test span where not given), starting cash, account, delay of fills.

    ``delay`` 0 fills a decision at the next bar's open; n moves the fill n bars on. ``funding``: whether a perpetual
    pays and earns the rates that were downloaded. ``borrow``: yearly interest on coins sold short on margin.
    ``maintenance``: margin below which a venue liquidates, as a fraction of the position's value, or its tiers; the
    tiers kept beside the bars where it is not given, else 0.05. ``liquidation_fee``: what it charges then, as a part
    of that value. ``participation``: part of a bar's volume that all fills within it may take; the rest of a market
    order is cancelled, and the next close decides anew, a limit order rests on. Without it an order of any size fills,
    the part beyond a quarter of the volume one tick worse. ``tried``: configurations that this one was chosen from,
    itself included, beside those of a tuning study: the deflated Sharpe ratio counts them.
    """

    start: str | None = None
    end: str | None = None
    cash: float = 100_000.0
    account: Literal["cash", "margin"] = "cash"
    delay: int = 0
    funding: bool = True
    borrow: float = 0.0
    maintenance: float | tuple[MarginTier, ...] | None = None
    liquidation_fee: float = 0.0125
    participation: float | None = None
    tried: int = 1

    def __post_init__(self) -> None:
        start, end = date_of("backtest.start", self.start), date_of("backtest.end", self.end)
        if start is not None and end is not None and not start < end:
            raise LSTMStrategyError(f"backtest.start is {self.start}; it must be earlier than backtest.end, {self.end}")
        if not 0 < self.cash <= 1e12:
            raise LSTMStrategyError(f"backtest.cash is {self.cash}; it must be above 0, at most 1e12")
        if not 0 <= self.delay <= 1000:
            raise LSTMStrategyError(f"backtest.delay is {self.delay}; it must be 0 to 1000")
        if not 1 <= self.tried <= 1_000_000:
            raise LSTMStrategyError(f"backtest.tried is {self.tried}; it must be 1 to 1000000, this one included")
        if not 0.0 <= self.borrow < 10.0:
            raise LSTMStrategyError(f"backtest.borrow is {self.borrow}; it must be a yearly rate such as 0.1")
        if self.maintenance is not None:
            require_maintenance(self.maintenance)
        if not 0.0 <= self.liquidation_fee < 1.0:
            raise LSTMStrategyError(
                f"backtest.liquidation_fee is {self.liquidation_fee}; it must be 0 or above, below 1"
            )
        if self.participation is not None and not 0.0 < self.participation <= 1.0:
            raise LSTMStrategyError(f"backtest.participation is {self.participation}; it must be above 0, at most 1")


class ModelConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which model a backtest trades on.

    Parameters
    ----------
    from : "current" or "walk_forward"
        The current artefact, or at each bar the one that an evaluation trained before it.
    evaluation : str, optional
        The evaluation's folder name; the newest where not given.
    seed : int, optional
        Which of the evaluation's seeds; its first where not given.
    forecasts : "recorded" or "stepped"
        Whether the evaluation's forecasts are read, or its models stepped through the bars; the orders are the same.
    """

    source: Literal["current", "walk_forward"] = msgspec.field(name="from", default="current")
    evaluation: str | None = None
    seed: int | None = None
    forecasts: Literal["recorded", "stepped"] = "recorded"

    def __post_init__(self) -> None:
        told = (self.evaluation, self.seed, self.forecasts) != (None, None, "recorded")
        if self.source == "current" and told:
            raise LSTMStrategyError('model.evaluation, seed and forecasts belong to model.from = "walk_forward"')
        if self.evaluation is not None and not re.fullmatch(r"evaluation-[0-9a-f]{8}", self.evaluation):
            raise LSTMStrategyError(
                f"model.evaluation is {self.evaluation[:80]!r}; it must be like evaluation-1a2b3c4d"
            )


class Experiment(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that defines a model and its trading. ``name`` is the model's name too."""

    name: str
    data: DataConfig
    split: SplitConfig
    features: FeaturesConfig = msgspec.field(default_factory=FeaturesConfig)
    target: TargetConfig = msgspec.field(default_factory=TargetConfig)
    network: NetworkConfig = msgspec.field(default_factory=NetworkConfig)
    train: TrainConfig = msgspec.field(default_factory=TrainConfig)
    walk_forward: WalkForwardConfig = msgspec.field(default_factory=WalkForwardConfig)
    tune: TuneConfig = msgspec.field(default_factory=TuneConfig)
    sizing: SizingConfig = msgspec.field(default_factory=SizingConfig)
    limits: LimitsConfig = msgspec.field(default_factory=LimitsConfig)
    calibration: CalibrationConfig = msgspec.field(default_factory=CalibrationConfig)
    costs: CostsConfig = msgspec.field(default_factory=CostsConfig)
    exits: ExitsConfig = msgspec.field(default_factory=ExitsConfig)
    execution: ExecutionConfig = msgspec.field(default_factory=ExecutionConfig)
    backtest: BacktestConfig = msgspec.field(default_factory=BacktestConfig)
    model: ModelConfig = msgspec.field(default_factory=ModelConfig)
    portfolio: PortfolioConfig = msgspec.field(default_factory=PortfolioConfig)
    live: LiveConfig = msgspec.field(default_factory=LiveConfig)
    sweep: SweepGrid = msgspec.field(default_factory=dict)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", self.name):
            raise LSTMStrategyError(f"name is {self.name[:80]!r}; use letters, digits, '_' and '-', 64 at most")
        for horizon in self.sizing.used_horizons:
            if horizon not in self.target.horizons:
                known, key = list(self.target.horizons), "horizons names" if self.sizing.horizons else "horizon is"
                raise LSTMStrategyError(f"sizing.{key} {horizon}; it must be one of target.horizons {known}")
        if self.exits.resting and self.exits.horizon not in self.target.horizons:
            known = list(self.target.horizons)
            raise LSTMStrategyError(f"exits.horizon is {self.exits.horizon}; it must be one of target.horizons {known}")
        if self.sizing.mode == "network" and self.train.objective != "sharpe":
            raise LSTMStrategyError(
                f'sizing.mode is "network", but train.objective is "{self.train.objective}", which learns no position;'
                ' use train.objective = "sharpe", or another mode'
            )
        self.walk_forward.purge_of(self.target)
        self.space()
        if self.limits.side == "long_short" and self.backtest.account == "cash":
            raise LSTMStrategyError(
                'limits.side is "long_short", but a cash account cannot short; use backtest.account = "margin"'
            )
        if self.sweep:
            self.policies()

    def policies(self, instruments: int | None = None) -> dict[str, Policy]:
        """Return what `sweep` runs, by label: each combination fits the rest of the experiment.

        ``instruments``: how many share the account, all of them where not given.
        """
        own = {name: getattr(self, name) for name in Policy.__struct_fields__}
        found = policies(self.sweep, Policy(**own), instruments or len(self.data.instruments))
        for label, policy in found.items():
            try:
                msgspec.structs.replace(self, **msgspec.structs.asdict(policy), sweep={})
            except LSTMStrategyError as error:
                raise LSTMStrategyError(f"sweep, {label}: {error}") from None
        return found

    def training(self, instruments: list[Instrument]) -> TrainConfig:
        """Return how the network is trained, with what trading the dearest of these instruments costs a side."""
        if self.train.objective != "sharpe" or self.train.turnover_cost is not None:
            return self.train
        dearest = max(self.costs.of(instrument).per_side for instrument in instruments)
        return msgspec.structs.replace(self.train, turnover_cost=max(dearest, 0.0))

    def space(self) -> Space:
        """Return what `tune` may vary, around these settings."""
        return Space(self.tune, Settings(self.features, self.network, self.train))


def load_experiment(path: Path) -> Experiment:
    """Read and validate an experiment; every mistake is one line naming the file, the key and what is allowed."""
    return read_toml(path, Experiment)
