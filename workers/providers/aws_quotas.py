"""What the account may still have, as AWS itself counts it.

RDS answers used and most of its quotas in one call (Amazon RDS API Reference, `DescribeAccountAttributes`),
IAM of roles (IAM API Reference, `GetAccountSummary`). Secrets Manager tells neither: its quota is one that is
not raised, and CloudWatch has the number of secrets, those that wait for their deletion too, as of the last
hour (Secrets Manager User Guide, "Monitor AWS Secrets Manager with Amazon CloudWatch", "AWS Secrets Manager
quotas"). What the account may not ask, or an answer without these names, is "unknown": a quota that can't be
read must not stop what it might well allow."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

from botocore.exceptions import ClientError

from controlplane.domain.pool import Quota
from controlplane.workers.providers import aws

RDS = {
    "DBClusters": "clusters",
    "DBInstances": "instances",
    "DBSubnetGroups": "subnet_groups",
    "ManualClusterSnapshots": "snapshots",
}
MOST_SECRETS = 500_000
COUNTED_WITHIN = timedelta(hours=3)


class AwsQuotas:
    """`ports.Quotas` on Amazon RDS, IAM and CloudWatch."""

    def __init__(self, *, region: str) -> None:
        self._rds = aws.client("rds", region=region)
        self._iam = aws.client("iam", region=region)
        self._metrics = aws.client("cloudwatch", region=region)
        self._last: tuple[float, Quota] | None = None

    def left(self, *, max_age: float = 0.0) -> Quota:
        if self._last is not None and time.monotonic() - self._last[0] < max_age:
            return self._last[1]
        asked_at = time.monotonic()
        left: dict[str, int] = {}
        for what, ask in (
            ("databases", self._databases),
            ("roles", self._roles),
            ("secrets", self._secrets),
        ):
            with aws.errors(f"reading the account's quotas of {what}"):
                try:
                    left |= ask()
                except ClientError as error:
                    if not aws.code(error).startswith("AccessDenied"):
                        raise
        room = Quota(**left)
        self._last = (asked_at, room)
        return room

    def _databases(self) -> dict[str, int]:
        found = self._rds.describe_account_attributes()["AccountQuotas"]
        named = ((RDS.get(quota["AccountQuotaName"]), quota) for quota in found)
        return {name: int(quota["Max"]) - int(quota["Used"]) for name, quota in named if name is not None}

    def _roles(self) -> dict[str, int]:
        found = self._iam.get_account_summary()["SummaryMap"]
        return {"roles": found["RolesQuota"] - found["Roles"]} if "RolesQuota" in found else {}

    def _secrets(self) -> dict[str, int]:
        now = datetime.now(UTC)
        metric = {"Namespace": "AWS/SecretsManager", "MetricName": "ResourceCount"}
        (found,) = self._metrics.get_metric_data(
            MetricDataQueries=[
                {"Id": "secrets", "MetricStat": {"Metric": metric, "Period": 3600, "Stat": "Maximum"}}
            ],
            StartTime=now - COUNTED_WITHIN,
            EndTime=now,
            ScanBy="TimestampDescending",
        )["MetricDataResults"]
        return {"secrets": MOST_SECRETS - int(found["Values"][0])} if found["Values"] else {}
