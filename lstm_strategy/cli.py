"""The command line: one verb per stage; the only place where research and the engine meet."""

from __future__ import annotations

import sys
from typing import Annotated, NoReturn

import typer
from rich.markup import escape
from typer.exceptions import TyperException

from lstm_strategy import __version__
from lstm_strategy.cli_backtest import backtest_command
from lstm_strategy.cli_data import data_app
from lstm_strategy.cli_data_tiers import tiers_command
from lstm_strategy.cli_download import download_command, rebuild_command
from lstm_strategy.cli_evaluate import evaluate_command
from lstm_strategy.cli_explain import explain_command
from lstm_strategy.cli_live import live_command, paper_command
from lstm_strategy.cli_models import models_app
from lstm_strategy.cli_replay import replay_command
from lstm_strategy.cli_resume import resume_command
from lstm_strategy.cli_stages import demo_command, forecast_command, train_command
from lstm_strategy.cli_sweep import sweep_command
from lstm_strategy.cli_tune import tune_command
from lstm_strategy.console import console
from lstm_strategy.errors import LSTMStrategyError

__all__ = ["app", "main"]

_INTERRUPTED = 130  # what shells say of a program ended by Ctrl-C, and what typer returns

app = typer.Typer(
    name="lstm-strategy",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="From exchange history to an LSTM that trades on NautilusTrader.\n\n"
    "[bold]First look[/bold]: lstm-strategy demo\n\n"
    "[bold]Your own data[/bold]: lstm-strategy data import FILE --instrument BTCUSDT.BINANCE --timeframe 1h, then "
    "train, forecast and backtest with an experiment such as backtests/btcusdt_1h.toml.",
)
data_app.command("download")(download_command)
data_app.command("rebuild")(rebuild_command)
data_app.command("tiers")(tiers_command)
app.add_typer(data_app, name="data")
app.add_typer(models_app, name="models")
app.command("train")(train_command)
app.command("evaluate")(evaluate_command)
app.command("tune")(tune_command)
app.command("forecast")(forecast_command)
app.command("backtest")(backtest_command)
app.command("explain")(explain_command)
app.command("sweep")(sweep_command)
app.command("demo")(demo_command)
app.command("replay")(replay_command)
app.command("paper")(paper_command)
app.command("live")(live_command)
app.command("resume")(resume_command)


def _print_version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"lstm-strategy {__version__}\n")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line: 0 done, 1 failed, 2 wrongly called, 130 interrupted.

    Errors are one line; ``--debug`` shows the traceback.
    """
    arguments = sys.argv[1:]
    debug = "--debug" in arguments
    try:
        code = app([word for word in arguments if word != "--debug"], standalone_mode=False)
    except TyperException as error:
        message = getattr(error, "format_message", error.__str__)()
        if not message:  # called without a command: the help has been shown
            sys.exit(2)
        _fail(f"{message} (--help shows the way)", debug, 2)
    except (KeyboardInterrupt, typer.Abort):
        code = _INTERRUPTED
    except LSTMStrategyError as error:
        _fail(str(error), debug, 1)
    except Exception as error:
        _fail(f"unexpected {type(error).__name__}: {error} (--debug shows where)", debug, 1)
    if code == _INTERRUPTED:
        _fail("interrupted; whatever was finished is kept, and the same command goes on from there", debug, code)
    sys.exit(code if isinstance(code, int) else 0)


def _fail(message: str, debug: bool, code: int) -> NoReturn:
    if debug:
        console.print_exception()
    console.print(f"[red]error:[/red] {escape(' '.join(message.split()))}", highlight=False, soft_wrap=True)
    sys.exit(code)
