"""The content of a strategy's state file: numbered, hashed, bounded; and what puts it on the disk in its own time.

A file is the line of the version, the content's length and SHA-256, then the content, and after it, in the same form,
the changes that came since: of one instrument among many, so that an event of one does not write all the others anew.
What follows them is of no account, so that a shorter content may be written over a longer one.
"""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path

import msgspec

from lstm_strategy.atomic import atomic_write
from lstm_strategy.errors import LSTMStrategyError, StateError

__all__ = [
    "LARGEST_FILE",
    "SEATS",
    "Change",
    "Kept",
    "SeatState",
    "Syncer",
    "decode",
    "digest_of",
    "encode",
    "encode_change",
    "unpack_seats",
]

SEATS = "seats"
"""The part that holds what several instruments keep, each for itself."""
_MAGIC, _CHANGE = b"lstm-strategy state 1\n", b"lstm-strategy change1\n"
_LENGTH, _DIGEST = 8, 32
_START = len(_MAGIC) + _LENGTH + _DIGEST
_LARGEST = 256 * 2**20
LARGEST_FILE = _LARGEST + _START
"""Bytes beyond which a file is none of ours."""
_FLUSH_S, _REST_S = 10.0, 0.1
_NONE = b"\x80"  # of several instruments, nothing


class Kept(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a strategy's folder holds.

    Parameters
    ----------
    strategy_id : str
        Whose it is.
    models : dict
        The model's label, ``name/version``, by instrument.
    saved_ns : int
        When it was written, by the strategy's clock.
    ordered : str
        Why somebody halted the strategy; empty where nobody did.
    parts : dict
        As the strategy's `on_save` gave them.
    number : int
        Grows with each write of the whole.
    changes : int
        How many changes have been made to it since.
    """

    strategy_id: str
    models: dict[str, str]
    saved_ns: int
    ordered: str
    parts: dict[str, bytes]
    number: int = 0
    changes: int = 0

    @property
    def age(self) -> tuple[int, int]:
        """Which of two is the later one."""
        return self.number, self.changes


class Change(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one instrument's part of `SEATS` has become since the whole was written.

    Parameters
    ----------
    of : bytes
        The SHA-256 of that whole; its number may have been another's that was torn.
    change : int
        Which of its changes this is, from 1 on.
    """

    of: bytes
    change: int
    saved_ns: int
    seats: dict[str, bytes]


class SeatState(msgspec.Struct, frozen=True, array_like=True):
    """What a restart must know of one of several instruments: encoded parts, its flows, orders not yet counted.

    ``left``: how much of the last orders was unfilled when the last of their fills went into the flows.
    """

    forecaster: bytes | None = None
    risk: bytes | None = None
    exits: bytes | None = None
    flows: float | None = None
    uncounted: int = 0
    left: dict[str, str] = {}


def encode(kept: Kept) -> bytes:
    """Return the content of a state file."""
    content = msgspec.msgpack.encode(kept)
    if len(content) > _LARGEST:
        raise LSTMStrategyError(
            f"the state of {kept.strategy_id} has {len(content)} bytes; at most {_LARGEST} are kept"
        )
    return _framed(_MAGIC, content)


def encode_change(change: Change) -> bytes:
    """Return what a change adds to the content of a state file."""
    return _framed(_CHANGE, msgspec.msgpack.encode(change))


def digest_of(content: bytes) -> bytes:
    """Return the SHA-256 by which changes name the whole whose encoded content this is."""
    return content[_START - _DIGEST : _START]


def decode(content: bytes) -> tuple[Kept, str]:
    """Read what `encode` gave, and the changes after it, as far as they are whole; say what is wrong with the next one.

    Raises
    ------
    LSTMStrategyError
        For anything else, saying what is wrong with it.
    """
    if not content.startswith(_MAGIC):
        raise LSTMStrategyError("is torn" if _MAGIC.startswith(content) else "is no state file of this version")
    found = _unframed(content)
    try:
        kept = msgspec.msgpack.decode(found, type=Kept)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise LSTMStrategyError(f"is of another kind ({error})") from None
    return _changed(kept, digest_of(content), content[_START + len(found) :])


def _changed(kept: Kept, whole: bytes, rest: bytes) -> tuple[Kept, str]:
    seats: dict[str, bytes] = {}
    problem = ""
    while rest.startswith(_CHANGE):
        try:
            found = _unframed(rest)
            change = msgspec.msgpack.decode(found, type=Change)
        except (LSTMStrategyError, msgspec.MsgspecError, UnicodeDecodeError) as error:
            problem = f"in its change {kept.changes + 1} {error}"
            break
        if (change.of, change.change) != (whole, kept.changes + 1):  # left over from an older content
            break
        seats |= change.seats
        kept = msgspec.structs.replace(kept, changes=change.change, saved_ns=change.saved_ns)
        rest = rest[_START + len(found) :]
    if seats:
        held = unpack_seats(kept.parts.get(SEATS, _NONE)) | seats
        kept = msgspec.structs.replace(kept, parts=kept.parts | {SEATS: msgspec.msgpack.encode(held)})
    return kept, problem


def _framed(kind: bytes, content: bytes) -> bytes:
    return kind + len(content).to_bytes(_LENGTH) + hashlib.sha256(content).digest() + content


def _unframed(content: bytes) -> bytes:
    length = int.from_bytes(content[len(_MAGIC) :][:_LENGTH])
    found = content[_START : _START + length]
    if len(found) < length:
        raise LSTMStrategyError("is torn")
    if hashlib.sha256(found).digest() != digest_of(content):
        raise LSTMStrategyError("is torn or damaged: its hash differs")
    return found


def unpack_seats(content: bytes) -> dict[str, bytes]:
    """Return the encoded `SeatState` of each instrument, of a portfolio's part ``seats``.

    Raises
    ------
    LSTMStrategyError
        Where it is damaged: going on without it might forget a halt.
    """
    try:
        return msgspec.msgpack.decode(content, type=dict[str, bytes])
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise StateError(
            f"the saved state of the portfolio is damaged ({error}); a halt may be lost: look at the account, then"
            " remove it"
        ) from None


class Syncer:
    """Puts the newest content on the disk, off the strategy's thread: a disk takes 10 ms to confirm a write.

    At once after a while of nothing, and then ten times a second at most, as each takes time from the strategy too.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._change = path, threading.Condition()
        self._folder = path.parent.stat().st_ino
        self._waiting: tuple[bytes, ...] | None = None
        self._busy = self._over = False
        self._error: LSTMStrategyError | None = None
        self._urgent = threading.Event()  # somebody waits for it
        self._thread = threading.Thread(target=self._run, name=f"sync {path}", daemon=True)
        self._thread.start()

    def hand(self, *content: bytes) -> None:
        with self._change:
            self._raise()
            self._waiting = content
            self._change.notify_all()

    def flush(self) -> None:
        self._urgent.set()
        with self._change:
            done = self._change.wait_for(lambda: self._waiting is None and not self._busy, _FLUSH_S)
            self._urgent.clear()
            self._raise()
        if not done:
            raise LSTMStrategyError(f"{self._path} is not on the disk after {_FLUSH_S:g} s")

    def end(self) -> None:
        try:
            self.flush()
        finally:
            with self._change:
                self._over = True
                self._change.notify_all()
            self._urgent.set()
            self._thread.join(_FLUSH_S)

    def _write(self, content: tuple[bytes, ...]) -> None:
        folder = self._path.parent
        try:
            same = folder.stat().st_ino == self._folder
        except OSError:
            same = False
        if not same:  # a new one would be nobody's
            raise LSTMStrategyError(f"the state folder {folder} was taken away; start anew with one that stays")
        with atomic_write(self._path) as temporary:
            temporary.write_bytes(b"".join(content))

    def _raise(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _run(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._waiting is not None or self._over)
                content, self._waiting = self._waiting, None
                if content is None:
                    return
                self._busy = True
            error = None
            try:
                self._write(content)
            except LSTMStrategyError as refused:
                error = refused
            with self._change:
                self._busy, self._error = False, error
                self._change.notify_all()
            self._urgent.wait(_REST_S)
