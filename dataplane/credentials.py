"""Logins of tenant databases, from wherever they are kept, for as long as they work.

A login is fetched once and then used until the database refuses it or an invalidation says that it was
rotated; so requests do not depend on AWS being there. Where a rotated one can't be fetched the old
one goes on being used: rotation leaves it valid until the new one is in use.

The process itself may read no secret. It assumes the role that the entry names, as a session that is tagged
with the entry's placement, and AWS opens to that session what bears the same tag. Making a client of boto3
takes a tenth of a second under a lock, so there is one for all sessions, whose credentials are those that the
calling thread has put in (AWS, "Pass session tags in AWS STS"; "Access by tag" in our documentation).
"""

from __future__ import annotations

import json
import logging
import random
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Protocol

import boto3
import botocore.session
from botocore.config import Config
from botocore.credentials import Credentials as BotoCredentials
from botocore.credentials import ReadOnlyCredentials
from botocore.exceptions import BotoCoreError, ClientError

from dataplane.errors import CredentialUnavailable
from dataplane.tenant_config import TenantConfig

log = logging.getLogger(__name__)

SESSION_SECONDS = 900
"""As short as STS makes them: a session reads one secret, and perhaps once more."""
SESSION_MARGIN = 60.0
SESSIONS = 1_000
"""Kept for reading once more: a login that was just fetched and is refused, or rotated."""
CONNECTIONS = 32
_THROTTLED = frozenset(
    {"Throttling", "ThrottlingException", "RequestLimitExceeded", "TooManyRequestsException"}
)


@dataclass(frozen=True, slots=True)
class Credential:
    """One login of one database. Its repr does not show the password."""

    username: str
    password: str = field(repr=False)


class Credentials(Protocol):
    """Where the pools get logins from. All methods may be called from many threads at once and bound
    their own time; they raise CredentialUnavailable."""

    def get(self, config: TenantConfig) -> Credential:
        """The login to use, from memory where it is known."""
        ...

    def refresh(self, config: TenantConfig, refused: Credential) -> Credential:
        """The database has refused this one: the login that counts now, which may be the same."""
        ...

    def forget(self, tenant_id: str) -> None:
        """An invalidation says that the tenant's login has changed."""
        ...


class StaticCredentials:
    """Logins that are given, by tenant id: for tests and for whoever keeps them elsewhere."""

    def __init__(self, logins: dict[str, Credential]) -> None:
        self._logins = logins

    def get(self, config: TenantConfig) -> Credential:
        try:
            return self._logins[config.tenant_id]
        except KeyError:
            raise CredentialUnavailable(f"no login is known for {config.tenant_id}") from None

    def refresh(self, config: TenantConfig, refused: Credential) -> Credential:
        return self.get(config)

    def forget(self, tenant_id: str) -> None:
        """Nothing is kept here that could be old."""


@dataclass(slots=True)
class _Kept:
    lock: threading.Lock = field(default_factory=threading.Lock)
    secret: str = ""
    credential: Credential | None = None
    stale: bool = False
    asked_at: float = float("-inf")
    failure: CredentialUnavailable | None = None


@dataclass(frozen=True, slots=True)
class _Session:
    """`until`: by the clock of the credentials, when it is no longer used."""

    keys: ReadOnlyCredentials = field(repr=False)
    until: float


@dataclass(frozen=True, slots=True)
class _Clients:
    """`sts` is the process's own identity, `secrets` nobody's but with `credentials`."""

    sts: Any
    secrets: Any
    credentials: SwappedCredentials


class SwappedCredentials(BotoCredentials):
    """Of a client that many sessions share: those that the calling thread has put in with `use`. botocore
    signs in the calling thread and asks for them at every signature. Where none are put in it gets an error,
    never the process's own identity."""

    method = "assume-role"
    account_id = None

    def __init__(self) -> None:
        self._of_thread = threading.local()

    @contextmanager
    def use(self, keys: ReadOnlyCredentials) -> Iterator[None]:
        self._of_thread.keys = keys
        try:
            yield
        finally:
            self._of_thread.keys = None

    def get_frozen_credentials(self) -> ReadOnlyCredentials:
        keys: ReadOnlyCredentials | None = getattr(self._of_thread, "keys", None)
        if keys is None:
            raise RuntimeError("no session's credentials are in use in this thread: a request must be one's")
        return keys

    access_key = property(lambda self: self.get_frozen_credentials().access_key)
    secret_key = property(lambda self: self.get_frozen_credentials().secret_key)
    token = property(lambda self: self.get_frozen_credentials().token)


class Backoff:
    """After AWS has throttled nobody is let through for a while, then one caller at a time, each after a
    longer while, until it works."""

    FIRST, LONGEST = 1.0, 30.0

    def __init__(self, clock: Callable[[], float], chance: Callable[[], float]) -> None:
        """`chance`: from 0 to 1; processes that were throttled together don't come back together."""
        self._clock = clock
        self._chance = chance
        self._lock = threading.Lock()
        self._tries = 0
        self._until: float | None = None  # None: all is well

    def left(self) -> float:
        """Seconds to wait; 0: go on, and say how it went."""
        with self._lock:
            now = self._clock()
            if self._until is None:
                return 0.0
            if now < self._until:
                return self._until - now
            self._tries += 1
            self._until = now + self._while()
            return 0.0

    def throttled(self) -> float:
        """Seconds to wait."""
        with self._lock:
            if self._until is None:
                self._until = self._clock() + self._while()
            return max(0.0, self._until - self._clock())

    def worked(self) -> None:
        if self._until is not None:
            with self._lock:
                self._tries, self._until = 0, None

    def _while(self) -> float:
        return float(min(self.LONGEST, self.FIRST * 2**self._tries) * (0.5 + self._chance() / 2))


class SecretsManagerCredentials:
    """Logins kept in AWS Secrets Manager as `{"username", "password", "host", "port", "dbname"}`, each read
    as a session of the entry's role, tagged with the entry's placement: AWS refuses it any other's secret.

    At most one request a tenant is under way, and after one nobody asks again for `pause` seconds. Where STS
    or Secrets Manager throttles, nobody asks for a while that grows.
    """

    def __init__(
        self,
        *,
        session: Callable[..., Any] = boto3.session.Session,
        timeout: float = 3.0,
        pause: float = 1.0,
        capacity: int = 50_000,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """`session`: makes what makes clients, for the process's own identity and, with a `botocore_session`,
        for another one. `timeout`, `pause`: seconds. `capacity`: tenants whose logins are kept."""
        self._session = session
        self._pause = pause
        self._capacity = capacity
        self._clock = clock
        self._config = Config(
            connect_timeout=timeout,
            read_timeout=timeout,
            retries={"total_max_attempts": 2, "mode": "standard"},
            max_pool_connections=CONNECTIONS,
        )
        self._backoff = Backoff(clock, chance)
        self._lock = threading.Lock()
        self._kept: dict[str, _Kept] = {}
        self._made: _Clients | None = None
        self._sessions: OrderedDict[tuple[str, str], _Session] = OrderedDict()

    def get(self, config: TenantConfig) -> Credential:
        kept = self._keep(config)
        credential = kept.credential
        if credential is not None and not kept.stale and kept.secret == _arn(config):
            return credential
        return self._fetch_once(config, kept, refused=None)

    def refresh(self, config: TenantConfig, refused: Credential) -> Credential:
        return self._fetch_once(config, self._keep(config), refused=refused)

    def forget(self, tenant_id: str) -> None:
        kept = self._kept.get(tenant_id)
        if kept is not None:
            kept.stale = True
            kept.asked_at = float("-inf")

    def _keep(self, config: TenantConfig) -> _Kept:
        kept = self._kept.get(config.tenant_id)
        if kept is None:
            with self._lock:
                while len(self._kept) >= self._capacity:
                    self._kept.pop(next(iter(self._kept)))
                kept = self._kept.setdefault(config.tenant_id, _Kept())
        return kept

    def _fetch_once(self, config: TenantConfig, kept: _Kept, *, refused: Credential | None) -> Credential:
        with kept.lock:
            same_place = kept.secret == _arn(config)
            if not same_place:
                kept.secret, kept.credential, kept.failure = _arn(config), None, None
                kept.asked_at = float("-inf")
            known = kept.credential
            if known is not None and not kept.stale and known != refused:
                return known  # somebody else has fetched it while this caller waited
            if self._clock() - kept.asked_at < self._pause:
                if known is not None:
                    return known
                if kept.failure is not None:
                    raise CredentialUnavailable(str(kept.failure), retry_after=kept.failure.retry_after)
            kept.asked_at = self._clock()
            problem, wait = None, self._backoff.left()
            if wait:
                problem = f"{config.tenant_id}: AWS throttles"
            else:
                try:
                    credential = self._fetch(config)
                except (BotoCoreError, ClientError, ValueError) as error:
                    problem = f"{config.tenant_id}: {_describe(error)}"
                    wait = self._backoff.throttled() if _describe(error) in _THROTTLED else self._pause
            if problem is not None:
                log.error("credentials: %s", problem)
                kept.failure = CredentialUnavailable(problem, retry_after=wait)
                if known is not None:
                    return known
                raise CredentialUnavailable(problem, retry_after=wait)
            kept.credential, kept.stale, kept.failure = credential, False, None
            return credential

    def _fetch(self, config: TenantConfig) -> Credential:
        database, placement = config.database, config.placement
        if database is None or placement is None:
            raise ValueError("expected a database with the placement that it is")
        with self._lock:
            known = self._sessions.get((database.role, placement))
        if known is not None and self._clock() < known.until:
            try:
                return parse_secret(self._read(known.keys, database.secret), config)
            except ClientError as error:
                if _describe(error) in _THROTTLED:
                    raise
                log.info("credentials: %s: the session is of no use any more", config.tenant_id)
        keys = self._assume(database.role, placement)
        credential = parse_secret(self._read(keys, database.secret), config)
        self._backoff.worked()
        return credential

    def _assume(self, role: str, placement: str) -> ReadOnlyCredentials:
        began = self._clock()
        granted = self._clients().sts.assume_role(
            RoleArn=role,
            RoleSessionName=placement,
            Tags=[{"Key": "placement", "Value": placement}],
            DurationSeconds=SESSION_SECONDS,
        )["Credentials"]
        keys = ReadOnlyCredentials(
            granted["AccessKeyId"], granted["SecretAccessKey"], granted["SessionToken"], None
        )
        with self._lock:
            self._sessions[role, placement] = _Session(keys, began + SESSION_SECONDS - SESSION_MARGIN)
            self._sessions.move_to_end((role, placement))
            while len(self._sessions) > SESSIONS:
                self._sessions.popitem(last=False)
        return keys

    def _read(self, keys: ReadOnlyCredentials, secret: str) -> str:
        clients = self._clients()
        with clients.credentials.use(keys):
            answer = clients.secrets.get_secret_value(SecretId=secret, VersionStage="AWSCURRENT")
        return str(answer["SecretString"])

    def _clients(self) -> _Clients:
        """Making a client is not thread-safe, using one is."""
        with self._lock:
            if self._made is None:
                credentials, core = SwappedCredentials(), botocore.session.Session()
                core.register_component(
                    "credential_provider", SimpleNamespace(load_credentials=lambda: credentials)
                )
                secrets = self._session(botocore_session=core).client("secretsmanager", config=self._config)
                sts = self._session().client("sts", config=self._config)
                self._made = _Clients(sts, secrets, credentials)
            return self._made


def parse_secret(text: str, config: TenantConfig) -> Credential:
    """The login in a secret's JSON. Raises ValueError naming the field, never with a value."""
    try:
        fields = json.loads(text)
    except ValueError:
        raise ValueError("secret: expected JSON") from None
    if not isinstance(fields, dict):
        raise ValueError("secret: expected a JSON object")  # noqa: TRY004  # bad data
    for name in ("username", "password"):
        if not isinstance(fields.get(name), str) or not fields[name]:
            raise ValueError(f"secret.{name}: expected a string")
    database = config.database
    if database is None or fields.get("dbname", database.name) != database.name:
        raise ValueError("secret.dbname: it opens another database than the tenant's")
    return Credential(fields["username"], fields["password"])


def _arn(config: TenantConfig) -> str:
    if config.database is None:
        raise CredentialUnavailable(f"{config.tenant_id} has no database")
    return config.database.secret


def _describe(error: Exception) -> str:
    """What went wrong, without a word of the answer."""
    if isinstance(error, ClientError):
        return str(error.response.get("Error", {}).get("Code", "ClientError"))
    return str(error) if isinstance(error, ValueError) else type(error).__name__
