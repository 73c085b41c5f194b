"""A worker publishes the stacks that it carries and initialises them, and those that clusters name, before it
takes work; and never stops because it can't."""

from __future__ import annotations

import logging
import uuid
from pathlib import Path

import boto3
import pytest

from controlplane.domain.catalogue import Isolation
from controlplane.domain.cluster import ClusterLifecycle, ClusterSpec
from controlplane.localcloud.aws.emulator import REGION, AwsEmulator
from controlplane.store import cluster, stack
from controlplane.store.registry import Registry
from controlplane.workers.providers.terraform import archive
from controlplane.workers.runtime import wiring
from tests.harness.terraform import ROOT

SETTINGS = {
    "VPC_ID": "vpc-00000001",
    "SUBNET_IDS": "subnet-00000001,subnet-00000002",
    "APP_SECURITY_GROUP_IDS": "sg-00000001",
    "PERMISSIONS_BOUNDARY_ARN": "arn:aws:iam::123456789012:policy/boundary",
    "APP_ROLE_ARN": "arn:aws:iam::123456789012:role/app",
}
CLUSTER = "c-aaaaaaaaaaaa"
SPEC = ClusterSpec(ClusterLifecycle.ACTIVE, Isolation.DEDICATED, "17.5", 0.0, 4.0, 600, 7, 1)


@pytest.fixture
def bucket(aws: AwsEmulator) -> str:
    name = f"prepare-{uuid.uuid4().hex[:12]}"
    boto3.client("s3").create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": REGION})
    return name


@pytest.fixture
def reported(bucket: str, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a terraform that only writes down its commands was given; it is the one that is found."""
    log, binary = tmp_path / "reported", tmp_path / "terraform"
    binary.write_text(f'#!/bin/sh\necho "$1" >> {log}\n')
    binary.chmod(0o755)
    settings = SETTINGS | {
        "REGISTRY_URL": database_url,
        "TERRAFORM_STATE_BUCKET": bucket,
        "TERRAFORM_BINARY": str(binary),
        "TERRAFORM_WORK_DIR": str(tmp_path / "work"),
    }
    for name, value in settings.items():
        monkeypatch.setenv(f"CONTROLPLANE_{name}", value)
    return log


def test_each_stack_is_initialised_once(reported: Path) -> None:
    wiring.prepare_from_environment()
    wiring.prepare_from_environment()
    assert reported.read_text().split() == ["init"] * len(archive.STACKS)


def test_what_it_carries_is_published_and_is_the_installed_release(
    reported: Path, bucket: str, registry: Registry
) -> None:
    wiring.prepare_from_environment()
    carried = archive.pack(ROOT)
    found = boto3.client("s3").get_object(Bucket=bucket, Key=f"releases/{carried.digest}.tar")
    assert found["Body"].read() == carried.body
    with registry.connection() as conn:
        newest = stack.installed(conn)
        assert newest is not None
        assert newest.digest == carried.digest == wiring.stack_release()
        first = newest.installed_at
        stack.record_release(conn, "f" * 64, {}, installed=True)  # a newer worker starts, and is taken back
        wiring.prepare_from_environment()
        newest = stack.installed(conn)
    assert newest is not None
    assert (newest.digest, newest.installed_at) > (carried.digest, first)


def test_what_clusters_name_is_prepared_too_and_may_be_missing(
    reported: Path, bucket: str, registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    with registry.connection() as conn:
        stack.record_release(conn, "e" * 64, {})
        cluster.insert(conn, cluster_id=CLUSTER, slots=1, spec=SPEC)
        cluster.name_release(conn, CLUSTER, "e" * 64)
    with caplog.at_level(logging.WARNING):
        wiring.prepare_from_environment()
    assert reported.read_text().split() == ["init"] * len(archive.STACKS)
    assert f"is missing: expected it at s3://{bucket}/releases/{'e' * 64}.tar" in caplog.text


def test_a_terraform_that_fails_stops_no_worker(
    reported: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "terraform").write_text("#!/bin/sh\nexit 1\n")
    with caplog.at_level(logging.WARNING):
        wiring.prepare_from_environment()
    assert "terraform could not be prepared" in caplog.text
    assert not reported.exists()


@pytest.mark.parametrize("missing", ["REGISTRY_URL", "TERRAFORM_STATE_BUCKET"])
def test_settings_that_are_missing_stop_no_worker(
    reported: Path, missing: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv(f"CONTROLPLANE_{missing}")
    with caplog.at_level(logging.WARNING):
        wiring.prepare_from_environment()
    assert "the stacks could not be published" in caplog.text
    assert f"CONTROLPLANE_{missing}" in caplog.text
    assert not reported.exists()
