"""The simulated venue's settings, and its exchange: the engine's own, to which orders are on their way by bars."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from nautilus_trader.adapters.sandbox.config import SandboxExecutionClientConfig
from nautilus_trader.backtest.engine import SimulatedExchange
from nautilus_trader.backtest.models import LatencyModel
from nautilus_trader.common.component import TestClock
from nautilus_trader.common.config import ImportableActorConfig
from nautilus_trader.execution.messages import CancelOrder, SubmitOrder

from lstm_strategy.nautilus.tables import Sent

__all__ = ["PaperExchange", "PaperVenueConfig", "Terms"]


class Terms(NamedTuple):
    """What trading one instrument costs there, as fractions; the share of a bar's volume, and the fewest lots, offered
    at its open.
    """

    fee: float
    spread: float
    slippage: float
    volume_share: float
    least: int = 1


class PaperVenueConfig(SandboxExecutionClientConfig, frozen=True, kw_only=True):
    """Settings of `PaperVenue`, as `simulation.Simulation` has them.

    Parameters
    ----------
    terms : dict of Terms
        By instrument: those that are traded.
    timeframe : str
        Of the bars that are traded on.
    delay_ns : int
        How much later than the next open an order reaches the venue.
    modules : tuple of ImportableActorConfig
        What else happens there.
    inside_bars : bool
        Whether orders rest while a bar goes by (with `path_module` among the modules).
    """

    terms: dict[str, Terms]
    timeframe: str
    delay_ns: int = 0
    liquidation_fee: float = 0.0
    modules: tuple[ImportableActorConfig, ...] = ()
    inside_bars: bool = False
    account_dir: str | None = None


class PaperExchange(SimulatedExchange):  # type: ignore[misc]
    """The engine's simulated exchange; orders are under way for a time that counts by bars, not by the wall."""

    def __init__(self, late_ns: int, clock: TestClock, **settings: Any) -> None:
        self._late_ns, self._time = late_ns, clock
        self._under_way: dict[Any, list[tuple[int, int, Any]]] = {}
        # By instrument, what waits for bars that the venue has missed, and since when.
        self._held: dict[Any, list[tuple[int, Any]]] = {}
        self._count = 0
        self.shown: Any = None  # whose market it is that moves
        self.told_ns = 0  # the strategy's time: the stamp of what it was told last
        self.now: Callable[[], int] = lambda: self.told_ns  # it goes on between what is told
        self.ordered: Callable[[], bool] = lambda: False  # whether somebody orders, between two bars, what is sent
        self.sent = Sent({}, {})
        super().__init__(clock=clock, latency_model=LatencyModel(0), use_message_queue=False, **settings)

    def send(self, command: Any) -> None:
        """Send a command on its way; while bars of the past are still to come it waits, and meets none of them.

        It counts as sent at the close that it answers. A halt that somebody orders answers none: the running bar's open
        is past, and not its price.
        """
        held = self._held.get(command.instrument_id)
        since = self.told_ns if held is None and not self.ordered() else max(self.now(), self.told_ns)
        if isinstance(command, SubmitOrder):
            self.sent.orders[command.order.client_order_id.value] = since
        elif isinstance(command, CancelOrder):
            self.sent.cancels[command.client_order_id.value] = since
        if held is not None:
            held.append((since, command))
        else:
            self.put(since + self._late_ns, command)

    def hold(self, instrument_id: Any) -> None:
        """Let commands wait from now on."""
        self._held[instrument_id] = []

    def let_go(self, instrument_id: Any, told_ns: int) -> None:
        """Send what has waited, as of the last bar that was missed."""
        for _, command in self._held.pop(instrument_id, []):
            self.put(told_ns + self._late_ns, command)

    def put(self, due: int, command: Any) -> None:
        """Let a command arrive at a time."""
        self._count += 1
        heapq.heappush(self._under_way.setdefault(command.instrument_id, []), (due, self._count, command))

    def due(self, kind: type[Any], only: Iterable[Any] | None = None) -> dict[Any, int]:
        """Return when orders (`SubmitOrder`), or their ends (`CancelOrder`), arrive, by their identifiers.

        Those that wait for missed bars do so as if sent to a venue that has them: they meet none that had opened by
        then, though this process end and another one bring those bars. ``only``: of some instruments, by identifiers.
        """
        names = {*self._under_way, *self._held} if only is None else set(only)
        heaps = ([(due, one) for due, _, one in self._under_way.get(name, [])] for name in names)
        held = ([(since + self._late_ns, one) for since, one in self._held.get(name, [])] for name in names)
        commands = ((due, one) for waiting in (*heaps, *held) for due, one in waiting if isinstance(one, kind))
        named = ((command.order if isinstance(command, SubmitOrder) else command, due) for due, command in commands)
        return {one.client_order_id: due for one, due in named}

    def process(self, ts_now: int) -> None:
        """Let arrive what was sent long enough ago, then the modules act; as the backtest settles its venues.

        Only what is for the instrument that was shown: the others' markets are still those of the bar before.
        """
        self._time.set_time(ts_now)
        waiting = self._under_way.get(self.shown, [])
        while waiting and waiting[0][0] <= ts_now:
            while waiting and waiting[0][0] <= ts_now:
                super().send(heapq.heappop(waiting)[2])
            self.get_matching_engine(self.shown).iterate(ts_now)
        super().process(ts_now)
