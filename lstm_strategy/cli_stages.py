"""The commands that walk the whole way: train, forecast, and all of it in the demo."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from lstm_strategy import artefact
from lstm_strategy.bars import Bars, Timeframe, format_ns
from lstm_strategy.cli_backtest import run_experiment
from lstm_strategy.cli_jobs import Places
from lstm_strategy.cli_options import (
    CATALOG,
    MODELS,
    CatalogOption,
    ExperimentArgument,
    InstrumentOption,
    JsonOption,
    ModelOption,
    ModelsOption,
    instrument_of,
    model_of,
)
from lstm_strategy.cli_tables import print_backtest, print_forecast, print_training
from lstm_strategy.console import console, emit_json
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.experiment import Experiment, load_experiment
from lstm_strategy.formatting import percent
from lstm_strategy.sources.store import RawStore

__all__ = ["demo_command", "forecast_command", "train_command"]


def train_command(
    experiment: ExperimentArgument,
    catalog: CatalogOption = CATALOG,
    models: ModelsOption = MODELS,
    as_json: JsonOption = False,
) -> None:
    """Train the experiment's network and save it as a new, current version.

    An interrupted training goes on where it was when the same command is run again.

    [bold]Example[/bold]: lstm-strategy train backtests/btcusdt_1h.toml
    """
    result = _train(load_experiment(experiment), catalog, models)
    print_training(result)
    console.print(f"artefact: {escape(result['path'])}", soft_wrap=True, highlight=False)
    if as_json:
        emit_json(result)


def forecast_command(
    experiment: ExperimentArgument,
    instrument: InstrumentOption = None,
    model: ModelOption = None,
    catalog: CatalogOption = CATALOG,
    models: ModelsOption = MODELS,
    as_json: JsonOption = False,
) -> None:
    """Show the distribution of the next returns, as of the newest bar in the catalog.

    [bold]Example[/bold]: lstm-strategy forecast backtests/btcusdt_1h.toml
    """
    from lstm_strategy.forecaster import Forecaster

    setup = load_experiment(experiment)
    instrument_id = instrument_of(setup, instrument)
    loaded = model_of(setup, models, model)
    bars = RawStore(catalog).read(instrument_id, Timeframe.parse(setup.data.timeframe))
    forecaster = Forecaster(loaded, instrument_id)
    recent = bars[-4 * forecaster.warmup_bars :]
    forecasts = forecaster.run(recent)
    forecast = forecasts[len(forecasts) - 1] if len(forecasts) else None
    if forecast is None:
        have = forecaster.features.count
        raise LSTMStrategyError(
            f"{instrument_id}: {have} unbroken bars up to the newest are fewer than the {forecaster.warmup_bars} that"
            " the model needs to warm up; import more history"
        )
    print_forecast(instrument_id, float(recent.close[-1]), loaded.require_instrument(instrument_id).tick, forecast)
    if as_json:
        emit_json(
            {
                "ts": format_ns(forecast.ts_close),
                "instrument": instrument_id,
                "horizons": forecast.horizons,
                "levels": forecast.levels,
                "quantiles": forecast.quantiles_HQ.tolist(),
                "scale": forecast.scale,
                "position": forecast.position if math.isfinite(forecast.position) else None,
                "model_version": loaded.manifest.version,
            }
        )


def demo_command(
    folder: Annotated[Path, typer.Option(help="Working folder for the demo's catalog, model and report.")] = Path(
        "demo"
    ),
    as_json: JsonOption = False,
) -> None:
    """Walk the whole way once on a simulated market: bars, training, forecast, backtest, report.

    The market is made up, with a small momentum planted in it, so that there is something to find, and fees of 0.01 %,
    a tenth of a venue's usual, so that it can be earned.

    [bold]Example[/bold]: lstm-strategy demo --folder /tmp/demo
    """
    from lstm_strategy.nautilus.catalog import write_catalog
    from lstm_strategy.sources.simulate import SimulationConfig, simulate, simulated_instrument

    started = time.perf_counter()
    setup = load_experiment(_demo_experiment())
    instrument_id = setup.data.instruments[0]
    catalog, models, runs = folder / "catalog", folder / "models", folder / "runs"
    market = SimulationConfig(
        instrument_id=instrument_id, timeframe=setup.data.timeframe, bars=26_000, seed=3, edge=0.12
    )
    console.rule("1/4 bars: a simulated market, stored in a Parquet catalog")
    store, bars, described = RawStore(catalog), simulate(market), simulated_instrument(market)
    store.write_instrument(described)
    store.merge(bars, replace=True)
    write_catalog(catalog, bars, described)
    fee = setup.costs.of(described).fee
    console.print(
        f"{len(bars):,} bars of {instrument_id}, planted momentum of {market.edge} σ, fee {percent(fee, 2)} a side"
    )
    console.rule("2/4 training")
    trained = _train(setup, catalog, models)
    console.rule("3/4 the newest forecast")
    forecast_command(_demo_experiment(), None, None, catalog, models, False)
    console.rule("4/4 backtest on bars that the model never saw")
    summary = run_experiment(setup, instrument_id, Places(catalog, models, runs))
    print_backtest(summary)
    summary["demo_seconds"] = round(time.perf_counter() - started, 1)
    console.print(f"the whole way took {summary['demo_seconds']:.0f} s")
    places = f"--catalog {catalog} --models {models} --runs {runs}"
    paper = f"lstm-strategy paper {_demo_experiment()} --replay --speed 36000 --bars 500 {places}"
    console.print(f"next, the same strategy on a node: {paper}", highlight=False, soft_wrap=True)
    if as_json:
        emit_json(summary | {"train": trained})


def _train(setup: Experiment, catalog: Path, models: Path) -> dict[str, Any]:
    try:
        from lstm_strategy.research.fit import fit_model
    except ModuleNotFoundError as error:
        raise LSTMStrategyError(f"training needs {error.name}; install lstm-strategy[train]") from error

    history = _history(setup, catalog)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("training", total=setup.train.epochs * setup.train.members)

        def on_epoch(epoch: int, loss: float, best: float) -> None:
            told = f"validation loss {loss:.5f}, best {best:.5f}"
            progress.update(task, completed=epoch, description=told)

        fitted = fit_model(
            setup.name,
            history,
            setup.features,
            setup.target,
            setup.split,
            setup.network,
            setup.training([instrument for _, instrument in history]),
            models,
            on_epoch,
            setup.tune,
        )
    manifest, trained = fitted.manifest, fitted.trained
    if setup.features.hampel_window:
        console.print(f"the Hampel filter changed {fitted.filtered_bars:,} of {fitted.bars:,} bars")
    return {
        "model": manifest.name,
        "version": manifest.version,
        "path": str(fitted.path),
        "pinball": manifest.scores["pinball_calibrate"],
        "pinball_baseline": manifest.scores["pinball_baseline_calibrate"],
        "epochs": trained.epochs,
        "seconds": round(trained.seconds, 2),
        "targets_per_second": round(trained.targets_per_second),
        "warmup_bars": manifest.warmup_bars,
        "mean_slope": [shrinkage.slope for shrinkage in manifest.shrinkage],
        "mean_slope_p": [round(shrinkage.p, 4) for shrinkage in manifest.shrinkage],
        "directional_skill": _directional(manifest),
        "filtered_bars": fitted.filtered_bars,
        **{
            name: value
            for name, value in manifest.scores.items()
            if name.startswith(("net_", "gross_", "mean_position", "position_"))
        },
    }


def _directional(manifest: artefact.Manifest) -> str:
    pairs = zip(manifest.horizons, manifest.shrinkage, strict=True)
    found = [str(horizon) for horizon, shrinkage in pairs if shrinkage.slope > 0.0]
    return f"found at {', '.join(found)} bars" if found else "none"


def _history(setup: Experiment, catalog: Path) -> list[tuple[Bars, Any]]:
    store, timeframe = RawStore(catalog), Timeframe.parse(setup.data.timeframe)
    return [(store.read(name, timeframe), store.read_instrument(name)) for name in setup.data.instruments]


def _demo_experiment() -> Path:
    package = Path(__file__).parent
    installed = package / "demo.toml"
    return installed if installed.exists() else package.parent / "backtests" / "demo.toml"
