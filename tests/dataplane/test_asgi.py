"""The ASGI middleware and the FastAPI example, on one event loop and real databases."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import httpx
import pytest

from dataplane.asgi import TenantMiddleware
from dataplane.context import bound_tenant, current_tenant, tenant_connection_async, use_tenant
from dataplane.errors import DatabaseWaking, NoTenant
from dataplane.resolver import Resolver
from dataplane.settings import DataPlane
from examples.notes_fastapi.app import create_app
from tests.dataplane.tenants import ZONE, TenantDatabase
from tests.dataplane.tiers import FakeTier, config


def call(app: Any, *requests: tuple[str, str, dict[str, Any]]) -> list[httpx.Response]:
    """(method, path, httpx arguments), one after the other."""

    async def run() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://base.example") as client:
            return [await client.request(method, path, **options) for method, path, options in requests]

    return asyncio.run(run())


def in_its_lifespan(app: Any, body: Callable[[httpx.AsyncClient], Awaitable[None]]) -> None:
    async def run() -> None:
        async with app.router.lifespan_context(app):
            transport = httpx.ASGITransport(app=app)
            async with httpx.AsyncClient(transport=transport, base_url="http://base.example") as client:
                await body(client)

    asyncio.run(run())


def test_each_host_reads_and_writes_its_own(dataplane: DataPlane, tenants: list[TenantDatabase]) -> None:
    acme, globex, _ = tenants

    async def body(client: httpx.AsyncClient) -> None:
        for tenant in tenants:
            page = await client.get("/", headers={"Host": tenant.host, "X-Tenant-Id": "t-evil"})
            assert page.json()["tenant"] == tenant.slug
            assert tenant.canary in [note["body"] for note in page.json()["notes"]]
            cookie = page.headers["Set-Cookie"]
            assert cookie.startswith("__Host-seen=")
            assert "Secure" in cookie
        made = await client.post("/notes", json={"body": "by FastAPI"}, headers={"Host": acme.host})
        assert made.status_code == 201
        assert "by FastAPI" in (await client.get("/", headers={"Host": acme.host})).text
        assert "by FastAPI" not in (await client.get("/", headers={"Host": globex.host})).text
        assert (
            await client.post("/notes", json={"body": " "}, headers={"Host": acme.host})
        ).status_code == 422
        assert (await client.get("/", headers={"Host": f"nobody.{ZONE}"})).status_code == 404
        assert (await client.get("/healthz", headers={"Host": "10.0.0.1"})).status_code == 200

    in_its_lifespan(create_app(dataplane), body)
    assert dataplane.async_pools.open_connections == (0, 0)


def test_coroutines_have_tenants_of_their_own(dataplane: DataPlane, tenants: list[TenantDatabase]) -> None:
    async def body(client: httpx.AsyncClient) -> None:
        async def ask(tenant: TenantDatabase) -> None:
            for _ in range(20):
                page = (await client.get("/", headers={"Host": tenant.host})).json()
                assert page["tenant"] == tenant.slug
                canaries = [note["body"] for note in page["notes"] if note["body"].startswith("canary")]
                assert canaries == [tenant.canary]

        await asyncio.gather(*(ask(tenant) for tenant in tenants * 5))

    in_its_lifespan(create_app(dataplane), body)
    assert dataplane.async_pools.statistics.checked_out == 15 * 20


# ----------------------------------------------------------------------------------------- by itself


async def slug_app(scope: Any, receive: Any, send: Any) -> None:
    tenant = bound_tenant()
    seen = [name for name, _ in scope["headers"] if name.startswith(b"x-tenant")]
    body = f"{tenant and tenant.slug} {scope['state']['tenant'].slug if tenant else None} {seen}".encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture
def resolver() -> Resolver:
    return Resolver(cache=FakeTier(config("acme.example"), config("globex.example")))


def test_headers_of_clients_decide_nothing(resolver: Resolver) -> None:
    headers = {"Host": "ACME.example:80", "X-Tenant-Slug": "evil", "X-Forwarded-Host": "globex.example"}
    (plain,) = call(TenantMiddleware(slug_app, resolver), ("GET", "/", {"headers": headers}))
    assert plain.text == "acme acme []"
    behind, none, exempt = call(
        TenantMiddleware(slug_app, resolver, trusted_proxies=1),
        ("GET", "/", {"headers": headers}),
        ("HEAD", "/", {"headers": {"Host": "nobody.example"}}),
        ("GET", "/healthz", {"headers": {"Host": "nobody.example"}}),
    )
    assert behind.text == "globex globex []"
    assert (none.status_code, none.content) == (404, b"")
    assert exempt.text == "None None []"


def run_raw(
    app: TenantMiddleware, scope: dict[str, Any], receive: Coroutine[Any, Any, Any] | None = None
) -> list[dict[str, Any]]:
    sent: list[dict[str, Any]] = []

    async def receive_one() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(app(scope, receive_one, send))
    return sent


def test_two_host_headers_are_refused(resolver: Resolver) -> None:
    scope = {
        "type": "http",
        "method": "GET",
        "path": "/",
        "headers": [(b"host", b"acme.example"), (b"host", b"globex.example")],
    }
    assert run_raw(TenantMiddleware(slug_app, resolver), scope)[0]["status"] == 400


def test_websockets_are_routed_and_refused_alike(resolver: Resolver) -> None:
    seen: list[str] = []

    async def socket(scope: Any, receive: Any, send: Any) -> None:
        seen.append(current_tenant().slug)

    app = TenantMiddleware(socket, resolver)
    scope: dict[str, Any] = {"type": "websocket", "path": "/ws", "headers": [(b"host", b"acme.example")]}
    run_raw(app, scope)
    assert seen == ["acme"]
    scope["headers"] = [(b"host", b"nobody.example")]
    assert run_raw(app, scope) == [{"type": "websocket.close", "code": 1008, "reason": "unknown-host"}]
    scope["extensions"] = {"websocket.http.response": {}}
    assert [message.get("status") for message in run_raw(app, scope)] == [404, None]
    assert seen == ["acme"]


def test_other_protocols_pass(resolver: Resolver) -> None:
    passed: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        passed.append(scope["type"])

    run_raw(TenantMiddleware(app, resolver), {"type": "lifespan"})
    assert passed == ["lifespan"]


def test_an_error_of_ours_becomes_its_page_unless_the_answer_has_begun(resolver: Resolver) -> None:
    def failing(begin: bool) -> TenantMiddleware:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            if begin:
                await send({"type": "http.response.start", "status": 200, "headers": []})
            raise DatabaseWaking(retry_after=3)

        return TenantMiddleware(app, resolver)

    request = ("GET", "/", {"headers": {"Host": "acme.example", "Accept": "application/json"}})
    (page,) = call(failing(False), request)
    assert (page.status_code, page.headers["Retry-After"], page.json()["error"]) == (503, "3", "waking")
    with pytest.raises(DatabaseWaking):
        call(failing(True), request)
    assert bound_tenant() is None


def test_without_a_tenant_or_pools_there_is_no_connection() -> None:
    async def ask() -> None:
        async with tenant_connection_async():
            pass

    with pytest.raises(NoTenant):
        asyncio.run(ask())
    with use_tenant(config("acme.example")), pytest.raises(NoTenant, match="without pools"):
        asyncio.run(ask())
