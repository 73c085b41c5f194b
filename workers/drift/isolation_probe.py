"""Tries what must be refused: each tenant's own login and session on what is not its own (I7).

A grant by hand, a restore or a mistake of ours opens a wall without anything failing. So the tenant's
database is asked whose it is (`platform.identity`); the login that the application uses is taken from its
secret and tried on other databases of its cluster, the cluster's own ones included; and IAM is asked what a
session with the tenant's tag may read of the others' secrets, by simulation, so that no secret is read for
it. What gets in, or says that it is another's, is a breach. What could not be tried (the cluster is away,
its connections are used up, a simulation that does not even allow the tenant's own secret) is said to be
untried, never to be safe.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from controlplane.domain.drift import secret_name
from controlplane.domain.errors import ControlPlaneError
from controlplane.domain.finding import Fault, Finding
from controlplane.domain.placement import Placement
from controlplane.domain.systems import Systems, TaggedThing
from controlplane.store import cluster
from controlplane.workers.engine.context import Context
from controlplane.workers.engine.record import endpoint_of
from controlplane.workers.providers.ports import Tagged

TARGETS = 49
"""Databases tried with each login, at most; drawn anew each time."""
SECRETS = 9
"""Others' secrets of each session, likewise. Each is two calls of the simulator, and IAM throttles."""
CLUSTER_DATABASES = ("postgres", "template1")


@dataclass(slots=True)
class Probed:
    """`tried`: how often something was refused or got in. `open`: by role, what its sessions may read."""

    breaches: list[Finding] = field(default_factory=list)
    open: dict[str, list[str]] = field(default_factory=dict)
    tried: int = 0
    untried: list[str] = field(default_factory=list)


def probe(
    ctx: Context, systems: Systems, *, tenants: int, tenant_id: str | None = None, seed: int | None = None
) -> Probed:
    """As `tenants` of them at most, drawn by chance, or as the one tenant. Only clusters whose databases
    were read are probed, so none is woken for it."""
    drawn = random.Random(seed)  # noqa: S311 - picks whom to test
    probes = [
        placed
        for name, placed in sorted(systems.registry.current.items())
        if systems.registry.tenants[name].complete
        and name not in systems.registry.busy
        and tenant_id in (None, name)
    ]
    found = Probed()
    for placed in drawn.sample(probes, min(tenants, len(probes))):
        if placed.cluster_id in systems.databases:
            others = [name for name in systems.databases[placed.cluster_id] if name != placed.database]
            _probe_databases(ctx, found, placed, drawn.sample(others, min(TARGETS, len(others))))
        if systems.tagged is not None:
            _probe_secrets(ctx, found, placed, drawn, systems)
    for role, opened in sorted(found.open.items()):
        more = f" and {len(opened) - 5} more" if len(opened) > 5 else ""
        detail = f"its sessions may read what is not theirs: {', '.join(sorted(opened)[:5])}{more}"
        found.breaches.append(Finding("IAM", Fault.BREACH, "role", role, detail, role))
    return found


def _probe_databases(ctx: Context, found: Probed, placed: Placement, targets: Sequence[str]) -> None:
    try:
        with ctx.registry.connection() as conn:
            at = endpoint_of(cluster.get(conn, placed.cluster_id))
        if at is None:
            return
        identity = ctx.providers.databases.observe(at, placed).identity
        if identity is not None and not identity.fits(placed):
            detail = f"it says that it is {identity}; the registry says {placed.id} of {placed.tenant_id}"
            found.breaches.append(
                Finding("PostgreSQL", Fault.BREACH, "identity", placed.database, detail, placed.tenant_id)
            )
        credential = ctx.providers.secrets.read(placed.app_secret)
    except ControlPlaneError as error:
        found.untried.append(f"{placed.tenant_id}: {error}")
        return
    for target in dict.fromkeys([*targets, *CLUSTER_DATABASES]):
        try:
            inside = ctx.providers.databases.admits(at, replace(credential, dbname=target))
        except ControlPlaneError as error:
            found.untried.append(f"{credential.username} on {target}: {error}")
            continue
        found.tried += 1
        if inside:
            found.breaches.append(
                Finding(
                    "PostgreSQL",
                    Fault.BREACH,
                    "login",
                    f"{credential.username} → {target}",
                    "it gets into a database that is not its own",
                    placed.tenant_id,
                )
            )


def _probe_secrets(
    ctx: Context, found: Probed, placed: Placement, drawn: random.Random, systems: Systems
) -> None:
    """As the data plane reads them: as a session of the cluster's role, with the placement's tag and without
    any, on secrets with the tags that they bear now."""
    role, own, others = placed.cluster_id, None, []
    for thing in systems.tagged or ():
        name = secret_name(thing.arn)
        if name == placed.app_secret:
            own = _bare(thing)
        elif name is not None:
            others.append(_bare(thing))
    if own is None:
        return
    asked = [own, *drawn.sample(others, min(SECRETS, len(others)))]
    try:
        readable = ctx.providers.identities.readable(role, placed.id, asked)
        untagged = ctx.providers.identities.readable(role, None, asked)
    except ControlPlaneError as error:
        found.untried.append(f"{role} as {placed.id}: {error}")
        return
    if own.arn not in readable:
        found.untried.append(f"{role} as {placed.id}: IAM says that it may not even read its own secret")
        return
    found.tried += 2 * len(asked) - 1
    opened = [f"{secret_name(arn)} as {placed.id}" for arn in readable if arn != own.arn]
    opened += [f"{secret_name(arn)} without a tag" for arn in untagged]
    if opened:
        found.open.setdefault(role, []).extend(opened)


def _bare(thing: TaggedThing) -> Tagged:
    """With the tags alone that decide: secrets with the same ones are asked about together."""
    tags = {"placement": thing.placement, "cluster": thing.cluster}
    return Tagged(thing.arn, {key: value for key, value in tags.items() if value is not None})
