"""Where a tenant lives, and what everything of it is called.

Every outside name is a function of an immutable tenant id and the placement's number, fixed and
committed before anything outside is called; so a retry finds what an earlier try made, and no
customer's text (a slug, a company name) ever reaches SQL, HCL, an ARN or a path. A transfer to
another placement gives that a number of its own: its names never collide with the source's, which
lives on until the transfer is confirmed.

Limits that the shapes below respect: PostgreSQL cuts identifiers silently at 63 bytes, IAM role
names end at 64 characters, RDS identifiers at 63 (start with a letter, no `--`), a Secrets Manager
name stays taken through its deletion window, so a new placement never reuses one.
"""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass

from controlplane.domain.state import State

TENANT_ID = re.compile(r"^t-[a-z2-7]{12}$")
CLUSTER_ID = re.compile(r"^c-[a-z2-7]{12}$")


def tenant_id_for(subscription_id: str) -> str:
    """The tenant's id, derived from the subscription that founded it.

    Derived instead of drawn, so that events in any order, doubled or at once, name the same tenant.
    60 bits of SHA-256: a collision among a million tenants has odds of 1 in 2 million, and the
    unique index on the founding subscription refuses it.
    """
    digest = hashlib.sha256(b"tenant\0" + subscription_id.encode()).digest()
    return "t-" + base64.b32encode(digest).decode().lower()[:12]


def cluster_id_for(seed: bytes) -> str:
    """A cluster's id from random bytes that the caller draws (at least 8 of them)."""
    return "c-" + base64.b32encode(hashlib.sha256(b"cluster\0" + seed).digest()).decode().lower()[:12]


class PlacementState(State):
    """`target`, `source`: beside the current one, before and after a transfer's cut. `purged`: nothing of it
    is left outside."""

    CURRENT = "current", "target"
    TARGET = "target"
    SOURCE = "source", "current"
    PURGED = "purged", "current", "target", "source"


@dataclass(frozen=True, slots=True)
class Placement:
    """Tenant → cluster and database. `number` counts a tenant's placements from 1."""

    tenant_id: str
    number: int
    cluster_id: str

    @property
    def key(self) -> str:
        """`t-<id>-<number>`: the Terraform workspace, and the tag that decides who opens its secrets."""
        return f"{self.tenant_id}-{self.number}"

    @property
    def workspace(self) -> str:
        return self.key

    @property
    def database(self) -> str:
        return self.key.replace("-", "_")

    @property
    def owner_role(self) -> str:
        """Owns the tables, cannot log in."""
        return f"{self.database}_owner"

    @property
    def migrator_role(self) -> str:
        """Logs in for schema migrations, acts as the owner."""
        return f"{self.database}_migrator"

    @property
    def app_roles(self) -> tuple[str, str]:
        """The application's two logins: one in use, the other the next in a rotation."""
        return (f"{self.database}_app_a", f"{self.database}_app_b")

    @property
    def app_secret(self) -> str:
        return f"tenants/{self.tenant_id}/{self.number}/app"

    @property
    def migrator_secret(self) -> str:
        return f"tenants/{self.tenant_id}/{self.number}/migrator"
