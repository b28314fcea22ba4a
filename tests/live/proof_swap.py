"""Hot-swaps in flight, some with corrupt artefacts: no bar is skipped, and each model speaks as if it always had."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from proof_desk import BTC, HISTORY, Verdict, make_desk, offline, run

from lstm_strategy import registry

__all__ = ["prove"]

_BETWEEN, _SHADOW, _TOLERANCE, _SPEED = 40, 8, 0.001, 600.0
_SPOILT = ("model.onnx", "manifest.json", "weights.safetensors", "truncated", "missing")
_LIVE = f"[live]\nfollow = true\nfollow_poll = 0.1\nshadow_bars = {_SHADOW}\n"


def prove(folder: Path, *, long: bool) -> Verdict:
    """20 swaps, 5 of them corrupt; 3 and 1 where not ``long``. A bar takes 0.1 s: the registry goes by the wall.

    Each is promoted ten bars after the one before has begun to speak, or was refused.
    """
    swaps, corrupt = (20, 5) if long else (3, 1)
    # A version is verified and warmed by the wall: machines with much else to do take more bars.
    bars = _BETWEEN * (swaps + 1) * 3 // (1 if long else 2)
    versions = [{"seed": 10 + version, "version": str(version)} for version in range(2, swaps + 2)]
    verdict, desk = Verdict("swap"), make_desk(folder, bars, more=_LIVE, versions=versions)
    models = folder / "models"
    bad = {int(row) for row in np.linspace(2, swaps, corrupt + 1)[:-1].round()} if corrupt > 1 else {2}
    for how, version in enumerate(sorted(bad)):
        _spoil(models / "tiny" / str(version), _SPOILT[how % len(_SPOILT)])
    registry.promote(models, "tiny", "1")
    due = list(range(2, swaps + 2))
    spoke: list[tuple[int, str]] = []
    settled: list[int] = []  # at which bars a version was known to speak, or to be refused

    def on_bar(told: Any, built: Any) -> None:
        """Promote the next version at its bar."""
        swap = built.strategy.feed.swap
        spoke.append((told.decision.ts_close, built.strategy.model_label))
        if swap.swaps + swap.told > len(settled):
            settled.append(len(spoke))
        last = settled[-1] if settled else 0
        if due and len(settled) == due[0] - 2 and len(spoke) >= last + _BETWEEN // 4:
            _promote(models, str(due.pop(0)))

    ran = run(desk.settings(speed=_SPEED), on_bar=on_bar)
    log = ran.log()
    stamps = desk.bars[BTC].ts_close[HISTORY:]
    said = [str(line.get("message")) for line in ran.told()]
    refused, begun = (sum(word in text for text in said) for word in ("is refused", "speaks from the next bar"))
    verdict.figure("bars told, decided", f"{bars:,}, {len(log):,}")
    verdict.figure("swaps", begun)
    verdict.figure("corrupt versions refused", refused)
    verdict.require(np.array_equal(log.ts_close, stamps), "a bar was skipped or decided twice")
    verdict.require(len(spoke) == bars and len({ts for ts, _ in spoke}) == bars, "not one decision a bar")
    verdict.require(refused == corrupt, f"refused {refused}: {said[-5:]}")
    verdict.require(begun == swaps - corrupt, f"swapped {begun} times")
    labels, raw = np.array(log.texts("model")), log.matrix("raw")
    worst, exact = 0.0, 0
    for label in sorted(set(labels)):
        version = label.partition("/")[2]
        verdict.require(int(version) not in bad, f"{label} is corrupt and spoke")
        wanted = offline(desk, ran.first, model=models / "tiny" / version)
        rows = labels == label
        worst = max(worst, float(np.abs(raw[rows] - wanted[rows]).max()))
        exact += int((raw[rows] == wanted[rows]).all(axis=1).sum())
    verdict.figure("forecasts equal to the last bit to the model's, run all along", exact)
    verdict.figure("largest difference of the others, σ√h", f"{worst:.1e}")
    verdict.require(len(set(labels)) == swaps - corrupt + 1, f"spoke: {sorted(set(labels))}")
    verdict.require(worst <= _TOLERANCE, "a new model does not speak as one that ran all along")
    verdict.require((log.floats("conditions.parity") > 0).all(), "parity was lost over a swap")
    return verdict


def _promote(models: Path, version: str) -> None:
    """Name the version as current, as a copy of a registry does; `models promote` refuses what does not verify."""
    (models / "tiny" / "current").write_text(f"{version}\n")


def _spoil(folder: Path, how: str) -> None:
    graph = folder / "model.onnx"
    if how == "missing":
        graph.unlink()
    elif how == "truncated":
        graph.write_bytes(graph.read_bytes()[:-100])
    else:
        content = bytearray((folder / how).read_bytes())
        content[len(content) // 2] ^= 1
        (folder / how).write_bytes(content)
