"""When a login gets a new password, and what the new version of its secret is called. Pure.

A rotation is a generation: generation n + 1 of a placement's password has one version of the secret,
whose id everybody can work out. Whoever goes on with a rotation that another worker began finds the
password that this one staged, instead of setting a different one.
"""

from __future__ import annotations

import hashlib

from controlplane.domain.placement import Placement

DAY = 86_400.0
SPREAD = 0.1


def rotate_after(rotation_days: int, tenant_id: str) -> float | None:
    """Seconds after which the login of this tenant is rotated; None for never.

    Spread over the last tenth of the period, the same for a tenant every time, so that tenants who
    came in one hour (an import, a restored registry) don't all rotate in one hour.
    """
    if rotation_days == 0:
        return None
    share = int.from_bytes(hashlib.sha256(b"rotation\0" + tenant_id.encode()).digest()[:4]) / 2**32
    return rotation_days * DAY * (1 - SPREAD * share)


def version_id(placement: Placement, generation: int) -> str:
    """The secret's version of this generation: 64 characters, as Secrets Manager allows."""
    return hashlib.sha256(f"rotation\0{placement.id}\0{generation}".encode()).hexdigest()


def idle_role(placement: Placement, in_use: str) -> str:
    """The one of the application's two logins that is not in use."""
    first, second = placement.app_roles
    return second if in_use == first else first
