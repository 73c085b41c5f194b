"""The WSGI middleware by itself: what it takes off, what it binds, and until when."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Iterator
from html import escape
from typing import Any

import pytest
from werkzeug.test import Client, EnvironBuilder, run_wsgi_app

from dataplane.context import bound_tenant, current_tenant, tenant_connection, use_tenant
from dataplane.errors import DatabaseWaking, DataPlaneError, NoTenant
from dataplane.pages import answer, wants_json
from dataplane.resolver import Resolver
from dataplane.tenant_config import Status
from dataplane.wsgi import TenantMiddleware
from tests.dataplane.tiers import FakeTier, config

HOSTS = ("acme.example", "globex.example")


@pytest.fixture
def tier() -> FakeTier:
    return FakeTier(*(config(host) for host in HOSTS))


@pytest.fixture
def resolver(tier: FakeTier) -> Resolver:
    return Resolver(cache=tier)


def slug_app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "application/json")])
    tenant = bound_tenant()
    seen = {
        "slug": tenant and tenant.slug,
        "environ": environ.get("dataplane.tenant") is tenant,
        "forbidden": [name for name in environ if name.startswith("HTTP_X_TENANT")],
    }
    return [json.dumps(seen).encode()]


def test_the_tenant_is_the_hosts_and_no_header_says_otherwise(resolver: Resolver) -> None:
    client = Client(TenantMiddleware(slug_app, resolver))
    for host in HOSTS:
        headers = {
            "Host": f"{host}:8000",
            "X-Tenant-Id": "t-evil",
            "x-tenant-slug": "evil",
            "X-Forwarded-Host": "evil.example",
        }
        seen = client.get("/", headers=headers, buffered=True).get_json()
        assert seen == {"slug": host.partition(".")[0], "environ": True, "forbidden": []}
    assert bound_tenant() is None


def test_a_forwarded_host_counts_behind_ones_own_proxies_only(resolver: Resolver) -> None:
    client = Client(TenantMiddleware(slug_app, resolver, trusted_proxies=1))
    headers = {"Host": "internal", "X-Forwarded-Host": "globex.example, acme.example"}
    assert client.get("/", headers=headers, buffered=True).get_json()["slug"] == "acme"


def test_exempt_paths_have_no_tenant(resolver: Resolver) -> None:
    client = Client(TenantMiddleware(slug_app, resolver, exempt=("/up",)))
    assert client.get("/up", headers={"Host": "acme.example"}).get_json()["slug"] is None
    assert client.get("/healthz", headers={"Host": "nobody.example"}).status_code == 404


def test_the_tenant_stays_until_the_response_is_closed(resolver: Resolver) -> None:
    closed: list[str] = []

    class Stream:
        def __iter__(self) -> Iterator[bytes]:
            for _ in range(3):
                yield current_tenant().slug.encode()

        def close(self) -> None:
            closed.append(current_tenant().slug)

    def stream(_: Any, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [])
        return Stream()

    middleware = TenantMiddleware(stream, resolver)
    chunks: Any = middleware(EnvironBuilder(headers={"Host": "acme.example"}).get_environ(), lambda *_: None)
    assert b"".join(chunks) == b"acme" * 3
    chunks.close()
    assert closed == ["acme"]
    assert bound_tenant() is None


def test_a_response_that_is_closed_late_takes_no_tenant_from_others(resolver: Resolver) -> None:
    middleware: Any = TenantMiddleware(slug_app, resolver)

    def begin(host: str) -> Any:
        return middleware(EnvironBuilder(headers={"Host": host}).get_environ(), lambda *_: None)

    first, second = begin("acme.example"), begin("globex.example")
    first.close()
    assert current_tenant().slug == "globex"
    second.close()
    assert bound_tenant() is None, "and not the one before"


def test_an_application_that_raises_leaves_no_tenant_behind(resolver: Resolver) -> None:
    def broken(*_: Any) -> Iterable[bytes]:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Client(TenantMiddleware(broken, resolver)).get("/", headers={"Host": "acme.example"})
    assert bound_tenant() is None


def test_an_error_of_ours_becomes_its_page(resolver: Resolver) -> None:
    def waking(*_: Any) -> Iterable[bytes]:
        raise DatabaseWaking(retry_after=4.2)

    client = Client(TenantMiddleware(waking, resolver))
    page = client.get("/", headers={"Host": "acme.example"})
    assert (page.status_code, page.headers["Retry-After"]) == (503, "5")
    assert '<meta http-equiv="refresh" content="5">' in page.text
    program = client.get("/", headers={"Host": "acme.example", "Accept": "application/json"})
    assert program.get_json() == {"error": "waking", "message": DatabaseWaking.explanation, "retry_after": 5}
    assert client.head("/", headers={"Host": "acme.example"}).data == b""
    assert bound_tenant() is None


def test_threads_have_tenants_of_their_own(resolver: Resolver) -> None:
    client_of = {host: Client(TenantMiddleware(slug_app, resolver)) for host in HOSTS}
    wrong: list[str] = []
    start = threading.Barrier(8)

    def work(host: str) -> None:
        start.wait()
        for _ in range(300):
            slug = client_of[host].get("/", headers={"Host": host}, buffered=True).get_json()["slug"]
            if slug != host.partition(".")[0]:
                wrong.append(slug)

    threads = [threading.Thread(target=work, args=(host,)) for host in HOSTS * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong


@pytest.mark.parametrize("kind", DataPlaneError.__subclasses__())
def test_pages_say_what_is_the_matter_and_nothing_else(kind: type[DataPlaneError]) -> None:
    for error_type in (kind, *kind.__subclasses__()):
        error = (
            error_type("length", "secret detail")
            if error_type.code == "bad-host"
            else error_type("secret detail")
        )
        status, headers, body = answer(error)
        assert status == error.status
        assert escape(error.explanation).encode() in body
        assert b"secret detail" not in body
        assert dict(headers)["Content-Length"] == str(len(body))


def test_accept_decides_between_page_and_json() -> None:
    assert wants_json("application/json")
    assert wants_json("application/problem+json, text/html")
    assert not wants_json("text/html,application/json;q=0.9")
    assert not wants_json("*/*")
    assert not wants_json(None)


def test_suspended_has_a_page_of_its_own(resolver: Resolver, tier: FakeTier) -> None:
    tier.put(config("late.example", status=Status.SUSPENDED))
    page = Client(TenantMiddleware(slug_app, resolver)).get("/", headers={"Host": "late.example"})
    assert page.status_code == 403
    assert "This account is suspended." in page.text


def test_without_a_tenant_or_pools_there_is_no_connection() -> None:
    with pytest.raises(NoTenant), tenant_connection():
        pass
    with (
        use_tenant(config("acme.example")),
        pytest.raises(NoTenant, match="without pools"),
        tenant_connection(),
    ):
        pass


def test_a_real_server_gets_bytes(resolver: Resolver) -> None:
    """The protocol as wsgiref's validator knows it."""
    from wsgiref.validate import validator

    app: Any = validator(TenantMiddleware(validator(slug_app), resolver))  # type: ignore[arg-type]
    for host, status in (("acme.example", "200 OK"), ("nobody.example", "404 NOT FOUND")):
        environ = EnvironBuilder(headers={"Host": host}).get_environ()
        chunks, answered, _ = run_wsgi_app(app, environ, buffered=True)
        assert answered.upper() == status
        assert b"".join(chunks)
