"""Connections to tenant clusters: who logs in, with which bounds, and what their failures mean.

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

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import psycopg

from controlplane.domain.errors import Retryable
from controlplane.workers.providers.databases.errors import LoginRefused, connect_error, statement_error
from controlplane.workers.providers.endpoint_map import EndpointMap
from controlplane.workers.providers.ports import ClusterEndpoint, Credential, Secrets

APPLICATION_NAME = "controlplane"
# Every cluster has it, and a session on it holds no tenant database up.
MAINTENANCE_DATABASE = "postgres"
MASTER_SEARCH_PATH = "pg_catalog,pg_temp"
REREAD_AFTER_SECONDS = (0.0, 2.0)
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
