"""`stacks/tenant`: what exists of one placement's secrets."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any

from controlplane.workers.providers import aws
from controlplane.workers.providers.terraform.inventory.account import (
    MANAGED_BY,
    AwsAccount,
    collect,
    maybe,
    pairs,
    require,
)


class TenantInventory:
    """`stacks/tenant`: two secrets."""

    app_secret = "module.tenant.aws_secretsmanager_secret.app"  # noqa: S105
    migrator_secret = "module.tenant.aws_secretsmanager_secret.migrator"  # noqa: S105

    def __init__(self, account: AwsAccount, variables: Mapping[str, Any]) -> None:
        self._account = account
        self._variables = variables
        self._tags = {
            "managed_by": MANAGED_BY,
            "environment": variables["environment"],
            "tenant": variables["tenant_id"],
            "placement": variables["placement_key"],
        }

    def addresses(self) -> tuple[str, ...]:
        return (self.app_secret, self.migrator_secret)

    def find(self, addresses: Collection[str], *, restore: bool = False) -> dict[str, str]:
        ways: dict[str, Callable[[], str | None]] = {
            self.app_secret: partial(self._secret, self._variables["app_secret_name"], restore),
            self.migrator_secret: partial(self._secret, self._variables["migrator_secret_name"], restore),
        }
        return collect(ways, addresses)

    def _secret(self, name: str, restore: bool) -> str | None:
        """A secret within its deletion window keeps its name taken: it has to be restored, then adopted."""
        client = self._account.client("secretsmanager")
        observed = maybe(f"describing secret {name}", lambda: client.describe_secret(SecretId=name))
        if observed is None:
            return None
        require(f"secret {name}", pairs(observed.get("Tags", [])), self._tags)
        if "DeletedDate" in observed:
            if not restore:
                return None
            with aws.errors(f"restoring secret {name}"):
                client.restore_secret(SecretId=name)
        return str(observed["ARN"])
