"""The ``data tiers`` command: keep a venue's margin tiers beside the bars, for backtests to liquidate by."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich import box
from rich.markup import escape
from rich.table import Table

from lstm_strategy.cli_options import CATALOG, CatalogOption, JsonOption
from lstm_strategy.console import console, emit_json
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.formatting import percent
from lstm_strategy.instrument import split_id
from lstm_strategy.margin import lines_of
from lstm_strategy.sources.lock import hold_catalog
from lstm_strategy.sources.margin_tiers import keep_tiers, tiers_from_file
from lstm_strategy.sources.store import RawStore

__all__ = ["tiers_command"]


def tiers_command(
    file: Annotated[Path, typer.Argument(help="JSON: Binance's leverageBracket, CCXT's leverage tiers, or a list.")],
    instrument: Annotated[str, typer.Option(help="SYMBOL.VENUE of the catalog, such as BTCUSDT_PERP.BINANCE.")],
    symbol: Annotated[
        str | None, typer.Option(help="Its name in the file, such as BTCUSDT; else the instrument's symbol.")
    ] = None,
    catalog: CatalogOption = CATALOG,
    as_json: JsonOption = False,
) -> None:
    """Keep a venue's margin tiers: what it asks for of a position, by the position's value.

    A backtest on margin liquidates by them where backtest.maintenance is not given. They replace what was kept before.

    [bold]Example[/bold]: lstm-strategy data tiers brackets.json --instrument BTCUSDT_PERP.BINANCE --symbol BTCUSDT
    """
    store = RawStore(catalog)
    if store.read_instrument(instrument).kind == "spot":
        raise LSTMStrategyError(f"{instrument} is spot: nothing is liquidated there; margin tiers belong to perpetuals")
    tiers = tiers_from_file(file, symbol or split_id(instrument)[0])
    with hold_catalog(catalog, f"data tiers of {instrument}"):
        path = keep_tiers(store, instrument, tiers)
    table = Table("above", "rate", "amount", title=instrument, title_justify="left", box=box.SIMPLE_HEAD)
    for tier, (rate, amount) in zip(tiers, lines_of(tiers), strict=True):
        table.add_row(f"{tier.above:,.10g}", percent(rate, 4), f"{amount:,.10g}")
    console.print(table)
    console.print(f"kept in {escape(str(path))}", soft_wrap=True)
    if as_json:
        emit_json({"instrument": instrument, "tiers": msgspec.to_builtins(tiers), "path": str(path)})
