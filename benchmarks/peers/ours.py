"""The package itself, as one of the peers: ``python -m benchmarks.peers.ours FOLDER train|walk``."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.compute as pc

from benchmarks.peers.peer import Clock, answer, load_task, one_thread, pinball, timed

_SEEDS = 3


def main(folder: str, part: str) -> None:
    """Three seeds of the training and a history, or the walk-forward; features and validation are on the clock.

    So is torch's export, once a walk-forward: within a process the package asks for it once a shape of network.
    """
    one_thread()
    task, _ = load_task(folder)
    with tempfile.TemporaryDirectory() as temporary:
        answer(_train(task, Path(temporary)) if part == "train" else _walk(task, Path(temporary)))


def _train(task: SimpleNamespace, place: Path) -> dict[str, Any]:
    from benchmarks.peers.task import history, spans_of_task
    from lstm_strategy.artefact import load
    from lstm_strategy.features import FeaturesConfig
    from lstm_strategy.forecaster import Forecaster
    from lstm_strategy.hyperparameters import NetworkConfig, TargetConfig, TrainConfig
    from lstm_strategy.research.fit import fit_spans

    bars, instrument, _ = history()
    spans, target = spans_of_task(bars), TargetConfig(horizons=(1,), levels=tuple(task.levels))
    network = NetworkConfig(hidden=task.hidden, layers=1)

    def fit(config: TrainConfig) -> tuple[Path, list[tuple[float, float]]]:
        clock = Clock(task.longest, task.patience)

        def on_epoch(epoch: int, loss: float, best: float) -> None:
            clock.stand()
            clock.note(loss)
            clock.go()

        history, models = [(bars, instrument)], place / f"{config.seed}-{config.epochs}"
        clock.go()
        fitted = fit_spans(
            "peer", None, history, FeaturesConfig(), target, spans, network, config, models, on_epoch=on_epoch
        )
        return fitted.path, clock.curve

    fit(TrainConfig(epochs=1))  # compiles; does not count
    path, curves = Path(), []
    for seed in range(task.seed, task.seed + _SEEDS):
        path, curve = fit(TrainConfig(seed=seed))
        curves.append(curve)
    artefact = load(path)
    Forecaster(artefact, bars.instrument_id).run(bars[:2_000])
    with timed() as found:
        Forecaster(artefact, bars.instrument_id).run(bars)
    return {"curves": curves, "history": {"rows": len(bars), **found}}


def _walk(task: SimpleNamespace, place: Path) -> dict[str, Any]:
    from msgspec.structs import replace

    from benchmarks.peers.task import history
    from lstm_strategy.features import FeaturesConfig
    from lstm_strategy.hyperparameters import NetworkConfig, SplitConfig, TargetConfig, TrainConfig, WalkForwardConfig
    from lstm_strategy.research import export
    from lstm_strategy.research.evaluate import evaluate
    from lstm_strategy.research.fold_run import Plan

    bars, instrument, _ = history()
    length = task.folds * task.test_bars + task.fit_bars + task.hold_bars + FeaturesConfig().warmup
    scratch = WalkForwardConfig(
        test_bars=task.test_bars,
        folds=task.folds,
        train="rolling",
        fit_bars=task.fit_bars,
        stop_bars=task.hold_bars // 2,
        calibrate_bars=task.hold_bars // 2,
    )
    split = SplitConfig(fit_end="2000-01-01", stop_end="2000-01-02", calibrate_end="2000-01-03")  # the folds' are used

    def walk(name: str, config: TrainConfig, walked: WalkForwardConfig = scratch) -> dict[str, float]:
        export._templates.clear()  # nothing of the walk before makes this one's export cheaper
        plan = Plan(
            name="peer",
            history=((bars[-length:], instrument),),
            features=FeaturesConfig(),
            target=TargetConfig(horizons=(1,), levels=tuple(task.levels)),
            network=NetworkConfig(hidden=task.hidden, layers=1),
            train=config,
            models=place / name / "models",
            parts=place / name / "parts",
        )
        with timed() as found:
            evaluated = evaluate(plan, split, walked, place / name, {})
        loss = _pinball(evaluated.forecasts, task.levels)
        return {"rows": len(evaluated.forecasts), "folds": len(evaluated.folds), "pinball": loss, **found}

    walk("first", TrainConfig(epochs=1))  # compiles and imports; does not count
    return {
        "own": walk("own", TrainConfig()),
        "same": walk("same", TrainConfig(epochs=task.epochs)),
        "tuned": walk("tuned", TrainConfig(), replace(scratch, warm_start=True, warm_epochs=task.warm_epochs)),
    }


def _pinball(forecasts: Any, levels: list[float]) -> float:
    """Of all test spans, in the unit of the outcome over its scale, as in the table of trainings."""
    known = forecasts.filter(pc.is_valid(forecasts["outcome"]))
    q_NQ = np.array(known["quantiles"].to_pylist())
    scale_N = known["scale"].to_numpy()
    return pinball(q_NQ / scale_N[:, None], known["outcome"].to_numpy() / scale_N, levels)


if __name__ == "__main__":
    main(*sys.argv[1:])
