"""`stacks/placements`: which of one cluster's placements have their secret.

They are asked for one by one, by name: a list by prefix is one call, but it may lack what was made in the
last five minutes ("ListSecrets" in Secrets Manager's API reference), which is just what a killed run leaves.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from controlplane.workers.providers import aws
from controlplane.workers.providers.terraform.inventory.account import (
    MANAGED_BY,
    AwsAccount,
    maybe,
    pairs,
    require,
)

_AT_ONCE = 8  # calls; botocore keeps 10 connections
_ADDRESS = re.compile(r'^module\.placements\.aws_secretsmanager_secret\.app\["(?P<placement>[^"]+)"\]$')


class PlacementsInventory:
    """`stacks/placements`: a secret for each placement."""

    APP = "module.placements.aws_secretsmanager_secret.app"

    def __init__(self, account: AwsAccount, variables: Mapping[str, Any]) -> None:
        self._account = account
        self._placements: Collection[str] = variables["placements"]
        self._tags = {
            "managed_by": MANAGED_BY,
            "environment": variables["environment"],
            "cluster": variables["cluster_id"],
        }

    @classmethod
    def app_secret(cls, placement: str) -> str:
        """The address of the placement's secret."""
        return f'{cls.APP}["{placement}"]'

    @staticmethod
    def secret_at(address: str) -> tuple[str, str] | None:
        """(placement, the secret's name); None for what is no address of this stack."""
        match = _ADDRESS.match(address)
        if match is None:
            return None
        return match["placement"], f"placements/{match['placement']}/app"

    @classmethod
    def addresses_of(cls, placements: Collection[str]) -> tuple[str, ...]:
        """What may go where these placements do."""
        return tuple(map(cls.app_secret, sorted(placements)))

    def addresses(self) -> tuple[str, ...]:
        return self.addresses_of(self._placements)

    def find(self, addresses: Collection[str], *, restore: bool = False) -> dict[str, str]:
        """Of placements that left the variables, too. Nothing is restored where one of them is not ours."""
        self._account.client("secretsmanager")  # made once, before threads ask for it
        with ThreadPoolExecutor(_AT_ONCE) as threads:
            observed = dict(zip(addresses, threads.map(self._describe, addresses), strict=True))
        found = {}
        for address, secret in observed.items():
            if secret is None:
                continue
            if "DeletedDate" in secret:
                if not restore:
                    continue
                self._restore(secret["Name"])
            found[address] = str(secret["ARN"])
        return found

    def _describe(self, address: str) -> dict[str, Any] | None:
        known = self.secret_at(address)
        if known is None:
            return None
        placement, name = known
        client = self._account.client("secretsmanager")
        observed: dict[str, Any] | None = maybe(
            f"describing secret {name}", lambda: client.describe_secret(SecretId=name)
        )
        if observed is not None:
            require(f"secret {name}", pairs(observed.get("Tags", [])), self._tags | {"placement": placement})
        return observed

    def _restore(self, name: str) -> None:
        """A secret within its deletion window keeps its name taken: it has to be restored, then adopted."""
        with aws.errors(f"restoring secret {name}"):
            self._account.client("secretsmanager").restore_secret(SecretId=name)
