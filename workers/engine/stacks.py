"""The variables of each Terraform stack, and the digest that says whether it was applied.

Pure. The digest covers the variables and the release of the stacks that the cluster's row names, so a worker
that carries other files applies nothing anew. The operation's id is a variable (it becomes a tag of what it
creates) and no part of the digest: which operation asks must not make a difference.

Variables are made by this code and read by archives of earlier releases. What an archive does not declare it
does not get, so code that passes more than before applies nothing anew before an upgrade; what it declares
without a default must be given for as long as a row names it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from controlplane.domain.cluster import ClusterLifecycle
from controlplane.store.cluster import ClusterRow
from controlplane.workers.engine.context import Platform

MOST_INSTANCES = 16
"""A writer and Aurora's fifteen readers."""


def cluster_variables(platform: Platform, row: ClusterRow) -> dict[str, Any]:
    spec = row.spec
    closing = {"deletion_protection": False, "skip_final_snapshot": True}
    group = platform.cluster_parameter_group
    origin = {} if spec.origin is None else {"origin": spec.origin.to_json()}
    variables = {
        **origin,
        **(closing if spec.lifecycle is ClusterLifecycle.CLOSED else {}),
        **({} if group is None else {"cluster_parameter_group_name": group}),
        **({} if spec.subnet_group is None else {"db_subnet_group_name": spec.subnet_group}),
        "cluster_id": row.id,
        "engine_version": spec.engine_version,
        "min_acu": spec.min_acu,
        "max_acu": spec.max_acu,
        "seconds_until_auto_pause": spec.seconds_until_auto_pause,
        "backup_retention_days": spec.backup_retention_days,
        "instance_count": spec.instance_count,
        "vpc_id": platform.vpc_id,
        "subnet_ids": list(platform.subnet_ids),
        "allowed_security_group_ids": list(platform.app_security_group_ids),
        "final_snapshot_identifier": f"{row.id}-final-g{row.generation}",
        "isolation": spec.isolation.value,
        "environment": platform.environment,
        "app_role_arn": platform.app_role_arn,
        "permissions_boundary_arn": platform.permissions_boundary_arn,
    }
    return _declared(row, "cluster", variables)


def cluster_addresses(row: ClusterRow) -> frozenset[str]:
    """All that an approved close of a cluster may delete, its key too: it leaves no snapshot behind."""
    resources = ["kms_key.this", "kms_alias.this", "security_group.this", "db_subnet_group.this[0]"]
    resources += [
        "cloudwatch_log_group.postgresql",
        "rds_cluster.this",
        "iam_role.this",
        "iam_role_policy.this",
    ]
    resources += [f'rds_cluster_instance.this["{n}"]' for n in range(1, row.spec.instance_count + 1)]
    return frozenset(f"module.cluster.aws_{resource}" for resource in resources)


KEY_ADDRESSES = frozenset({"module.cluster.aws_kms_key.this", "module.cluster.aws_kms_alias.this"})
"""What a snapshot of the cluster can't be read without."""


def placement_addresses(placements: Iterable[str]) -> frozenset[str]:
    """All that the stack of a cluster's placements has of these, which are released."""
    return frozenset(
        f'module.placements.aws_secretsmanager_secret.app["{placement}"]' for placement in placements
    )


def superfluous_readers(row: ClusterRow) -> frozenset[str]:
    """The instances that a plan with fewer of them does without. An instance holds no data, the cluster's
    volume does; where it is the writer, Aurora makes one of those that stay the writer."""
    return frozenset(
        f'module.cluster.aws_rds_cluster_instance.this["{number}"]'
        for number in range(row.spec.instance_count + 1, MOST_INSTANCES + 1)
    )


def placements_variables(platform: Platform, row: ClusterRow, placements: Iterable[str]) -> dict[str, Any]:
    """`placements`: the ids of those that the cluster's second stack is to have."""
    variables = {
        "cluster_id": row.id,
        "placements": sorted(placements),
        "recovery_window_days": platform.secret_recovery_days,
        "environment": platform.environment,
    }
    return _declared(row, "placements", variables)


def _declared(home: ClusterRow, stack: str, variables: dict[str, Any]) -> dict[str, Any]:
    """Those that the stack declares in the release that `home` names; all where it names none yet."""
    if home.declares is None:
        return variables
    names = home.declares.get(stack, ())
    return {name: value for name, value in variables.items() if name in names}


def digest(variables: Mapping[str, Any], release: str | None) -> str:
    """`release`: None for a cluster that names none yet, which nothing was applied for."""
    text = json.dumps([release, variables], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]
