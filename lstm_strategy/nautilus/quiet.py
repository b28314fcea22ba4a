"""Waiting until a node's engines have nothing left to do, so that what comes next finds the last thing done."""

from __future__ import annotations

import asyncio
from typing import Any

__all__ = ["Quiet"]

# What is under way between two queues shows in one of them at every second turn of the loop.
_CALM_TURNS = 4
_MOST_TURNS = 10_000


class Quiet:
    """Knows the queues of a node's engines (`NautilusKernel`)."""

    def __init__(self, kernel: Any) -> None:
        data, risk, execution = kernel.data_engine, kernel.risk_engine, kernel.exec_engine
        self._sizes = (data.data_qsize, data.cmd_qsize, data.req_qsize, data.res_qsize)
        self._sizes += (risk.cmd_qsize, risk.evt_qsize, execution.cmd_qsize, execution.evt_qsize)

    @property
    def busy(self) -> bool:
        """Whether something is waiting in a queue."""
        return any(size() for size in self._sizes)

    async def settle(self) -> None:
        """Return when every queue has stayed empty for some turns of the loop; a flood is not waited out."""
        calm = turns = 0
        while calm < _CALM_TURNS and turns < _MOST_TURNS:
            await asyncio.sleep(0)
            calm, turns = 0 if self.busy else calm + 1, turns + 1
