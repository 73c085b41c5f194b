"""What was last observed of a tenant or a cluster, in the terms that the planner decides by.

Two kinds of fact stand here side by side: what an outside system answered a moment ago (does the
database exist, does the cache hold this entry), and what the registry recorded as confirmed (which
digest of variables Terraform last applied, from which secret version a password was set). The second
kind saves a Terraform plan at every observation; a full observation (support's `reprovision`) forgets it
first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class Part(StrEnum):
    """Of what outside systems are asked about a tenant. `transfer`: both ends of one that is under way."""

    ROUTES = "routes"
    SECRET = "secret"  # noqa: S105
    DATABASE = "database"
    TRANSFER = "transfer"


@dataclass(frozen=True, slots=True)
class Clients:
    """Sessions on a cluster that are alike, and how many. `oldest`: seconds since the first of them
    connected; `last_statement`: since the last statement of any began, None where there was none."""

    database: str
    user: str
    application: str
    sessions: int
    oldest: float
    last_statement: float | None


@dataclass(frozen=True, slots=True)
class ClusterStatus:
    """`placements_digest`: of its second stack, None where no run of it was ever begun. `releasing`: that
    still has what released placements leave behind. `keeps_key`: it is destroyed but for its key, which a
    snapshot of it can't be read without. `awake`: of one that may pause, None where that is not known;
    `clients`: who was connected then, None where nobody was asked."""

    stack_digest: str | None
    status: str | None
    writer_status: str | None
    hardened: bool
    destroyed: bool = False
    keeps_key: bool = False
    placements_digest: str | None = None
    releasing: bool = False
    awake: bool | None = None
    clients: tuple[Clients, ...] | None = None

    @property
    def available(self) -> bool:
        return self.status == "available" and self.writer_status == "available"

    def to_json(self) -> dict[str, Any]:
        return {
            "status": self.status,
            "writer_status": self.writer_status,
            "hardened": self.hardened,
            "stack": self.stack_digest,
            "placements": self.placements_digest,
            "destroyed": self.destroyed,
            "keeps_key": self.keeps_key,
            "awake": self.awake,
            "clients": None if self.clients is None else [asdict(found) for found in self.clients],
        }


@dataclass(frozen=True, slots=True)
class CredentialStatus:
    """The application's login: which version its secret has now, and from which one its password was last
    set.

    `generation`: how many passwords it has had; `requested` is ahead of it where a new one was asked for.
    `age`: seconds since the last rotation. `retire_in`: seconds until the login that was in use before
    is to lose its password (negative: overdue), None where there is none.
    """

    secret_version: str | None
    password_from: str | None
    generation: int = 1
    requested: int = 1
    age: float = 0.0
    retire_in: float | None = None

    @property
    def in_step(self) -> bool:
        return self.secret_version is not None and self.secret_version == self.password_from


@dataclass(frozen=True, slots=True)
class HostnameStatus:
    """A custom domain: `id` None until Cloudflare knows it."""

    host: str
    id: str | None
    status: str
    ssl_status: str
    poll_due: bool
    refused: bool = False

    @property
    def ready(self) -> bool:
        return self.id is not None and self.status == "active" and self.ssl_status == "active"


@dataclass(frozen=True, slots=True)
class DatabaseStatus:
    """`roles`: is any of the placement's roles there? They outlive a database that was dropped."""

    exists: bool
    hardened: bool
    logins_open: bool
    release: str | None
    roles: bool = False


@dataclass(frozen=True, slots=True)
class PurgeStatus:
    """How far the purge of a tenant has come. `placed`: its placement still holds its slot. `releasing`: what
    its cluster's stack has of it is, or may be, there. `copied`: the copy that is kept was verified.
    `cluster_gone`: so is its cluster, where that goes with it. `purged`: the certificate is written.
    `copy_overdue`: the time for which the copy is kept is over, and it is still there."""

    placed: bool
    releasing: bool
    copied: bool
    cluster_gone: bool
    purged: bool
    copy_overdue: bool


@dataclass(frozen=True, slots=True)
class TransferStatus:
    """How far a transfer has come, beside its phase. `streaming`: the source keeps what is written; `copied`:
    the target has the rows that there were when that began. Of the restored cluster: `made`: it is recorded;
    `ready`: and can be asked; `opened`: it was looked into, and the tenant's database is there; `gone`: it is
    destroyed, or there never was one."""

    streaming: bool = False
    copied: bool = False
    made: bool = False
    ready: bool = False
    opened: bool = False
    gone: bool = True


@dataclass(frozen=True, slots=True)
class TenantStatus:
    """`secret_made`: it is there, and its cluster has confirmed it. `database` is None where the
    cluster can't be asked yet. `routes` is what the cache serves: host → payload without its epoch.
    `transfer`: how far one is, where there is one that is not over; `secondary`: the same of the placement
    that it goes to. `purging`: only of a tenant whose purge was approved."""

    cluster_ready: bool
    secret_made: bool
    database: DatabaseStatus | None
    app: CredentialStatus
    access_proof: str | None
    routes: Mapping[str, Mapping[str, Any]]
    hostnames: tuple[HostnameStatus, ...]
    purging: PurgeStatus | None = None
    transfer: TransferStatus | None = None
    secondary: TenantStatus | None = None

    def to_json(self) -> dict[str, Any]:
        database = self.database
        return {
            "cluster_ready": self.cluster_ready,
            "secret": self.secret_made,
            "database": None
            if database is None
            else {
                "exists": database.exists,
                "hardened": database.hardened,
                "logins_open": database.logins_open,
                "release": database.release,
                "roles": database.roles,
            },
            "app_credential": self.app.secret_version,
            "app_generation": self.app.generation,
            "routes": {host: route.get("status") for host, route in self.routes.items()},
            "hostnames": {h.host: {"status": h.status, "ssl": h.ssl_status} for h in self.hostnames},
        }
