"""The guard before all else: web pages of other sites must neither read nor move a replay on the user's own machine."""

from __future__ import annotations

import ipaddress
import re

import msgspec
from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

__all__ = ["site_guard"]

_PLACE = r"(?:localhost|127(?:\.[0-9]{1,3}){3}|\[::1\])(?::[0-9]{1,5})?"
_LOOPBACK_HOST = re.compile(_PLACE, re.IGNORECASE)
_LOOPBACK_ORIGIN = re.compile(f"https?://{_PLACE}", re.IGNORECASE)


def site_guard(host: str) -> Middleware:
    """Return the middleware of a server that is bound to ``host``.

    A browser says in ``Origin`` whose page asks: any but a loopback one is refused. A name of another site that was
    made to point here (DNS rebinding) shows in ``Host``: bound to loopback, only loopback names and ``host`` itself
    pass. What moves the replay must come as JSON, which a browser sends across sites only after asking.
    """
    everywhere = _is_unspecified(host)

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        if not all(_LOOPBACK_ORIGIN.fullmatch(origin) for origin in request.headers.getall(hdrs.ORIGIN, ())):
            return _refusal(403, "web pages of other sites may not use the replay")
        if not everywhere and _arrived_by_loopback(request):
            names = request.headers.getall(hdrs.HOST, ())
            if len(names) != 1 or not (_LOOPBACK_HOST.fullmatch(names[0]) or _name_of(names[0]) == host.lower()):
                return _refusal(403, "Host must be 127.0.0.1, localhost or [::1]")
        if (
            request.method == hdrs.METH_POST
            and request.path.startswith("/replay/")
            and request.content_type != "application/json"
        ):
            return _refusal(415, "Content-Type must be application/json")
        return await handler(request)

    return guard


def _arrived_by_loopback(request: web.Request) -> bool:
    address = request.transport.get_extra_info("sockname") if request.transport is not None else None
    return address is None or ipaddress.ip_address(address[0].partition("%")[0]).is_loopback


def _is_unspecified(host: str) -> bool:
    try:
        return not host or ipaddress.ip_address(host).is_unspecified
    except ValueError:  # a name
        return False


def _name_of(host: str) -> str:
    return host.rpartition(":")[0].lower() if ":" in host else host.lower()


def _refusal(status: int, problem: str) -> web.Response:
    return web.Response(status=status, body=msgspec.json.encode({"error": problem}), content_type="application/json")
