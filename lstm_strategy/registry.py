"""The registry of models: which versions there are, and which one is current; promoted, and rolled back."""

from __future__ import annotations

from pathlib import Path

from lstm_strategy.artefact import FILES, ArtefactError, load, require_name
from lstm_strategy.atomic import atomic_write, exclusive

__all__ = ["before", "current", "is_current", "locate", "promote", "rollback", "versions", "versions_of"]

_MANIFEST, _CURRENT = FILES[0], "current"
_BEFORE = "before: "
_MOST = 100  # promotions remembered
_TOLD = 10  # versions named where another was asked for


class _DamagedError(ArtefactError):
    """A pointer that names no version."""


def versions(models: Path) -> list[tuple[str, str]]:
    """Return (name, version) of every artefact folder, sorted; hidden ones are what a crash left."""
    found = models.glob(f"[!.]*/[!.]*/{_MANIFEST}")
    return sorted((path.parent.parent.name, path.parent.name) for path in found)


def promote(models: Path, name: str, version: str) -> None:
    """Make a version the one that ``current`` names, and remember those that were; what is current already stays so.

    Of a pointer that is damaged nothing is remembered. Several processes do it one after the other.
    """
    require_name(name)
    require_name(version)
    if not (models / name / version).is_dir():
        raise _no_version(models, name, version)
    load(models / name / version)
    with exclusive(models / name):
        try:
            known = _pointer(models, name)
        except _DamagedError:
            known = []
        if known[:1] != [version]:
            _point(models, name, [version, *known])


def rollback(models: Path, name: str) -> str:
    """Make the version current that was so before it was promoted; return it. Done again it goes one further back.

    What is rolled back is in no history any more: to have it again, promote it.

    Raises
    ------
    ArtefactError
        Where there was none before, or that one is not whole any more.
    """
    current(models, name)
    way_out = f"name one with: lstm-strategy models promote {name} VERSION"
    with exclusive(models / name):
        known = _pointer(models, name)[1:]
        if not known:
            raise ArtefactError(f"model {name!r} in {models} has no version before the current one; {way_out}")
        if not (models / name / known[0]).is_dir():
            raise ArtefactError(f"{_no_version(models, name, known[0])}; {way_out}")
        load(models / name / known[0])
        _point(models, name, known)
    return known[0]


def before(models: Path, name: str) -> list[str]:
    """Return what `rollback` would go back to, time after time."""
    return _pointer(models, name)[1:]


def current(models: Path, name: str) -> Path:
    """Return the folder of the current version of a model."""
    require_name(name)
    known = _pointer(models, name)
    if not known:
        way_out = "train it with: lstm-strategy train EXPERIMENT.toml"
        raise ArtefactError(f"no model {name!r} in {models}; {way_out}")
    return models / name / known[0]


def versions_of(models: Path, name: str) -> list[str]:
    """Return the newest versions of a model, the newest last.

    Raises
    ------
    ArtefactError
        Where there is none.
    """
    found = versions(models)
    there = [version for of, version in found if of == name]
    if not there:
        names = ", ".join(sorted({of for of, _ in found})) or "none"
        raise ArtefactError(f"no model {name!r} in {models}; there are: {names}")
    return there[-_TOLD:]


def is_current(models: Path, name: str, version: str) -> bool:
    """Say whether a version is the current one; none is where none was ever promoted."""
    return _pointer(models, name)[:1] == [version]


def locate(models: Path, model: str) -> Path:
    """Return the folder meant by a model's name (its current version), by ``name/version``, or by a path."""
    name, slash, version = model.strip("/").partition("/")
    if slash and (models / name / version / _MANIFEST).is_file():
        return models / name / version
    if slash and (models / name).is_dir() and not Path(model).exists() and not (models / name / version).exists():
        raise _no_version(models, name, version)
    if (Path(model) / _MANIFEST).is_file() or slash:
        return Path(model)
    return current(models, name)


def _pointer(models: Path, name: str) -> list[str]:
    """Return the current version, and after it those that were so before, the latest first; none without a pointer."""
    pointer = models / name / _CURRENT
    try:
        version, *earlier = pointer.read_text(encoding="utf-8").strip().splitlines() or [""]
        known = [version, *(line.partition(_BEFORE)[2] for line in earlier)]
        for one in known:
            require_name(one)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ArtefactError(f"{pointer} cannot be read ({error.strerror or error})") from None
    except (UnicodeDecodeError, ArtefactError) as error:
        way_out = f"make a version current with: lstm-strategy models promote {name} VERSION"
        raise _DamagedError(f"{pointer} is damaged: {error}; {way_out}") from None
    return known


def _point(models: Path, name: str, known: list[str]) -> None:
    version, *earlier = known[:_MOST]
    with atomic_write(models / name / _CURRENT) as path:
        path.write_text(f"{version}\n{''.join(f'{_BEFORE}{one}\n' for one in earlier)}", encoding="utf-8")


def _no_version(models: Path, name: str, version: str) -> ArtefactError:
    there = [of for of_name, of in versions(models) if of_name == name][-_TOLD:]
    told = f"; it has {', '.join(there)}" if there else "; lstm-strategy models list shows all"
    return ArtefactError(f"model {name!r} in {models} has no version {version!r}{told}")
