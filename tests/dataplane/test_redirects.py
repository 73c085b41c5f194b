"""A host that its tenant has moved from: 308 to the same path at the new one, and nowhere else."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.test import Client

from dataplane.asgi import TenantMiddleware as AsgiMiddleware
from dataplane.errors import Moved, RoutingUnavailable
from dataplane.pages import answer
from dataplane.redirects import location
from dataplane.resolver import Resolver
from dataplane.tenant_config import Invalidation, Status
from dataplane.wsgi import TenantMiddleware
from tests.dataplane.test_asgi import call, run_raw
from tests.dataplane.tiers import FakeTier, config

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "redirects.json").read_text())
OLD, NEW = "old.example", "new.example"
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


@pytest.fixture
def tier() -> FakeTier:
    return FakeTier(moved(OLD, NEW), config(NEW))


@pytest.fixture
def resolver(tier: FakeTier) -> Resolver:
    return Resolver(cache=tier)


def moved(host: str, to: str, epoch: int = 1) -> Any:
    return config(host, epoch, tenant_id="t-new", status=Status.MOVED, database=None, moved_to=to)


@pytest.mark.parametrize("case", VECTORS["cases"], ids=lambda case: case["name"])
def test_vector(case: dict[str, Any]) -> None:
    found = location(
        VECTORS["to"],
        scheme=case["scheme"],
        raw_host=case["host"],
        target=case["target"],
        forwarded_proto=case.get("forwarded_proto"),
    )
    assert found == case["location"]


@given(st.text(st.characters(max_codepoint=255)), st.text())
def test_whatever_is_asked_for_it_leads_to_the_entrys_host(target: str, proto: str) -> None:
    found = location(NEW, scheme="https", raw_host=OLD, target=target, forwarded_proto=proto)
    assert found.startswith(f"https://{NEW}/")
    assert urlsplit(found).netloc == NEW
    assert found.isascii()
    assert found.isprintable()


# ------------------------------------------------------------------------------------------ WSGI


def never(*_: Any) -> Any:
    raise AssertionError("the application is not asked")


@pytest.mark.parametrize("method", METHODS)
def test_wsgi_answers_every_method(resolver: Resolver, method: str) -> None:
    client = Client(TenantMiddleware(never, resolver))
    page = client.open("/a%2Fb/ü?q=%20x", method=method, base_url=f"https://{OLD}")
    assert page.status_code == 308
    assert page.headers["Location"] == f"https://{NEW}/a%2Fb/%C3%BC?q=%20x"
    assert page.headers["Cache-Control"] == "no-store"
    assert ("This account has a new address." in page.text) is (method != "HEAD")


def test_wsgi_where_the_server_does_not_say_what_was_sent(resolver: Resolver) -> None:
    asked = {
        "REQUEST_METHOD": "POST",
        "wsgi.url_scheme": "http",
        "HTTP_HOST": f"{OLD}:8000",
        "SCRIPT_NAME": "/app",
        "PATH_INFO": "/ü b".encode().decode("latin-1"),
        "QUERY_STRING": "q=1",
    }
    for sent, expected in (
        ({}, f"http://{NEW}:8000/app/%C3%BC%20b?q=1"),
        ({"RAW_URI": f"http://{OLD}/x"}, f"http://{NEW}:8000/app/%C3%BC%20b?q=1"),
        ({"RAW_URI": "//evil.example/?r"}, f"http://{NEW}:8000//evil.example/?r"),
        ({"HTTP_X_FORWARDED_PROTO": "https", "HTTP_HOST": OLD}, f"https://{NEW}/app/%C3%BC%20b?q=1"),
        ({"PATH_INFO": "", "SCRIPT_NAME": "", "QUERY_STRING": ""}, f"http://{NEW}:8000/"),
    ):
        seen: list[Any] = []
        middleware: Any = TenantMiddleware(never, resolver)
        middleware({**asked, **sent}, lambda status, headers, seen=seen: seen.extend((status, headers)))
        assert seen[0] == "308 Permanent Redirect"
        assert dict(seen[1])["Location"] == expected


def test_wsgi_behind_ones_own_proxy_keeps_the_port_that_the_visitor_asked_for(resolver: Resolver) -> None:
    client = Client(TenantMiddleware(never, resolver, trusted_proxies=1))
    headers = {"Host": "internal:9000", "X-Forwarded-Host": f"{OLD}:8443", "X-Forwarded-Proto": "https"}
    assert client.get("/a", headers=headers).headers["Location"] == f"https://{NEW}:8443/a"


def test_a_program_is_told_in_json(resolver: Resolver) -> None:
    client = Client(TenantMiddleware(never, resolver))
    page = client.get("/", headers={"Host": OLD, "Accept": "application/json"})
    assert page.get_json() == {"error": "moved", "message": Moved.explanation, "retry_after": None}


def test_an_exempt_path_stays_where_it_is(resolver: Resolver) -> None:
    def up(_: Any, start_response: Any) -> Any:
        start_response("200 OK", [])
        return [b""]

    assert Client(TenantMiddleware(up, resolver)).get("/healthz", headers={"Host": OLD}).status_code == 200


# ------------------------------------------------------------------------------------------ ASGI


@pytest.mark.parametrize("method", METHODS)
def test_asgi_answers_every_method(resolver: Resolver, method: str) -> None:
    app = AsgiMiddleware(never, resolver)
    (page,) = call(app, (method, "/a%2Fb/%C3%BC?q=%20x", {"headers": {"Host": f"{OLD}:8000"}}))
    assert page.status_code == 308
    assert page.headers["Location"] == f"http://{NEW}:8000/a%2Fb/%C3%BC?q=%20x"
    assert page.headers["Cache-Control"] == "no-store"
    assert ("This account has a new address." in page.text) is (method != "HEAD")


def test_asgi_behind_ones_own_proxy(resolver: Resolver) -> None:
    headers = {"Host": "internal:9000", "X-Forwarded-Host": OLD, "X-Forwarded-Proto": "https"}
    app = AsgiMiddleware(never, resolver, trusted_proxies=1)
    (page,) = call(app, ("POST", "/a", {"headers": headers}))
    assert page.headers["Location"] == f"https://{NEW}/a"


def test_asgi_where_the_server_does_not_say_what_was_sent(resolver: Resolver) -> None:
    scope = {"type": "http", "method": "GET", "path": "/ü b", "headers": [(b"host", OLD.encode())]}
    sent = run_raw(AsgiMiddleware(never, resolver), scope)[0]
    assert dict(sent["headers"])[b"location"] == f"http://{NEW}/%C3%BC%20b".encode()


def test_a_websocket_is_led_on_where_its_server_can_say_so(resolver: Resolver) -> None:
    scope: dict[str, Any] = {
        "type": "websocket",
        "scheme": "wss",
        "path": "/ws",
        "query_string": b"a=b",
        "headers": [(b"host", OLD.encode())],
    }
    app = AsgiMiddleware(never, resolver)
    assert run_raw(app, scope) == [{"type": "websocket.close", "code": 1008, "reason": "moved"}]
    scope["extensions"] = {"websocket.http.response": {}}
    sent = run_raw(app, scope)[0]
    assert (sent["status"], dict(sent["headers"])[b"location"]) == (308, f"wss://{NEW}/ws?a=b".encode())


# -------------------------------------------------------------------------------------- resolver


def test_it_is_remembered_like_a_tenant_and_not_looked_up_each_time(
    resolver: Resolver, tier: FakeTier
) -> None:
    for ask in (resolver.resolve, lambda host: asyncio.run(resolver.resolve_async(host))):
        with pytest.raises(Moved) as caught:
            ask(OLD)
        assert (caught.value.to, caught.value.status) == (NEW, 308)
    assert tier.reads[OLD] == 1


def test_the_end_of_it_is_heard_like_any_change(resolver: Resolver, tier: FakeTier) -> None:
    with pytest.raises(Moved):
        resolver.resolve(OLD)
    tier.put(config(OLD, 2))
    resolver.invalidated(Invalidation("config", OLD, 2, "t-new"))
    assert resolver.resolve(OLD).epoch == 2


def test_who_follows_comes_to_the_tenant_and_never_goes_round(resolver: Resolver, tier: FakeTier) -> None:
    assert resolver.follow(OLD).host == resolver.follow(NEW).host == NEW
    tier.put(moved("older.example", OLD))
    assert resolver.follow("older.example").host == NEW
    tier.put(moved("here.example", "there.example"))
    tier.put(moved("there.example", "here.example"))
    with pytest.raises(RoutingUnavailable):
        resolver.follow("here.example")


def test_its_page_without_an_address_names_none() -> None:
    status, headers, body = answer(Moved(NEW))
    assert (status, "Location" in dict(headers), NEW.encode() in body) == (308, False, False)
