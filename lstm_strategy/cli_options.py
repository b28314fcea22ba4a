"""What the commands share: their options, and how an experiment's instrument and model are found."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from lstm_strategy import artefact, registry
from lstm_strategy.console import console
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.experiment import Experiment

__all__ = ["CATALOG", "MODELS", "RUNS", "CatalogOption", "ExperimentArgument", "InstrumentOption", "JsonOption"]
__all__ += ["ModelOption", "ModelsOption", "RunsOption", "WorkersOption", "instrument_of", "model_folder", "model_of"]
__all__ += ["warn_of_other_training"]

ExperimentArgument = Annotated[Path, typer.Argument(help="The experiment's TOML file.", show_default=False)]
CatalogOption = Annotated[Path, typer.Option("--catalog", help="Folder of the catalog.")]
ModelsOption = Annotated[Path, typer.Option("--models", help="Folder of the models.")]
RunsOption = Annotated[Path, typer.Option("--runs", help="Folder that gets one folder a run.")]
ModelOption = Annotated[str | None, typer.Option("--model", help="name/version or folder; else the current version.")]
InstrumentOption = Annotated[str | None, typer.Option(help="One of the experiment's; the first where not given.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]

WorkersOption = Annotated[int, typer.Option(min=1, max=1024, help="Processes that share the runs.")]

CATALOG, MODELS, RUNS = Path("catalog"), Path("models"), Path("backtests/runs")


def instrument_of(setup: Experiment, wanted: str | None) -> str:
    """Return the instrument meant, the experiment's first where none is named."""
    if wanted is not None and wanted not in setup.data.instruments:
        known = ", ".join(setup.data.instruments)
        raise LSTMStrategyError(f"instrument {wanted} is not in the experiment; it has {known}")
    return wanted or setup.data.instruments[0]


def model_folder(setup: Experiment, models: Path, model: str | None) -> Path:
    """Return the folder of the model meant, the experiment's current one where none is named."""
    return registry.locate(models, model or setup.name)


def model_of(setup: Experiment, models: Path, model: str | None) -> artefact.Artefact:
    """Load that model; refuse one that does not fit the experiment, and warn of one trained otherwise."""
    loaded = artefact.load(model_folder(setup, models, model))
    loaded.require(timeframe=setup.data.timeframe, features=setup.features)
    loaded.shrinkage(setup.sizing.horizon)
    warn_of_other_training(setup, loaded)
    return loaded


def warn_of_other_training(setup: Experiment, loaded: artefact.Artefact) -> None:
    """Say so where a model was made with other settings than the experiment has now."""
    made = loaded.manifest.training
    if setup.train.turnover_cost is None:  # then the costs' own is in the manifest
        made = msgspec.structs.replace(made, turnover_cost=None)
    if (loaded.manifest.network, made) != (setup.network, setup.train):
        told = f"model {loaded.label} was trained with another \\[network] or \\[train] than the experiment says now"
        console.print(f"[yellow]warning[/yellow] {told}", soft_wrap=True, highlight=False)
