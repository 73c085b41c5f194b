from controlplane.domain.job import JobKind, Lane
from tests.web.site import Site


def _ready(site: Site) -> str:
    tenant_id = site.found("sub_1", name="Acme")
    site.rows("UPDATE tenant SET ready_at = now()")
    return tenant_id


def test_a_clone_is_asked_for_shown_and_closed(site: Site) -> None:
    tenant_id = _ready(site)
    answer = site.post("/v1/tenants/acme/clone", {"slug": "acme-copy", "reason": "a ticket"})
    assert answer.status_code == 202
    clone_id = answer.json["tenant"]
    assert site.wake_ups == [Lane.QUICK]
    assert site.jobs(JobKind.TENANT) == [(JobKind.TENANT, tenant_id), (JobKind.TENANT, clone_id)]
    shown = site.get("/v1/tenants/acme-copy").json
    assert (shown["clone_of"], shown["customer"], shown["spec"]["plan"]) == (tenant_id, "internal", "team")
    assert site.get("/v1/tenants/acme").json["clone_of"] is None
    carried = shown["transfer"]
    assert (carried["kind"], carried["phase"], carried["to"]) == ("clone", "preparing", None)
    for word in ("confirm-transfer", "abort-transfer"):
        refused = site.post(f"/v1/tenants/acme-copy/{word}", {"reason": "x"})
        assert (refused.status_code, refused.json["error"]["code"]) == (409, "conflict")
    closed = site.post("/v1/tenants/acme-copy/close", {"reason": "done"})
    assert closed.status_code == 202
    assert site.get("/v1/tenants/acme-copy").json["spec"]["lifecycle"] == "closed"
    assert site.post("/v1/tenants/acme/close", {"reason": "oops"}).status_code == 409


def test_a_dry_run_makes_nothing(site: Site) -> None:
    tenant_id = _ready(site)
    answer = site.post("/v1/tenants/acme/clone", {"slug": "acme-copy", "dry_run": True})
    assert answer.status_code == 200
    planned = answer.json["plan"]
    assert (planned["of"], planned["host"]) == (tenant_id, "acme-copy.tenants.example")
    assert site.get("/v1/tenants/acme-copy").status_code == 404


def test_what_is_refused(site: Site) -> None:
    site.found("sub_1", name="Acme")
    early = {"slug": "acme-copy", "reason": "x"}
    assert site.post("/v1/tenants/acme/clone", early).status_code == 409
    site.rows("UPDATE tenant SET ready_at = now()")
    for wrong in ({"slug": "Acme Copy"}, {"slug": 1}, {}, {"slug": "acme-copy", "dry_run": 1}):
        answer = site.post("/v1/tenants/acme/clone", {"reason": "x", **wrong})
        assert (answer.status_code, answer.json["error"]["code"]) == (400, "invalid")
    assert site.post("/v1/tenants/acme/clone", {"slug": "acme", "reason": "x"}).status_code == 409
