"""Several instruments with the surprises of live data: late and missing bars, the grace period, restarts."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import pytest
from engine_support import HOUR, LOOSE
from nautilus_trader.backtest.engine import BacktestEngine, BacktestEngineConfig
from nautilus_trader.common.config import LoggingConfig
from nautilus_trader.model.currencies import USDT
from nautilus_trader.model.enums import AccountType, OmsType
from nautilus_trader.model.identifiers import Venue
from panel_support import AAA, BBB, CCC, SEPARATE, tell_each, walks

from lstm_strategy.bars import Bars
from lstm_strategy.decision import Costs, SizingConfig
from lstm_strategy.nautilus.catalog import bar_type
from lstm_strategy.nautilus.engine import EngineBar, InstrumentId, Money
from lstm_strategy.nautilus.instruments import to_engine
from lstm_strategy.nautilus.portfolio_config import LSTMPortfolioStrategyConfig, PanelMember
from lstm_strategy.nautilus.portfolio_strategy import LSTMPortfolioStrategy

SECOND = 10**9
COINS = {coin.id: coin for coin in (AAA, BBB, CCC)}
THIRD = SizingConfig(mode="fixed_fraction", fraction=0.3, no_trade_band=0.0)


@pytest.fixture
def engines() -> Iterator[list[BacktestEngine]]:
    made: list[BacktestEngine] = []
    yield made
    for engine in made:
        engine.dispose()


def strategy(**changes: Any) -> LSTMPortfolioStrategy:
    members = tuple(
        PanelMember(
            instrument_id=InstrumentId.from_str(name), bar_type=bar_type(name, HOUR), model="told", costs=Costs(fee=0.0)
        )
        for name in COINS
    )
    options = {"portfolio": SEPARATE, "sizing": THIRD, "limits": LOOSE, "record": True}
    return LSTMPortfolioStrategy(LSTMPortfolioStrategyConfig(members=members, **(options | changes)))


def play(
    engines: list[BacktestEngine], made: LSTMPortfolioStrategy, panel: list[Bars], late: dict[tuple[str, int], int]
) -> None:
    """Run over bars that reach the strategy as late as told, in nanoseconds by name and row."""
    engine = BacktestEngine(BacktestEngineConfig(logging=LoggingConfig(bypass_logging=True)))
    engines.append(engine)
    engine.add_venue(Venue("BINANCE"), OmsType.NETTING, AccountType.CASH, [Money(100_000, USDT)])
    for coin in COINS.values():
        engine.add_instrument(to_engine(coin))
    engine.add_strategy(made)
    for bars in panel:
        instrument = to_engine(COINS[bars.instrument_id])
        data = [
            EngineBar(
                bar_type(bars.instrument_id, HOUR),
                *(instrument.make_price(price) for price in (bar.open, bar.high, bar.low, bar.close)),
                instrument.make_qty(bar.volume),
                bar.ts_close,
                bar.ts_close + late.get((bars.instrument_id, row), 0),
            )
            for row, bar in enumerate(bars)
        ]
        engine.add_data(sorted(data, key=lambda bar: int(bar.ts_init)), sort=False)
    engine.sort_data()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the engine's own use of pandas
        engine.run()


def reasons(made: LSTMPortfolioStrategy, name: str) -> dict[int, str]:
    record = made.seats[name].record
    assert record is not None
    return {decision.ts_close // HOUR.ns: decision.reason.value for decision in record.decisions}


def test_who_is_late_within_the_grace_period_is_waited_for_and_no_longer(
    engines: list[BacktestEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    tell_each(monkeypatch, lambda *_: 0.001)
    made = strategy()
    late = {(BBB.id, 5): 3 * SECOND, (BBB.id, 8): 8 * SECOND, (CCC.id, 8): 4 * SECOND}
    play(engines, made, walks(15), late)
    assert made.failure is None
    for name in COINS:
        found = reasons(made, name)
        assert list(found) == list(range(1, 16))  # once a close
        assert [hour for hour, reason in found.items() if reason == "stale_data"] == ([9] if name == BBB.id else [])
    record = made.seats[BBB.id].record
    assert record is not None
    absent = record.decisions[8]
    assert absent.target == absent.exposure > 0.2


def test_a_restart_goes_on_with_halts_and_correlations(
    engines: list[BacktestEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    tell_each(monkeypatch, lambda *_: 0.001)
    panel = walks(60)
    first, second = strategy(), strategy()
    play(engines, first, [bars[:40] for bars in panel], {})
    saved = first.on_save()
    second.on_load(saved)
    play(engines, second, [bars[40:] for bars in panel], {})
    assert second.failure is None
    for name, seat in second.seats.items():
        before = first.seats[name].risk
        assert seat.risk is not None
        assert before is not None
        assert seat.risk.peak_equity >= before.peak_equity
        assert seat.session.model.forecaster.seen[0] == panel[0].ts_close[40]
    broken = strategy()
    broken.on_load(saved | {"seats": b"\x81\xa4none"})
    with pytest.raises(Exception, match="damaged"):
        play(engines, broken, panel, {})
