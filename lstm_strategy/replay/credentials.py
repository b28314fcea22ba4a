"""Credentials: the one key of a replay, and whether a request was signed with it, lately."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import time

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from lstm_strategy.errors import LSTMStrategyError
from lstm_strategy.replay.refusals import RefusedError

__all__ = ["Credentials", "check_timestamp"]

_KEY = re.compile(r"[A-Za-z0-9_-]{8,128}")
_LONGEST_SECRET = 4_096  # characters
_PKCS8_ED25519 = bytes.fromhex("302e020100300506032b657004220420")
_AHEAD_MS, _LONGEST_WINDOW_MS = 1_000, 60_000


class Credentials:
    """A key and its secret: any text for HMAC-SHA256, or an Ed25519 private key (PKCS#8, as PEM or base64).

    Its text never shows either.

    Raises
    ------
    LSTMStrategyError
        Where the key has not 8 to 128 letters and digits, or the secret is empty or too long; without naming them.
    """

    def __init__(self, key: str, secret: str) -> None:
        if _KEY.fullmatch(key) is None:
            raise LSTMStrategyError("replay: the key must have 8 to 128 letters, digits, - and _")
        if not 8 <= len(secret) <= _LONGEST_SECRET:
            raise LSTMStrategyError(f"replay: the secret must have 8 to {_LONGEST_SECRET:,} characters")
        self._key = key
        self._secret = secret.encode()
        private = _ed25519(secret)
        self._public = None if private is None else private.public_key()

    def __repr__(self) -> str:
        return f"Credentials({'Ed25519' if self.ed25519 else 'HMAC-SHA256'})"

    @property
    def ed25519(self) -> bool:
        """Whether signatures are Ed25519's."""
        return self._public is not None

    def check_key(self, key: str) -> None:
        """Raise `RefusedError` unless this is the key."""
        if _KEY.fullmatch(key) is None:
            raise RefusedError(-2014, status=401)
        if not hmac.compare_digest(key, self._key):
            raise RefusedError(-2015, status=401)

    def check_signature(self, payload: str, signature: str) -> None:
        """Raise `RefusedError` unless ``payload`` was signed with the secret."""
        if self._public is None:
            right = hmac.new(self._secret, payload.encode(), hashlib.sha256).hexdigest()
            if not hmac.compare_digest(right, signature.lower()):
                raise RefusedError(-1022)
            return
        try:
            self._public.verify(base64.b64decode(signature, validate=True), payload.encode())
        except (InvalidSignature, binascii.Error, ValueError) as error:
            raise RefusedError(-1022) from error


def check_timestamp(stamp: str, window: str, venue_ms: int, skew_ms: int = 0) -> None:
    """Raise `RefusedError` unless a request was stamped within its window, by the wall's clock or by the venue's.

    A client stamps with its own clock, which is the wall's, or with the venue's, where it keeps in step with
    ``serverTime``: both are right here. ``skew_ms``: by which the wall's clock is wrong, for a fault.
    """
    if re.fullmatch(r"[0-9]{1,16}", stamp) is None:
        raise RefusedError(-1102, "Mandatory parameter 'timestamp' was not sent, was empty/null, or malformed.")
    if re.fullmatch(r"[0-9]{1,6}", window) is None or not 0 < int(window) <= _LONGEST_WINDOW_MS:
        raise RefusedError(-1131, "recvWindow must be less than 60000.")
    sent = int(stamp)
    for now in (time.time_ns() // 1_000_000 + skew_ms, venue_ms):
        if now - int(window) <= sent <= now + _AHEAD_MS:
            return
    raise RefusedError(-1021)


def _ed25519(secret: str) -> Ed25519PrivateKey | None:
    lines = [line.strip() for line in secret.splitlines() if not line.startswith("-----")]
    try:
        content = base64.b64decode("".join(lines), validate=True)
    except (binascii.Error, ValueError):
        return None
    if not content.startswith(_PKCS8_ED25519) or len(content) != len(_PKCS8_ED25519) + 32:
        return None
    return Ed25519PrivateKey.from_private_bytes(content[-32:])
