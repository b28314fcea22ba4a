"""State that outlives a process, and halts from outside: torn files, restarts at every step, kill files, resuming."""

from __future__ import annotations

import errno
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
from engine_support import HOUR, LOOSE, PERPETUAL, SIGN, SPOT, make_bars, random_bars, run, tell
from typer.testing import CliRunner

from lstm_strategy import state_folder
from lstm_strategy.bars import Bars
from lstm_strategy.cli import app
from lstm_strategy.decision import RiskState, SizingConfig
from lstm_strategy.decision_log_reader import read_log
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.execution import ExecutionConfig
from lstm_strategy.exits import ExitsConfig
from lstm_strategy.halt_files import KILL, HaltFiles, one_line
from lstm_strategy.instrument import Instrument
from lstm_strategy.nautilus import strategy as strategy_module
from lstm_strategy.nautilus.backtest import BacktestRun
from lstm_strategy.nautilus.engine import OrderSide, Price, Quantity, name_of_side, name_of_status
from lstm_strategy.nautilus.obeyed import Obeyed
from lstm_strategy.nautilus.status import Observers
from lstm_strategy.nautilus.strategy import LSTMStrategy
from lstm_strategy.ordered import HaltOrdered
from lstm_strategy.report.explain_words import sum_up_log
from lstm_strategy.state_file import Change, Kept, decode, digest_of, encode, encode_change
from lstm_strategy.state_folder import FolderHeldError, StateFolder

type Deed = Callable[[LSTMStrategy], None]
KEPT = Kept("S-000", {SPOT.id: "told/1"}, 7, "", {"risk": RiskState.start(HOUR.ns, 100.0).encode(), "forecaster": b"x"})
PARTS = SizingConfig(mode="fixed_fraction", fraction=0.5, no_trade_band=0.0)


def resume(*words: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["resume", *words])
    told = str(done.exception) if isinstance(done.exception, LSTMStrategyError) else done.output
    return done.exit_code, told


# -- the file ----------------------------------------------------------------------------------------------------------


def test_a_file_torn_at_any_length_or_changed_in_any_byte_is_refused_in_one_line() -> None:
    content = encode(KEPT)
    assert decode(content) == (KEPT, "")
    for length in range(len(content)):
        with pytest.raises(LSTMStrategyError) as refused:
            decode(content[:length])
        assert "\n" not in str(refused.value)
    for at in range(len(content)):
        with pytest.raises(LSTMStrategyError):
            decode(content[:at] + bytes([content[at] ^ 0x40]) + content[at + 1 :])


def test_the_latest_whole_one_is_used_the_others_are_told_and_none_left_is_an_error(tmp_path: Path) -> None:
    folder = StateFolder(tmp_path)
    assert folder.read() == (None, "")
    folder.acquire("one")
    for saved in range(1, 5):  # shorter contents over longer ones
        folder.write(msgspec.structs.replace(KEPT, saved_ns=saved, parts={"risk": bytes(1000 // saved)}))
    folder.release()
    names = ("state.0", "state.1", "state.synced")
    contents = {name: (tmp_path / name).read_bytes() for name in names}
    assert [decode(contents[name])[0].saved_ns for name in names] == [4, 3, 4]

    def lay(**changed: bytes) -> None:
        for name, content in (contents | {name.replace("_", "."): part for name, part in changed.items()}).items():
            (tmp_path / name).write_bytes(content)

    torn = contents["state.0"][:40]
    for changed, saved in (
        ({}, 4),
        ({"state_0": torn}, 4),
        ({"state_synced": torn}, 4),
        ({"state_0": torn, "state_synced": contents["state.1"]}, 3),  # killed before the disk had it
        ({"state_0": torn, "state_synced": torn}, 3),
        ({"state_0": torn, "state_1": torn}, 4),
    ):
        lay(**changed)
        kept, problem = folder.read()
        assert kept is not None
        assert kept.saved_ns == saved
        for name in names:
            assert (f"{name} is torn" in problem) == (changed.get(name.replace(".", "_")) == torn)
    lay(state_0=b"")  # a turn not yet written is no damage
    kept, problem = folder.read()
    assert (kept and kept.saved_ns, problem) == (4, "")
    lay(state_0=b"", state_1=torn, state_synced=b"another thing")
    with pytest.raises(LSTMStrategyError, match=r"torn.*no state file.*look at the account, then remove") as refused:
        folder.read()
    assert "\n" not in str(refused.value)
    with (tmp_path / "state.1").open("wb") as large:
        large.truncate(2**29)  # sparse
    with pytest.raises(LSTMStrategyError, match="too large"):
        folder.read()


def test_changes_of_one_instrument_are_added_to_the_whole_and_end_with_it(tmp_path: Path) -> None:
    folder = StateFolder(tmp_path)
    folder.acquire("one")
    assert not folder.amend(1, {"a": b"1"})  # to nothing
    seats = msgspec.msgpack.encode({"a": b"0", "b": b"0"})
    for saved in (1, 10):
        folder.write(
            msgspec.structs.replace(KEPT, saved_ns=saved, parts={"seats": seats, "panel": bytes(500 // saved)})
        )
        for change in range(1, 4):
            assert folder.amend(saved + change, {"ab"[change % 2]: b"%d" % change})
    folder.flush()
    for name in ("state.0", "state.synced"):
        kept, problem = decode((tmp_path / name).read_bytes())
        assert (kept.saved_ns, kept.age, problem) == (13, (2, 3), "")
        assert msgspec.msgpack.decode(kept.parts["seats"]) == {"a": b"2", "b": b"3"}
        assert kept.parts["panel"] == bytes(50)
    older = decode((tmp_path / "state.1").read_bytes())[0]
    assert (older.saved_ns, older.age) == (4, (1, 3))
    assert folder.read()[0] == kept
    folder.write(msgspec.structs.replace(kept, parts={}))  # as a request to resume does; over longer ones
    assert [decode((tmp_path / f"state.{n}").read_bytes())[0].age for n in (0, 1)] == [(2, 3), (3, 0)]
    folder.release()
    again = StateFolder(tmp_path)
    again.acquire("two")
    assert not again.amend(1, {"a": b"1"})  # before it has written anything itself
    again.release()


def test_what_cannot_be_written_is_written_anew_and_takes_nothing_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk tears the one that is being written, never both; nothing is added to what is torn."""
    folder, full = StateFolder(tmp_path), [False]
    folder.acquire("one")
    pwrite = os.pwrite

    def write_half(descriptor: int, content: Any, start: int) -> int:
        if not full[0]:
            return pwrite(descriptor, content, start)
        pwrite(descriptor, content[: len(content) // 2], start)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def whole(saved: int) -> Kept:
        return msgspec.structs.replace(KEPT, saved_ns=saved, parts={"seats": msgspec.msgpack.encode({"a": b"0"})})

    def found() -> int:
        kept, _ = StateFolder(tmp_path).read()
        assert kept is not None
        return kept.saved_ns

    monkeypatch.setattr(os, "pwrite", write_half)
    folder.write(whole(1))
    folder.write(whole(2))
    folder.flush()
    (tmp_path / "state.synced").unlink()
    full[0] = True
    for saved in (3, 4):
        with pytest.raises(LSTMStrategyError, match="No space left"):
            folder.write(whole(saved))
        assert found() == 2
    full[0] = False
    assert not folder.amend(5, {"a": b"halted"})
    folder.write(whole(6))
    assert folder.amend(7, {"a": b"halted"})
    assert found() == 7
    full[0] = True
    with pytest.raises(LSTMStrategyError, match="No space left"):
        folder.amend(8, {"a": b"on"})
    full[0] = False
    assert not folder.amend(9, {"a": b"on"})
    assert found() == 7
    folder.release()


def test_a_change_torn_at_any_length_or_changed_in_any_byte_leaves_what_was_there_before_it() -> None:
    seats = msgspec.msgpack.encode({"a": b"0", "b": b"0"})
    whole = encode(msgspec.structs.replace(KEPT, parts={"seats": seats}, number=4))
    first, second = (encode_change(Change(digest_of(whole), n, 10 + n, {"a": b"%d" % n})) for n in (1, 2))
    content = whole + first + second + encode_change(Change(bytes(32), 3, 99, {"a": b"older"}))  # left over
    ends = [len(whole), len(whole) + len(first), len(whole) + len(first) + len(second)]

    def read(content: bytes) -> tuple[int, bytes, bool]:
        kept, problem = decode(content)
        assert "\n" not in problem
        return kept.changes, msgspec.msgpack.decode(kept.parts["seats"])["a"], bool(problem)

    assert read(content) == (2, b"2", False)
    for length in range(len(whole), ends[2]):
        changes = sum(length >= end for end in ends[1:])
        begun = length - ends[changes] >= 22  # its first line is there
        assert read(content[:length]) == (changes, b"%d" % changes, begun)
    for at in range(len(whole), ends[2]):
        changes = sum(at >= end for end in ends[1:])
        found = read(content[:at] + bytes([content[at] ^ 0x40]) + content[at + 1 :])
        assert found == (changes, b"%d" % changes, at - ends[changes] >= 22)


def test_changes_of_a_whole_that_was_torn_are_not_taken_for_those_of_the_next_with_its_number(tmp_path: Path) -> None:
    def whole(a: bytes) -> Kept:
        return msgspec.structs.replace(KEPT, parts={"seats": msgspec.msgpack.encode({"a": a})})

    first = StateFolder(tmp_path)
    first.acquire("one")
    first.write(whole(b"trades"))
    first.flush()
    confirmed = (tmp_path / "state.synced").read_bytes()
    first.write(whole(b"trades"))
    assert first.amend(9, {"a": b"trades"})
    first.release()
    # The power goes: of the newest the disk has the change, and not all of the whole before it.
    (tmp_path / "state.synced").write_bytes(confirmed)
    torn = bytearray((tmp_path / "state.0").read_bytes())
    torn[70] ^= 1
    (tmp_path / "state.0").write_bytes(torn)
    second = StateFolder(tmp_path)
    second.acquire("two")
    assert second.read()[0] == msgspec.structs.replace(whole(b"trades"), number=1)
    halted = whole(b"halted")
    assert len(encode(halted)) == len(encode(whole(b"trades"))), "else the change is written over"
    second.write(halted)
    second.release()
    (tmp_path / "state.synced").unlink()  # killed before it was there
    assert StateFolder(tmp_path).read()[0] == msgspec.structs.replace(halted, number=2)


@pytest.mark.parametrize("before", [True, False])
def test_who_reads_while_another_writes_is_told_of_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: bool
) -> None:
    """Else `resume` would say of a node that has just begun that its state is to be removed."""
    node = StateFolder(tmp_path)
    node.acquire("node")
    if before:
        node.write(KEPT)
        node.flush()
    for name in ("state.0", "state.1"):
        with (tmp_path / name).open("ab") as file:
            file.truncate(10)

    def go_on(_: float) -> None:
        for _ in ("state.0", "state.1"):
            node.write(msgspec.structs.replace(KEPT, ordered="enough"))

    with monkeypatch.context() as patch:
        patch.setattr(state_folder, "time", SimpleNamespace(sleep=go_on))
        kept, problem = StateFolder(tmp_path).read()
    node.release()
    assert kept is not None
    assert (kept.ordered, problem) == ("enough", "")

    for name in ("state.0", "state.1", "state.synced"):
        (tmp_path / name).write_bytes(b"lstm")
    with pytest.raises(LSTMStrategyError, match="no other is left"):
        StateFolder(tmp_path).read()


def test_numbers_go_on_after_a_restart(tmp_path: Path) -> None:
    for turn in range(3):
        folder = StateFolder(tmp_path)
        folder.acquire("one")
        folder.read()
        folder.write(msgspec.structs.replace(KEPT, saved_ns=turn))
        folder.release()
    kept, _ = StateFolder(tmp_path).read()
    assert kept is not None
    assert (kept.saved_ns, kept.number) == (2, 3)


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    folder = StateFolder(tmp_path / "gone")
    folder.acquire("one")
    folder.write(KEPT)
    folder.flush()
    (tmp_path / "gone").rename(tmp_path / "away")
    folder.write(KEPT)
    with pytest.raises(LSTMStrategyError, match=r"gone was taken away"):
        folder.flush()
    assert not (tmp_path / "gone").exists()
    folder.release()
    (tmp_path / "file").write_text("")
    with pytest.raises(LSTMStrategyError, match="cannot use the state folder"):
        StateFolder(tmp_path / "file").acquire("one")


WRITER = """
import sys
from pathlib import Path
from lstm_strategy.state_file import Kept
from lstm_strategy.state_folder import StateFolder

folder = StateFolder(Path(sys.argv[1]))
folder.acquire("TRADER-001")
folder.read()
for turn in range(10**9):
    folder.write(Kept("S-000", {}, turn, "", {"risk": bytes(50_000)}))
    if turn == 5:
        print("writing", flush=True)
"""


def test_a_process_killed_while_it_writes_leaves_a_whole_state_and_no_lock(tmp_path: Path) -> None:
    last = 0
    for turn in range(4):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE)
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"writing\n"
        second = StateFolder(tmp_path)
        with pytest.raises(FolderHeldError, match=rf"process {writer.pid}, TRADER-001.*two nodes with one trader id"):
            second.acquire("TRADER-002")
        time.sleep(random.Random(turn).uniform(0.0, 0.05))
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        kept, _ = second.read()  # at most the one that was being written is torn
        assert kept is not None
        assert kept.number > max(last, 5)
        last = kept.number
        second.acquire("TRADER-002")
        second.release()


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda kill: kill.touch(), "no reason given"),
        (lambda kill: kill.write_bytes(b"\xff\x00 the\nmarket is   odd\x1b[31m" + b"!" * 10**6), "the market is odd"),
        (lambda kill: kill.mkdir(), "cannot be read"),
        (lambda kill: os.mkfifo(kill), "no reason given"),
    ],
)
def test_whatever_lies_there_under_that_name_halts(tmp_path: Path, make: Callable[[Path], None], told: str) -> None:
    halts = HaltFiles(tmp_path)
    assert halts.kill_reason() is None
    make(tmp_path / KILL)
    reason = halts.kill_reason()
    assert reason is not None
    assert told in reason
    assert len(reason) <= 200
    assert reason.isprintable()
    assert one_line(reason) == reason


# -- restarts ----------------------------------------------------------------------------------------------------------


def reborn(strategy: LSTMStrategy) -> None:
    """Forget all that a process forgets, and start on what lies in the folder; the venue knows what it knew."""
    record = strategy.record
    strategy.keeper.close()
    strategy.on_reset()
    strategy.record = record
    strategy.on_start()


def trade(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    bars: Bars,
    instrument: Instrument = SPOT,
    sizing: SizingConfig = PARTS,
    *,
    before: dict[int, Deed] | None = None,
    after: dict[int, Deed] | None = None,
    on_call: Callable[[int], bool] = lambda _: False,
    settings: dict[str, Any] | None = None,
    **changes: Any,
) -> tuple[BacktestRun, LSTMStrategy]:
    """Run with a state folder, and do what is told before and after the bars of given hours, or after a call."""
    made: list[LSTMStrategy] = []
    before, after = before or {}, after or {}

    class Keeping(LSTMStrategy):
        def __init__(self, config: Any) -> None:
            own = {"state_dir": str(tmp_path / "state"), "state_poll_s": 0.0} | (settings or {})
            super().__init__(msgspec.structs.replace(config, **own))
            self.calls, self.inside = 0, False
            made.append(self)

        def on_bar(self, bar: Any) -> None:
            hour = bar.ts_event // HOUR.ns
            if hour in before:
                before[hour](self)
            self.inside = True
            super().on_bar(bar)
            self.inside = False
            if hour in after:
                after[hour](self)
            self.called()

        def handle_event(self, event: Any) -> None:
            super().handle_event(event)
            self.seen = [(name_of_side(order), name_of_status(order)) for order in self.cache.orders()]
            if not self.inside:  # a live node sends, and hears of it, only after the handler's end
                self.called()

        def called(self) -> None:
            self.calls += 1
            if on_call(self.calls) and self.failure is None and self.is_running:
                reborn(self)

    monkeypatch.setattr(strategy_module, "LSTMStrategy", Keeping)
    finished = run(tmp_path / "run", bars, instrument, sizing, **changes)
    return finished, made[-1]


def orders(finished: BacktestRun) -> list[tuple[Any, ...]]:
    table = finished.tables["orders"].to_pylist()
    return [(row["ts_sent"].value, row["side"], row["quantity"], row["status"]) for row in table]


def kept_in(tmp_path: Path) -> Kept:
    kept, problem = StateFolder(tmp_path / "state").read()
    assert kept is not None
    assert problem == ""
    return kept


def as_alive(parts: dict[str, bytes]) -> dict[str, Any]:
    """What must be the same: floats that are NaN compare by their text."""
    return {name: repr(msgspec.msgpack.decode(part)) if name != "forecaster" else part for name, part in parts.items()}


CASES = {
    "orders at market": (SPOT, {"limits": msgspec.structs.replace(LOOSE, orders_per_day=5, orders_per_hour=1)}),
    "halts": (SPOT, {"limits": msgspec.structs.replace(LOOSE, daily_loss=0.02, max_losses=2, cooldown_hours=5.0)}),
    "a trailing stop": (
        PERPETUAL,
        {"account": "margin", "exits": ExitsConfig(stop=1.5, trailing=True, max_bars=9, pause_bars=2)},
    ),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("seed", range(2))
def test_whoever_is_restarted_at_every_bar_trades_as_who_never_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str, seed: int
) -> None:
    """Order for order, and to the last bit of forecaster, limits and exits."""
    instrument, options = CASES[case]
    rng = np.random.default_rng(seed)
    means = rng.normal(0.0, 1e-3, 200)
    tell(monkeypatch, lambda ts: float(means[ts // HOUR.ns]))
    bars = random_bars(45, instrument, seed=seed)

    def restart(strategy: LSTMStrategy) -> None:
        if strategy._session is not None and strategy._session.desk._then is None:  # what waits is decided anew
            restarts.append(strategy)
            reborn(strategy)

    restarts: list[LSTMStrategy] = []
    sizing = SIGN if case != "a trailing stop" else PARTS
    whole, alive = trade(tmp_path / "whole", monkeypatch, bars, instrument, sizing, **options)
    often = dict.fromkeys(range(1, 46), restart)
    broken, back = trade(tmp_path / "broken", monkeypatch, bars, instrument, sizing, after=often, **options)
    assert len(restarts) > 20
    assert len(orders(whole)) > 5
    assert orders(broken) == orders(whole)
    assert broken.tables["decisions"].equals(whole.tables["decisions"])
    assert back.risk == alive.risk
    kept, wanted = kept_in(tmp_path / "broken"), kept_in(tmp_path / "whole")
    assert as_alive(kept.parts) == as_alive(wanted.parts)


@pytest.mark.parametrize("seed", range(3))
def test_restarts_between_an_order_and_its_fill_double_and_orphan_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    means = np.random.default_rng(seed).normal(0.0, 1e-3, 200)
    tell(monkeypatch, lambda ts: float(means[ts // HOUR.ns]))
    bars = random_bars(30, seed=seed)
    limits = msgspec.structs.replace(LOOSE, orders_per_day=5)
    whole, _ = trade(tmp_path / "whole", monkeypatch, bars, sizing=SIGN, limits=limits)
    seldom = random.Random(seed)
    broken, _ = trade(
        tmp_path / "broken", monkeypatch, bars, sizing=SIGN, limits=limits, on_call=lambda _: seldom.random() < 0.5
    )
    assert orders(broken) == orders(whole)
    assert len(orders(whole)) > 5


@pytest.mark.parametrize(("lost_at", "level"), [(4, 100.0), (5, 110.0)])  # while the stop is moved, and at rest
def test_a_state_older_than_the_last_order_doubles_nothing_and_loosens_no_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost_at: int, level: float
) -> None:
    """As after a loss of power: the venue has what the disk has not."""
    tell(monkeypatch, lambda _: 1e-3)
    closes = np.array([100.0, 100.0, 110.0, 120.0, 119.0, 119.0, 119.0, 119.0])
    opens = np.concatenate([[100.0], closes[:-1]])
    low, high = np.minimum(opens, closes), np.maximum(opens, closes)
    bars = Bars(PERPETUAL.id, HOUR, (np.arange(8) + 1) * HOUR.ns, opens, high, low, closes, np.full(8, 1e6))
    older: list[bytes] = []
    levels: list[float] = []

    def lose(strategy: LSTMStrategy) -> None:
        strategy.keeper.close()
        for name in ("state.0", "state.1", "state.synced"):
            (tmp_path / "state" / name).write_bytes(older[0])
        reborn(strategy)

    def look(strategy: LSTMStrategy) -> None:
        levels.extend(float(o.trigger_price) for o in strategy.cache.orders_open() if o.has_trigger_price)

    finished, strategy = trade(
        tmp_path,
        monkeypatch,
        bars,
        PERPETUAL,
        PARTS,
        account="margin",
        exits=ExitsConfig(stop=6.0, trailing=True),
        limits=msgspec.structs.replace(LOOSE, orders_per_day=1),
        after={2: lambda _: older.append(encode(kept_in(tmp_path))), lost_at: lose, 6: look, 8: look},
        before={6: look, 7: look},
    )
    assert strategy.failure is None
    assert len(levels) == 4
    assert levels == sorted(levels)
    assert levels[0] > level
    bought = [order for order in orders(finished) if order[1] == "buy"]
    assert len(bought) == 1


def test_the_real_forecaster_goes_on_to_the_last_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_artefact: Path
) -> None:
    bars = random_bars(560)
    restarts = dict.fromkeys((10, 499, 500, 520, 559), reborn)
    sizing = SizingConfig(mode="volatility_target", target_volatility=0.3, no_trade_band=0.0)
    options: dict[str, Any] = {"sizing": sizing, "model": tiny_artefact, "account": "margin"}
    options["limits"] = msgspec.structs.replace(LOOSE, side="long_short")  # untrained, it expects losses
    wanted, _ = trade(tmp_path / "whole", monkeypatch, bars, **options)
    found, _ = trade(tmp_path / "broken", monkeypatch, bars, after=restarts, **options)
    assert len(orders(wanted)) > 10
    assert orders(found) == orders(wanted)
    assert kept_in(tmp_path / "broken").parts == kept_in(tmp_path / "whole").parts
    assert len(kept_in(tmp_path / "whole").parts["forecaster"]) > 1000


# -- halts from outside ------------------------------------------------------------------------------------------------


def steady(n: int, first_close: int = 1, instrument: Instrument = SPOT) -> Bars:
    price = np.full(n, 100.0)
    return make_bars(price, price, instrument, first_close=first_close)


def reasons(finished: BacktestRun) -> list[str]:
    found: list[str] = finished.tables["decisions"]["reason"].to_pylist()
    return found


def balance(finished: BacktestRun) -> float:
    """What the fills left of a position."""
    fills = finished.tables["orders"].to_pylist()
    return round(sum(row["filled"] * (1.0 if row["side"] == "buy" else -1.0) for row in fills), 9)


def put_kill_file(strategy: LSTMStrategy) -> None:
    (Path(str(strategy.settings.state_dir)) / KILL).write_text("a drill\n")


def test_a_kill_file_flattens_latches_survives_and_is_lifted_by_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell(monkeypatch, lambda _: 1e-3)
    first, _ = trade(tmp_path, monkeypatch, steady(10), before={5: put_kill_file})
    assert reasons(first)[4:] == ["halt_ordered"] * 6
    assert [(sent // HOUR.ns, side) for sent, side, _, _ in orders(first)] == [(1, "buy"), (5, "sell")]
    assert balance(first) == 0.0
    state = tmp_path / "state"
    assert kept_in(tmp_path).ordered == "KILL: a drill"

    (state / KILL).unlink()  # removing the file lifts nothing
    second, again = trade(tmp_path, monkeypatch, steady(5, first_close=11))
    assert reasons(second) == ["halt_ordered"] * 5
    assert not orders(second)
    assert again.risk is not None
    assert again.risk.halt_text == "KILL: a drill"

    (state / KILL).write_text("still there")
    for words, told in (
        ((str(state), "--reason", "  "), "say in one line"),
        ((str(state), "--reason", "one\ntwo"), "say in one line"),
        ((str(state), "--reason", "x" * 201), "say in one line"),
        ((str(tmp_path), "--reason", "drill is over"), "is no state folder"),
    ):
        code, text = resume(*words)
        assert code == 1
        assert told in text
    code, text = resume(str(state), "--reason", "drill is over")
    assert (code, "lifted" in text, "still there" in text) == (0, True, True)
    assert not (state / KILL).exists()
    (line,) = [msgspec.json.decode(line) for line in (state / "resumed.jsonl").read_bytes().splitlines()]
    assert set(line) == {"time", "reason", "lifted", "kill_file"}
    assert (line["reason"], line["lifted"]) == ("drill is over", {SPOT.id: ["ordered"]})
    assert resume(str(state), "--reason", "again") == (1, f"nothing is latched in {state}")

    third, _ = trade(tmp_path, monkeypatch, steady(5, first_close=16))
    assert [side for _, side, _, _ in orders(third)] == ["buy"]


def test_whoever_watches_hears_at_once_who_ordered_a_halt_and_what_it_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell(monkeypatch, lambda _: 1e-3)
    told: list[tuple[str, str]] = []

    class Watcher:
        def on_ordered(self, text: str, instrument: str) -> None:
            told.append((text, instrument))

    def watch(strategy: LSTMStrategy) -> None:
        strategy.hears = Obeyed(strategy, Observers([Watcher()])).hear  # type: ignore[list-item]

    def kill(strategy: LSTMStrategy) -> None:
        assert not told  # the entry was no halt's
        put_kill_file(strategy)

    finished, _ = trade(tmp_path, monkeypatch, steady(10), before={1: watch, 5: kill})
    (entry, close) = orders(finished)
    (halt, closed) = told
    held = f"{entry[2]:.10g}"
    assert (entry[1], close[1]) == ("buy", "sell")
    who = "1970-01-01T05:00:00Z a halt was ordered by the kill file (a drill)"
    assert halt == (f"{who}: cancels orders, closes {held} {SPOT.id}", "")
    assert closed[1] == SPOT.id
    what = rf"1970-01-01T05:00:00Z halt by order: {held} filled at [\d.]+; flat, result \S+ USDT"
    assert re.fullmatch(what, closed[0])


@pytest.mark.parametrize(
    ("changes", "became"),
    [
        ({}, ["the buy that was under way filled: 500 at 100, which is closed now", "500 filled at 100; flat, result"]),
        ({"execution": ExecutionConfig(mode="post_only")}, ["the buy of 500 that was under way is cancelled"]),
    ],
)
def test_an_entry_under_way_when_a_halt_is_ordered_is_told_as_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], became: list[str]
) -> None:
    """Its fill is no half of a closed position, and nothing held is not all that is at stake."""
    tell(monkeypatch, lambda _: 1e-3)
    told: list[str] = []

    class Watcher:
        def on_ordered(self, text: str, _instrument: str) -> None:
            told.append(text)

    def watch(strategy: LSTMStrategy) -> None:
        strategy.hears = Obeyed(strategy, Observers([Watcher()])).hear  # type: ignore[list-item]

    trade(
        tmp_path, monkeypatch, steady(6), before={1: watch}, after={1: lambda s: s.order_halt("the button")},
        run_folder=tmp_path / "out", **changes,
    )  # fmt: skip
    halt, *after = told
    assert halt.endswith(f"cancels orders; a buy of 500 {SPOT.id} under way: what still fills of it is closed")
    assert len(after) == len(became)
    assert all(f" halt by order: {words}" in line for words, line in zip(became, after, strict=True)), after
    (episode,) = sum_up_log(read_log(tmp_path / "out"))["halts"]
    left = "nothing" if len(became) == 1 else "500"  # the halt's own order fills at the next open
    what = f"nothing was held at the close before it with a buy of 500 under way, {left} at the first in it"
    assert episode["told"] == f"ordered by order_halt (the button); {what}"


@pytest.mark.parametrize(
    ("side", "told"),
    [
        ("BUY", "the buy that was under way filled: 3 at 100, 5 in all is closed now"),
        ("SELL", "3 filled at 100; 5 is left"),
    ],
)
def test_a_fill_of_a_position_held_is_told_by_its_side(side: str, told: str) -> None:
    fills = [
        SimpleNamespace(ts_event=ts, last_qty=Quantity.from_str("3"), last_px=Price.from_str("100.0"), order_side=of)
        for ts, of in ((1, "other"), (7, OrderSide[side]), (8, "later"))
    ]
    changed = SimpleNamespace(
        ts_event=7,
        last_qty=fills[1].last_qty,
        last_px=fills[1].last_px,
        quantity=Quantity.from_str("5"),
        signed_qty=5.0,
        entry=OrderSide.BUY,
        position_id="P",
        instrument_id=None,
    )
    strategy = SimpleNamespace(cache=SimpleNamespace(position=lambda _: SimpleNamespace(events=fills)))
    assert Obeyed(strategy, Observers())._filled(changed) == f"1970-01-01T00:00:00Z halt by order: {told}"


def test_a_halt_is_told_only_when_it_is_written_down_and_under_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A terminal that stands still (Ctrl-S, a full pipe) keeps whoever writes to it: it must not keep the halt."""
    tell(monkeypatch, lambda _: 1e-3)
    found: list[tuple[str, int]] = []

    def watch(strategy: LSTMStrategy) -> None:
        def hear(event: Any) -> None:
            if isinstance(event, HaltOrdered):
                found.append((kept_in(tmp_path).ordered, len(strategy.cache.orders())))

        strategy.hears = hear  # type: ignore[method-assign, assignment]
        strategy.order_halt("the button")

    finished, _ = trade(tmp_path, monkeypatch, steady(6), after={4: watch})
    assert found == [("the button", 2)]
    assert balance(finished) == 0.0


@pytest.mark.parametrize("crash", range(1, 8))
def test_a_crash_at_any_step_of_a_halt_leaves_no_position(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crash: int
) -> None:
    tell(monkeypatch, lambda _: 1e-3)
    started: list[int] = []

    def halt(strategy: LSTMStrategy) -> None:
        started.append(strategy.calls)
        strategy.order_halt("the button")

    finished, strategy = trade(
        tmp_path,
        monkeypatch,
        steady(9, instrument=PERPETUAL),
        PERPETUAL,
        account="margin",
        exits=ExitsConfig(stop=6.0),
        after={4: halt},
        on_call=lambda calls: bool(started) and calls == started[0] + crash,
    )
    assert strategy.failure is None
    assert balance(finished) == 0.0
    assert reasons(finished)[4:] == ["halt_ordered"] * 5
    assert not [order for order in orders(finished) if order[3] in ("accepted", "submitted")]
    assert [side for _, side, _, status in orders(finished) if status == "filled"] == ["buy", "sell"]


def test_a_halt_between_two_bars_is_carried_out_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tell(monkeypatch, lambda _: 1e-3)
    finished, _ = trade(tmp_path, monkeypatch, steady(8), after={4: put_kill_file}, settings={"state_poll_s": 420.0})
    (bought, *_), (sold, *_) = orders(finished)
    assert (bought // HOUR.ns, sold // HOUR.ns) == (1, 4)
    assert 0 < sold - 4 * HOUR.ns <= 420 * 10**9


def test_a_halt_before_the_first_bar_holds_and_a_stop_does_not_undo_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell(monkeypatch, lambda _: 1e-3)
    finished, strategy = trade(tmp_path, monkeypatch, steady(4), before={1: lambda s: s.order_halt("\n")})
    assert reasons(finished) == ["halt_ordered"] * 4
    assert strategy.risk is not None
    assert strategy.risk.halt_text == "no reason given"

    stopped: list[Any] = []

    def halt_and_stop(strategy: LSTMStrategy) -> None:
        stopped.append(strategy)
        strategy.order_halt("leave")
        strategy.stop()

    (tmp_path / "second").mkdir()
    with pytest.raises(LSTMStrategyError, match="stopped after 4 of 8 bars"):
        trade(tmp_path / "second", monkeypatch, steady(8), after={4: halt_and_stop})
    assert stopped[0].seen == [("buy", "filled"), ("sell", "filled")]
    risk = RiskState.decode(kept_in(tmp_path / "second").parts["risk"])
    assert (risk.ordered_halt, risk.halt_text) == (True, "leave")


@pytest.mark.parametrize("how", ["kill file", "button"])
def test_who_was_stopped_by_an_exception_can_still_be_flattened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """It held its position, with its stop; whoever looks at it in the night can end that."""
    tell(monkeypatch, lambda _: 1e-3)
    failed: list[Any] = []

    def fail(strategy: LSTMStrategy) -> None:
        failed.append(strategy)
        strategy.fail("a test", RuntimeError("gone"))
        if how == "kill file":
            put_kill_file(strategy)
        else:
            when = strategy.clock.utc_now() + timedelta(minutes=5)
            strategy.clock.set_time_alert("button", when, lambda _: strategy.order_halt("the button"))

    with pytest.raises(RuntimeError, match="gone"):
        trade(
            tmp_path,
            monkeypatch,
            steady(9, instrument=PERPETUAL),
            PERPETUAL,
            account="margin",
            exits=ExitsConfig(stop=6.0),
            after={4: fail},
            settings={"state_poll_s": 420.0 if how == "kill file" else 0.0},
        )
    assert failed[0].seen == [("buy", "filled"), ("sell", "canceled"), ("sell", "filled")]
    assert RiskState.decode(kept_in(tmp_path).parts["risk"]).ordered_halt


def test_a_running_strategy_takes_up_a_request_to_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tell(monkeypatch, lambda _: 1e-3)
    state, told = tmp_path / "state", []

    def ask(_: LSTMStrategy) -> None:
        told.append(resume(str(state), "--reason", "looked at it", "--wait", "0"))

    def halt_later(_: LSTMStrategy) -> None:  # put there after the request, as a copy of an old file: another halt
        old = time.time() - 3600.0
        (state / KILL).write_text("once more")
        os.utime(state / KILL, (old, old))

    finished, _ = trade(
        tmp_path, monkeypatch, steady(16), before={4: put_kill_file}, after={6: ask, 10: put_kill_file, 12: ask}
    )
    assert [code for code, _ in told] == [0, 0]
    assert "asked" in told[0][1]
    assert [reason == "halt_ordered" for reason in reasons(finished)] == [
        3 < n < 7 or 10 < n < 13 for n in range(1, 17)
    ]
    assert [(sent // HOUR.ns, side) for sent, side, _, _ in orders(finished)] == [
        (1, "buy"),
        (4, "sell"),
        (7, "buy"),
        (11, "sell"),
        (13, "buy"),
    ]
    assert len((state / "resumed.jsonl").read_bytes().splitlines()) == 2

    told.clear()
    (tmp_path / "second").mkdir()
    state = tmp_path / "second" / "state"

    def ask_then_halt(strategy: LSTMStrategy) -> None:
        ask(strategy)
        halt_later(strategy)

    again, _ = trade(tmp_path / "second", monkeypatch, steady(10), before={4: put_kill_file}, after={6: ask_then_halt})
    assert reasons(again)[3:] == ["halt_ordered"] * 7
    assert (state / KILL).exists()


@pytest.mark.parametrize("refuses", ["read", "remove"])
def test_a_request_that_cannot_be_read_or_removed_lifts_nothing_and_is_said_once(
    refuses: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell(monkeypatch, lambda _: 1e-3)
    state, said = tmp_path / "state", []
    monkeypatch.setattr("lstm_strategy.nautilus.keeper.Keeper._say", lambda _, text: said.append(text))

    def request(_: LSTMStrategy) -> None:
        if refuses == "read":
            return (state / "RESUME").mkdir()
        (state / "RESUME").write_text("it is fine")
        unlink = Path.unlink

        def refuse(path: Path, missing_ok: bool = False) -> None:
            if path.name == "RESUME":
                raise PermissionError(1, "Operation not permitted")
            unlink(path, missing_ok=missing_ok)

        return monkeypatch.setattr(Path, "unlink", refuse)

    finished, strategy = trade(
        tmp_path, monkeypatch, steady(10), after={3: lambda one: one.order_halt("margin call"), 5: request}
    )
    assert strategy.failure is None
    assert reasons(finished)[3:] == ["halt_ordered"] * 7
    kept = RiskState.decode(kept_in(tmp_path).parts["risk"])
    assert (kept.ordered_halt, kept.resume_text, kept_in(tmp_path).ordered) == (True, "", "margin call")
    assert not (state / "resumed.jsonl").exists()
    (line,) = said
    assert f"cannot be {'read' if refuses == 'read' else 'removed'}" in line
    assert "halts stay" in line
    code, told = resume(str(state), "--reason", "looked at it")  # stopped: refused as well, in one line
    assert (code, "halts stay" in told, kept_in(tmp_path).ordered) == (1, True, "margin call")


def test_a_loss_of_the_day_is_not_lifted_before_the_next_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tell(monkeypatch, lambda _: 1e-3)
    closes = np.array([1000.0, 1000.0, 1000.0, 900.0, *[900.0] * 30])
    bars = make_bars(np.concatenate([[1000.0], closes[:-1]]), closes)
    limits = msgspec.structs.replace(LOOSE, daily_loss=0.03, max_drawdown=0.04)
    said: list[tuple[int, str]] = []
    state = tmp_path / "state"

    def stopped(strategy: LSTMStrategy) -> None:
        """Resume while nobody holds the folder, then start again."""
        strategy.keeper.close()
        said.append(resume(str(state), "--reason", "not meant"))
        reborn(strategy)

    finished, _ = trade(tmp_path, monkeypatch, bars, limits=limits, after={6: stopped, 7: stopped})
    found = reasons(finished)
    assert found[3:6] == ["halt_drawdown"] * 3
    assert found[6:24] == ["halt_daily_loss"] * 18
    assert not set(found[24:]) & {"halt_daily_loss", "halt_drawdown"}
    assert [(code, "until the next UTC day" in text) for code, text in said] == [(0, True), (1, True)]
    assert [(sent // HOUR.ns, side) for sent, side, _, _ in orders(finished)] == [(1, "buy"), (4, "sell"), (25, "buy")]


def test_a_state_of_somebody_else_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tell(monkeypatch, lambda _: 1e-3)
    trade(tmp_path, monkeypatch, steady(3))
    kept = kept_in(tmp_path)
    folder = StateFolder(tmp_path / "state")
    for changes, told in (
        ({"strategy_id": "Other-007"}, "of strategy Other-007, not of Keeping-000"),
        ({"models": {"ETHUSDT.BINANCE": "told/1"}}, "of ETHUSDT.BINANCE, which this strategy does not trade"),
        ({"models": {SPOT.id: "another/3"}}, "of model another/3 on BTCUSDT.BINANCE, not of told/1"),
    ):
        folder.acquire("a test")
        folder.write(msgspec.structs.replace(kept, **changes))
        folder.release()
        with pytest.raises(LSTMStrategyError, match=told) as refused:
            trade(tmp_path, monkeypatch, steady(3, first_close=4))
        assert "\n" not in str(refused.value)
        assert folder.read()[0] is not None
    folder.acquire("a test")  # another version of the same model: limits and exits hold
    folder.write(msgspec.structs.replace(kept, models={SPOT.id: "told/9"}, ordered="kept"))
    with pytest.raises(LSTMStrategyError, match="two nodes with one trader id"):
        trade(tmp_path, monkeypatch, steady(3, first_close=4))
    folder.release()
    finished, _ = trade(tmp_path, monkeypatch, steady(3, first_close=4))
    assert reasons(finished) == ["halt_ordered"] * 3


def test_resume_finds_the_state_of_an_experiment(tmp_path: Path) -> None:
    experiment = str(Path(__file__).parents[1] / "backtests" / "btcusdt_1h.toml")
    words = (experiment, "--reason", "looked at it", "--runs", str(tmp_path))
    code, told = resume(*words)
    assert (code, "has kept no state" in told) == (1, True)
    live, older, paper = (tmp_path / "btcusdt_1h" / name / "state" for name in ("live", "paper/2024", "paper"))

    def keep(place: Path, ordered: str) -> None:
        folder = StateFolder(place)
        folder.acquire("a test")
        folder.write(msgspec.structs.replace(KEPT, ordered=ordered))
        folder.release()

    keep(older, "forgotten")
    for place, other in ((paper, None), (live, paper)):  # the one that is halted
        keep(place, "a drill")
        code, told = resume(*words)
        assert (code, "ordered" in told) == (0, True), told
        assert StateFolder(place).read()[0] == msgspec.structs.replace(KEPT, number=2)
        if other is not None:
            code, told = resume(*words)
            assert (code, told) == (1, f"nothing is latched in {live} or {paper}")
    for place in (paper, live):
        keep(place, "both")
    code, told = resume(*words)
    assert (code, told) == (1, f"btcusdt_1h is halted in {live} and {paper}: name the folder meant")
