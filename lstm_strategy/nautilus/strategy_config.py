"""Settings of a strategy of one instrument, and those that one of several shares with it."""

from __future__ import annotations

from nautilus_trader.trading.config import StrategyConfig

from lstm_strategy.conformal import STATIC, CalibrationConfig
from lstm_strategy.decision import Costs, LimitsConfig, SizingConfig
from lstm_strategy.execution import ExecutionConfig
from lstm_strategy.exits import ExitsConfig
from lstm_strategy.nautilus.engine import BarType, InstrumentId

__all__ = ["LSTMStrategyConfig", "TradingConfig"]


class TradingConfig(StrategyConfig, frozen=True, kw_only=True):
    """What a strategy of one instrument and one of several are set by alike.

    Parameters
    ----------
    sizing, limits
        As in `lstm_strategy.decision`.
    calibration
        As in `lstm_strategy.conformal`.
    exits, execution
        As in `lstm_strategy.exits` and `lstm_strategy.execution`.
    cash_buffer : float
        Share of a purchase's price set aside, beside its costs, for a higher fill (cash accounts).
    retarget_tolerance : float
        How far, as a fraction of equity, the target may move before a working order is cancelled.
    flatten_on_stop : bool
        Whether a stop closes the position; orders are cancelled in any case.
    delay_bars : int
        Bars between a decision and its fill, where it is known to be late: a larger reserve is kept then.
    history_timeout_s : float
        Wall seconds after which an unanswered request for history is repeated.
    history_attempts : int
        Requests after which it goes on with live bars alone.
    refill_holes : bool
        Whether bars that are missing between live ones are asked for. A backtest has all that there are.
    parity_every : int
        Bars between two proofs that features and raw quantiles are those made offline from the same bars; until one
        has succeeded, and after one has failed, nothing may be opened or added. Where `refill_holes`, the venue is
        asked as often whether it still says the same of the bars used.
    parity_tolerance : float
        Beyond this they differ where a start lies further back than the bars held, in standard deviations of a feature
        and in units of σ√h; else they must be equal to the last bit (hybrid networks: within 1e-5).
    follow : bool
        Whether the registry's current version of the model takes over while the strategy runs (see `swap`).
    follow_poll_s : float
        Wall seconds between two looks at the registry.
    shadow_bars : int
        Bars on which another version must have forecast, unheard, before it takes over; 1 or more.
    record : bool
        Whether to keep every bar's decision in memory (backtests).
    decision_log : str, optional
        Folder that gets every bar's decision, with what it was made from, as Parquet (see `decision_log`); of several
        instruments each has a folder of its own in it.
    state_dir : str, optional
        Folder of its own in which the strategy keeps what a restart must know, and looks for the kill file ``KILL``.
    state_poll_s : float
        Wall seconds between two looks for ``KILL`` and for a request to resume; at 0 only bars do (backtests).
    """

    sizing: SizingConfig = SizingConfig()
    limits: LimitsConfig = LimitsConfig()
    calibration: CalibrationConfig = STATIC
    exits: ExitsConfig = ExitsConfig()
    execution: ExecutionConfig = ExecutionConfig()
    cash_buffer: float = 0.002
    retarget_tolerance: float = 0.02
    flatten_on_stop: bool = False
    delay_bars: int = 0
    history_timeout_s: float = 30.0
    history_attempts: int = 10
    refill_holes: bool = True
    parity_every: int = 24
    parity_tolerance: float = 0.001
    follow: bool = False
    follow_poll_s: float = 30.0
    shadow_bars: int = 24
    record: bool = False
    decision_log: str | None = None
    state_dir: str | None = None
    state_poll_s: float = 1.0


class LSTMStrategyConfig(TradingConfig, frozen=True, kw_only=True):
    """Settings of `LSTMStrategy`: those of `TradingConfig`, and

    Parameters
    ----------
    instrument_id, bar_type : str
        Such as ``BTCUSDT.BINANCE`` and ``BTCUSDT.BINANCE-1-HOUR-LAST-EXTERNAL``.
    model : str
        The artefact's folder, ``models/<name>/<version>``.
    costs : Costs
        What trading costs, as the decisions count on it.
    """

    instrument_id: InstrumentId
    bar_type: BarType
    model: str
    costs: Costs = Costs()
