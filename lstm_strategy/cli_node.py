"""What ``paper`` and ``live`` run: the settings of a node, made of an experiment."""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

import msgspec

from lstm_strategy.bars import Timeframe
from lstm_strategy.cli_jobs import Places, new_run_folder, settings_of
from lstm_strategy.cli_options import instrument_of
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.experiment import Experiment
from lstm_strategy.sources.store import RawStore

if TYPE_CHECKING:
    from lstm_strategy.nautilus.node_settings import NodeSettings

__all__ = ["Mode", "node_settings"]

Mode = Literal["replay", "paper", "live"]


def node_settings(
    setup: Experiment,
    instrument: str | None,
    places: Places,
    *,
    mode: Mode,
    base_url: str | None = None,
    start_timeout: float | None = None,
    speed: float = 1.0,
    bars: int | None = None,
    in_sample: bool = False,
) -> NodeSettings:
    """Return what the node runs; refuse all that can be known to be wrong before anything is connected.

    Parameters
    ----------
    instrument : str, optional
        One of the experiment's; all of them on one account where None.
    base_url : str, optional
        Of an exchange on this machine, in the venue's place.
    start_timeout : float, optional
        Seconds to wait for the venue, where not as ``[live]`` says.
    speed, bars, in_sample : float, int, bool
        Of a replay: how much faster than the clock, where to end, and whether bars of the training are allowed.

    Raises
    ------
    LSTMStrategyError
        For an address elsewhere, a venue or timeframe that is not to be had, keys that are missing, or another model.
    """
    from lstm_strategy.nautilus.adapters import ADAPTERS, adapter_for, require_keys, require_offered
    from lstm_strategy.nautilus.node_settings import NodeSettings
    from lstm_strategy.nautilus.rehearsal import Rehearsal

    base_url = None if base_url is None else _local(base_url)
    names = setup.data.instruments if instrument is None else (instrument_of(setup, instrument),)
    live = setup.live
    if start_timeout is not None:
        live = msgspec.structs.replace(live, start_timeout=start_timeout)
    known = [RawStore(places.catalog).read_instrument(name) for name in names]
    if mode == "replay":
        adapter = ADAPTERS["binance_futures" if known[0].kind == "perpetual" else "binance"]
    else:
        kinds = {one.kind for one in known}
        adapter = adapter_for(live.venue, names, {str(kind) for kind in kinds}, testnet=live.testnet)
    require_offered(adapter, Timeframe.parse(setup.data.timeframe))
    if mode == "live":
        require_keys(adapter, testnet=live.testnet)
        if live.keep and adapter.name != "binance":
            raise LSTMStrategyError(f"live.keep is for Binance spot; {adapter.name} needs an account of its own")
    if mode != "replay" and places.model is None and setup.model.source == "walk_forward":
        raise LSTMStrategyError(
            'model.from is "walk_forward": those models spoke of the past; name one with --model, or trade "current"'
        )
    # What a model was trained on matters where old bars are told again; what the venue tells now is new.
    pairs = [settings_of(setup, name, places, in_sample=in_sample or mode != "replay") for name in names]
    members = tuple(msgspec.structs.replace(one, account=live.account or one.account) for one, _ in pairs)
    if mode == "live" and known[0].kind == "spot" and members[0].limits.side == "long_short":
        raise LSTMStrategyError(
            f"limits.side is long_short; a spot account at {adapter.name} cannot short: trade a perpetual, or say"
            ' side = "long_only"'
        )
    rehearsal = None
    if mode == "replay":
        rehearsal = Rehearsal(
            catalog=places.catalog,
            instrument_ids=names,
            timeframe=setup.data.timeframe,
            start=members[0].start,
            end=members[0].end,
            speed=speed,
            bars=bars,
        )
    base = places.runs / setup.name / ("live" if mode == "live" else "paper")
    folder = new_run_folder(base, pairs[0][1])
    trader = (
        live.trader_id or f"{re.sub('[^A-Za-z0-9_]', '_', setup.name)[:40]}-{'LIVE' if mode == 'live' else 'PAPER'}"
    )
    return NodeSettings(
        members=members,
        portfolio=None if len(names) == 1 else setup.portfolio,
        live=live,
        adapter=adapter,
        real=mode == "live",
        trader_id=trader,
        currency=known[0].quote,
        run_folder=folder,
        state_folder=None if mode == "replay" else base / "state",  # a replay begins anew
        base_url=base_url,
        rehearsal=rehearsal,
    )


def _local(url: str) -> str:
    """Refuse an address that is not this machine's: bars from elsewhere are not the venue's, and keys are its alone."""
    parts = urlsplit(url)
    try:
        local = parts.scheme == "http" and ipaddress.ip_address(parts.hostname or "").is_loopback and parts.port
    except ValueError:
        local = False
    if not local:
        raise LSTMStrategyError(
            f"--base-url is {url[:80]!r}; it must be on this machine, such as http://127.0.0.1:8080"
        )
    return url.rstrip("/")
