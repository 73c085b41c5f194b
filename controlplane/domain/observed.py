"""What was last seen of a tenant or a cluster, in the terms that the planner decides by.

Two kinds of fact stand here side by side: what an outside system answered a moment ago (does the
database exist, does the cache hold this entry), and what the registry recorded as confirmed (which
digest of variables Terraform last applied, from which secret version a password was set). The second
kind saves a Terraform plan at every look; a deep look (support's `reprovision`) forgets it first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from controlplane.domain.move import MoveObserved


@dataclass(frozen=True, slots=True)
class ClusterObserved:
    stack_digest: str | None
    status: str | None
    writer_status: str | None
    hardened: bool
    destroyed: bool = False

    @property
    def available(self) -> bool:
        return self.status == "available" and self.writer_status == "available"

    def to_json(self) -> dict[str, Any]:
        return {
            "status": self.status,
            "writer_status": self.writer_status,
            "hardened": self.hardened,
            "stack": self.stack_digest,
            "destroyed": self.destroyed,
        }


@dataclass(frozen=True, slots=True)
class CredentialObserved:
    """A login: which version its secret has now, and from which one its password was last set.

    `generation`: how many passwords it has had; `wanted` is ahead of it where a new one was asked for.
    `age`: seconds since the last rotation. `retire_in`: seconds until the login that was in use before
    is to lose its password (negative: overdue), None where there is none.
    """

    secret_version: str | None
    password_from: str | None
    generation: int = 1
    wanted: int = 1
    age: float = 0.0
    retire_in: float | None = None

    @property
    def in_step(self) -> bool:
        return self.secret_version is not None and self.secret_version == self.password_from


@dataclass(frozen=True, slots=True)
class HostnameObserved:
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
class DatabaseObserved:
    exists: bool
    hardened: bool
    logins_open: bool
    release: str | None


@dataclass(frozen=True, slots=True)
class TenantObserved:
    """`database` is None where the cluster can't be asked yet. `routes` is what the cache serves:
    host → payload without its epoch. `move`: how far one is, where there is one; `beside`: the same seen of
    the placement that it goes to."""

    cluster_ready: bool
    stack_digest: str | None
    database: DatabaseObserved | None
    app: CredentialObserved
    migrator: CredentialObserved
    proof: str | None
    routes: Mapping[str, Mapping[str, Any]]
    hostnames: tuple[HostnameObserved, ...]
    move: MoveObserved | None = None
    beside: TenantObserved | None = None

    def to_json(self) -> dict[str, Any]:
        database = self.database
        return {
            "cluster_ready": self.cluster_ready,
            "stack": self.stack_digest,
            "database": None
            if database is None
            else {
                "exists": database.exists,
                "hardened": database.hardened,
                "logins_open": database.logins_open,
                "release": database.release,
            },
            "app_credential": self.app.secret_version,
            "app_generation": self.app.generation,
            "routes": {host: route.get("status") for host, route in self.routes.items()},
            "hostnames": {h.host: {"status": h.status, "ssl": h.ssl_status} for h in self.hostnames},
        }
