"""Real faults on the real Terraform: what was measured as dangerous, shown to be harmless.

Few and long: the AWS provider waits a fixed minute for every Aurora cluster.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from controlplane.domain.errors import ControlPlaneError, LeaseLost, NeedsHuman, Retryable
from controlplane.localcloud.aws.emulator import REGION, AwsEmulator
from controlplane.workers.providers.aws_inventory import AwsInventory
from controlplane.workers.providers.aws_secrets import AwsSecrets
from controlplane.workers.providers.ports import PlannedChange, PriorRun, ResourceEvent, StackRun
from controlplane.workers.providers.terraform import TerraformRunner, lock_owner
from controlplane.workers.providers.terraform.inventory import (
    AwsAccount,
    ClusterInventory,
    PlacementsInventory,
)
from tests.harness.faults.http import Asked, HttpFault, HttpProxy
from tests.harness.terraform import (
    BUCKET,
    ROOT,
    Events,
    RealFixture,
    again,
    cluster_run,
    never,
    placements_run,
    secrets_of,
)

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(900)]

ROLE = (ClusterInventory.role, ClusterInventory.policy)
"""Made beside the cluster, and perhaps not saved when it is interrupted."""
INSTANCE = 'module.cluster.aws_rds_cluster_instance.this["1"]'


@pytest.fixture(scope="module")
def work_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("terraform")


@pytest.fixture
def fixture(aws: AwsEmulator, work_dir: Path) -> RealFixture:
    return RealFixture(work_dir)


class Killer(Events):
    """Records events, and strikes once when the named resource is being made."""

    def __init__(self, address: str, strike: Callable[[], None], *, after: float = 0.0) -> None:
        super().__init__()
        self._address = address
        self._strike = strike
        self._after = after
        self.lock: str | None = None

    def __call__(self, event: ResourceEvent) -> None:
        super().__call__(event)
        if event.kind == "lock_taken":
            self.lock = event.address
        if event.kind == "started" and event.address == self._address:
            threading.Timer(self._after, self._strike).start()


def terraform_children() -> list[int]:
    """The pids of terraform that the supervisor, a child of ours, has started."""
    ours = {
        int(pid)
        for children in Path(f"/proc/{os.getpid()}/task").glob("*/children")
        for pid in children.read_text().split()
    }
    found = []
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            fields = dict(line.split(":\t", 1) for line in status.read_text().splitlines() if ":\t" in line)
        except (FileNotFoundError, ProcessLookupError):
            continue
        if fields["Name"] == "terraform" and int(fields["PPid"]) in ours:
            found.append(int(fields["Pid"]))
    return found


def converge(terraform: TerraformRunner, run: StackRun) -> tuple[dict[str, Any], Events]:
    """As the engine does: try again for as long as that is what the error says."""
    end, events = time.monotonic() + 200, Events()
    while True:
        try:
            return terraform.apply(run, on_event=events, stopped=never), events
        except Retryable:
            assert time.monotonic() < end
            time.sleep(2)


def plan_when_quiet(fixture: RealFixture, run: StackRun) -> list[PlannedChange]:
    """The plan, once AWS has settled and a terraform that is ending has ended."""
    end = time.monotonic() + 60
    while True:
        try:
            return fixture.terraform.plan(run)
        except Retryable:
            assert time.monotonic() < end
            time.sleep(1)


def keys_of(run: StackRun) -> list[str]:
    return ClusterInventory(AwsAccount(REGION), run.variables).tagged_keys()


@pytest.mark.soak  # six minutes of the provider's polls; a tenant's is in acceptance/test_paid_to_page.py
def test_a_terraform_killed_in_mid_cluster_is_followed_by_one_that_adopts(fixture: RealFixture) -> None:
    run, started = cluster_run(fixture), datetime.now(UTC)
    killer = Killer(
        ClusterInventory.cluster, lambda: os.kill(terraform_children()[0], signal.SIGKILL), after=8
    )
    with pytest.raises(Retryable, match="signal 9"):
        fixture.terraform.apply(run, on_event=killer, stopped=never)
    saved = {r["type"] for r in fixture.state(run)["resources"]}
    assert "aws_kms_key" in saved  # made and saved before the long wait
    assert "aws_rds_cluster" not in saved
    assert fixture.lock_id(run) == killer.lock

    later = again(run, prior=PriorRun(lock_owner(), started, killer.lock))
    outputs, events = converge(fixture.runner(), later)
    assert (killer.lock, "unlock") in events.of("recovered")
    adopted = {address for address, _ in events.of("adopted")}
    assert {ClusterInventory.cluster} <= adopted <= {ClusterInventory.cluster, *ROLE}
    assert {action for _address, action in events.of("done")} == {"update", "create"}
    assert fixture.terraform.plan(later) == []
    assert keys_of(run) == [outputs["kms_key_arn"].rsplit("/", 1)[-1]]
    assert not list(fixture.work_dir.glob(f"work/*/runs/{run.workspace}.*"))

    password = AwsSecrets(region=REGION).read(outputs["master_secret_arn"]).password
    states = [
        fixture.s3.get_object(Bucket=BUCKET, Key=o["Key"])
        for o in fixture.s3.list_objects_v2(Bucket=BUCKET)["Contents"]
    ]
    assert not any(password.encode() in state["Body"].read() for state in states)

    _purge(fixture, later)


def _purge(fixture: RealFixture, run: StackRun) -> None:
    """The end of the same cluster: protected, then approved; its key stays with its final snapshot."""
    data = frozenset({ClusterInventory.cluster, INSTANCE})
    rest = {ClusterInventory.security_group, ClusterInventory.subnet_group, ClusterInventory.log_group}
    with pytest.raises(NeedsHuman, match=ClusterInventory.cluster):
        fixture.terraform.destroy(again(run, deletion_protection=False), on_event=Events(), stopped=never)
    kept = boto3.client("rds").describe_db_clusters(DBClusterIdentifier=run.workspace)["DBClusters"][0]
    assert kept["DeletionProtection"]
    approved = again(run, approved=data | rest, deletion_protection=False)
    fixture.terraform.destroy(approved, on_event=Events(), stopped=never)
    snapshots = boto3.client("rds").describe_db_cluster_snapshots(DBClusterIdentifier=run.workspace)
    final = [s["DBClusterSnapshotIdentifier"] for s in snapshots["DBClusterSnapshots"]]
    assert run.variables["final_snapshot_identifier"] in final
    assert len(keys_of(run)) == 1
    keys = frozenset({ClusterInventory.key, ClusterInventory.alias})
    everything = again(run, approved=keys | data | rest, deletion_protection=False)
    fixture.terraform.destroy(everything, on_event=Events(), stopped=never)
    assert keys_of(run) == []
    with pytest.raises(ClientError):
        fixture.state(run)


WORKER = """
import json, os, sys
from pathlib import Path
from tests.harness.terraform import RealFixture
from controlplane.workers.providers.ports import StackRun
fixture = RealFixture(Path(sys.argv[1]))
def on_event(event):
    print(event.kind, event.address, flush=True)
variables = json.loads(sys.argv[2])
run = StackRun("cluster", variables["cluster_id"], fixture.terraform.publish(dry_run=True).digest, variables)
fixture.terraform.apply(run, on_event=on_event, stopped=lambda: False)
"""


def test_a_killed_workers_terraform_saves_and_its_cluster_is_untainted(fixture: RealFixture) -> None:
    run, started = cluster_run(fixture), datetime.now(UTC)
    worker = subprocess.Popen(
        [sys.executable, "-c", WORKER, str(fixture.work_dir), json.dumps(run.variables)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert worker.stdout is not None
    try:
        while (line := worker.stdout.readline()) != f"started {ClusterInventory.cluster}\n":
            assert line, "the worker ended before it came to the cluster"
        time.sleep(5)
        assert worker.poll() is None, "it must be killed, and not end by itself"
    finally:
        worker.kill()
        worker.wait()
        worker.stdout.close()  # not before: a worker that can't print ends by itself
    ended = time.monotonic() + 60
    while fixture.lock_id(run):
        assert time.monotonic() < ended, "terraform outlived its worker"
        time.sleep(0.2)
    cluster = next(r for r in fixture.state(run)["resources"] if r["type"] == "aws_rds_cluster")
    assert cluster["instances"][0]["status"] == "tainted"

    later = again(run, prior=PriorRun(lock_owner(), started, None))
    assert [c for c in plan_when_quiet(fixture, later) if c.destructive] == []
    events = Events()
    with pytest.raises(LeaseLost):
        fixture.terraform.apply(later, on_event=events, stopped=lambda: bool(events.of("planned")))
    assert events.of("recovered") == [(ClusterInventory.cluster, "untaint")]
    assert {action for _address, action in events.of("planned")} <= {"create", "update"}
    cluster = next(r for r in fixture.state(run)["resources"] if r["type"] == "aws_rds_cluster")
    assert "status" not in cluster["instances"][0]


def test_a_state_that_could_not_be_saved_is_pushed_by_the_next_run(fixture: RealFixture) -> None:
    bucket = f"states-{time.monotonic_ns()}"
    place = {"LocationConstraint": REGION}
    fixture.s3.create_bucket(Bucket=bucket, CreateBucketConfiguration=place)
    run = cluster_run(fixture)
    terraform = fixture.runner(bucket=bucket)
    terraform.publish()

    def lose_the_bucket() -> None:
        for found in fixture.s3.list_objects_v2(Bucket=bucket).get("Contents", []):
            fixture.s3.delete_object(Bucket=bucket, Key=found["Key"])
        fixture.s3.delete_bucket(Bucket=bucket)

    killer = Killer(ClusterInventory.key, lose_the_bucket, after=2)
    with pytest.raises(ControlPlaneError):
        terraform.apply(run, on_event=killer, stopped=never)
    assert len(list(fixture.work_dir.glob(f"work/*/runs/{run.workspace}.*/errored.tfstate"))) == 1
    assert len(keys_of(run)) == 1

    fixture.s3.create_bucket(Bucket=bucket, CreateBucketConfiguration=place)
    events = Events()
    with pytest.raises(LeaseLost):
        terraform.apply(again(run), on_event=events, stopped=lambda: bool(events.of("started")))
    assert [e.action for e in events if e.kind == "recovered"] == ["state-push"]
    assert {address for address, _ in events.of("started")} <= {ClusterInventory.cluster, *ROLE}
    assert len(keys_of(run)) == 1


class Switch:
    """Lets the first calls through, holds all that follow, and then kills terraform with its provider, as a
    machine that goes down does: what was held is never sent on."""

    def __init__(self, proxy: HttpProxy, action: str, *, passes: int) -> None:
        self._action, self._left = action, passes
        self._lock = threading.Lock()
        proxy.faults = [HttpFault(self._holds, status=500, delay=5.0)]

    def _holds(self, asked: Asked) -> bool:
        if not asked.mentions(f"secretsmanager.{self._action}"):
            return False
        with self._lock:
            self._left -= 1
            if self._left >= 0:
                return False
        for pid in terraform_children():
            with suppress(ProcessLookupError):  # another of those that are held was faster
                os.killpg(os.getpgid(pid), signal.SIGKILL)
        return True


@pytest.fixture
def proxy(aws: AwsEmulator) -> Iterator[HttpProxy]:
    with HttpProxy(aws.port, seed=1) as opened:
        yield opened


def die_at(
    fixture: RealFixture, proxy: HttpProxy, monkeypatch: pytest.MonkeyPatch, run: StackRun, **switch: Any
) -> PriorRun:
    """Apply until the switch kills it; then the run as the registry remembers it."""
    started, events = datetime.now(UTC), Events()
    with monkeypatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", proxy.url)
        terraform = fixture.runner()
    Switch(proxy, **switch)
    with pytest.raises(Retryable, match="signal 9"):
        terraform.apply(run, on_event=events, stopped=never)
    return PriorRun(lock_owner(), started, fixture.lock_id(run))


def waiting(run: StackRun) -> dict[str, bool]:
    names = secrets_of(run)
    listed = AwsInventory(region=REGION, bucket=BUCKET).secrets()
    return {name: deleting for name, deleting in listed if name in names}


def until(holds: Callable[[], bool]) -> None:
    """What was let through may still be on its way."""
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.1)


LOSE = pytest.mark.parametrize("lose", [False, True], ids=["state as it was saved", "state lost"])


@LOSE
def test_a_batch_killed_in_the_middle_is_adopted_and_none_is_made_twice(
    fixture: RealFixture, proxy: HttpProxy, monkeypatch: pytest.MonkeyPatch, lose: bool
) -> None:
    run = placements_run(fixture, 24)
    prior = die_at(fixture, proxy, monkeypatch, run, action="CreateSecret", passes=13)
    until(lambda: len(waiting(run)) == 13)
    made = waiting(run)
    if lose:
        fixture.lose_state(run)
    arns = {name: AwsSecrets(region=REGION).describe(name) for name in made}

    outputs, events = converge(fixture.terraform, again(run, prior=prior))
    names = {
        a: PlacementsInventory.secret_at(a)[1] for a, _action in [*events.of("adopted"), *events.of("done")]
    }
    adopted = {names[address] for address, _action in events.of("adopted")}
    assert adopted == set(made) if lose else adopted <= set(made)
    created = {names[address] for address, action in events.of("done") if action == "create"}
    assert created == set(secrets_of(run)) - set(made)
    assert "delete" not in {action for _address, action in events.of("done")}
    assert waiting(run) == dict.fromkeys(secrets_of(run), False)
    assert {name: AwsSecrets(region=REGION).describe(name) for name in made} == arns
    assert sorted(outputs["app_secret_arns"]) == sorted(run.variables["placements"])
    assert fixture.terraform.plan(again(run)) == []


@LOSE
def test_placements_that_leave_are_all_gone_after_a_kill_in_the_middle(
    fixture: RealFixture, proxy: HttpProxy, monkeypatch: pytest.MonkeyPatch, lose: bool
) -> None:
    run = placements_run(fixture, 14)
    fixture.terraform.apply(run, on_event=Events(), stopped=never)
    staying, going = run.variables["placements"][:2], run.variables["placements"][2:]
    approved = frozenset(PlacementsInventory.addresses_of(going))
    smaller = again(run, placements=staying, approved=approved)
    started = datetime.now(UTC).replace(microsecond=0)
    prior = die_at(fixture, proxy, monkeypatch, smaller, action="DeleteSecret", passes=5)
    until(lambda: sum(waiting(run).values()) == 5)
    if lose:
        fixture.lose_state(run)

    _outputs, events = converge(fixture.terraform, replace(smaller, prior_runs=(prior,)))
    deleted = {address for address, action in events.of("done") if action == "delete"}
    assert deleted < approved
    assert len(deleted) == len(approved) - 5
    after = waiting(run)
    assert after == {name: name.split("/")[1] in going for name in secrets_of(run)}
    for name in (name for name, deleting in after.items() if deleting):
        ends = boto3.client("secretsmanager").describe_secret(SecretId=name)["DeletedDate"]
        window = timedelta(days=run.variables["recovery_window_days"])
        assert started + window <= ends <= datetime.now(UTC) + window
    assert fixture.terraform.plan(smaller) == []


def test_what_would_replace_a_secret_is_refused_before_anything_happens(fixture: RealFixture) -> None:
    """A release that calls secrets by other names."""
    run = placements_run(fixture)
    fixture.terraform.apply(run, on_event=Events(), stopped=never)
    carries = Path(shutil.copytree(ROOT, fixture.work_dir / "renames"))
    module = carries / "modules" / "placements" / "main.tf"
    renames = module.read_text().replace('"placements/${each.key}/app"', '"placements/${each.key}/login"')
    assert renames != module.read_text()
    module.write_text(renames)
    newer = fixture.runner(carries=carries)
    renamed = replace(again(run), release=newer.publish().digest)
    address = re.escape(PlacementsInventory.app_secret(run.variables["placements"][0]))
    with pytest.raises(NeedsHuman, match=f"replace {address}") as refused:
        newer.apply(renamed, on_event=Events(), stopped=never)
    assert refused.value.runbook == "destructive-terraform-plan"
    assert AwsSecrets(region=REGION).describe(secrets_of(run)[0]).deleting is False
    assert fixture.lock_id(run) is None
