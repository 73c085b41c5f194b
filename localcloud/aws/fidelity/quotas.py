"""What the account may have, and how AWS refuses more. The quotas of clusters, instances and snapshots are
kept where these are made (`rds_clusters.py`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from moto.core.responses import ActionResult
from moto.iam.exceptions import LimitExceededException
from moto.iam.models import AccountSummary, IAMBackend
from moto.rds.exceptions import RDSClientError
from moto.rds.models import RDSBackend
from moto.rds.responses import RDSResponse

from controlplane.localcloud.aws.fidelity.patch import around, put
from controlplane.localcloud.aws.settings import EmulatorSettings


def repair(settings: EmulatorSettings) -> None:
    _databases(settings)
    _roles(settings)


def _databases(settings: EmulatorSettings) -> None:
    def describe_account_attributes(self: Any) -> ActionResult:
        """AWS: each quota's name, what is used of it and the most (API Reference,
        DescribeAccountAttributes). moto: has no such action."""
        manual = [s for s in self.backend.cluster_snapshots.values() if s.snapshot_type != "automated"]
        quotas = {
            "DBClusters": (len(self.backend.clusters), settings.rds_cluster_quota),
            "DBInstances": (len(self.backend.databases), settings.rds_instance_quota),
            "DBSubnetGroups": (len(self.backend.subnet_groups), settings.rds_subnet_group_quota),
            "ManualClusterSnapshots": (len(manual), settings.rds_snapshot_quota),
        }
        return ActionResult(
            {
                "AccountQuotas": [
                    {"AccountQuotaName": name, "Used": used, "Max": most}
                    for name, (used, most) in quotas.items()
                ]
            }
        )

    put(RDSResponse, "describe_account_attributes", describe_account_attributes)

    @around(RDSBackend, "create_subnet_group")
    def only_so_many(create: Callable[..., Any], self: Any, *arguments: Any, **options: Any) -> Any:
        """AWS: DBSubnetGroupQuotaExceeded (API Reference, CreateDBSubnetGroup). moto: has no quota."""
        if len(self.subnet_groups) >= settings.rds_subnet_group_quota:
            raise RDSClientError(
                "DBSubnetGroupQuotaExceeded", "You can't create more subnet groups: the quota is used up."
            )
        return create(self, *arguments, **options)


def _roles(settings: EmulatorSettings) -> None:
    put(AccountSummary, "_roles_quota", property(lambda _: settings.iam_role_quota, lambda _, __: None))

    @around(IAMBackend, "create_role")
    def only_so_many(create: Callable[..., Any], self: Any, *arguments: Any, **options: Any) -> Any:
        """AWS: LimitExceeded, "Cannot exceed quota for RolesPerAccount" (IAM User Guide, "IAM and AWS STS
        quotas"). moto: tells the quota, and makes more."""
        if len(self.roles) >= settings.iam_role_quota:
            raise LimitExceededException(
                f"Cannot exceed quota for RolesPerAccount: {settings.iam_role_quota}"
            )
        return create(self, *arguments, **options)
