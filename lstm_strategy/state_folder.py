"""A strategy's own state folder: what a restart must know, written whole, kept by one process.

``state.0`` and ``state.1`` are written over in turn after every change (0.1 ms), before the venue can see what followed
from it: a process that is killed at any moment leaves one of them whole, and what it was writing had no effect yet.
Where an event has changed one instrument of many, its part alone is added to the end.
``state.synced`` is the same as far as the disk has confirmed it (temporary file, fsync, rename: 10 ms, on another
thread, ten times a second at most): it outlives a machine that loses its power. Each has a hash and a number; the
latest that is whole is used.
"""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import suppress
from pathlib import Path

import msgspec

from lstm_strategy.bars import format_ns
from lstm_strategy.errors import LSTMStrategyError, StateError
from lstm_strategy.halt_files import KILL, HaltFiles, one_line
from lstm_strategy.state_file import LARGEST_FILE, Change, Kept, Syncer, decode, digest_of, encode, encode_change

__all__ = ["FolderHeldError", "StateFolder"]

_TURNS, _SYNCED, _LOCK = ("state.0", "state.1"), "state.synced", "lock"
_LARGEST_LOCK = 4096  # bytes of it that are read
_MOST_CHANGES = 1_000  # after one whole state
_AGAIN_S = 0.01, 0.05, 0.25  # until another look at what another process may be writing


class FolderHeldError(LSTMStrategyError):
    """Another process holds the folder."""


class StateFolder:
    """The files of one strategy's state. Written by the process that holds its lock, and by no other.

    Attributes
    ----------
    halts : HaltFiles
        By which somebody halts the strategy, and lets it go on.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.halts = HaltFiles(path)
        self._lock: int | None = None
        self._number = 0
        self._turns: list[int] = []  # descriptors
        self._written: list[bytes] = []  # the whole as it was written last, and its changes
        self._end = 0  # where the next change goes
        self._syncer: Syncer | None = None

    @property
    def held(self) -> bool:
        """Whether this object holds the lock."""
        return self._lock is not None

    @property
    def known(self) -> bool:
        """Whether there is a state, or a kill file."""
        states = any((self.path / name).is_file() for name in (*_TURNS, _SYNCED))
        return states or (self.path / KILL).exists()

    def acquire(self, who: str) -> None:
        """Take the lock, in the name of ``who``; a process that ends, however it does, leaves it.

        Raises
        ------
        FolderHeldError
            Where another holds it.
        LSTMStrategyError
            Where the system refuses.
        """
        if self.held:
            return
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = os.open(self.path / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise LSTMStrategyError(f"cannot use the state folder {self.path}: {error.strerror or error}") from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = one_line(os.read(lock, _LARGEST_LOCK).decode("utf-8", "replace")) or "its name is not known"
            os.close(lock)
            raise FolderHeldError(
                f"the state folder {self.path} is held by another process ({holder}): two nodes with one trader id;"
                " stop one of them, or give each a state_dir of its own"
            ) from None
        os.truncate(lock, 0)
        os.write(lock, f"process {os.getpid()}, {one_line(who)}\n".encode())
        self._lock = lock

    def release(self) -> None:
        """Wait until what was written is on the disk, then give the lock back."""
        syncer, lock, turns = self._syncer, self._lock, self._turns
        self._syncer, self._lock, self._turns, self._written = None, None, [], []
        try:
            if syncer is not None:
                syncer.end()
        finally:
            for descriptor in turns if lock is None else [*turns, lock]:
                os.close(descriptor)

    def write(self, kept: Kept) -> None:
        """Write the state; for other processes to read at once, on the disk some milliseconds later.

        Raises
        ------
        LSTMStrategyError
            Where the system refuses, now or with the last one.
        """
        if not self._number:  # it must be later than what is there
            with suppress(LSTMStrategyError):
                self.read()
        number = self._number + 1
        content = encode(msgspec.structs.replace(kept, number=number, changes=0))
        self._written = []  # should it fail, there is nothing to add changes to
        try:
            if self._syncer is None:
                self._turns = [os.open(self.path / turn, os.O_WRONLY | os.O_CREAT, 0o644) for turn in _TURNS]
                self._syncer = Syncer(self.path / _SYNCED)
            _write(self._turns[number % 2], content, 0)
        except OSError as error:
            raise self._unwritten(error) from None  # the next one goes over what is torn, not over the one before it
        self._number, self._written, self._end = number, [content], len(content)
        self._syncer.hand(*self._written)

    def amend(self, saved_ns: int, seats: dict[str, bytes]) -> bool:
        """Write what has become of some instruments, to the end of what was written last; as safe as `write`.

        Returns
        -------
        bool
            Whether that could be done: false where the whole is to be written anew.

        Raises
        ------
        LSTMStrategyError
            As `write`.
        """
        written, syncer = self._written, self._syncer
        if not written or syncer is None or len(written) > _MOST_CHANGES:
            return False
        content = encode_change(Change(digest_of(written[0]), len(written), saved_ns, seats))
        try:
            _write(self._turns[self._number % 2], content, self._end)
        except OSError as error:
            self._written = []  # what is there may be torn
            raise self._unwritten(error) from None
        written.append(content)
        self._end += len(content)
        syncer.hand(*written)
        return True

    def _unwritten(self, error: OSError) -> LSTMStrategyError:
        return LSTMStrategyError(f"cannot write a state to {self.path}: {error.strerror or error}")

    def flush(self) -> None:
        """Return when what was written last is on the disk.

        Raises
        ------
        LSTMStrategyError
            Where it could not be written.
        """
        if self._syncer is not None:
            self._syncer.flush()

    def read(self) -> tuple[Kept | None, str]:
        """Return the latest of the states that are whole, None without any file, and what was wrong with the others.

        Without the lock another process may be writing just now: what seems torn is looked at again for a third of a
        second.

        Raises
        ------
        LSTMStrategyError
            Where none is whole.
        """
        for pause in () if self.held else _AGAIN_S:
            with suppress(StateError):
                kept, wrong = self._look()
                if not wrong:
                    return kept, ""
            time.sleep(pause)
        return self._look()

    def _look(self) -> tuple[Kept | None, str]:
        found: list[Kept] = []
        wrong: list[str] = []
        blank: list[str] = []
        for name in (*_TURNS, _SYNCED):
            file = self.path / name
            try:
                if file.stat().st_size > LARGEST_FILE:
                    raise LSTMStrategyError("is too large to be one")
                one, problem = decode(file.read_bytes())
                found.append(one)
                if problem:
                    wrong.append(f"{file} {problem}")
            except FileNotFoundError:
                continue
            except OSError as error:
                wrong.append(f"{file} cannot be read ({error.strerror or error})")
            except LSTMStrategyError as error:
                wrong.append(f"{file} {error}")
                if not file.stat().st_size:
                    blank.append(wrong[-1])
        if found:  # a turn that was never written is no damage; where nothing else is left nobody can tell
            wrong = [told for told in wrong if told not in blank]
        elif wrong:
            raise StateError(
                f"{'; '.join(wrong)}; no other is left, and a halt may be lost: look at the account, then remove"
                f" {self.path}"
            )
        if not found:
            return None, ""
        kept = max(found, key=lambda one: one.age)
        self._number = max(self._number, kept.number)
        if not wrong:
            return kept, ""
        return kept, f"{'; '.join(wrong)}; going on from the latest that is whole, of {format_ns(kept.saved_ns)}"


def _write(descriptor: int, content: bytes, start: int) -> None:
    written = 0
    while written < len(content):
        written += os.pwrite(descriptor, memoryview(content)[written:], start + written)
