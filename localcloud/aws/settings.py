"""What can be turned on the emulator, at its start by environment and later by
`POST /_localcloud/settings`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass(slots=True)
class EmulatorSettings:
    """`rds_create_seconds`: how long a new cluster, and a new instance, stays "creating".
    `rds_rotation_seconds`: how long the server knows a rotated master password before AWSCURRENT does;
    changed meanwhile, it counts for rotations under way too. `rds_pause_seconds`: how long nobody is
    connected to a cluster that may pause before it does; 0 for what the cluster itself says. The quotas are
    those of a fresh AWS account, per region or (roles) at all."""

    rds_create_seconds: float = 0.0
    rds_rotation_seconds: float = 0.0
    rds_pause_seconds: float = 0.0
    rds_cluster_quota: int = 40
    rds_instance_quota: int = 40
    rds_snapshot_quota: int = 100
    rds_subnet_group_quota: int = 50
    iam_role_quota: int = 1000

    @classmethod
    def from_environment(cls) -> EmulatorSettings:
        """LOCALCLOUD_RDS_CREATE_SECONDS, LOCALCLOUD_RDS_CLUSTER_QUOTA and so on."""
        settings = cls()
        named = {field.name: os.environ.get(f"LOCALCLOUD_{field.name.upper()}") for field in fields(cls)}
        settings.change({name: value for name, value in named.items() if value})
        return settings

    def change(self, values: Mapping[str, Any]) -> None:
        """Raises ValueError, naming the setting; changes nothing then."""
        changed = {}
        for name, value in values.items():
            if name not in asdict(self):
                raise ValueError(f"{name}: expected one of {', '.join(asdict(self))}")
            kind = type(getattr(self, name))
            try:
                changed[name] = kind(value)
            except (TypeError, ValueError) as error:
                raise ValueError(f"{name}: expected {kind.__name__}, got {value!r}") from error
            if not changed[name] >= 0:
                raise ValueError(f"{name}: expected 0 or more, got {value!r}")
        for name, number in changed.items():
            setattr(self, name, number)
