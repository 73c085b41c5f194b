"""Clusters, contracts, hosts, the summary."""

import pytest

from controlplane.localcloud.servers.process import free_port
from controlplane.store import cluster, contract, route
from controlplane.store.registry import Registry
from dataplane.tenant_config import TenantConfig, TenantConfigError, verify
from tests.web.site import KEY, KEY_ID, Site, bearer, event

HOST = "acme.tenants.example"

SECRET = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:placements/p-aaaaaaaaaaaa/app-AbCdEf"
ROLE = "arn:aws:iam::123456789012:role/c-aaaaaaaaaaaa"


def payload(tenant_id: str, status: str = "active") -> dict[str, object]:
    return {
        "v": 2,
        "host": HOST,
        "tenant_id": tenant_id,
        "slug": "acme",
        "status": status,
        "plan": "team",
        "pool_size": 5,
        "dedicated": False,
        "release": None,
        "placement": "p-aaaaaaaaaaaa",
        "database": {"host": "db.example", "port": 5432, "name": "d", "secret": SECRET, "role": ROLE},
        "profile": {},
    }


def test_clusters_show_their_slots_and_tenants(site: Site) -> None:
    one = site.found("sub_1")
    two = site.found("sub_2")
    (listed,) = site.get("/v1/clusters").json["items"]
    assert (listed["slots"], listed["used"], listed["free"], listed["ready"]) == (10, 2, 8, False)
    with site.registry.connection() as conn:
        cluster.set_endpoint(conn, listed["id"], {"host": "db.example", "port": 5432})
        assert cluster.mark_reconciled(conn, listed["id"], generation=1)
    shown = site.get(f"/v1/clusters/{listed['id']}").json
    assert shown["tenants"] == sorted([one, two])
    assert (shown["ready"], shown["reconciled"], shown["endpoint"]["host"]) == (True, True, "db.example")
    assert shown["created_to_ready_seconds"] >= 0
    assert [operation["kind"] for operation in shown["operations"]] == ["cluster"]


@pytest.mark.parametrize("name", ["c-aaaaaaaaaaaa", "t-aaaaaaaaaaaa", "x", "%00"])
def test_an_unknown_cluster_is_404(site: Site, name: str) -> None:
    assert site.get(f"/v1/clusters/{name}").status_code == 404


def test_parked_contracts_say_why(site: Site) -> None:
    site.deliver(event("evt_1"))
    with site.registry.connection() as conn:
        for name, outcome in (("sub_a", "parked"), ("sub_b", "applied")):
            created = site.rows("SELECT created_at FROM stripe_event")[0]["created_at"]
            contract.revision(conn, "cus_1")
            contract.heard(conn, "cus_1", [contract.Heard(name, created)])
            contract.record(
                conn,
                name,
                terms=None,
                outcome=outcome,
                reason="unknown price",
                tenant_id=None,
            )
    (parked,) = site.get("/v1/contracts?outcome=parked").json["items"]
    assert (parked["id"], parked["reason"], parked["customer"]) == ("sub_a", "unknown price", "cus_1")
    assert len(site.get("/v1/contracts").json["items"]) == 2


def test_a_host_is_resolved_to_an_entry_that_data_planes_trust(site: Site) -> None:
    tenant_id = site.found("sub_1")
    with site.registry.connection() as conn:
        epoch = route.decide(conn, HOST, tenant_id, payload(tenant_id))
    answer = site.get(f"/v1/resolve?host={HOST.upper()}.", role="dataplane")
    assert answer.headers["Cache-Control"] == "no-store"
    found = TenantConfig.from_payload(verify(answer.json["entry"], host=HOST, keys={KEY_ID: KEY}))
    assert (found.tenant_id, found.epoch) == (tenant_id, epoch)
    with pytest.raises(TenantConfigError, match="signature"):
        verify(answer.json["entry"], host="evil.tenants.example", keys={KEY_ID: KEY})


def test_an_unknown_host_is_not_mistaken_for_a_wrong_address(site: Site) -> None:
    tenant_id = site.found("sub_1")
    with site.registry.connection() as conn:
        route.decide(conn, HOST, tenant_id, payload(tenant_id, "gone"))
    for host in (HOST, "nobody.tenants.example"):
        answer = site.get(f"/v1/resolve?host={host}", role="dataplane")
        assert (answer.status_code, answer.json["error"]["code"]) == (404, "unknown_host")


@pytest.mark.parametrize(
    ("path", "role", "status"),
    [
        ("/v1/events/evt_1", "operator", 200),
        ("/v1/tenants", "nobody", 401),
        ("/v1/tenants", "dataplane", 403),
        ("/v1/tenants/t-none", "viewer", 404),
        ("/v1/no-such-url", "viewer", 404),
        ("/v1/tenants/x/rotate", "operator", 405),
        ("/v1/tenants?limit=0", "viewer", 400),
    ],
)
def test_no_answer_is_kept_by_a_cache(site: Site, path: str, role: str, status: int) -> None:
    """They hold customers' data, and an error may be none a moment later."""
    site.deliver(event("evt_1"))
    answer = site.client.get(path, headers=bearer(role) if role != "nobody" else {})
    assert answer.status_code == status
    assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("path", ["//v1//tenants", "/v1//tenants", "/v1/tenants//", "//webhooks/stripe"])
def test_no_answer_names_the_host_that_a_client_has_made_up(site: Site, path: str) -> None:
    answer = site.client.get(
        path, headers=bearer("viewer") | {"Host": "evil.example", "X-Forwarded-Host": "evil.example"}
    )
    assert (answer.status_code, answer.json["error"]["code"]) == (404, "no_such_url")
    assert "evil.example" not in str(answer.headers) + answer.text


def test_the_summary_counts_what_there_is(site: Site) -> None:
    empty = site.get("/v1/summary").json
    assert empty["tenants"]["phases"]["active"] == 0
    assert empty["events"] == {"received": 0, "parked": 0, "oldest_received_seconds": 0}
    site.found("sub_1")
    site.found("sub_2")
    site.found("sub_3")
    site.rows("UPDATE tenant SET ready_at = now() WHERE slug = 'acme'")
    site.rows("UPDATE tenant SET needs_attention = 'x', runbook = 'y' WHERE slug <> 'acme'")
    site.deliver(event("evt_1"))
    site.deliver(event("evt_2", livemode=True))
    found = site.get("/v1/summary").json
    assert found["tenants"] == {
        "phases": {**empty["tenants"]["phases"], "active": 1, "pending": 2},
        "needs_attention": 2,
    }
    assert found["clusters"] == {
        "total": 1,
        "ready": 0,
        "slots": 10,
        "used_slots": 3,
        "free_slots": 7,
        "needs_attention": 0,
        "outdated": 0,
        "drifted": 0,
    }
    assert found["operations"] == {"waiting": 4, "running": 0}
    assert (found["events"]["received"], found["events"]["parked"]) == (1, 1)
    assert found["events"]["oldest_received_seconds"] > 0
    assert found["contracts"] == {}


def test_a_registry_that_is_down_is_503_everywhere() -> None:
    with Registry(f"postgresql://127.0.0.1:{free_port()}/x", wait=0.1) as registry:
        site = Site(registry)
        for path in ("tenants", "operations", "events", "clusters", "contracts", "summary"):
            answer = site.get(f"/v1/{path}")
            assert (answer.status_code, answer.json["error"]["code"]) == (503, "unavailable")
            assert answer.headers["Retry-After"]
