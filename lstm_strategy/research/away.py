"""Work on a machine that shares no disc with the caller: files travel there and back as values."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lstm_strategy import artefact
from lstm_strategy.atomic import atomic_folder, atomic_write
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.research.fold_run import Plan
from lstm_strategy.research.parallel import Job

__all__ = ["Done", "Parcel", "bring_home", "send_away", "without_folders"]

type Done = list[tuple[Path, Path | None]]  # each finished table, with its artefact's folder
type Files = dict[str, bytes]  # by path below models/ and parts/

_ROOTS = ("models", "parts")


@dataclass(frozen=True, slots=True)
class Parcel:
    """What comes back: the files that were made, which of them are the results, and the error that ended the work."""

    files: Files
    done: list[tuple[str, str | None]]
    error: LSTMStrategyError | None = None


def without_folders(plan: Plan) -> Plan:
    """Return the plan as it may be sent: a worker elsewhere is not told of folders that it does not have."""
    return replace(plan, models=Path(), parts=Path())


def send_away(job: Job, plan: Plan, known: Iterable[Path]) -> Job:
    """Return the job to be done in a temporary folder, to which the ``known`` files and folders are taken along."""
    files = [file for path in known for file in ([path] if path.is_file() else sorted(path.rglob("*")))]
    roots = dict(zip(_ROOTS, (plan.models, plan.parts), strict=True))
    taken = {
        f"{name}/{file.relative_to(root).as_posix()}": file.read_bytes()
        for file in files
        for name, root in roots.items()
        if file.is_relative_to(root) and file.is_file()
    }
    return Job(job.label, _work_away, (job.work, job.arguments, taken))


def bring_home(plan: Plan, parcel: Parcel) -> Done:
    """Write what came back below the plan's folders, whole or not at all, verified; return the results' paths.

    Raises
    ------
    LSTMStrategyError
        The error that ended the work; what was finished before it has been written.
    """
    folders: dict[Path, Files] = {}
    for name, content in parcel.files.items():
        path = _at_home(plan, name)
        if name.startswith("models/"):
            folders.setdefault(path.parent, {})[path.name] = content
        else:
            with atomic_write(path) as temporary:
                temporary.write_bytes(content)
    for folder, contents in folders.items():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with atomic_folder(folder, replace=True) as temporary:
            for name, content in contents.items():
                (temporary / name).write_bytes(content)
        artefact.load(folder)
    if parcel.error is not None:
        raise parcel.error
    return [(_at_home(plan, part), None if model is None else _at_home(plan, model)) for part, model in parcel.done]


def _work_away(plan: Plan, work: Callable[..., Done], arguments: tuple[Any, ...], taken: Files) -> Parcel:
    with TemporaryDirectory(prefix="lstm-strategy-") as scratch:
        root = Path(scratch)
        for name, content in taken.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(content)
        done: Done = []
        error = None
        try:
            done = work(replace(plan, models=root / "models", parts=root / "parts"), *arguments)
        except LSTMStrategyError as caught:
            error = LSTMStrategyError(str(caught).replace(scratch, "the worker's folder"))
        for leftover in list(root.rglob(".*")):  # checkpoints, locks, and what was being written when an error came
            if leftover.is_dir():
                shutil.rmtree(leftover, ignore_errors=True)
            else:
                leftover.unlink(missing_ok=True)
        found = {file.relative_to(root).as_posix(): file for file in root.rglob("*") if file.is_file()}
        made = {name: file.read_bytes() for name, file in sorted(found.items())}
        made = {name: content for name, content in made.items() if taken.get(name) != content}
        told = [
            (part.relative_to(root).as_posix(), None if model is None else model.relative_to(root).as_posix())
            for part, model in done
        ]
        return Parcel(made, told, error)


def _at_home(plan: Plan, name: str) -> Path:
    root, _, rest = name.partition("/")
    path = dict(zip(_ROOTS, (plan.models, plan.parts), strict=True))[root] / rest
    if ".." in Path(rest).parts or Path(rest).is_absolute():
        raise LSTMStrategyError(f"a worker sent a file {name!r} that belongs nowhere; is it of the same version?")
    return path
