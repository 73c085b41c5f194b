from typing import Any

import pytest
from psycopg.types.json import Jsonb

from controlplane.domain.job import JobKind, Lane
from controlplane.domain.placement import tenant_id_for
from controlplane.store import job, operation, route
from controlplane.store.operation import OperationRow
from controlplane.store.registry import Connection
from tests.harness.queue import claimed
from tests.web.site import Site

GHOST = "t-aaaaaaaaaaaa"


def test_a_tenant_is_listed_and_shown_by_id_and_by_slug(site: Site) -> None:
    tenant_id = site.found("sub_1", name="Acme")
    (listed,) = site.get("/v1/tenants").json["items"]
    assert (listed["id"], listed["slug"], listed["phase"]) == (tenant_id, "acme", "pending")
    assert listed["host"] == "acme.tenants.example"
    by_id, by_slug = site.get(f"/v1/tenants/{tenant_id}"), site.get("/v1/tenants/acme")
    assert by_id.status_code == 200
    assert by_id.json == by_slug.json
    shown = by_id.json
    assert shown["spec"]["plan"] == "team"
    assert shown["placement"]["database"] == shown["placement"]["id"].replace("-", "_")
    assert shown["needs_attention"] is None
    assert [operation["state"] for operation in shown["operations"]] == ["waiting"]
    assert shown["timings"]["paid_to_ready_seconds"] is None


def test_a_tenant_and_its_operations_are_of_one_moment(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker ends between two of the queries."""
    tenant_id = site.found("sub_1")
    queries = operation.page

    def ended_meanwhile(conn: Connection, **asked: Any) -> list[OperationRow]:
        site.rows("UPDATE tenant SET observed_generation = generation")
        with site.registry.connection() as other:
            job.finish(other, claimed(site.registry, kinds=[JobKind.TENANT]))
        return queries(conn, **asked)

    with monkeypatch.context() as patched:
        patched.setattr(operation, "page", ended_meanwhile)
        before = site.get(f"/v1/tenants/{tenant_id}").json
    after = site.get(f"/v1/tenants/{tenant_id}").json
    states = [(shown["reconciled"], shown["operations"][0]["state"]) for shown in (before, after)]
    assert states == [(False, "waiting"), (True, "done")]


def test_the_way_from_paid_to_ready_is_timed(site: Site) -> None:
    tenant_id = site.found("sub_1")
    site.rows(
        "UPDATE tenant SET paid_at = '2026-01-01 00:00:00Z', started_at = '2026-01-01 00:00:01.5Z',"
        " ready_at = '2026-01-01 00:00:04.25Z', observed_generation = generation"
    )
    shown = site.get(f"/v1/tenants/{tenant_id}").json
    assert shown["timings"] == {
        "paid_at": "2026-01-01T00:00:00.000Z",
        "started_at": "2026-01-01T00:00:01.500Z",
        "ready_at": "2026-01-01T00:00:04.250Z",
        "paid_to_started_seconds": 1.5,
        "paid_to_ready_seconds": 4.25,
    }
    assert (shown["phase"], shown["reconciled"]) == ("active", True)


def test_what_needs_attention_names_its_runbook(site: Site) -> None:
    tenant_id = site.found("sub_1")
    site.rows("UPDATE tenant SET needs_attention = 'no quota', runbook = 'aws-quota'")
    assert site.get(f"/v1/tenants/{tenant_id}").json["needs_attention"] == {
        "reason": "no quota",
        "runbook": "aws-quota",
    }


def test_a_custom_domain_shows_what_the_customer_must_set(site: Site) -> None:
    tenant_id = site.found("sub_1", name="Acme", domains=("app.acme.example",))
    proof = {"kind": "txt", "name": "_cf-custom-hostname.app.acme.example", "value": "abc"}
    site.rows(
        "UPDATE hostname SET status = 'pending', ssl_status = 'pending_validation',"
        " records = %s, errors = %s",
        Jsonb([proof]),
        Jsonb(["not yet"]),
    )
    with site.registry.connection() as conn:
        route.decide(conn, "acme.tenants.example", tenant_id, {"status": "active"})
    own, custom = site.get(f"/v1/tenants/{tenant_id}").json["hostnames"]
    assert own == {"host": "acme.tenants.example", "kind": "subdomain", "serves": "active"}
    assert custom["dns"] == [
        {"kind": "cname", "name": "app.acme.example", "value": "acme.tenants.example"},
        proof,
    ]
    assert (custom["status"], custom["ssl_status"]) == ("pending", "pending_validation")
    assert (custom["serves"], custom["errors"], custom["refused"]) == (None, ["not yet"], None)


@pytest.mark.parametrize("name", [GHOST, "ghost", "A", "a b", "a%00b", "é", "x" * 65, "'; DROP TABLE tenant"])
def test_an_unknown_tenant_is_404(site: Site, name: str) -> None:
    answer = site.get(f"/v1/tenants/{name}")
    assert answer.status_code == 404
    assert answer.json["error"]["code"] == "not_found"
    assert site.post(f"/v1/tenants/{name}/reprovision", {"reason": "x"}).status_code == 404


def test_a_customer_that_wishes_to_be_called_like_an_id_is_not(site: Site) -> None:
    other = site.found("sub_other", name="Other")
    for number, requested in enumerate((other, other.upper(), "t-abcdefghijkl", "c-abcdefghijkl")):
        own = site.found(f"sub_{number}", name=requested)
        assert site.get(f"/v1/tenants/{own}").json["slug"] == own
    assert site.get(f"/v1/tenants/{other}").json["slug"] == "other"
    assert site.get("/v1/tenants/t-abcdefghijkl").status_code == 404


def test_an_id_names_its_tenant_before_anybody_who_is_called_so(site: Site) -> None:
    """A slug that was given before such ones were refused: it goes on being served, and misleads nobody."""
    other = site.found("sub_other", name="Other")
    alike = site.found("sub_alike", name="Alike")
    site.rows("UPDATE tenant SET slug = %s WHERE id = %s", other, alike)
    assert site.get(f"/v1/tenants/{other}").json["id"] == other
    assert site.get(f"/v1/tenants/{alike}").json["host"] == f"{other}.tenants.example"


def test_reprovision_asks_for_one_operation_and_notifies(site: Site) -> None:
    tenant_id = site.found("sub_1", name="Acme")
    answer = site.post("/v1/tenants/acme/reprovision", {"reason": " database was restored "})
    assert answer.status_code == 202
    operation = answer.json["operation"]
    assert answer.headers["Location"] == f"/v1/operations/{operation['id']}"
    cause = operation["causes"][-1]
    assert (cause["reason"], cause["actor"]) == ("database was restored", "api:operator-bot")
    assert (operation["resource"], operation["state"]) == (tenant_id, "waiting")
    assert sorted(site.wake_ups) == [Lane.LONG, Lane.QUICK], "its cluster is not ready either"
    [home] = site.rows("SELECT cluster_id FROM placement")
    assert site.jobs() == [(JobKind.CLUSTER, home["cluster_id"]), (JobKind.TENANT, tenant_id)]
    (audited,) = site.rows("SELECT actor FROM audit WHERE action = 'tenant.reprovision'")
    assert audited == {"actor": "api:operator-bot"}


def test_rotate_asks_for_new_passwords_and_notifies(site: Site) -> None:
    tenant_id = site.found("sub_1", name="Acme")
    for _ in range(2):
        answer = site.post("/v1/tenants/acme/rotate", {"reason": "a laptop was lost"})
        assert answer.status_code == 202
    operation = answer.json["operation"]
    assert answer.headers["Location"] == f"/v1/operations/{operation['id']}"
    assert [cause["reason"] for cause in operation["causes"]] == ["a test", *["a laptop was lost"] * 2]
    assert operation["resource"] == tenant_id
    assert site.wake_ups == [Lane.QUICK] * 2
    assert site.jobs(JobKind.TENANT) == [(JobKind.TENANT, tenant_id)]
    assert site.rows("SELECT requested, generation FROM placement") == [{"requested": 2, "generation": 1}]
    credential = site.get("/v1/tenants/acme").json["credential"]
    assert (credential["generation"], credential["rotation_requested"], credential["retiring"]) == (
        1,
        True,
        False,
    )
    assert credential["rotated_at"]
    actors = site.rows("SELECT actor FROM audit WHERE action = 'tenant.rotate'")
    assert actors == [{"actor": "api:operator-bot"}] * 2


def test_a_closed_tenant_has_no_logins_to_rotate(site: Site) -> None:
    tenant_id = site.found("sub_1", name="Acme")
    site.rows("UPDATE tenant SET spec = spec || %s", Jsonb({"lifecycle": "closed"}))
    answer = site.post(f"/v1/tenants/{tenant_id}/rotate", {"reason": "x"})
    assert answer.status_code == 409
    assert site.post(f"/v1/tenants/{tenant_id}/rotate", {"reason": ""}).json["error"]["code"] == "invalid"


def test_reprovision_twice_is_one_operation(site: Site) -> None:
    tenant_id = site.found("sub_1")
    first, second = (
        site.post(f"/v1/tenants/{tenant_id}/reprovision", {"reason": "x"}).json["operation"]["id"]
        for _ in range(2)
    )
    assert first == second


def test_a_dry_run_asks_for_a_preview_and_changes_nothing(site: Site) -> None:
    tenant_id = site.found("sub_1")
    before = site.rows("SELECT * FROM operation")
    answer = site.post(f"/v1/tenants/{tenant_id}/reprovision", {"dry_run": True})
    assert answer.status_code == 202
    preview = answer.json["preview"]
    assert answer.headers["Location"] == f"/v1/previews/{preview['id']}"
    assert site.wake_ups == [Lane.LONG]
    assert site.jobs(JobKind.PREVIEW) == [(JobKind.PREVIEW, str(preview["id"]))]
    assert site.rows("SELECT * FROM operation") == before
    shown = site.get(f"/v1/previews/{preview['id']}").json
    assert (shown["tenant"], shown["state"], shown["steps"]) == (tenant_id, "waiting", None)
    assert shown["actor"] == "api:operator-bot"


def test_a_finished_preview_shows_steps_and_changes(site: Site) -> None:
    tenant_id = site.found("sub_1")
    preview_id = site.post(f"/v1/tenants/{tenant_id}/reprovision", {"dry_run": True}).json["preview"]["id"]
    site.rows(
        "UPDATE preview SET state = 'done', finished_at = now(),"
        """ steps = '[{"name": "publish", "target": "", "reason": "why"}]', changes = '[]'"""
    )
    shown = site.get(f"/v1/previews/{preview_id}").json
    assert shown["steps"] == [{"name": "publish", "target": "", "reason": "why"}]
    assert (shown["changes"], shown["state"]) == ([], "done")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "reason"),
        ({"reason": ""}, "reason"),
        ({"reason": "   "}, "reason"),
        ({"reason": 7}, "reason"),
        ({"reason": "x" * 201}, "reason"),
        ({"reason": "a\0b"}, "reason"),
        ({"reason": "a\nb"}, "reason"),
        ({"reason": "\ud800"}, "reason"),
        ({"reason": "", "dry_run": True}, "reason"),
        ({"reason": "x", "dry_run": "yes"}, "dry_run"),
        ({"reason": "x", "dry_run": None}, "dry_run"),
        ({"reason": "x", "force": True}, "force"),
        ([], "body"),
        ("x", "body"),
    ],
)
def test_a_wrong_request_names_its_field(site: Site, body: object, field: str) -> None:
    tenant_id = site.found("sub_1")
    answer = site.post(f"/v1/tenants/{tenant_id}/reprovision", body)
    assert answer.status_code == 400
    assert answer.json["error"]["field"] == field
    assert answer.json["error"]["code"] == "invalid"
    assert site.wake_ups == []


@pytest.mark.parametrize(
    ("data", "kind", "status"),
    [
        (b"", "application/json", 400),
        (b"{", "application/json", 400),
        (b"\xff", "application/json", 400),
        (b"[" * 50_000, "application/json", 400),
        (b'{"reason": "x"}', "text/plain", 415),
        (b"reason=x", "application/x-www-form-urlencoded", 415),
        (b'"' + b"x" * 300_000 + b'"', "application/json", 413),
    ],
)
def test_a_body_that_is_no_json_object_is_refused(site: Site, data: bytes, kind: str, status: int) -> None:
    tenant_id = site.found("sub_1")
    answer = site.client.post(
        f"/v1/tenants/{tenant_id}/reprovision",
        data=data,
        content_type=kind,
        headers={"Authorization": "Bearer operator-token-of-22-characters"},
    )
    assert answer.status_code == status
    assert answer.json["error"]["message"]


@pytest.mark.parametrize("preview", ["0", "1", "x", "-1", "1.0", "9" * 19, "9" * 30, "9" * 5000])
def test_an_unknown_preview_is_404(site: Site, preview: str) -> None:
    assert site.get(f"/v1/previews/{preview}").status_code == 404


def test_a_lost_wake_up_does_not_lose_the_operation(site: Site) -> None:
    site.broker_down = True
    tenant_id = site.found("sub_1")
    assert site.post(f"/v1/tenants/{tenant_id}/reprovision", {"reason": "x"}).status_code == 202
    assert tenant_id == tenant_id_for("sub_1")
    assert site.rows("SELECT resource_id FROM operation WHERE state = 'waiting' AND kind = 'tenant'") == [
        {"resource_id": tenant_id}
    ]


def test_a_custom_domain_that_was_refused_is_shown_with_the_reason(site: Site) -> None:
    site.found("sub_1", name="First", domains=("app.acme.example",))
    tenant_id = site.found("sub_2", name="Second", domains=("app.acme.example",))
    shown = site.get(f"/v1/tenants/{tenant_id}").json
    assert shown["spec"]["custom_domains"] == []
    assert [(host["host"], host["kind"], host.get("status")) for host in shown["hostnames"]] == [
        ("second.tenants.example", "subdomain", None),
        ("app.acme.example", "custom", "refused"),
    ]
    assert shown["hostnames"][1]["refused"] == "belongs to another tenant"
    assert shown["needs_attention"] == {
        "reason": "custom domain app.acme.example belongs to another tenant",
        "runbook": "hostname-conflict",
    }
    (notification,) = site.get("/v1/notifications").json["items"]
    assert (notification["tenant"], notification["kind"]) == (tenant_id, "needs_attention")


def contract(site: Site, name: str, customer: str, *, tenant: str | None, outcome: str = "applied") -> None:
    site.rows("INSERT INTO customer (id) VALUES (%s) ON CONFLICT DO NOTHING", customer)
    site.rows(
        "INSERT INTO contract (id, customer_id, tenant_id, outcome, reason, first_event_at)"
        " VALUES (%s, %s, %s, %s, 'several', now())",
        name,
        customer,
        tenant,
        outcome,
    )


def test_a_tenant_is_found_by_whatever_support_has_of_it(site: Site) -> None:
    tenant_id = site.found("sub_1", name="Acme", domains=("app.acme.example",))
    contract(site, "sub_1", "cus_sub_1", tenant=tenant_id)
    site.found("sub_2", name="Other", domains=("app.other.example",))
    for name, found_by in {
        tenant_id: None,
        "acme": None,
        "acme.tenants.example": None,
        "app.acme.example": "custom domain",
        "cus_sub_1": "customer",
        "sub_1": "contract",
    }.items():
        shown = site.get(f"/v1/tenants/{name}").json
        assert (shown["id"], shown["found_by"]) == (tenant_id, found_by)
    for name in ("app.acme.example", "cus_sub_1", "sub_1"):
        refused = site.post(f"/v1/tenants/{name}/reprovision", {"reason": "x"})
        assert refused.status_code == 404
        assert f"of acme ({tenant_id})" in refused.json["error"]["message"]


def test_what_names_no_one_tenant_says_what_it_is(site: Site) -> None:
    first, second = site.found("sub_1", name="Acme"), site.found("sub_2", name="Other")
    site.rows("UPDATE tenant SET customer_id = 'cus_1'")
    several = site.get("/v1/tenants/cus_1")
    assert several.status_code == 409
    assert all(each in several.json["error"]["message"] for each in (f"acme ({first})", f"other ({second})"))
    contract(site, "sub_3", "cus_1", tenant=None, outcome="parked")
    waits = site.get("/v1/tenants/sub_3")
    assert (waits.status_code, waits.json["error"]["message"]) == (
        404,
        "contract sub_3 is parked and for no tenant: several",
    )


def test_a_slug_is_meant_before_a_customer_that_is_called_so(site: Site) -> None:
    """Imports give customers ids of any form."""
    tenant_id = site.found("sub_1", name="Acme")
    site.found("sub_2", name="Other")
    site.rows("UPDATE tenant SET customer_id = 'acme' WHERE slug = 'other'")
    assert site.get("/v1/tenants/acme").json["id"] == tenant_id


def test_a_tenant_shows_that_a_worker_is_to_decide_about_it(site: Site) -> None:
    site.found("sub_1", name="Acme")
    assert site.get("/v1/tenants/acme").json["deciding"] is False
    held = {"kind": "suspend", "days": 1, "reason": "x"}
    assert site.post("/v1/tenants/acme/hold", held).status_code == 200
    assert site.get("/v1/tenants/acme").json["deciding"] is True
    with site.registry.connection() as conn:
        assert job.claim(conn, Lane.QUICK, holder="w", seconds=60, kinds=[JobKind.INTAKE]) is not None
    assert site.get("/v1/tenants/acme").json["deciding"] is True
    site.rows("DELETE FROM job WHERE kind = 'intake'")
    assert site.get("/v1/tenants/acme").json["deciding"] is False
