"""How to reach one exchange; apart, since CCXT itself is slow to import."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

import msgspec

from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.sources.ccxt_markets import MarketKind

__all__ = ["ClientConfig", "DownloadError"]

_PORTS = {"http": 80, "https": 443}


class DownloadError(LSTMStrategyError):
    """What an exchange would not give, and why, in one line."""


class ClientConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to reach one exchange.

    ``exchange`` is CCXT's name. ``base_url`` takes the place of scheme and host in all its addresses. ``retries``: in a
    row, before giving up; the first waits for about ``backoff_s``, each further one twice as long. Without ``seed``
    the waits differ from run to run.
    """

    exchange: str
    market: MarketKind = "spot"
    base_url: str | None = None
    proxy: str | None = None
    retries: int = 8
    backoff_s: float = 0.5
    timeout_s: float = 20.0
    seed: int | None = None

    def __post_init__(self) -> None:
        for name in ("base_url", "proxy"):
            value = getattr(self, name)
            if value is not None:
                parts = urlsplit(value)
                option = f"--{name.replace('_', '-')}"
                if parts.scheme not in ("http", "https") or not parts.hostname:
                    raise LSTMStrategyError(f"{option} is not an http:// or https:// address with a host")
                if name == "base_url" and (parts.username or parts.query or parts.fragment):
                    raise LSTMStrategyError(f"{option} must be scheme, host, port and path alone")
        if self.retries < 0 or not self.backoff_s >= 0 or not self.timeout_s > 0:
            raise LSTMStrategyError("retries and backoff must not be negative, and the timeout above 0")

    @property
    def local(self) -> bool:
        """Whether the exchange is on this machine, where no limit of requests need be kept."""
        return self.origin == "local"

    @property
    def origin(self) -> str | None:
        """Whose bars these are: None for the venue's own, else its ``base_url``'s scheme, host and port.

        All of this machine are one, ``local``: a replay that is started again has another port.
        """
        if self.base_url is None:
            return None
        parts = urlsplit(self.base_url)
        host = str(parts.hostname)
        try:
            local = ipaddress.ip_address(host).is_loopback
        except ValueError:
            local = host == "localhost" or host.endswith(".localhost")
        if local:
            return "local"
        host = f"[{host}]" if ":" in host else host
        return f"{parts.scheme}://{host}:{parts.port or _PORTS[parts.scheme]}"
