"""The ``replay`` command: a local exchange over recorded or simulated bars."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import re
import signal
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from lstm_strategy.bars import Timeframe, format_ns
from lstm_strategy.console import console, emit_json
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.replay.faults import NO_FAULTS, load_faults
from lstm_strategy.replay.market import Market
from lstm_strategy.replay.recordings import load_funding, market_from_catalog, market_from_file, simulated_market
from lstm_strategy.sources.simulate import SimulationConfig

if TYPE_CHECKING:
    from lstm_strategy.replay.server import ReplayConfig, ReplayServer
    from lstm_strategy.replay.trading import TradingConfig

__all__ = ["replay_command"]

_KEY, _SECRET = "LSTM_STRATEGY_REPLAY_KEY", "LSTM_STRATEGY_REPLAY_SECRET"


def replay_command(
    data: Annotated[
        list[Path] | None, typer.Option("--data", help="CSV, Parquet or feather file of bars; one for each instrument.")
    ] = None,
    instrument: Annotated[
        list[str] | None, typer.Option("--instrument", help="SYMBOL.VENUE, such as BTCUSDT.BINANCE; may be repeated.")
    ] = None,
    timeframe: Annotated[
        str | None, typer.Option(help="Length of the bars; of a file else told by its stamps.")
    ] = None,
    stamp: Annotated[Literal["open", "close"], typer.Option(help="What the files' stamps mean.")] = "open",
    funding: Annotated[
        list[Path] | None, typer.Option("--funding", help="Parquet file of a perpetual's funding rates, in order.")
    ] = None,
    catalog: Annotated[Path | None, typer.Option("--catalog", help="Serve instruments of this catalog.")] = None,
    simulated: Annotated[int | None, typer.Option("--simulate", min=1, help="Serve this many simulated bars.")] = None,
    exchange_info: Annotated[
        Path | None, typer.Option("--exchange-info", help="Saved exchangeInfo reply of Binance: ticks, lots, minimums.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; only this machine reaches 127.0.0.1.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 takes any free one.")] = 0,
    speed: Annotated[float, typer.Option(help="1 is real time, 3600 an hour a second.")] = 1.0,
    step: Annotated[bool, typer.Option("--step", help="Stand still until POST /replay/step.")] = False,
    start: Annotated[
        str | None, typer.Option(help="Where the stream begins: a date, or a number of bars; else all bars are past.")
    ] = None,
    shift: Annotated[bool, typer.Option("--shift", help="Move stamps by whole days so that history ends now.")] = False,
    faults: Annotated[Path | None, typer.Option("--faults", help="TOML script of what goes wrong; see above.")] = None,
    closed_only: Annotated[
        bool,
        typer.Option(
            "--closed-only",
            help="Leave the unfinished candle out of history; for clients that tell it by their own clock.",
        ),
    ] = False,
    balance: Annotated[
        list[str] | None,
        typer.Option("--balance", help="ASSET=AMOUNT of an account that may trade spot; may be repeated. See above."),
    ] = None,
    spread: Annotated[float, typer.Option(help="Between bid and ask, as a fraction; for orders.")] = 0.0,
    volume_share: Annotated[
        float, typer.Option("--volume-share", help="Share of each bar's volume that orders may take.")
    ] = 0.25,
    seed: Annotated[int, typer.Option(min=0, help="Of forming candles, faults and simulated bars.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print the URLs as one JSON object once it listens.")] = False,
) -> None:
    """Serve bars as an exchange would, on this machine: no account, no network.

    It speaks Binance (spot REST and kline streams, USDⓈ-M history) and Coinbase Exchange (REST). Ctrl-C ends it.

    With --balance it takes signed spot orders as Binance does, matches them on the bars, and tells of them on its
    user-data stream (NautilusTrader's Binance client needs an Ed25519 key for that). Key and secret are read from
    LSTM_STRATEGY_REPLAY_KEY and LSTM_STRATEGY_REPLAY_SECRET, and shown nowhere. They are for practice: make them up.

    [bold]Examples[/bold]

      lstm-strategy replay --data BTCUSDT-1h.parquet --instrument BTCUSDT.BINANCE

      lstm-strategy replay --catalog catalog --instrument BTCUSDT.BINANCE --start 2024-01-01 --speed 3600

      lstm-strategy replay --simulate 5000 --instrument BTCUSDT.BINANCE --timeframe 1m --start 4000 --shift

    [bold]A fault script[/bold] has a table for each fault: its kind, where it happens, when (nth, at or probability)

      \\[\\[faults]]
      kind = "status"
      status = 429
      retry_after = 2
      probability = 0.05

      \\[\\[faults]]
      kind = "drop"
      on = "stream"
      nth = 10
      every = 100

      \\[\\[faults]]
      kind = "answer_lost"
      path = "POST /api/v3/order"
      nth = 3
    """
    from lstm_strategy.replay.server import ReplayConfig  # a web server is slow to import

    length = Timeframe.parse(timeframe) if timeframe else None
    with console.status("reading bars"):
        markets = _markets(data or [], instrument or [], length, stamp, catalog, simulated, seed)
    _add_funding(markets, funding or [])
    config = ReplayConfig(
        markets=tuple(markets),
        host=host,
        port=port,
        speed=speed,
        step=step,
        start=start,
        shift=shift,
        seed=seed,
        faults=load_faults(faults) if faults else NO_FAULTS,
        exchange_info=exchange_info,
        unfinished=not closed_only,
        trading=_trading(balance, spread, volume_share) if balance else None,
    )
    if not _only_this_machine(host):
        console.print(f"[yellow]open[/yellow] anyone who reaches {host} can ask this server and step its clock")
    asyncio.run(_serve(config, as_json=as_json))


async def _serve(config: ReplayConfig, *, as_json: bool) -> None:
    """Serve until a signal; an error of the driver ends it too."""
    from lstm_strategy.replay.server import serve

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(name, stop.set)
    async with serve(config) as server:
        _tell(server, as_json=as_json)
        waiting = asyncio.ensure_future(stop.wait())
        driver = {server.driver} if server.driver is not None else set()
        await asyncio.wait({waiting, *driver}, return_when=asyncio.FIRST_COMPLETED)
        if server.driver is not None and server.driver.done():
            server.driver.result()
            console.print("all bars have been told; history is still served")
        await waiting
    injected = server.exchange.faults.injected
    console.print("ended" + (f"; injected {dict(injected)}" if injected else ""), highlight=False)


def _tell(server: ReplayServer, *, as_json: bool) -> None:
    state = server.state()
    for market in state["markets"]:
        console.print(
            f"{market['instrument']} as {market['symbol']} {market['timeframe']}: {market['bars']:,} bars,"
            f" {market['first_close_utc']} to {market['last_close_utc']}",
            highlight=False,
            soft_wrap=True,
        )
    moved = f"; stamps moved by {state['shift_days']:+,} days" if state["shift_days"] else ""
    console.print(
        f"{server.http_url} and {server.ws_url}; it is {format_ns(server.exchange.now())} there, {state['closed']:,}"
        f" closes past, {state['left']:,} to come{moved}",
        highlight=False,
        soft_wrap=True,
    )
    if as_json:
        urls = {"http": server.http_url, "ws": server.ws_url, "port": server.port}
        emit_json(urls | {"shift_days": state["shift_days"]})


def _markets(
    data: list[Path],
    instruments: list[str],
    timeframe: Timeframe | None,
    stamp: Literal["open", "close"],
    catalog: Path | None,
    simulated: int | None,
    seed: int,
) -> list[Market]:
    if sum((bool(data), catalog is not None, simulated is not None)) != 1:
        raise LSTMStrategyError("replay: say what to serve by exactly one of --data, --catalog and --simulate")
    if not instruments:
        raise LSTMStrategyError("replay: name an --instrument, such as BTCUSDT.BINANCE")
    if data:
        if len(data) != len(instruments):
            raise LSTMStrategyError(
                f"replay: {len(data)} --data and {len(instruments)} --instrument; name one for each, in the same order"
            )
        return [
            market_from_file(path, name, timeframe, stamp=stamp) for path, name in zip(data, instruments, strict=True)
        ]
    if catalog is not None:
        return [market_from_catalog(catalog, name, timeframe) for name in instruments]
    return [
        simulated_market(
            SimulationConfig(
                instrument_id=name,
                timeframe=timeframe.text if timeframe else "1h",
                bars=simulated or 1,
                seed=seed + row,
            )
        )
        for row, name in enumerate(instruments)
    ]


def _trading(balances: list[str], spread: float, volume_share: float) -> TradingConfig:
    """Return the account that trades; its key is in the environment, where no list of processes shows it."""
    from lstm_strategy.replay.credentials import Credentials
    from lstm_strategy.replay.trading import TradingConfig

    held: dict[str, Decimal] = {}
    for entry in balances:
        asset, _, amount = entry.partition("=")
        try:
            held[asset] = Decimal(amount)
        except InvalidOperation:
            held[asset] = Decimal("NaN")
        if re.fullmatch(r"[A-Z0-9]{1,20}", asset) is None or not held[asset].is_finite() or held[asset] < 0:
            raise LSTMStrategyError(f"replay: --balance {entry} is not ASSET=AMOUNT, such as USDT=10000")
    missing = [name for name in (_KEY, _SECRET) if not os.environ.get(name)]
    if missing:
        raise LSTMStrategyError(f"replay: --balance needs {' and '.join(missing)} in the environment, made up by you")
    credentials = Credentials(os.environ[_KEY], os.environ[_SECRET])
    return TradingConfig(credentials=credentials, balances=held, spread=spread, volume_share=volume_share)


def _add_funding(markets: list[Market], funding: list[Path]) -> None:
    perpetuals = [market for market in markets if market.perpetual]
    if len(funding) > len(perpetuals):
        raise LSTMStrategyError(
            f"replay: {len(funding)} --funding for {len(perpetuals)} perpetuals; one is named BTCUSDT-PERP.BINANCE"
        )
    for market, path in zip(perpetuals, funding, strict=False):
        market.funding = load_funding(path)


def _only_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
