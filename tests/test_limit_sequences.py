"""The limits over random sequences of forecasts, prices, fills, rejections, partial and late fills.

LSTM_STRATEGY_SEQUENCES says how many; ten thousand where it does not.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from dataclasses import dataclass, field
from decimal import Decimal
from random import Random
from typing import Any, get_args

import pytest
from venue_support import BROKEN, FORECASTS, TOLERANCE, Account, step

from lstm_strategy.decision import HALTS, NO_INCREASE, Conditions, Decision, LimitsConfig, Reason, RiskState, halt
from lstm_strategy.decision import SizingConfig as Sizing
from lstm_strategy.limits import Flattening
from lstm_strategy.nautilus.orders import Action, Rules
from lstm_strategy.reasons import RATES
from lstm_strategy.risk import FLAT

SEQUENCES = int(os.environ.get("LSTM_STRATEGY_SEQUENCES", "10000"))
BLOCKS, BARS = 4, 16
HOUR, DAY = 3_600_000_000_000, 86_400_000_000_000
RULES = Rules(Decimal("0.001"), Decimal("0.001"), Decimal(60), Decimal(10))
ROUNDING = 1e-9


def some(random: Random, chance: float, *values: Any) -> Any:
    return random.choice(values) if random.random() < chance else None


def random_limits(random: Random, spot: bool) -> LimitsConfig:
    if random.random() < 0.1:  # bold enough to be ruined
        return LimitsConfig(max_exposure=6.0, max_step=12.0, daily_loss=1.0, max_drawdown=1.0)
    cap = random.choice([0.3, 1.0, 1.0, 2.0, 6.0])
    per_hour = some(random, 0.3, 1, 2)
    return LimitsConfig(
        side="long_only" if spot else random.choice(["long_only", "long_short"]),
        max_exposure=cap,
        max_gross=some(random, 0.2, cap, min(2 * cap, 10.0)),  # what the initial margin allows
        max_net=some(random, 0.1, cap),
        max_step=random.choice([0.2, 1.0, 4.0]),
        max_order_notional=some(random, 0.4, 500.0, 3_000.0, 20_000.0),
        orders_per_hour=per_hour,
        orders_per_day=some(random, 0.3, 2, 5),
        turnover_per_day=some(random, 0.4, 0.5, 1.0, 3.0),
        flip_hours=random.choice([0.0, 0.0, 2.0, 6.0]),
        daily_loss=random.choice([0.01, 0.05, 1.0]),
        max_drawdown=random.choice([0.03, 0.2, 1.0]),
        max_losses=some(random, 0.5, 1, 2),
        cooldown_hours=random.choice([2.0, 12.0]),
        max_volatility=some(random, 0.3, 0.5, 2.0),
        price_fence=some(random, 0.3, 0.02, 0.1),
        price_fence_scales=some(random, 0.3, 3.0),
        max_stale_bars=some(random, 0.3, 0, 2),
        drift_tolerance=random.choice([0.0, 0.02, 0.1]),
        flatten_on=tuple(name for name in get_args(Flattening.__value__) if random.random() < 0.1),
    )


def random_sizing(random: Random) -> Sizing:
    return Sizing(
        mode=random.choice(["volatility_target", "mean_variance", "fixed_fraction", "quantile"]),
        horizons=random.choice([(), (), (1, 4)]),
        target_volatility=random.choice([0.3, 3.0, 30.0]),
        kelly_fraction=random.choice([0.25, 10.0]),
        fraction=random.choice([0.2, 0.3]),
        interval=random.choice([0.2, 0.5, 0.8]),
        widest_interval=some(random, 0.3, 0.9, 1.5),
        no_trade_band=random.choice([0.0, 1.0]),
        without_forecast=random.choice(["flatten", "hold"]),
    )


@dataclass
class Ledger:
    """What the limits should remember, counted anew from the whole past."""

    equities: list[tuple[int, float]] = field(default_factory=list)
    moves: list[tuple[int, float]] = field(default_factory=list)
    sides: list[tuple[int, float]] = field(default_factory=list)
    position: float = 0.0

    def note(self, ts_close: int, account: Account) -> None:
        position, before = float(account.position), self.position
        worth = abs(position) * account.price
        side = math.copysign(1.0, position) if worth >= FLAT * account.equity > 0.0 else 0.0
        if account.equity > 0.0:
            self.moves.append((ts_close, abs(position - before) * account.price / account.equity))
        self.sides.append((ts_close, side))
        self.position = position
        self.equities.append((ts_close, account.equity))

    def turnover(self, ts_close: int) -> float:
        return sum(moved for ts, moved in self.moves if (ts - 1) // DAY == (ts_close - 1) // DAY)

    def halted(self, limits: LimitsConfig) -> bool:
        ts_close = self.equities[-1][0]
        today = [e for ts, e in self.equities if (ts - 1) // DAY == (ts_close - 1) // DAY]
        before = [e for ts, e in self.equities if (ts - 1) // DAY < (ts_close - 1) // DAY]
        opening = before[-1] if before else today[0]
        fell, peak = False, -math.inf
        for _, equity in self.equities:
            peak = max(peak, equity)
            fell = fell or equity <= peak * (1.0 - limits.max_drawdown)
        return fell or self.equities[-1][1] <= 0.0 or any(e <= opening * (1.0 - limits.daily_loss) for e in today)


def opening(position: Decimal, left: Decimal) -> bool:
    """Whether an order buys more of a long position, sells more of a short one, or goes through zero."""
    return abs(position + left) > abs(position) or position * (position + left) < 0


def check(
    account: Account,
    ledger: Ledger,
    limits: LimitsConfig,
    ts_close: int,
    decision: Decision,
    quantity: Decimal,
    action: Action,
) -> None:
    position, price, equity = account.position, account.price, account.equity
    alive = account.order
    if not quantity and alive is not None and decision.target == 0.0 and position + alive.left == 0:
        assert action == Action.AWAITING_ORDER  # what closes the position is left to do so
    if not quantity and alive is not None and opening(position, alive.left) and not alive.in_flight:
        forbidden = decision.reason in HALTS or any(name in decision.bound for name in NO_INCREASE - RATES)
        leads = abs(float(position + alive.left)) * price
        over = leads > limits.max_exposure * (1.0 + limits.drift_tolerance) * equity * (1.0 + ROUNDING)
        assert alive.cancelling or not (forbidden or over)
    assert (decision.reason in HALTS) == ledger.halted(limits)
    adds = max(abs(position + quantity) - (abs(position) if position * (position + quantity) >= 0 else 0), Decimal(0))
    if equity > 0.0 and quantity:
        unit, slack = price / equity, 1.0 + ROUNDING
        whole = abs(float(quantity)) * price
        assert whole <= (limits.max_order_notional or math.inf) * 10 * slack
        if adds:
            after = float(position + quantity) * unit
            assert (0.0 if limits.side == "long_only" else -limits.max_exposure * slack) <= after
            assert after <= limits.max_exposure * slack
            assert decision.reason not in HALTS
            assert not any(name in decision.bound for name in NO_INCREASE)
            assert float(adds) * price <= (limits.max_order_notional or math.inf) * slack
            spent = ledger.turnover(ts_close) + abs(float(quantity)) * unit
            assert spent <= (limits.turnover_per_day or math.inf) * slack
            earlier = [ts for ts, _ in account.sent[:-1]]
            in_hour = sum((ts - 1) // HOUR == (ts_close - 1) // HOUR for ts in earlier)
            in_day = sum((ts - 1) // DAY == (ts_close - 1) // DAY for ts in earlier)
            assert in_hour < (limits.orders_per_hour or math.inf)
            assert in_day < (limits.orders_per_day or math.inf)
            held = [(ts, side) for ts, side in ledger.sides if side]
            if limits.flip_hours and held and held[-1][1] * float(position + quantity) < 0.0:
                side, since = held[-1][1], held[-1][0]
                for ts, taken in reversed(held):
                    if taken != side:
                        break
                    since = ts
                assert ts_close - since >= limits.flip_hours * HOUR
    elif quantity:
        assert not adds
    # Beyond its cap and the tolerance, a position is on its way down, as far as the venue takes orders.
    exposure = float(position) * price / equity if equity > 0.0 else 0.0
    if abs(exposure) > limits.max_exposure * (1.0 + limits.drift_tolerance) * (1.0 + ROUNDING):
        assert abs(decision.target) <= limits.max_exposure * (1.0 + ROUNDING)
        if account.order is None:
            assert action == Action.BELOW_MINIMUM
        elif account.order.left * position > 0:
            assert account.order.cancelling or account.order.in_flight
        elif action not in (Action.SENT, Action.CANCELLING) and not account.order.in_flight:
            left = abs(float(position + account.order.left) * price - decision.target * equity)
            assert left <= TOLERANCE * equity * (1.0 + ROUNDING)


def close_all(
    account: Account, risk: RiskState, ts_close: int, sizing: Sizing, limits: LimitsConfig, bar_ns: int
) -> None:
    """From wherever it got to: an ordered halt and a venue that fills must end flat, but for what no venue takes."""
    risk = halt(risk, "end of the test")
    orders = 0
    for _ in range(400):
        ts_close += bar_ns
        account.trade(willing=True)
        before = abs(account.position)
        risk, decision, quantity, _ = step(account, risk, ts_close, bar_ns, None, sizing, limits, Conditions())
        assert decision.target == 0.0
        assert decision.reason in HALTS
        assert abs(account.position + quantity) <= before
        orders += bool(quantity)
        if account.order is None:
            break
    rest = abs(account.position)
    assert account.order is None
    assert rest < RULES.min_quantity or float(rest) * account.price < float(RULES.min_notional)


def play(seed: int) -> Counter[str]:
    random = Random(seed)
    spot = random.random() < 0.4
    limits, sizing = random_limits(random, spot), random_sizing(random)
    bar_ns = random.choice([HOUR // 4, HOUR, 4 * HOUR])
    ledger = Ledger()
    account = Account(random, RULES, spot, cash=10_000.0, price=100.0)
    if not spot and limits.max_drawdown == limits.daily_loss == 1.0:
        account.position, account.cash = Decimal(500), -40_000.0
        ledger.position = 500.0
    volatility = random.choice([0.002, 0.01, 0.05])
    ts_close, risk, met = random.randrange(1, 96) * bar_ns, None, Counter[str]()
    for _ in range(BARS):
        ts_close += bar_ns * (1 if random.random() < 0.95 else random.randint(2, 5))
        jump = random.gauss(0.0, volatility)
        if random.random() < 0.04:
            jump = random.choice([-0.6, -0.3, -0.1, 0.1, 0.4, 0.6])
        account.price = max(account.price * math.exp(jump), 1.0)
        account.trade()
        forecast = random.choice(FORECASTS) if random.random() < 0.93 else random.choice(BROKEN)
        conditions = Conditions(
            *(random.random() > 0.03 for _ in range(2)), *(random.random() < 0.03 for _ in range(2))
        )
        ledger.note(ts_close, account)
        risk, decision, quantity, action = step(account, risk, ts_close, bar_ns, forecast, sizing, limits, conditions)
        check(account, ledger, limits, ts_close, decision, quantity, action)
        met[decision.reason.value] += 1
        met.update(decision.bound)
        met[action.value] += 1
    assert risk is not None
    close_all(account, risk, ts_close, sizing, limits, bar_ns)
    return met


@pytest.mark.parametrize("block", range(BLOCKS))
def test_no_sequence_breaks_a_limit_or_leaves_a_position_that_cannot_be_closed(block: int) -> None:
    size = SEQUENCES // BLOCKS
    met: Counter[str] = Counter()
    for seed in range(block * size, (block + 1) * size):
        try:
            met += play(seed)
        except AssertionError as error:
            raise AssertionError(f"sequence {seed}: {error}") from error
    # The sequences reach every limit, every halt and every end that an order may have; of one name, without exits.
    exits = {"exit_pause", "unprotected", "time_stop", "take_profit", "stop_unfilled", "liquidated"}
    possible = {reason.value for reason in Reason} - {"gross_exceeded", "net_exceeded", "halt_ordered"} - exits
    assert possible - set(met) == set()
    assert {"max_exposure", "max_step", "long_only", "drift", "cancelling", "awaiting_order", "sent"} <= set(met)
