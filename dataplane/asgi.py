"""ASGI: every request and websocket is its tenant's, or is answered here.

    app = TenantMiddleware(app, resolver, async_pools)

A host in memory costs no `await`; one that must be looked up is read in a thread, once for however
many requests want it. `X-Tenant-*` headers of clients never reach the application.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any
from urllib.parse import quote

from dataplane.context import Bound, Pools, bind, release
from dataplane.errors import BadHost, DataPlaneError, Moved
from dataplane.hosts import raw_host
from dataplane.pages import answer
from dataplane.redirects import location
from dataplane.resolver import Resolver

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

_FORBIDDEN = b"x-tenant-"


class TenantMiddleware:
    """`trusted_proxies`, `exempt`: as for WSGI. The application finds the tenant by `current_tenant()` and
    in `scope["state"]["tenant"]`, which Starlette and FastAPI show as `request.state.tenant`.

    A DataPlaneError that the application lets through before it has begun to answer becomes its page.
    """

    def __init__(
        self,
        app: Application,
        resolver: Resolver,
        pools: Pools | None = None,
        *,
        trusted_proxies: int = 0,
        exempt: Collection[str] = ("/healthz",),
    ) -> None:
        self._app = app
        self._resolver = resolver
        self._pools = pools
        self._trusted_proxies = trusted_proxies
        self._exempt = frozenset(exempt)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = scope["headers"]
        kept = [pair for pair in headers if not pair[0].startswith(_FORBIDDEN)]
        if len(kept) != len(headers):
            scope = {**scope, "headers": kept}
        bound = None
        if scope["path"] not in self._exempt:
            try:
                host = self._host(kept)
                config = await self._resolver.resolve_async(host)
            except Moved as moved:
                await _respond(moved, scope, receive, send, _location(moved.to, host, scope))
                return
            except DataPlaneError as error:
                await _respond(error, scope, receive, send)
                return
            bound = Bound(config, self._pools)
            scope = {**scope, "state": {**scope.get("state", {}), "tenant": config}}
        begun = False

        async def watched_send(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        bind(bound)
        try:
            await self._app(scope, receive, watched_send)
        except DataPlaneError as error:
            if begun:
                raise
            await _respond(error, scope, receive, send)
        finally:
            release(bound)

    def _host(self, headers: list[tuple[bytes, bytes]]) -> str:
        hosts = [value for name, value in headers if name == b"host"]
        if len(hosts) > 1:
            raise BadHost("duplicate", "expected one Host header, got several")
        host = hosts[0].decode("latin-1") if hosts else None
        forwarded = None
        if self._trusted_proxies:
            values = [value for name, value in headers if name == b"x-forwarded-host"]
            forwarded = b",".join(values).decode("latin-1")
        return raw_host(host, forwarded, trusted_proxies=self._trusted_proxies)


def _location(to: str, host: str, scope: Scope) -> str:
    """`raw_path`, which a server may leave out, has the path as it was sent."""
    path = (scope.get("raw_path") or quote(scope["path"]).encode()).decode("latin-1")
    query = scope.get("query_string", b"").decode("latin-1")
    return location(
        to,
        scheme=scope.get("scheme") or ("http" if scope["type"] == "http" else "ws"),
        raw_host=host,
        target=f"{path}?{query}" if query else path,
        forwarded_proto=_header(scope, b"x-forwarded-proto"),
    )


def _header(scope: Scope, wanted: bytes) -> str:
    return next((value for name, value in scope["headers"] if name == wanted), b"").decode("latin-1")


async def _respond(
    error: DataPlaneError, scope: Scope, receive: Receive, send: Send, location: str | None = None
) -> None:
    status, headers, body = answer(error, _header(scope, b"accept"), location=location)
    raw = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]
    if scope["type"] == "http":
        body = b"" if scope["method"] == "HEAD" else body
        await send({"type": "http.response.start", "status": status, "headers": raw})
        await send({"type": "http.response.body", "body": body})
    elif "websocket.http.response" in scope.get("extensions", {}):
        await receive()  # the server's "websocket.connect"
        await send({"type": "websocket.http.response.start", "status": status, "headers": raw})
        await send({"type": "websocket.http.response.body", "body": body})
    else:
        await receive()
        await send({"type": "websocket.close", "code": 1008, "reason": error.code})
