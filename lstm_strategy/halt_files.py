"""The files in a strategy's folder by which somebody halts it, and lets it go on: ``KILL``, ``RESUME``, and the record.

They are written by hand or by another process, at any moment: what cannot be read halts, and lifts nothing.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from lstm_strategy.atomic import atomic_write
from lstm_strategy.bars import format_ns
from lstm_strategy.errors import LSTMStrategyError

__all__ = ["KILL", "HaltFiles", "one_line"]

KILL = "KILL"
"""Name of the file that halts; its text is the reason."""
_REQUEST, _AUDIT = "RESUME", "resumed.jsonl"
_LONGEST_REASON = 200
_LARGEST_NOTE = 4096  # bytes read of a file that somebody wrote by hand


def one_line(text: str) -> str:
    """Return a reason as one printable line of at most 200 characters."""
    words = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return words[:_LONGEST_REASON]


class HaltFiles:
    """Kill file, request to resume and record of what was lifted, in the folder ``path``."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._kill, self._asked = str(path / KILL), str(path / _REQUEST)  # looked for all the time

    def kill_reason(self) -> str | None:
        """Return why the strategy is to halt, None without a kill file; one that cannot be read halts, too."""
        try:
            content = _text(self._kill)
        except OSError as error:
            return one_line(f"a file that cannot be read ({error.strerror or error})")
        return None if content is None else one_line(content) or "no reason given"

    def ask_to_resume(self, reason: str) -> None:
        """Leave a request for the process that holds the lock.

        Raises
        ------
        LSTMStrategyError
            Where the system refuses.
        """
        try:
            with atomic_write(self._path / _REQUEST) as temporary:
                temporary.write_text(reason, encoding="utf-8")
        except OSError as error:
            raise LSTMStrategyError(f"cannot write {self._path / _REQUEST}: {error.strerror or error}") from None

    def request(self) -> tuple[str, int] | None:
        """Return the reason of a request to resume, empty for one that gives none, and when it was put there.

        Raises
        ------
        LSTMStrategyError
            Where there is one that cannot be read: nobody knows who asks for what.
        """
        file = self._asked
        try:
            content = _text(file)
            return None if content is None else (one_line(content), os.stat(file).st_ctime_ns)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _refused(file, "read", error) from None

    def drop_request(self) -> None:
        """Remove it, before anything is lifted: one that stays would lift the halts of tomorrow as well.

        Raises
        ------
        LSTMStrategyError
            Where the system refuses.
        """
        try:
            Path(self._asked).unlink(missing_ok=True)
        except OSError as error:
            raise _refused(self._asked, "removed", error) from None

    def record(self, when_ns: int, reason: str, lifted: dict[str, list[str]], kill: str | None) -> None:
        """Add a line to ``resumed.jsonl``: when, why, and what was lifted."""
        line = {"time": format_ns(when_ns), "reason": reason, "lifted": lifted, "kill_file": kill}
        try:
            with (self._path / _AUDIT).open("ab") as file:
                file.write(msgspec.json.encode(line) + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise LSTMStrategyError(f"cannot write {self._path / _AUDIT}: {error.strerror or error}") from None

    def killed_ns(self) -> int:
        """Return when the kill file was put there or changed last, by the file system; 0 without one."""
        try:
            return (self._path / KILL).stat().st_ctime_ns
        except OSError:
            return 0

    def remove_kill(self, before_ns: int) -> None:
        """Remove a kill file that was put there before ``before_ns``; a later one halts anew, and stays.

        The file system's own time of the change counts, which no copy or move takes along from an older file.
        """
        kill = self._path / KILL
        try:
            if kill.stat().st_ctime_ns >= before_ns:
                return
            kill.unlink()
        except FileNotFoundError:
            return
        except OSError as error:
            raise LSTMStrategyError(
                f"cannot remove {kill}: {error.strerror or error}; it halts until it is gone"
            ) from None


def _refused(file: str, which: str, error: OSError) -> LSTMStrategyError:
    return LSTMStrategyError(
        f"the request to resume {file} cannot be {which} ({error.strerror or error}), and is refused: halts stay;"
        " remove it, then ask by `lstm-strategy resume`"
    )


def _text(file: str) -> str | None:
    """Return the text of a file that somebody may have written by hand, None where there is none."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    try:
        return os.read(descriptor, _LARGEST_NOTE).decode("utf-8", "replace")
    finally:
        os.close(descriptor)
