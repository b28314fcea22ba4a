"""The commands ``paper`` and ``live``: an experiment's strategy on a NautilusTrader node."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from lstm_strategy.bars import format_ns
from lstm_strategy.cli_jobs import Places
from lstm_strategy.cli_node import node_settings
from lstm_strategy.cli_options import (
    CATALOG,
    MODELS,
    RUNS,
    CatalogOption,
    ExperimentArgument,
    JsonOption,
    ModelOption,
    ModelsOption,
    RunsOption,
)
from lstm_strategy.cli_watch import DASHBOARD_PORT, DashboardOption, DashboardPortOption, watching
from lstm_strategy.console import console, emit_json
from lstm_strategy.decision import HALTS
from lstm_strategy.errors import LSTMStrategyError, StateError
from lstm_strategy.experiment import load_experiment
from lstm_strategy.formatting import fixed, percent
from lstm_strategy.state_folder import StateFolder

if TYPE_CHECKING:
    from lstm_strategy.nautilus.live import NodeRun
    from lstm_strategy.nautilus.node_settings import NodeSettings
    from lstm_strategy.nautilus.status import Decided

__all__ = ["live_command", "paper_command"]

BaseUrlOption = Annotated[
    str | None,
    typer.Option("--base-url", help="An exchange on this machine in the venue's place, such as http://127.0.0.1:8080."),
]
TimeoutOption = Annotated[
    float | None,
    typer.Option("--start-timeout", help="Seconds to wait for a venue that does not answer; as \\[live] says else."),
]


def paper_command(
    experiment: ExperimentArgument,
    instrument: Annotated[str | None, typer.Option(help="One of the experiment's.")] = None,
    model: ModelOption = None,
    replay: Annotated[bool, typer.Option("--replay", help="On the catalog's bars, without any network.")] = False,
    speed: Annotated[float, typer.Option(min=0.001, max=1e9, help="With --replay: 3600 is an hour a second.")] = 1.0,
    bars: Annotated[int | None, typer.Option(min=1, help="With --replay: end after so many bars.")] = None,
    in_sample: Annotated[bool, typer.Option("--in-sample", help="With --replay: allow bars of the training.")] = False,
    anew: Annotated[
        bool, typer.Option("--anew", help="Put the kept paper account and state aside, and begin with new ones.")
    ] = False,
    start_timeout: TimeoutOption = None,
    base_url: BaseUrlOption = None,
    dashboard: DashboardOption = False,
    dashboard_port: DashboardPortOption = DASHBOARD_PORT,
    catalog: CatalogOption = CATALOG,
    models: ModelsOption = MODELS,
    runs: RunsOption = RUNS,
    as_json: JsonOption = False,
) -> None:
    """Trade on paper: the venue's bars, the backtest's fills, fees and delays, no money and no keys.

    An order is filled at the open of the bar after its decision, which becomes known when that bar closes. With
    --replay the bars are those of the backtest, told by a local exchange: the run then makes the backtest's decisions,
    which `lstm-strategy explain --diff` checks. Ctrl-C or SIGTERM ends it; SIGUSR1 flattens and halts.

    On the venue's bars the account is kept: the next start goes on with its balances, position and resting orders.

    [bold]Examples[/bold]: lstm-strategy paper backtests/btcusdt_1h.toml

    lstm-strategy paper backtests/btcusdt_1h.toml --replay --speed 3600
    """
    if replay and base_url is not None:
        raise LSTMStrategyError("--replay brings its own exchange; leave --base-url out")
    if not replay and (speed != 1.0 or bars is not None):
        raise LSTMStrategyError("--speed and --bars belong to --replay; a venue's bars come when they come")
    if replay and anew:
        raise LSTMStrategyError("--replay keeps no account, and always begins anew; leave --anew out")
    setup = load_experiment(experiment)
    settings = node_settings(
        setup,
        instrument,
        Places(catalog, models, runs, model),
        mode="replay" if replay else "paper",
        base_url=base_url,
        start_timeout=start_timeout,
        speed=speed,
        bars=bars,
        in_sample=in_sample,
    )
    _run(settings, experiment, runs, dashboard_port if dashboard else None, as_json=as_json, anew=anew)


def live_command(
    experiment: ExperimentArgument,
    instrument: Annotated[str | None, typer.Option(help="One of the experiment's.")] = None,
    model: ModelOption = None,
    agreed: Annotated[
        bool, typer.Option("--yes-trade-real-money", help="Without it nothing is done; with it orders cost money.")
    ] = False,
    start_timeout: TimeoutOption = None,
    base_url: BaseUrlOption = None,
    dashboard: DashboardOption = False,
    dashboard_port: DashboardPortOption = DASHBOARD_PORT,
    catalog: CatalogOption = CATALOG,
    models: ModelsOption = MODELS,
    runs: RunsOption = RUNS,
    as_json: JsonOption = False,
) -> None:
    """Trade with real money at the venue that \\[live] names.

    Needs mode = "live" in the experiment's \\[live], --yes-trade-real-money, and the venue's keys in the environment.

    [bold]Example[/bold]: lstm-strategy live backtests/btcusdt_1h.toml --yes-trade-real-money
    """
    setup = load_experiment(experiment)
    if setup.live.mode != "live":
        raise LSTMStrategyError(f'live.mode is "{setup.live.mode}" in {experiment}; real money needs mode = "live"')
    if not agreed:
        raise LSTMStrategyError("this trades real money: say --yes-trade-real-money, or use `lstm-strategy paper`")
    places = Places(catalog, models, runs, model)
    settings = node_settings(setup, instrument, places, mode="live", base_url=base_url, start_timeout=start_timeout)
    _run(settings, experiment, runs, dashboard_port if dashboard else None, as_json=as_json)


def _run(
    settings: NodeSettings,
    experiment: Path,
    runs: Path,
    dashboard: int | None,
    *,
    as_json: bool,
    anew: bool = False,
) -> None:
    from lstm_strategy.nautilus.live import run_node
    from lstm_strategy.nautilus.live_results import write_results
    from lstm_strategy.nautilus.node_settings import hold_trader
    from lstm_strategy.nautilus.status import Observers

    def on_end(run: NodeRun) -> None:
        summary = write_results(settings, run)
        _tell_end(summary)
        if as_json:
            emit_json(summary)

    folder = settings.run_folder
    with hold_trader(runs / ".traders", settings.trader_id), watching(settings, dashboard) as watcher:
        if settings.state_folder is not None and settings.state_folder.is_dir():
            _require_free(settings.state_folder, anew=anew)
        folder.mkdir(parents=True)
        (folder / "experiment.toml").write_bytes(experiment.read_bytes())
        console.print(f"run: {escape(str(folder))}", soft_wrap=True, highlight=False)
        if settings.state_folder is not None:
            console.print(f"state: {escape(str(settings.state_folder))}", soft_wrap=True, highlight=False)
        observers = Observers([_Teller(), watcher])
        for member in settings.members:
            observers.step("model", f"{member.instrument_id}: {_label(member.model)}, verified")
        try:
            asyncio.run(run_node(settings, observers, on_end))
        except StateError as error:
            if settings.real:
                raise
            raise StateError(f"{error}; or put account and state aside, and begin with new ones: --anew") from None


def _require_free(state: Path, *, anew: bool) -> None:
    """Refuse a state folder that another holds, before anything is connected; rename it where another is wanted."""
    folder = StateFolder(state)
    folder.acquire("lstm-strategy")
    folder.release()
    if anew:
        aside = state.with_name(f"{state.name}-until-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}")
        state.rename(aside)
        console.print(f"put aside: {escape(str(aside))}", soft_wrap=True, highlight=False)


def _label(model: Any) -> str:
    return model.label if hasattr(model, "label") else f"{model.parent.name}/{model.name}"


def _tell_end(summary: dict[str, Any]) -> None:
    told = f"ended ({summary['ended']}): {summary['decisions']} bars decided"
    if "net_return" in summary:
        moved = percent(summary["net_return"], 2, signed=True)
        told += f", {summary['orders']} orders, {summary['fills']} fills, net return {moved}"
    console.print(f"[bold]{told}[/bold] in {summary['seconds']:.1f} s", highlight=False, soft_wrap=True)


class _Teller:
    """Tells a person on standard error: the steps with a tick, then each decision that trades, and trouble."""

    def on_step(self, step: str, text: str) -> None:
        console.print(f"[green]✓[/green] {step}: {escape(text)}", highlight=False, soft_wrap=True)

    def __init__(self) -> None:
        self._halted: dict[str, str] = {}
        self._latched = ""
        self._decimals: dict[str, int] = {}

    def on_started(self, built: Any) -> None:
        """Learn how many decimals each instrument's prices have."""
        self._decimals = built.decimals

    def on_latched(self, reason: str, text: str) -> None:
        self._latched, before = reason, self._latched
        if reason and reason not in self._halted.values():
            self.on_trouble(f"halted: {reason} ({text})")
        elif not reason and (not self._halted or before in self._halted.values()):
            self.on_trouble(f"no longer halted: {before} was lifted{f' ({text})' if text else ''}")
        self._halted = {name: reason if halt == before else halt for name, halt in self._halted.items()}

    def on_decided(self, told: Decided) -> None:
        decision = told.decision
        halt = decision.reason.value if decision.reason in HALTS else ""
        if halt != self._halted.get(told.instrument, ""):
            self._halted[told.instrument] = halt
            what = f"halted: {halt}" if halt else "no longer halted"
            self.on_trouble(f"{format_ns(decision.ts_close)} {told.instrument} {what}; equity {told.equity:,.2f}")
        if told.quantity:
            side, price = "buy" if told.quantity > 0 else "sell", fixed(told.price, self._decimals[told.instrument])
            console.print(
                f"{format_ns(decision.ts_close)} {told.instrument} {side} {abs(told.quantity):.10g} after {price}:"
                f" exposure {decision.exposure:.3f} to {decision.target:.3f}, {decision.reason.value}; equity"
                f" {told.equity:,.2f}",
                highlight=False,
                soft_wrap=True,
            )

    def on_ordered(self, text: str, instrument: str) -> None:
        self.on_trouble(f"{instrument}: {text}" if instrument else text)

    def on_trouble(self, text: str) -> None:
        console.print(f"[yellow]![/yellow] {escape(text)}", highlight=False, soft_wrap=True)
