from datetime import UTC, datetime, timedelta

from controlplane.domain.job import JobKind, Lane
from tests.web.site import Site


def test_a_tenant_is_renamed_and_shows_from_where_it_redirects(site: Site) -> None:
    tenant_id = site.found("sub_1", name="Acme")
    asked = {"slug": "acme-two", "redirect_days": 3, "reason": "a new name"}
    answer = site.post("/v1/tenants/acme/rename", asked)
    assert answer.status_code == 202
    recorded = answer.json["recorded"]
    until = datetime.fromisoformat(recorded.pop("redirects_until"))
    assert abs(until - datetime.now(UTC) - timedelta(days=3)) < timedelta(minutes=5)
    assert recorded == {
        "slug": "acme-two",
        "host": "acme-two.tenants.example",
        "former_slug": "acme",
        "former_host": "acme.tenants.example",
    }
    assert site.wake_ups == [Lane.QUICK]
    assert site.jobs(JobKind.TENANT) == [(JobKind.TENANT, tenant_id)]
    shown = site.get("/v1/tenants/acme-two").json
    assert (shown["id"], shown["host"]) == (tenant_id, "acme-two.tenants.example")
    own, former = shown["hostnames"]
    assert own == {"host": "acme-two.tenants.example", "kind": "subdomain", "serves": None}
    assert datetime.fromisoformat(former.pop("until")).replace(microsecond=0) == until
    assert former == {"host": "acme.tenants.example", "kind": "former", "serves": None}


def test_a_former_slug_finds_the_tenant_for_who_reads_and_for_nobody_who_acts(site: Site) -> None:
    tenant_id = site.found("sub_1", name="Acme")
    assert site.get("/v1/tenants/acme").json["found_by"] is None
    site.post("/v1/tenants/acme/rename", {"slug": "acme-two", "reason": "a new name"})
    for name in ("acme", "acme.tenants.example"):
        shown = site.get(f"/v1/tenants/{name}").json
        assert (shown["id"], shown["slug"], shown["found_by"]) == (tenant_id, "acme-two", "former slug")
    before = site.rows("SELECT * FROM audit")
    for body in ({"reason": "x"}, {"dry_run": True}):
        refused = site.post("/v1/tenants/acme/reprovision", body)
        assert (refused.status_code, refused.json["error"]["message"]) == (
            404,
            f"no tenant is called acme: it is the former slug of acme-two ({tenant_id})",
        )
    assert site.rows("SELECT * FROM audit") == before
    site.rows("UPDATE tenant SET former_slugs = '{}'")
    assert site.get("/v1/tenants/acme").status_code == 404


def test_a_dry_run_says_from_where_to_where_and_until_when(site: Site) -> None:
    site.found("sub_1", name="Acme")
    answer = site.post("/v1/tenants/acme/rename", {"slug": "acme-two", "dry_run": True})
    assert answer.status_code == 200
    plan = answer.json["plan"]
    assert (plan["former_host"], plan["host"]) == ("acme.tenants.example", "acme-two.tenants.example")
    until = datetime.fromisoformat(plan["redirects_until"])
    assert abs(until - datetime.now(UTC) - timedelta(days=30)) < timedelta(minutes=5)
    assert site.get("/v1/tenants/acme").json["slug"] == "acme"


def test_the_slug_that_it_has_is_nothing_new(site: Site) -> None:
    site.found("sub_1", name="Acme")
    answer = site.post("/v1/tenants/acme/rename", {"slug": "acme", "reason": "again"})
    assert (answer.status_code, list(answer.json)) == (200, ["recorded"])
    assert answer.json["recorded"]["state"] == "nothing to do: it is called so"
    planned = site.post("/v1/tenants/acme/rename", {"slug": "acme", "dry_run": True}).json["plan"]
    assert planned == answer.json["recorded"]
    assert site.wake_ups == []
    assert site.rows("SELECT FROM audit WHERE action = 'tenant.slug'") == []


def test_what_is_refused(site: Site) -> None:
    site.found("sub_1", name="Acme")
    site.found("sub_2", name="Globex")
    assert site.post("/v1/tenants/acme/rename", {"slug": "acme-two", "reason": "x"}).status_code == 202
    for slug, status in (("acme", 409), ("acme-two", 409), ("www", 400), ("Globex Two", 400), (1, 400)):
        for body in ({"slug": slug, "reason": "x"}, {"slug": slug, "dry_run": True}):
            assert site.post("/v1/tenants/globex/rename", body).status_code == status
    for days in (-1, 366, "7", True):
        wrong = site.post("/v1/tenants/globex/rename", {"slug": "free", "redirect_days": days, "reason": "x"})
        assert (wrong.status_code, wrong.json["error"]["field"]) == (400, "redirect_days")
    ready = "UPDATE tenant SET ready_at = now() WHERE slug = 'globex'"
    site.rows(ready)
    taken = site.post("/v1/tenants/globex/clone", {"slug": "acme", "dry_run": True})
    assert taken.status_code == 409, "a clone does not get it either"
    closed = site.closed("sub_3")
    assert site.post(f"/v1/tenants/{closed}/rename", {"slug": "too-late", "reason": "x"}).status_code == 409
