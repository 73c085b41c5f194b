"""What visitors see who can't be served, and how fast a change is seen."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, expect

from tests.browser.app import App
from tests.browser.conftest import ZONE
from tests.browser.endpoints import EndpointFile
from tests.browser.tenants import Platform, Tenant
from tests.dataplane.proxy import Proxy

pytestmark = [pytest.mark.browser, pytest.mark.timeout(900)]  # the first one builds the example


@pytest.mark.parametrize(
    ("host", "changes", "status", "title", "retry"),
    [
        (f"nobody.{ZONE}", None, 404, "Nothing here", False),
        (f"www.{ZONE}", None, 404, "Nothing here", False),
        (f"billing.{ZONE}", {}, 404, "Nothing here", False),  # no tenant's, whatever the cache says
        ("nobody.example", None, 404, "Nothing here", False),
        (f"left.{ZONE}", {"status": "gone", "database": None}, 404, "Nothing here", False),
        (f"unpaid.{ZONE}", {"status": "suspended", "database": None}, 403, "Suspended", False),
        (f"fresh.{ZONE}", {"status": "provisioning", "database": None}, 503, "Almost there", True),
        (f"ahead.{ZONE}", {"release": "0004"}, 503, "Being updated", True),
    ],
)
def test_state_pages(
    app: App,
    platform: Platform,
    acme: Tenant,
    visitor: BrowserContext,
    host: str,
    changes: dict[str, Any] | None,
    status: int,
    title: str,
    retry: bool,
) -> None:
    if changes is not None:
        platform.publish(platform.config(acme, host, **changes))
    page = visitor.new_page()
    response = page.goto(app.url(host, "/board?any=thing"))
    assert response is not None
    assert response.status == status
    expect(page.get_by_role("heading")).to_have_text(title)
    headers = response.all_headers()
    assert headers["cache-control"] == "no-store"
    assert ("retry-after" in headers) == retry
    posted = app.request("POST", host, "/", {"Next-Action": "0" * 42}, "[]")
    assert (posted.status, posted.headers["content-type"]) == (status, "application/json")


def test_a_host_that_has_moved_leads_to_the_new_one(
    app: App, platform: Platform, acme: Tenant, visitor: BrowserContext
) -> None:
    left = {"status": "moved", "release": None, "database": None, "profile": {}, "moved_to": acme.host}
    platform.publish(platform.config(acme, former := f"former.{ZONE}", **left))
    for method in ("GET", "POST"):
        answer = app.request(method, f"{former}:{app.port}", "/board?any=thing")
        assert (answer.status, answer.headers["cache-control"]) == (308, "no-store")
        assert answer.headers["location"] == app.url(acme.host, "/board?any=thing")
    page = visitor.new_page()
    response = page.goto(app.url(former, "/board?any=thing"))
    assert response is not None
    assert (response.status, response.url) == (200, app.url(acme.host, "/board?any=thing"))


def test_suspending_and_resuming_are_seen_at_once(
    app: App, platform: Platform, globex: Tenant, visitor: BrowserContext
) -> None:
    page = visitor.new_page()
    page.goto(app.url(globex.host, "/board"))
    platform.publish(platform.config(globex, globex.host, status="suspended", database=None))
    _until(lambda: app.get(globex.host).status == 403)
    page.goto(app.url(globex.host, "/board"))
    expect(page.get_by_role("heading")).to_have_text("Suspended")
    platform.publish(platform.config(globex, globex.host))
    _until(lambda: app.get(globex.host).status == 200)


def test_a_sleeping_database_is_waited_for_and_then_an_honest_503(
    app: App, platform: Platform, acme: Tenant, endpoints: EndpointFile, visitor: BrowserContext
) -> None:
    sleeper = Tenant("t-browsersleep", "asleep", (f"asleep.{ZONE}",), ("Asleep canary",))
    platform.create(sleeper)
    payload = platform.config(sleeper, sleeper.host, profile={"pauses": True})
    payload["database"]["host"] = "c-asleep.cluster.internal.invalid"
    with contextlib.closing(Proxy(platform.postgres.port)) as cluster, ThreadPoolExecutor() as threads:
        cluster.mode = "cut"
        endpoints.add("c-asleep.cluster.internal.invalid", cluster.port)
        platform.publish(payload)
        first = threads.submit(app.get, sleeper.host)
        _until(lambda: cluster.accepted > 1)  # what ends the connect has not ended the wait
        cluster.mode = "hold"
        _until(lambda: len(cluster.holding) > 0)
        assert app.get(acme.host).status == 200, "one tenant's sleeping database stops no other"
        assert not first.done()
        cluster.mode = "pass"
        assert "Asleep canary" in first.result(60).text, "awake in time: the request only took longer"

        cluster.mode = "hold"
        cluster.cut()
        page = visitor.new_page()
        page.set_default_timeout(60_000)
        response = page.goto(app.url(sleeper.host))
        assert response is not None
        headers = response.all_headers()
        assert (response.status, headers["retry-after"], headers["refresh"]) == (503, "5", "5")
        expect(page.get_by_role("heading")).to_have_text("Waking up")
        platform.publish({**payload, "profile": {}, "epoch": payload["epoch"] + 1})
        _until(lambda: "Waking up" not in app.get(sleeper.host).text)
        cluster.mode = "pass"
        expect(page.get_by_text("Asleep canary")).to_be_visible(timeout=60_000)
    endpoints.add("c-asleep.cluster.internal.invalid", platform.postgres.port)
    _until(lambda: app.get(sleeper.host).status == 200)


def test_a_wrong_entry_never_shows_another_tenants_data(
    app: App, platform: Platform, acme: Tenant, globex: Tenant
) -> None:
    """Both were signed by the control plane: what it got wrong is caught on this side."""
    mixed = Tenant("t-browsermixed", "mixed", (f"mixed.{ZONE}",), ("Mixed canary",))
    platform.create(mixed)
    assert app.get(mixed.host, "/api/notes").status == 200
    platform.publish({**platform.config(acme, mixed.host), "tenant_id": mixed.tenant_id})
    assert _crossed(app, mixed.host), "another tenant's secret"
    platform.publish(platform.config(mixed, mixed.host))
    assert app.get(mixed.host, "/api/notes").status == 200
    platform.mark(mixed, None)
    assert app.get(mixed.host, "/api/notes").status == 200, "bound, and not yet written there"
    platform.mark(mixed, globex.tenant_id)
    assert _crossed(app, mixed.host), "another tenant's database"
    assert app.log.count(f"cross-tenant: {mixed.tenant_id}") >= 2
    for tenant in (acme, globex):
        assert app.get(tenant.host, "/api/notes").status == 200


def _crossed(app: App, host: str) -> bool:
    answers = [app.get(host, path) for path in ("/api/notes", "/", "/board")]
    assert not any("canary" in answer.text for answer in answers)
    return {answer.status for answer in answers} == {500}


def test_known_tenants_are_served_without_the_cache(
    app: App, platform: Platform, acme: Tenant, globex: Tenant
) -> None:
    assert app.get(acme.host).status == 200
    platform.cache.stop()
    try:
        cold = app.get(f"never-seen.{ZONE}")
        assert (cold.status, cold.headers["retry-after"]) == (503, "1"), "an outage is not a 404"
        for _ in range(100):
            for tenant in (acme, globex):
                assert app.get(tenant.host, "/api/notes").status == 200
    finally:
        platform.cache.start()
    for tenant in (acme, globex):
        for host in tenant.hosts:
            platform.publish(platform.config(tenant, host))
    _until(lambda: app.get(f"never-seen.{ZONE}").status == 404)


def _until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.01)
