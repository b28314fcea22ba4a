"""The package itself, as one of the peers: ``python -m benchmarks.peers.ours FOLDER``."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.peers.peer import Clock, answer, load_task, one_thread, timed

_SEEDS = 3


def main(folder: str) -> None:
    """Three seeds of the training, then the history, then the walk-forward."""
    one_thread()
    task, _ = load_task(folder)

    from benchmarks.peers.task import history, spans_of_task
    from lstm_strategy.artefact import load
    from lstm_strategy.features import FeaturesConfig
    from lstm_strategy.forecaster import Forecaster
    from lstm_strategy.hyperparameters import NetworkConfig, SplitConfig, TargetConfig, TrainConfig, WalkForwardConfig
    from lstm_strategy.research.evaluate import evaluate
    from lstm_strategy.research.fit import fit_spans
    from lstm_strategy.research.fold_run import Plan

    bars, instrument, _ = history()
    spans, target = spans_of_task(bars), TargetConfig(horizons=(1,), levels=tuple(task.levels))
    network = NetworkConfig(hidden=task.hidden, layers=1)
    with tempfile.TemporaryDirectory() as temporary:

        def fit(seed: int, epochs: int | None = None) -> tuple[Any, Clock]:
            config = TrainConfig(seed=seed) if epochs is None else TrainConfig(seed=seed, epochs=epochs)
            clock = Clock(task.longest, task.patience)

            def on_epoch(epoch: int, loss: float, best: float) -> None:
                clock.stand()
                clock.note(loss)
                clock.go()

            clock.go()  # features, labels and validation are on the clock
            fitted = fit_spans(
                "peer",
                None,
                [(bars, instrument)],
                FeaturesConfig(),
                target,
                spans,
                network,
                config,
                Path(temporary) / f"{seed}-{epochs}",
                on_epoch=on_epoch,
            )
            return fitted, clock

        fit(0, epochs=1)  # compiles; does not count
        curves = []
        for seed in range(task.seed, task.seed + _SEEDS):
            fitted, clock = fit(seed)
            curves.append(clock.curve)

        artefact = load(fitted.path)
        Forecaster(artefact, bars.instrument_id).run(bars[:2_000])
        with timed() as found:
            Forecaster(artefact, bars.instrument_id).run(bars)
        figures: dict[str, Any] = {"curves": curves, "history": {"rows": len(bars), **found}}

        length = task.folds * task.test_bars + task.fit_bars + task.hold_bars + FeaturesConfig().warmup
        walked = WalkForwardConfig(
            test_bars=task.test_bars,
            folds=task.folds,
            train="rolling",
            fit_bars=task.fit_bars,
            stop_bars=task.hold_bars // 2,
            calibrate_bars=task.hold_bars // 2,
        )
        for name, config in (("own", TrainConfig(seed=task.seed)), ("same", TrainConfig(epochs=task.epochs))):
            place = Path(temporary) / name
            plan = Plan(
                name="peer",
                history=((bars[-length:], instrument),),
                features=FeaturesConfig(),
                target=target,
                network=network,
                train=config,
                models=place / "models",
                parts=place / "parts",
            )
            split = SplitConfig(fit_end="2000-01-01", stop_end="2000-01-02", calibrate_end="2000-01-03")
            with timed() as found:
                evaluated = evaluate(plan, split, walked, place, {})
            figures[f"walk_{name}"] = {"rows": len(evaluated.forecasts), "folds": len(evaluated.folds), **found}
    answer(figures)


if __name__ == "__main__":
    main(sys.argv[1])
