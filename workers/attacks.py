"""Tries what must be refused: each tenant's own login on databases that are not its own (I7).

A grant by hand, a restore or a mistake of ours opens a wall without anything failing. So the login that
the application uses is taken from its secret and tried on every other database of its cluster, the
cluster's own ones included. A login that gets in is a breach. One that could not be tried (the cluster is
away, its connections are used up) is said to be untried, never to be safe.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from controlplane.domain.errors import ControlPlaneError
from controlplane.domain.ledger import Books, Fault, Finding, Registry
from controlplane.domain.placement import Placement
from controlplane.store import cluster
from workers.context import Context
from workers.observe import endpoint_of
from workers.providers.ports import ClusterEndpoint, Credential

TARGETS = 50
"""Databases tried for each login, at most; drawn anew each time."""
CLUSTER_DATABASES = ("postgres", "template1")


@dataclass(frozen=True, slots=True)
class Attacked:
    """`tried`: connects that were refused or got in."""

    breaches: tuple[Finding, ...]
    tried: int
    untried: tuple[str, ...]


def attack(
    ctx: Context, books: Books, *, tenants: int, tenant_id: str | None = None, seed: int | None = None
) -> Attacked:
    """From `tenants` logins at most, drawn by chance, or from the one tenant's. Only clusters whose
    databases were read are attacked, so none is woken for it."""
    attackers = _attackers(books, tenant_id)
    drawn = random.Random(seed)  # noqa: S311 - picks whom to test
    attackers = drawn.sample(attackers, min(tenants, len(attackers)))
    breaches: list[Finding] = []
    untried: list[str] = []
    tried = 0
    for placed in attackers:
        others = [name for name in books.databases[placed.cluster_id] if name != placed.database]
        targets = drawn.sample(others, min(TARGETS, len(others)))
        try:
            at, credential = _login(ctx, placed)
        except ControlPlaneError as error:
            untried.append(f"{placed.tenant_id}: {error}")
            continue
        for target in [*dict.fromkeys([*targets, *CLUSTER_DATABASES])]:
            try:
                inside = ctx.providers.databases.admits(at, replace(credential, dbname=target))
            except ControlPlaneError as error:
                untried.append(f"{credential.username} on {target}: {error}")
                continue
            tried += 1
            if inside:
                breaches.append(_breach(placed, credential.username, target))
    return Attacked(tuple(breaches), tried, tuple(untried))


def _attackers(books: Books, tenant_id: str | None) -> Sequence[Placement]:
    registry: Registry = books.registry
    current: Mapping[str, Placement] = registry.current
    return [
        placed
        for name, placed in sorted(current.items())
        if registry.tenants[name].complete
        and name not in registry.busy
        and placed.cluster_id in books.databases
        and tenant_id in (None, name)
    ]


def _login(ctx: Context, placed: Placement) -> tuple[ClusterEndpoint, Credential]:
    with ctx.registry.connection() as conn:
        at = endpoint_of(cluster.get(conn, placed.cluster_id))
    if at is None:
        raise ControlPlaneError(f"{placed.cluster_id} has no endpoint")
    return at, ctx.providers.secrets.read(placed.app_secret)


def _breach(placed: Placement, username: str, target: str) -> Finding:
    return Finding(
        "PostgreSQL",
        Fault.BREACH,
        "login",
        f"{username} → {target}",
        "it gets into a database that is not its own",
        placed.tenant_id,
    )
