"""What a restart must know of one instrument of several: encoded anew only where something of it has changed."""

from __future__ import annotations

from typing import Any

import msgspec

from lstm_strategy.decision import RiskState
from lstm_strategy.errors import StateError
from lstm_strategy.nautilus.feed import Feed
from lstm_strategy.nautilus.flows import Flows
from lstm_strategy.nautilus.session import Session
from lstm_strategy.state_file import SeatState

__all__ = ["SeatMemory"]


class SeatMemory:
    """Takes a seat's parts to bytes, and back; the limits' memory is the seat's own, and given each time."""

    def __init__(self, name: str, session: Session, feed: Feed, flows: Flows) -> None:
        self._name, self._session, self._feed, self._flows = name, session, feed, flows
        self._encoded: tuple[Any, bytes] = None, b""

    def light(self, risk: RiskState | None) -> tuple[Any, ...]:
        """Return what an event may change."""
        desk = self._session.desk
        return risk, self._flows.value, desk.exits_state(), desk.uncounted

    def encode(self, risk: RiskState | None) -> bytes:
        """Return all of it; an event of one name changes nothing of the others'."""
        forecaster, parity = self._session.model.forecaster, self._feed.monitor.parity
        mended = 0 if parity is None else parity.mended
        light = self.light(risk)
        key = light, id(forecaster), forecaster.last_ts, mended
        if key == self._encoded[0]:
            return self._encoded[1]
        _, flows, exits, uncounted = light
        content = msgspec.msgpack.encode(
            SeatState(
                None if forecaster.last_ts is None else forecaster.state(),
                None if risk is None else risk.encode(),
                exits,
                flows,
                uncounted,
                self._flows.left,
            )
        )
        self._encoded = key, content
        return content

    def restore(self, content: bytes) -> tuple[RiskState | None, bytes | None]:
        """Take back what `encode` gave; return the limits' memory and the forecaster's part.

        Raises
        ------
        LSTMStrategyError
            Where it is damaged: going on without it might forget a halt.
        """
        try:
            kept = msgspec.msgpack.decode(content, type=SeatState)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise StateError(
                f"the saved state of {self._name} is damaged ({error}); a halt may be lost: look at the account, then"
                " remove it"
            ) from None
        risk, desk = None if kept.risk is None else RiskState.decode(kept.risk), self._session.desk
        self._flows.restore(kept.flows, kept.left)
        desk.count_as_sent(kept.uncounted)
        if kept.exits is not None:
            desk.restore_exits(kept.exits)
        return risk, kept.forecaster
