"""Logins of tenant databases, from wherever they are kept, for as long as they work.

A login is fetched once and then used until the database refuses it or an invalidation says that it was
rotated; so requests do not depend on AWS being there. Where a rotated one can't be fetched the old
one goes on being used: rotation leaves it valid until the new one is in use.
"""

from __future__ import annotations

import json
import logging
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from dataplane.errors import CredentialUnavailable, CrossTenantDetected
from dataplane.tenant_config import TenantConfig

log = logging.getLogger(__name__)

_SECRET = re.compile(r":secret:tenants/(?P<tenant>t-[a-z2-7]+)/(?P<number>[1-9][0-9]*)/")


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


class SecretsManagerCredentials:
    """Logins kept in AWS Secrets Manager as `{"username", "password", "host", "port", "dbname"}`.

    `role`: ARN with `{placement}` in it, e.g. `arn:aws:iam::123456789012:role/{placement}`; each
    secret is then read as the tenant's own role, which may read no other, so a mixed-up ARN is
    refused by AWS as well. None: the process's own identity reads them. At most one request a
    tenant is under way, and after one nobody asks again for `pause` seconds.
    """

    def __init__(
        self,
        *,
        role: str | None = None,
        session: Callable[[], Any] = boto3.session.Session,
        timeout: float = 3.0,
        pause: float = 1.0,
        capacity: int = 50_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if role is not None and "{placement}" not in role:
            raise ValueError(f"role: expected an ARN with {{placement}} in it, got {role!r}")
        self._role = role
        self._session = session
        self._pause = pause
        self._capacity = capacity
        self._clock = clock
        self._config = Config(
            connect_timeout=timeout,
            read_timeout=timeout,
            retries={"total_max_attempts": 2, "mode": "standard"},
        )
        self._lock = threading.Lock()
        self._kept: dict[str, _Kept] = {}
        self._clients: dict[str, Any] = {}

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
                    raise CredentialUnavailable(str(kept.failure), retry_after=self._pause)
            kept.asked_at = self._clock()
            problem = None
            try:
                credential = self._fetch(config)
            except (BotoCoreError, ClientError, ValueError) as error:
                problem = f"{config.tenant_id}: {_describe(error)}"
            if problem is not None:
                log.error("credentials: %s", problem)
                kept.failure = CredentialUnavailable(problem, retry_after=self._pause)
                if known is not None:
                    return known
                raise CredentialUnavailable(problem, retry_after=self._pause)
            kept.credential, kept.stale, kept.failure = credential, False, None
            return credential

    def _fetch(self, config: TenantConfig) -> Credential:
        answer = self._client(config).get_secret_value(SecretId=_arn(config), VersionStage="AWSCURRENT")
        return parse_secret(answer["SecretString"], config)

    def _client(self, config: TenantConfig) -> Any:
        if self._role is None:
            return self._shared_client("secretsmanager")
        role = self._role.format(placement=placement_of(config))
        granted = self._shared_client("sts").assume_role(
            RoleArn=role,
            RoleSessionName="dataplane",
            ExternalId=config.tenant_id,  # which the role's trust policy asks for
        )
        keys = granted["Credentials"]
        with self._lock:  # making a client is not thread-safe, using one is
            return self._session().client(
                "secretsmanager",
                config=self._config,
                aws_access_key_id=keys["AccessKeyId"],
                aws_secret_access_key=keys["SecretAccessKey"],
                aws_session_token=keys["SessionToken"],
            )

    def _shared_client(self, service: str) -> Any:
        with self._lock:
            if service not in self._clients:
                self._clients[service] = self._session().client(service, config=self._config)
            return self._clients[service]


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


def placement_of(config: TenantConfig) -> str:
    """`<tenant id>-<number>` from the secret's name `tenants/<tenant id>/<number>/…`. Raises
    CrossTenantDetected where the secret is another tenant's."""
    match = _SECRET.search(_arn(config))
    if match is None:
        raise ValueError("database.secret: expected an ARN of tenants/<tenant id>/<number>/…")
    if match["tenant"] != config.tenant_id:
        raise CrossTenantDetected(f"the secret of {config.tenant_id} is {match['tenant']}'s")
    return f"{match['tenant']}-{match['number']}"


def _arn(config: TenantConfig) -> str:
    if config.database is None:
        raise CredentialUnavailable(f"{config.tenant_id} has no database")
    return config.database.secret


def _describe(error: Exception) -> str:
    """What went wrong, without a word of the answer."""
    if isinstance(error, ClientError):
        return str(error.response.get("Error", {}).get("Code", "ClientError"))
    return str(error) if isinstance(error, ValueError) else type(error).__name__
