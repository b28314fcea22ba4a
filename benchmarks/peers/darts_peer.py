"""Darts' LSTMs, in its own environment: ``python -m benchmarks.peers.darts_peer FOLDER block|rnn``."""

from __future__ import annotations

import logging
import sys

from benchmarks.peers.peer import Clock, answer, load_task, one_thread, pinball, timed

_EVERY = 100  # steps between validations


def main(folder: str, kind: str) -> None:
    """One layer of the task's hidden size on windows of the task's length; everything else as the library has it.

    ``block`` is BlockRNNModel (loss at the window's end); ``rnn`` is RNNModel (loss at every step of a window twice
    as long), whose covariates must be of the forecast bar: they are moved on by one bar, so that it sees no more.
    """
    one_thread()
    task, table = load_task(folder)

    import darts
    import numpy as np
    import pytorch_lightning as pl
    import torch
    from darts import TimeSeries
    from darts.models import BlockRNNModel, RNNModel
    from darts.utils.likelihood_models.torch import QuantileRegression

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
                loss = float(trainer.callback_metrics["val_loss"]) / len(task.levels)  # theirs is the sum over levels
                trainer.should_stop = clock.note(loss)
                clock.go()

    def series(first: int, last: int) -> tuple[TimeSeries, dict[str, TimeSeries]]:
        rows = table.iloc[first:last]
        # The step after the last needs the features of the last.
        moved = table[task.features].shift(1 if kind == "rnn" else 0).bfill().iloc[first:last]
        target = TimeSeries.from_values(rows["past"].to_numpy(np.float32))
        name = "future_covariates" if kind == "rnn" else "past_covariates"
        return target, {name: TimeSeries.from_values(moved.to_numpy(np.float32))}

    length = 2 * task.window if kind == "rnn" else task.window
    settings = {
        "input_chunk_length": task.window,
        "model": "LSTM",
        "hidden_dim": task.hidden,
        "n_rnn_layers": 1,
        "likelihood": QuantileRegression(task.levels),
        "random_state": task.seed,
        "n_epochs": 1_000,  # the clock ends it
        "pl_trainer_kwargs": {
            "accelerator": "cpu",
            "callbacks": [Watch()],
            "val_check_interval": _EVERY,
            "num_sanity_val_steps": 0,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "logger": False,
            "enable_checkpointing": False,
        },
    }
    if kind == "rnn":
        model = RNNModel(training_length=length, **settings)
    else:
        model = BlockRNNModel(output_chunk_length=1, **settings)
    fit, fit_covariates = series(0, task.fit_rows)
    stop, stop_covariates = series(task.fit_rows - length, len(table))
    model.fit(fit, **fit_covariates, val_series=stop, **{f"val_{k}": v for k, v in stop_covariates.items()})
    clock.stand()

    some, covariates = series(len(table) - task.history - task.window, len(table))
    with timed() as found:
        told = model.historical_forecasts(
            some, **covariates, retrain=False, forecast_horizon=1, predict_likelihood_parameters=True
        )
    values = told.values()[-task.stop_rows :]
    answer(
        {
            "name": f"Darts {darts.__version__} {type(model).__name__}",
            "setting": f"input_chunk_length {task.window}",
            "curves": [clock.curve],
            "history": {"rows": len(told), **found},
            "check": pinball(values, table["past"].to_numpy()[-len(values) :], task.levels),
        }
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
