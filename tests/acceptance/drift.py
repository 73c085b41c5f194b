"""The product's own drift report over an acceptance run, asked as operations would ask it (I2, I5, I7)."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from typing import Any

import boto3

from controlplane.localcloud.demo.processes import DemoProcesses


def verify(harness: DemoProcesses, *options: str) -> tuple[int, dict[str, Any]]:
    """Exit status and document of `controlplane verify`. Paused clusters are asked as well."""
    done = subprocess.run(
        [sys.executable, "-m", "controlplane.cli.main", "verify", "--json", "--wake", *options],
        env=harness.environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return done.returncode, found


def violations(harness: DemoProcesses) -> list[str]:
    """In words; empty where every resource has its row and every row its resources."""
    status, found = verify(harness)
    reported = [
        f"{f['system']}: {f['kind']} {f['name']} {f['fault']}: {f['detail']}" for f in found["findings"]
    ]
    reported += found["unread"] + found["isolation_probe"]["untried"]
    assert (status == 0) is (not reported), (status, reported)
    keys = Counter(account(harness).keys())
    return reported + [f"cluster {name} has {n} keys" for name, n in keys.items() if n > 1]


class _Account:
    """The emulated account, for what only a test looks at."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._session = boto3.Session(
            aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
            region_name=environment["AWS_REGION"],
        )
        self._endpoint = environment["AWS_ENDPOINT_URL"]
        self.bucket = environment["CONTROLPLANE_TERRAFORM_STATE_BUCKET"]

    def keys(self) -> list[str]:
        """The cluster that each of our live KMS keys is tagged with: a key has no name that is unique."""
        kms = self.client("kms")
        tagged = []
        for key in self._all("kms", "list_keys", "Keys"):
            described = kms.describe_key(KeyId=key["KeyId"])["KeyMetadata"]
            tags = {t["TagKey"]: t["TagValue"] for t in kms.list_resource_tags(KeyId=key["KeyId"])["Tags"]}
            if "cluster" in tags and described["KeyState"] == "Enabled":
                tagged.append(tags["cluster"])
        return tagged

    def state_files(self) -> dict[str, bytes]:
        s3 = self.client("s3")
        keys = [o["Key"] for o in self._all("s3", "list_objects_v2", "Contents", Bucket=self.bucket)]
        return {key: s3.get_object(Bucket=self.bucket, Key=key)["Body"].read() for key in keys}

    def _all(self, service: str, operation: str, field: str, **arguments: Any) -> list[dict[str, Any]]:
        pages = self.client(service).get_paginator(operation).paginate(**arguments)
        return [item for page in pages for item in page.get(field, [])]

    def client(self, service: str) -> Any:
        return self._session.client(service, endpoint_url=self._endpoint)


def account(harness: DemoProcesses) -> _Account:
    return _Account(harness.environment())
