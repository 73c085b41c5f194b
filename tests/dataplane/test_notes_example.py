"""The Flask example from the environment to the page: each host shows its own tenant's rows."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis
from flask.testing import FlaskClient

from dataplane.settings import DataPlane
from dataplane.tenant_config import Status
from examples.notes.app import create_app
from tests.dataplane.tenants import ZONE, TenantDatabase

JSON = {"Accept": "application/json"}


@pytest.fixture
def client(dataplane: DataPlane) -> Iterator[FlaskClient]:
    with create_app(dataplane).test_client(use_cookies=False) as client:
        yield client


def test_each_host_shows_its_own_rows(client: FlaskClient, tenants: list[TenantDatabase]) -> None:
    for tenant in tenants:
        page = client.get("/", headers={"Host": tenant.host})
        assert page.status_code == 200
        assert f"<h1>{tenant.slug}</h1>" in page.text
        assert tenant.name in page.text
        assert tenant.canary in page.text
        for other in tenants:
            assert (other.canary in page.text) == (other is tenant)


def test_a_note_is_written_to_the_tenant_of_the_host(
    client: FlaskClient, tenants: list[TenantDatabase]
) -> None:
    acme, globex, _ = tenants
    made = client.post("/notes", json={"body": "for acme <b>alone</b>"}, headers={"Host": acme.host, **JSON})
    assert made.status_code == 201
    seen = client.get("/", headers={"Host": acme.host, **JSON}).get_json()
    assert seen["tenant"] == "acme"
    assert seen["database"] == acme.name
    assert seen["notes"][0]["body"] == "for acme <b>alone</b>"
    assert "for acme &lt;b&gt;alone" in client.get("/", headers={"Host": acme.host}).text
    assert "for acme" not in client.get("/", headers={"Host": globex.host}).text


def test_a_form_of_another_site_is_refused(client: FlaskClient, tenants: list[TenantDatabase]) -> None:
    headers = {"Host": tenants[0].host}
    foreign = client.post("/notes", data={"body": "x"}, headers={**headers, "Sec-Fetch-Site": "cross-site"})
    assert foreign.status_code == 403
    own = client.post("/notes", data={"body": "x"}, headers={**headers, "Sec-Fetch-Site": "same-origin"})
    assert own.status_code == 303


def test_a_session_is_of_one_tenant(client: FlaskClient, tenants: list[TenantDatabase]) -> None:
    """A cookie that was carried from one tenant's host to another's by hand says nothing there."""
    acme, globex, _ = tenants
    sent = client.post("/notes", data={"body": "x"}, headers={"Host": acme.host})
    cookie = sent.headers["Set-Cookie"]
    name, _, value = cookie.partition(";")[0].partition("=")
    assert name == "__Host-session"
    assert "Secure" in cookie
    assert "Path=/" in cookie
    assert "Domain" not in cookie
    carried = {"Cookie": f"{name}={value}"}
    assert "Saved." in client.get("/", headers={"Host": acme.host, **carried}).text
    assert "Saved." not in client.get("/", headers={"Host": globex.host, **carried}).text


@pytest.mark.parametrize("body", ["", "   ", "x" * 2001, 7, None, "nul\0"])
def test_a_bad_note_is_refused(client: FlaskClient, tenants: list[TenantDatabase], body: object) -> None:
    answer = client.post("/notes", json={"body": body}, headers={"Host": tenants[0].host})
    assert answer.status_code == 400
    assert "body: expected 1 to 2000 characters" in answer.text


def test_hosts_without_a_tenant_get_their_page(
    client: FlaskClient, cache_client: redis.Redis, tenants: list[TenantDatabase]
) -> None:
    acme = tenants[0]
    for status, code, wait in (("suspended", 403, None), ("provisioning", 503, "5"), ("gone", 404, None)):
        host = f"{status}.{ZONE}"
        cache_client.set(*acme.entry(host=host, status=Status(status), database=None))
        page = client.get("/", headers={"Host": host})
        assert (page.status_code, page.headers.get("Retry-After")) == (code, wait)
        assert page.headers["Cache-Control"] == "no-store"
        assert page.mimetype == "text/html"
        assert client.get("/", headers={"Host": host, **JSON}).get_json()["error"] in (
            status,
            "unknown-host",
        )
    for host, code in ((f"nobody.{ZONE}", 404), (f"www.{ZONE}", 404), ("127.0.0.1", 404), ("a b", 400)):
        assert client.get("/", headers={"Host": host}).status_code == code


def test_the_health_check_needs_no_tenant(client: FlaskClient) -> None:
    assert client.get("/healthz", headers={"Host": "10.0.0.7:8000"}).get_json() == {"status": "ok"}
