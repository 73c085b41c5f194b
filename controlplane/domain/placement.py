"""Where a tenant lives, and what everything of it is called.

Every outside name is a function of the placement's own id, which is drawn and committed before anything
outside is called; so a retry finds what an earlier try made, and no customer's text (a slug, a company name)
ever reaches SQL, HCL, an ARN or a path. The id is not the tenant's: a placement can be made before anybody
is known whom it will be for, and a transfer's target never collides with its source, which lives on until
the transfer is confirmed.

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
PLACEMENT_ID = re.compile(r"^p-[a-z2-7]{12}$")


def tenant_id_for(subscription_id: str) -> str:
    """The tenant's id, derived from the subscription that founded it.

    Derived instead of drawn, so that events in any order, doubled or at once, name the same tenant.
    60 bits of SHA-256: a collision among a million tenants has odds of 1 in 2 million, and the
    unique index on the founding subscription refuses it.
    """
    return _id("tenant", subscription_id.encode())


def cluster_id_for(seed: bytes) -> str:
    """A cluster's id from random bytes that the caller draws (at least 8 of them)."""
    return _id("cluster", seed)


def placement_id_for(seed: bytes) -> str:
    """A placement's id from random bytes that the caller draws (at least 8 of them). Never given twice, since
    the names of what is deleted stay taken for a while."""
    return _id("placement", seed)


def _id(noun: str, seed: bytes) -> str:
    digest = hashlib.sha256(noun.encode() + b"\0" + seed).digest()
    return f"{noun[0]}-{base64.b32encode(digest).decode().lower()[:12]}"


class PlacementState(State):
    """`target`, `source`: beside the current one, before and after a transfer's cut. `released`: its database
    is gone and its slot is free; its cluster's next run takes its secret away. `purged`: nothing of it is
    left outside."""

    CURRENT = "current", "target"
    TARGET = "target"
    SOURCE = "source", "current"
    RELEASED = "released", "current", "target", "source"
    PURGED = "purged", "released"


@dataclass(frozen=True, slots=True)
class Placement:
    """Tenant → cluster and database."""

    id: str
    tenant_id: str
    cluster_id: str

    @property
    def database(self) -> str:
        return self.id.replace("-", "_")

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
        return f"placements/{self.id}/app"


@dataclass(frozen=True, slots=True)
class Identity:
    """Whose a database says that it is, by ids. `tenant`: None until it is bound to one."""

    placement: str
    tenant: str | None

    def fits(self, placement: Placement) -> bool:
        """Unbound fits any tenant, as in the data plane."""
        return self.placement == placement.id and self.tenant in {None, placement.tenant_id}

    def __str__(self) -> str:
        return f"placement {self.placement} of {self.tenant or 'no tenant yet'}"
