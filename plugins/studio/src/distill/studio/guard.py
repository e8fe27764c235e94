"""Who may see the pages, and how much they may send."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from secrets import compare_digest
from typing import Any
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, RedirectResponse, Response

COOKIE = "distill-studio"
HEADERS = {
    # Whatever a page holds, the browser loads nothing for it from elsewhere.
    "content-security-policy": "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; object-src 'none'; "
    "base-uri 'self'; form-action 'self'; frame-ancestors 'self'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


@dataclass(frozen=True)
class Guard:
    """An ASGI application in front of another.

    Attributes:
        hosts: names under which it may be called, against sites whose name leads here; any if None.
        token: what a visitor has to know; nothing if empty.
        most: bytes that one request may hold.
    """

    app: Any
    hosts: frozenset[str] | None
    token: str = ""
    most: int = 2**20

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def sealed(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *((k.encode(), v.encode()) for k, v in HEADERS.items())]
            await send(message)

        refusal = self._refusal(HTTPConnection(scope)) if scope["type"] in ("http", "websocket") else None
        await (refusal or self.app)(scope, receive, sealed)

    def _refusal(self, asked: HTTPConnection) -> Response | None:
        host, origin = asked.headers.get("host", ""), asked.headers.get("origin")
        if self.hosts is not None and urlsplit(f"//{host}").hostname not in self.hosts:
            return PlainTextResponse("this studio answers to this machine only", 403)
        if origin is not None and urlsplit(origin).netloc != host:
            return PlainTextResponse("another site asks: refused", 403)
        return self._stranger(asked) or self._endless(asked.headers, asked.scope.get("method", "GET"))

    def _stranger(self, asked: HTTPConnection) -> Response | None:
        if not self.token or self._knows(asked.cookies.get(COOKIE, "")):
            return None
        if not self._knows(asked.query_params.get("token", "")):
            return PlainTextResponse("open the address that `distill studio` has printed: it holds the token", 401)
        known = RedirectResponse(asked.url.remove_query_params("token").path, 303)
        known.set_cookie(COOKIE, self.token, httponly=True, samesite="strict")
        return known

    def _knows(self, given: str) -> bool:
        return compare_digest(given.encode(), self.token.encode())

    def _endless(self, headers: Mapping[str, str], method: str) -> Response | None:
        """A body that is too large, or does not say how large it is."""
        length = headers.get("content-length", "" if "transfer-encoding" in headers else "0")
        if method in ("GET", "HEAD") or (length.isdecimal() and int(length) <= self.most):
            return None
        return PlainTextResponse(f"a request holds at most {self.most} bytes, and says how many", 413)
