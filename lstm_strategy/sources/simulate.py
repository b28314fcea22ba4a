"""A seeded market with the habits of real ones, or with none, and if wanted a predictability of known size."""

from __future__ import annotations

import msgspec
import numpy as np

from lstm_strategy.bars import NS_PER_DAY, NS_PER_HOUR, Bars, Float, Stamps, Timeframe, parse_ns
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.instrument import Instrument, split_id
from lstm_strategy.sources.instruments import step_decimals

__all__ = ["SimulationConfig", "simulate", "simulated_instrument"]

_REGIMES = np.array([0.55, 1.0, 2.0])  # volatility of calm, usual and stormy times
_STEPS = 12  # inside a bar; high and low come from them
_MIN_TICKS = 100  # a price nearer to zero than this has returns made of rounding


class SimulationConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to simulate.

    ``bars`` of ``timeframe`` from ``start`` (UTC), the first opening at ``price``; prices on the ``tick``, volumes on
    the ``lot``. ``volatility``: standard deviation of log returns over 365 days. ``tail_dof``: degrees of freedom of
    the Student t of shocks, above 2 (the larger, the thinner). ``regime_bars``: mean stay in a volatility regime.
    ``edge``: the planted predictability, see `simulate`. ``noise``: Gaussian returns of constant variance and volume
    that says nothing.
    """

    instrument_id: str = "SIM.SIM"
    timeframe: str = "1h"
    bars: int = 20_000
    seed: int = 1
    start: str = "2020-01-01"
    price: float = 20_000.0
    tick: str = "0.01"
    lot: str = "0.001"
    volatility: float = 0.6
    tail_dof: float = 5.0
    regime_bars: float = 200.0
    edge: float = 0.0
    noise: bool = False

    def __post_init__(self) -> None:
        split_id(self.instrument_id)
        Timeframe.parse(self.timeframe)
        parse_ns(self.start)
        for name, allowed, what in (
            ("bars", 1 <= self.bars <= 50_000_000, "1 to 50,000,000"),
            ("seed", self.seed >= 0, "0 or more"),
            ("price", 0.0 < self.price < 1e9, "above 0 and below 1e9"),
            ("volatility", 0.0 < self.volatility < 10.0, "above 0 and below 10"),
            ("tail_dof", self.tail_dof > 2.0, "above 2"),
            ("regime_bars", self.regime_bars >= 1.0, "1 or more"),
            ("edge", -0.7 < self.edge < 0.7, "between -0.7 and 0.7"),
            ("edge", self.edge == 0.0 or not self.noise, "0 where noise is true"),
        ):
            if not allowed:
                raise LSTMStrategyError(f"simulation: {name} is {getattr(self, name)}; it must be {what}")


def simulate(config: SimulationConfig) -> Bars:
    """Return simulated bars: the same config gives the same bars, and more ``bars`` go on from fewer.

    Notes
    -----
    With independent shocks e_t of mean 0 and variance 1 (Student t; Gaussian for ``noise``), the log return from close
    t - 1 to close t is

        r_t = sigma_t u_t - sigma_t^2 / 2,    u_t = edge e_{t-1} + sqrt(1 - edge^2) e_t.

    Hence the mean of u_{t+1} given all that is known at t is ``edge e_t``: its correlation with u_{t+1} is ``edge``
    exactly, in units of sigma ``edge`` times a variable of variance 1. e_t can be observed: the return of bar t, in
    units of sigma, is e_t up to the factor sqrt(1 - edge^2) and the known past, so that return alone has a correlation
    of ``edge sqrt(1 - edge^2)`` with the next one. Two bars ahead there is nothing: a
    position one bar late earns nothing.
    The term -sigma^2 / 2 makes the price a fair game: without an edge no position earns before costs.

    sigma_t is constant for ``noise``. Else it is the product of a Markov chain of three regimes (leaving at rate
    1 / ``regime_bars``), a daily wave (below 1 d) and quiet weekends, scaled so that its mean square is the square of
    ``volatility``. Volume rises with sigma_t and \\|u_t\\|. High and low come from 12 steps of a Brownian bridge inside
    the bar, so that the range tells of sigma_t. Each bar opens at the close before.

    Raises
    ------
    LSTMStrategyError
        Where the price falls below 100 ticks or leaves the numbers that can be traded.
    """
    timeframe = Timeframe.parse(config.timeframe)
    first = -(-parse_ns(config.start) // timeframe.ns) * timeframe.ns
    ts_close = first + timeframe.ns * np.arange(1, config.bars + 1, dtype=np.int64)
    # one stream for each use: a seed has the same shocks with and without an edge, and more bars go on from fewer
    shocks, leaving, going, inside, traded = np.random.default_rng(config.seed).spawn(5)

    sigma = np.full(config.bars, config.volatility / np.sqrt(timeframe.bars_per_year))
    relative = np.ones(config.bars)
    if config.noise:
        e = shocks.standard_normal(config.bars + 1)
    else:
        relative = _regimes(leaving, going, config) * _season(ts_close - timeframe.ns, timeframe)
        scale = np.sqrt((config.tail_dof - 2.0) / config.tail_dof)
        e = shocks.standard_t(config.tail_dof, config.bars + 1) * scale
    sigma = sigma * relative
    u = config.edge * e[:-1] + np.sqrt(1.0 - config.edge**2) * e[1:]
    log_return = sigma * u - sigma**2 / 2.0

    log_close = np.log(config.price) + np.cumsum(log_return)
    log_open = np.concatenate([[np.log(config.price)], log_close[:-1]])
    high, low = _extremes(inside, log_open, log_return, sigma)
    decimals = step_decimals(config.tick)
    tick = float(config.tick)
    if log_close.min() < np.log(_MIN_TICKS * tick) or log_close.max() > np.log(1e12):
        raise LSTMStrategyError(
            f"simulation: the price runs from {config.price:g} to {np.exp(log_close.min()):g} at the lowest and"
            f" {np.exp(log_close.max()):g} at the highest; take fewer bars, less volatility or another seed"
        )

    def price(log_price: Float) -> Float:
        return np.asarray(np.round(np.rint(np.exp(log_price) / tick) * tick, decimals))

    mean_volume = 1_000.0 * np.sqrt(timeframe.ns / NS_PER_HOUR)
    activity = np.ones(config.bars) if config.noise else relative * (0.5 + np.abs(u)) / 1.25
    volume = mean_volume * activity * np.exp(traded.normal(-0.08, 0.4, config.bars))
    lot = float(config.lot)
    return Bars(
        config.instrument_id,
        timeframe,
        ts_close,
        price(log_open),
        price(high),
        price(low),
        price(log_close),
        np.round(np.maximum(np.rint(volume / lot), 1.0) * lot, step_decimals(config.lot)),
    )


def simulated_instrument(config: SimulationConfig) -> Instrument:
    """Return a spot market for these bars, quoted in USDT, with fees of 0.1 %."""
    symbol, _ = split_id(config.instrument_id)
    base = symbol.upper().removesuffix("USDT").rstrip("-_") or symbol.upper()
    return Instrument(id=config.instrument_id, kind="spot", base=base, quote="USDT", tick=config.tick, lot=config.lot)


def _regimes(leaving: np.random.Generator, going: np.random.Generator, config: SimulationConfig) -> Float:
    """Return the volatility factor [T] of a Markov chain over the regimes, all equally likely in the long run."""
    first = going.integers(len(_REGIMES))
    leaves = leaving.random(config.bars) < 1.0 / config.regime_bars
    moves = np.where(leaves, going.integers(1, len(_REGIMES), config.bars), 0)
    state = (first + np.cumsum(moves)) % len(_REGIMES)
    return np.asarray(_REGIMES[state] / np.sqrt(np.mean(_REGIMES**2)))


def _season(ts_open: Stamps, timeframe: Timeframe) -> Float:
    """Return the volatility factor [T] of the hour and the weekday; its mean square over a week is 1."""

    def factor(ts: Stamps) -> Float:
        curve = np.exp(0.3 * np.sin(2.0 * np.pi * ((ts % NS_PER_DAY) / NS_PER_DAY - 0.35)))
        daily = curve if timeframe.ns < NS_PER_DAY else 1.0
        return np.asarray(np.where((ts // NS_PER_DAY + 3) % 7 >= 5, 0.7, 1.0) * daily)

    if timeframe.ns > NS_PER_DAY:
        return np.ones(len(ts_open))
    week = np.arange(0, 7 * NS_PER_DAY, min(timeframe.ns, NS_PER_HOUR), dtype=np.int64)
    return np.asarray(factor(ts_open) / np.sqrt(np.mean(factor(week) ** 2)))


def _extremes(random: np.random.Generator, log_open: Float, log_return: Float, sigma: Float) -> tuple[Float, Float]:
    """Return log high and log low [T] of a Brownian bridge from open to close, in slices to bound memory."""
    high, low = np.empty(len(sigma)), np.empty(len(sigma))
    fraction = np.arange(1, _STEPS + 1) / _STEPS
    for start in range(0, len(sigma), 100_000):
        rows = slice(start, start + 100_000)
        walk = np.cumsum(random.standard_normal((len(sigma[rows]), _STEPS)), axis=1) / np.sqrt(_STEPS)
        bridge = sigma[rows, None] * (walk - walk[:, -1:] * fraction) + log_return[rows, None] * fraction
        high[rows] = log_open[rows] + np.maximum(bridge.max(axis=1), 0.0)
        low[rows] = log_open[rows] + np.minimum(bridge.min(axis=1), 0.0)
    log_close = log_open + log_return
    return np.maximum(high, log_close), np.minimum(low, log_close)
