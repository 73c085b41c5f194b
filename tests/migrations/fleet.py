"""A fleet of real tenant databases under a real registry, without the rest of the external systems.

Each tenant is made by the hardened recipe and then written into the registry as one that serves; so a
rollout finds what it would find in production. Passwords are derived from the login's name, so that
worker processes of their own need nothing handed over but the registry's URL and the server's port.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from controlplane.domain.cluster import ClusterLifecycle
from controlplane.domain.placement import Placement, cluster_id_for, placement_id_for, tenant_id_for
from controlplane.domain.release import Adapter
from controlplane.domain.rollout import Spec
from controlplane.domain.tenant import Lifecycle, TenantSpec
from controlplane.localcloud.servers.postgres import PostgresServer
from controlplane.services import releases, rollouts
from controlplane.services.rollouts import RolloutDetail
from controlplane.store import placement, tenant
from controlplane.store.registry import Registry
from controlplane.workers.engine.context import Context
from controlplane.workers.jobs import rollouts as executor
from controlplane.workers.providers.databases import PostgresDatabases
from controlplane.workers.providers.endpoint_map import EndpointMap
from controlplane.workers.providers.ports import ClusterEndpoint, Credential, SecretDescription
from tests.harness.engine import Harness

MASTER_ARN = "arn:master"
_SECRET = re.compile(r"^placements/(p-[a-z2-7]{12})/app$")


class DerivedSecrets:
    """`ports.Secrets` whose values follow from the names; the master is the test server's superuser."""

    def describe(self, name: str) -> SecretDescription | None:
        return SecretDescription(name, name, "1", deleting=False)

    def read(self, name: str) -> Credential:
        if name == MASTER_ARN:
            return Credential("postgres", "")
        match = _SECRET.match(name)
        assert match is not None, name
        placed = Placement(match[1], "t-" + "a" * 12, "c-" + "a" * 12)
        username = placed.app_roles[0]
        return Credential(username, hashlib.sha256(username.encode()).hexdigest(), dbname=placed.database)

    def write(self, name: str, credential: Credential, *, token: str) -> str:
        raise AssertionError("nothing is written here")


def context(registry_url: str, *, lease_seconds: float = 30.0, **databases: Any) -> Context:
    """A worker's, with the real databases."""
    harness = Harness(registry_url, lease=lease_seconds)
    providers = dataclasses.replace(
        harness.ctx.providers,
        secrets=DerivedSecrets(),
        databases=PostgresDatabases(DerivedSecrets(), EndpointMap(), sslmode="disable", **databases),
    )
    return dataclasses.replace(harness.ctx, providers=providers)


def counting(*numbers: int) -> dict[str, str]:
    """Migrations that each leave a row behind every time they run: what is applied twice shows."""
    files = {"0001_base.sql": "CREATE TABLE ran (number int)"}
    for number in numbers:
        files[f"{number:04d}_step.sql"] = (
            f"CREATE TABLE step_{number} (id int);\nINSERT INTO ran VALUES ({number})"
        )
    return files


@dataclass
class Fleet:
    """`tenants`: in the order of their making; `slug` of number 7 is "customer-7"."""

    server: PostgresServer
    registry: Registry
    ctx: Context
    clusters: int = 1
    tenants: list[Placement] = field(default_factory=list)

    def __post_init__(self) -> None:
        for number in range(self.clusters):
            self._register_cluster(self.cluster(number))

    def close(self) -> None:
        for placed in self.tenants:
            self.server.drop_database(placed.database)
        with self.superuser() as conn:
            for placed in self.tenants:
                for role in (placed.migrator_role, *placed.app_roles, placed.owner_role):
                    conn.execute(f'DROP ROLE IF EXISTS "{role}"')
        self.ctx.heartbeat.close()
        self.ctx.registry.close()

    @property
    def at(self) -> ClusterEndpoint:
        return ClusterEndpoint("127.0.0.1", self.server.port, MASTER_ARN, "r")

    def cluster(self, number: int) -> str:
        return cluster_id_for(f"cluster {number} of {id(self.server)}".encode())

    def superuser(self, dbname: str = "postgres") -> psycopg.Connection:
        return psycopg.connect(self.server.url(dbname), autocommit=True)

    # ------------------------------------------------------------------------------------- making

    def _register_cluster(self, cluster_id: str) -> None:
        endpoint = dataclasses.asdict(self.at)
        with self.registry.connection() as conn:
            conn.execute(
                "INSERT INTO cluster (id, cluster_class, slots, spec, endpoint, ready_at)"
                " VALUES (%s, 'shared', 1000, %s, %s, now())",
                [
                    cluster_id,
                    Jsonb({"lifecycle": ClusterLifecycle.ACTIVE}),
                    Jsonb(endpoint),
                ],
            )

    def add(self, count: int, *, release: str | None = "0001", born: bool = True) -> list[Placement]:
        """So many more tenants, with hardened databases; not `born`: one that has never served."""
        return [self._add(len(self.tenants) + 1, release, born) for _ in range(count)]

    def _add(self, number: int, release: str | None, born: bool) -> Placement:
        tenant_id = tenant_id_for(f"sub {number} of {self.server.port} {self.registry!r}")
        placed = Placement(
            placement_id_for(tenant_id.encode()), tenant_id, self.cluster(number % self.clusters)
        )
        self.ctx.providers.databases.create(self.at, placed, connection_limit=5)
        with self.registry.connection() as conn, conn.transaction():
            tenant.insert(
                conn,
                tenant_id=tenant_id,
                slug=f"customer-{number}",
                display_name=f"Customer {number}",
                customer_id="cus_1",
                spec=TenantSpec(Lifecycle.ACTIVE, "shared", "active"),
                paid_at=None,
                release=release,
            )
            placement.insert(conn, placed)
            if born:
                tenant.mark_ready(conn, tenant_id)
        self.tenants.append(placed)
        return placed

    def release(self, files: Mapping[str, str]) -> str:
        """Register these files, every finding accepted; its number."""
        with self.registry.connection() as conn:
            named = [(name, releases.store_file(conn, text.encode())) for name, text in files.items()]
            made = releases.create(conn, Adapter.SQL, named, lambda _: [], actor="test")
        return made.release.number

    def bring_all_to(self, number: str) -> None:
        """Without a rollout: where the fleet starts from."""
        done = self.start(number, waves=["100%"], concurrency=8, per_cluster=8)
        assert self.work(done).rollout.state == "done"

    # ------------------------------------------------------------------------------------ rolling

    def start(self, number: str, **spec: Any) -> int:
        with self.registry.connection() as conn:
            return rollouts.start(conn, number, Spec.from_json(spec), actor="test")

    def work(self, rollout_id: int, *, rounds: int = 400) -> RolloutDetail:
        """Until it is over or halted; whatever waits for its time is due."""
        for _ in range(rounds):
            executor.work(self.ctx, rollout_id)
            detail = self.show(rollout_id)
            if detail.rollout.state != "running":
                return detail
            with self.registry.connection() as conn:
                conn.execute("UPDATE rollout SET not_before = clock_timestamp()")
                conn.execute("UPDATE job SET due_at = now() WHERE kind = 'member' AND state = 'waiting'")
        raise AssertionError(f"not over: {self.show(rollout_id)}")

    def show(self, rollout_id: int) -> RolloutDetail:
        with self.registry.connection() as conn:
            return rollouts.show(conn, rollout_id)

    # ------------------------------------------------------------------------------------- looking

    def ran(self, placed: Placement) -> list[int]:
        """What the counter table of this database holds."""
        with self.superuser(placed.database) as conn:
            return [n for (n,) in conn.execute("SELECT number FROM app.ran ORDER BY 1, ctid")]

    def recorded(self, placed: Placement) -> list[str]:
        with self.superuser(placed.database) as conn:
            rows = conn.execute("SELECT number FROM platform.schema_migration ORDER BY 1")
            return [number for (number,) in rows]

    def releases(self) -> dict[str, str | None]:
        """tenant id → release, as the registry has it."""
        with self.registry.connection() as conn:
            return {row["id"]: row["release"] for row in conn.execute("SELECT id, release FROM tenant")}

    def violations(self, numbers: Sequence[int], *, without: Sequence[str] = ()) -> list[str]:
        """Each of these migrations once in every database, but for those tenants'; in words."""
        found = []
        for placed in self.tenants:
            if placed.tenant_id in without:
                continue
            ran = self.ran(placed)
            found += [
                f"{placed.database}: {n} ran {ran.count(n)} times" for n in numbers if ran.count(n) != 1
            ]
        return found
