"""Every fake provider, on one world."""

from __future__ import annotations

from dataclasses import dataclass

from controlplane.localcloud.fakes.aws import (
    FakeClusters,
    FakeIdentities,
    FakeInventory,
    FakeQuotas,
    FakeSecrets,
)
from controlplane.localcloud.fakes.billing import FakeBilling
from controlplane.localcloud.fakes.config_cache import FakeConfigCache
from controlplane.localcloud.fakes.custom_hostnames import FakeCustomHostnames
from controlplane.localcloud.fakes.databases import FakeDatabases
from controlplane.localcloud.fakes.dumps import FakeDumps
from controlplane.localcloud.fakes.moves import FakeMoves
from controlplane.localcloud.fakes.snapshots import FakeSnapshots
from controlplane.localcloud.fakes.terraform import FakeTerraform
from controlplane.localcloud.fakes.world import World
from controlplane.workers.providers.ports import Providers


@dataclass(frozen=True, slots=True)
class FakeProviders(Providers):
    """These are used for what only fakes can do."""

    terraform: FakeTerraform
    billing: FakeBilling


def providers(world: World, *, latency: float = 0.0) -> FakeProviders:
    """`latency`: seconds that each of Terraform's resources takes."""
    secrets = FakeSecrets(world)
    databases = FakeDatabases(world, secrets)
    return FakeProviders(
        terraform=FakeTerraform(world, latency=latency),
        clusters=FakeClusters(world),
        snapshots=FakeSnapshots(world),
        quotas=FakeQuotas(world),
        secrets=secrets,
        identities=FakeIdentities(world),
        inventory=FakeInventory(world),
        databases=databases,
        moves=FakeMoves(world, databases),
        hostnames=FakeCustomHostnames(world),
        cache=FakeConfigCache(world),
        billing=FakeBilling(world),
        dumps=FakeDumps(world, databases),
    )
