"""Tenants as the control plane leaves them: a hardened database, a login in Secrets Manager, a signed
routing entry for each host. Made by hand here, so that the data plane is tested by itself."""

from __future__ import annotations

import json
import secrets
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import psycopg
import redis
from psycopg import sql

from controlplane.localcloud.servers.postgres import PostgresServer
from controlplane.localcloud.servers.valkey import ValkeyServer
from dataplane.tenant_config import (
    INVALIDATION_CHANNEL,
    DatabaseAddress,
    Status,
    TenantConfig,
    cache_key,
    issued,
    sign,
)
from tests.harness.access import cluster_role, placement_of, tenant_secret

KEY_ID, KEY = "k1", b"browser tests' key, 32 bytes long"
MIGRATIONS = Path(__file__).parents[2] / "examples" / "notes" / "migrations"
# A name that resolves nowhere: only the endpoint map leads to the server.
DATABASE_HOST = "c-browsertests.cluster.internal.invalid"
DATABASE_PORT = 5432
CLUSTER = "c-browsertests"


@dataclass
class Tenant:
    """`logins`: the two that a rotation changes between, the one in use first."""

    tenant_id: str
    slug: str
    hosts: tuple[str, ...]
    notes: tuple[str, ...]
    secret_arn: str = ""
    logins: list[str] = field(default_factory=list)

    @property
    def database(self) -> str:
        return self.placement.replace("-", "_")

    @property
    def placement(self) -> str:
        return placement_of(self.tenant_id)

    @property
    def host(self) -> str:
        return self.hosts[0]


class Platform:
    """Makes and changes tenants. `epoch` rises with each publication, over all tenants."""

    def __init__(self, postgres: PostgresServer, cache: ValkeyServer) -> None:
        self.postgres = postgres
        self.cache = cache
        self.epoch = 0
        self._secrets = boto3.client("secretsmanager")
        self._role = cluster_role(CLUSTER)
        self._passwords: dict[str, str] = {}

    def create(self, tenant: Tenant) -> None:
        """Database, identity, schema and notes; the login; an active entry for each host."""
        tenant.logins = [f"{tenant.database}_app_a", f"{tenant.database}_app_b"]
        passwords = {login: secrets.token_urlsafe(24) for login in tenant.logins}
        owner = f"{tenant.database}_owner"
        with psycopg.connect(self.postgres.url(), autocommit=True) as master:
            _run(master, "CREATE ROLE {} NOLOGIN", owner)
            for login, password in passwords.items():
                role = sql.SQL("CREATE ROLE {} LOGIN NOINHERIT CONNECTION LIMIT 20 PASSWORD {}")
                master.execute(role.format(sql.Identifier(login), sql.Literal(password)))
            _run(master, "CREATE DATABASE {} TEMPLATE template0 OWNER {}", tenant.database, owner)
            _run(master, "REVOKE ALL ON DATABASE {} FROM PUBLIC", tenant.database)
            for login in tenant.logins:
                _run(master, "GRANT CONNECT ON DATABASE {} TO {}", tenant.database, login)
                statement = "ALTER ROLE {} IN DATABASE {} SET search_path = app, pg_temp"
                _run(master, statement, login, tenant.database)
        with psycopg.connect(self.postgres.url(tenant.database)) as inside:
            inside.execute("DROP SCHEMA public")
            for schema in ("app", "platform"):
                _run(inside, "CREATE SCHEMA {} AUTHORIZATION {}", schema, owner)
                _run(inside, "GRANT USAGE ON SCHEMA {} TO {}, {}", schema, *tenant.logins)
            _run(inside, "SET ROLE {}", owner)
            rights = "GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {}, {}"
            _run(inside, f"ALTER DEFAULT PRIVILEGES IN SCHEMA app {rights}", *tenant.logins)
            inside.execute("CREATE TABLE platform.identity (placement text NOT NULL, tenant text)")
            identity = [tenant.placement, tenant.tenant_id]
            inside.execute("INSERT INTO platform.identity VALUES (%s, %s)", identity)
            _run(inside, "GRANT SELECT ON platform.identity TO {}, {}", *tenant.logins)
            inside.execute("SET search_path = app")
            for migration in sorted(MIGRATIONS.glob("*.sql")):
                inside.execute(migration.read_bytes())
            for body in tenant.notes:
                inside.execute("INSERT INTO note (body) VALUES (%s)", [body])
        value = self._secret_value(tenant.logins[0], passwords[tenant.logins[0]], tenant)
        tenant.secret_arn = tenant_secret(tenant.tenant_id, CLUSTER, value)
        self._passwords |= passwords
        for host in tenant.hosts:
            self.publish(self.config(tenant, host))

    def config(self, tenant: Tenant, host: str, **changes: Any) -> dict[str, Any]:
        """The payload of the next entry for `host`: active, with the tenant's own database."""
        self.epoch += 1
        address = DatabaseAddress(
            DATABASE_HOST, DATABASE_PORT, tenant.database, tenant.secret_arn, self._role
        )
        config = TenantConfig(
            host=host,
            tenant_id=tenant.tenant_id,
            slug=tenant.slug,
            status=Status.ACTIVE,
            epoch=self.epoch,
            plan="team",
            pool_size=2,
            dedicated=False,
            release="0002",
            placement=tenant.placement,
            database=address,
            profile={"plan_name": "Team"},
        )
        return {**config.to_payload(), **changes}

    def publish(self, payload: dict[str, Any]) -> str:
        """Store the signed entry and say that it changed; the entry."""
        entry = sign(issued(payload, at=time.time()), key_id=KEY_ID, key=KEY)
        with redis.Redis.from_url(self.cache.url) as client:
            client.set(cache_key(payload["host"]), entry)
        self._invalidation(
            kind="config", host=payload["host"], epoch=payload["epoch"], tenant_id=payload["tenant_id"]
        )
        return entry

    def entry(self, host: str) -> str:
        with redis.Redis.from_url(self.cache.url, decode_responses=True) as client:
            return str(client.get(cache_key(host)))

    def rotate(self, tenant: Tenant) -> None:
        """To the other login; end the first one, with the sessions it still has, when those that were
        in use have had five seconds to come to their end."""
        retired, successor = tenant.logins
        with psycopg.connect(self.postgres.url(), autocommit=True) as master:
            _run(master, "ALTER ROLE {} LOGIN", successor)
        value = self._secret_value(successor, self._passwords[successor], tenant)
        self._secrets.put_secret_value(SecretId=tenant.secret_arn, SecretString=value)
        self._invalidation(kind="credential", host="", epoch=0, tenant_id=tenant.tenant_id)
        until = time.monotonic() + 5
        while self._has_sessions(retired) and time.monotonic() < until:
            time.sleep(0.02)
        self._end_login(retired)
        tenant.logins.reverse()

    def change_password(self, tenant: Tenant) -> None:
        """As somebody would who knows of no invalidations: new password, sessions ended."""
        login, password = tenant.logins[0], secrets.token_urlsafe(24)
        self._passwords[login] = password
        with psycopg.connect(self.postgres.url(), autocommit=True) as master:
            statement = sql.SQL("ALTER ROLE {} PASSWORD {}")
            master.execute(statement.format(sql.Identifier(login), sql.Literal(password)))
        value = self._secret_value(login, password, tenant)
        self._secrets.put_secret_value(SecretId=tenant.secret_arn, SecretString=value)
        self._end_sessions(login)

    def mark(self, tenant: Tenant, tenant_id: str | None) -> None:
        """Make the tenant's database say that it is another tenant's, or nobody's yet."""
        with psycopg.connect(self.postgres.url(tenant.database)) as inside:
            inside.execute("UPDATE platform.identity SET tenant = %s", [tenant_id])

    def forget(self, tenant: Tenant) -> None:
        """Make the tenant's database say nothing of itself."""
        with psycopg.connect(self.postgres.url(tenant.database)) as inside:
            inside.execute("DELETE FROM platform.identity")

    def login(self, tenant: Tenant) -> dict[str, str]:
        return {"username": tenant.logins[0], "password": self._passwords[tenant.logins[0]]}

    def connections(self) -> int:
        """Sessions of the data plane that the server has at this moment."""
        with psycopg.connect(self.postgres.url(), autocommit=True) as master:
            query = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'nextjs %'"
            row = master.execute(query).fetchone()
        assert row is not None
        return int(row[0])

    def _end_login(self, login: str) -> None:
        with psycopg.connect(self.postgres.url(), autocommit=True) as master:
            _run(master, "ALTER ROLE {} NOLOGIN", login)
        self._end_sessions(login)

    def _has_sessions(self, login: str) -> bool:
        with psycopg.connect(self.postgres.url(), autocommit=True) as master:
            found = master.execute("SELECT 1 FROM pg_stat_activity WHERE usename = %s", [login]).fetchone()
        return found is not None

    def _end_sessions(self, login: str) -> None:
        with psycopg.connect(self.postgres.url(), autocommit=True) as master:
            master.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", [login]
            )

    def _invalidation(self, **fields: object) -> None:
        with redis.Redis.from_url(self.cache.url) as client:
            client.publish(INVALIDATION_CHANNEL, json.dumps(fields))

    @staticmethod
    def _secret_value(login: str, password: str, tenant: Tenant) -> str:
        place = {"host": DATABASE_HOST, "port": DATABASE_PORT, "dbname": tenant.database}
        return json.dumps({"username": login, "password": password, **place})


def _run(connection: psycopg.Connection[Any], statement: str, *names: str) -> None:
    connection.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))
