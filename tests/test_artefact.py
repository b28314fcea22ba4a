"""Artefacts: saved whole or not at all, and nothing but what was saved is ever loaded."""

from __future__ import annotations

import errno
import hashlib
import math
import os
import shutil
import time
from pathlib import Path
from threading import Thread
from typing import Any

import msgspec
import numpy as np
import pytest
from rich.console import Console

from lstm_strategy import artefact, registry
from lstm_strategy.artefact import Artefact, ArtefactError, Manifest
from lstm_strategy.cli_models import list_command, promote_command
from lstm_strategy.decision import Shrinkage
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.features import FeatureConfig, FeaturesConfig

FILES = ("manifest.json", "model.onnx", "weights.safetensors")


@pytest.fixture(scope="module")
def tiny(tiny_artefact: Path) -> Artefact:
    return artefact.load(tiny_artefact)


@pytest.fixture
def models(tiny_artefact: Path, tmp_path: Path) -> Path:
    """A folder of models of one's own, with tiny/1 in it."""
    shutil.copytree(tiny_artefact, tmp_path / "models" / "tiny" / "1")
    return tmp_path / "models"


def refusal(folder: Path) -> str:
    with pytest.raises(LSTMStrategyError) as refused:
        artefact.load(folder)
    told = str(refused.value)
    assert len(told.splitlines()) == 1
    return told


def save(models: Path, manifest: Manifest, **changes: Any) -> Path:
    return artefact.save(models, msgspec.structs.replace(manifest, **changes), b"graph", b"weights")


def all_below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_what_is_saved_is_loaded(tmp_path: Path, tiny: Artefact) -> None:
    wanted = msgspec.structs.replace(tiny.manifest, name="other", version="v2.1", files={}, digest="")
    folder = artefact.save(tmp_path, wanted, b"graph", b"weights")
    assert folder == tmp_path / "other" / "v2.1"
    found = artefact.load(folder)
    assert found.graph == b"graph"
    assert (folder / "weights.safetensors").read_bytes() == b"weights"
    assert msgspec.structs.replace(found.manifest, files={}, digest="") == wanted
    assert all_below(folder) == sorted(FILES)
    assert found.label == "other/v2.1"


def test_saving_twice_gives_the_same_bytes_and_overwrites_nothing(tmp_path: Path, tiny: Artefact) -> None:
    folders = [save(tmp_path / name, tiny.manifest) for name in ("a", "b")]
    for name in FILES:
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()
    with pytest.raises(LSTMStrategyError, match="exists already and is never overwritten"):
        save(tmp_path / "a", tiny.manifest, warmup_bars=1)
    assert artefact.load(folders[0]).manifest.warmup_bars == 496


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_byte_anywhere_is_refused(models: Path, name: str) -> None:
    folder = models / "tiny" / "1"
    whole = (folder / name).read_bytes()
    random = np.random.default_rng(1)
    places = {0, len(whole) - 1, *random.choice(len(whole), 200, replace=False).tolist()}
    for place in sorted(places):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << int(random.integers(8))
        (folder / name).write_bytes(flipped)
        assert str(folder) in refusal(folder)
    (folder / name).write_bytes(whole)
    artefact.load(folder)


@pytest.mark.parametrize(
    ("old", "new"),
    [(b"\n", b" "), (b" ", b"\n"), (b"}", b"}\n"), (b'"tiny"', b'"tin\\u0079"'), (b"496", b"497"), (b"{", b"{ ")],
)
def test_a_manifest_written_otherwise_is_refused(models: Path, old: bytes, new: bytes) -> None:
    path = models / "tiny" / "1" / "manifest.json"
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new, 1))
    assert "does not match its own digest" in refusal(path.parent)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("how", ["truncated", "empty", "longer", "missing", "a folder", "oversize"])
def test_a_file_that_is_not_whole_is_refused(models: Path, name: str, how: str) -> None:
    path = models / "tiny" / "1" / name
    content = path.read_bytes()
    match how:
        case "truncated":
            path.write_bytes(content[: len(content) // 2])
        case "empty":
            path.write_bytes(b"")
        case "longer":
            path.write_bytes(content + b"\x00")
        case "missing":
            path.unlink()
        case "a folder":
            path.unlink()
            path.mkdir()
        case "oversize":
            os.truncate(path, 2**30 + 1)  # sparse
    told = refusal(path.parent)
    assert name in told
    wanted = {"missing": "cannot be read", "a folder": "cannot be read", "oversize": "is larger than"}
    assert wanted.get(how, "") in told


@pytest.mark.parametrize("how", ["missing folder", "a file", "another model's graph", "swapped"])
def test_what_is_no_artefact_is_refused(models: Path, tiny: Artefact, how: str) -> None:
    folder = models / "tiny" / "1"
    match how:
        case "missing folder":
            folder = models / "tiny" / "2"
        case "a file":
            folder = folder / "model.onnx"
        case "another model's graph":
            other = save(models, tiny.manifest, version="2")
            shutil.copy(other / "model.onnx", folder / "model.onnx")
        case "swapped":
            (folder / "model.onnx").rename(folder / "x")
            (folder / "weights.safetensors").rename(folder / "model.onnx")
            (folder / "x").rename(folder / "weights.safetensors")
    refusal(folder)


@pytest.mark.parametrize(
    ("schema", "told"), [(0, "schema version 0"), (2, "schema version 2"), ("1", "schema version 1"), (None, "None")]
)
def test_another_schema_is_refused(models: Path, schema: Any, told: str) -> None:
    path = models / "tiny" / "1" / "manifest.json"
    document = msgspec.json.decode(path.read_bytes())
    path.write_bytes(msgspec.json.encode(document | {"schema": schema}))
    assert told in refusal(path.parent)
    del document["schema"]
    path.write_bytes(msgspec.json.encode(document))
    assert "schema version None; this package reads 1: train the model again" in refusal(path.parent)


NEWER = {"network": ("layer_norm", "embedding", "head", "kernel", "convolutions", "window")}
NEWER["training"] = ("members", "ema", "precision", "compile")


def as_before(manifest: Path) -> None:
    """Write the manifest as version 0.1.0 did, which knew fewer settings, with a digest of its own."""
    document = msgspec.json.decode(manifest.read_bytes())
    for section, names in NEWER.items():
        for name in names:
            del document[section][name]
    digest = hashlib.sha256(msgspec.json.encode(document | {"digest": ""})).hexdigest()
    manifest.write_bytes(msgspec.json.format(msgspec.json.encode(document | {"digest": digest}), indent=1))


def test_a_manifest_of_an_earlier_version_is_read_still(models: Path, tiny: Artefact) -> None:
    path = models / "tiny" / "1" / "manifest.json"
    as_before(path)
    assert b"embedding" not in path.read_bytes()
    found = artefact.load(path.parent)
    assert (found.manifest.network.embedding, found.manifest.training.members) == (0, 1)
    assert msgspec.structs.replace(found.manifest, digest="") == msgspec.structs.replace(tiny.manifest, digest="")
    registry.promote(models, "tiny", "1")
    content = path.read_bytes()
    for old, new in ((b"496", b"497"), (b"\n", b" "), (b'"tiny"', b'"tinY"')):
        path.write_bytes(content.replace(old, new, 1))
        assert "does not match its own digest" in refusal(path.parent)
    path.write_bytes(content)
    later = msgspec.json.decode(content) | {"later": 1}
    path.write_bytes(msgspec.json.format(msgspec.json.encode(later), indent=1))
    assert "unknown field `later`" in refusal(path.parent)


def test_an_instrument_has_the_number_of_its_name(tiny: Artefact) -> None:
    fit = tiny.manifest.instruments["BTCUSDT.BINANCE"]
    panel = dict.fromkeys(("ETHUSDT.BINANCE", "ADAUSDT.BINANCE", "BTCUSDT.BINANCE"), fit)
    model = Artefact(msgspec.structs.replace(tiny.manifest, instruments=panel), tiny.graph, tiny.weights)
    assert [model.instrument_number(name) for name in sorted(panel)] == [0, 1, 2]
    with pytest.raises(ArtefactError, match="was not trained on SOLUSDT"):
        model.instrument_number("SOLUSDT.BINANCE")


@pytest.mark.parametrize(
    "content", [b"[]", b"null", b"1", b"{}", b'{"schema":1}', b'{"schema":1,"a":' + b"[" * 100_000, b"\xff\xfe{}"]
)
def test_a_manifest_that_is_none_is_refused(models: Path, content: bytes) -> None:
    path = models / "tiny" / "1" / "manifest.json"
    path.write_bytes(content)
    refusal(path.parent)


def test_numbers_that_json_cannot_hold_are_not_saved(tmp_path: Path, tiny: Artefact) -> None:
    for changes in ({"scores": {"pinball": math.nan}}, {"shrinkage": [Shrinkage(0.0, 0.0, math.nan), Shrinkage()]}):
        with pytest.raises(ArtefactError, match="tiny/1 holds a number that is not finite"):
            save(tmp_path, tiny.manifest, **changes)
    assert all_below(tmp_path) == []


TRICKS = ["..", ".", "", "a/b", "../a", "/a", "a\\b", "a\n", "a\x00", ".hidden", "-rf", "a" * 101, "a b", "é"]


@pytest.mark.parametrize("name", TRICKS)
def test_names_cannot_leave_the_folder(tmp_path: Path, tiny: Artefact, name: str) -> None:
    models = tmp_path / "models"
    for changes in ({"name": name}, {"version": name}):
        with pytest.raises(ArtefactError, match="is no name for a model"):
            save(models, tiny.manifest, **changes)
    with pytest.raises(ArtefactError, match="is no name for a model"):
        registry.current(models, name)
    for model, version in ((name, "1"), ("tiny", name)):
        with pytest.raises(ArtefactError, match="is no name for a model"):
            registry.promote(models, model, version)
    assert all_below(tmp_path) == []


def test_a_pointer_cannot_leave_the_folder(models: Path) -> None:
    for content in ("../../elsewhere", "", "..", "1\n2"):
        (models / "tiny" / "current").write_text(content)
        with pytest.raises(ArtefactError, match="is no name for a model"):
            registry.current(models, "tiny")


def test_a_pointer_that_is_no_text_is_refused(models: Path) -> None:
    (models / "tiny" / "current").write_bytes(b"\xff\xff")
    with pytest.raises(ArtefactError):
        registry.current(models, "tiny")


@pytest.mark.parametrize("failing", FILES)
def test_a_full_disk_leaves_no_folder(
    tmp_path: Path, tiny: Artefact, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    write = Path.write_bytes

    def full(path: Path, data: Any) -> int:
        if path.name == failing:
            write(path, bytes(data)[:10])
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(LSTMStrategyError, match="tiny/1: the disk is full; nothing was changed"):
        save(tmp_path, tiny.manifest)
    assert all_below(tmp_path) == ["tiny"]
    monkeypatch.undo()
    artefact.load(save(tmp_path, tiny.manifest))


def test_a_full_disk_keeps_the_current_version(models: Path, tiny: Artefact, monkeypatch: pytest.MonkeyPatch) -> None:
    save(models, tiny.manifest, version="2")
    registry.promote(models, "tiny", "1")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(LSTMStrategyError, match="current: the disk is full; nothing was changed"):
        registry.promote(models, "tiny", "2")
    assert registry.current(models, "tiny").name == "1"


def test_the_promoted_version_is_current(models: Path, tiny: Artefact) -> None:
    with pytest.raises(ArtefactError, match=r"no model 'tiny' in .*; train it with: lstm-strategy train"):
        registry.current(models, "tiny")
    save(models, tiny.manifest, version="2")
    save(models, tiny.manifest, name="another")
    assert registry.versions(models) == [("another", "1"), ("tiny", "1"), ("tiny", "2")]
    registry.promote(models, "tiny", "2")
    assert registry.current(models, "tiny") == models / "tiny" / "2"
    registry.promote(models, "tiny", "1")
    assert registry.current(models, "tiny") == models / "tiny" / "1"


def test_what_does_not_verify_is_not_promoted(models: Path, tiny: Artefact) -> None:
    registry.promote(models, "tiny", "1")
    broken = save(models, tiny.manifest, version="2")
    (broken / "model.onnx").write_bytes(b"grapH")
    for version, told in (("2", "sha256"), ("3", "model 'tiny' in .* has no version '3'; it has 1, 2$")):
        with pytest.raises(ArtefactError, match=told):
            registry.promote(models, "tiny", version)
    assert registry.current(models, "tiny").name == "1"


def test_a_model_is_found_by_name_version_or_path(
    models: Path, tiny: Artefact, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(models, tiny.manifest, version="2")
    registry.promote(models, "tiny", "2")
    assert registry.locate(models, "tiny") == models / "tiny" / "2"
    assert registry.locate(models, "tiny/1") == models / "tiny" / "1"
    assert registry.locate(models, str(models / "tiny" / "1")) == models / "tiny" / "1"
    monkeypatch.chdir(models.parent)
    assert registry.locate(Path("elsewhere"), "models/tiny/1") == Path("models/tiny/1")
    with pytest.raises(ArtefactError, match="no model 'nobody'"):
        registry.locate(models, "nobody")
    with pytest.raises(ArtefactError, match="has no version '9'; it has 1, 2"):
        registry.locate(models, "tiny/9")
    (models / "tiny" / "9").mkdir()
    assert "cannot be read" in refusal(registry.locate(models, "tiny/9"))


def test_a_model_for_other_use_is_refused(tiny: Artefact) -> None:
    tiny.require(timeframe="1h")
    tiny.require(timeframe="1h", features=FeaturesConfig())
    with pytest.raises(ArtefactError, match="model tiny/1 was trained on 1h bars, not 4h; train it again"):
        tiny.require(timeframe="4h")
    other = FeaturesConfig(features=(*FeaturesConfig().features[1:], FeatureConfig("rsi", 99)))
    with pytest.raises(ArtefactError, match=r"was trained on other features \(return_1, rsi_99\); train it again"):
        tiny.require(timeframe="1h", features=other)
    for settings in ({"scale_span": 49}, {"max_gap_bars": 7}, {"hampel_window": 24}):
        with pytest.raises(ArtefactError, match=r"other features \(the scale, gap or filter settings\)"):
            tiny.require(timeframe="1h", features=FeaturesConfig(**settings))
    turned = FeaturesConfig(features=FeaturesConfig().features[::-1])
    with pytest.raises(ArtefactError, match="was trained on other features"):
        tiny.require(timeframe="1h", features=turned)


def test_an_unknown_instrument_or_horizon_is_refused(tiny: Artefact) -> None:
    assert tiny.require_instrument("BTCUSDT.BINANCE").tick == 0.01
    with pytest.raises(ArtefactError, match=r"tiny/1 was not trained on ETHUSDT.BINANCE; it knows BTCUSDT.BINANCE"):
        tiny.require_instrument("ETHUSDT.BINANCE")
    assert (tiny.shrinkage(1).slope, tiny.shrinkage(4).slope) == (0.5, 0.0)
    with pytest.raises(ArtefactError, match=r"sizing\.horizon is 24; model tiny/1 forecasts 1, 4"):
        tiny.shrinkage(24)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"calibration": [[0.0] * 7]}, "calibration is not a table of 2 horizons by 7 levels"),
        ({"baseline": [[0.0] * 7, [0.0] * 6]}, "baseline is not a table of 2 horizons by 7 levels"),
        ({"shrinkage": []}, "shrinkage has 0 rows for 2 horizons"),
        ({"feature_ranges": []}, "feature_ranges do not name the features"),
    ],
)
def test_a_manifest_whose_tables_do_not_fit_is_refused(changes, told, tiny_artefact):
    manifest = artefact.load(tiny_artefact).manifest
    with pytest.raises(LSTMStrategyError, match=told):
        msgspec.structs.replace(manifest, **changes)


@pytest.mark.parametrize("content", [b"", b"\n", b"2\nbefo", b"2\nbefore: ", b"\xff\xff", b"2\nbefore: ../../x\n"])
def test_a_damaged_pointer_is_told_and_mended_by_a_promotion(
    models: Path, tiny: Artefact, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was damaged stayed in the history once, and made the version that was just promoted unknown."""
    save(models, tiny.manifest, version="2")
    (models / "tiny" / "current").write_bytes(content)
    for look in (registry.current, registry.before, registry.rollback):
        with pytest.raises(ArtefactError, match=r"tiny/current is damaged: .*; make a version .* promote tiny VERSION"):
            look(models, "tiny")
    list_command(models, as_json=True)
    listed = msgspec.json.decode(capsys.readouterr().out)["models"]
    assert [row["version"] for row in listed] == ["1", "2"]
    assert all("is damaged" in row["problem"] for row in listed)
    registry.promote(models, "tiny", "1")
    assert (registry.current(models, "tiny").name, registry.before(models, "tiny")) == ("1", [])
    registry.promote(models, "tiny", "2")
    assert registry.rollback(models, "tiny") == "1"


def test_a_pointer_that_cannot_be_read_loses_no_history(models: Path) -> None:
    (models / "tiny" / "current").unlink(missing_ok=True)
    (models / "tiny" / "current").mkdir()
    for change in (lambda: registry.promote(models, "tiny", "1"), lambda: registry.rollback(models, "tiny")):
        with pytest.raises(ArtefactError, match=r"tiny/current cannot be read \(Is a directory\)"):
            change()


def test_promotions_at_once_are_all_remembered(models: Path, tiny: Artefact, monkeypatch: pytest.MonkeyPatch) -> None:
    """A retraining promotes while somebody rolls back: what was rolled back must not come before the new one."""
    write = registry._point

    def late(*content: Any) -> None:
        time.sleep(0.2)
        write(*content)

    for version in ("2", "3", "4"):
        save(models, tiny.manifest, version=version)
    registry.promote(models, "tiny", "1")
    monkeypatch.setattr(registry, "_point", late)
    others = [Thread(target=registry.promote, args=(models, "tiny", version)) for version in ("2", "3", "4")]
    for other in others:
        other.start()
    for other in others:
        other.join()
    known = [registry.current(models, "tiny").name, *registry.before(models, "tiny")]
    assert (sorted(known), known[-1]) == (["1", "2", "3", "4"], "1")


def test_a_rollback_makes_the_version_before_current_again(models: Path, tiny: Artefact) -> None:
    registry.promote(models, "tiny", "1")
    with pytest.raises(ArtefactError, match="has no version before the current one; name one with: lstm-strategy"):
        registry.rollback(models, "tiny")
    for version in ("2", "3"):
        save(models, tiny.manifest, version=version)
        registry.promote(models, "tiny", version)
        registry.promote(models, "tiny", version)  # twice is once
    assert registry.rollback(models, "tiny") == "2"
    assert registry.current(models, "tiny").name == "2"
    assert registry.rollback(models, "tiny") == "1"  # one further back, never forward again
    with pytest.raises(ArtefactError, match="has no version before the current one"):
        registry.rollback(models, "tiny")
    assert registry.current(models, "tiny").name == "1"
    for version in ("3", "2", "3"):
        registry.promote(models, "tiny", version)
    assert registry.before(models, "tiny") == ["2", "3", "1"]
    shutil.rmtree(models / "tiny" / "2")
    with pytest.raises(ArtefactError, match=r"has no version '2'; it has 1, 3; name one with: .* promote tiny"):
        registry.rollback(models, "tiny")
    assert registry.current(models, "tiny").name == "3"
    with pytest.raises(ArtefactError, match="no model 'nobody'"):
        registry.rollback(models, "nobody")


def test_the_commands_promote_and_roll_back(
    models: Path, tiny: Artefact, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from lstm_strategy import cli

    def called(*arguments: str) -> int:
        monkeypatch.setattr("sys.argv", ["lstm-strategy", "models", *arguments, "--models", str(models)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(ended.value.code or 0)

    save(models, tiny.manifest, version="2")
    for arguments, told, before in (
        (["promote", "tiny", "1"], "1", []),
        (["promote", "tiny/2"], "2", ["1"]),
        (["rollback", "tiny"], "1", []),
    ):
        assert called(*arguments, "--json") == 0
        out, err = capsys.readouterr()
        assert msgspec.json.decode(out) == {"model": "tiny", "current": told, "before": before}
        assert ("a rollback leads to 1" if before else "there is none before it") in err
    assert called("rollback", "tiny") == 1
    assert "has no version before the current one" in capsys.readouterr().err
    assert called("promote", "tiny", "3") == 1
    assert registry.current(models, "tiny").name == "1"
    capsys.readouterr()
    assert called("verify", "nobody") == 1
    assert capsys.readouterr().err.startswith("error: no model 'nobody'")
    assert called("verify", "tiny/9") == 1
    assert "has no version '9'; it has 1, 2" in capsys.readouterr().err


def test_a_version_to_copy_stays_whole_in_a_narrow_window(
    models: Path, tiny: Artefact, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from lstm_strategy import cli_models

    version = "20261121T151419-003fd37c"
    save(models, tiny.manifest, version=version)
    monkeypatch.setattr(cli_models, "console", Console(stderr=True, width=80))
    cli_models.list_command(models)
    assert version in capsys.readouterr().err


def test_a_folder_of_versions_is_told_from_a_damaged_one(models: Path) -> None:
    told = f"{models / 'tiny'} holds a model's versions; name one, such as {models / 'tiny' / '1'}"
    with pytest.raises(ArtefactError, match=told):
        artefact.load(models / "tiny")


def test_who_names_no_version_is_told_those_there_are(models: Path) -> None:
    told = {"tiny": "which version of tiny[?] It has 1: models promote", "tni": "no model 'tni' .*; there are: tiny$"}
    for name, of in told.items():
        with pytest.raises(LSTMStrategyError, match=of):
            promote_command(name, models=models)
