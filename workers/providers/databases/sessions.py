"""Connections to tenant clusters: who logs in, with which bounds, and what their failures mean.

A tenant's migrator has no password that anybody keeps, and can't log in. Who must act as it has the master
let it in (`let_in`): a password that only this process knows, which the server takes until a time on its
own clock, and NOLOGIN without a password afterwards. Only logging in needs that, a session goes on without
it. So `migrator` lets in for as long as it takes to connect, and only a program that connects by itself is
let in for longer. Whoever lets in has the lock on the placement's logins, so that two runs at once don't
set each other's password; that lock ends with the session of whoever has it. So a migrator that may log in
while nobody has the lock was left so by a worker that died: it is not as hardened as it must be, and the
recipe closes it.

The master's password is RDS's own (`manage_master_user_password`), which RDS changes every seven
days. It is read once for each call of the provider and kept no longer. Where the server refuses it,
RDS may be in the middle of changing it (the server knows the new one before AWSCURRENT does, for how
long AWS does not say), so it is read again, at once and a little later. Refused still, it is left to the
operation's next attempts: a person is called after as many of them as for every other outage.

The master is more powerful than the owner of the database it connects to, so its sessions search
`pg_catalog` alone: a function or an operator that a tenant's migration put into a schema is never
picked by name.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import psycopg
from psycopg import sql

from controlplane.domain.errors import Pending, Retryable
from controlplane.domain.placement import Placement
from controlplane.workers.providers.databases.errors import LoginRefused, connect_error, statement_error
from controlplane.workers.providers.databases.logins import new_password, scram_verifier
from controlplane.workers.providers.endpoint_map import EndpointMap
from controlplane.workers.providers.ports import ClusterEndpoint, Credential, Secrets

log = logging.getLogger(__name__)

APPLICATION_NAME = "controlplane"
# Every cluster has it, and a session on it holds no tenant database up.
MAINTENANCE_DATABASE = "postgres"
MASTER_SEARCH_PATH = "pg_catalog,pg_temp"
REREAD_AFTER_SECONDS = (0.0, 2.0)
LET_IN_SECONDS = 120.0
"""For a session that is opened at once: a cluster that sleeps has been woken by the master's."""
LOCKED_POLL_SECONDS = 5.0
SCRAM_ITERATIONS_SINCE = 160000
# A peer that vanished is noticed after 10 + 3 x 5 s, also in the middle of a long statement.
KEEPALIVE = {
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,
}


class Sessions:
    """Opens sessions in autocommit mode. `sslmode` and `sslrootcert` as libpq names them
    ("verify-full" and RDS's certificate bundle in production). Timeouts are seconds, and every
    session has all of them."""

    def __init__(
        self,
        secrets: Secrets,
        endpoint_map: EndpointMap,
        *,
        sslmode: str,
        sslrootcert: Path | None,
        connect_timeout: int,
        statement_timeout: float,
        lock_timeout: float,
        connection_class: type[psycopg.Connection] = psycopg.Connection,
    ) -> None:
        self._secrets = secrets
        self._endpoint_map = endpoint_map
        self._tls = {"sslmode": sslmode} | ({"sslrootcert": str(sslrootcert)} if sslrootcert else {})
        self._connect_timeout = connect_timeout
        self._statement_timeout = statement_timeout
        self._lock_timeout = lock_timeout
        self._connection_class = connection_class

    def master(self, at: ClusterEndpoint) -> Master:
        """The master of this cluster, for the length of one call of the provider."""
        return Master(self, self._secrets, at)

    @contextmanager
    def login(
        self,
        at: ClusterEndpoint,
        credential: Credential,
        *,
        statement_timeout: float | None = None,
        lock_timeout: float | None = None,
        bounded: bool = True,
    ) -> Iterator[psycopg.Connection]:
        """A session of a tenant's login on `credential.dbname`; `bounded` False: with what the login
        itself begins with, instead of our bounds. Raises LoginRefused, DatabaseClosed,
        NoSuchDatabase (all of them errors of the domain), Retryable, or NeedsHuman("tenant-database"),
        for the connecting and for what runs inside."""
        conn = self.connect(
            at,
            credential,
            credential.dbname,
            statement_timeout=statement_timeout,
            lock_timeout=lock_timeout,
            bounded=bounded,
        )
        with _closing(conn, _name(at, credential, credential.dbname)):
            yield conn

    def connect(
        self,
        at: ClusterEndpoint,
        credential: Credential,
        dbname: str,
        *,
        search_path: str | None = None,
        statement_timeout: float | None = None,
        lock_timeout: float | None = None,
        bounded: bool = True,
    ) -> psycopg.Connection:
        """`search_path` None leaves the login's own. Raises as `login`."""
        settings = (self._bounds(statement_timeout, lock_timeout) if bounded else {}) | (
            {"search_path": search_path} if search_path else {}
        )
        parameters: dict[str, Any] = {
            "host": at.host,
            "port": at.port,
            "user": credential.username,
            "password": credential.password,
            "dbname": dbname,
            "application_name": APPLICATION_NAME,
            "client_encoding": "UTF8",
            "connect_timeout": self._connect_timeout,
            "options": " ".join(f"-c {name}={value}" for name, value in settings.items()),
            **KEEPALIVE,
            **self._tls,
            **self._endpoint_map.resolve(at.host, at.port),
        }
        try:
            return self._connection_class.connect("", autocommit=True, **parameters)
        except psycopg.Error as error:
            raise connect_error(error, _name(at, credential, dbname)) from error

    @contextmanager
    def migrator(
        self,
        at: ClusterEndpoint,
        placement: Placement,
        *,
        dbname: str | None = None,
        statement_timeout: float | None = None,
        lock_timeout: float | None = None,
    ) -> Iterator[psycopg.Connection]:
        """A session as the placement's migrator; `dbname` None: on its database. Raises as `login` and
        `let_in`."""
        conn = self.connect_migrator(
            at, placement, dbname=dbname, statement_timeout=statement_timeout, lock_timeout=lock_timeout
        )
        with _closing(conn, f"{conn.info.user}@{conn.info.dbname} on {at.host}"):
            yield conn

    def connect_migrator(
        self,
        at: ClusterEndpoint,
        placement: Placement,
        *,
        dbname: str | None = None,
        statement_timeout: float | None = None,
        lock_timeout: float | None = None,
    ) -> psycopg.Connection:
        """As `migrator`, for whoever closes it itself."""
        conn = None
        try:
            with self.let_in(
                at, placement, seconds=LET_IN_SECONDS, dbname=dbname, by_libpq=True
            ) as credential:
                conn = self.connect(
                    at,
                    credential,
                    credential.dbname,
                    statement_timeout=statement_timeout,
                    lock_timeout=lock_timeout,
                )
        except BaseException:
            if conn is not None:
                conn.close()
            raise
        return conn

    @contextmanager
    def let_in(
        self,
        at: ClusterEndpoint,
        placement: Placement,
        *,
        seconds: float,
        dbname: str | None = None,
        by_libpq: bool = False,
    ) -> Iterator[Credential]:
        """The migrator's login for what happens inside, which may open as many sessions with it as it
        likes; they go on afterwards. `seconds`: on the server's clock; the password is worth nothing after
        them, even where this worker dies. `by_libpq`: nothing else logs in with it, so it is hashed once.
        More rounds are for passwords that can be guessed and cost both ends; other drivers may insist on
        4,096. Raises Pending as `lock_logins`."""
        role = sql.Identifier(placement.migrator_role)
        close = sql.SQL("ALTER ROLE {} NOLOGIN PASSWORD NULL").format(role)
        with self.master(at).open() as master:
            lock_logins(master, placement)
            if by_libpq and master.info.server_version >= SCRAM_ITERATIONS_SINCE:
                master.execute("SET scram_iterations = 1")
            credential = Credential(
                placement.migrator_role,
                new_password(),
                host=at.host,
                port=at.port,
                dbname=dbname or placement.database,
            )
            verifier = scram_verifier(master, credential.username, credential.password)
            row = master.execute(
                "SELECT (clock_timestamp() + make_interval(secs => %s))::text", (seconds,)
            ).fetchone()
            assert row is not None  # noqa: S101 - a SELECT without FROM
            opened = sql.SQL("ALTER ROLE {} LOGIN PASSWORD {} VALID UNTIL {}")
            try:
                master.execute(opened.format(role, sql.Literal(verifier), sql.Literal(row[0])))
                yield credential
            except BaseException:
                try:
                    master.execute(close)
                except psycopg.Error as error:  # the time is bounded, and the next look closes it
                    log.warning("%s may log in until %s: %s", placement.migrator_role, row[0], error.sqlstate)
                raise
            master.execute(close)

    def environment(
        self, at: ClusterEndpoint, credential: Credential, *, statement_timeout: float, lock_timeout: float
    ) -> dict[str, str]:
        """The same login for another program: `DATABASE_URL` with the bounds among its parameters, and
        libpq's PGOPTIONS for a program that takes the URL apart.

        Where the endpoint map leads elsewhere the address itself is in the URL, since few programs know
        libpq's `hostaddr`.
        """
        place = self._endpoint_map.resolve(at.host, at.port)
        host, port = place.get("hostaddr", at.host), place.get("port", at.port)
        user, password, name = (
            quote(text, safe="") for text in (credential.username, credential.password, credential.dbname)
        )
        bounds = self._bounds(statement_timeout, lock_timeout)
        options = " ".join(f"-c {setting}={value}" for setting, value in bounds.items())
        query = urlencode(
            {**self._tls, "application_name": APPLICATION_NAME, "options": options}, quote_via=quote
        )
        return {
            "DATABASE_URL": f"postgresql://{user}:{password}@{host}:{port}/{name}?{query}",
            "PGOPTIONS": options,
            "PGCONNECT_TIMEOUT": str(self._connect_timeout),
        }

    def libpq_environment(self, at: ClusterEndpoint, credential: Credential) -> dict[str, str]:
        """The same login for a program of PostgreSQL's own, as libpq's variables."""
        place = self._endpoint_map.resolve(at.host, at.port)
        address = {"PGHOSTADDR": str(place["hostaddr"])} if "hostaddr" in place else {}
        return {
            "PGHOST": at.host,
            "PGPORT": str(place.get("port", at.port)),
            "PGUSER": credential.username,
            "PGPASSWORD": credential.password,
            "PGDATABASE": credential.dbname,
            "PGAPPNAME": APPLICATION_NAME,
            "PGCONNECT_TIMEOUT": str(self._connect_timeout),
            **{f"PG{name.upper()}": value for name, value in self._tls.items()},
            **address,
        }

    def _bounds(self, statement_timeout: float | None, lock_timeout: float | None) -> dict[str, Any]:
        statement = statement_timeout or self._statement_timeout
        return {
            "statement_timeout": _milliseconds(statement),
            "lock_timeout": _milliseconds(lock_timeout or self._lock_timeout),
            "idle_in_transaction_session_timeout": _milliseconds(self._statement_timeout),
        }


class Master:
    """One cluster's master login; its password is read when the first session is opened."""

    def __init__(self, sessions: Sessions, secrets: Secrets, at: ClusterEndpoint) -> None:
        self._sessions = sessions
        self._secrets = secrets
        self._at = at
        self._credential: Credential | None = None

    @contextmanager
    def open(self, dbname: str = MAINTENANCE_DATABASE) -> Iterator[psycopg.Connection]:
        """Raises as `Sessions.login`. Where the server refuses the password that Secrets Manager has, also
        after it was read anew, that is Retryable, with runbook "master-credential"."""
        conn = self._connect(dbname)
        with _closing(conn, f"{conn.info.user}@{dbname} on {self._at.host}"):
            yield conn

    def _connect(self, dbname: str) -> psycopg.Connection:
        if self._credential is None:
            self._credential = self._secrets.read(self._at.master_secret_arn)
        refused: LoginRefused | None = None
        for pause in (None, *REREAD_AFTER_SECONDS):
            if pause is not None:
                time.sleep(pause)
                credential = self._secrets.read(self._at.master_secret_arn)
                if credential == self._credential:
                    continue
                self._credential = credential
            try:
                return self._sessions.connect(
                    self._at, self._credential, dbname, search_path=MASTER_SEARCH_PATH
                )
            except LoginRefused as error:
                refused = error
        raise Retryable(
            f"the master's login is refused, though {self._at.master_secret_arn} was read again: {refused};"
            " RDS may be rotating its password",
            runbook="master-credential",
        ) from refused


def lock_logins(master: psycopg.Connection, placement: Placement) -> None:
    """To the end of the session, be the only one who makes the placement's database or lets its migrator in.
    `master`: on the maintenance database, which tenants can't enter, so none of them can have the lock.
    Raises Pending where somebody else has it for longer than `lock_timeout`."""
    try:
        master.execute("SELECT pg_advisory_lock(hashtextextended(%s, 0))", (placement.database,))
    except psycopg.errors.LockNotAvailable as error:
        raise Pending(
            f"{placement.database}: another run has its logins in hand", after=LOCKED_POLL_SECONDS
        ) from error


@contextmanager
def _closing(conn: psycopg.Connection, what: str) -> Iterator[None]:
    try:
        with conn:
            yield
    except psycopg.Error as error:
        raise statement_error(error, what) from error


def _name(at: ClusterEndpoint, credential: Credential, dbname: str) -> str:
    return f"{credential.username}@{dbname} on {at.host}"


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))
