"""The Cloudflare fake server beside Cloudflare's own description of its API, and as the SDK meets it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cloudflare
import httpx
import jsonschema
import pytest

from controlplane.localcloud.cloudflare import limiter
from controlplane.localcloud.cloudflare.zone import Limits, Timings
from tests.harness.cloudflare import (
    TOKEN,
    ZONE,
    CloudflareFixture,
    eventually,
    run_cloudflare,
    run_cloudflare_here,
)

REFERENCE = Path(__file__).parents[3] / "shared/reference/cloudflare/custom_hostnames.openapi.json"
PREFIX = "tls-certificates-and-hostnames_"
HOST = "notes.acme.dev"
NOBODY = "0d89c70d-ad9f-4843-b99f-6cc0252067e9"
SSL = {"method": "http", "type": "dv"}


@pytest.fixture
def fixture() -> Iterator[CloudflareFixture]:
    with run_cloudflare_here() as fixture:
        yield fixture


# ------------------------------------------------------------------- beside the official description


@pytest.fixture(scope="module")
def description() -> dict[str, Any]:
    """The components of the OpenAPI file as JSON Schema."""
    if not REFERENCE.exists():
        pytest.skip("Cloudflare's API description is not on this machine")
    components: dict[str, Any] = _as_json_schema(json.loads(REFERENCE.read_text())["components"])
    # It calls identifiers 32 characters long, and custom hostname ids (in the `id` filter) 36; the
    # real ones are UUIDs (terraform-provider-cloudflare#1840 shows some).
    components["schemas"][f"{PREFIX}identifier"]["maxLength"] = 36
    return components


def _as_json_schema(node: Any) -> Any:
    """OpenAPI 3.0 says `nullable` where JSON Schema lists "null" among the types."""
    if isinstance(node, list):
        return [_as_json_schema(item) for item in node]
    if not isinstance(node, dict):
        return node
    found = {key: _as_json_schema(value) for key, value in node.items() if key not in ("example", "nullable")}
    if node.get("nullable") is True and isinstance(found.get("type"), str):
        found["type"] = [found["type"], "null"]
    return found


def check(body: Any, name: str, description: dict[str, Any]) -> None:
    schema = {"$ref": f"#/components/schemas/{PREFIX}{name}", "components": description}
    jsonschema.Draft202012Validator(
        schema, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER
    ).validate(body)


def test_answers_fit_the_official_schemas(fixture: CloudflareFixture, description: dict[str, Any]) -> None:
    made = fixture.request(
        "POST", json={"hostname": HOST, "ssl": SSL, "custom_metadata": {"tenant_id": "t-1"}}
    )
    check(made.json(), "custom_hostname_response_single", description)
    path = f"/{made.json()['result']['id']}"
    for _ in range(12):  # through all of its states
        check(fixture.request("GET", path).json(), "custom_hostname_response_single", description)
        check(fixture.request("GET").json(), "custom_hostname_response_collection", description)
        time.sleep(0.05)
    edited = fixture.request("PATCH", path, json={"ssl": {**SSL, "method": "txt"}})
    check(edited.json(), "custom_hostname_response_single", description)
    fixture.control.set_hostname(HOST, stuck=True, errors=["CAA records forbid it"])
    check(fixture.request("GET", path).json(), "custom_hostname_response_single", description)
    gone = fixture.request("DELETE", path)
    assert gone.json() == {"id": path[1:]}
    check(gone.json()["id"], "identifier", description)
    origin = fixture.request("PUT", "/fallback_origin", json={"origin": "apps.saas.internal"})
    for answer in (
        origin,
        fixture.request("GET", "/fallback_origin"),
        fixture.request("DELETE", "/fallback_origin"),
    ):
        check(answer.json(), "fallback_origin_response", description)


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "", {"hostname": "acme.test", "ssl": SSL}),
        ("POST", "", {}),
        ("GET", "?per_page=500", None),
        ("GET", f"/{NOBODY}", None),
        ("PATCH", f"/{NOBODY}", {"ssl": SSL}),
        ("DELETE", f"/{NOBODY}", None),
        ("GET", "/x/y", None),
    ],
)
def test_refusals_fit_the_official_schema(
    fixture: CloudflareFixture, description: dict[str, Any], method: str, path: str, body: Any
) -> None:
    answer = fixture.request(method, path, json=body)
    assert answer.is_client_error
    # The description joins this one by `allOf` with the schema of success, whose `success` must be
    # true; no answer can be both.
    check(answer.json(), "api-response-common-failure", description)


def test_the_check_would_notice(description: dict[str, Any]) -> None:
    ours = {
        "success": True,
        "errors": [],
        "messages": [],
        "result": {"id": NOBODY, "hostname": HOST, "ssl": {}},
    }
    check(ours, "custom_hostname_response_single", description)
    ours["result"] = {"id": NOBODY, "hostname": HOST, "ssl": {"status": "fine"}}
    with pytest.raises(jsonschema.ValidationError, match="fine"):
        check(ours, "custom_hostname_response_single", description)
    with pytest.raises(jsonschema.ValidationError, match="success"):
        check({"errors": [], "messages": [], "result": None}, "api-response-common-failure", description)


# ------------------------------------------------------------------------------- statuses and codes


def test_each_endpoints_status(fixture: CloudflareFixture) -> None:
    made = fixture.request("POST", json={"hostname": HOST, "ssl": SSL})
    path = f"/{made.json()['result']['id']}"
    assert made.status_code == 201
    assert fixture.request("GET", path).status_code == 200
    assert fixture.request("GET").status_code == 200
    assert fixture.request("PATCH", path, json={"ssl": SSL}).status_code == 202
    assert fixture.request("DELETE", path).status_code == 200


@pytest.mark.parametrize(
    ("wanted", "status", "code"),
    [
        ({"hostname": "a b.acme.dev"}, 400, 1407),
        ({"hostname": "192.0.2.1"}, 400, 1407),
        ({"hostname": "a." * 130 + "dev"}, 400, 1407),
        ({"hostname": 7}, 400, 1407),
        ({"hostname": "bücher.dev"}, 400, 1408),
        ({"hostname": "acme.localhost"}, 400, 1409),
        ({"hostname": "acme"}, 400, 1410),
        ({"hostname": "shop.example.org"}, 400, 1411),
        ({"hostname": "*.acme.dev"}, 400, 1448),
        ({"ssl": None}, 400, 1434),
        ({"ssl": {"method": "http"}}, 400, 1440),
        ({"ssl": {"method": "smoke", "type": "dv"}}, 400, 1432),
        ({"ssl": {"method": "http", "type": "ev"}}, 400, 1433),
        ({"ssl": {**SSL, "settings": {"min_tls_version": "0.9"}}}, 400, 1425),
        ({"ssl": {**SSL, "settings": {"http2": "yes"}}}, 400, 1422),
        ({"ssl": {**SSL, "settings": {"tls_1_3": "yes"}}}, 400, 1424),
        ({"ssl": {**SSL, "bundle_method": "some"}}, 400, 1449),
        ({"custom_metadata": {"tenant_id": 7}}, 400, 1401),
        ({"custom_origin_server": "eu.saas.internal"}, 403, 1414),
    ],
)
def test_what_it_will_not_take(
    fixture: CloudflareFixture, wanted: dict[str, Any], status: int, code: int
) -> None:
    answer = fixture.request("POST", json={"hostname": HOST, "ssl": SSL, **wanted})
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (status, code)
    assert fixture.request("GET").json()["result"] == []


def test_a_duplicate_whatever_the_case(fixture: CloudflareFixture) -> None:
    fixture.create(HOST)
    with pytest.raises(cloudflare.ConflictError) as raised:
        fixture.create(HOST.upper())
    assert raised.value.errors[0].code == 1406


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", f"/{NOBODY}", 404, 1436),
        ("DELETE", f"/{NOBODY}", 404, 1436),
        ("GET", "/not-an-id", 400, 1435),
        ("GET", "?id=not-an-id", 400, 1435),
        ("GET", f"?id={NOBODY}&hostname={HOST}", 400, 1438),
        ("GET", "?per_page=4", 400, 1400),
        ("GET", "?page=0", 400, 1400),
        ("POST", "", 400, 1400),
        ("PATCH", f"/{NOBODY}", 404, 1436),
    ],
)
def test_codes_of_the_rest(
    fixture: CloudflareFixture, method: str, path: str, status: int, code: int
) -> None:
    content = b"{" if method == "POST" else b'{"ssl": {}}' if method == "PATCH" else None
    answer = fixture.request(method, path, content=content)
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (status, code)


def test_who_is_let_in(fixture: CloudflareFixture) -> None:
    assert fixture.request("GET", token="another").status_code == 401
    assert fixture.request("GET", zone="0" * 32).json()["errors"][0]["code"] == 9109
    assert httpx.get(f"{fixture.base}/zones/{ZONE}/custom_hostnames").json()["errors"][0]["code"] == 1403


# ------------------------------------------------------------------------------ time and the customer


def test_statuses_move_each_in_its_own_time() -> None:
    timings = Timings(records=0.2, ownership=0.5, certificate=1.0)
    with run_cloudflare_here(timings=timings) as fixture:
        made = fixture.create(HOST)
        assert (made.status, made.ssl.status, made.ssl.validation_records) == (
            "pending",
            "initializing",
            None,
        )
        assert made.ownership_verification.name == f"_cf-custom-hostname.{HOST}"
        seen: list[tuple[str, str]] = []

        def done() -> bool:
            now = fixture.get(made.id)
            if (state := (now.status, now.ssl.status)) not in seen:
                seen.append(state)
            if now.ssl.status == "pending_validation":
                assert now.ssl.validation_records[0].http_url.startswith(f"http://{HOST}/")
            return state == ("active", "active")

        eventually(done)
        order = ["initializing", "pending_validation", "pending_issuance", "pending_deployment", "active"]
        certificates = [certificate for _, certificate in seen]
        assert certificates == sorted(certificates, key=order.index)
        assert ("active", "pending_validation") in seen
        ready = fixture.get(made.id)
        assert ready.ownership_verification is None
        assert ready.ssl.validation_records is None


def test_without_a_fallback_origin_nothing_gets_active(fixture: CloudflareFixture) -> None:
    fixture.client.custom_hostnames.fallback_origin.delete(zone_id=ZONE)
    made = fixture.create(HOST)
    eventually(lambda: fixture.get(made.id).ssl.status == "active")
    assert fixture.get(made.id).status == "pending"
    assert fixture.get(made.id).verification_errors == ["Zone does not have a fallback origin set."]
    put = fixture.client.custom_hostnames.fallback_origin.update(zone_id=ZONE, origin="apps.saas.internal")
    assert put is not None
    assert put.status == "initializing"
    eventually(lambda: fixture.get(made.id).status == "active")


def test_a_customer_who_places_nothing_and_then_does(fixture: CloudflareFixture) -> None:
    made = fixture.create(HOST)
    fixture.control.set_hostname(HOST, stuck=True)
    time.sleep(0.6)
    waiting = fixture.get(made.id)
    assert (waiting.status, waiting.ssl.status) == ("pending", "pending_validation")
    assert "was not found" in waiting.verification_errors[0]
    fixture.control.set_hostname(HOST, stuck=False)
    eventually(lambda: (now := fixture.get(made.id)).status == now.ssl.status == "active")


def test_the_records_follow_the_method(fixture: CloudflareFixture) -> None:
    made = fixture.create(HOST)
    fixture.control.set_hostname(HOST, stuck=True)
    fixture.client.custom_hostnames.edit(made.id, zone_id=ZONE, ssl={"method": "txt", "type": "dv"})
    found = eventually(lambda: fixture.get(made.id).ssl.validation_records)
    assert found[0].txt_name == f"_acme-challenge.{HOST}"
    assert found[0].http_url is None


# -------------------------------------------------------------------------------------- lists, limits


def test_lists_filter_and_page(fixture: CloudflareFixture) -> None:
    hosts = [f"h{number:02d}.acme.dev" for number in range(12)]
    for host in hosts:
        fixture.create(host)
    custom = fixture.client.custom_hostnames
    assert [
        item.hostname for item in custom.list(zone_id=ZONE, per_page=5)
    ] == hosts  # on its own, page by page
    page = fixture.request("GET", "?page=2&per_page=5").json()
    assert [item["hostname"] for item in page["result"]] == hosts[5:10]
    assert page["result_info"] == {"page": 2, "per_page": 5, "count": 5, "total_count": 12, "total_pages": 3}
    exact = custom.list(zone_id=ZONE, hostname={"exact": hosts[3]}).result
    assert [item.hostname for item in exact] == [hosts[3]]
    assert len(custom.list(zone_id=ZONE, hostname={"contain": "h0"}).result) == 10
    assert len(custom.list(zone_id=ZONE, hostname={"starts_with": "h1"}).result) == 2
    assert [item.id for item in custom.list(zone_id=ZONE, id=exact[0].id).result] == [exact[0].id]
    eventually(lambda: len(custom.list(zone_id=ZONE, hostname_status="active").result) == 12)
    assert custom.list(zone_id=ZONE, ssl_status="expired").result == []


def test_the_quota_counts(fixture: CloudflareFixture) -> None:
    fixture.control.set_zone(quota=1)
    fixture.create(HOST)
    quota = fixture.client.custom_hostnames.quota.get(zone_id=ZONE)
    assert quota is not None
    assert (quota.allocated, quota.used, quota.hard_cap, quota.exceeded) == (1, 1, 1, False)
    with pytest.raises(cloudflare.PermissionDeniedError) as raised:
        fixture.create("other.acme.dev")
    assert raised.value.errors[0].code == 1405


def test_one_call_too_many_shuts_everything_for_a_window(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(limiter, "time", SimpleNamespace(monotonic=lambda: now))
    with run_cloudflare_here(limits=Limits(requests=5, window=60.0)) as fixture:
        left = [int(fixture.request("GET").headers["x-ratelimit-remaining"]) for _ in range(5)]
        assert left == [4, 3, 2, 1, 0]
        refused = fixture.request("GET")
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "60")
        assert refused.headers["x-ratelimit-limit"] == "5"
        assert fixture.request("GET", token="another").status_code == 429
        now += 60.0
        assert fixture.request("GET").status_code == 200


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/faults", {"unsuccessful": -1}, "unsuccessful"),
        ("/faults", {"api": [{"status": 1}]}, r"api\[0\].status"),
        ("/faults", {"weather": 1}, "weather: unknown"),
        ("/zone", {"quota": "many"}, "quota"),
        ("/zone", {"metadata": 1}, "metadata"),
        (f"/hostnames/{HOST}", {"status": "fine"}, "status: expected one of"),
        (f"/hostnames/{HOST}", {"stuck": 1}, "stuck"),
        (f"/hostnames/{HOST}", {"errors": "x"}, "errors"),
    ],
)
def test_a_wrong_control_call_is_named(
    fixture: CloudflareFixture, path: str, body: dict[str, Any], field: str
) -> None:
    with pytest.raises(ValueError, match=field):
        fixture.control.call("POST", path, body)


def test_hostnames_outlive_a_restart(tmp_path: Path) -> None:
    with run_cloudflare(tmp_path, "--certificate-seconds", "0.5", "--ownership-seconds", "0.1") as fixture:
        made = fixture.create(HOST, custom_metadata={"tenant_id": "t-1"})
        assert fixture.service is not None
        fixture.service.kill()
        fixture.service.start()
        assert fixture.get(made.id).custom_metadata == {"tenant_id": "t-1"}
        with pytest.raises(cloudflare.ConflictError):
            fixture.create(HOST)
        assert TOKEN not in fixture.service.data_dir.joinpath("cloudflare.log").read_text()
