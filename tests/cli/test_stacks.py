"""`controlplane stacks publish`, over the local cloud's bucket."""

from __future__ import annotations

import json
import subprocess
import sys

import boto3
import pytest

from controlplane.store import stack
from controlplane.store.registry import Registry
from controlplane.workers.providers.terraform import archive
from tests.harness.terraform import ROOT

CARRIED = archive.pack(ROOT)
KEY = archive.key_of(CARRIED.digest)


def publish(env: dict[str, str], *args: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "controlplane.cli.main", "stacks", "publish", *args],
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout


@pytest.fixture
def bucket(env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> str:
    for name, value in env.items():
        if name.startswith("AWS_"):
            monkeypatch.setenv(name, value)
    return env["CONTROLPLANE_TERRAFORM_STATE_BUCKET"]


def test_it_publishes_what_is_installed_once_and_mends_what_was_written_over(
    env: dict[str, str], bucket: str
) -> None:
    s3 = boto3.client("s3")
    s3.delete_object(Bucket=bucket, Key=KEY)
    place = f"s3://{bucket}/{KEY}, {len(CARRIED.body)} bytes"
    said = f"release {CARRIED.digest} is not published: it would be"
    assert publish(env, "--dry-run").splitlines() == [said, place]
    assert s3.list_objects_v2(Bucket=bucket, Prefix=KEY)["KeyCount"] == 0
    assert publish(env).splitlines() == [f"release {CARRIED.digest} published", place]
    assert s3.get_object(Bucket=bucket, Key=KEY)["Body"].read() == CARRIED.body
    assert "is published already" in publish(env)
    s3.put_object(Bucket=bucket, Key=KEY, Body=b"something else")
    assert "is damaged: it would be replaced" in publish(env, "--dry-run")
    assert "was damaged and is replaced" in publish(env)
    assert s3.get_object(Bucket=bucket, Key=KEY)["Body"].read() == CARRIED.body


def test_its_document_and_what_the_registry_knows(env: dict[str, str], bucket: str) -> None:
    """Who publishes by hand installs nothing."""
    found = json.loads(publish(env, "--json"))
    assert found == {
        "digest": CARRIED.digest,
        "place": f"s3://{bucket}/{KEY}",
        "size": len(CARRIED.body),
        "found": found["found"],
        "dry_run": False,
    }
    assert found["found"] in {"absent", "present"}
    with Registry(env["CONTROLPLANE_REGISTRY_URL"]) as registry, registry.connection() as conn:
        [known] = stack.releases(conn, prefix=CARRIED.digest)
    assert known.digest == CARRIED.digest


def test_a_setting_that_is_missing_is_named(env: dict[str, str]) -> None:
    without = {name: value for name, value in env.items() if name != "CONTROLPLANE_TERRAFORM_STATE_BUCKET"}
    with pytest.raises(subprocess.CalledProcessError) as failed:
        publish(without)
    assert failed.value.returncode == 2
    assert "error: CONTROLPLANE_TERRAFORM_STATE_BUCKET" in failed.value.stderr
