"""The ``data`` commands: bring bars in, look them over, simulate some."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import typer
from rich import box
from rich.markup import escape
from rich.table import Table

from lstm_strategy.bars import Bars, Timeframe, format_ns
from lstm_strategy.cli_catalog import write_entry
from lstm_strategy.cli_data_check import check_catalog, check_file, summary_of
from lstm_strategy.cli_data_compare import check_against, is_file
from lstm_strategy.cli_data_show import print_checked
from lstm_strategy.cli_options import CATALOG, CatalogOption, JsonOption
from lstm_strategy.console import console, emit_json
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.instrument import Instrument
from lstm_strategy.sources.files import read_file, read_rates
from lstm_strategy.sources.funding import keep_funding
from lstm_strategy.sources.holes import known_holes
from lstm_strategy.sources.instruments import infer_instrument, on_grid, step_decimals
from lstm_strategy.sources.lock import hold_catalog
from lstm_strategy.sources.simulate import SimulationConfig, simulate, simulated_instrument
from lstm_strategy.sources.store import MergeResult, RawStore

__all__ = ["data_app"]

data_app = typer.Typer(
    name="data",
    help="Bring market data into the catalog, look it over, or simulate some.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)

_DEFAULTS = ("maker_fee", "taker_fee", "inverse", "multiplier", "settlement")

StampOption = Annotated[
    Literal["open", "close"],
    typer.Option(help="What the file's stamps mean. Exchanges and CCXT stamp a bar at its open."),
]


@data_app.command("import")
def import_command(
    file: Annotated[
        Path, typer.Argument(help="CSV (.csv, .csv.gz), Parquet or feather file of one instrument's bars.")
    ],
    instrument: Annotated[str, typer.Option(help="SYMBOL.VENUE, such as BTCUSDT.BINANCE.")],
    timeframe: Annotated[str, typer.Option(help="Length of a bar: 1m, 15m, 1h, 4h, 1d …")],
    stamp: StampOption = "open",
    kind: Annotated[
        Literal["spot", "perpetual", "equity"] | None, typer.Option(help="Kind of market; else told by the symbol.")
    ] = None,
    base: Annotated[str | None, typer.Option(help="Base currency; else told by the symbol.")] = None,
    quote: Annotated[str | None, typer.Option(help="Quote currency; else told by the symbol.")] = None,
    tick: Annotated[str | None, typer.Option(help="Price step, such as 0.01; else told by the prices.")] = None,
    lot: Annotated[str | None, typer.Option(help="Quantity step; else told by the volumes.")] = None,
    min_quantity: Annotated[str | None, typer.Option(help="Smallest quantity of an order.")] = None,
    min_notional: Annotated[float | None, typer.Option(help="Smallest value of an order, in quote currency.")] = None,
    maker_fee: Annotated[float | None, typer.Option(help="Fraction of the value: 0.001 is 0.1 %.")] = None,
    taker_fee: Annotated[float | None, typer.Option(help="Fraction of the value: 0.001 is 0.1 %.")] = None,
    funding: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Funding rates of a perpetual, as fractions.")
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Overwrite bars held with other values.")] = False,
    catalog: CatalogOption = CATALOG,
    as_json: JsonOption = False,
) -> None:
    """Bring one file of bars into the catalog; the same file twice changes nothing.

    [bold]Examples[/bold]

      lstm-strategy data import BTCUSDT-1h.parquet --instrument BTCUSDT.BINANCE --timeframe 1h

      lstm-strategy data import spy.csv --instrument SPY.ARCA --timeframe 1d --taker-fee 0.0002
    """
    store = RawStore(catalog)
    held = store.read_instrument(instrument) if store.has_instrument(instrument) else None
    with console.status(f"reading {escape(str(file))}"):
        bars, rounded = on_grid(read_file(file, instrument, Timeframe.parse(timeframe), stamp))
    if rounded:
        console.print(f"[yellow]rounded[/yellow] {rounded:,} prices with more digits than a tick can have")
    named = {
        name: value
        for name, value in (
            *(("kind", kind), ("base", base), ("quote", quote), ("tick", tick), ("lot", lot)),
            *(("min_quantity", min_quantity), ("min_notional", min_notional)),
            *(("maker_fee", maker_fee), ("taker_fee", taker_fee)),
        )
        if value is not None
    }
    market = _market(store, bars, named)
    rates = None if funding is None else _rates(funding, market)
    result = _keep(store, bars, market, replace=replace)
    if rates is not None:
        with hold_catalog(catalog, f"data import of {instrument}"):
            new = keep_funding(store, instrument, *rates)
        console.print(f"{instrument}: {new:,} funding rates added, {len(rates[0]) - new:,} held already")
    _tell_instrument(market, named, held)
    _tell_result(bars, result, catalog, as_json=as_json)


@data_app.command("check")
def check_command(
    what: Annotated[
        str | None, typer.Argument(help="An instrument of the catalog or a file; nothing: the whole catalog.")
    ] = None,
    timeframe: Annotated[
        str | None, typer.Option(help="Only this length of bar; of a file else told by its stamps.")
    ] = None,
    stamp: StampOption = "open",
    against: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|INSTRUMENT", help="A second source of the same bars to compare with; finer will do."
        ),
    ] = None,
    against_stamp: Annotated[
        Literal["open", "close"] | None,
        typer.Option(help="What the second file's stamps mean, if not the same as the first's."),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings fail too.")] = False,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE.html", help="Draw the coverage, month by month, on a page.")
    ] = None,
    catalog: CatalogOption = CATALOG,
    as_json: JsonOption = False,
) -> None:
    """List gaps, stale and impossible prices, silent bars, outliers, unadjusted splits, and what sources disagree on.

    Gaps, stale prices, zero volume, outliers, splits and differences between sources are warnings (exit code 0, with
    --strict 1); corruption is an error (exit code 1). Catalog entries are also compared bar by bar with the engine's
    copy, finer bars with the coarser ones held of the same instrument, and a hole is told to be the venue's (all its
    symbols share it) or one symbol's.

    [bold]Examples[/bold]

      lstm-strategy data check

      lstm-strategy data check BTCUSDT.BINANCE --json --report coverage.html

      lstm-strategy data check ~/downloads/aapl.csv --timeframe 1d --stamp close

      lstm-strategy data check ~/downloads/btc_1m.csv --against BTCUSDT.BINANCE
    """
    length = Timeframe.parse(timeframe) if timeframe else None
    store = RawStore(catalog)
    if what is not None and is_file(what):
        checked = check_file(Path(what), length, stamp)
    else:
        checked = check_catalog(store, what, length, known_holes(store))
    if against is not None:
        stamps = (stamp, against_stamp or stamp)
        checked = checked._replace(comparison=check_against(store, what, against, length, stamps))
    print_checked(checked)
    if report is not None:
        from lstm_strategy.report.coverage_page import write_coverage_page

        write_coverage_page(report, checked.entries, checked.holes, checked.compared)
        console.print(f"report: {escape(str(report))}", soft_wrap=True)
    summary = summary_of(checked)
    if as_json:
        emit_json(summary)
    if summary["errors"] or (strict and checked.warnings):
        raise typer.Exit(1)


@data_app.command("simulate")
def simulate_command(
    instrument: Annotated[str, typer.Option(help="SYMBOL.VENUE to give it.")] = "SIM.SIM",
    bars: Annotated[int, typer.Option(min=1, help="Number of bars.")] = 20_000,
    timeframe: Annotated[str, typer.Option(help="Length of a bar.")] = "1h",
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same bars.")] = 1,
    edge: Annotated[float, typer.Option(help="Planted correlation of what is known with the next return.")] = 0.0,
    noise: Annotated[bool, typer.Option("--noise", help="Independent returns of constant variance.")] = False,
    start: Annotated[str, typer.Option(help="Open of the first bar, UTC.")] = "2020-01-01",
    price: Annotated[float, typer.Option(help="First price.")] = 20_000.0,
    tick: Annotated[str, typer.Option(help="Price step.")] = "0.01",
    volatility: Annotated[float, typer.Option(help="Yearly volatility: 0.6 is 60 %.")] = 0.6,
    replace: Annotated[bool, typer.Option("--replace", help="Overwrite bars held with other values.")] = False,
    catalog: CatalogOption = CATALOG,
    as_json: JsonOption = False,
) -> None:
    """Simulate a market and bring it into the catalog.

    [bold]Examples[/bold]

      lstm-strategy data simulate --instrument EDGE.SIM --edge 0.1 --bars 50000

      lstm-strategy data simulate --instrument NULL.SIM --noise --seed 7
    """
    config = SimulationConfig(
        instrument_id=instrument,
        timeframe=timeframe,
        bars=bars,
        seed=seed,
        start=start,
        price=price,
        tick=tick,
        volatility=volatility,
        edge=edge,
        noise=noise,
    )
    simulated = simulate(config)
    result = _keep(RawStore(catalog), simulated, simulated_instrument(config), replace=replace)
    _tell_result(simulated, result, catalog, as_json=as_json)


def _market(store: RawStore, bars: Bars, named: dict[str, Any]) -> Instrument:
    """Return the instrument to keep: named fields first, then what is held, then what the bars tell."""
    inferred = infer_instrument(bars, **named)
    if not store.has_instrument(bars.instrument_id):
        return inferred
    held = store.read_instrument(bars.instrument_id)
    if "tick" in named:  # it must also carry the bars that are there
        for instrument_id, timeframe in store.entries():
            if instrument_id == bars.instrument_id:
                infer_instrument(store.read(instrument_id, timeframe), tick=named["tick"])
    # Prices must fit the tick; volumes need not fit the lot, which is a rule for orders.
    finer = {"tick": inferred.tick} if step_decimals(held.tick) < step_decimals(inferred.tick) else {}
    return msgspec.structs.replace(held, **(finer | named))


def _rates(file: Path, market: Instrument) -> tuple[Any, Any]:
    """Read funding rates before anything is written."""
    if market.kind != "perpetual":
        raise LSTMStrategyError(f"--funding is {file}, but {market.id} is {market.kind}: only perpetuals pay funding")
    return read_rates(file)


def _keep(store: RawStore, bars: Bars, market: Instrument, *, replace: bool) -> MergeResult:
    """Merge into the raw store, then write the engine's catalog anew from it."""
    from lstm_strategy.nautilus.catalog import bar_type  # the engine is slow to import

    bar_type(bars.instrument_id, bars.timeframe)  # a length that the engine has not is refused before anything is kept
    with hold_catalog(store.root, f"data import of {bars.instrument_id}"):
        changed = not store.has_instrument(market.id) or store.read_instrument(market.id) != market
        result = store.merge(bars, replace=replace)
        if changed:
            store.write_instrument(market)
        with console.status("writing the catalog"):
            for instrument_id, timeframe in store.entries():
                # a change of tick or lot concerns all lengths of bar
                if instrument_id == market.id and (changed or timeframe == bars.timeframe):
                    write_entry(store, instrument_id, timeframe)
    return result


def _tell_instrument(market: Instrument, named: dict[str, Any], held: Instrument | None) -> None:
    table = Table("instrument", market.id, "from", box=box.SIMPLE_HEAD)
    for name, value in msgspec.to_builtins(market).items():
        if name == "id" or value is None:
            continue
        if name in named:
            origin = "option"
        elif held is not None and getattr(held, name) == value:
            origin = "catalog"
        else:
            origin = "default" if name in _DEFAULTS else "the bars"
        table.add_row(name, str(value), origin)
    console.print(table)


def _tell_result(bars: Bars, result: MergeResult, catalog: Path, *, as_json: bool) -> None:
    console.print(
        f"{bars.instrument_id} {bars.timeframe}: {result.added:,} bars added, {result.unchanged:,} unchanged,"
        f" {result.replaced:,} replaced; {result.total:,} in {catalog}",
        soft_wrap=True,
    )
    if as_json:
        emit_json(
            {
                "instrument": bars.instrument_id,
                "timeframe": bars.timeframe.text,
                **result._asdict(),
                "start": format_ns(bars.ts_close[0]),
                "end": format_ns(bars.ts_close[-1]),
                "catalog": str(catalog),
            }
        )
