"""Terraform's state and lock, read as they lie in the bucket."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from controlplane.domain.errors import NeedsHuman, Retryable
from controlplane.workers.providers.ports import PriorRun
from controlplane.workers.providers.terraform import archive, locks
from controlplane.workers.providers.terraform.state import PREFIXES, Lock, Unreadable, parse, parse_lock
from tests.harness.terraform import ROOT

RESOURCE = {"mode": "managed", "type": "aws_rds_cluster_instance", "name": "this", "module": "module.cluster"}
NOW = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)


def state(**changes: object) -> bytes:
    whole = {"version": 4, "serial": 3, "lineage": "l", "outputs": {"a": {"value": 1}}, "resources": []}
    return json.dumps(whole | changes).encode()


def test_resources_are_known_by_their_addresses() -> None:
    instances = [
        {"index_key": "1", "attributes": {"id": "c-1"}},
        {"index_key": 0, "status": "tainted"},
        {"index_key": "1", "deposed": "abcd", "attributes": {}},
    ]
    data = {"mode": "data", "type": "aws_region", "name": "here", "instances": [{"attributes": {}}]}
    read = parse(state(resources=[RESOURCE | {"instances": instances}, data]))
    one, two = (
        'module.cluster.aws_rds_cluster_instance.this["1"]',
        "module.cluster.aws_rds_cluster_instance.this[0]",
    )
    assert set(read.resources) == {one, two}
    assert read.resources[one].attributes == {"id": "c-1"}
    assert (read.resources[one].tainted, read.resources[two].tainted) == (False, True)
    assert read.outputs == {"a": 1}


@pytest.mark.parametrize(
    "body", [b'{"version": 4', b"[]", b"null", state(version=3), state(resources=None), b"\xff"]
)
def test_a_damaged_state_is_unreadable(body: bytes) -> None:
    with pytest.raises(Unreadable):
        parse(body)


def test_a_lock_is_read_as_terraform_writes_it() -> None:
    body = b'{"ID":"8e27","Who":"root@vm","Created":"2026-11-24T07:54:13.392117067Z","Path":"x"}'
    lock = parse_lock(body)
    assert (lock.id, lock.who) == ("8e27", "root@vm")
    assert lock.created == datetime(2026, 11, 24, 7, 54, 13, 392117, tzinfo=UTC)


LOCK = Lock("id-1", "root@vm", NOW)


@pytest.mark.parametrize(
    ("prior", "ours"),
    [
        (PriorRun("x@y", NOW, "id-1"), True),
        (PriorRun("root@vm", NOW - timedelta(seconds=2), None), True),
        (PriorRun("root@vm", NOW - timedelta(seconds=2), "id-0"), True),  # its plan's lock was recorded
        (PriorRun("root@vm", NOW + timedelta(minutes=1), None), False),  # the lock is older than the run
        (PriorRun("root@other", NOW, None), False),
        (PriorRun("root@other", NOW, "id-2"), False),
    ],
)
def test_whose_a_lock_is(prior: PriorRun, ours: bool) -> None:
    assert locks.is_ours(LOCK, [prior]) is ours
    assert not locks.is_ours(LOCK, [])


def test_an_unreadable_lock_is_nobodys() -> None:
    lock = parse_lock(b"not json")
    assert not locks.is_ours(lock, [PriorRun("", NOW - timedelta(days=1), "")])
    assert isinstance(locks.in_the_way(lock, "w", now=lock.created), NeedsHuman)


def test_a_young_lock_is_waited_for() -> None:
    assert isinstance(locks.in_the_way(LOCK, "w", now=NOW + timedelta(minutes=9)), Retryable)
    late = locks.in_the_way(LOCK, "w", now=NOW + timedelta(minutes=11))
    assert isinstance(late, NeedsHuman)
    assert late.runbook == "foreign-state-lock"


@pytest.mark.parametrize("stack", archive.STACKS)
def test_states_lie_where_each_stacks_backend_puts_them(stack: str) -> None:
    said = (ROOT / "stacks" / stack / "versions.tf").read_text()
    assert f'workspace_key_prefix = "{PREFIXES[stack]}"' in said
    assert len(set(PREFIXES.values())) == len(PREFIXES) == len(archive.STACKS)
