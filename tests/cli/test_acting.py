"""Reprovision, replay, watch: a thread plays the worker."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from controlplane.cli import events, watching
from controlplane.cli.api import Api, Json
from controlplane.cli.failure import Unreachable
from controlplane.domain.job import Job, JobKind, Lane, Trouble
from controlplane.domain.steps import Step, StepName, StepState
from controlplane.domain.tenant import Lifecycle
from controlplane.localcloud.servers.process import free_port
from controlplane.store import job, step, tenant
from tests.cli.conftest import Desk
from tests.web.site import Site, event


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "POLL", 0.02)


@contextmanager
def meanwhile(act: Callable[[], None]) -> Iterator[None]:
    """Another thread acts; what it raises is raised here at the end."""
    failed: list[BaseException] = []

    def run() -> None:
        try:
            act()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    yield
    thread.join()
    if failed:
        raise failed[0]


def claim(site: Site, tenant_id: str) -> Job:
    for _ in range(200):
        with site.registry.connection() as conn:
            held = job.claim(
                conn, Lane.QUICK, holder="test", seconds=60, kinds=[JobKind.TENANT], subject=tenant_id
            )
        if held is not None:
            return held
        time.sleep(0.02)
    raise AssertionError("nothing to claim")


def end(site: Site, held: Job) -> None:
    with site.registry.connection() as conn:
        job.finish(conn, held)


def work(site: Site, held: Job) -> None:
    """Two steps with progress."""
    with site.registry.connection() as conn:
        first = step.begin(conn, held, Step(StepName.CREATE_DATABASE, "nothing is there"))
        for kind, seconds in (("started", None), ("done", 1.25)):
            step.note(
                conn,
                held,
                first,
                kind=kind,
                address="aws_iam_role.app",
                action="create",
                seconds=seconds,
                message="",
            )
            time.sleep(0.1)
        step.end(conn, held, first, StepState.DONE, error=None)
        second = step.begin(conn, held, Step(StepName.PUBLISH, "no entry yet", target="acme"))
        time.sleep(0.1)
        step.end(conn, held, second, StepState.DONE, error=None)


def reconciled(site: Site, tenant_id: str) -> None:
    """Nothing of the founding is left to do."""
    end(site, claim(site, tenant_id))


def test_reprovision_names_the_operation_to_watch(desk: Desk) -> None:
    tenant_id = desk.site.found("sub_1", name="Acme")
    said = desk.ok("tenants", "reprovision", "acme", "--reason", "restored a backup")
    (row,) = desk.site.rows("SELECT id, causes FROM operation WHERE kind = 'tenant'")
    assert f"controlplane operations watch {row['id']}" in said
    assert row["causes"][-1]["reason"] == "restored a backup"
    assert desk.json("tenants", "reprovision", "acme")["resource"] == tenant_id


def test_rotate_names_the_operation_to_watch(desk: Desk) -> None:
    tenant_id = desk.site.found("sub_1", name="Acme")
    said = desk.ok("tenants", "rotate", "acme", "--reason", "a laptop was lost")
    (row,) = desk.site.rows("SELECT id, causes FROM operation WHERE kind = 'tenant'")
    assert f"controlplane operations watch {row['id']}" in said
    assert row["causes"][-1]["reason"] == "a laptop was lost"
    assert desk.json("tenants", "rotate", "acme")["resource"] == tenant_id
    assert "_app_a, password 1 since 20" in (shown := desk.ok("tenants", "show", "acme"))
    assert "a new one was asked for" in shown


def test_waiting_shows_the_steps_and_ends_with_the_outcome(desk: Desk) -> None:
    tenant_id = desk.site.found("sub_1", name="Acme")
    reconciled(desk.site, tenant_id)

    def worker() -> None:
        held = claim(desk.site, tenant_id)
        work(desk.site, held)
        end(desk.site, held)

    with meanwhile(worker):
        said = desk.ok("tenants", "reprovision", "acme", "--wait").splitlines()
    assert "asked for by api:operator-bot" in said[0]
    assert said[1].strip() == "1 create_database: nothing is there"
    assert said[2].strip() == "aws_iam_role.app create started"
    assert said[3].strip() == "aws_iam_role.app create done 1.2 s"
    assert said[4].strip().startswith("1 create_database: done ")
    assert said[5].strip() == "2 publish acme: no entry yet"
    assert said[6].strip().startswith("2 publish acme: done ")
    assert said[7].startswith("done in ")
    assert len(said) == 8


def test_a_parked_operation_fails_the_watch(desk: Desk) -> None:
    tenant_id = desk.site.found("sub_1", name="Acme")
    held = claim(desk.site, tenant_id)
    with desk.site.registry.connection() as conn:
        job.park(conn, held, Trouble("no quota for clusters", None, "aws-quota"))
    done = desk.run("operations", "watch", held.id)
    assert done.exit_code == 1
    assert done.stderr == (
        f"error: operation {held.id} is parked: no quota for clusters (runbook aws-quota)\n"
    )
    as_json = desk.run("operations", "watch", held.id, "--json")
    assert as_json.exit_code == 1
    assert json.loads(as_json.stdout)["state"] == "parked"


@pytest.mark.parametrize("after_looks", [0, 1])
def test_an_operation_that_was_absorbed_is_followed_where_it_went(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, after_looks: int
) -> None:
    """What was at work when it was asked for is put back, and has its cause beside its own."""
    tenant_id = desk.site.found("sub_1", name="Acme")
    held = claim(desk.site, tenant_id)
    ask, looks = Api.get, 0

    def put_back_meanwhile(api: Api, path: str, **query: int) -> Json:
        nonlocal looks
        if looks == after_looks:
            with desk.site.registry.connection() as conn:
                assert job.put_back(conn, held, after=600)
            again = claim(desk.site, tenant_id)
            assert again.id == held.id
            work(desk.site, again)
            end(desk.site, again)
        looks += 1
        return ask(api, path, **query)

    monkeypatch.setattr(Api, "get", put_back_meanwhile)
    said = desk.ok("tenants", "reprovision", "acme", "--reason", "meanwhile", "--wait")
    assert "2 publish acme: done" in said
    monkeypatch.undo()
    newest = desk.site.rows("SELECT id, causes FROM operation WHERE kind = 'tenant' ORDER BY id DESC LIMIT 1")
    assert [row["id"] for row in newest] == [held.id]
    assert [cause["reason"] for cause in newest[0]["causes"]] == ["a test", "meanwhile"]


def test_the_id_of_an_absorbed_operation_names_the_one_it_went_to(desk: Desk) -> None:
    tenant_id = desk.site.found("sub_1", name="Acme")
    held = claim(desk.site, tenant_id)
    later = desk.json("tenants", "reprovision", "acme")["id"]
    assert later > held.id
    with desk.site.registry.connection() as conn:
        assert job.put_back(conn, held, after=600)
    again = claim(desk.site, tenant_id)
    work(desk.site, again)
    assert desk.json("operations", "show", later) == desk.json("operations", "show", held.id)
    end(desk.site, again)
    ended = desk.json("operations", "watch", later)
    assert (ended["id"], ended["state"]) == (held.id, "done")
    assert [step["name"] for step in ended["steps"]] == ["create_database", "publish"]


def test_a_retry_says_why_it_waits(desk: Desk) -> None:
    tenant_id = desk.site.found("sub_1", name="Acme")
    held = claim(desk.site, tenant_id)
    with desk.site.registry.connection() as conn:
        job.put_back(conn, held, after=600, error="AWS answered Throttling", counts=True)
    done = desk.run("operations", "watch", held.id, "--timeout", 1)
    assert done.exit_code == 6
    assert "AWS answered Throttling" in done.stdout
    assert "still waiting after 1 s" in done.stderr


def test_a_watch_outlives_an_api_that_is_away_for_a_moment(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    tenant_id = desk.site.found("sub_1", name="Acme")
    held = claim(desk.site, tenant_id)
    ask, asked = Api.get, 0

    def away_three_times(api: Api, path: str, **query: int) -> Json:
        nonlocal asked
        asked += 1
        if asked <= 3:
            raise Unreachable("away")
        end(desk.site, held)
        return ask(api, path, **query)

    monkeypatch.setattr(Api, "get", away_three_times)
    assert desk.run("operations", "watch", held.id).exit_code == 0
    assert asked == 4


def test_a_watch_of_an_api_that_stays_away_ends(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "PATIENCE", 0.1)
    desk.url = f"http://127.0.0.1:{free_port()}"
    assert desk.run("operations", "watch", 1).exit_code == 3


def preview_done(site: Site, outcome: str) -> None:
    for _ in range(200):
        if site.rows(
            f"UPDATE preview SET finished_at = now(), {outcome} WHERE state = 'waiting' RETURNING id"
        ):
            return
        time.sleep(0.02)
    raise AssertionError("no preview")


STEPS = """'[{"name": "publish", "target": "acme", "reason": "no entry yet"}]'"""
CHANGES = """'[{"address": "aws_iam_role.app", "action": "create", "destructive": false}]'"""


def test_a_dry_run_shows_steps_and_changes(desk: Desk) -> None:
    desk.site.found("sub_1", name="Acme")
    outcome = f"state = 'done', steps = {STEPS}, changes = {CHANGES}"
    with meanwhile(lambda: preview_done(desk.site, outcome)):
        said = desk.ok("tenants", "reprovision", "acme", "--dry-run")
    for word in ("publish", "no entry yet", "aws_iam_role.app", "create"):
        assert word in said
    with meanwhile(lambda: preview_done(desk.site, "state = 'done', steps = '[]', changes = '[]'")):
        assert "nothing to do" in desk.ok("tenants", "reprovision", "acme", "--dry-run")
    with meanwhile(lambda: preview_done(desk.site, outcome)):
        assert desk.json("tenants", "reprovision", "acme", "--dry-run")["steps"][0]["name"] == "publish"


def test_a_dry_run_that_fails_or_never_ends(desk: Desk) -> None:
    desk.site.found("sub_1", name="Acme")
    with meanwhile(lambda: preview_done(desk.site, "state = 'failed', error = 'no such plan'")):
        done = desk.run("tenants", "reprovision", "acme", "--dry-run")
    assert (done.exit_code, "no such plan" in done.stderr) == (1, True)
    late = desk.run("tenants", "reprovision", "acme", "--dry-run", "--timeout", 1)
    assert late.exit_code == 6
    assert late.stderr.splitlines()[0] == "waits for: a worker to take it"
    assert late.stderr.endswith("is not worked out after 1 s, it waits for: a worker to take it\n")
    assert desk.run("tenants", "reprovision", "acme", "--dry-run", "--wait").exit_code == 2


HOLD = ("tenants", "hold", "acme", "--kind", "suspend", "--days", 1)


def decide(site: Site, tenant_id: str) -> None:
    """As intake does where a hold changes the spec."""
    for _ in range(200):
        with site.registry.connection() as conn:
            held = job.claim(conn, Lane.QUICK, holder="test", seconds=60, kinds=[JobKind.INTAKE])
        if held is not None:
            break
        time.sleep(0.02)
    assert held is not None
    time.sleep(0.1)
    with site.registry.connection() as conn:
        tenant.set_spec(conn, tenant_id, tenant.get(conn, tenant_id).spec.with_lifecycle(Lifecycle.SUSPENDED))
        job.ensure(conn, JobKind.TENANT, tenant_id, reason=held.reason, actor=held.actor)
        job.finish(conn, held)


def test_a_hold_is_waited_for_until_it_is_brought_about(desk: Desk) -> None:
    tenant_id = desk.site.found("sub_1", name="Acme")
    reconciled(desk.site, tenant_id)

    def worker() -> None:
        decide(desk.site, tenant_id)
        held = claim(desk.site, tenant_id)
        time.sleep(0.1)
        desk.site.rows("UPDATE tenant SET observed_generation = generation, ready_at = now()")
        end(desk.site, held)

    with meanwhile(worker):
        assert desk.ok(*HOLD, "--wait") == "acme is suspended\n"
    assert "ends_at" in desk.ok("tenants", "hold", "acme", "--kind", "serve", "--days", 1)


def test_a_hold_that_is_not_brought_about_fails_who_waits(desk: Desk) -> None:
    tenant_id = desk.site.found("sub_1", name="Acme")
    reconciled(desk.site, tenant_id)
    late = desk.run(*HOLD, "--wait", "--timeout", 1)
    assert (late.exit_code, late.stderr) == (6, "error: tenant acme is not decided about after 1 s\n")
    decide(desk.site, tenant_id)

    def worker() -> None:
        decide(desk.site, tenant_id)
        with desk.site.registry.connection() as conn:
            tenant.set_attention(conn, tenant_id, reason="no quota", runbook="aws-quota")
            job.park(conn, claim(desk.site, tenant_id), Trouble("no quota", None, "aws-quota"))

    with meanwhile(worker):
        done = desk.run("tenants", "end-hold", "acme", "--kind", "suspend", "--wait", "--json")
    assert done.exit_code == 1
    assert json.loads(done.stdout)["id"] == tenant_id
    assert done.stderr == "error: tenant acme is not as it should be: no quota (runbook aws-quota)\n"


def test_a_parked_event_is_dismissed(desk: Desk) -> None:
    desk.site.deliver(event("evt_1", livemode=True))
    assert desk.run("events", "dismiss", "evt_1").exit_code == 2
    assert "is ignored: dismissed by" in desk.ok("events", "dismiss", "evt_1", "--reason", "a test")
    assert desk.run("events", "dismiss", "evt_1", "--reason", "a test").exit_code == 1


def test_a_replay_notifies(desk: Desk) -> None:
    desk.site.deliver(event("evt_1", livemode=True))
    assert "a worker will handle it again" in desk.ok("events", "replay", "evt_1")
    assert desk.site.wake_ups == [Lane.QUICK]
    assert desk.site.jobs() == [(JobKind.INTAKE, "evt_1")]
    assert desk.json("events", "replay", "evt_1")["state"] == "received"


def test_all_that_are_parked_for_one_cause_are_replayed(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "MOST", 2)
    for number in range(5):
        desk.site.deliver(event(f"evt_{number}", livemode=True))
    because = ["events", "replay", "--state", "parked", "--because", "livemode is True"]
    listed = desk.ok(*because, "--dry-run")
    assert "would replay 2 parked events: workers would handle them again; 3 more" in listed
    assert "evt_0" in listed
    assert desk.json(*because, "--dry-run", "--limit", 1)["count"] == 1
    assert desk.site.jobs() == []
    assert desk.ok(*because, "--limit", 1).startswith("replayed 1 parked events: workers will handle them")
    done = desk.run(*because)
    assert (done.exit_code, done.stdout.splitlines()[-1]) == (
        0,
        "replayed 4 parked events: workers will handle them again",
    )
    assert done.stderr == "2 replayed so far …\n"
    assert len(desk.site.jobs()) == 5
    assert desk.json(*because) == {"count": 0, "left": 0, "items": []}
    for more in ([], ["--dry-run"]):
        assert desk.ok(*because, *more) == "nothing to do: no parked event has that in its reason\n"


def test_what_is_parked_again_meanwhile_is_not_replayed_for_ever(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that parks each of them again at once, for the same cause."""
    monkeypatch.setattr(events, "MOST", 1)
    for number in range(3):
        desk.site.deliver(event(f"evt_{number}", livemode=True))
    post = Api.post

    def parked_again(self: Api, path: str, body: Json | None = None) -> Json:
        found = post(self, path, body)
        desk.site.rows(
            "UPDATE stripe_event SET state = 'parked', reason = 'livemode', handled_at = clock_timestamp()"
            " WHERE state = 'received'"
        )
        return found

    monkeypatch.setattr(Api, "post", parked_again)
    found = desk.json("events", "replay", "--because", "livemode")
    assert sorted(item["id"] for item in found["items"]) == ["evt_0", "evt_1", "evt_2"]


@pytest.mark.parametrize(
    "wrong",
    [
        [],
        ["--state", "parked"],
        ["evt_1", "--because", "x"],
        ["evt_1", "--state", "parked"],
        ["evt_1", "--dry-run"],
        ["evt_1", "--limit", 2],
        ["--state", "applied", "--because", "x"],
        ["--because", ""],
        ["--because", "x", "--limit", 0],
    ],
)
def test_a_replay_of_one_and_of_many_is_not_mixed_up(desk: Desk, wrong: list[object]) -> None:
    desk.site.deliver(event("evt_1", livemode=True))
    assert desk.run("events", "replay", *wrong).exit_code == 2
    assert desk.site.jobs() == []


def test_a_viewer_replays_nothing(desk: Desk) -> None:
    desk.role = "viewer"
    assert desk.run("events", "replay", "--because", "livemode").exit_code == 5
