"""The Django example: the same tenants, the same rules."""

from __future__ import annotations

import pytest
import redis
from werkzeug.test import Client

from dataplane.settings import DataPlane
from examples.notes_django.app import create_app
from tests.dataplane.tenants import ZONE, TenantDatabase

JSON = {"Accept": "application/json"}


@pytest.fixture
def client(dataplane: DataPlane) -> Client:
    return Client(create_app(dataplane), use_cookies=False)


def test_each_host_shows_its_own_rows(client: Client, tenants: list[TenantDatabase]) -> None:
    for tenant in tenants:
        seen = client.get("/", headers={"Host": tenant.host, **JSON}).get_json()
        assert seen["tenant"] == tenant.slug
        assert tenant.canary in [note["body"] for note in seen["notes"]]
        assert tenant.canary in client.get("/", headers={"Host": tenant.host}).text
    assert client.get("/", headers={"Host": f"nobody.{ZONE}"}).status_code == 404
    assert client.get("/healthz", headers={"Host": "10.0.0.1"}).get_json() == {"status": "ok"}


def test_a_note_is_written_to_the_tenant_of_the_host(client: Client, tenants: list[TenantDatabase]) -> None:
    acme, globex, _ = tenants
    made = client.post("/notes", json={"body": "by Django <b>"}, headers={"Host": acme.host})
    assert made.status_code == 201
    assert "by Django &lt;b&gt;" in client.get("/", headers={"Host": acme.host}).text
    assert "by Django" not in client.get("/", headers={"Host": globex.host}).text
    assert client.post("/notes", json={"body": ""}, headers={"Host": acme.host}).status_code == 400
    assert client.post("/notes", data={"body": "x"}, headers={"Host": acme.host}).status_code == 415


def test_a_session_is_of_one_tenant(client: Client, tenants: list[TenantDatabase]) -> None:
    acme, globex, _ = tenants
    first = client.get("/", headers={"Host": acme.host, **JSON})
    cookie = first.headers["Set-Cookie"].strip()
    assert cookie.startswith("__Host-sessionid=")
    assert "Secure" in cookie
    assert "Domain" not in cookie
    carried = {"Cookie": cookie.partition(";")[0]}
    again = client.get("/", headers={"Host": acme.host, **JSON, **carried})
    assert again.get_json()["visits"] == 2
    elsewhere = client.get("/", headers={"Host": globex.host, **JSON, **carried})
    assert elsewhere.get_json()["visits"] == 1


def test_an_error_of_the_pools_is_its_page(
    client: Client, cache_client: redis.Redis, tenants: list[TenantDatabase]
) -> None:
    acme, globex, _ = tenants
    host = f"mixed.{ZONE}"
    theirs = globex.config()
    placed = {"placement": theirs.placement, "database": theirs.database}
    cache_client.set(*acme.entry(host=host, epoch=9, tenant_id="t-nologin", **placed))
    page = client.get("/", headers={"Host": host, **JSON})
    assert page.status_code == 503
    assert page.get_json()["error"] == "credential-unavailable"
