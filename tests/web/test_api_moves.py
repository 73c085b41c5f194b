from controlplane.domain.job import JobKind, Lane
from tests.web.site import Site

GHOST = "t-aaaaaaaaaaaa"


def _ready(site: Site) -> str:
    tenant_id = site.found("sub_1", name="Acme")
    site.rows("UPDATE tenant SET ready_at = now()")
    return tenant_id


def test_a_move_is_asked_for_and_shown(site: Site) -> None:
    tenant_id = _ready(site)
    answer = site.post("/v1/tenants/acme/move", {"to": "dedicated", "reason": "it grows"})
    assert answer.status_code == 202
    operation = answer.json["operation"]
    assert answer.headers["Location"] == f"/v1/operations/{operation['id']}"
    assert site.wake_ups == [Lane.QUICK]
    assert (JobKind.TENANT, tenant_id) in site.jobs()
    shown = site.get("/v1/tenants/acme").json
    assert not shown["reconciled"]
    named = ("kind", "to", "phase", "actor", "from_placement", "pause_seconds")
    assert {key: shown["transfer"][key] for key in named} == {
        "kind": "move",
        "to": "dedicated",
        "phase": "preparing",
        "actor": "api:operator-bot",
        "from_placement": shown["placement"]["id"],
        "pause_seconds": None,
    }
    again = site.post("/v1/tenants/acme/move", {"to": "dedicated", "reason": "it grows"})
    assert again.status_code == 409


def test_a_move_is_confirmed_or_aborted_where_that_can_be(site: Site) -> None:
    _ready(site)
    assert site.post("/v1/tenants/acme/confirm-transfer", {"reason": "x"}).status_code == 409
    site.post("/v1/tenants/acme/move", {"to": "dedicated", "reason": "it grows"})
    assert site.post("/v1/tenants/acme/confirm-transfer", {"reason": "x"}).status_code == 409
    assert site.post("/v1/tenants/acme/abort-transfer", {"reason": "x"}).status_code == 202
    assert site.rows("SELECT phase, declined FROM transfer") == [{"phase": "aborted", "declined": True}]
    site.rows("UPDATE transfer SET phase = 'reversible'")
    assert site.post("/v1/tenants/acme/abort-transfer", {"reason": "x"}).status_code == 409
    assert site.post("/v1/tenants/acme/confirm-transfer", {"reason": "x"}).status_code == 202
    written = site.rows(
        "SELECT action, detail->>'kind' AS kind FROM audit WHERE action LIKE 'transfer%%' ORDER BY seq"
    )
    assert [(row["action"], row["kind"]) for row in written] == [
        ("transfer.begin", "move"),
        ("transfer.aborted", "move"),
        ("transfer.confirmed", "move"),
    ]


def test_a_dry_run_is_a_workers_to_work_out(site: Site) -> None:
    tenant_id = _ready(site)
    answer = site.post("/v1/tenants/acme/move", {"to": "dedicated", "dry_run": True})
    assert answer.status_code == 202
    assert answer.json["preview"]["tenant"] == tenant_id
    assert site.wake_ups == [Lane.LONG]
    assert site.jobs(JobKind.PREVIEW) == [(JobKind.PREVIEW, str(answer.json["preview"]["id"]))]
    assert site.rows("SELECT transfer FROM preview") == [{"transfer": {"to": "dedicated"}}]
    assert site.rows("SELECT FROM transfer") == []


def test_what_is_refused(site: Site) -> None:
    site.found("sub_1", name="Acme")
    for wrong in ({"to": "elsewhere"}, {"to": 1}, {}, {"to": "dedicated", "dry_run": "yes"}):
        answer = site.post("/v1/tenants/acme/move", {"reason": "x", **wrong})
        assert (answer.status_code, answer.json["error"]["code"]) == (400, "invalid")
    assert site.post("/v1/tenants/acme/move", {"to": "dedicated"}).json["error"]["code"] == "invalid"
    assert site.post("/v1/tenants/acme/move", {"to": "dedicated", "reason": "x"}).status_code == 409
    assert site.post(f"/v1/tenants/{GHOST}/move", {"to": "dedicated", "reason": "x"}).status_code == 404
    unknown = {"to": "c-aaaaaaaaaaaa", "reason": "x"}
    site.rows("UPDATE tenant SET ready_at = now()")
    assert site.post("/v1/tenants/acme/move", unknown).status_code == 404
