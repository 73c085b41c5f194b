"""Everything of ours in an AWS account, by listing: a call for each page, none for each tenant.

Four services, because none knows all: the tagging service finds what carries our tag but knows no IAM
roles and hides a secret that waits for its deletion; Terraform's states are objects in a bucket.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from controlplane.workers.providers import aws
from controlplane.workers.providers.ports import StateObject, Tagged
from controlplane.workers.providers.terraform.inventory.account import MANAGED_BY, pairs
from controlplane.workers.providers.terraform.state import PREFIXES

SECRETS = "placements/"
_ROLE = re.compile(r"^c-[a-z2-7]{12}$")
_STATE = re.compile(r"^(?P<prefix>[^/]+)/(?P<workspace>[^/]+)/terraform\.tfstate(?P<lock>\.tflock)?$")
_STACKS = {prefix: stack for stack, prefix in PREFIXES.items()}


class AwsInventory:
    """`ports.Inventory` of one region and one state bucket."""

    def __init__(self, *, region: str, bucket: str) -> None:
        self._region = region
        self._bucket = bucket

    def tagged(self) -> Iterator[Tagged]:
        filters = [{"Key": "managed_by", "Values": [MANAGED_BY]}]
        for found in self._all(
            "resourcegroupstaggingapi", "get_resources", "ResourceTagMappingList", TagFilters=filters
        ):
            yield Tagged(found["ResourceARN"], pairs(found["Tags"]))

    def states(self) -> Iterator[StateObject]:
        """A workspace's state and lock lie side by side in the listing, which is in order of keys."""
        last: tuple[str, str] | None = None
        present = locked = False
        for found in self._all("s3", "list_objects_v2", "Contents", Bucket=self._bucket):
            match = _STATE.match(found["Key"])
            if match is None or match["prefix"] not in _STACKS:
                continue
            here = _STACKS[match["prefix"]], match["workspace"]
            if last is not None and here != last:
                yield StateObject(*last, present=present, locked=locked)
                present = locked = False
            last = here
            locked = locked or match["lock"] is not None
            present = present or match["lock"] is None
        if last is not None:
            yield StateObject(*last, present=present, locked=locked)

    def secrets(self) -> Iterator[tuple[str, bool]]:
        filters = [{"Key": "name", "Values": [SECRETS]}]
        for found in self._all(
            "secretsmanager", "list_secrets", "SecretList", Filters=filters, IncludePlannedDeletion=True
        ):
            if found["Name"].startswith(SECRETS):
                yield found["Name"], "DeletedDate" in found

    def roles(self) -> Iterator[str]:
        for found in self._all("iam", "list_roles", "Roles"):
            if _ROLE.match(found["RoleName"]):
                yield found["RoleName"]

    def _all(self, service: str, operation: str, field: str, **arguments: Any) -> Iterator[dict[str, Any]]:
        with aws.errors(f"listing {field} of {service}"):
            client = aws.client(service, region=self._region)
            for page in client.get_paginator(operation).paginate(**arguments):
                yield from page.get(field, [])
