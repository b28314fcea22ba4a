"""The registry of models: which versions there are, and which one is current; promoted, and rolled back."""

from __future__ import annotations

from pathlib import Path

from lstm_strategy.artefact import FILES, ArtefactError, load, require_name
from lstm_strategy.atomic import atomic_write

__all__ = ["current", "locate", "promote", "rollback", "versions"]

_MANIFEST, _CURRENT = FILES[0], "current"
_BEFORE = "before: "
_TOLD = 10  # versions named where another was asked for


def versions(models: Path) -> list[tuple[str, str]]:
    """Return (name, version) of every artefact folder, sorted; hidden ones are what a crash left."""
    found = models.glob(f"[!.]*/[!.]*/{_MANIFEST}")
    return sorted((path.parent.parent.name, path.parent.name) for path in found)


def promote(models: Path, name: str, version: str) -> None:
    """Make a version the one that ``current`` names, and remember which one was."""
    require_name(name)
    require_name(version)
    if not (models / name / version).is_dir():
        raise _no_version(models, name, version)
    load(models / name / version)
    known = [other for other in _pointer(models, name) if other != version]
    before = f"{_BEFORE}{known[0]}\n" if known else ""
    with atomic_write(models / name / _CURRENT) as path:
        path.write_text(f"{version}\n{before}", encoding="utf-8")


def rollback(models: Path, name: str) -> str:
    """Make the version current that was so before the last `promote`; return it. Done twice, nothing has changed."""
    current(models, name)
    _, *before = _pointer(models, name)
    if not before:
        raise ArtefactError(
            f"model {name!r} in {models} has no version before the current one; name one with: lstm-strategy models"
            f" promote {name} VERSION"
        )
    version = before[0]
    promote(models, name, version)
    return version


def current(models: Path, name: str) -> Path:
    """Return the folder of the current version of a model."""
    require_name(name)
    known = _pointer(models, name)
    if not known:
        way_out = "train it with: lstm-strategy train EXPERIMENT.toml"
        raise ArtefactError(f"no model {name!r} in {models}; {way_out}")
    require_name(known[0])
    return models / name / known[0]


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
    """Return the current version, and after it the one before, as far as there are any."""
    try:
        text = (models / name / _CURRENT).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return []
    version, marked, before = text.partition(f"\n{_BEFORE}")
    return [version, before] if marked else [text]


def _no_version(models: Path, name: str, version: str) -> ArtefactError:
    there = [of for of_name, of in versions(models) if of_name == name][-_TOLD:]
    told = f"; it has {', '.join(there)}" if there else "; lstm-strategy models list shows all"
    return ArtefactError(f"model {name!r} in {models} has no version {version!r}{told}")
