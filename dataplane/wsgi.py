"""WSGI: every request is its tenant's, or is answered here.

    app.wsgi_app = TenantMiddleware(app.wsgi_app, resolver, pools)

What clients may not say is taken off first: `X-Tenant-*` headers never reach the application. The
tenant stays bound until the server has closed the response, so streamed ones keep it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from dataplane.context import Bound, Pools, bind, release
from dataplane.errors import DataPlaneError, Moved
from dataplane.hosts import raw_host
from dataplane.pages import answer
from dataplane.redirects import location
from dataplane.resolver import Resolver

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_FORBIDDEN = "HTTP_X_TENANT_"
_KEPT_IN_PATHS = "/:@!$&'()*+,;=~"


class TenantMiddleware:
    """`trusted_proxies`: how many proxies of one's own stand in front and set X-Forwarded-Host (0:
    the Host header counts). `exempt`: paths answered without a tenant, e.g. a health check.

    The application finds the tenant by `current_tenant()` and in `environ["dataplane.tenant"]`. A
    DataPlaneError that it lets through becomes its page, too.
    """

    def __init__(
        self,
        app: WSGIApplication,
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

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if _FORBIDDEN in "\0".join(environ):  # a quarter of the cost of looking at each name
            for name in [name for name in environ if name.startswith(_FORBIDDEN)]:
                del environ[name]
        if environ.get("PATH_INFO") in self._exempt:
            bound = None
        else:
            try:
                host = self._host(environ)
                config = self._resolver.resolve(host)
            except Moved as moved:
                return _respond(moved, environ, start_response, _location(moved.to, host, environ))
            except DataPlaneError as error:
                return _respond(error, environ, start_response)
            environ["dataplane.tenant"] = config
            bound = Bound(config, self._pools)
        bind(bound)
        try:
            return _Response(self._app(environ, start_response), bound)
        except DataPlaneError as error:
            release(bound)
            return _respond(error, environ, start_response)
        except BaseException:
            release(bound)
            raise

    def _host(self, environ: WSGIEnvironment) -> str:
        host: str | None = environ.get("HTTP_HOST")
        if host is not None and not self._trusted_proxies and host.isascii():
            return host
        forwarded = environ.get("HTTP_X_FORWARDED_HOST")
        return raw_host(host, forwarded, trusted_proxies=self._trusted_proxies)


class _Response:
    """The application's response; the tenant is let go when the server closes it."""

    __slots__ = ("_bound", "_chunks")

    def __init__(self, chunks: Iterable[bytes], bound: Bound | None) -> None:
        self._chunks = chunks
        self._bound = bound

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._chunks)

    def close(self) -> None:
        close: Any = getattr(self._chunks, "close", None)
        try:
            if close is not None:
                close()
        finally:
            release(self._bound)


def _location(to: str, host: str, environ: WSGIEnvironment) -> str:
    """The target as it was sent where the server says it (Gunicorn, uWSGI, …): PATH_INFO has lost how its
    characters were escaped."""
    sent = environ.get("RAW_URI") or environ.get("REQUEST_URI") or ""
    if not sent.startswith("/"):
        sent = quote(environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", ""), _KEPT_IN_PATHS, "latin-1")
        if environ.get("QUERY_STRING"):
            sent += f"?{environ['QUERY_STRING']}"
    return location(
        to,
        scheme=environ["wsgi.url_scheme"],
        raw_host=host,
        target=sent,
        forwarded_proto=environ.get("HTTP_X_FORWARDED_PROTO"),
    )


def _respond(
    error: DataPlaneError,
    environ: WSGIEnvironment,
    start_response: StartResponse,
    location: str | None = None,
) -> Iterable[bytes]:
    status, headers, body = answer(error, environ.get("HTTP_ACCEPT"), location=location)
    start_response(f"{status} {HTTPStatus(status).phrase}", headers)
    return [] if environ.get("REQUEST_METHOD") == "HEAD" else [body]
