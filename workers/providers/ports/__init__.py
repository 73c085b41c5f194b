"""What the engine asks of the external systems: one Protocol for each outside system.

The engine depends on these and on nothing of a vendor's; each has one real provider in this folder
and one fake in `localcloud/fakes`, and both pass the same tests in `tests/provider`. All methods are
idempotent unless their docstring says otherwise, raise only the errors of
`controlplane.domain.errors` (vendor errors are translated at this edge, chained with `from`), and
bound their own time. No value that holds a secret has a repr that shows it.
"""

from dataclasses import dataclass

from controlplane.workers.providers.ports.billing import Billing
from controlplane.workers.providers.ports.clusters import (
    Activity,
    ClusterDescription,
    ClusterEndpoint,
    Clusters,
)
from controlplane.workers.providers.ports.config_cache import ConfigCache, PublishedConfig
from controlplane.workers.providers.ports.databases import (
    Bounds,
    DatabaseDescription,
    Databases,
    FileRun,
    LockHeld,
    Rehearsed,
)
from controlplane.workers.providers.ports.dumps import Dump, Dumps
from controlplane.workers.providers.ports.hostnames import (
    CustomHostnames,
    HostnameDescription,
    ValidationRecord,
)
from controlplane.workers.providers.ports.identities import Identities
from controlplane.workers.providers.ports.inventory import Inventory, StateObject, Tagged
from controlplane.workers.providers.ports.moves import (
    Copied,
    HandedOver,
    Home,
    MoveDescription,
    MoveRun,
    Moves,
    TableCompared,
)
from controlplane.workers.providers.ports.quotas import Quotas
from controlplane.workers.providers.ports.secrets import Credential, SecretDescription, Secrets
from controlplane.workers.providers.ports.snapshots import SnapshotDescription, Snapshots
from controlplane.workers.providers.ports.terraform import (
    Found,
    PlannedChange,
    PriorRun,
    Publication,
    ResourceEvent,
    StackRun,
    Terraform,
)
from controlplane.workers.providers.ports.webhook_sink import WebhookSink


@dataclass(frozen=True, slots=True)
class Providers:
    """Made in `workers/providers/real.py`; the fakes in `localcloud/fakes/providers.py`."""

    terraform: Terraform
    clusters: Clusters
    snapshots: Snapshots
    quotas: Quotas
    secrets: Secrets
    identities: Identities
    inventory: Inventory
    databases: Databases
    moves: Moves
    hostnames: CustomHostnames
    cache: ConfigCache
    billing: Billing
    dumps: Dumps


__all__ = [
    "Activity",
    "Billing",
    "Bounds",
    "ClusterDescription",
    "ClusterEndpoint",
    "Clusters",
    "ConfigCache",
    "Copied",
    "Credential",
    "CustomHostnames",
    "DatabaseDescription",
    "Databases",
    "Dump",
    "Dumps",
    "FileRun",
    "Found",
    "HandedOver",
    "Home",
    "HostnameDescription",
    "Identities",
    "Inventory",
    "LockHeld",
    "MoveDescription",
    "MoveRun",
    "Moves",
    "PlannedChange",
    "PriorRun",
    "Providers",
    "Publication",
    "PublishedConfig",
    "Quotas",
    "Rehearsed",
    "ResourceEvent",
    "SecretDescription",
    "Secrets",
    "SnapshotDescription",
    "Snapshots",
    "StackRun",
    "StateObject",
    "TableCompared",
    "Tagged",
    "Terraform",
    "ValidationRecord",
    "WebhookSink",
]
