"""A tenant: one customer organisation, and what it should have.

`TenantSpec` is the whole intent, written in one place and by whoever has a say (billing, support,
the hostname page); `generation` counts its changes. What was last observed is `TenantStatus`. The phase
that people see is derived from the two and never stored, so it can't disagree with them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any


class Lifecycle(StrEnum):
    """What is asked for."""

    ACTIVE = "active"
    SUSPENDED = "suspended"
    CLOSED = "closed"


class Phase(StrEnum):
    """What people are shown."""

    PENDING = "pending"
    PROVISIONING = "provisioning"
    ACTIVE = "active"
    SUSPENDED = "suspended"
    CLOSING = "closing"
    CLOSED = "closed"
    PURGED = "purged"


@dataclass(frozen=True, slots=True)
class TenantSpec:
    """Everything a tenant should be.

    `plan` names an entry of the catalogue; what it means (pool size, capacity) is read from the
    catalogue at each pass, so that a corrected catalogue reaches every tenant. `custom_domains` are
    normalised hosts in the order they were wished for. `subscription_status` is Stripe's word, kept
    for the application's profile and for support. `quantity`: seats paid for. `addons`: how many of each
    are paid for. `grace_ends_at`: a payment
    is past due, and unless it is made the tenant is suspended then. `closes_at`: it was cancelled for then.
    """

    lifecycle: Lifecycle
    plan: str
    subscription_status: str
    quantity: int = 1
    custom_domains: tuple[str, ...] = ()
    addons: Mapping[str, int] = field(default_factory=dict, hash=False)
    trial_ends_at: datetime | None = None
    grace_ends_at: datetime | None = None
    closes_at: datetime | None = None

    def with_lifecycle(self, lifecycle: Lifecycle) -> TenantSpec:
        return replace(self, lifecycle=lifecycle)

    def to_json(self) -> dict[str, Any]:
        return {
            "lifecycle": self.lifecycle.value,
            "plan": self.plan,
            "subscription_status": self.subscription_status,
            "quantity": self.quantity,
            "custom_domains": list(self.custom_domains),
            "addons": dict(self.addons),
            "trial_ends_at": _text(self.trial_ends_at),
            "grace_ends_at": _text(self.grace_ends_at),
            "closes_at": _text(self.closes_at),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> TenantSpec:
        return cls(
            lifecycle=Lifecycle(data["lifecycle"]),
            plan=data["plan"],
            subscription_status=data["subscription_status"],
            quantity=data["quantity"],
            custom_domains=tuple(data["custom_domains"]),
            addons=data["addons"],
            trial_ends_at=_moment(data["trial_ends_at"]),
            grace_ends_at=_moment(data["grace_ends_at"]),
            closes_at=_moment(data["closes_at"]),
        )


def _text(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def phase_of(
    spec: TenantSpec, *, reconciled: bool, ever_ready: bool, started: bool, purged: bool = False
) -> Phase:
    """`reconciled`: the status equals the spec. `ever_ready`: it has answered before. `started`: an
    operation has begun to work on it."""
    if purged:
        return Phase.PURGED
    if spec.lifecycle is Lifecycle.CLOSED:
        return Phase.CLOSED if reconciled else Phase.CLOSING
    if spec.lifecycle is Lifecycle.SUSPENDED and reconciled:
        return Phase.SUSPENDED
    if ever_ready:
        return Phase.ACTIVE
    return Phase.PROVISIONING if started else Phase.PENDING
