"""The registry that a node's model lies in: which version is current, and which were refused."""

from __future__ import annotations

from pathlib import Path

from lstm_strategy import registry
from lstm_strategy.artefact import FILES

__all__ = ["Registry"]


class Registry:
    """Tells the current version; one that was refused stays so until its files change.

    Parameters
    ----------
    model : str
        Folder of the version that trades.
    """

    def __init__(self, model: str) -> None:
        here = Path(model).absolute()
        self._models, self._name = here.parent.parent, here.parent.name
        self._refused: dict[str, tuple[int, ...]] = {}
        self._seen: tuple[int, ...] = ()

    def current(self) -> Path:
        """Return the folder of the current version.

        Raises
        ------
        LSTMStrategyError, OSError
            Where the pointer cannot be read.
        """
        return registry.current(self._models, self._name)

    def look_at(self, folder: Path) -> None:
        """Note a version's files as they are now, before they are read."""
        self._seen = _written(folder)

    def refuse(self, folder: Path) -> None:
        """Refuse the version that was looked at last."""
        self._refused[folder.name] = self._seen

    def refused(self, folder: Path) -> bool:
        """Whether it was refused as its files are now."""
        return self._refused.get(folder.name) == _written(folder)


def _written(folder: Path) -> tuple[int, ...]:
    """Return when the files of a version were last written; 0 for those that are not there."""
    return tuple(_stamp(folder / name) for name in FILES)


def _stamp(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0
