import pytest

from controlplane.domain.job import Job, JobKind, Lane, Trouble
from controlplane.domain.steps import Step, StepName, StepState
from controlplane.store import job, step
from controlplane.store.registry import Connection
from tests.web.site import Site, bearer


def claimed(site: Site, tenant_id: str) -> Job:
    with site.registry.connection() as conn:
        held = job.claim(
            conn, Lane.QUICK, holder="test", seconds=60, kinds=[JobKind.TENANT], subject=tenant_id
        )
    assert held is not None
    return held


def note(site: Site, held: Job, seq: int, message: str) -> None:
    with site.registry.connection() as conn:
        step.note(
            conn, held, seq, kind="done", address="aws_x.y", action="create", seconds=1.5, message=message
        )


def test_an_operation_shows_its_steps_and_their_seconds(site: Site) -> None:
    tenant_id = site.found("sub_1")
    held = claimed(site, tenant_id)
    with site.registry.connection() as conn:
        first = step.begin(conn, held, Step(StepName.ANNOUNCE, "say that it is coming"))
        step.end(conn, held, first, StepState.DONE, error=None)
        step.begin(conn, held, Step(StepName.PUBLISH, "the route changed", target="acme"))
        conn.execute(
            "UPDATE step SET started_at = '2026-01-01 00:00:00Z', finished_at ="
            " CASE state WHEN 'done' THEN timestamptz '2026-01-01 00:00:02.5Z' END"
        )
    site.clock = 1767225607.0  # seven seconds into 2026
    shown = site.get(f"/v1/operations/{held.id}").json
    assert (shown["state"], shown["kind"], shown["resource"]) == ("running", "tenant", tenant_id)
    done, running = shown["steps"]
    assert (done["name"], done["state"], done["seconds"]) == ("announce", "done", 2.5)
    assert (running["target"], running["state"], running["seconds"]) == ("acme", "running", 7.0)
    assert running["finished_at"] is None


def test_progress_is_read_from_where_the_reader_stopped(site: Site) -> None:
    tenant_id = site.found("sub_1")
    held = claimed(site, tenant_id)
    with site.registry.connection() as conn:
        seq = step.begin(conn, held, Step(StepName.CREATE_DATABASE, "nothing is there"))
    note(site, held, seq, "one")
    url = f"/v1/operations/{held.id}"
    first = site.get(url).json
    assert [found["message"] for found in first["events"]] == ["one"]
    assert site.get(f"{url}?events_after={first['events_after']}").json["events"] == []
    note(site, held, seq, "two")
    second = site.get(f"{url}?events_after={first['events_after']}").json
    assert [found["message"] for found in second["events"]] == ["two"]
    assert second["events_after"] > first["events_after"]
    assert (
        site.get(f"{url}?events_after={second['events_after']}").json["events_after"]
        == (second["events_after"])
    )


def test_operations_are_filtered_by_resource_and_state(site: Site) -> None:
    one = site.found("sub_1")
    two = site.found("sub_2")
    held = claimed(site, one)
    with site.registry.connection() as conn:
        job.park(conn, held, Trouble("no quota", None, "aws-quota"))
    (parked,) = site.get(f"/v1/operations?resource={one}").json["items"]
    assert (parked["state"], parked["error"], parked["runbook"]) == ("parked", "no quota", "aws-quota")
    assert parked["next_attempt_at"] is None
    assert {item["resource"] for item in site.get("/v1/operations?state=parked").json["items"]} == {one}
    waiting = site.get(f"/v1/operations?state=waiting&resource={two}").json["items"]
    assert [item["resource"] for item in waiting] == [two]
    (cluster,) = [i for i in site.get("/v1/operations").json["items"] if i["kind"] == "cluster"]
    assert site.get(f"/v1/operations?resource={cluster['resource']}").json["items"] == [cluster]


def test_an_unknown_operation_is_404(site: Site) -> None:
    for unknown in ("0", "12", "x", "-1", "9" * 19, "9" * 40, "%00", "1e3", "²"):
        assert site.get(f"/v1/operations/{unknown}").status_code == 404


def test_who_asked_is_kept_with_the_id_of_each_request(site: Site) -> None:
    tenant_id = site.found("sub_1")
    for number, role in enumerate(("operator", "second")):
        headers = bearer(role) | {"X-Request-ID": f"req-{number}"}
        body = {"reason": f"reason {number}"}
        assert site.client.post("/v1/tenants/acme/reprovision", json=body, headers=headers).status_code == 202
    [shown] = site.get(f"/v1/operations?resource={tenant_id}").json["items"]
    assert (shown["reason"], shown["actor"], shown["cause_count"]) == ("a test", "billing", 3)
    assert [(c["actor"], c["reason"], c["event"], c["request"]) for c in shown["causes"]] == [
        ("billing", "a test", None, None),
        ("api:operator-bot", "reason 0", None, "req-0"),
        ("api:second-bot", "reason 1", None, "req-1"),
    ]
    assert site.get(f"/v1/operations/{shown['id']}").json["causes"] == shown["causes"]
    assert site.get("/v1/tenants/acme").json["operations"][0]["causes"] == shown["causes"]


def test_what_is_shown_is_of_one_moment(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that begins while the steps are read comes with the next look, and so do its events: whoever
    watches asks for those behind the last one that was shown."""
    held = claimed(site, site.found("sub_1"))
    steps = step.of_operation

    def read_and_begin(conn: Connection, operation_id: int) -> list[step.StepRow]:
        found = steps(conn, operation_id)
        with site.registry.connection() as other:
            seq = step.begin(other, held, Step(StepName.PUBLISH, "the route changed"))
        note(site, held, seq, "created")
        return found

    monkeypatch.setattr(step, "of_operation", read_and_begin)
    shown = site.get(f"/v1/operations/{held.id}").json
    assert (shown["steps"], shown["events"], shown["events_after"]) == ([], [], 0)
