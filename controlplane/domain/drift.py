"""Eight systems about the same tenants, and where they disagree. Pure.

The registry says what there should be. Terraform's states, AWS's tags, its secrets and roles, Cloudflare,
the cache, Stripe and the databases on the clusters say what there is. `compare` holds the first against
each of the others and names what is missing, what belongs to nobody (and what it costs), and what
differs.

The systems can't be read at one moment, so two rules keep what is merely under way out of the findings.
Outside systems are read before the registry: a name is recorded before the thing is made, so a thing
without a row is no race. And nothing is said about a tenant, a cluster or a subscription that was worked on
while the systems were read, or is now (`Registry.busy`).

A system that could not be read is None, and nothing is said about it; the caller says that it was not read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from controlplane.domain import prices
from controlplane.domain.finding import Fault, Finding, Repair
from controlplane.domain.placement import Placement
from controlplane.domain.systems import Registry, Systems, TaggedThing
from controlplane.domain.tenant import Lifecycle

_ARN = re.compile(r"^arn:[^:]*:(?P<service>[^:]+):[^:]*:[^:]*:(?P<kind>[^:/]+)[:/](?P<name>.+)$")
_CLUSTER = re.compile(r"^c-[a-z2-7]{12}$")
_DATABASE = re.compile(r"^p_[a-z2-7]{12}$")
_NAMED = 5  # addresses that a finding names
_SECRET = re.compile(r"^placements/(p-[a-z2-7]{12})/app$")


def compare(systems: Systems, *, tenant_id: str | None = None) -> list[Finding]:
    """The most expensive first. `tenant_id`: only what is about this tenant."""
    found = [
        *_clusters(systems),
        *_states(systems),
        *_changed(systems),
        *_tagged(systems),
        *_secrets(systems),
        *_roles(systems),
        *_databases(systems),
        *_hostnames(systems),
        *_cache(systems),
        *_subscriptions(systems),
    ]
    busy = set(systems.registry.busy)
    reported = [f for f in found if not {f.owner, f.name, f.target} & busy and tenant_id in (None, f.owner)]
    return sorted(reported, key=lambda f: (-(f.monthly_usd or 0.0), f.key))


def _complete(registry: Registry) -> Iterator[Placement]:
    """The placements of which everything must be there."""
    return (placed for tenant_id, placed in registry.current.items() if registry.tenants[tenant_id].complete)


def _repair(placed: Placement, system: str, kind: str, name: str, detail: str) -> Finding:
    """Missing, and the engine can make it again."""
    owner = placed.tenant_id
    return Finding(system, Fault.MISSING, kind, name, detail, owner, repair=Repair.REPROVISION, target=owner)


def _clusters(systems: Systems) -> Iterator[Finding]:
    if systems.tagged is None:
        return
    there = {name for thing in systems.tagged for kind, name in [_of(thing)] if kind == ("rds", "cluster")}
    for cluster in systems.registry.clusters.values():
        if cluster.left_over and not cluster.destroyed and cluster.id in there:
            yield Finding(
                "AWS",
                Fault.ORPHAN,
                "restored cluster",
                cluster.id,
                f"the restore of {cluster.restored_for} does not need it any more, and it was not destroyed",
                cluster.restored_for,
                prices.of_arn("rds", "cluster"),
            )
        elif cluster.made and not cluster.destroyed and cluster.id not in there:
            detail = "its tenants have no database: restore it from a snapshot"
            if cluster.restored:
                detail = f"the restore of {cluster.restored_for} has nothing to read from: abort it"
            yield Finding("AWS", Fault.MISSING, "cluster", cluster.id, detail, cluster.id)


def _of(thing: TaggedThing) -> tuple[tuple[str, str], str]:
    match = _ARN.match(thing.arn)
    return (("", ""), thing.arn) if match is None else ((match["service"], match["kind"]), match["name"])


def secret_name(arn: str) -> str | None:
    """The name of a tenant's secret: its ARN has six characters of AWS's own behind it."""
    match = _ARN.match(arn)
    name = "" if match is None or match["service"] != "secretsmanager" else match["name"][:-7]
    return name if _SECRET.match(name) else None


def _tagged(systems: Systems) -> Iterator[Finding]:
    """Secrets are reported by their own system, which knows of deletion windows, but for what their tags
    say, which decides whose session opens one. A KMS key outlives its cluster by its deletion window, so one
    whose cluster has a row is no orphan, and neither is a snapshot, which is kept on purpose."""
    registry = systems.registry
    keys = {placed.id for placed in registry.placements}
    homes = {placed.app_secret: placed for placed in registry.placements}
    for thing in systems.tagged or ():
        (service, kind), name = _of(thing)
        if service == "secretsmanager":
            secret = secret_name(thing.arn) or ""
            yield from _retagged(secret, homes.get(secret), thing)
            continue
        if thing.placement is not None:
            owner, known = thing.tenant, thing.placement in keys
        else:
            owner, known = thing.cluster, thing.cluster in registry.clusters
            if known and (service, kind) in {("rds", "cluster"), ("rds", "db")}:
                known = not registry.clusters[thing.cluster or ""].destroyed
        if not known:
            whose = thing.placement or thing.cluster or "nobody"
            yield Finding(
                "AWS",
                Fault.ORPHAN,
                f"{service} {kind}",
                name,
                f"tagged as {whose}'s, of which the registry knows nothing that lives",
                owner,
                prices.of_arn(service, kind),
            )


def _retagged(name: str, placed: Placement | None, thing: TaggedThing) -> Iterator[Finding]:
    if placed is not None and (placed.id, placed.cluster_id) != (thing.placement, thing.cluster):
        detail = f"tagged placement {thing.placement}, cluster {thing.cluster}, which decides who opens it"
        owner = placed.tenant_id
        yield Finding("AWS", Fault.DIFFERS, "secret", name, detail, owner, None, Repair.REPROVISION, owner)


def _states(systems: Systems) -> Iterator[Finding]:
    if systems.states is None:
        return
    registry = systems.registry
    there = {(state.stack, state.workspace) for state in systems.states if state.present}
    clusters = {c.id for c in registry.clusters.values() if not c.destroyed or c.keeps_key}
    living = {c.id for c in registry.clusters.values() if not c.destroyed}
    owners = {("placements", cluster): cluster for cluster in living}
    owners |= {("cluster", cluster): cluster for cluster in clusters}
    for home in sorted({placed.cluster_id for placed in _complete(registry)}):
        if ("placements", home) not in there:
            what, detail, repair = "placements state", "no state in the bucket", Repair.REPROVISION_CLUSTER
            yield Finding("Terraform", Fault.MISSING, what, home, detail, home, repair=repair, target=home)
    for cluster in clusters:
        if registry.clusters[cluster].made and ("cluster", cluster) not in there:
            yield Finding(
                "Terraform", Fault.MISSING, "cluster state", cluster, "no state in the bucket", cluster
            )
    for state in systems.states:
        owner = owners.get((state.stack, state.workspace))
        if state.present and owner is None:
            yield Finding(
                "Terraform",
                Fault.ORPHAN,
                f"{state.stack} state",
                state.workspace,
                "the registry has no such workspace",
                state.workspace,
            )
        if state.locked:
            yield Finding(
                "Terraform",
                Fault.ORPHAN,
                "lock",
                state.workspace,
                "held, and nobody is at work there",
                owner or state.workspace,
            )


def _changed(systems: Systems) -> Iterator[Finding]:
    """Found by the workers' own looks, one cluster at a time, and not by this reading: a plan takes seconds.
    No repair: what an instance or a setting is changed back to, and when, is a person's to say."""
    for cluster in systems.registry.clusters.values():
        if cluster.drift and not cluster.destroyed:
            named = ", ".join(cluster.drift[:_NAMED]) + (", …" if len(cluster.drift) > _NAMED else "")
            detail = f"not as its stack has it: {named}"
            yield Finding("Terraform", Fault.DIFFERS, "cluster", cluster.id, detail, cluster.id)


def _secrets(systems: Systems) -> Iterator[Finding]:
    if systems.secrets is None:
        return
    registry = systems.registry
    names = {placed.app_secret for placed in registry.placements}
    for placed in _complete(registry):
        name = placed.app_secret
        if name not in systems.secrets:
            yield _repair(placed, "Secrets Manager", "secret", name, "there is no such secret")
        elif systems.secrets[name]:
            yield _repair(placed, "Secrets Manager", "secret", name, "it waits for its deletion")
    for name, deleting in systems.secrets.items():
        match = _SECRET.match(name)
        if match is not None and name not in names and not deleting:
            detail = "the registry has no such placement"
            yield Finding("Secrets Manager", Fault.ORPHAN, "secret", name, detail, match[1], prices.SECRET)


def _roles(systems: Systems) -> Iterator[Finding]:
    if systems.roles is None:
        return
    there = set(systems.roles)
    clusters = [c for c in systems.registry.clusters.values() if not c.destroyed]
    for cluster in clusters:
        if cluster.made and not cluster.restored and cluster.id not in there:
            name, detail = cluster.id, "there is no such role: no login of its tenants can be read anew"
            repair = Repair.REPROVISION_CLUSTER
            yield Finding("IAM", Fault.MISSING, "role", name, detail, name, repair=repair, target=name)
    for name in there - {cluster.id for cluster in clusters}:
        if _CLUSTER.match(name):
            yield Finding("IAM", Fault.ORPHAN, "role", name, "the registry has no such cluster", name)


def _databases(systems: Systems) -> Iterator[Finding]:
    registry = systems.registry
    expected = {(placed.cluster_id, placed.database) for placed in registry.placements}
    for placed in _complete(registry):
        there = systems.databases.get(placed.cluster_id)
        if there is not None and placed.database not in there:
            yield Finding(
                "PostgreSQL",
                Fault.MISSING,
                "database",
                placed.database,
                f"not on {placed.cluster_id}: restore it from a snapshot",
                placed.tenant_id,
            )
    for cluster, names in systems.databases.items():
        if (known := registry.clusters.get(cluster)) is not None and known.restored:
            continue  # what it holds is everybody's past
        for name in names:
            if _DATABASE.match(name) and (cluster, name) not in expected:
                detail = f"on {cluster}, where the registry has no such placement"
                owner = name.replace("_", "-")
                yield Finding("PostgreSQL", Fault.ORPHAN, "database", name, detail, owner)


def _hostnames(systems: Systems) -> Iterator[Finding]:
    """Hostnames without our mark are somebody else's business in the same zone."""
    if systems.hostnames is None:
        return
    registry = systems.registry
    there = {status.host: status for status in systems.hostnames}
    for entry in registry.hostnames.values():
        if entry.registered and entry.host not in there:
            yield Finding(
                "Cloudflare",
                Fault.MISSING,
                "custom hostname",
                entry.host,
                "Cloudflare has no such hostname",
                entry.tenant_id,
                repair=Repair.REPROVISION,
                target=entry.tenant_id,
            )
    for status in there.values():
        row = registry.hostnames.get(status.host)
        if row is None:
            yield Finding(
                "Cloudflare",
                Fault.ORPHAN,
                "custom hostname",
                status.host,
                f"marked as {status.tenant_id}'s, which does not have it",
                status.tenant_id,
                prices.CUSTOM_HOSTNAME,
                Repair.DELETE_HOSTNAME,
                status.id,
            )
        elif row.tenant_id != status.tenant_id:
            yield Finding(
                "Cloudflare",
                Fault.DIFFERS,
                "custom hostname",
                status.host,
                f"marked as {status.tenant_id}'s, the registry says {row.tenant_id}",
                row.tenant_id,
            )


def _cache(systems: Systems) -> Iterator[Finding]:
    if systems.cache is None:
        return
    for host, route in systems.registry.routes.items():
        owner = str(route["tenant_id"])
        entry = systems.cache.get(host)
        if route["status"] == "gone":
            if entry is None or entry["status"] == "gone":
                continue
            fault, detail = (
                Fault.DIFFERS,
                f"the host was given up, it leads to {entry['tenant_id']}",
            )
        elif host not in systems.cache:
            fault, detail = Fault.MISSING, "the cache has no entry"
        elif entry is None:
            fault, detail = Fault.DIFFERS, "the entry is not signed with a key of ours"
        elif entry != route:
            changed = sorted(key for key in {*entry, *route} if entry.get(key) != route.get(key))
            fault, detail = Fault.DIFFERS, f"not what the registry decided: {', '.join(changed)}"
        else:
            continue
        if entry is not None and entry["epoch"] >= route["epoch"]:
            detail += f"; forged: its epoch {entry['epoch']} is not below the registry's {route['epoch']}"
        yield Finding("Cache", fault, "route", host, detail, owner, repair=Repair.REPUBLISH, target=host)
    for host, entry in systems.cache.items():
        if host in systems.registry.routes or (entry is not None and entry["status"] == "gone"):
            continue
        yield Finding(
            "Cache",
            Fault.ORPHAN,
            "route",
            host,
            "an entry for a host that the registry routes nowhere",
            None if entry is None else str(entry["tenant_id"]),
            repair=None if entry is None else Repair.WITHDRAW,
            target=host,
        )


def _subscriptions(systems: Systems) -> Iterator[Finding]:
    if systems.subscriptions is None:
        return
    owners = {name: t for t in systems.registry.tenants.values() for name in t.contracts}
    for tenant in systems.registry.tenants.values():
        if tenant.lifecycle is Lifecycle.CLOSED or tenant.internal:
            continue
        if not any(name in systems.subscriptions for name in tenant.contracts):
            name = next(iter(tenant.contracts), tenant.id)
            detail = f"nobody pays for {tenant.id}: Stripe has no such subscription"
            yield Finding("Stripe", Fault.MISSING, "subscription", name, detail, tenant.id)
    for found in systems.subscriptions.values():
        if found.in_step:
            continue
        owner = owners.get(found.id)
        whose = "it has no tenant" if owner is None else f"{owner.id} is {owner.lifecycle.value}"
        yield Finding(
            "Stripe",
            Fault.DIFFERS,
            "subscription",
            found.id,
            f"{found.status} at Stripe, and {whose}",
            None if owner is None else owner.id,
            repair=None if found.customer is None else Repair.APPLY_CONTRACTS,
            target=found.customer or "",
        )
