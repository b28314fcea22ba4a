"""RefusedError: a request that Binance answers with a code and a message, and the messages of the codes in use."""

from __future__ import annotations

__all__ = ["MESSAGES", "RefusedError"]

# Binance's own words: clients compare some of them (the NautilusTrader adapter does).
MESSAGES = {
    -1003: "Too much request weight used; current limit is 6000 request weight per 1 MINUTE.",
    -1007: "Timeout waiting for response from backend server. Send status unknown; execution status unknown.",
    -1013: "Filter failure: LOT_SIZE",
    -1015: "Too many new orders; current limit is 100 orders per 10 SECOND.",
    -1021: "Timestamp for this request is outside of the recvWindow.",
    -1022: "Signature for this request is not valid.",
    -1116: "Invalid orderType.",
    -1121: "Invalid symbol.",
    -1127: "More than 24 hours between startTime and endTime.",
    -2010: "Account has insufficient balance for requested action.",
    -2011: "Unknown order sent.",
    -2013: "Order does not exist.",
    -2014: "API-key format invalid.",
    -2015: "Invalid API-key, IP, or permissions for action.",
    -4056: "HMAC_SHA256 API key is not supported.",
}


class RefusedError(Exception):
    """What a client is answered with: ``code``, the message as text, the HTTP ``status``, and Retry-After in s."""

    def __init__(self, code: int, message: str = "", *, status: int = 400, retry_after: int | None = None) -> None:
        super().__init__(message or MESSAGES[code])
        self.code = code
        self.status = status
        self.retry_after = retry_after
