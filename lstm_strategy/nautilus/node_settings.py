"""What a node runs, and the one process that may run it under its trader id."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lstm_strategy.bars import Timeframe
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.live_config import LiveConfig
from lstm_strategy.nautilus.adapters import Adapter
from lstm_strategy.nautilus.backtest_settings import BacktestSettings
from lstm_strategy.nautilus.rehearsal import Rehearsal
from lstm_strategy.portfolio import PortfolioConfig

__all__ = ["NodeSettings", "hold_trader"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSettings:
    """What a node runs.

    Parameters
    ----------
    members : tuple of BacktestSettings
        As backtests of the same experiment would have them, one an instrument.
    portfolio : PortfolioConfig, optional
        How several share the account; None trades the only one alone.
    real : bool
        Whether orders go to the venue; else to the simulated one.
    currency : str
        In which the account is kept.
    run_folder : Path
        Exists, and gets the node's log, decisions and results.
    state_folder : Path, optional
        What a restart must know, and the kill file; None keeps nothing, as for a replay, which begins anew.
    base_url : str, optional
        Another address than the venue's own, such as a local exchange's.
    """

    members: tuple[BacktestSettings, ...]
    portfolio: PortfolioConfig | None = None
    live: LiveConfig
    adapter: Adapter
    real: bool
    trader_id: str
    currency: str
    run_folder: Path
    state_folder: Path | None
    base_url: str | None = None
    rehearsal: Rehearsal | None = None

    @property
    def shared(self) -> BacktestSettings:
        """What is the same for all members."""
        return self.members[0]

    @property
    def names(self) -> tuple[str, ...]:
        """The instruments."""
        return tuple(member.instrument_id for member in self.members)

    @property
    def venue(self) -> str:
        """The venue as instruments are named."""
        return self.names[0].rpartition(".")[2]

    @property
    def timeframe(self) -> Timeframe:
        """Of all bars."""
        return Timeframe.parse(self.shared.timeframe)

    @property
    def ping(self) -> str | None:
        """What answers where the venue is up; None where there is nothing to wait for."""
        if self.rehearsal is not None:
            return None
        url = self.adapter.testnet_ping if self.live.testnet else self.adapter.ping
        return url if self.base_url is None else self.base_url + "/" + url.split("/", 3)[3]


@contextmanager
def hold_trader(folder: Path, trader_id: str) -> Iterator[None]:
    """Hold a trader id against other processes on this machine; a crash sets it free.

    Raises
    ------
    LSTMStrategyError
        Where another process holds it.
    """
    path = folder / f"{trader_id}.lock"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise LSTMStrategyError(f"{path} cannot be written: {error.strerror}") from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(lock, 40, 0).decode("utf-8", "replace") or "another process"
            raise LSTMStrategyError(
                f"trader {trader_id} runs already ({holder}); stop it, or give this one its own live.trader_id"
            ) from error
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"process {os.getpid()}".encode(), 0)
        yield
    finally:
        os.close(lock)
