"""The state of several instruments on one account: halted, restarted and resumed together."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from engine_support import HOUR, LOOSE
from panel_support import AAA, BBB, CCC, run_on, tell_each, walks
from typer.testing import CliRunner

from lstm_strategy.cli import app
from lstm_strategy.decision import RiskState, SizingConfig
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.exits import ExitsConfig
from lstm_strategy.halt_files import KILL
from lstm_strategy.nautilus import portfolio_strategy as strategy_module
from lstm_strategy.nautilus.engine import OrderFilled
from lstm_strategy.nautilus.panel_backtest import PanelRun
from lstm_strategy.nautilus.portfolio_strategy import LSTMPortfolioStrategy
from lstm_strategy.portfolio import PortfolioConfig
from lstm_strategy.resume import risks_of
from lstm_strategy.state_file import Kept, SeatState, unpack_seats
from lstm_strategy.state_folder import StateFolder

type Deed = Callable[[LSTMPortfolioStrategy], None]
NAMES = tuple(coin.id for coin in (AAA, BBB, CCC))
THIRD = SizingConfig(mode="fixed_fraction", fraction=0.3, no_trade_band=0.0)


def reborn(strategy: LSTMPortfolioStrategy) -> None:
    """Forget all that a process forgets, and start on what lies in the folder; the venue knows what it knew."""
    records = {name: seat.record for name, seat in strategy.seats.items()}
    strategy.keeper.close()
    strategy.on_reset()
    strategy.on_start()
    for name, record in records.items():  # the test's own memory
        strategy.seats[name].record = record


def trade(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hours: int, after: dict[int, Deed], first: int = 0, **changes: Any
) -> tuple[PanelRun, LSTMPortfolioStrategy]:
    """Run with a state folder, and do what is told after the last of the bars that close at an hour."""
    made: list[LSTMPortfolioStrategy] = []

    class Keeping(LSTMPortfolioStrategy):
        def __init__(self, config: Any) -> None:
            own = {"state_dir": str(tmp_path / "state"), "state_poll_s": 0.0}
            super().__init__(msgspec.structs.replace(config, **own))
            made.append(self)

        def on_bar(self, bar: Any) -> None:
            super().on_bar(bar)
            hour = bar.ts_event // HOUR.ns
            self.came = [*getattr(self, "came", []), hour]
            if self.came.count(hour) == len(NAMES) and hour in after:
                after[hour](self)

    monkeypatch.setattr(strategy_module, "LSTMPortfolioStrategy", Keeping)
    options: dict[str, Any] = {"sizing": THIRD, "limits": LOOSE, **changes}
    return run_on(tmp_path / "run", [bars[first:hours] for bars in walks(60)], **options), made[-1]


def kept_in(tmp_path: Path) -> Kept:
    kept, problem = StateFolder(tmp_path / "state").read()
    assert kept is not None
    assert problem == ""
    return kept


def orders(finished: PanelRun) -> list[tuple[Any, ...]]:
    rows = finished.tables["orders"].to_pylist()
    return sorted(
        (row["ts_sent"].value, row["instrument"], row["side"], row["quantity"], row["status"]) for row in rows
    )


def halted(strategy: LSTMPortfolioStrategy) -> list[bool]:
    return [seat.risk is not None and seat.risk.ordered_halt for seat in strategy.seats.values()]


@pytest.mark.parametrize("method", ["separate", "equal_risk"])
def test_a_portfolio_restarted_again_and_again_trades_as_one_that_never_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    tell_each(monkeypatch, lambda name, ts: 1e-3 if (ts // HOUR.ns + ord(name[0])) % 7 else -1e-3)
    limits = msgspec.structs.replace(LOOSE, orders_per_day=20, max_losses=3, cooldown_hours=4.0)
    options = {"portfolio": PortfolioConfig(method=method, span=40, scale_span=12), "limits": limits}
    whole, alive = trade(tmp_path / "whole", monkeypatch, 50, {}, **options)
    broken, back = trade(tmp_path / "broken", monkeypatch, 50, dict.fromkeys(range(3, 50, 3), reborn), **options)
    assert len(orders(whole)) > 10
    assert orders(broken) == orders(whole)
    assert {name: seat.risk for name, seat in back.seats.items()} == {n: s.risk for n, s in alive.seats.items()}
    found, wanted = kept_in(tmp_path / "broken").parts, kept_in(tmp_path / "whole").parts
    assert found["panel"] == wanted["panel"]
    for name, content in unpack_seats(found["seats"]).items():
        one, other = (msgspec.msgpack.decode(c, type=SeatState) for c in (content, unpack_seats(wanted["seats"])[name]))
        assert one == other


def test_after_every_event_the_folder_holds_all_that_the_names_know_though_one_of_them_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell_each(monkeypatch, lambda name, ts: 1e-3 if (ts // HOUR.ns + ord(name[0])) % 5 else -1e-3)
    changes: list[int] = []
    handled = LSTMPortfolioStrategy.handle_event

    def handle(strategy: LSTMPortfolioStrategy, event: Any) -> None:
        handled(strategy, event)
        if strategy.keeper._acting:
            return
        kept, _ = StateFolder(tmp_path / "state").read()
        assert kept is not None
        changes.append(kept.changes)
        assert unpack_seats(kept.parts["seats"]) == {name: seat.encode() for name, seat in strategy.seats.items()}

    monkeypatch.setattr(LSTMPortfolioStrategy, "handle_event", handle)
    options = {"exits": ExitsConfig(stop=2.0, trailing=True)}
    _, strategy = trade(tmp_path, monkeypatch, 30, {}, **options)
    assert strategy.failure is None
    assert max(changes) >= 3
    assert len(changes) > 30


def test_a_kill_file_closes_all_names_and_resume_lifts_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tell_each(monkeypatch, lambda *_: 1e-3)
    state, seen = tmp_path / "state", []

    def kill(_: LSTMPortfolioStrategy) -> None:
        (state / KILL).write_text("a drill")

    def look(strategy: LSTMPortfolioStrategy) -> None:
        seen.append((halted(strategy), len(strategy.cache.positions_open())))

    def resume_stopped(strategy: LSTMPortfolioStrategy) -> None:
        strategy.keeper.close()
        done = CliRunner().invoke(app, ["resume", str(state), "--reason", "drill is over"])
        assert done.exit_code == 0, done.output
        assert {name: risk.ordered_halt for name, risk in risks_of(kept_in(tmp_path)).items()} == dict.fromkeys(
            NAMES, False
        )
        reborn(strategy)

    def ask(_: LSTMPortfolioStrategy) -> None:
        done = CliRunner().invoke(app, ["resume", str(state), "--reason", "and again", "--wait", "0"])
        assert done.exit_code == 0, done.output

    deeds = {4: look, 5: kill, 8: look, 9: reborn, 12: look, 13: resume_stopped, 16: look, 17: kill, 20: ask, 24: look}
    finished, strategy = trade(tmp_path, monkeypatch, 26, deeds)
    assert strategy.failure is None
    yes, no = [True] * 3, [False] * 3
    assert seen == [(no, 3), (yes, 0), (yes, 0), (no, 3), (no, 3)]
    hours = {name: sorted({sent // HOUR.ns for sent, of, *_ in orders(finished) if of == name}) for name in NAMES}
    assert all(not set(range(7, 14)) & set(found) for found in hours.values())
    lines = [msgspec.json.decode(line) for line in (state / "resumed.jsonl").read_bytes().splitlines()]
    assert [line["reason"] for line in lines] == ["drill is over", "and again"]
    assert lines[0]["lifted"] == {name: ["ordered"] for name in NAMES}


def test_a_name_that_is_gone_is_refused_and_a_new_one_takes_part_in_the_halt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell_each(monkeypatch, lambda *_: 1e-3)
    trade(tmp_path, monkeypatch, 5, {4: lambda strategy: strategy.order_halt("wait")})
    kept, folder = kept_in(tmp_path), StateFolder(tmp_path / "state")

    def write(names: tuple[str, ...]) -> None:
        seats = {n: content for n, content in unpack_seats(kept.parts["seats"]).items() if n in names}
        folder.acquire("a test")
        folder.read()
        parts = kept.parts | {"seats": msgspec.msgpack.encode(seats)}
        folder.write(msgspec.structs.replace(kept, models=dict.fromkeys(names, "told/1"), parts=parts))
        folder.release()

    write(NAMES[:2])
    finished, strategy = trade(tmp_path, monkeypatch, 8, {}, 5)
    assert halted(strategy) == [True] * 3
    assert not orders(finished)
    write((*NAMES, "DDDUSDT.BINANCE"))
    with pytest.raises(LSTMStrategyError, match=r"is of DDDUSDT\.BINANCE, which this strategy does not trade"):
        trade(tmp_path, monkeypatch, 8, {}, 5)


def test_a_fill_told_again_after_a_restart_brings_nothing_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tell_each(monkeypatch, lambda name, ts: 1e-3 if (ts // HOUR.ns + ord(name[0])) % 5 else -1e-3)
    fills: dict[str, OrderFilled] = {}
    handled = LSTMPortfolioStrategy.handle_event

    def handle(strategy: LSTMPortfolioStrategy, event: Any) -> None:
        handled(strategy, event)
        if isinstance(event, OrderFilled):
            fills[event.instrument_id.value] = event

    def tell_again(strategy: LSTMPortfolioStrategy) -> None:
        results = {name: seat._flows.value for name, seat in strategy.seats.items()}
        assert len(fills) == len(NAMES)
        assert all(results.values())
        reborn(strategy)
        for name, fill in fills.items():
            strategy.seats[name].on_event(fill, running=False)
        assert {name: seat._flows.value for name, seat in strategy.seats.items()} == results
        compared.append(results)

    compared: list[dict[str, float | None]] = []
    monkeypatch.setattr(LSTMPortfolioStrategy, "handle_event", handle)
    trade(tmp_path, monkeypatch, 12, {10: tell_again})
    assert len(compared) == 1


def test_what_is_kept_of_a_seat_before_this_version_is_read() -> None:
    risk = RiskState.start(HOUR.ns, 1.0).encode()
    old = msgspec.msgpack.encode([b"forecaster", risk, None, 2.5])
    assert msgspec.msgpack.decode(old, type=SeatState) == SeatState(b"forecaster", risk, None, 2.5, 0)
