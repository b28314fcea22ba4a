"""The parts of summary.json that judge a run: its luck, the rules beside it, what costs do to it, how far it grows."""

from __future__ import annotations

import msgspec

__all__ = ["Around", "Capacity", "Carry", "Companion", "HaltTold", "Luck", "Part", "Sensitivity"]


class Around(msgspec.Struct, frozen=True):
    """Bootstrap intervals of probability ``level``; drawdowns as positive fractions."""

    level: float
    sharpe: tuple[float, float]
    max_drawdown: tuple[float, float]
    block_days: float


class Luck(msgspec.Struct, frozen=True):
    """How far the Sharpe ratio can be told from luck; ``missing`` says why there are no intervals."""

    days: int
    trials: int
    probabilistic_sharpe: float | None
    deflated_sharpe: float | None
    intervals: Around | None = None
    missing: str = ""


class Companion(msgspec.Struct, frozen=True):
    """A rule run beside the strategy; ``error`` says why there is nothing to show."""

    name: str
    error: str = ""
    net_return: float | None = None
    sharpe: float | None = None
    max_drawdown: float | None = None
    orders: float | None = None
    fees: float | None = None
    turnover: float | None = None


class Sensitivity(msgspec.Struct, frozen=True):
    """Sharpe ratios by multiple of the costs (rows) and by delay in bars (columns)."""

    multiples: tuple[float, ...]
    delays: tuple[int, ...]
    sharpe: tuple[tuple[float | None, ...], ...]


class Part(msgspec.Struct, frozen=True):
    """One instrument of several: what it brought in quote currency after costs, and how it was traded and forecast."""

    instrument: str
    orders: int
    fees: float
    result: float | None
    mean_exposure: float | None
    largest_exposure: float | None
    turnover: float | None = None
    absent: int = 0
    pinball: float | None = None
    pinball_baseline: float | None = None
    coverage_80: float | None = None


class Capacity(msgspec.Struct, frozen=True):
    """Starting equity at which 95 % of orders stay within a participation of their bar's volume."""

    participation: float
    equity: float | None


class Carry(msgspec.Struct, frozen=True):
    """What holding cost or earned, in quote currency; each figure positive."""

    funding_paid: float = 0.0
    funding_received: float = 0.0
    fundings: int = 0
    interest: float = 0.0


class HaltTold(msgspec.Struct, frozen=True):
    """One of the ``halts`` of summary.json (see `lstm_strategy.halts.Halt`); amounts in quote currency."""

    kind: str
    ts_close: str
    ts_flat: str | None
    reference: float
    equity: float
    allowed: float
    gap: float
    exposure: float
    move: float
    moved: float
    costs: float
    bound: float
    loss: float
    bars: int
    held: bool
    words: str
    under_way: float = 0.0
