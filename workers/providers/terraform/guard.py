"""The guard: nothing is deleted or replaced that nobody approved (I6).

It reads the saved plan itself (`terraform show -json`), the very file that is applied afterwards, and
not the text on the screen. A replacement is `["delete", "create"]` or, with create_before_destroy,
`["create", "delete"]`; `forget` drops a resource from the state and leaves it running unowned, which
the next plan would follow by making a second one.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from controlplane.domain.errors import NeedsHuman
from controlplane.workers.providers.ports import PlannedChange

_NAMED = 10  # addresses that a message names
_HARMLESS = frozenset({"no-op", "read"})
_TAINTED = "replace_because_tainted"


def changes_of(plan: dict[str, Any]) -> list[PlannedChange]:
    """The changes of a `terraform show -json` document, in its order, those that do nothing left out."""
    return [change for raw in plan.get("resource_changes", []) if (change := _change(raw)) is not None]


def _change(raw: dict[str, Any]) -> PlannedChange | None:
    actions: Collection[str] = raw["change"]["actions"]
    if raw.get("mode") == "data":
        return None
    destructive = "delete" in actions or "forget" in actions
    if destructive:
        action = "replace" if "create" in actions else "delete"
    elif raw["change"].get("importing"):
        action = "import"
    elif _HARMLESS.issuperset(actions):
        return None
    else:
        action = "create" if "create" in actions else "update"
    return PlannedChange(address=raw["address"], action=action, destructive=destructive)


def tainted(plan: dict[str, Any]) -> frozenset[str]:
    """Addresses that the plan replaces only because an earlier run was interrupted."""
    return frozenset(
        raw["address"] for raw in plan.get("resource_changes", []) if raw.get("action_reason") == _TAINTED
    )


def check(changes: Sequence[PlannedChange], approved: Collection[str]) -> None:
    """Raises NeedsHuman("destructive-terraform-plan") naming what is not approved."""
    refused = [c for c in changes if c.destructive and c.address not in approved]
    if not refused:
        return
    named = ", ".join(f"{c.action} {c.address}" for c in refused[:_NAMED])
    more = f" and {len(refused) - _NAMED} more" if len(refused) > _NAMED else ""
    raise NeedsHuman(
        f"the Terraform plan would {named}{more}, which nobody approved", runbook="destructive-terraform-plan"
    )
