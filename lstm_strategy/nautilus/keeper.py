"""The keeper: writes what a strategy must not forget to its own folder, and hears there what somebody orders.

On a live node an order leaves the process only when the handler that sent it has returned, and the state is written
before that: counters, halts and exit levels know of whatever the venue has seen. A process that
is killed in between has sent nothing; its counters stand an order too high, never too low. After a loss of power the
state may be a tenth of a second old: then an order may be uncounted, and a stop that the venue has is never loosened.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from lstm_strategy.bars import format_ns
from lstm_strategy.errors import LSTMStrategyError, StateError
from lstm_strategy.halt_files import KILL, HaltFiles, one_line
from lstm_strategy.nautilus.engine import loud, on_loop
from lstm_strategy.ordered import HaltOrdered
from lstm_strategy.resume import latched
from lstm_strategy.risk import RiskState, halt, resume
from lstm_strategy.state_file import Kept
from lstm_strategy.state_folder import StateFolder

if TYPE_CHECKING:
    from lstm_strategy.nautilus.desk import Desk

__all__ = ["Holder", "Keeper", "any_ordered"]


class Holder(Protocol):
    """Holds one instrument's position and limits' memory: a strategy of one, or a seat."""

    risk: RiskState | None

    @property
    def model_label(self) -> str: ...

    @property
    def desk(self) -> Desk | None: ...

    def light(self) -> tuple[Any, ...]:
        """Return what an event may change of its state; bars change the rest."""

    def encode(self) -> bytes | None:
        """Return its part of a state that has one for each of several instruments; None where there is but one."""

    def flatten(self) -> None:
        """Cancel and close, and go on with it at every event; nothing where that is under way."""

    def end_closing(self) -> None:
        """Leave off."""


def any_ordered(strategies: Iterable[Any]) -> bool:
    """Say whether somebody has halted one of them."""
    return any(strategy.keeper.ordered for strategy in strategies if hasattr(strategy, "keeper"))


class Keeper:
    """One strategy's state on disk, its kill file, and requests to resume; without a folder, its ordered halt alone.

    Attributes
    ----------
    ordered : str
        Why somebody halted the strategy; empty where nobody did.
    """

    def __init__(self, strategy: Any) -> None:
        self.ordered = ""
        self._strategy = strategy
        settings = strategy.settings
        self._folder = None if settings.state_dir is None else StateFolder(Path(settings.state_dir))
        self._began = self._acting = False
        self._refused = ""  # what was said of a request
        self._last: dict[str, Any] = {}  # by instrument, as of the last write

    @property
    def halted(self) -> bool:
        """Whether a halt flattens: a stop does not leave that half done."""
        risks = [holder.risk for holder in self._holders().values() if holder.risk is not None]
        return bool(self.ordered) or any(r.daily_halt or r.drawdown_halt or r.ordered_halt for r in risks)

    def open(self) -> dict[str, bytes]:
        """Take the folder; return the parts to go on from, none where it is new.

        They are as of the last bar or event, and replace what the engine kept, which is of the last clean stop.

        Raises
        ------
        LSTMStrategyError
            Where another process holds the folder, where nothing in it is whole, or it is another strategy's.
        """
        folder, strategy = self._folder, self._strategy
        self._began = False
        if folder is None:
            return {}
        folder.acquire(f"{strategy.trader_id} {strategy.id}")
        try:
            kept, problem = folder.read()
            if kept is not None:
                self._require_ours(folder, kept)
        except LSTMStrategyError:
            folder.release()
            raise
        if problem:
            strategy.log.error(problem)
        if kept is None:
            return {}
        self.ordered = self.ordered or kept.ordered
        if kept.saved_ns > strategy.clock.timestamp_ns():
            strategy.log.error("The state is of the future: was the clock set back? No bar counts until it is past")
        strategy.log.info(f"Going on from {folder.path} as of {format_ns(kept.saved_ns)}")
        return kept.parts

    def begin(self) -> None:
        """Write from now on, and look out for what is ordered; to be called when all has been taken back."""
        if not self.ordered:  # as the engine kept it
            risks = [holder.risk for holder in self._holders().values()]
            self.ordered = next((r.halt_text or "ordered" for r in risks if r is not None and r.ordered_halt), "")
        if self._folder is None:
            return
        self._began, self._last = True, {}
        self.watch()

    def watch(self) -> None:
        """Look out by the clock; again after a stop over an exception, which takes all timers off."""
        clock, interval = self._strategy.clock, self._strategy.settings.state_poll_s
        if self._began and interval > 0.0 and self._timer not in clock.timer_names:
            clock.set_timer(self._timer, timedelta(seconds=interval), callback=on_loop(clock, self._on_timer))

    def look(self) -> None:
        """Hear a request to resume and a kill file; a halt that was ordered goes on until all is closed."""
        folder = self._folder
        if folder is not None and self._began:
            self._hear(folder.halts)
            reason = folder.halts.kill_reason()
            if reason is not None and not self.ordered:
                self.order(f"{KILL}: {reason}")
        if self.ordered:
            self._obey()

    def order(self, reason: str) -> None:
        """Latch, write it down, cancel and flatten; another order changes nothing. Lifted by `lstm-strategy resume`."""
        told = None
        if not self.ordered:
            self.ordered = one_line(reason) or "no reason given"
            self._strategy.log.warning(f"Halted by order ({self.ordered}): cancelling and closing")
            told = self._as_ordered()
        for holder in self._holders().values():
            if holder.risk is not None:
                holder.risk = self.halted_by_order(holder.risk)
        try:
            self.keep()
        finally:
            self._obey()
            if told is not None:  # a terminal that stands still keeps whoever writes to it: only now
                self._strategy.hears(told)

    def _as_ordered(self) -> HaltOrdered:
        strategy = self._strategy
        open_ = strategy.cache.positions_open(strategy_id=strategy.id)
        held = {one.instrument_id.value: f"{one.signed_decimal_qty().normalize():f}" for one in open_}
        opening = {name: one.desk.opening() for name, one in self._holders().items() if one.desk is not None}
        under_way = {name: f"{quantity.normalize():f}" for name, quantity in opening.items() if quantity}
        return HaltOrdered(strategy.pace.now(strategy.clock.timestamp_ns()), self.ordered, held, under_way)

    def halted_by_order(self, risk: RiskState) -> RiskState:
        """Return the limits' memory with the halt that was ordered, if one was."""
        return halt(risk, self.ordered) if self.ordered and not risk.ordered_halt else risk

    def keep(self) -> None:
        """Write what a restart must know."""
        folder, strategy = self._folder, self._strategy
        if folder is None or not self._began:
            return
        models = {name: holder.model_label for name, holder in self._holders().items()}
        now = strategy.clock.timestamp_ns()
        folder.write(Kept(str(strategy.id), models, now, self.ordered, strategy.on_save()))
        self._last = {name: holder.light() for name, holder in self._holders().items()}

    def __enter__(self) -> None:
        """Begin a handler, at whose end all is kept at once: nothing that it sends leaves the process before that."""
        self._acting = True

    def __exit__(self, *_: object) -> None:
        self._acting = False
        self.keep()

    @loud
    def note(self, event: Any) -> None:
        """Do as `keep` after an event that has changed something; what cannot be written stops the strategy.

        An event of one instrument changes nothing of the others', and theirs is not written anew.
        """
        folder = self._folder
        if folder is None or not self._began or self._acting:
            return
        holders = self._holders()
        instrument_id = getattr(event, "instrument_id", None)
        name = "" if instrument_id is None else instrument_id.value
        holder = holders.get(name)
        if holder is None:
            if {name: one.light() for name, one in holders.items()} != self._last:
                self.keep()
        elif (light := holder.light()) != self._last.get(name):
            part = holder.encode()
            if part is None or not folder.amend(self._strategy.clock.timestamp_ns(), {name: part}):
                self.keep()
            self._last[name] = light

    def pause(self) -> None:
        """Write at a stop, down to the disk."""
        try:
            self.keep()
            if self._folder is not None:
                self._folder.flush()
        except LSTMStrategyError as error:
            self.fail("on_stop", error)

    def close(self) -> None:
        """Give the folder back: what happens from now on is not kept."""
        self._began, self._last = False, {}
        if self._folder is not None:
            self._folder.release()

    def forget(self) -> None:
        """Start anew, as after a reset."""
        self.close()
        self.ordered = ""

    def fail(self, where: str, error: Exception) -> None:
        """Stop the strategy because of ``error``, raised in ``where``."""
        self._strategy.fail(where, error)

    @property
    def _timer(self) -> str:
        return f"{self._strategy.id}-orders-from-outside"

    @loud
    def _on_timer(self, _event: Any) -> None:
        self.look()

    def _say(self, text: str) -> None:
        self._strategy.log.error(text)

    def _holders(self) -> dict[str, Holder]:
        found: dict[str, Holder] = self._strategy.holders()
        return found

    def _obey(self) -> None:
        for holder in self._holders().values():
            holder.flatten()

    def _hear(self, halts: HaltFiles) -> None:
        """Take up a request to resume; what cannot be read or removed lifts nothing, and is said once."""
        try:
            request = halts.request()
            if request is not None:
                halts.drop_request()
        except LSTMStrategyError as error:
            if str(error) != self._refused:
                self._say(str(error))
            self._refused = str(error)
            return
        self._refused = ""
        if request is not None:
            self._resume(halts, *request)

    def _resume(self, halts: HaltFiles, reason: str, asked_ns: int) -> None:
        """Lift what is latched; written down first, so that no halt is lifted that nobody accounts for."""
        strategy, holders = self._strategy, self._holders()
        if not reason:
            strategy.log.error("A request to resume gave no reason, and is refused")
            return
        lifted = latched({name: holder.risk for name, holder in holders.items()}, self.ordered)
        halts.record(strategy.clock.timestamp_ns(), reason, lifted, halts.kill_reason())
        halts.remove_kill(asked_ns)
        self.ordered = ""
        for holder in holders.values():
            if holder.risk is not None and latched({"": holder.risk}):
                holder.risk = resume(holder.risk, reason)
            if strategy.is_running:
                holder.end_closing()
        self.keep()
        strategy.log.warning(f"Resumed ({reason}): {lifted}")

    def _require_ours(self, folder: StateFolder, kept: Kept) -> None:
        """Refuse a state of another strategy, instrument or model by name; another version of a model is none."""
        ours = {name: holder.model_label for name, holder in self._holders().items()}
        mine = str(self._strategy.id)
        if kept.strategy_id != mine:
            told = f"of strategy {kept.strategy_id}, not of {mine}"
        elif others := sorted(set(kept.models) - set(ours)):
            told = f"of {others[0]}, which this strategy does not trade"
        else:
            changed = [n for n, label in kept.models.items() if label.split("/")[0] != ours[n].split("/")[0]]
            if not changed:
                return
            told = f"of model {kept.models[changed[0]]} on {changed[0]}, not of {ours[changed[0]]}"
        raise StateError(
            f"the state in {folder.path} is {told}; give each a state_dir of its own, or remove what is out of date"
        )
