"""A venue of plain values for the limits' tests: orders rest, fill in part or late, are refused, and resist cancels."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from decimal import Decimal
from random import Random

import numpy as np

from lstm_strategy.decision import (
    Conditions,
    Costs,
    Decision,
    LimitsConfig,
    PortfolioState,
    RiskState,
    Seen,
    Shrinkage,
    SizingConfig,
    Trained,
    advance,
    count_order,
    decide,
)
from lstm_strategy.forecast import Forecast
from lstm_strategy.limits import CLOSING_FACTOR
from lstm_strategy.nautilus.orders import Action, Rules, outdated, plan_order

LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)
NORMAL = np.array([-1.645, -0.674, 0.0, 0.674, 1.645])
TRAINED = Trained({1: Shrinkage(1.0), 4: Shrinkage(0.5)}, 2.6)
COSTS = Costs(fee=0.0005, spread=0.0002)
TOLERANCE = 0.02
SCALE = 0.01


def told(mean: float, scale: float = SCALE) -> Forecast:
    """A forecast at horizons 1 and 4, in units of its own scale."""
    quantiles = np.array([mean + scale * NORMAL, 2 * mean + 2 * scale * NORMAL], np.float32)
    return Forecast(0, (1, 4), LEVELS, quantiles, scale)


# Both sides, strong and weak, wide and narrow; and what is no forecast.
FORECASTS = [told(m, s) for m in (-0.02, -0.004, -0.0001, 0.0, 0.0001, 0.004, 0.02) for s in (0.003, 0.01, 0.04)]
BROKEN: list[Forecast | None] = [None, told(math.nan), told(math.inf), told(0.001, math.nan)]


@dataclass
class Order:
    """What is left of one order; it may be in flight, and someone may have asked for its end."""

    left: Decimal
    in_flight: bool
    cancelling: bool = False


@dataclass
class Account:
    """Position and cash at a venue, at most one order alive, and everything that was ever done."""

    random: Random
    rules: Rules
    spot: bool
    cash: float
    price: float
    position: Decimal = Decimal(0)
    order: Order | None = None
    sent: list[tuple[int, Decimal]] = field(default_factory=list)

    @property
    def pending(self) -> Decimal:
        return Decimal(0) if self.order is None else self.order.left

    @property
    def equity(self) -> float:
        return self.cash + float(self.position) * self.price

    def fill(self, quantity: Decimal) -> None:
        """Fill so much of the order, a little worse than the price."""
        assert self.order is not None
        price = self.price * (1.0 + math.copysign(0.0003, quantity))
        self.cash -= float(quantity) * price + abs(float(quantity)) * price * COSTS.fee
        self.position += quantity
        self.order.left -= quantity
        if self.order.left == 0:
            self.order = None

    def trade(self, *, willing: bool = False) -> None:
        """Let the venue do what it pleases with the order; a willing one fills whatever reaches it."""
        order, chance = self.order, self.random.random()
        if order is None:
            return
        if willing or chance < 0.5:
            self.fill(order.left)
        elif chance < 0.7:
            lots = int(abs(order.left) / self.rules.lot)
            self.fill((self.random.randint(0, lots) * self.rules.lot).copy_sign(order.left) if lots else order.left)
            if self.order is not None and order.cancelling:  # too late for the part that was filled
                self.order = None
        elif (chance < 0.8 and order.in_flight) or (chance < 0.95 and order.cancelling):
            self.order = None  # rejected, or called back
        if self.order is not None:
            self.order.in_flight = self.order.in_flight and self.random.random() < 0.3

    def obey(self, ts_close: int, decision: Decision, limits: LimitsConfig) -> tuple[Decimal, Action]:
        """Do as the desk does: call back what is outdated, else send one order where none is alive."""
        if self.order is not None:
            if not outdated(decision, self.equity, self.price, self.position, self.pending, TOLERANCE):
                return Decimal(0), Action.AWAITING_ORDER
            if self.order.in_flight:
                return Decimal(0), Action.AWAITING_ORDER
            self.order.cancelling = True
            return Decimal(0), Action.CANCELLING
        if decision.target == decision.exposure:
            return Decimal(0), Action.HELD
        largest = limits.max_order_notional
        quantity, action = plan_order(
            decision.target,
            self.equity,
            self.price,
            self.position,
            self.rules,
            can_short=limits.side == "long_short" and not self.spot,
            max_notional=None if largest is None else CLOSING_FACTOR * largest,
            sellable=self.position if self.spot else None,
            spendable=self.cash / 1.002 if self.spot else None,
        )
        if quantity:
            self.order = Order(quantity, self.random.random() < 0.3)
            self.sent.append((ts_close, quantity))
        return quantity, action


def step(
    account: Account,
    risk: RiskState | None,
    ts_close: int,
    bar_ns: int,
    forecast: Forecast | None,
    sizing: SizingConfig,
    limits: LimitsConfig,
    conditions: Conditions,
) -> tuple[RiskState, Decision, Decimal, Action]:
    """One bar's close, as the strategy treats it."""
    position, equity = float(account.position), account.equity
    scale = math.nan if forecast is None else forecast.scale
    risk = advance(
        risk or RiskState.start(ts_close, equity, position),
        ts_close,
        equity,
        limits,
        Seen(position, account.price, scale, bar_ns),
    )
    unit = account.price / equity if equity else math.nan
    state = PortfolioState(ts_close, equity, position * unit, risk, float(account.pending) * unit)
    decision = decide(
        forecast, state, sizing, limits, COSTS, trained=TRAINED, bars_per_year=8760.0, conditions=conditions
    )
    quantity, action = account.obey(ts_close, decision, limits)
    return (count_order(risk) if quantity else risk), decision, quantity, action
