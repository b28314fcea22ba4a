"""What ``[live.alerts]`` of an experiment says: whom to tell, by the names of environment variables, and how often."""

from __future__ import annotations

import re
from typing import Literal

import msgspec

from lstm_strategy.errors import LSTMStrategyError

__all__ = ["ALERTED", "AlertsConfig"]

type Alerted = Literal["start", "stop", "halt", "resumed", "fill", "refusal", "trouble", "swap"]
ALERTED: tuple[Alerted, ...] = ("start", "stop", "halt", "resumed", "fill", "refusal", "trouble", "swap")
"""What may be told; "trouble" is a silent or lost connection, lost parity, and the like."""

_VARIABLES = ("telegram_token", "telegram_chat", "slack", "discord", "webhook")


class AlertsConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whom a node tells what; nobody where no variable is named.

    Parameters
    ----------
    telegram_token, telegram_chat, slack, discord, webhook : str, optional
        Names of environment variables. They hold a bot's token and a chat's identifier, and the webhooks' URLs, all of
        which are secrets: no file has them, and no log gets them. ``webhook`` gets plain JSON.
    telegram_api : str
        Another server of Telegram's Bot API, such as one's own.
    events : tuple of str
        Some of `ALERTED`.
    per_minute : int
        Alerts a minute to each of them, on average; others are held back, and counted in the next one. Fills, swaps,
        troubles and refusals share half of them; a halt and a stop are never held back.
    timeout : float
        Seconds for one request.
    """

    telegram_token: str | None = None
    telegram_chat: str | None = None
    slack: str | None = None
    discord: str | None = None
    webhook: str | None = None
    telegram_api: str = "https://api.telegram.org"
    events: tuple[Alerted, ...] = ("start", "stop", "halt", "resumed", "fill", "trouble", "swap")
    per_minute: int = 20
    timeout: float = 10.0

    def __post_init__(self) -> None:
        for name in _VARIABLES:
            value = getattr(self, name)
            if value is not None and not re.fullmatch(r"[A-Z_][A-Z0-9_]{0,99}", value):
                # What stands there may be the secret itself: it is not repeated.
                raise LSTMStrategyError(
                    f"live.alerts.{name} is not the name of an environment variable; write one such as"
                    f" {name.upper()}, and put the secret there"
                )
        if (self.telegram_token is None) != (self.telegram_chat is None):
            raise LSTMStrategyError("live.alerts has one of telegram_token and telegram_chat; Telegram needs both")
        if not self.telegram_api.startswith(("https://", "http://127.0.0.1:", "http://localhost:")):
            raise LSTMStrategyError("live.alerts.telegram_api must begin with https://, or be on this machine")
        if not 1 <= self.per_minute <= 600:
            raise LSTMStrategyError(f"live.alerts.per_minute is {self.per_minute}; it must be 1 to 600")
        if not 0.1 <= self.timeout <= 60.0:
            raise LSTMStrategyError(f"live.alerts.timeout is {self.timeout}; it must be 0.1 to 60")
