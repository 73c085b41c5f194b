"""Asking an AWS account what is there, and whose it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any

from botocore.exceptions import ClientError

from controlplane.domain.errors import NeedsHuman, Pending
from controlplane.workers.providers import aws

MANAGED_BY = "tenant-controlplane"
_IN_BETWEEN = frozenset({"creating", "deleting"})
_NOT_THERE = frozenset(
    {
        "DBClusterNotFoundFault",
        "DBInstanceNotFound",
        "DBInstanceNotFoundFault",
        "DBSubnetGroupNotFoundFault",
        "NoSuchEntity",
        "NotFoundException",
        "ResourceNotFoundException",
    }
)


class AwsAccount:
    """Clients of one region, made when first used (a client costs up to 0.1 s)."""

    def __init__(self, region: str) -> None:
        self.client: Callable[[str], Any] = lru_cache(None)(lambda name: aws.client(name, region=region))


def maybe(action: str, call: Callable[[], Any]) -> Any | None:
    """What `call` answers; None where AWS says that there is no such thing."""
    with aws.errors(action):
        try:
            return call()
        except ClientError as error:
            if aws.code(error) in _NOT_THERE:
                return None
            raise


def pairs(tags: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """IAM, RDS, EC2 and Secrets Manager say Key and Value, KMS says TagKey and TagValue."""
    return {tag.get("Key", tag.get("TagKey", "")): tag.get("Value", tag.get("TagValue", "")) for tag in tags}


def require(what: str, tags: Mapping[str, str], expected: Mapping[str, str]) -> None:
    """Raises NeedsHuman("foreign-resource") where the tags are not the expected ones."""
    wrong = sorted(key for key, value in expected.items() if tags.get(key) != value)
    if wrong:
        raise NeedsHuman(
            f"{what} exists but is not ours: tag {', '.join(wrong)} differs", runbook="foreign-resource"
        )


def reconciled(what: str, status: str) -> None:
    """Raises Pending while AWS is making or deleting it."""
    if status in _IN_BETWEEN:
        raise Pending(f"{what} is {status}", after=15)
