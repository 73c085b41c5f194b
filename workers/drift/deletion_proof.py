"""Is anything of a purged tenant left? Each outside system is asked for what it would hold of it.

The same systems as the drift report's (`workers/drift/report.py`), asked for one tenant: its names are known,
since they were fixed before anything was made and listed before anything was deleted. A system that does not
answer raises: what was not asked is not absent."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from controlplane.domain.placement import Placement
from controlplane.store import cluster, placement, stack
from controlplane.store.purge import PurgeRow
from controlplane.workers.engine.context import Context
from controlplane.workers.engine.record import endpoint_of

_MAY_STAY = (":kms:", ":cluster-snapshot:", ":secretsmanager:")
"""In ARNs: a snapshot is kept on purpose and its key for its sake, and secrets are a system of their own."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """`asked`: for what; `answer`: in words; `left`: it is still there."""

    system: str
    asked: str
    answer: str
    left: bool = False


def find_what_is_left(ctx: Context, purged: PurgeRow) -> tuple[list[Evidence], list[str]]:
    """All that was asked, and what is still there. Raises Retryable and NeedsHuman."""
    content = purged.content
    found = [*_hosts(ctx, content)]
    if content["placement"] is not None:
        with ctx.registry.connection() as conn:
            placed = placement.get(conn, content["placement"])
        found += [*_database(ctx, placed, content), *_secrets(ctx, placed), *_role(ctx, placed, content)]
        found += [*_states(ctx, placed, content), *_tags(ctx, placed, content)]
    return found, [f"{line.system}: {line.asked}" for line in found if line.left]


def _database(ctx: Context, placed: Placement, content: dict[str, Any]) -> Iterator[Evidence]:
    with ctx.registry.connection() as conn:
        home = cluster.get(conn, placed.cluster_id)
    if content["cluster_goes"]:
        found = ctx.providers.clusters.describe(placed.cluster_id)
        answer = "there is none" if found is None else f"it is {found.status}"
        yield Evidence("RDS", f"cluster {placed.cluster_id}", answer, left=found is not None)
        return
    at = endpoint_of(home)
    asked = f"database {placed.database} and its roles on {placed.cluster_id}"
    if at is None:
        yield Evidence("PostgreSQL", asked, "the cluster never had an address")
        return
    database = ctx.providers.databases.observe(at, placed)
    left = database.exists or database.roles
    yield Evidence("PostgreSQL", asked, "they are there" if left else "there are none", left=left)


def _secrets(ctx: Context, placed: Placement) -> Iterator[Evidence]:
    found = ctx.providers.secrets.describe(placed.app_secret)
    left = found is not None and not found.deleting
    answer = "there is none"
    if found is not None:
        answer = "it can be read" if left else "it can't be read any more and waits for its deletion by AWS"
    yield Evidence("Secrets Manager", f"secret {placed.app_secret}", answer, left=left)


def _role(ctx: Context, placed: Placement, content: dict[str, Any]) -> Iterator[Evidence]:
    """Of a cluster that others live on it stays: it opens nothing without a secret of the tenant's tag."""
    if content["cluster_goes"]:
        left = ctx.providers.identities.role_exists(placed.cluster_id)
        answer = "it is there" if left else "there is none"
        yield Evidence("IAM", f"role {placed.cluster_id}", answer, left=left)


def _states(ctx: Context, placed: Placement, content: dict[str, Any]) -> Iterator[Evidence]:
    """The state of a cluster's placements stays with a cluster that others live on; what it was applied with
    last is in the registry."""
    with ctx.registry.connection() as conn:
        keeps_key = cluster.get(conn, placed.cluster_id).keeps_key
        second = stack.get(conn, stack.workspace_of("placements", placed.cluster_id))
    if not content["cluster_goes"]:
        left = second is not None and placed.id in second.outputs["app_secret_arns"]
        answer = "it has its secret" if left else "it has nothing of it"
        asked = f"{placed.id} in the placements state of {placed.cluster_id}"
        yield Evidence("Terraform", asked, answer, left=left)
        return
    there = {(state.stack, state.workspace) for state in ctx.providers.inventory.states() if state.present}
    for name in ("placements",) if keeps_key else ("placements", "cluster"):
        left = (name, placed.cluster_id) in there
        answer = "it is there" if left else "there is none"
        yield Evidence("Terraform", f"{name} state {placed.cluster_id}", answer, left=left)


def _tags(ctx: Context, placed: Placement, content: dict[str, Any]) -> Iterator[Evidence]:
    owners = [("placement", placed.id)]
    if content["cluster_goes"]:
        owners.append(("cluster", placed.cluster_id))
    left = [
        thing.arn
        for thing in ctx.providers.inventory.tagged()
        if any(thing.tags.get(tag) == owner for tag, owner in owners)
        and not any(part in thing.arn for part in _MAY_STAY)
    ]
    asked = " or ".join(f"{tag} = {owner}" for tag, owner in owners)
    yield Evidence("AWS tags", asked, ", ".join(left[:5]) or "there is nothing", left=bool(left))


def _hosts(ctx: Context, content: dict[str, Any]) -> Iterator[Evidence]:
    tenant_id, zone = content["tenant"], ctx.platform.zone
    for host in content["hosts"]:
        if not host.endswith(f".{zone}"):
            found = ctx.providers.hostnames.find(host)
            left = found is not None and found.tenant_id == tenant_id
            answer = "it is there" if left else "it is not this tenant's"
            yield Evidence("Cloudflare", f"custom hostname {host}", answer, left=left)
        entry = ctx.providers.cache.read(host)
        ours = entry is not None and entry.payload.get("tenant_id") == tenant_id
        status = entry.payload["status"] if entry is not None and ours else None
        left = status not in (None, "gone")
        answer = "nobody is routed to it" if status is None else f"it is {status}"
        yield Evidence("Cache", f"route of {host}", answer, left=left)
