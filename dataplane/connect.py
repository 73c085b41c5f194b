"""Opens one connection to a tenant's database, and says in our words why it could not.

What libpq and psycopg raise when a connect fails holds the password (psycopg keeps the connection's
parameters on the exception, and its frames hold them in locals), and the text names the address and
the login. So nothing of it travels on: the text is classified and logged at debug level, and the error
that is raised is ours, raised where no secret is in sight (I9).

A refused login is fetched anew once. A database that may be paused is given `wake` seconds.
"""

from __future__ import annotations

import asyncio
import enum
import logging
import re
import time
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import psycopg

from dataplane.credentials import Credential, Credentials
from dataplane.endpoints import EndpointMap
from dataplane.errors import (
    CredentialUnavailable,
    DatabaseError,
    DatabaseUnavailable,
    DatabaseWaking,
    PoolExhausted,
)
from dataplane.tenant_config import TenantConfig

log = logging.getLogger(__name__)

RETRY_SECONDS = 0.5  # between tries while a database starts
WAKE_SECONDS = 45.0
"""How long a visitor waits for a paused database. Aurora takes up to 15 seconds to resume, and 30 and more
after a day; a load balancer gives an answer up after 60 (AWS's default)."""


class Trouble(enum.Enum):
    LOGIN = "the login was refused"
    STARTING = "the database is starting"
    FULL = "the database has no connection left"
    CLOSED = "the database takes no connections"
    SILENT = "no answer in time"
    UNREACHABLE = "it could not be reached"


# PostgreSQL gives no SQLSTATE for a connection that never came to be, so its text has to do; it is in
# English unless the server's lc_messages says otherwise, and unknown text counts as UNREACHABLE.
_WORDING = (
    (Trouble.LOGIN, r"password authentication failed|not permitted to log in|role .* does not exist"),
    (Trouble.STARTING, r"the database system is (starting up|not yet accepting|in recovery)"),
    (Trouble.FULL, r"too many (clients|connections)|remaining connection slots"),
    (Trouble.CLOSED, r"not currently accepting connections|permission denied for database|does not exist"),
)
_CLASSES = tuple((trouble, re.compile(words)) for trouble, words in _WORDING)


def diagnose(error: psycopg.Error | OSError) -> Trouble:
    if isinstance(error, psycopg.errors.ConnectionTimeout):
        return Trouble.SILENT
    text = str(error)
    return next((trouble for trouble, words in _CLASSES if words.search(text)), Trouble.UNREACHABLE)


def may_pause(config: TenantConfig) -> bool:
    """Does the plan let the tenant's cluster pause when nobody uses it? (`profile.pauses`)"""
    return config.profile.get("pauses") is True


@dataclass(frozen=True, slots=True)
class Transport:
    """How databases are reached. `sslmode`, `sslrootcert` as libpq knows them; `endpoints` is for
    machines on which the endpoint names lead nowhere. `timeout`: seconds for one connect; `wake`:
    seconds that a request waits for a paused database."""

    sslmode: str = "verify-full"
    sslrootcert: str | None = None
    endpoints: EndpointMap | None = None
    application_name: str = "dataplane"
    timeout: float = 5.0
    wake: float = WAKE_SECONDS

    def parameters(self, config: TenantConfig, credential: Credential, timeout: float) -> dict[str, Any]:
        database = config.database
        if database is None:
            raise DatabaseUnavailable(f"{config.tenant_id} has no database")
        elsewhere = self.endpoints.address(database.host, database.port) if self.endpoints else None
        return {
            "host": database.host,
            "port": elsewhere[1] if elsewhere else database.port,
            **({"hostaddr": elsewhere[0]} if elsewhere else {}),
            "dbname": database.name,
            "user": credential.username,
            "password": credential.password,
            "sslmode": self.sslmode,
            **({"sslrootcert": self.sslrootcert} if self.sslrootcert else {}),
            "application_name": self.application_name,
            "connect_timeout": max(2, round(timeout)),  # libpq knows whole seconds, at least two
            # A peer that is gone without a word is noticed after these, in seconds and milliseconds.
            "keepalives_idle": 15,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "tcp_user_timeout": 10_000,
            "prepare_threshold": None,  # see wire.py
        }


class Attempts:
    """What to do after each failed try of one connect: the part that threads and coroutines share."""

    def __init__(self, transport: Transport, config: TenantConfig) -> None:
        self._config = config
        self._began = time.monotonic()
        self._pausing = may_pause(config)
        self._until = self._began + (transport.wake if self._pausing else transport.timeout)
        self._refreshed = False

    @property
    def left(self) -> float:
        return max(0.0, self._until - time.monotonic())

    def next(self, trouble: Trouble) -> float | None:
        """Seconds to wait before another try with the same login; None: fetch the login anew first.
        Raises what the request is answered with."""
        if trouble is Trouble.LOGIN and not self._refreshed:
            self._refreshed = True
            return None
        waking = trouble is Trouble.STARTING or (
            self._pausing and trouble in (Trouble.SILENT, Trouble.UNREACHABLE)
        )
        if waking and self.left > RETRY_SECONDS:
            return RETRY_SECONDS
        raise self._error(trouble, waking=waking)

    def _error(self, trouble: Trouble, *, waking: bool) -> DatabaseError:
        message = f"{self._config.tenant_id}: {trouble.value}"
        if waking:
            return DatabaseWaking(message, retry_after=5.0)
        if trouble is Trouble.FULL:
            return PoolExhausted(message, retry_after=2.0)
        if trouble is Trouble.LOGIN:
            return CredentialUnavailable(message, retry_after=5.0)
        return DatabaseUnavailable(message, retry_after=5.0)


class Connector:
    def __init__(self, credentials: Credentials, transport: Transport | None = None) -> None:
        self.credentials = credentials
        self.transport = transport or Transport()

    def connect(self, config: TenantConfig) -> psycopg.Connection[Any]:
        """A connection that nobody has asserted anything about yet. Raises DatabaseError."""
        attempts = Attempts(self.transport, config)
        credential = self.credentials.get(config)
        while True:
            made = self._try(config, credential, attempts.left)
            if not isinstance(made, Trouble):
                return made
            pause = attempts.next(made)
            if pause is None:
                credential = self._other(config, credential, self.credentials.refresh(config, credential))
            else:
                time.sleep(pause)

    async def connect_async(
        self, config: TenantConfig, threads: Executor | None = None
    ) -> psycopg.AsyncConnection[Any]:
        """As `connect`. The login is fetched in one of `threads` (None: the loop's own)."""
        loop = asyncio.get_running_loop()
        attempts = Attempts(self.transport, config)
        credential = await loop.run_in_executor(threads, self.credentials.get, config)
        while True:
            made = await self._try_async(config, credential, attempts.left)
            if not isinstance(made, Trouble):
                return made
            pause = attempts.next(made)
            if pause is None:
                newer = await loop.run_in_executor(threads, self.credentials.refresh, config, credential)
                credential = self._other(config, credential, newer)
            else:
                await asyncio.sleep(pause)

    def _try(
        self, config: TenantConfig, credential: Credential, timeout: float
    ) -> psycopg.Connection[Any] | Trouble:
        try:
            return psycopg.Connection.connect(**self.transport.parameters(config, credential, timeout))
        except (psycopg.Error, OSError) as error:
            return self._diagnose(config, error)

    async def _try_async(
        self, config: TenantConfig, credential: Credential, timeout: float
    ) -> psycopg.AsyncConnection[Any] | Trouble:
        try:
            return await psycopg.AsyncConnection.connect(
                **self.transport.parameters(config, credential, timeout)
            )
        except (psycopg.Error, OSError) as error:
            return self._diagnose(config, error)

    def _diagnose(self, config: TenantConfig, error: psycopg.Error | OSError) -> Trouble:
        trouble = diagnose(error)
        log.warning("connect: %s: %s", config.tenant_id, trouble.value)
        log.debug("connect: %s: %s", config.tenant_id, error)
        return trouble

    def _other(self, config: TenantConfig, refused: Credential, newer: Credential) -> Credential:
        if newer == refused:
            raise CredentialUnavailable(f"{config.tenant_id}: {Trouble.LOGIN.value}", retry_after=5.0)
        return newer
