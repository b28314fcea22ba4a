"""`kill -9` at random moments of a node that trades through Binance's own client: the next one knows all it must.

At a close that is being worked on, at rest, halted, and while it starts. Position, stops and orders are held against
the venue's books, the counters and halts against those before, the forecaster against one that never died.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
from proof_desk import Verdict
from replay_support import simulated
from test_replay_execution import Node, check_whole, close_a_bar, exchange, exposure, node_on, settled
from tiny_support import BTC, make_tiny
from trading_support import new_secret

from lstm_strategy.artefact import load
from lstm_strategy.forecaster import Forecaster
from lstm_strategy.halt_files import KILL, HaltFiles
from lstm_strategy.replay.server import ReplayServer

__all__ = ["prove"]

_HISTORY, _WAIT_S = 600, 60.0


def prove(folder: Path, *, long: bool) -> Verdict:
    """30 kills; 4 where not ``long``."""
    verdict = Verdict("kill")
    kills = 30 if long else 4
    proof = _Proof(make_tiny(folder / "models"), folder / "state", kills)
    try:
        asyncio.run(proof.work())
    except AssertionError as error:
        verdict.failures.append(f"after {sum(proof.died.values())} kills: {str(error)[:2000] or repr(error)}")
    verdict.figure("kills", sum(proof.died.values()))
    verdict.figure("of these, by moment", ", ".join(f"{name} {n}" for name, n in sorted(proof.died.items())))
    verdict.figure("bars closed", proof.closed)
    verdict.figure("orders at the venue", proof.orders)
    verdict.figure("restarts with the forecaster of one that never died", proof.same)
    verdict.figure("restarts with a stop known again", proof.stops)
    verdict.figure("halts kept over a kill, then lifted", proof.halts)
    verdict.require(sum(proof.died.values()) == kills, "too few kills")
    verdict.require(proof.stops and proof.halts, "no stop, or no halt, met a kill")
    return verdict


class _Proof:
    """One account through all the lives of its node."""

    def __init__(self, model: Path, state: Path, kills: int) -> None:
        self.kills, self.state = kills, state
        self.settings: dict[str, Any] = {"model": str(model), "state_dir": str(state), "now": 0}
        self.chance = random.Random(23)
        self.market = simulated(bars=_HISTORY + 12 * kills + 24)
        self.never_died = Forecaster(load(model), BTC)
        self.taken = 0
        self.halted_at: list[tuple[int, str]] = []
        self.died: Counter[str] = Counter()
        self.closed = self.orders = self.same = self.stops = self.halts = 0

    async def work(self) -> None:
        """Live, die, and live again."""
        secret = new_secret()
        async with exchange(secret, self.market, str(_HISTORY)) as server:
            before: dict[str, Any] | None = None
            halted = False
            for kill in range(self.kills + 1):
                self.settings["now"] = server.exchange.now()
                sent = self._sent(server)
                async with node_on(server, secret, "strategy_node.py", **self.settings) as node:
                    moment = self._moment(kill)
                    if moment == "while it starts":
                        await asyncio.sleep(self.chance.uniform(0.0, 0.3))
                        self.died[moment] += 1
                        continue
                    known = await self._collected(node)
                    self._check_start(server, known, before, sent)
                    if halted:
                        await self._lift(server, node)
                    before = await self._trade(server, node)
                    halted = moment == "halted"
                    if halted:
                        before = await self._halt(server, node)
                    elif moment == "at work":
                        await server.step()
                        self.closed += 1
                        await asyncio.sleep(self.chance.uniform(0.0, 0.05))
                    if kill < self.kills:
                        self.died[moment] += 1
                await asyncio.sleep(0.1)  # what had left the process has arrived
            self.orders = len(self._sent(server))

    def _moment(self, kill: int) -> str:
        """Every fifth dies halted, the first of them second; the others by chance, most of them at work."""
        if kill == self.kills:
            return "at rest"
        if kill % 5 == 1:
            return "halted"
        if kill == 0:
            return "at work"
        return self.chance.choices(("at work", "at rest", "while it starts"), (8, 2, 2))[0]

    async def _collected(self, node: Node) -> dict[str, Any]:
        while (await node.state())["collecting"]:
            await asyncio.sleep(0.02)
        return await settled(node, protected=False)

    def _check_start(
        self, server: ReplayServer, known: dict[str, Any], before: dict[str, Any] | None, sent: list[tuple[Any, ...]]
    ) -> None:
        """A start sends nothing, and knows what the one before knew, and what happened since."""
        assert self._sent(server) == sent, "a start has sent an order"
        sides = Counter((created, side) for created, side, kind, _ in sent if kind == "MARKET")
        sides.subtract(self.halted_at)  # a halt may sell what is left of what the close has sold from
        assert max(sides.values(), default=0) <= 1, f"an order was doubled: {sides.most_common(1)}"
        coins, stops = exposure(server)
        position = Decimal(known["position"])
        assert abs(position - coins) < Decimal("0.00001"), f"position {position}, at the venue {coins}"
        assert sorted(Decimal(quantity) for _, quantity in known["stops"]) == sorted(stops), "a stop is not known"
        self.stops += bool(stops)
        self._check_forecaster(known)
        if before is None:
            return
        self.same += 1
        new, old = known["risk"], before["risk"]
        assert known["ordered"] == before["ordered"], "a halt was forgotten"
        for name in ("ordered_halt", "drawdown_halt"):
            assert new[name] == old[name], f"{name} was {old[name]}"
        assert new["peak_equity"] >= old["peak_equity"]
        if new["day"] == old["day"]:
            assert new["day_start_equity"] == old["day_start_equity"]
            assert new["orders_day"] >= old["orders_day"], "orders of the day were forgotten"
            assert new["daily_halt"] >= old["daily_halt"]

    def _check_forecaster(self, known: dict[str, Any]) -> None:
        """Hold its whole state against that of a forecaster which has taken the same bars, one by one, in one life."""
        bars = self.market.bars
        if self.never_died.last_ts is None:
            self.taken = int(np.searchsorted(bars.ts_close, known["first_ts"]))
        until = int(np.searchsorted(bars.ts_close, known["last_ts"])) + 1
        for bar in bars[self.taken : until]:
            self.never_died.update(bar)
        self.taken = until
        digest = hashlib.sha256(self.never_died.state()).hexdigest()
        assert known["forecaster"] == digest, "the forecaster is not that of one that never died"

    async def _trade(self, server: ReplayServer, node: Node) -> dict[str, Any]:
        """Close some bars; all is whole after each."""
        for _ in range(1 + self.chance.randrange(3)):
            await close_a_bar(server, node)
            self.closed += 1
            known = await settled(node)
            check_whole(server, known)
            self._check_forecaster(known)
        return known

    async def _halt(self, server: ReplayServer, node: Node) -> dict[str, Any]:
        """Halt by the kill file, and wait until all is closed."""
        self.halted_at.append((server.exchange.now(), "SELL"))
        (self.state / KILL).write_text("a proof")
        return await self._until(node, lambda known: known["ordered"] and self._flat(server, known))

    async def _lift(self, server: ReplayServer, node: Node) -> None:
        """The halt holds over two bars without an order, until somebody lifts it."""
        sent = self._sent(server)
        for _ in range(2):
            await close_a_bar(server, node)
            self.closed += 1
            known = await settled(node, protected=False)
            assert known["risk"]["ordered_halt"], "the halt was lost"
        assert self._sent(server) == sent, "an order was sent while halted"
        HaltFiles(self.state).ask_to_resume("the proof goes on")
        await self._until(node, lambda known: not known["ordered"] and not known["risk"]["ordered_halt"])
        self.halts += 1

    async def _until(self, node: Node, holds: Any) -> dict[str, Any]:
        async with asyncio.timeout(_WAIT_S):
            while not holds(known := await node.state()):
                await asyncio.sleep(0.05)
        return known

    def _flat(self, server: ReplayServer, known: dict[str, Any]) -> bool:
        coins, stops = exposure(server)
        return coins < Decimal("0.001") and not stops and not known["in_flight"] and not known["working"]

    def _sent(self, server: ReplayServer) -> list[tuple[Any, ...]]:
        assert server.trading is not None
        orders = server.trading.books["BTCUSDT"].orders.values()
        return [(order.created, order.side, order.type, order.client_id) for order in orders]
