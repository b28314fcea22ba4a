"""Whole or not at all: files and folders that appear complete under their name, or leave the old ones as they were."""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lstm_strategy.errors import LSTMStrategyError

__all__ = ["atomic_folder", "atomic_write", "exclusive"]


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary file name beside ``path``; what is written there replaces ``path`` when the block ends well.

    The folder is made where it is missing. On any failure the temporary file is removed and the old file stays.

    Raises
    ------
    LSTMStrategyError
        Where the system refuses (disk full, no permission), naming ``path``.
    """
    temporary = _sibling(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _sync(temporary)
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        raise _refused(path, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path, *, replace: bool = False) -> Iterator[Path]:
    """Yield an empty temporary folder beside ``path``; it takes that name when the block ends well.

    An existing ``path`` is refused, unless ``replace``: then it is put aside and removed once the new one is in place.
    On any failure the temporary folder is removed and the old one stays.

    Raises
    ------
    LSTMStrategyError
        Where ``path`` exists, or has come to meanwhile, or where the system refuses (disk full, no permission), naming
        ``path``.
    """
    if path.exists() and not replace:
        raise LSTMStrategyError(f"{path} exists already and is never overwritten; remove it or choose another name")
    temporary, aside = _sibling(path), _sibling(path)
    try:
        temporary.mkdir(parents=True)
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                _sync(file)
            else:
                _sync_folder(file)
        _sync_folder(temporary)
        if replace and path.exists():
            os.rename(path, aside)
        try:
            os.rename(temporary, path)
        except BaseException:
            if aside.exists():
                os.rename(aside, path)
            raise
        _sync_folder(path.parent)
    except OSError as error:
        raise _refused(path, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if path.exists():
            shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold ``folder`` against other processes of this package; waits for its turn, freed even by a crash."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise _refused(folder, error) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _sibling(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")


def _sync(file: Path) -> None:
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    with suppress(OSError):  # some file systems cannot sync a folder; the rename itself has succeeded
        _sync(folder)


def _refused(path: Path, error: OSError) -> LSTMStrategyError:
    reason = "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else error.strerror or str(error)
    return LSTMStrategyError(f"cannot write {path}: {reason}; nothing was changed")
