"""Dumps in an S3 bucket.

A dump is written as it comes from `pg_dump`, in parts, and its SHA-256 is worked out on the way. Then it is
read back whole and compared, and only then its manifest (`<name>.json`) is written: a dump without a
manifest is none, so one that a killed worker left half written is simply made again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import closing
from typing import Any

from boto3.s3.transfer import TransferConfig
from botocore.exceptions import ClientError

from controlplane.domain.errors import ControlPlaneError, NeedsHuman, Retryable
from controlplane.domain.placement import Placement
from controlplane.workers.providers import aws
from controlplane.workers.providers.dumps.pg_dump import RUNBOOK, PgDump, Stream
from controlplane.workers.providers.ports import ClusterEndpoint, Dump

PART_BYTES = 64 * 1024 * 1024
"""S3 takes 10,000 parts of an object: dumps of up to 640 GB, with two parts in memory at most."""
READ_BYTES = 1024 * 1024
MANIFEST_BYTES = 4 * 1024 * 1024


class S3Dumps:
    """`ports.Dumps`. `bucket` None: none can be made."""

    def __init__(self, pg_dump: PgDump, *, region: str, bucket: str | None) -> None:
        self._pg_dump = pg_dump
        self._bucket_name = bucket
        self._s3 = aws.client("s3", region=region, timeout=60)

    def make(
        self, at: ClusterEndpoint, placement: Placement, *, name: str, stopped: Callable[[], bool]
    ) -> Dump:
        made = self._manifest(name)
        if made is not None and self._digest(name) == made.sha256:
            return made
        with self._pg_dump.stream(at, placement, stopped=stopped) as stream:
            body = _Hashing(stream)
            self._upload(name, body)
            made = Dump(name, body.sha256, body.size, stream.tables, stream.server_version)
        if self._digest(name) != made.sha256:
            raise Retryable(f"dump {name}: what was read back is not what was written")
        with aws.errors(f"writing the manifest of {name}"):
            self._s3.put_object(
                Bucket=self._bucket,
                Key=f"{name}.json",
                Body=json.dumps(made.to_manifest(), indent=2).encode(),
                ContentType="application/json",
            )
        return made

    def delete(self, name: str) -> None:
        for key in (f"{name}.json", name):  # the manifest first: what has none is no dump
            self._delete_object(key)

    def exists(self, name: str) -> bool:
        return self._manifest(name) is not None

    @property
    def _bucket(self) -> str:
        if self._bucket_name is None:
            raise NeedsHuman("no bucket is named for dumps (CONTROLPLANE_COPY_BUCKET)", runbook=RUNBOOK)
        return self._bucket_name

    def _upload(self, name: str, body: _Hashing) -> None:
        """S3 keeps nothing of an upload that was broken off."""
        config = TransferConfig(
            multipart_threshold=PART_BYTES, multipart_chunksize=PART_BYTES, use_threads=False
        )
        with aws.errors(f"writing {name}"):
            try:
                self._s3.upload_fileobj(body, self._bucket, name, Config=config)
            except ControlPlaneError:
                raise
            except Exception as error:
                if body.fault is not None:  # the transfer wraps what reading raised
                    raise body.fault from error
                raise

    def _digest(self, name: str) -> str | None:
        """Of what the bucket holds, read to its end; None where there is nothing."""
        found = self._object(name)
        if found is None:
            return None
        digest = hashlib.sha256()
        with aws.errors(f"reading {name} back"), closing(found["Body"]) as body:
            for part in body.iter_chunks(READ_BYTES):
                digest.update(part)
        return digest.hexdigest()

    def _manifest(self, name: str) -> Dump | None:
        found = self._object(f"{name}.json")
        if found is None:
            return None
        with aws.errors(f"reading the manifest of {name}"), closing(found["Body"]) as body:
            text = body.read(MANIFEST_BYTES)
        try:
            kept = json.loads(text)
            return Dump(name, kept["sha256"], kept["size"], kept["tables"], kept["server_version"])
        except (ValueError, KeyError, TypeError):
            return None  # it is made again

    def _object(self, key: str) -> dict[str, Any] | None:
        with aws.errors(f"reading {key}"):
            try:
                found: dict[str, Any] = self._s3.get_object(Bucket=self._bucket, Key=key)
            except ClientError as error:
                if aws.code(error) in {"NoSuchKey", "404"}:
                    return None
                raise
        return found

    def _delete_object(self, key: str) -> None:
        """With all its versions: in a versioned bucket a plain delete would only hide it."""
        with aws.errors(f"deleting {key}"):
            pages = self._s3.get_paginator("list_object_versions").paginate(Bucket=self._bucket, Prefix=key)
            for page in pages:
                for found in [*page.get("Versions", []), *page.get("DeleteMarkers", [])]:
                    if found["Key"] == key:
                        self._s3.delete_object(Bucket=self._bucket, Key=key, VersionId=found["VersionId"])


class _Hashing:
    """A stream as S3's transfer reads it: parts of full size, their digest and their sum on the way."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._digest = hashlib.sha256()
        self.size = 0
        self.fault: ControlPlaneError | None = None

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def read(self, size: int = -1) -> bytes:
        parts: list[bytes] = []
        left = size
        while left != 0:
            try:
                part = self._stream.read(left if size >= 0 else READ_BYTES)
            except ControlPlaneError as error:
                self.fault = error
                raise
            if not part:
                break
            parts.append(part)
            left -= len(part) if size >= 0 else 0
        data = b"".join(parts)
        self._digest.update(data)
        self.size += len(data)
        return data
