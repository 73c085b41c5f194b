"""What the engine asks of the outside world: one Protocol for each outside system.

The engine depends on these and on nothing of a vendor's; each has one real provider in this folder
and one fake in `localcloud/simulated`, and both pass the same tests in `tests/contract`. All methods are
idempotent unless their docstring says otherwise, raise only the errors of
`controlplane.domain.errors` (vendor errors are translated at this edge, chained with `from`), and
bound their own time. No value that holds a secret has a repr that shows it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from controlplane.domain.errors import LeaseLost
from controlplane.domain.placement import Placement
from controlplane.domain.release import Release

# ------------------------------------------------------------------------------------ Terraform


@dataclass(frozen=True, slots=True)
class PriorRun:
    """A Terraform run of ours on this workspace that was recorded before it started and never
    recorded as ended. Its lock may be broken, nobody else's may."""

    who: str  # `user@host`, as Terraform writes it into its lock
    started_at: datetime
    lock_id: str | None  # known once the run had taken its lock


@dataclass(frozen=True, slots=True)
class StackRun:
    """One stack in one workspace, as it should be.

    `variables` never hold a secret. `approved` are the resource addresses that this run may delete
    or replace; anything else that the Terraform plan would delete or replace stops it (I6).
    `prior_runs` come from the registry, the caller holds the lease, so none of them is alive.
    """

    stack: str  # "cluster" | "tenant": a folder of terraform/stacks
    workspace: str
    variables: Mapping[str, Any]
    prior_runs: Sequence[PriorRun] = ()
    approved: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class ResourceEvent:
    """One line of a run's progress, from `terraform apply -json`, with no value in it."""

    # "lock_taken" | "recovered" | "adopted" | "planned" | "started" | "progress" | "done" | "failed"
    kind: str
    address: str  # the resource's address, the lock's id for "lock_taken", "" for the run as a whole
    action: str  # "create" | "update" | "delete" | "read" | "import" | "untaint" | "unlock" | …
    seconds: float | None
    message: str


@dataclass(frozen=True, slots=True)
class PlannedChange:
    address: str
    action: str  # "create" | "update" | "delete" | "replace" | "import"
    destructive: bool


class Terraform(Protocol):
    def apply(
        self, run: StackRun, *, on_event: Callable[[ResourceEvent], None], stopped: Callable[[], bool]
    ) -> dict[str, Any]:
        """Bring the stack to `run.variables`; return its outputs.

        Recovers first from whatever a killed run left behind (stale lock of ours, lost state,
        tainted or orphaned resources), then plans, guards, applies. `stopped` is asked at least
        every second; once true the child gets SIGINT, after 10 s SIGKILL, and LeaseLost is raised.

        Raises Retryable (throttling, network, a lock that may still be alive),
        NeedsHuman("destructive-terraform-plan" | "foreign-state-lock" | "aws-quota"
        | "terraform-configuration").
        """
        ...

    def plan(self, run: StackRun) -> list[PlannedChange]:
        """What `apply` would change; changes nothing, takes no lock for longer than the plan."""
        ...

    def destroy(
        self, run: StackRun, *, on_event: Callable[[ResourceEvent], None], stopped: Callable[[], bool]
    ) -> None:
        """Delete everything in the workspace that `run.approved` names, then the workspace itself.
        An empty workspace is success."""
        ...

    def version(self) -> str: ...


# ------------------------------------------------------------------------------- AWS, besides Terraform


@dataclass(frozen=True, slots=True)
class ClusterEndpoint:
    """How to reach a cluster's writer, and where its managed master password is kept."""

    host: str
    port: int
    master_secret_arn: str
    resource_id: str


@dataclass(frozen=True, slots=True)
class ClusterSeen:
    """`status` as RDS names it ("creating", "available", …); `endpoint` None until it is known."""

    status: str
    writer_status: str | None
    endpoint: ClusterEndpoint | None


class Clusters(Protocol):
    def describe(self, cluster_id: str) -> ClusterSeen | None: ...


class Snapshots(Protocol):
    """Manual snapshots of clusters. The caller has recorded a name before it is used here."""

    def ensure(self, cluster_id: str, name: str, *, tags: Mapping[str, str]) -> str:
        """The status of the snapshot as RDS names it ("creating", "available", …); begun where there is
        none, adopted where it is this cluster's and ours. Never waits. `tags`: beside `managed_by`;
        `cluster` must be among them.

        Raises Retryable, NeedsHuman("foreign-resource" | "aws-quota" | "aws-request")."""
        ...

    def delete(self, name: str) -> None:
        """Gone already is success. Raises NeedsHuman("foreign-resource") where it is not ours."""
        ...


@dataclass(frozen=True, slots=True)
class QuotaRoom:
    """How many more clusters and instances the account may have in this region; None where AWS does
    not say."""

    clusters: int | None
    instances: int | None


class Quotas(Protocol):
    def room(self, *, max_age: float = 0.0) -> QuotaRoom:
        """An answer of up to `max_age` seconds ago will do."""
        ...


@dataclass(frozen=True, slots=True)
class Credential:
    """A database login as kept in Secrets Manager, in the JSON shape of RDS's own secrets."""

    username: str
    password: str = field(repr=False)
    host: str = ""
    port: int = 5432
    dbname: str = ""


@dataclass(frozen=True, slots=True)
class SecretSeen:
    name: str
    arn: str
    version_id: str | None  # of AWSCURRENT; None while the container is empty
    deleting: bool


class Secrets(Protocol):
    def describe(self, name: str) -> SecretSeen | None:
        """The secret's container, by name or ARN; None where there is none."""
        ...

    def read(self, name: str) -> Credential:
        """The AWSCURRENT value. Raises Retryable while there is none yet."""
        ...

    def write(self, name: str, credential: Credential, *, token: str) -> str:
        """Make `credential` AWSCURRENT, return its version id. The same token twice writes once
        (`ClientRequestToken`, 32 to 64 characters). The container must exist: Terraform makes it."""
        ...

    def read_version(self, name: str, version_id: str) -> Credential | None:
        """The value of one version, whatever its label; None where there is none of this id."""
        ...

    def stage(self, name: str, credential: Credential, *, token: str) -> str:
        """Keep `credential` as AWSPENDING, which nobody uses yet; return its version id, which is the
        token. Raises Retryable where the token was taken for another value: read that one."""
        ...

    def promote(self, name: str, version_id: str, *, replacing: str) -> None:
        """Make this version AWSCURRENT if `replacing` is now: compared and moved in one step at AWS,
        so a writer who slept through its lease changes nothing. Raises Retryable where another is;
        promoted already is success."""
        ...


class Identities(Protocol):
    def role_exists(self, name: str) -> bool: ...

    def readable(self, role: str, secrets: Sequence[str]) -> list[str]:
        """Which of these secrets (ARNs, at most 50) AWS would let this role read, by its policies and its
        boundary: simulated, nothing is read. Raises NotFound where there is no such role."""
        ...


@dataclass(frozen=True, slots=True)
class Tagged:
    """Something in the account with our tag `managed_by`."""

    arn: str
    tags: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class StateObject:
    """A workspace of the state bucket: does it have a state, does it have a lock?"""

    stack: str
    workspace: str
    present: bool
    locked: bool


class Inventory(Protocol):
    """Everything of ours in the account, a page at a time: no call for each tenant. Raises Retryable and
    NeedsHuman."""

    def tagged(self) -> Iterator[Tagged]:
        """All but IAM roles, which AWS's tagging service does not know. May name what was deleted in the
        last hours."""
        ...

    def states(self) -> Iterator[StateObject]: ...

    def secrets(self) -> Iterator[tuple[str, bool]]:
        """(name, waits for its deletion) of every secret under `tenants/`."""
        ...

    def roles(self) -> Iterator[str]:
        """Names of all roles that are called like a tenant's."""
        ...


# ------------------------------------------------------------------------------------- PostgreSQL


@dataclass(frozen=True, slots=True)
class DatabaseSeen:
    """A tenant's database as its cluster shows it to the master."""

    exists: bool
    hardened: bool  # roles, grants, schema, marker: all of the recipe holds
    logins_open: bool  # may the application's logins connect?
    release: str | None  # the newest migration recorded in the database, e.g. "0002"
    roles: bool = False  # is any of the placement's roles there?


@dataclass(frozen=True, slots=True)
class Bounds:
    """Seconds that a statement of a migration may wait for a lock, and run."""

    lock_timeout: float
    statement_timeout: float


@dataclass(frozen=True, slots=True)
class FileRun:
    """A file, or a whole run of another tool, that was applied now."""

    name: str
    seconds: float


@dataclass(frozen=True, slots=True)
class LockHeld:
    """`mode` as PostgreSQL names it; `seconds` between the first and the last time it was seen."""

    table: str
    mode: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Rehearsed:
    """A copy of a tenant's database that was migrated. `size`: of the original, in bytes."""

    seconds: float
    size: int
    files: list[FileRun]
    locks: list[LockHeld]


class Databases(Protocol):
    """Acts on tenant databases, as the cluster's master unless said otherwise."""

    def harden_cluster(self, at: ClusterEndpoint) -> None:
        """Take CONNECT on `postgres` and `template1` from PUBLIC. Raises Retryable while the
        cluster can't be reached."""
        ...

    def cluster_hardened(self, at: ClusterEndpoint) -> bool: ...

    def observe(self, at: ClusterEndpoint, placement: Placement) -> DatabaseSeen: ...

    def create(self, at: ClusterEndpoint, placement: Placement, *, connection_limit: int) -> None:
        """The hardened recipe, resumed wherever an earlier try stopped: owner, migrator, two app
        logins, the database with connections off, grants, schema `app`, the marker
        `platform.identity`, then connections on."""
        ...

    def set_password(self, at: ClusterEndpoint, credential: Credential) -> None:
        """Give the role `credential.username` its password (sent as a SCRAM verifier, so that no
        statement log can hold it) and leave the role able to log in."""
        ...

    def open_logins(self, at: ClusterEndpoint, placement: Placement, *, connection_limit: int) -> None: ...

    def close_logins(self, at: ClusterEndpoint, placement: Placement) -> None:
        """Refuse the application's logins and end their sessions; data stays."""
        ...

    def retire_login(self, at: ClusterEndpoint, username: str) -> None:
        """Take the password from a login that was rotated away, so that nobody gets in as it, and end
        its sessions: those that are at work have 10 s to finish. Nothing to retire is success."""
        ...

    def migrate(self, at: ClusterEndpoint, credential: Credential, migrations: Path) -> str:
        """As the migrator: apply the numbered SQL files not applied yet, each in a transaction and
        recorded in the same one, under an advisory lock; return the newest number."""
        ...

    def bring_to(
        self, at: ClusterEndpoint, credential: Credential, release: Release, bounds: Bounds
    ) -> list[FileRun]:
        """As the migrator: apply what the release has and the database has not, under an advisory lock
        and each file once, with the release's own tool; what was applied now, nothing if all was there.

        Raises Retryable (a lock or the server was not to be had, a worker of another version),
        MigrationFailed with the statement and the database's error, NeedsHuman("tenant-migration")
        where the database's past is not the release's."""
        ...

    def rehearse(
        self,
        at: ClusterEndpoint,
        credential: Credential,
        placement: Placement,
        release: Release,
        bounds: Bounds,
    ) -> Rehearsed:
        """The same as `bring_to` on a copy that is dropped afterwards; the original is only read.
        Raises Retryable where the original is in use, and as `bring_to`."""
        ...

    def shape(self, at: ClusterEndpoint, placement: Placement) -> list[str]:
        """The schema as lines, the same for every tenant of a release: see `databases.shape`."""
        ...

    def drop(self, at: ClusterEndpoint, placement: Placement) -> None:
        """Delete the database with all sessions on it, then its roles: there is no way back. Resumed
        wherever an earlier try stopped; nothing there is success. Raises NeedsHuman("cross-tenant-marker")
        where the database says that it is another tenant's."""
        ...

    def names(self, at: ClusterEndpoint) -> list[str]:
        """Every database of the cluster but its templates and AWS's own."""
        ...

    def admits(self, at: ClusterEndpoint, credential: Credential) -> bool:
        """Does this login get into `credential.dbname`, though it should not? False means that the server
        refused the login or the database; anything else that is wrong raises."""
        ...

    def accepts(self, at: ClusterEndpoint, credential: Credential) -> bool:
        """Does this login get in? False means the server refused the password; anything else that
        is wrong raises."""
        ...

    def prove(self, at: ClusterEndpoint, credential: Credential, placement: Placement) -> None:
        """Log in as the tenant's application would and read: right database, right marker, the
        schema is there. Raises NeedsHuman("cross-tenant-marker") where the marker is another's."""
        ...


# ------------------------------------------------------------------- dumps of a tenant's data


@dataclass(frozen=True, slots=True)
class Dump:
    """A dump that was read back and is what was written. `size` in bytes; `tables`: rows of each, in the
    same snapshot as the dump."""

    name: str
    sha256: str
    size: int
    tables: Mapping[str, int]
    server_version: str

    def to_manifest(self) -> dict[str, Any]:
        return {**asdict(self), "tables": dict(self.tables), "format": "pg_dump custom"}


class Dumps(Protocol):
    """Dumps of tenants' databases in a bucket. Names are given by the caller, who has recorded them."""

    def make(
        self, at: ClusterEndpoint, credential: Credential, *, name: str, stopped: Callable[[], bool]
    ) -> Dump:
        """As the migrator: a standard dump of `credential.dbname` into the bucket, with its checksum and
        a manifest, read back and compared. One of this name that is whole already is not made again.
        `stopped` is asked at least every second; once true LeaseLost is raised.

        Raises Retryable, NeedsHuman("copy") where no bucket is named or `pg_dump` is older than the
        server."""
        ...

    def delete(self, name: str) -> None:
        """Gone already is success."""
        ...

    def exists(self, name: str) -> bool: ...


# ------------------------------------------------------------------------------------------ moves


@dataclass(frozen=True, slots=True)
class Home:
    """One end of a move: a placement's database on its cluster."""

    at: ClusterEndpoint
    placement: Placement


@dataclass(frozen=True, slots=True)
class MoveSeen:
    """`streaming`: the source keeps what is written from the beginning of the copy on. `copied`: the target
    has the rows that there were then."""

    streaming: bool
    copied: bool


@dataclass(frozen=True, slots=True)
class Copied:
    """`size` in bytes, as text."""

    tables: int
    rows: int
    size: int
    seconds: float


@dataclass(frozen=True, slots=True)
class TableCompared:
    """`rows` of the source. `checksum`: None where counts alone were compared."""

    name: str
    rows: int
    checksum: str | None
    same: bool


@dataclass(frozen=True, slots=True)
class HandedOver:
    """`checked`: when the tables were compared, "before" the target took over or "after" it, on what it
    held at that moment."""

    tables: list[TableCompared]
    checked: str
    seconds: float

    @property
    def differing(self) -> list[str]:
        return [table.name for table in self.tables if not table.same]


@dataclass(frozen=True, slots=True)
class MoveRun:
    """Who does it. `fence`: of the tenant's lease; a database that has seen a higher one refuses. `stopped`:
    once true, LeaseLost is raised."""

    fence: int
    stopped: Callable[[], bool]

    def check(self) -> None:
        """Raises LeaseLost."""
        if self.stopped():
            raise LeaseLost("the move was stopped")


class Moves(Protocol):
    """Carries a tenant's rows from one database to another that has the same schema, while they change.

    Nothing but rows: both databases, their logins and the target's schema are there before. Raises
    Retryable, LeaseLost, and NeedsHuman("move") where something can't be carried.
    """

    def observe(self, source: Home, target: Home) -> MoveSeen: ...

    def begin(self, source: Home, target: Home, run: MoveRun) -> None:
        """From here on the source keeps its log for the target, until `clear`. Begun before is success."""
        ...

    def copy(self, source: Home, target: Home, run: MoveRun) -> Copied:
        """All rows as they were at one moment after `begin`, in one transaction of the target."""
        ...

    def follow(self, source: Home, target: Home, run: MoveRun) -> int:
        """Make in the target what was changed in the source since, until little is left; how many changes
        that were. Raises Retryable where the source changes faster."""
        ...

    def hand_over(
        self,
        source: Home,
        target: Home,
        run: MoveRun,
        *,
        pause: Callable[[], None],
        cut: Callable[[], None],
    ) -> HandedOver:
        """Call `pause`, which must end all writing to the source, carry the rest, compare, call `cut`,
        which makes the target the one that is used. `cut` is not called, and NeedsHuman raised, where a
        comparison shows a difference. What is too much to compare in between is compared after `cut`, on
        what the target held at that moment."""
        ...

    def clone(self, source: Home, target: Home, run: MoveRun) -> Copied:
        """All rows and sequences as they are at one moment, in one transaction of the target, compared
        before it ends. The source is only read, and may be another tenant's."""
        ...

    def clear(self, source: Home, target: Home | None) -> None:
        """End what `begin` began, on either end; `target` None where it is not to be reached."""
        ...


# ------------------------------------------------------------------------------------- Cloudflare


@dataclass(frozen=True, slots=True)
class ValidationRecord:
    kind: str  # "txt" | "cname" | "http"
    name: str
    value: str


@dataclass(frozen=True, slots=True)
class HostnameSeen:
    """A custom hostname. Ready means both statuses are "active"."""

    id: str
    host: str
    tenant_id: str | None  # from our custom metadata; None where it is not ours
    status: str
    ssl_status: str
    records: tuple[ValidationRecord, ...] = ()
    errors: tuple[str, ...] = ()

    @property
    def ready(self) -> bool:
        return self.status == "active" and self.ssl_status == "active"


class CustomHostnames(Protocol):
    def find(self, host: str) -> HostnameSeen | None: ...

    def create(self, host: str, tenant_id: str) -> HostnameSeen:
        """Register, or adopt what is there and ours. Raises NeedsHuman("hostname-conflict") where it
        belongs to somebody else, Refused for a host that Cloudflare will not take, Retryable
        (with `after` from Retry-After) on 429 and 5xx."""
        ...

    def list(self) -> Iterator[HostnameSeen]:
        """Every custom hostname of the zone, a page at a time."""
        ...

    def recheck(self, hostname_id: str) -> HostnameSeen:
        """Ask Cloudflare to validate again now."""
        ...

    def delete(self, hostname_id: str) -> None:
        """Gone already is success."""
        ...


# ------------------------------------------------------------------------------- Stripe and the config cache


class Billing(Protocol):
    """Objects come back as plain JSON (dict), in whatever API version the account speaks."""

    def subscription(self, subscription_id: str) -> dict[str, Any]: ...

    def checkout_session(self, session_id: str) -> dict[str, Any]: ...

    def customer(self, customer_id: str) -> dict[str, Any]: ...

    def subscriptions_of(self, customer_id: str) -> list[dict[str, Any]]: ...

    def subscriptions(self, status: str = "all") -> Iterator[dict[str, Any]]:
        """Every subscription, newest first."""
        ...

    def events_since(self, created_after: datetime, types: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Events of these types (1 to 20 of them), newest first; Stripe keeps them for 30 days."""
        ...


@dataclass(frozen=True, slots=True)
class PublishedConfig:
    """What the cache holds for a host: the payload of TenantConfig v1, verified."""

    host: str
    epoch: int
    payload: dict[str, Any]


class ConfigCache(Protocol):
    """TenantConfig v1 entries, signed. The data plane's `dataplane.contract` is the format's home."""

    def read(self, host: str) -> PublishedConfig | None:
        """None where there is no entry, or none that our key signed."""
        ...

    def publish(self, payload: dict[str, Any]) -> bool:
        """Sign and store the entry of `payload["host"]`, then send the change notice. An entry with
        a higher epoch stays (compared and set in one step on the server); False then."""
        ...

    def publish_many(self, payloads: Iterable[dict[str, Any]]) -> int:
        """`publish` for the periodic full pass, tombstones included; how many entries were written.
        Entries that are the same already are passed over without a notice."""
        ...

    def entries(self) -> Iterator[tuple[str, PublishedConfig | None]]:
        """Every host that has an entry, tombstones included, with None for one that our keys did not
        sign; in no order, one that changes meanwhile may be missing or come twice."""
        ...

    def notify_credential(self, tenant_id: str) -> None:
        """Tell the data planes that the tenant's database login has changed. Who does not hear it
        finds out when the old login is refused."""
        ...

    def remove(self, host: str, *, epoch: int) -> bool:
        """Leave a tombstone with this epoch, so that a late `publish` of a lower one loses."""
        ...


# ------------------------------------------------------------------------------------- notices


class Listener(Protocol):
    """The company's own system, which wants to hear what happens to tenants."""

    def tell(self, notice_id: str, payload: Mapping[str, Any]) -> str:
        """One try; what was answered. Not idempotent: whoever listens knows a notice by its id. Raises
        Retryable, with `after` where it was asked for."""
        ...
