"""The artefact: a trained model on disk as data, never code; saved whole, verified before use."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from lstm_strategy.atomic import atomic_folder
from lstm_strategy.bars import parse_ns
from lstm_strategy.decision import Shrinkage
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.features import FeaturesConfig
from lstm_strategy.hyperparameters import NetworkConfig, TrainConfig

__all__ = [
    "FILES",
    "SCHEMA",
    "Artefact",
    "ArtefactError",
    "FeatureRange",
    "InstrumentFit",
    "Manifest",
    "load",
    "require_name",
    "save",
]

SCHEMA = 1
FILES = _MANIFEST, _GRAPH, _WEIGHTS = "manifest.json", "model.onnx", "weights.safetensors"
_LARGEST = {_MANIFEST: 16 * 2**20, _GRAPH: 2**30, _WEIGHTS: 2**30}


class ArtefactError(LSTMStrategyError):
    """An artefact that is missing, damaged or not meant for this use."""


class InstrumentFit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What was fitted for one instrument: price step, least volatility of one bar's log return, bars in a year."""

    tick: float
    scale_floor: float
    bars_per_year: float


class FeatureRange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One feature over the training span; mean and std are the scaler's, inside the graph too."""

    name: str
    mean: float
    std: float
    lowest: float
    highest: float


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything about a model but its numbers.

    Quantile tables are [H][Q], in units of σ√h. ``calibration`` is added to the network's quantiles; ``baseline`` are
    the constant quantiles of the training span. ``shrinkage`` [H] is how much of a mean is believed.
    ``warmup_bars`` is measured: after so many bars a cold start forecasts as a long run does. ``trials`` is how many
    settings were tried before these were chosen, ``study`` the last search's name and ``trials_pinball_std`` the
    standard deviation of its trials' losses: the best of many flatters.
    """

    schema: int = SCHEMA
    name: str
    version: str
    package_version: str
    timeframe: str
    instruments: dict[str, InstrumentFit]
    features: FeaturesConfig
    feature_ranges: list[FeatureRange]
    horizons: tuple[int, ...]
    levels: tuple[float, ...]
    network: NetworkConfig
    training: TrainConfig
    spans: dict[str, tuple[str, str]]
    data_sha256: dict[str, str]
    baseline: list[list[float]]
    calibration: list[list[float]]
    shrinkage: list[Shrinkage]
    warmup_bars: int
    scores: dict[str, float]
    trials: int = 1
    study: str = ""
    trials_pinball_std: float | None = None
    files: dict[str, str] = msgspec.field(default_factory=dict)
    digest: str = ""

    def __post_init__(self) -> None:
        shape = (len(self.horizons), len(self.levels))
        for name in ("baseline", "calibration"):
            table = getattr(self, name)
            if (len(table), *{len(row) for row in table}) != shape:
                raise ArtefactError(f"{name} is not a table of {shape[0]} horizons by {shape[1]} levels")
        if len(self.shrinkage) != shape[0]:
            raise ArtefactError(f"shrinkage has {len(self.shrinkage)} rows for {shape[0]} horizons")
        if tuple(row.name for row in self.feature_ranges) != self.features.names:
            raise ArtefactError("feature_ranges do not name the features in their order")

    @property
    def has_position(self) -> bool:
        """Whether the graph says a position beside the quantiles."""
        return self.training.objective == "sharpe"


@dataclass(frozen=True, slots=True)
class Artefact:
    """A verified model: its manifest, and as bytes its ONNX graph and its weights."""

    manifest: Manifest
    graph: bytes
    weights: bytes

    def require_instrument(self, instrument_id: str) -> InstrumentFit:
        """Return the fit of an instrument the model was trained on."""
        try:
            return self.manifest.instruments[instrument_id]
        except KeyError:
            known = ", ".join(sorted(self.manifest.instruments))
            raise ArtefactError(f"model {self.label} was not trained on {instrument_id}; it knows {known}") from None

    def instrument_number(self, instrument_id: str) -> int:
        """Return the number under which an embedding knows the instrument: its place among their sorted names."""
        self.require_instrument(instrument_id)
        return sorted(self.manifest.instruments).index(instrument_id)

    def require(self, *, timeframe: str, features: FeaturesConfig | None = None) -> None:
        """Refuse a model made for another timeframe, or from other features than an experiment says."""
        if self.manifest.timeframe != timeframe:
            made = self.manifest.timeframe
            raise ArtefactError(f"model {self.label} was trained on {made} bars, not {timeframe}; train it again")
        if features is not None and self.manifest.features != features:
            ours, theirs = set(features.names), set(self.manifest.features.names)
            differing = ", ".join(sorted(ours ^ theirs)) or "the scale, gap or filter settings"
            raise ArtefactError(f"model {self.label} was trained on other features ({differing}); train it again")

    def shrinkage(self, horizon: int) -> Shrinkage:
        """Return the shrinkage of the mean at a horizon; refuse one that the model does not forecast."""
        horizons = self.manifest.horizons
        if horizon not in horizons:
            known = ", ".join(map(str, horizons))
            raise ArtefactError(f"sizing.horizon is {horizon}; model {self.label} forecasts {known}")
        return self.manifest.shrinkage[horizons.index(horizon)]

    @property
    def trained_until(self) -> int:
        """Close stamp of the last bar that fitted, stopped or calibrated it; only later bars are out of sample."""
        return max(parse_ns(end) for _, end in self.manifest.spans.values() if end)

    @property
    def label(self) -> str:
        """Name and version, for messages."""
        return f"{self.manifest.name}/{self.manifest.version}"


def save(models: Path, manifest: Manifest, graph: bytes, weights: bytes) -> Path:
    """Write ``models/<name>/<version>/`` whole or not at all; return the folder."""
    require_name(manifest.name)
    require_name(manifest.version)
    folder = models / manifest.name / manifest.version
    files = {_GRAPH: _sha256(graph), _WEIGHTS: _sha256(weights)}
    manifest = msgspec.structs.replace(manifest, files=files, digest="")
    manifest = msgspec.structs.replace(manifest, digest=_sha256(_encode(manifest)))
    try:
        msgspec.json.decode(_encode(manifest), type=Manifest)
    except msgspec.ValidationError as error:  # JSON has no NaN
        label = f"{manifest.name}/{manifest.version}"
        raise ArtefactError(f"{label} holds a number that is not finite ({error}); nothing was saved") from None
    folder.parent.mkdir(parents=True, exist_ok=True)
    with atomic_folder(folder) as temporary:
        (temporary / _GRAPH).write_bytes(graph)
        (temporary / _WEIGHTS).write_bytes(weights)
        (temporary / _MANIFEST).write_bytes(_text(manifest))
    return folder


def load(folder: Path) -> Artefact:
    """Read and verify an artefact; refuse anything that is not exactly what was saved."""
    if versions := sorted(path.parent.name for path in folder.glob(f"*/{_MANIFEST}")):
        raise ArtefactError(f"{folder} holds a model's versions; name one, such as {folder / versions[-1]}")
    content = _read(folder, _MANIFEST)
    try:
        document = msgspec.json.decode(content, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ArtefactError(f"{folder / _MANIFEST} is damaged ({error}); restore it or train again") from None
    if document.get("schema") != SCHEMA:
        found = str(document.get("schema"))[:20]
        raise ArtefactError(f"{folder} has schema version {found}; this package reads {SCHEMA}: train the model again")
    try:
        manifest = msgspec.json.decode(content, type=Manifest)
    except (msgspec.MsgspecError, LSTMStrategyError) as error:
        raise ArtefactError(f"{folder / _MANIFEST} is damaged ({error}); restore it or train again") from None
    # The document itself, not the manifest made of it: what an earlier version wrote lacks today's settings, which then
    # have their defaults.
    digest = _sha256(msgspec.json.encode(document | {"digest": ""}))
    if digest != manifest.digest or content != msgspec.json.format(msgspec.json.encode(document), indent=1):
        raise ArtefactError(f"{folder / _MANIFEST} does not match its own digest; restore it or train again")
    contents = {name: _read(folder, name) for name in (_GRAPH, _WEIGHTS)}
    for name, data in contents.items():
        if _sha256(data) != manifest.files.get(name):
            raise ArtefactError(f"{folder / name} does not match its sha256 in the manifest; restore it or train again")
    return Artefact(manifest, contents[_GRAPH], contents[_WEIGHTS])


def _read(folder: Path, name: str) -> bytes:
    path = folder / name
    try:
        if path.stat().st_size > _LARGEST[name]:
            raise ArtefactError(f"{path} is larger than {_LARGEST[name]} bytes; it is no artefact")
        return path.read_bytes()
    except OSError as error:
        raise ArtefactError(f"{path} cannot be read ({error.strerror}); no whole artefact is there") from None


def require_name(name: str) -> None:
    """Refuse what is no name of a model or a version, and might lead out of the folder."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}", name):
        raise ArtefactError(f"{name[:120]!r} is no name for a model; use letters, digits, '_', '-' and '.'")


def _encode(manifest: Manifest) -> bytes:
    return msgspec.json.encode(manifest, order="deterministic")


def _text(manifest: Manifest) -> bytes:
    return msgspec.json.format(_encode(manifest), indent=1)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
