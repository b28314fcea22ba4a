"""FaultPlan: what shall go wrong, when and how often, and the book that draws the faults and counts them."""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from lstm_strategy.bars import parse_ns
from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.toml_file import read_toml

__all__ = [
    "ANSWER_KINDS",
    "NO_FAULTS",
    "ORDER_KINDS",
    "PAGE_KINDS",
    "REQUEST_KINDS",
    "STREAM_KINDS",
    "USER_KINDS",
    "Fault",
    "FaultBook",
    "FaultPlan",
    "Hit",
    "load_faults",
]

type Place = Literal["rest", "stream", "orders", "user"]
type Kind = Literal[
    "answer_failed",
    "answer_late",
    "answer_lost",
    "clock_skew",
    "content_type",
    "cut",
    "delay",
    "drop",
    "duplicate",
    "future",
    "huge_price",
    "huge_reply",
    "maintenance",
    "malformed",
    "misprint",
    "nan",
    "negative_volume",
    "overlap",
    "partial",
    "redirect",
    "reject",
    "reorder",
    "revise",
    "short_page",
    "since_ignored",
    "skip",
    "status",
    "truncated",
    "twice",
    "unfinished",
    "wrong_unit",
]

_ROWS = {"duplicate", "reorder", "skip", "revise", "unfinished", "nan", "huge_price", "negative_volume", "future"}
REQUEST_KINDS = frozenset(
    ("drop", "cut", "delay", "status", "redirect", "huge_reply", "content_type", "truncated", "malformed")
) | {"maintenance", "clock_skew"}
ANSWER_KINDS = frozenset(("answer_lost", "answer_late", "answer_failed", "twice"))
REQUEST_KINDS |= ANSWER_KINDS
ORDER_KINDS = frozenset(("reject", "partial"))
USER_KINDS = frozenset(("drop", "skip", "duplicate", "reorder", "delay"))
PAGE_KINDS = frozenset(_ROWS | {"wrong_unit", "short_page", "overlap", "since_ignored"})
STREAM_KINDS = frozenset(_ROWS | {"wrong_unit", "drop", "delay", "truncated", "malformed", "maintenance", "clock_skew"})
STREAM_KINDS |= {"misprint"}

_KINDS_ON: dict[Place, frozenset[str]] = {
    "rest": REQUEST_KINDS | PAGE_KINDS,
    "stream": STREAM_KINDS,
    "orders": ORDER_KINDS,
    "user": USER_KINDS,
}
_KEPT = 1_000  # of the last injected ones, for reading


class Fault(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One thing that goes wrong.

    When: exactly one of ``nth`` (the nth occasion, 1 is the first; with ``every`` again every so many), ``probability``
    (at each occasion, by the seed) and ``at`` (ISO date in the stamps that are served: the first occasion at or after
    that bar close). ``times``: how often at most, on successive occasions; 0 is without end, which is also what
    ``every`` and ``probability`` do unless told; else once.

    An occasion is a closed candle of a subscribed stream (``on = "stream"``), or a request (``on = "rest"``) that the
    fault can spoil and whose method and path, such as ``POST /api/v3/order``, hold ``path`` and whose symbol is
    ``symbol`` ("" is any; but requests that open a socket are spoilt only where ``path`` names them, such as
    ``/stream``). On ``orders`` it is an order that passed the checks of its request (``path`` is looked for in its side
    and type: ``BUY MARKET``), on ``user`` an event of the user-data stream (``executionReport TRADE``).

    Kinds of both: ``drop`` (the connection is cut without a word), ``delay`` (by ``seconds``), ``duplicate``,
    ``reorder`` (two neighbours change places), ``skip`` (not sent; a page lacks ``rows``), ``revise`` (the newest
    closed candle with its close moved by the fraction ``amount``, then the right one), ``unfinished`` (the newest
    closed candle with half its path, marked closed, then the right one), ``truncated``, ``malformed`` (not JSON),
    ``maintenance`` (requests answer 503, sockets are closed; on ``rest`` for ``seconds`` of the wall, on ``stream``
    for ``rows`` closes), ``clock_skew`` (the venue's clock is off by ``seconds``), and hostile ones in ``rows`` rows:
    ``nan``, ``huge_price`` (1e308), ``negative_volume``, ``future`` (ten years), ``wrong_unit`` (seconds for
    milliseconds, and the reverse).

    Kind of ``stream`` alone: ``misprint`` (the closed candle with its close moved by the fraction ``amount``, and never
    the right one: history alone has it).

    Kinds of ``rest`` alone: ``status`` (``status`` with Retry-After ``retry_after`` where named), ``redirect`` (without
    end), ``huge_reply`` (``size`` bytes), ``content_type`` (text/html), ``cut`` (half the body, then the connection
    ends), ``short_page`` (``rows`` fewer), ``overlap`` (``rows`` from before the page), ``since_ignored`` (the newest
    page instead), and those that carry the request out and spoil only the answer: ``answer_lost`` (the connection is
    cut), ``answer_late`` (told after ``seconds``), ``answer_failed`` (answered with ``status`` and Binance's -1007:
    state unknown), ``twice`` (carried out again, and the second answer told).

    Kinds of ``orders``: ``reject`` (refused with Binance's ``code``), ``partial`` (only the fraction ``amount`` is
    offered at once). Kinds of ``user``: ``drop`` (all user-data streams are cut, and the event is lost), ``skip``,
    ``duplicate``, ``reorder`` (told after the next one), ``delay`` (told after ``seconds``).
    """

    kind: Kind
    on: Place = "rest"
    nth: int | None = None
    every: int | None = None
    probability: float | None = None
    at: str | None = None
    times: int | None = None
    path: str = ""
    symbol: str = ""
    seconds: float = 1.0
    rows: int = 1
    amount: float = 0.01
    status: int = 503
    retry_after: int | None = None
    size: int = 1 << 30
    code: int = -2010

    def __post_init__(self) -> None:
        known = _KINDS_ON[self.on]
        for name, allowed, what in (
            ("kind", self.kind in known, f"one that happens on {self.on}: {', '.join(sorted(known))}"),
            ("nth", self.nth is None or self.nth >= 1, "1 or more"),
            ("every", self.every is None or (self.every >= 1 and self.nth is not None), "1 or more, beside nth"),
            ("probability", self.probability is None or 0.0 <= self.probability <= 1.0, "between 0 and 1"),
            ("times", self.times is None or self.times >= 0, "0 (without end) or more"),
            ("seconds", -1e9 <= self.seconds <= 1e9, "within 1e9"),
            ("rows", self.rows >= 1, "1 or more"),
            ("amount", -1.0 < self.amount < 10.0, "above -1 and below 10"),
            ("amount", self.kind != "partial" or 0.0 <= self.amount < 1.0, "at least 0 and below 1"),
            ("code", -99_999 <= self.code < 0, "one of Binance's, below 0"),
            ("status", 400 <= self.status <= 599, "400 to 599"),
            ("retry_after", self.retry_after is None or self.retry_after >= 0, "0 or more"),
            ("size", 0 < self.size <= 1 << 40, "up to 2 to the power of 40"),
        ):
            if not allowed:
                raise LSTMStrategyError(f"fault {self.kind}: {name} is {getattr(self, name)}; it must be {what}")
        if sum(when is not None for when in (self.nth, self.probability, self.at)) != 1:
            raise LSTMStrategyError(f"fault {self.kind}: say when by exactly one of nth, probability and at")
        if self.at is not None:
            parse_ns(self.at)


class FaultPlan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Faults in order; of several that would hit one request or stream event, the first does."""

    faults: tuple[Fault, ...] = ()


NO_FAULTS = FaultPlan()


def load_faults(path: Path) -> FaultPlan:
    """Read a fault script: TOML with one ``[[faults]]`` table for each fault; an unknown key is an error.

    Raises
    ------
    LSTMStrategyError
        One line naming the file and the key.
    """
    return read_toml(path, FaultPlan)


class Hit(NamedTuple):
    """A fault that was injected: where, and the close of the last candle concerned (ns UTC)."""

    kind: str
    on: Place
    where: str  # path or symbol
    ts_close: int

    def __str__(self) -> str:
        return f"{self.kind} on {self.on} {self.where}"


class FaultBook:
    """Draws the faults of a plan, each from its own seeded source, and counts what was injected.

    Attributes
    ----------
    injected : Counter[str]
        How often, by kind.
    last : deque[Hit]
        The last ones.
    """

    def __init__(self, plan: FaultPlan, seed: int) -> None:
        self.injected: Counter[str] = Counter()
        self.last: deque[Hit] = deque(maxlen=_KEPT)
        self._seed = seed
        self._entries: list[_Entry] = []
        for fault in plan.faults:
            self.add(fault)

    def add(self, fault: Fault) -> None:
        """Take a fault in; its occasions count from now on."""
        self._entries.append(_Entry(fault, random.Random(f"{self._seed} {len(self._entries)}")))

    def draw(
        self,
        on: Place,
        kinds: frozenset[str],
        *,
        first: int,
        last: int,
        path: str = "",
        symbol: str = "",
        named: bool = False,
    ) -> Iterator[tuple[Fault, random.Random]]:
        """Yield the faults that hit this occasion with their sources of chance; those not asked for stay undrawn.

        ``first`` and ``last`` are the closes of the candles concerned, ns UTC (the venue's time twice, where there is
        none). ``named``: only faults that name a path.
        """
        for entry in self._entries:
            fault = entry.fault
            fits = fault.on == on and fault.kind in kinds and fault.path in path and fault.symbol in ("", symbol)
            if fits and (fault.path or not named) and entry.hits(first, last):
                self.injected[fault.kind] += 1
                self.last.append(Hit(fault.kind, on, path or symbol, last))
                yield fault, entry.source


class _Entry:
    def __init__(self, fault: Fault, source: random.Random) -> None:
        self.fault = fault
        self.source = source
        self._at = None if fault.at is None else parse_ns(fault.at)
        endless = fault.probability is not None or fault.every is not None
        self._most = fault.times if fault.times is not None else (0 if endless else 1)
        self._seen = 0
        self._hit = 0

    def hits(self, first: int, last: int) -> bool:
        fault = self.fault
        self._seen += 1
        if self._most and self._hit >= self._most:
            return False
        if fault.probability is not None:
            due = self.source.random() < fault.probability
        elif self._at is not None:
            due = self._hit > 0 or first >= self._at or first <= self._at <= last
        else:
            late = self._seen - (fault.nth or 1)
            due = late >= 0 and late % (fault.every or 1) == 0
        self._hit += due
        return due
