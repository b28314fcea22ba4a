"""``data download`` and ``data rebuild``: exchange history into the raw store, and from there into the catalog."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from lstm_strategy.cli_catalog import is_current, write_entry
from lstm_strategy.cli_options import CATALOG, CatalogOption, JsonOption
from lstm_strategy.console import console, emit_json
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.sources.lock import hold_catalog
from lstm_strategy.sources.store import RawStore

if TYPE_CHECKING:
    from lstm_strategy.sources.download_plan import DownloadConfig, Downloaded

__all__ = ["download_command", "rebuild_command"]


def download_command(
    exchange: Annotated[str, typer.Argument(help="CCXT's name of the exchange: binance, bybit, okx, kraken …")],
    symbols: Annotated[list[str], typer.Argument(help="Markets, such as BTC/USDT ETH/USDT.")],
    timeframe: Annotated[str, typer.Option(help="Length of a bar.")] = "1h",
    since: Annotated[str | None, typer.Option(help="First opening time; else from the first bar held.")] = None,
    until: Annotated[str | None, typer.Option(help="Last closing time; else now.")] = None,
    market: Annotated[Literal["spot", "swap"], typer.Option(help="Spot markets or perpetual swaps.")] = "spot",
    funding: Annotated[bool, typer.Option("--funding", help="Funding rates of swaps too.")] = False,
    repair: Annotated[bool, typer.Option("--repair", help="Ask again for all holes, the venue's own too.")] = False,
    base_url: Annotated[str | None, typer.Option(help="In place of the exchange's scheme and host.")] = None,
    proxy: Annotated[str | None, typer.Option(help="http(s) proxy.")] = None,
    retries: Annotated[int, typer.Option(min=0, max=100, help="In a row, before giving up.")] = 8,
    backoff: Annotated[float, typer.Option(min=0.0, max=60.0, help="Seconds before the first retry.")] = 0.5,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be asked for, and ask nothing.")] = False,
    catalog: CatalogOption = CATALOG,
    as_json: JsonOption = False,
) -> None:
    """Bring an exchange's history into the catalog; what is held is not asked for, and any stop can be resumed.

    No key is needed. One in the environment (BINANCE_API_KEY, BINANCE_API_SECRET, OKX_API_PASSPHRASE …) is used, but
    never with --base-url.

    [bold]Examples[/bold]

      lstm-strategy data download binance BTC/USDT ETH/USDT --timeframe 1h --since 2018-01-01

      lstm-strategy data download okx BTC/USDT --market swap --funding --since 2021-01-01
    """
    from lstm_strategy.sources.ccxt_config import ClientConfig
    from lstm_strategy.sources.download_plan import DownloadConfig, held_of

    config = DownloadConfig(
        client=ClientConfig(
            exchange=exchange, market=market, base_url=base_url, proxy=proxy, retries=retries, backoff_s=backoff
        ),
        symbols=tuple(dict.fromkeys(symbols)),
        timeframe=timeframe,
        since=since,
        until=until,
        funding=funding,
        repair=repair,
    )
    store = RawStore(catalog)
    if dry_run:
        _tell_plan(config, store, as_json=as_json)
        return
    with hold_catalog(catalog, f"data download {exchange} {' '.join(config.symbols)}"):
        failure, results = _download(config, store)
        asked = held_of(config, store) if failure is not None else set()  # failed markets have good bars too
        written = _bring_up(store, asked | {result.instrument for result in results})
    for result in results:
        console.print(
            f"{result.instrument} {timeframe}: {result.added:,} bars added, {result.held:,} held"
            f"{f', {result.first} to {result.last}' if result.held else ''}; {result.holes:,} holes of the venue"
            f" ({result.hole_bars:,} bars); {result.seconds:.1f} s",
            soft_wrap=True,
        )
        for start, end in result.withheld:
            console.print(
                f"[yellow]withheld[/yellow] {exchange} gives only its newest bars of {result.symbol} {timeframe}:"
                f" {start} to {end} cannot be had from it",
                soft_wrap=True,
            )
    if as_json:
        emit_json({"catalog": str(catalog), "markets": results, "catalog_written": written})
    if failure is not None:
        raise failure


def rebuild_command(
    instrument: Annotated[str | None, typer.Argument(help="SYMBOL.VENUE; nothing: all there is.")] = None,
    catalog: CatalogOption = CATALOG,
    as_json: JsonOption = False,
) -> None:
    """Write the engine's catalog anew from the raw bars.

    [bold]Example[/bold]

      lstm-strategy data rebuild
    """
    store = RawStore(catalog)
    chosen = {name for name, _ in store.entries() if instrument in (None, name)}
    if not chosen:
        raise LSTMStrategyError(f"catalog {catalog} holds no bars{f' of {instrument}' if instrument else ''}")
    with hold_catalog(catalog, "data rebuild"):
        written = _bring_up(store, chosen, everything=True)
    console.print(f"{len(written)} entries written: {', '.join(written)}", soft_wrap=True)
    if as_json:
        emit_json({"catalog": str(catalog), "catalog_written": written})


def _bring_up(store: RawStore, instruments: set[str], *, everything: bool = False) -> list[str]:
    """Write the catalog where it is not the image of the raw bars; return what was written."""
    from lstm_strategy.sources.pages import fold

    written = []
    for name, timeframe in store.entries():
        if name in instruments and (everything or not is_current(store, name, timeframe)):
            if not store.has_instrument(name):
                raise LSTMStrategyError(
                    f"{store.market_folder(name) / 'instrument.json'} is missing; run its download or import again"
                )
            with console.status(f"writing the catalog of {name} {timeframe}"):
                fold(store.folder(name, timeframe))
                write_entry(store, name, timeframe)
            written.append(f"{name} {timeframe}")
    return written


def _download(config: DownloadConfig, store: RawStore) -> tuple[BaseException | None, list[Downloaded]]:
    """Download with one line of progress for each market; return what stopped it, if anything, and what came."""
    from lstm_strategy.sources.download import download

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"))
    with Progress(*columns, TimeRemainingColumn(), console=console) as shown:
        tasks: dict[str, TaskID] = {}

        def tell(symbol: str, passed: int, total: int, added: int) -> None:
            if symbol not in tasks:
                tasks[symbol] = shown.add_task(symbol, total=total, rate="")
            task = tasks[symbol]
            seconds = shown.tasks[task].elapsed or 0.0
            rate = f"{added / seconds:,.0f} bars/s" if seconds > 0 else ""
            shown.update(task, completed=passed, total=total, rate=rate)

        results, failure = asyncio.run(download(config, store, tell))
    return failure, results


def _tell_plan(config: DownloadConfig, store: RawStore, *, as_json: bool) -> None:
    """Say what is missing; unknown symbols count as not held."""
    from lstm_strategy.sources.download_plan import plan

    planned = plan(config, store)
    for entry in planned:
        what = f"{entry.bars:,} bars in {len(entry.missing)} spans" if entry.missing else "nothing"
        ends = f", {entry.missing[0][0]} to {entry.missing[-1][1]}" if entry.missing else ""
        console.print(
            f"{entry.symbol} {config.timeframe}: {entry.held:,} held; would ask for {what}{ends}", soft_wrap=True
        )
    if as_json:
        emit_json({"catalog": str(store.root), "markets": planned})
