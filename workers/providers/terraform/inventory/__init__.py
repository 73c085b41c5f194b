"""What exists at AWS under our names, and is ours: the ground for adoption.

A killed apply can leave resources that no state knows. Because every name is a function of an id, they
are found again by name; because every resource is tagged when it is made, a stranger's resource under
that name is recognised and left alone. The one nameless resource, the KMS key, is found through what
points at it: the cluster that it encrypts, else its alias, else its tags.

One class a stack; each knows the stack's addresses in Terraform and, for each, how to find it and the
id that an `import` block takes (the "Import" section of the resource's page in the AWS provider's
documentation).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Protocol

from controlplane.domain.errors import NeedsHuman
from controlplane.workers.providers.terraform.inventory.account import AwsAccount
from controlplane.workers.providers.terraform.inventory.cluster import ClusterInventory
from controlplane.workers.providers.terraform.inventory.placements import PlacementsInventory

__all__ = ["AwsAccount", "ClusterInventory", "Inventory", "PlacementsInventory", "inventory_of"]


class Inventory(Protocol):
    """The resources of one stack in one workspace."""

    def addresses(self) -> tuple[str, ...]:
        """Every address that the variables ask for, in the order in which Terraform makes them."""
        ...

    def find(self, addresses: Collection[str], *, restore: bool = False) -> dict[str, str]:
        """Import ids of those that exist; none of what is no address of the stack. `restore`: take what
        waits for its deletion out of it (else it counts as gone). Raises NeedsHuman("foreign-resource")
        where one is not ours, Pending while AWS is still making or deleting one."""
        ...


def inventory_of(stack: str, account: AwsAccount, variables: Mapping[str, Any]) -> Inventory:
    """Raises NeedsHuman for a stack that nobody described here: it could not be recovered."""
    kinds: dict[str, type[ClusterInventory] | type[PlacementsInventory]] = {
        "cluster": ClusterInventory,
        "placements": PlacementsInventory,
    }
    if stack not in kinds:
        raise NeedsHuman(f"stack {stack!r} has no inventory", runbook="terraform-configuration")
    try:
        return kinds[stack](account, variables)
    except KeyError as error:
        raise NeedsHuman(
            f"stack {stack}: variable {error.args[0]} is missing", runbook="terraform-configuration"
        ) from error
