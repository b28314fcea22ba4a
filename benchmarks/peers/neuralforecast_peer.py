"""NeuralForecast's LSTM: ``python -m benchmarks.peers.neuralforecast_peer FOLDER WINDOW SCALER``, in its environment.

WINDOW is ``input_size``; ``default`` leaves it at the library's own (3 bars at horizon 1). SCALER is ``scaler_type``;
its default, ``robust``, scales every window by itself, and so hides the volatility that is to be forecast.
"""

from __future__ import annotations

import logging
import sys

from benchmarks.peers.peer import Clock, answer, load_task, one_thread, pinball, timed


def main(folder: str, window: str, scaler: str) -> None:
    """One layer of the task's hidden size; everything else as the library has it."""
    one_thread()
    task, table = load_task(folder)

    import neuralforecast
    import numpy as np
    import pandas as pd
    import pytorch_lightning as pl
    import torch
    from neuralforecast import NeuralForecast
    from neuralforecast.losses.pytorch import MQLoss
    from neuralforecast.models import LSTM

    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    clock = Clock(task.longest, task.patience)

    class Watch(pl.Callback):
        def on_train_start(self, trainer, module):  # type: ignore[no-untyped-def]
            clock.go()

        def on_validation_start(self, trainer, module):  # type: ignore[no-untyped-def]
            clock.stand()

        def on_validation_end(self, trainer, module):  # type: ignore[no-untyped-def]
            if not trainer.sanity_checking:
                trainer.should_stop = clock.note(float(trainer.callback_metrics["ptl/val_loss"]) / len(task.levels))
                clock.go()

    frame = pd.DataFrame({"unique_id": "BTC", "ds": np.arange(len(table)), "y": table["past"]})
    frame = pd.concat([frame, table[task.features], table["known"].astype(float).rename("available_mask")], axis=1)
    sizes = {} if window == "default" else {"input_size": int(window)}
    model = LSTM(
        h=1,
        encoder_hidden_size=task.hidden,
        encoder_n_layers=1,
        hist_exog_list=list(task.features),
        loss=MQLoss(quantiles=task.levels),
        max_steps=100_000,  # the clock ends it; without decays of the rate, its default, this changes no step
        scaler_type=scaler,
        random_seed=task.seed,
        accelerator="cpu",
        devices=1,
        callbacks=[Watch()],
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        logger=False,
        enable_checkpointing=False,
        **sizes,
    )
    forecaster = NeuralForecast(models=[model], freq=1)
    forecaster.fit(frame, val_size=task.stop_rows)
    clock.stand()

    some = frame.tail(task.history + model.input_size).assign(ds=lambda rows: np.arange(len(rows)))
    with timed() as found:
        told = forecaster.cross_validation(
            some, n_windows=None, test_size=task.history, step_size=1, use_fitted=True, refit=False
        )
    columns = [name for name in told.columns if name not in ("unique_id", "ds", "cutoff", "y")]
    last = told.tail(task.stop_rows)
    answer(
        {
            "name": f"NeuralForecast {neuralforecast.__version__} LSTM",
            "setting": f"input_size {model.input_size}, scaler {scaler}"
            + (" (defaults)" if window == "default" else ""),
            "curves": [clock.curve],
            "history": {"rows": len(told), **found},
            "check": pinball(last[columns].to_numpy(), last["y"].to_numpy(), task.levels),
        }
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
