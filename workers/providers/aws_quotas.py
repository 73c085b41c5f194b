"""The account's room for more clusters, as RDS itself counts it.

`DescribeAccountAttributes` (Amazon RDS API Reference) answers used and most of each quota in one call
and with one permission; Service Quotas knows the limit alone. An account that may not ask, or an answer
without these names, is "unknown": a quota that can't be read must not stop what it might well allow.
"""

from __future__ import annotations

import time

from botocore.exceptions import ClientError

from controlplane.domain.pool import Quota
from controlplane.workers.providers import aws

UNKNOWN = Quota(clusters=None, instances=None)


class AwsQuotas:
    """`ports.Quotas` on Amazon RDS."""

    def __init__(self, *, region: str) -> None:
        self._client = aws.client("rds", region=region)
        self._last: tuple[float, Quota] | None = None

    def left(self, *, max_age: float = 0.0) -> Quota:
        if self._last is not None and time.monotonic() - self._last[0] < max_age:
            return self._last[1]
        asked_at = time.monotonic()
        room = self._ask()
        self._last = (asked_at, room)
        return room

    def _ask(self) -> Quota:
        with aws.errors("reading the account's quotas"):
            try:
                found = self._client.describe_account_attributes()["AccountQuotas"]
            except ClientError as error:
                if aws.code(error).startswith("AccessDenied"):
                    return UNKNOWN
                raise
        left = {quota["AccountQuotaName"]: int(quota["Max"]) - int(quota["Used"]) for quota in found}
        return Quota(clusters=left.get("DBClusters"), instances=left.get("DBInstances"))
