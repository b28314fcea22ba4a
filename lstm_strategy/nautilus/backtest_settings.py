"""What a backtest of one instrument runs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

import msgspec

from lstm_strategy.conformal import STATIC, CalibrationConfig
from lstm_strategy.decision import Costs, LimitsConfig, SizingConfig
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.execution import ExecutionConfig
from lstm_strategy.exits import ExitsConfig
from lstm_strategy.margin import Maintenance, lines_of, margin_asked, require_maintenance
from lstm_strategy.schedule import Schedule

__all__ = ["BacktestSettings"]


class BacktestSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What to run.

    Parameters
    ----------
    catalog : Path
        The catalog's folder.
    model : Path or Schedule
        The artefact's folder (``models/<name>/<version>``), or which model speaks when.
    costs : Costs
        Charged by the venue (the fee on every fill, half the spread and the slippage in every price) and known to the
        decisions.
    exits, execution
        With an exit that rests at the venue, or orders other than market orders, fills happen inside bars (see
        `bar_path`).
    calibration
        How the model's quantiles are calibrated while it speaks.
    charged : Costs, optional
        What the venue charges, where it is not what the decisions count on.
    start, end : int, optional
        Nanoseconds: bars with ``start < ts_close <= end`` are traded, earlier ones warm the model up. All where None.
    cash : float
        Starting balance in quote currency.
    delay : int
        0 fills a decision at the next bar's open, n moves the fill n bars on. With any delay, purchases on a cash
        account leave a larger reserve (see `Desk`); a jump beyond it overdraws the account all the same, as the
        summary's ``lowest_cash`` shows.
    volume_share : float
        The part of a bar's volume offered at its open; what an order takes beyond it fills one tick worse.
    participation : float, optional
        The part of a bar's volume that all fills within it may take; what cannot wait for the next bar is cancelled,
        and the next close decides anew (see `participation`). In the place of ``volume_share``.
    funding : bool
        Whether a perpetual pays and earns the funding rates that lie beside its bars; the notes say for which days.
    borrow : float
        Interest a year on the value of coins sold short on margin, charged at the end of each UTC day.
    maintenance : float or tuple of MarginTier
        Margin that a venue asks for while a position is held, as a fraction of its value or by tiers of it: a margin
        account that falls below it inside a bar loses the position there (see `liquidation`). 0 lets it go on without
        any.
    liquidation_fee : float
        Fraction of the value, charged in the place of ``costs.fee`` on what is liquidated.
    tried : int
        Configurations that this one was chosen from, itself included, beside the trials of a tuning study: the
        deflated Sharpe ratio counts them.
    parity_every : int
        Bars between two proofs of parity; live there are more (see `TradingConfig`).
    run_folder : Path, optional
        Where the results go; it must not exist yet. Nothing is written where None.
    tearsheet : bool
        Whether the engine's own tearsheet is drawn into the run folder (takes seconds; left out without plotly).
    """

    catalog: Path
    instrument_id: str
    timeframe: str
    model: Path | Schedule
    sizing: SizingConfig = msgspec.field(default_factory=SizingConfig)
    limits: LimitsConfig = msgspec.field(default_factory=LimitsConfig)
    costs: Costs = msgspec.field(default_factory=Costs)
    exits: ExitsConfig = msgspec.field(default_factory=ExitsConfig)
    execution: ExecutionConfig = msgspec.field(default_factory=ExecutionConfig)
    calibration: CalibrationConfig = STATIC
    charged: Costs | None = None
    start: int | None = None
    end: int | None = None
    cash: float = 100_000.0
    account: Literal["cash", "margin"] = "cash"
    delay: int = 0
    volume_share: float = 0.25
    participation: float | None = None
    funding: bool = True
    borrow: float = 0.0
    maintenance: Maintenance = 0.05
    liquidation_fee: float = 0.0125
    tried: int = 1
    parity_every: int = 240
    run_folder: Path | None = None
    tearsheet: bool = True

    @property
    def inside_bars(self) -> bool:
        """Whether orders may rest at the venue while a bar goes by."""
        return self.exits.resting or self.execution.mode != "market"

    def __post_init__(self) -> None:
        if not 0.0 < self.cash < math.inf:
            raise LSTMStrategyError(f"backtest.cash is {self.cash}; it must be above 0")
        if self.delay < 0:
            raise LSTMStrategyError(f"backtest.delay is {self.delay}; it must be 0 or above")
        if not 0.0 < self.volume_share <= 1.0:
            raise LSTMStrategyError(f"backtest.volume_share is {self.volume_share}; it must be above 0, at most 1")
        if self.participation is not None and not 0.0 < self.participation <= 1.0:
            raise LSTMStrategyError(f"backtest.participation is {self.participation}; it must be above 0, at most 1")
        if self.tried < 1:
            raise LSTMStrategyError(f"backtest.tried is {self.tried}; it must be 1 or above, this one included")
        if not 0.0 <= self.borrow < 10.0:
            raise LSTMStrategyError(f"backtest.borrow is {self.borrow}; it must be a yearly rate such as 0.1")
        require_maintenance(self.maintenance)
        if not 0.0 <= self.liquidation_fee < 1.0:
            raise LSTMStrategyError(
                f"backtest.liquidation_fee is {self.liquidation_fee}; it must be 0 or above, below 1"
            )
        if self.account == "margin":
            self._require_margin()
        if self.limits.side == "long_short" and self.account == "cash":
            raise LSTMStrategyError('limits.side is "long_short", but a cash account cannot short; use margin')

    def _require_margin(self) -> None:
        """Refuse limits under which the largest position that the starting cash allows would be liquidated at once."""
        largest = self.limits.max_exposure
        rate = margin_asked(largest * self.cash, lines_of(self.maintenance)) / (largest * self.cash)
        told = (
            f"{self.maintenance}"
            if isinstance(self.maintenance, float)
            else f"{rate:.4g} of {largest * self.cash:,.0f}"
        )
        if largest * rate >= 1.0:
            raise LSTMStrategyError(
                f"limits.max_exposure is {largest}; with backtest.maintenance {told} a"
                f" venue would liquidate at {1.0 / rate:g} times equity: lower one of them"
            )
        if self.limits.initial_margin < rate:
            raise LSTMStrategyError(
                f"limits.initial_margin is {self.limits.initial_margin}, below backtest.maintenance,"
                f" {told}: what may be opened would be liquidated at once; raise the one or lower the other"
            )
