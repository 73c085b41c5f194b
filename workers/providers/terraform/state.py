"""Terraform's state and lock, and the archives of the stacks, as objects of the state bucket.

Both are read with boto3: 10 ms instead of the second that `terraform state pull` takes, and the lock's
id can be recorded while the run that took it goes on. States are changed through terraform alone, but
for one that no JSON parser can read: terraform can't either, so it is put aside. A lock is broken here
as the S3 backend breaks it (compare the id, delete the object), because `terraform force-unlock` has to
take the lock first where a run died before its workspace had a state (measured).

Layout (S3 backend, "Workspace Key Prefix"): `<prefix>/<workspace>/terraform.tfstate`, and the same with
`.tflock` behind it. Archives: `releases/<digest>.tar` (see `archive`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import ClientError

from controlplane.workers.providers import aws

PREFIXES = {"cluster": "clusters", "placements": "placements"}
"""By stack: where its states lie in the bucket, as its backend says."""
FORMAT = 4  # of the state, since Terraform 0.12
_ABSENT = {"NoSuchKey", "404", "NoSuchBucket"}
_TAKEN = {"PreconditionFailed", "412", "ConditionalRequestConflict"}


@dataclass(frozen=True, slots=True)
class Resource:
    attributes: Mapping[str, Any] = field(repr=False)
    tainted: bool


@dataclass(frozen=True, slots=True)
class State:
    """What Terraform remembers of a workspace; `resources` by address."""

    lineage: str
    serial: int
    resources: Mapping[str, Resource]
    outputs: Mapping[str, Any] = field(repr=False)


EMPTY = State(lineage="", serial=0, resources={}, outputs={})


@dataclass(frozen=True, slots=True)
class Lock:
    """A lock as Terraform wrote it; an empty `id` for one that can't be read."""

    id: str
    who: str
    created: datetime


class Unreadable(ValueError):
    """The state is not JSON of Terraform's, version 4."""


class StateBucket:
    """The S3 bucket that holds every state."""

    def __init__(self, bucket: str, *, region: str) -> None:
        self._bucket = bucket
        self._client = aws.client("s3", region=region)

    def state(self, stack: str, workspace: str) -> State | None:
        """None where there is none. Raises Unreadable."""
        body = self.read(_key(stack, workspace))
        return parse(body) if body else None

    def exists(self, stack: str, workspace: str) -> bool:
        return self.read(_key(stack, workspace)) is not None

    def lock(self, stack: str, workspace: str) -> Lock | None:
        body = self.read(_key(stack, workspace) + ".tflock")
        return None if body is None else parse_lock(body)

    def break_lock(self, stack: str, workspace: str, lock_id: str) -> bool:
        """Remove the lock with this id; False where it is gone, or another's by now."""
        lock = self.lock(stack, workspace)
        if lock is None or lock.id != lock_id:
            return False
        with aws.errors(f"breaking the lock of {workspace}"):
            self._client.delete_object(Bucket=self._bucket, Key=_key(stack, workspace) + ".tflock")
        return True

    def put_aside(self, stack: str, workspace: str) -> str:
        """Move an unreadable state out of Terraform's way; return its new key."""
        key = _key(stack, workspace)
        aside = f"{key}.unreadable-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
        with aws.errors(f"putting aside state {key}"):
            self._client.copy_object(
                Bucket=self._bucket, Key=aside, CopySource={"Bucket": self._bucket, "Key": key}
            )
            self._client.delete_object(Bucket=self._bucket, Key=key)
        return aside

    def place(self, key: str) -> str:
        return f"s3://{self._bucket}/{key}"

    def write(self, key: str, body: bytes, *, over: bool = False) -> bool:
        """False where there was something. `over`: write all the same."""
        condition = {} if over else {"IfNoneMatch": "*"}
        with aws.errors(f"writing {key}"):
            try:
                self._client.put_object(Bucket=self._bucket, Key=key, Body=body, **condition)
            except ClientError as error:
                if aws.code(error) in _TAKEN:
                    return False
                raise
        return True

    def read(self, key: str) -> bytes | None:
        """An object; None where there is none."""
        with aws.errors(f"reading {key}"):
            try:
                body: bytes = self._client.get_object(Bucket=self._bucket, Key=key)["Body"].read()
            except ClientError as error:
                if aws.code(error) in _ABSENT:
                    return None
                raise
        return body


def _key(stack: str, workspace: str) -> str:
    return f"{PREFIXES[stack]}/{workspace}/terraform.tfstate"


def parse(body: bytes) -> State:
    """Raises Unreadable."""
    try:
        raw = json.loads(body)
        version = raw["version"]
        state = State(
            lineage=raw["lineage"],
            serial=raw["serial"],
            resources={
                _address(resource, instance): Resource(
                    attributes=instance.get("attributes") or {}, tainted=instance.get("status") == "tainted"
                )
                for resource in raw["resources"]
                if resource["mode"] == "managed"
                for instance in resource["instances"]
                if "deposed" not in instance
            },
            outputs={name: output["value"] for name, output in raw["outputs"].items()},
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Unreadable(f"the state is damaged ({type(error).__name__})") from error
    if version != FORMAT:
        raise Unreadable(f"state version {version!r}, expected {FORMAT}")
    return state


def parse_lock(body: bytes) -> Lock:
    try:
        raw = json.loads(body)
        return Lock(id=str(raw["ID"]), who=str(raw["Who"]), created=datetime.fromisoformat(raw["Created"]))
    except (ValueError, KeyError, TypeError):
        return Lock(id="", who="", created=datetime.now(UTC))


def _address(resource: Mapping[str, Any], instance: Mapping[str, Any]) -> str:
    module = f"{resource['module']}." if "module" in resource else ""
    index = f"[{json.dumps(instance['index_key'])}]" if "index_key" in instance else ""
    return f"{module}{resource['type']}.{resource['name']}{index}"
