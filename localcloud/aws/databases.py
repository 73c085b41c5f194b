"""The PostgreSQL servers behind the emulated RDS clusters: one each, with logins as on RDS.

A cluster's server is born with its first instance, sleeps while it has none, and goes when the
cluster is deleted. Its superuser is `rdsadmin`, as on RDS, with a password that only this process
knows. The cluster's master user has what RDS gives a master, and the password of the master secret.
Snapshots are base backups, taken while the server runs; a restore starts a server on a copy of one. A
moment of the past is replayed from the server's log.

On Aurora the DB cluster parameter group decides whether the log serves logical decoding, and where it does
not, the functions that tell a position in the log are refused. PostgreSQL answers them always, so here they
are replaced, in every database that the server is born with.
"""

from __future__ import annotations

import secrets
import shutil
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import LiteralString

import psycopg
from psycopg import sql

from controlplane.localcloud.aws.endpoint_map import EndpointMap
from controlplane.localcloud.point_in_time import KEPT_LOG, make_past
from controlplane.localcloud.servers import postgres_install
from controlplane.localcloud.servers.postgres import PostgresServer

ADMIN = "rdsadmin"
# No superuser, as on RDS (User Guide, "Understanding the rds_superuser role" and "Master user account
# privileges"): code that only works for one fails here and not first in production.
MASTER: tuple[LiteralString, ...] = (
    "CREATE ROLE rds_superuser NOLOGIN",
    "CREATE ROLE rds_iam NOLOGIN",
    "CREATE ROLE rds_replication NOLOGIN REPLICATION",
    "GRANT pg_monitor, pg_signal_backend, rds_iam, rds_replication TO rds_superuser WITH ADMIN OPTION",
    "CREATE ROLE {master} LOGIN CREATEDB CREATEROLE",
    "GRANT rds_superuser TO {master}",
    # On RDS members of rds_replication may replicate; plain PostgreSQL asks for the attribute itself.
    "ALTER ROLE {master} REPLICATION",
    "GRANT SET ON PARAMETER session_replication_role TO rds_superuser",
    "ALTER DATABASE postgres OWNER TO {master}",
    "ALTER DATABASE template1 OWNER TO {master}",
)

# Name, arguments, result. Aurora refuses them below `wal_level = logical`: jobinau/pg_gather#9 and
# DataDog/integrations-core#20356 quote the error and its hint.
WAL_FUNCTIONS: tuple[tuple[LiteralString, LiteralString, LiteralString], ...] = (
    ("pg_create_restore_point", "text", "pg_lsn"),
    ("pg_current_wal_flush_lsn", "", "pg_lsn"),
    ("pg_current_wal_insert_lsn", "", "pg_lsn"),
    ("pg_current_wal_lsn", "", "pg_lsn"),
    ("pg_switch_wal", "", "pg_lsn"),
)
# PostgreSQL runs a function of its own whatever pg_proc says of it, so the name goes to another one.
WAL_FUNCTION: tuple[LiteralString, ...] = (
    "ALTER FUNCTION pg_catalog.{name}({arguments}) RENAME TO {real}",
    """
    CREATE FUNCTION pg_catalog.{name}({arguments}) RETURNS {returns} LANGUAGE plpgsql AS $$
    BEGIN
        IF pg_catalog.current_setting('wal_level') <> 'logical' THEN
            RAISE object_not_in_prerequisite_state USING
                MESSAGE = $m$wal_level must be set to 'logical'$m$,
                HINT = 'WAL control functions cannot be executed when wal_level < logical.';
        END IF;
        RETURN pg_catalog.{real}({passed});
    END $$
    """,
)


@dataclass(frozen=True, slots=True)
class MasterLogin:
    """`password` None: the emulator does not know it (restored from a snapshot); what the data says
    stays in force."""

    username: str
    password: str | None = field(repr=False)


class ClusterDatabases:
    """Keyed by the cluster's resource id, which never changes and is never used again.

    Not safe for concurrent calls: the emulator answers one RDS request at a time.
    """

    def __init__(self, data_dir: Path, endpoints: EndpointMap) -> None:
        self._clusters_dir = data_dir / "clusters"
        self._snapshots_dir = data_dir / "snapshots"
        self._endpoints = endpoints
        self._servers: dict[str, PostgresServer] = {}
        self._busy: dict[str, tuple[int, float]] = {}

    def open(
        self,
        cluster: str,
        login: MasterLogin,
        *,
        database: str | None,
        endpoints: Iterable[str],
        logical: bool,
    ) -> None:
        """Start the cluster's server if it is not running, make the master user (and `database`,
        if there is to be one from the start), and map its endpoints, "host:port". `logical`: does its log
        serve logical decoding? Takes effect at a start."""
        server = self._servers.get(cluster)
        if server is None:
            server = PostgresServer(
                self._clusters_dir / cluster,
                user=ADMIN,
                password=secrets.token_urlsafe(24),
                options={"wal_keep_size": KEPT_LOG},
            )
            self._servers[cluster] = server
        if not server.running:
            server.options["wal_level"] = "logical" if logical else "replica"
            server.start()
            self._make_master(server, login, database)
        self.map(cluster, endpoints)

    def map(self, cluster: str, endpoints: Iterable[str]) -> None:
        """These, and no others, are now the cluster's endpoints."""
        if server := self._servers.get(cluster):
            target = f"127.0.0.1:{server.port}"
            self._endpoints.remove_target(target)
            self._endpoints.put(dict.fromkeys(endpoints, target))

    def set_master_password(self, cluster: str, login: MasterLogin) -> None:
        """Takes effect at the next login. A sleeping server gets it when it is opened."""
        server = self._servers.get(cluster)
        if server is not None and server.running:
            self._make_master(server, login, None)

    def sleep(self, cluster: str) -> None:
        """Stop the server, keep its data and its endpoints."""
        if server := self._servers.get(cluster):
            server.stop()

    def drop(self, cluster: str) -> None:
        """Stop the server, delete its data, forget its endpoints."""
        server = self._servers.pop(cluster, None)
        if server is not None:
            self._endpoints.remove_target(f"127.0.0.1:{server.port}")
            server.stop("immediate")
        shutil.rmtree(self._clusters_dir / cluster, ignore_errors=True)

    def activity(self, cluster: str) -> tuple[int, float] | None:
        """How many clients are connected, and for how many seconds none was, by what the last question saw;
        None where no server runs. Asked from the database that on RDS is AWS's own, so that asking is no
        activity."""
        server = self._servers.get(cluster)
        if server is None or not server.running:
            return None
        if cluster not in self._busy:
            with psycopg.connect(server.url(), autocommit=True) as connection:
                if not _exists(connection, "SELECT FROM pg_database WHERE datname = %s", ADMIN):
                    connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(ADMIN)))
                    connection.execute(
                        sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(sql.Identifier(ADMIN))
                    )
        with psycopg.connect(server.url(ADMIN), autocommit=True) as connection:
            found = connection.execute(
                "SELECT (SELECT count(*) FROM pg_stat_activity WHERE usename <> %(admin)s"
                "          AND backend_type IN ('client backend', 'walsender'))::int,"
                " (SELECT sum(sessions) FROM pg_stat_database WHERE datname <> %(admin)s)::int",
                {"admin": ADMIN},
            ).fetchone()
        assert found is not None
        connected, begun = found
        if connected or self._busy.get(cluster, (None, 0.0))[0] != begun:
            self._busy[cluster] = begun, time.monotonic()
        return connected, time.monotonic() - self._busy[cluster][1]

    def snapshot(self, cluster: str) -> Path | None:
        """A copy of the cluster's data as it is now; None where it never had a server."""
        if cluster not in self._servers and not (self._clusters_dir / cluster).exists():
            return None
        self._snapshots_dir.mkdir(parents=True, exist_ok=True)
        copy = self._snapshots_dir / secrets.token_hex(8)
        self._copy_to(cluster, copy)
        return copy

    def restore(self, snapshot: Path, cluster: str) -> None:
        """Give a new cluster, which has no server yet, the data of a snapshot."""
        postgres_install.copy_owned(snapshot, self._clusters_dir / cluster)

    def clone(self, source: str, cluster: str) -> None:
        """Give a new cluster the data that `source` has now, if it has any."""
        if source in self._servers:
            self._copy_to(source, self._clusters_dir / cluster)

    def restore_to(self, source: str, at: datetime, cluster: str) -> None:
        """Give a new cluster the data that `source` had at this moment, if it ever had any. Raises
        ServiceError where that can't be had: a sleeping server, or a past that is not kept."""
        server = self._servers.get(source)
        if server is not None:
            make_past(server, at, self._clusters_dir / cluster)

    def delete_snapshot(self, snapshot: Path) -> None:
        shutil.rmtree(snapshot)

    def close(self) -> None:
        """Stop every server."""
        stops: list[Callable[[], None]] = [server.stop for server in self._servers.values()]
        with ThreadPoolExecutor(max_workers=8) as pool:
            list(pool.map(lambda stop: stop(), stops))

    def _copy_to(self, cluster: str, target: Path) -> None:
        server = self._servers.get(cluster)
        if server is None or not server.running:
            postgres_install.copy_owned(self._clusters_dir / cluster, target)
        else:
            server.backup(target)

    def _make_master(self, server: PostgresServer, login: MasterLogin, database: str | None) -> None:
        with psycopg.connect(server.url(), autocommit=True) as connection:
            name = sql.Identifier(login.username)
            if not _exists(connection, "SELECT FROM pg_roles WHERE rolname = %s", login.username):
                guard_wal_functions(server)
                for statement in MASTER:
                    connection.execute(sql.SQL(statement).format(master=name))
            if login.password is not None:
                server.set_password(login.username, login.password)
            if database and not _exists(connection, "SELECT FROM pg_database WHERE datname = %s", database):
                connection.execute(
                    sql.SQL("CREATE DATABASE {} OWNER {}").format(sql.Identifier(database), name)
                )


def _exists(connection: psycopg.Connection, query: LiteralString, value: str) -> bool:
    return connection.execute(query, [value]).fetchone() is not None


def guard_wal_functions(server: PostgresServer) -> None:
    """Let a new server tell positions in its log as Aurora does: with `wal_level = logical` only. In every
    database that it has, and so in all that will be made of them."""
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute("ALTER DATABASE template0 ALLOW_CONNECTIONS true")
        for database in ("template0", "template1", "postgres"):
            with psycopg.connect(server.url(database)) as inside:
                for function in WAL_FUNCTIONS:
                    _guard(inside, *function)
        connection.execute("ALTER DATABASE template0 ALLOW_CONNECTIONS false")


def _guard(
    connection: psycopg.Connection, name: LiteralString, arguments: LiteralString, returns: LiteralString
) -> None:
    for statement in WAL_FUNCTION:
        connection.execute(
            sql.SQL(statement).format(
                name=sql.SQL(name),
                real=sql.SQL(f"{name}_of_postgresql"),
                arguments=sql.SQL(arguments),
                returns=sql.SQL(returns),
                passed=sql.SQL("$1" if arguments else ""),
            )
        )
