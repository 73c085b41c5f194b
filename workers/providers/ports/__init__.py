"""What the engine asks of the outside world: one Protocol for each outside system.

The engine depends on these and on nothing of a vendor's; each has one real provider in this folder
and one fake in `localcloud/fakes`, and both pass the same tests in `tests/provider`. All methods are
idempotent unless their docstring says otherwise, raise only the errors of
`controlplane.domain.errors` (vendor errors are translated at this edge, chained with `from`), and
bound their own time. No value that holds a secret has a repr that shows it.
"""

from workers.providers.ports.billing import Billing
from workers.providers.ports.clusters import ClusterEndpoint, Clusters, ClusterSeen
from workers.providers.ports.config_cache import ConfigCache, PublishedConfig
from workers.providers.ports.databases import Bounds, Databases, DatabaseSeen, FileRun, LockHeld, Rehearsed
from workers.providers.ports.dumps import Dump, Dumps
from workers.providers.ports.hostnames import CustomHostnames, HostnameSeen, ValidationRecord
from workers.providers.ports.identities import Identities
from workers.providers.ports.inventory import Inventory, StateObject, Tagged
from workers.providers.ports.listener import Listener
from workers.providers.ports.moves import Copied, HandedOver, Home, MoveRun, Moves, MoveSeen, TableCompared
from workers.providers.ports.quotas import QuotaRoom, Quotas
from workers.providers.ports.secrets import Credential, Secrets, SecretSeen
from workers.providers.ports.snapshots import Snapshots, SnapshotSeen
from workers.providers.ports.terraform import PlannedChange, PriorRun, ResourceEvent, StackRun, Terraform

__all__ = [
    "Billing",
    "Bounds",
    "ClusterEndpoint",
    "ClusterSeen",
    "Clusters",
    "ConfigCache",
    "Copied",
    "Credential",
    "CustomHostnames",
    "DatabaseSeen",
    "Databases",
    "Dump",
    "Dumps",
    "FileRun",
    "HandedOver",
    "Home",
    "HostnameSeen",
    "Identities",
    "Inventory",
    "Listener",
    "LockHeld",
    "MoveRun",
    "MoveSeen",
    "Moves",
    "PlannedChange",
    "PriorRun",
    "PublishedConfig",
    "QuotaRoom",
    "Quotas",
    "Rehearsed",
    "ResourceEvent",
    "SecretSeen",
    "Secrets",
    "SnapshotSeen",
    "Snapshots",
    "StackRun",
    "StateObject",
    "TableCompared",
    "Tagged",
    "Terraform",
    "ValidationRecord",
]
