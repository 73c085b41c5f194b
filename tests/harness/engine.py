"""A whole control plane on fakes: real registry, real engine, an external systems that remembers.

The world is a file, so a worker that is killed in a child process leaves behind just what AWS, Stripe
and Cloudflare would have kept, and the next one finds it. `violations` is the oracle: it compares the
registry with the world and says in words what is missing, doubled or left over.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from controlplane.certificate import CertificateKey
from controlplane.domain.billing import contract_of
from controlplane.domain.catalogue import parse_catalogue
from controlplane.domain.contract import Contract
from controlplane.domain.errors import ControlPlaneError
from controlplane.domain.job import JobKind, Lane
from controlplane.domain.placement import Placement, tenant_id_for
from controlplane.localcloud.fakes.aws import (
    LOGICAL_GROUP,
    FakeAccount,
)
from controlplane.localcloud.fakes.billing import SUBSCRIPTION
from controlplane.localcloud.fakes.databases import DATABASE
from controlplane.localcloud.fakes.moves import (
    PROGRESS,
    STREAM,
)
from controlplane.localcloud.fakes.providers import providers
from controlplane.localcloud.fakes.terraform import ARCHIVE, OWNER, FakeTerraform
from controlplane.localcloud.fakes.world import World
from controlplane.services import billing
from controlplane.store import cluster, contract, placement, stack, tenant
from controlplane.store.registry import Registry, one
from controlplane.workers.engine.context import (
    Context,
    Platform,
)
from controlplane.workers.engine.heartbeat import Heartbeat
from controlplane.workers.engine.record import endpoint_of
from controlplane.workers.providers.databases import new_password
from controlplane.workers.providers.databases.migrations import load
from controlplane.workers.providers.ports import ClusterEndpoint, Credential
from controlplane.workers.providers.terraform.inventory import ClusterInventory
from controlplane.workers.schedule.duties import DUTIES
from tests import builders
from tests.harness.work import ASKED_FOR, work_once

ROOT = Path(__file__).parents[2]
MIGRATIONS = ROOT / "examples/notes/migrations"
ZONE = "tenants.example.net"
CATALOGUE = """
version = 1

[plans.shared]
isolation = "shared"
lookup_keys = ["shared"]
min_acu = 0.5
max_acu = 8
backup_retention_days = 7
slots = 100
pool_size = 5
connection_limit = 20
custom_domains = 1
retention_days = 30

[plans.dedicated]
isolation = "dedicated"
lookup_keys = ["dedicated"]
min_acu = 1
max_acu = 16
backup_retention_days = 14
pool_size = 10
connection_limit = 50
custom_domains = 3
retention_days = 30
"""
NEWER = {ClusterInventory.cluster: {"copy_tags": True}}
"""What stacks say in which a setting of the cluster is new."""
LIVING_CLUSTERS = "SELECT id FROM cluster WHERE spec->>'lifecycle' = 'active'"
CERTIFICATE_KEY = CertificateKey("c1", b"s" * 32)
_numbers = itertools.count(1)


class Harness:
    """`crash`: asked at every crash point of the world. `lease`: seconds; `latency`: seconds that each
    of Terraform's resources takes."""

    def __init__(
        self,
        registry_url: str,
        world: Path | str = ":memory:",
        *,
        crash: Callable[[str], None] | None = None,
        lease: float = 30.0,
        latency: float = 0.0,
        rotation_grace: float = 900.0,
        migrations: Path = MIGRATIONS,
    ) -> None:
        self.world = World(world, crash=crash)
        made = providers(self.world, latency=latency)
        self.billing, self.cache, self.terraform = made.billing, made.cache, made.terraform
        self.databases, self.moves, self.quotas = made.databases, made.moves, made.quotas
        self.snapshots, self.hostnames = made.snapshots, made.hostnames
        self.notified: list[Lane] = []
        registry, holder = Registry(registry_url, size=4), f"test/{os.getpid()}/{next(_numbers)}"
        self._heartbeats = [Heartbeat(registry, holder, seconds=lease, every=lease / 5)]
        self.ctx = Context(
            registry=registry,
            providers=made,
            catalogue=parse_catalogue(CATALOGUE, source="harness"),
            platform=Platform(
                environment="test",
                zone=ZONE,
                livemode=False,
                vpc_id="vpc-1",
                subnet_ids=("subnet-1", "subnet-2"),
                app_security_group_ids=("sg-1",),
                app_role_arn="arn:aws:iam::123456789012:role/app",
                permissions_boundary_arn="arn:aws:iam::123456789012:policy/boundary",
                cluster_parameter_group=LOGICAL_GROUP,
                lease=lease,
                heartbeat=lease / 5,
                rotation_grace=rotation_grace,
            ),
            migrations=migrations,
            release=load(migrations)[-1].number,
            holder=holder,
            heartbeat=self._heartbeats[0],
            lock_owner=OWNER,
            notify=self.notified.append,
            new_password=new_password,
            certificate_key=CERTIFICATE_KEY,
        )

    def close(self) -> None:
        for heartbeat in self._heartbeats:
            heartbeat.close()
        self.ctx.registry.close()
        self.world.close()

    def another_worker(self, holder: str, *, every: float | None = None) -> Context:
        """That holds its jobs under this name, and lives as long as the harness. `every`: seconds between two
        renewals of its leases."""
        platform = self.ctx.platform
        heartbeat = Heartbeat(
            self.ctx.registry, holder, seconds=platform.lease, every=every or platform.heartbeat
        )
        self._heartbeats.append(heartbeat)
        return replace(self.ctx, holder=holder, heartbeat=heartbeat)

    def carry(self, module: Mapping[str, Any], *, installed: bool = True) -> FakeTerraform:
        """From now on the worker carries other stacks (see `FakeTerraform`). `installed`: it has started, and
        so published them."""
        self.terraform = FakeTerraform(self.world, module=module)
        self.ctx = replace(self.ctx, providers=replace(self.ctx.providers, terraform=self.terraform))
        if installed:
            carried = self.terraform.publish()
            with self.ctx.registry.connection() as conn:
                stack.record_release(conn, carried.digest, carried.variables, installed=True)
        return self.terraform

    # ------------------------------------------------------------------------------- the customer

    def subscribe(
        self,
        number: int,
        *,
        plan: str = "shared",
        status: str = "active",
        customer: int | None = None,
        **fields: Any,
    ) -> str:
        """Stripe now has this subscription; its id. The events are `hear`d separately. `customer`: whose
        it is, where it is not their first."""
        subscription_id, customer = f"sub_{number:08d}", number if customer is None else customer
        slug = {"slug": f"customer-{customer}", "name": f"Customer {customer}"}
        metadata = {**slug, **fields.pop("metadata", {})}
        self.billing.put_customer(builders.customer(id=f"cus_{customer:08d}", name=f"Customer {customer}"))
        self.billing.put_subscription(
            builders.subscription(
                id=subscription_id,
                customer=f"cus_{customer:08d}",
                lookup_key=plan,
                status=status,
                metadata=metadata,
                **fields,
            )
        )
        return subscription_id

    def revive(self, number: int) -> None:
        """Apply that a subscription which had ended lives again. Stripe revives none, so its fakes refuse
        it; a billing system that does would lead to this."""
        customer_id, slug = f"cus_{number:08d}", f"customer-{number}"
        body = builders.subscription(
            id=f"sub_{number:08d}", customer=customer_id, lookup_key="shared", metadata={"slug": slug}
        )
        read = contract_of(body)
        assert isinstance(read, Contract)
        with self.ctx.registry.connection() as conn:
            billing.apply(
                conn,
                customer_id,
                {read.id: read},
                self.ctx.catalogue,
                zone=ZONE,
                revision=contract.revision(conn, customer_id),
                reason="revived",
            )

    def hear(
        self,
        subscription_id: str,
        type_: str = "customer.subscription.updated",
        *,
        event_id: str | None = None,
    ) -> str:
        """An event about it arrives and is stored; its id."""
        known = self.world.get(SUBSCRIPTION, subscription_id) or {"customer": "cus_x"}
        event = builders.event(
            type_,
            builders.subscription(id=subscription_id, customer=known["customer"]),
            id=event_id or f"evt_{next(_numbers):08d}",
        )
        return self.receive(event)

    def receive(self, event: dict[str, Any]) -> str:
        """This event arrives and is stored; its id."""
        with self.ctx.registry.connection() as conn:
            billing.record_event(conn, event, json.dumps(event).encode(), livemode=False)
        return str(event["id"])

    # --------------------------------------------------------------------------------- the workers

    def work(self, rounds: int = 30) -> None:
        """Work until nothing is due, letting time pass between rounds; on all but rollouts, whose turns the
        tests take themselves."""
        kinds = [kind for kind in ASKED_FOR if kind is not JobKind.ROLLOUT]
        for _ in range(rounds):
            done = work_once(self.ctx, kinds)
            if not done and not self.pass_time():
                return
        raise AssertionError(f"not reconciled after {rounds} rounds: {self.open_work()}")

    def pass_time(self) -> int:
        """Whatever waits for its time is due now, but for what is put off for days, and dead workers' leases
        have run out; how much waited."""
        with self.ctx.registry.connection() as conn:
            conn.execute("UPDATE job SET lease_until = '-infinity' WHERE state = 'running'")
            conn.execute("UPDATE hostname SET next_poll_at = now() WHERE next_poll_at > now()")
            waited = conn.execute(
                "UPDATE job SET due_at = least(due_at, now()) WHERE kind <> ALL(%s)"
                " AND (state = 'running' OR due_at < now() + interval '1 day')",
                [[*DUTIES, JobKind.ROLLOUT]],
            )
        return waited.rowcount

    def grace_ends(self) -> None:
        """Logins that were rotated away have had their time, and their tenants are looked at."""
        with self.ctx.registry.connection() as conn:
            conn.execute("UPDATE placement SET retire_at = clock_timestamp() WHERE retire_at IS NOT NULL")
            conn.execute("UPDATE tenant SET next_observation_at = clock_timestamp()")

    def open_work(self) -> list[dict[str, Any]]:
        with self.ctx.registry.connection() as conn:
            return conn.execute(
                "SELECT o.kind, o.resource_id, o.state, o.error, s.name, s.error AS step_error"
                " FROM operation o LEFT JOIN LATERAL (SELECT name, error FROM step WHERE operation_id = o.id"
                "  ORDER BY seq DESC LIMIT 1) s ON true"
                " WHERE o.state IN ('waiting', 'running', 'parked') ORDER BY o.id"
            ).fetchall()

    # ---------------------------------------------------------------------------------- the oracle

    def tenant_id(self, subscription_id: str) -> str:
        """Whom it is for, or would be founded for it."""
        with self.ctx.registry.connection() as conn:
            row = conn.execute("SELECT tenant_id FROM contract WHERE id = %s", [subscription_id]).fetchone()
        bound = None if row is None else row["tenant_id"]
        return str(bound or tenant_id_for(subscription_id))

    def tenant(self, subscription_id: str) -> tenant.TenantRow:
        tenant_id = self.tenant_id(subscription_id)
        with self.ctx.registry.connection() as conn:
            return tenant.get(conn, tenant_id)

    def placement(self, subscription_id: str) -> Placement:
        tenant_id = self.tenant_id(subscription_id)
        with self.ctx.registry.connection() as conn:
            placed = placement.current(conn, tenant_id)
        assert placed is not None
        return placed

    def nth_placement(self, subscription_id: str) -> int:
        """Which of all that it ever had it lives on, from 1."""
        here = self.placement(subscription_id)
        with self.ctx.registry.connection() as conn:
            return placement.all_of(conn, here.tenant_id).index(here) + 1

    def last_placement(self, subscription_id: str) -> Placement:
        """The newest, given up or not."""
        tenant_id = self.tenant_id(subscription_id)
        with self.ctx.registry.connection() as conn:
            return placement.all_of(conn, tenant_id)[-1]

    def endpoint(self, placed: Placement) -> ClusterEndpoint:
        with self.ctx.registry.connection() as conn:
            at = endpoint_of(cluster.get(conn, placed.cluster_id))
        assert at is not None
        return at

    def lets_in(self, placed: Placement, credential: Credential | None = None) -> bool:
        """Does the database take this login, or the one that the secret names now?"""
        credential = credential or self.ctx.providers.secrets.read(placed.app_secret)
        return self.ctx.providers.databases.accepts(self.endpoint(placed), credential)

    def write(self, number: int, row: str) -> bool:
        """As the customer's application, where the route leads; False where it was refused."""
        entry = self.cache.read(f"customer-{number}.{ZONE}")
        if entry is None or entry.payload["status"] != "active":
            return False
        place = entry.payload["database"]
        with self.ctx.registry.connection() as conn:
            clusters = [endpoint_of(found) for found in cluster.living(conn)]
        at = next(at for at in clusters if at is not None and at.host == place["host"])
        credential = self.ctx.providers.secrets.read(place["secret"])
        try:
            self.databases.write(at, replace(credential, dbname=place["name"]), row)
        except ControlPlaneError:
            return False
        return True

    def rows(self, subscription_id: str) -> list[str]:
        placed = self.placement(subscription_id)
        return self.databases.rows(self.endpoint(placed), placed.database)

    def violations(self) -> list[str]:
        """What does not hold, in words; empty where registry and world agree (I1, I2, I4, I5)."""
        with self.ctx.registry.connection() as conn:
            tenants = conn.execute(
                "SELECT t.id, t.slug, t.spec, t.generation, t.observed_generation, t.needs_attention,"
                " t.ready_at, p.id AS placement, p.cluster_id FROM tenant t LEFT JOIN placement p"
                " ON p.tenant_id = t.id AND p.state = 'current'"
            ).fetchall()
            secondary = [
                Placement(**row)
                for row in conn.execute(
                    "SELECT id, tenant_id, cluster_id FROM placement WHERE state IN ('target', 'source')"
                ).fetchall()
            ]
            moving = conn.execute(
                "SELECT count(*) AS n FROM transfer WHERE kind <> 'clone'"
                " AND phase IN ('preparing', 'copying', 'following', 'cut')"
            )
            still_moving = one(moving.fetchone())["n"]
            clusters = {row["id"] for row in conn.execute(LIVING_CLUSTERS).fetchall()}
            released = conn.execute("SELECT id FROM placement WHERE state = 'released'").fetchall()
            events = conn.execute(
                "SELECT id, state, reason FROM stripe_event WHERE state NOT IN ('applied', 'ignored')"
            ).fetchall()
            open_operations = conn.execute(
                "SELECT id, resource_id, state, error FROM (SELECT DISTINCT ON (kind, resource_id) *"
                " FROM operation ORDER BY kind, resource_id, id DESC) newest"
                " WHERE state <> 'done'"
            ).fetchall()
        found = [f"event {e['id']} is {e['state']}: {e['reason']}" for e in events]
        found += [
            f"operation {o['id']} of {o['resource_id']} is {o['state']}: {o['error']}"
            for o in open_operations
        ]
        found += [f"what {row['id']} left is still there" for row in released]
        required: dict[str, set[str]] = {
            "cluster": clusters,
            "database": set(),
            "secret": set(),
            "role": clusters,
        }
        allowed: dict[str, set[str]] = {kind: set(names) for kind, names in required.items()}
        for row in tenants:
            if row["generation"] != row["observed_generation"]:
                found.append(f"{row['id']} is not reconciled")
            elif row["spec"]["lifecycle"] == "active" and row["ready_at"] is None:
                found.append(f"{row['id']} is served, and nobody was told that it is ready")
            if row["needs_attention"]:
                found.append(f"{row['id']} needs attention: {row['needs_attention']}")
            if row["placement"] is not None:
                placed = Placement(row["placement"], row["id"], row["cluster_id"])
                for names in (allowed, required) if row["spec"]["lifecycle"] == "active" else (allowed,):
                    names["database"].add(placed.database)
                    names["secret"].add(placed.app_secret)
                if row["spec"]["lifecycle"] == "active" and row["ready_at"] is not None:
                    found += self._identity_violations(placed)
            found += self._route_violations(row)
        for placed in secondary:
            allowed["database"].add(placed.database)
            allowed["secret"].add(placed.app_secret)
        if not still_moving:
            found += [
                f"{name} is kept for a copy" for kind in (STREAM, PROGRESS) for name in self.world.all(kind)
            ]
        account = FakeAccount(self.world)
        for kind, needed in required.items():
            if kind == "database":
                there = {key.rpartition("/")[2] for key in self.world.all(DATABASE)}
            else:
                there = {name for name in account.names(kind) if not name.startswith("rds!")}
                there = {name for name in there if not (account.get(kind, name) or {}).get("deleting")}
            found += [f"{kind} {name} is missing" for name in sorted(needed - there)]
            found += [f"{kind} {name} is an orphan" for name in sorted(there - allowed[kind])]
        found += [f"{thing} is in no Terraform state" for thing in self.terraform.orphans()]
        found += self._release_violations()
        return found + [f"{thing} was created more than once" for thing in account.duplicates()]

    def _identity_violations(self, placed: Placement) -> list[str]:
        """A tenant that is served has a database that says so."""
        at = self.endpoint(placed)
        database = self.world.get(DATABASE, f"{at.host}:{at.port}/{placed.database}") or {}
        identity = [database.get("placement"), database.get("tenant")]
        return [f"{placed.database} says {identity}"] if identity != [placed.id, placed.tenant_id] else []

    def _release_violations(self) -> list[str]:
        """Each stack was last applied by the release that its cluster names, and that was published (I13)."""
        with self.ctx.registry.connection() as conn:
            stacks = conn.execute(
                "SELECT 'cluster' AS stack, id AS workspace, release FROM cluster WHERE destroyed_at IS NULL"
                " UNION ALL SELECT 'placements', id, release FROM cluster WHERE destroyed_at IS NULL"
            ).fetchall()
            published = {found.digest for found in stack.releases(conn, limit=1000)}
        found = []
        for row in stacks:
            applied = self.terraform.applied(row["stack"], row["workspace"])
            if applied not in (None, row["release"]):
                found.append(f"{row['workspace']} was applied by {applied}, and {row['release']} is named")
            if applied is not None and not {applied} <= published & set(self.world.all(ARCHIVE)):
                found.append(f"{row['workspace']} was applied by {applied}, which was not published")
        return found

    def _route_violations(self, row: dict[str, Any]) -> list[str]:
        host = f"{row['slug']}.{ZONE}"
        entry = self.cache.read(host)
        status = None if entry is None else entry.payload["status"]
        wanted = {"active": ("active",), "suspended": ("suspended",), "closed": (None, "gone")}
        if status in wanted[row["spec"]["lifecycle"]]:
            return []
        return [f"{host} is routed as {status}, its tenant is {row['spec']['lifecycle']}"]
