"""Two tenants and a custom domain, looked at as their customers would."""

from __future__ import annotations

import pytest
from playwright.sync_api import BrowserContext, expect

from tests.browser.app import App
from tests.browser.tenants import Tenant

pytestmark = [pytest.mark.browser, pytest.mark.timeout(900)]  # the first one builds the example


def _sign_in(visitor: BrowserContext, app: App, host: str, name: str) -> None:
    page = visitor.new_page()
    page.goto(app.url(host, "/sign-in"))
    page.get_by_placeholder("Your name").fill(name)
    page.get_by_role("button", name="Sign in").click()
    expect(page.locator("#name")).to_have_text(name)
    page.close()


def test_each_host_shows_its_own_tenant(
    app: App, acme: Tenant, globex: Tenant, visitor: BrowserContext
) -> None:
    page = visitor.new_page()
    for tenant in (acme, globex, acme):
        for host in tenant.hosts:
            page.goto(app.url(host))
            expect(page.get_by_role("heading")).to_have_text(f"Notes of {tenant.slug}")
            for note in tenant.notes:
                expect(page.get_by_text(note, exact=True)).to_be_visible()
            for note in {*acme.notes, *globex.notes} - {*tenant.notes}:
                assert note not in page.content()


def test_a_server_action_writes_to_the_tenant_of_its_page(
    app: App, acme: Tenant, globex: Tenant, visitor: BrowserContext
) -> None:
    _sign_in(visitor, app, acme.host, "Ada")
    page = visitor.new_page()
    page.goto(app.url(acme.host))
    page.get_by_placeholder("A new note").fill("Written by an action")
    page.get_by_role("button", name="Add").click()
    expect(page.get_by_text("Written by an action", exact=True)).to_be_visible()

    assert "Written by an action" in app.get(acme.hosts[1]).text
    answer = app.get(globex.host, "/api/notes")
    assert globex.tenant_id in answer.text
    assert "Written by an action" not in answer.text


def test_a_session_is_its_hosts_alone(
    app: App, acme: Tenant, globex: Tenant, visitor: BrowserContext
) -> None:
    _sign_in(visitor, app, acme.host, "Ada")
    (cookie,) = visitor.cookies()
    assert cookie["name"] == "__Host-session"
    assert cookie["domain"] == acme.host
    assert (cookie["path"], cookie["secure"], cookie["httpOnly"], cookie["sameSite"]) == (
        "/",
        True,
        True,
        "Lax",
    )

    page = visitor.new_page()
    page.goto(app.url(globex.host))
    expect(page.get_by_role("link", name="Sign in")).to_be_visible()
    # Carried over by hand, it is still nobody's there.
    carried = f"__Host-session={cookie['value']}"
    assert "Signed in as" in app.get(acme.host, Cookie=carried).text
    assert "Signed in as" not in app.get(globex.host, Cookie=carried).text


def test_a_page_that_next_keeps_is_kept_for_each_tenant(
    app: App, acme: Tenant, globex: Tenant, visitor: BrowserContext
) -> None:
    page = visitor.new_page()
    made = {}
    for tenant in (acme, globex):
        page.goto(app.url(tenant.host, "/board"))
        expect(page.get_by_role("heading")).to_have_text(f"Board of {tenant.slug}")
        made[tenant.slug] = page.locator("time").inner_text()
    for tenant, other in ((acme, globex), (globex, acme)):
        answer = app.get(tenant.host, "/board")
        assert _made(answer.text) == made[tenant.slug], f"not from the cache: {answer.headers}"
        assert all(note in answer.text for note in tenant.notes)
        assert not any(note in answer.text for note in other.notes)

    _sign_in(visitor, app, globex.host, "Grace")
    page.goto(app.url(globex.host))
    page.get_by_placeholder("A new note").fill("Makes the board new")
    page.get_by_role("button", name="Add").click()
    expect(page.get_by_text("Makes the board new", exact=True)).to_be_visible()
    page.goto(app.url(globex.host, "/board"))
    expect(page.get_by_text("Makes the board new", exact=True)).to_be_visible()
    assert made["acme"] in app.get(acme.host, "/board").text, "the other tenant's page is left alone"


def test_cached_data_is_kept_for_each_tenant(app: App, acme: Tenant, globex: Tenant) -> None:
    first = {tenant.slug: app.get(tenant.host, "/digest").text for tenant in (acme, globex)}
    assert "Acme canary" in first["acme"] or "Written by an action" in first["acme"]
    assert not any(note in first["globex"] for note in acme.notes)
    for tenant in (acme, globex):
        assert _made(app.get(tenant.host, "/digest").text) == _made(first[tenant.slug]), "not from the cache"


def test_a_fetched_answer_is_kept_for_each_tenant(app: App, acme: Tenant, globex: Tenant) -> None:
    first = {tenant.slug: app.get(tenant.host, "/api/rates") for tenant in (acme, globex)}
    assert {answer.status for answer in first.values()} == {200}
    assert first["acme"].text != first["globex"].text
    for tenant in (acme, globex):
        assert app.get(tenant.host, "/api/rates").text == first[tenant.slug].text


def test_nobody_reaches_a_kept_page_by_its_inner_path(app: App, acme: Tenant, globex: Tenant) -> None:
    inner = app.get(acme.host, "/board").headers["x-middleware-rewrite"]
    assert inner.startswith("/t/")
    forged = inner.replace(acme.host, globex.host).replace(acme.tenant_id, globex.tenant_id)
    for host in (acme.host, globex.host):
        for path in (inner, forged, inner.replace("/t/", "/%74/"), inner.replace("/t/", "//t/")):
            answer = app.get(host, path)
            assert answer.status in {308, 400, 404}, path
            assert "canary" not in answer.text


def _made(html: str) -> str:
    return html.partition("<time>")[2].partition("</time>")[0]
