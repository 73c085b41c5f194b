"""A PostgreSQL whose master has what RDS gives, for tests of `controlplane.workers.providers.databases`."""

from __future__ import annotations

import glob
import itertools
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from controlplane.domain.errors import Retryable
from controlplane.domain.placement import Placement, cluster_id_for, placement_id_for, tenant_id_for
from controlplane.localcloud.aws.databases import guard_wal_functions
from controlplane.localcloud.servers.postgres import PostgresServer
from controlplane.localcloud.servers.process import make_data_root
from controlplane.workers.providers.databases import PostgresDatabases
from controlplane.workers.providers.databases.sessions import Sessions
from controlplane.workers.providers.endpoint_map import EndpointMap
from controlplane.workers.providers.ports import ClusterEndpoint, Credential, SecretDescription, Secrets

MASTER_PASSWORD = "canary-master-\\'\"%§"
MASTER_ARN = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:rds!cluster-1"


@dataclass
class MemorySecrets:
    """`ports.Secrets`, as much of it as the databases need: `read` is counted."""

    values: dict[str, Credential] = field(default_factory=dict)
    reads: int = 0

    def describe(self, name: str) -> SecretDescription | None:
        return None if name not in self.values else SecretDescription(name, name, "1", deleting=False)

    def read(self, name: str) -> Credential:
        self.reads += 1
        try:
            return self.values[name]
        except KeyError as error:
            raise Retryable(f"{name}: no value yet") from error

    def write(self, name: str, credential: Credential, *, token: str) -> str:
        self.values[name] = credential
        return token


@dataclass(frozen=True)
class Server:
    """`at`: as RDS would describe the cluster. `log`: every statement the server was sent."""

    postgres: PostgresServer
    at: ClusterEndpoint
    secrets: MemorySecrets

    @property
    def log(self) -> str:
        return (self.postgres.data_dir / "server.log").read_text(errors="replace")

    def provider(self, secrets: Secrets | None = None, **options: Any) -> PostgresDatabases:
        return PostgresDatabases(secrets or self.secrets, EndpointMap(), **({"sslmode": "disable"} | options))

    def sessions(self, *, lock_timeout: float = 5, **options: Any) -> Sessions:
        return Sessions(
            self.secrets,
            EndpointMap(),
            sslmode="disable",
            sslrootcert=None,
            connect_timeout=5,
            statement_timeout=10,
            lock_timeout=lock_timeout,
            **options,
        )

    def migrator(self, placement: Placement, dbname: str | None = None) -> psycopg.Connection:
        """A session of its migrator, let in as the product does it."""
        return self.sessions().connect_migrator(self.at, placement, dbname=dbname)

    @contextmanager
    def superuser(self, dbname: str = "postgres") -> Iterator[psycopg.Connection]:
        with psycopg.connect(self.postgres.url(dbname), autocommit=True) as conn:
            yield conn

    @contextmanager
    def login(self, credential: Credential, dbname: str | None = None) -> Iterator[psycopg.Connection]:
        with psycopg.connect(
            host=self.at.host,
            port=self.at.port,
            user=credential.username,
            password=credential.password,
            dbname=dbname or credential.dbname,
            autocommit=True,
        ) as conn:
            yield conn


LOGICAL = {"wal_level": "logical"}


@contextmanager
def run_server(
    *, superuser_master: bool = False, options: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """As on Aurora with its default parameter group; with `options=LOGICAL` as with one for moves."""
    root = make_data_root("databases-")
    try:
        server = PostgresServer(
            root / "pg",
            user="rdsadmin",
            password="rdsadmin",
            options={"log_statement": "all", "wal_level": "replica", **(options or {})},
        )
        with server:
            guard_wal_functions(server)
            with psycopg.connect(server.url(), autocommit=True) as conn:
                _make_master(conn, superuser=superuser_master)
            at = ClusterEndpoint("127.0.0.1", server.port, MASTER_ARN, "cluster-RESOURCE")
            yield Server(server, at, MemorySecrets({MASTER_ARN: Credential("platform", MASTER_PASSWORD)}))
    finally:
        shutil.rmtree(root)


def _make_master(conn: psycopg.Connection, *, superuser: bool) -> None:
    """ "Master user account privileges" of the RDS manual, as roles of plain PostgreSQL."""
    verifier = conn.pgconn.encrypt_password(MASTER_PASSWORD.encode(), b"platform", b"scram-sha-256")
    conn.execute("CREATE ROLE rds_superuser NOLOGIN")
    conn.execute("GRANT pg_monitor, pg_signal_backend TO rds_superuser")
    kind = sql.SQL("SUPERUSER" if superuser else "CREATEDB CREATEROLE")
    conn.execute(
        sql.SQL("CREATE ROLE platform LOGIN {} PASSWORD {}").format(kind, sql.Literal(verifier.decode()))
    )
    conn.execute("GRANT rds_superuser TO platform")
    # On RDS members of rds_replication may replicate; plain PostgreSQL asks for the attribute itself.
    conn.execute("ALTER ROLE platform REPLICATION")
    conn.execute("GRANT SET ON PARAMETER session_replication_role TO rds_superuser")
    conn.execute("ALTER DATABASE postgres OWNER TO platform")
    conn.execute("ALTER DATABASE template1 OWNER TO platform")


def system_postgres() -> str | None:
    """The folder of programs of a PostgreSQL 15 that the system may have: the oldest supported."""
    return next(iter(sorted(glob.glob("/usr/lib/postgresql/15/bin"))), None)


@pytest.fixture(scope="module", params=["rds", "rds-15"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """PostgreSQL as the wheel has it, and the oldest version that is supported."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "rds-15":
            programs = system_postgres()
            if programs is None:
                pytest.skip("no PostgreSQL 15 on this system")
            patch.setenv("LOCALCLOUD_POSTGRES_BIN", programs)
        with run_server() as running:
            yield running


def new_placement() -> Placement:
    """Of a tenant of its own."""
    return placement_of(tenant_id_for(uuid.uuid4().hex))


def placement_of(tenant_id: str) -> Placement:
    """A new one of this tenant, on a cluster of its own."""
    return Placement(placement_id_for(uuid.uuid4().bytes), tenant_id, cluster_id_for(uuid.uuid4().bytes))


_passwords = itertools.count(1)


def credential_of(placement: Placement, username: str) -> Credential:
    return Credential(username, f"canary-{next(_passwords)}-%'\"", dbname=placement.database)


def write_migrations(folder: Path, **files: str) -> Path:
    """`write_migrations(tmp_path, _0001_notes="CREATE …")`."""
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / f"{name.lstrip('_')}.sql").write_text(text)
    return folder


NOTES = "CREATE TABLE notes (id bigserial PRIMARY KEY, body text NOT NULL)"
