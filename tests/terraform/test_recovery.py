"""What is done about a damaged, unsaved or wrong state; the bucket is real, the commands are recorded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import boto3
import pytest

from controlplane.domain.errors import Retryable
from controlplane.localcloud.aws.emulator import REGION
from controlplane.workers.providers.ports import StackRun
from controlplane.workers.providers.terraform.inventory import (
    AwsAccount,
    ClusterInventory,
    PlacementsInventory,
    inventory_of,
)
from controlplane.workers.providers.terraform.recovery import Ground, Recovery
from controlplane.workers.providers.terraform.session import Session
from controlplane.workers.providers.terraform.state import StateBucket
from tests.harness.terraform import (
    Events,
    FakeFixture,
    cluster_run,
    placements_run,
    state_key,
)

BUCKET = "recovery-states"

pytestmark = pytest.mark.usefixtures("aws")


class RecordedSession:
    """Takes `state rm`, `untaint` and `state push` down, and does to the state what they would do."""

    def __init__(self, run: StackRun) -> None:
        self.on_event = Events()
        self.done: list[tuple[str, Any]] = []
        self._run = run

    def forget(self, addresses: list[str]) -> None:
        self.done.append(("forget", addresses))
        kinds = {address.split(".")[2] for address in addresses}
        state = read(self._run)
        write(self._run, state | {"resources": [r for r in state["resources"] if r["type"] not in kinds]})

    def untaint(self, address: str) -> None:
        self.done.append(("untaint", address))

    def push_state(self, path: Path) -> None:
        self.done.append(("push", json.loads(path.read_text())["serial"]))


def recover(run: StackRun, *errored: Path) -> tuple[Ground, RecordedSession]:
    session = RecordedSession(run)
    inventory = inventory_of(run.stack, AwsAccount(REGION), run.variables)
    bucket = StateBucket(BUCKET, region=REGION)
    return Recovery(run, cast(Session, session), bucket, inventory).repair(errored), session


@pytest.fixture(autouse=True)
def _bucket(aws: object) -> None:
    s3 = boto3.client("s3")
    if BUCKET not in {bucket["Name"] for bucket in s3.list_buckets()["Buckets"]}:
        s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})


def state(*resources: tuple[str, dict[str, Any]], serial: int = 5, lineage: str = "l") -> dict[str, Any]:
    return {
        "version": 4,
        "serial": serial,
        "lineage": lineage,
        "outputs": {},
        "resources": [
            {
                "mode": "managed",
                "module": address.rsplit(".", 2)[0],
                "type": address.rsplit(".", 2)[1],
                "name": address.rsplit(".", 2)[2].partition("[")[0],
                "instances": [{"attributes": attributes} | index_of(address)],
            }
            for address, attributes in resources
        ],
    }


def index_of(address: str) -> dict[str, str]:
    key = address.partition("[")[2].removesuffix("]")
    return {"index_key": json.loads(key)} if key else {}


def write(run: StackRun, value: dict[str, Any] | bytes) -> None:
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    boto3.client("s3").put_object(Bucket=BUCKET, Key=state_key(run), Body=body)


def read(run: StackRun) -> Any:
    return json.loads(boto3.client("s3").get_object(Bucket=BUCKET, Key=state_key(run))["Body"].read())


def actions(session: RecordedSession) -> list[str]:
    return [event.action for event in session.on_event if event.kind == "recovered"]


def test_a_healthy_workspace_is_left_as_it_is() -> None:
    run = placements_run(FakeFixture(), 2)
    whole = PlacementsInventory.addresses_of(run.variables["placements"])
    write(run, state(*((address, {}) for address in whole)))
    ground, session = recover(run)
    assert set(ground.state.resources) == set(whole)
    assert ground.adopt == {}
    assert not ground.empty
    assert (session.done, list(session.on_event)) == ([], [])


def test_a_new_workspace_is_empty_ground() -> None:
    ground, session = recover(placements_run(FakeFixture()))
    assert ground.empty
    assert session.done == []


@pytest.mark.parametrize("body", [b'{"version": 4, "ser', b"\x00\x01", b'{"version": 3}'])
def test_a_damaged_state_is_put_aside_and_kept(body: bytes) -> None:
    run = placements_run(FakeFixture())
    write(run, body)
    ground, session = recover(run)
    assert ground.empty
    assert actions(session) == ["put-aside"]
    s3 = boto3.client("s3")
    kept = s3.list_objects_v2(Bucket=BUCKET, Prefix=state_key(run))["Contents"]
    assert [s3.get_object(Bucket=BUCKET, Key=found["Key"])["Body"].read() for found in kept] == [body]
    assert recover(run)[1].done == []


def test_a_damaged_state_is_not_touched_by_a_look() -> None:
    run = placements_run(FakeFixture())
    write(run, b"{")
    inventory = inventory_of(run.stack, AwsAccount(REGION), run.variables)
    session = cast(Session, RecordedSession(run))
    assert Recovery(run, session, StateBucket(BUCKET, region=REGION), inventory).observe().empty
    with pytest.raises(ValueError, match="Expecting"):
        read(run)


@pytest.mark.parametrize(
    ("saved", "kept", "pushed"),
    [
        (None, state(serial=1), True),
        (state(serial=5), state(serial=6), True),
        (state(serial=5), state(serial=5), False),
        (state(serial=5), state(serial=4), False),
        (state(serial=5), state(serial=9, lineage="another"), False),
    ],
    ids=["nothing saved", "newer", "same", "older", "another lineage"],
)
def test_an_unsaved_state_is_pushed_only_where_it_continues_the_saved_one(
    tmp_path: Path, saved: dict[str, Any] | None, kept: dict[str, Any], pushed: bool
) -> None:
    run = placements_run(FakeFixture())
    if saved is not None:
        write(run, saved)
    errored = tmp_path / "errored.tfstate"
    errored.write_text(json.dumps(kept))
    _, session = recover(run, errored)
    assert session.done == ([("push", kept["serial"])] if pushed else [])


def test_an_unsaved_state_that_is_cut_is_not_pushed(tmp_path: Path) -> None:
    errored = tmp_path / "errored.tfstate"
    errored.write_text('{"version": 4, "ser')
    assert recover(placements_run(FakeFixture()), errored)[1].done == []


def test_a_key_that_is_not_the_clusters_is_forgotten_with_its_alias() -> None:
    run = cluster_run(FakeFixture())
    key = (ClusterInventory.key, {"key_id": "made-by-a-naive-retry"})
    alias = (ClusterInventory.alias, {"name": f"alias/{run.workspace}"})
    cluster = (ClusterInventory.cluster, {"kms_key_id": "arn:aws:kms:eu-central-1:1:key/the-clusters-own"})
    write(run, state(key, alias, cluster))
    ground, session = recover(run)
    assert session.done == [("forget", [ClusterInventory.key, ClusterInventory.alias])]
    assert actions(session) == ["forget"]
    assert set(ground.state.resources) == {ClusterInventory.cluster}


def test_the_clusters_own_key_stays() -> None:
    run = cluster_run(FakeFixture())
    key = (ClusterInventory.key, {"key_id": "the-key"})
    write(run, state(key, (ClusterInventory.cluster, {"kms_key_id": "arn:aws:kms:x:1:key/the-key"})))
    assert recover(run)[1].done == []


def test_a_bucket_that_is_gone_is_nothing_saved_but_an_unreachable_one_is_no_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = placements_run(FakeFixture())
    assert StateBucket("no-such-bucket", region=REGION).state(run.stack, run.workspace) is None
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(Retryable):
        StateBucket(BUCKET, region=REGION).state(run.stack, run.workspace)


def test_a_lock_is_broken_only_while_it_is_that_lock() -> None:
    run = placements_run(FakeFixture())
    s3, key = boto3.client("s3"), state_key(run) + ".tflock"
    s3.put_object(
        Bucket=BUCKET, Key=key, Body=json.dumps({"ID": "b", "Who": "w", "Created": "2026-01-01T00:00:00Z"})
    )
    bucket = StateBucket(BUCKET, region=REGION)
    assert not bucket.break_lock(run.stack, run.workspace, "a")
    assert bucket.lock(run.stack, run.workspace) is not None
    assert bucket.break_lock(run.stack, run.workspace, "b")
    assert not bucket.break_lock(run.stack, run.workspace, "b")
