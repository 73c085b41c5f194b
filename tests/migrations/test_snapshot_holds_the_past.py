"""What a rollout's snapshot is for: a tenant's schema and rows as they were, in a cluster beside its own.

RDS is emulated, and behind an emulated cluster stands a real PostgreSQL whose snapshots are base
backups, so what is restored here was really kept.
"""

from __future__ import annotations

import dataclasses

import boto3
import psycopg
import pytest

from controlplane.domain.catalogue import Catalogue
from controlplane.domain.job import JobKind
from controlplane.localcloud.aws.emulator import REGION, AwsEmulator
from controlplane.localcloud.servers.postgres import PostgresServer
from controlplane.store.registry import Registry
from controlplane.workers.jobs import rollouts as executor
from controlplane.workers.providers.aws_clusters import AwsClusters
from controlplane.workers.providers.aws_secrets import AwsSecrets
from controlplane.workers.providers.aws_snapshots import AwsSnapshots
from controlplane.workers.providers.databases import PostgresDatabases
from controlplane.workers.providers.endpoint_map import EndpointMap
from controlplane.workers.providers.ports import ClusterEndpoint, Credential
from tests.harness.terraform import new_id
from tests.harness.work import do_one
from tests.migrations.fleet import DerivedSecrets, Fleet, context

OLD = {"0001_notes.sql": "CREATE TABLE notes (body text);\nINSERT INTO notes VALUES ('kept')"}
NEW = OLD | {"0002_stars.sql": "ALTER TABLE notes ADD stars int;\nDELETE FROM notes"}


class RdsSecrets(DerivedSecrets):
    """The master's from the emulated account, tenants' from their names."""

    def read(self, name: str) -> Credential:
        return AwsSecrets(region=REGION).read(name) if ":secret:rds!" in name else super().read(name)


@dataclasses.dataclass
class RdsFleet(Fleet):
    """On one cluster of the emulated account."""

    cluster_id: str = ""

    def cluster(self, number: int) -> str:
        return self.cluster_id

    @property
    def at(self) -> ClusterEndpoint:
        return endpoint(self.cluster_id)


def endpoint(cluster_id: str) -> ClusterEndpoint:
    seen = AwsClusters(region=REGION).describe(cluster_id)
    assert seen is not None
    assert seen.endpoint is not None
    return seen.endpoint


def make_cluster(cluster_id: str, *, of: str | None = None) -> None:
    """A new one, or one restored `of` a snapshot, as an operator would."""
    rds = boto3.client("rds")
    kind = {"DBClusterIdentifier": cluster_id, "Engine": "aurora-postgresql"}
    if of is None:
        rds.create_db_cluster(**kind, MasterUsername="platform_master", ManageMasterUserPassword=True)
    else:
        rds.restore_db_cluster_from_snapshot(**kind, SnapshotIdentifier=of)
        rds.modify_db_cluster(
            DBClusterIdentifier=cluster_id, ManageMasterUserPassword=True, ApplyImmediately=True
        )
    rds.create_db_instance(**kind, DBInstanceIdentifier=f"{cluster_id}-1", DBInstanceClass="db.serverless")


@pytest.mark.timeout(600)
def test_a_restored_snapshot_has_the_schema_and_the_rows_of_before(
    aws: AwsEmulator, postgres_server: PostgresServer, registry: Registry, database_url: str
) -> None:
    cluster_id, beside = new_id("c-"), new_id("c-")
    make_cluster(cluster_id)
    usual, endpoints = context(database_url), EndpointMap(aws.endpoint_map)
    databases = PostgresDatabases(RdsSecrets(), endpoints, sslmode="disable")
    plans = {
        name: dataclasses.replace(plan, snapshot_before_migration=True)
        for name, plan in usual.catalogue.plans.items()
    }
    ctx = dataclasses.replace(
        usual,
        catalogue=Catalogue(usual.catalogue.version, plans),
        providers=dataclasses.replace(
            usual.providers,
            secrets=RdsSecrets(),  # type: ignore[arg-type]
            databases=databases,
            snapshots=AwsSnapshots(region=REGION),
        ),
    )
    fleet = RdsFleet(postgres_server, registry, ctx, cluster_id=cluster_id)
    try:
        (placed,) = fleet.add(1, release=None)
        migrate(fleet, OLD)
        before = databases.shape(fleet.at, placed)
        rollout_id = migrate(fleet, NEW)
        assert databases.shape(fleet.at, placed) != before

        (snapshot,) = fleet.show(rollout_id).snapshots
        make_cluster(beside, of=snapshot.name)
        assert databases.shape(endpoint(beside), placed) == before
        login = RdsSecrets().read(placed.app_secret)
        for at, rows in ((fleet.at, []), (endpoint(beside), [("kept",)])):
            databases.set_password(at, login)
            assert notes(at, login, endpoints) == rows
    finally:
        ctx.heartbeat.close()
        ctx.registry.close()


def notes(at: ClusterEndpoint, login: Credential, endpoints: EndpointMap) -> list[tuple[object, ...]]:
    place = {"host": at.host, "port": at.port} | endpoints.resolve(at.host, at.port)
    named = {"user": login.username, "password": login.password, "dbname": login.dbname}
    with psycopg.connect("", **place, **named) as conn:  # type: ignore[arg-type]
        return conn.execute("SELECT body FROM app.notes").fetchall()


def migrate(fleet: Fleet, files: dict[str, str]) -> int:
    rollout_id = fleet.start(fleet.release(files), waves=["100%"])
    for _ in range(10):
        executor.work(fleet.ctx, rollout_id)
        do_one(fleet.ctx, JobKind.SNAPSHOT)
        with fleet.registry.connection() as conn:
            conn.execute("UPDATE job SET due_at = clock_timestamp() WHERE kind = 'snapshot'")
        if fleet.show(rollout_id).rollout.state == "done":
            return rollout_id
    raise AssertionError(fleet.show(rollout_id))
