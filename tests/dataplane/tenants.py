"""Tenant databases for the data plane's tests: the hardened shape that the control plane makes, in short.

A database of its own for each, an owner that can't log in, an application login with a password of
its own, nothing for PUBLIC, `platform.identity` (without its triggers, so that a test can change it), and a
canary row that must never be read by anybody else.
"""

from __future__ import annotations

import base64
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

import examples.notes
from controlplane.localcloud.servers.postgres import PostgresServer
from dataplane.connect import Connector, Transport
from dataplane.credentials import Credential, StaticCredentials
from dataplane.endpoints import EndpointMap
from dataplane.tenant_config import DatabaseAddress, Status, TenantConfig, cache_key, sign
from tests.harness.access import placement_of

KEYS = {"k1": b"test" * 8}
MIGRATIONS = Path(examples.notes.__file__).parent / "migrations"
ZONE = "tenants.example.com"
ROLE = "arn:aws:iam::123456789012:role/c-abcdefghijkl"


@dataclass
class TenantDatabase:
    tenant_id: str
    slug: str
    name: str
    credential: Credential
    server: PostgresServer
    port: int | None = None  # another one than the server's, e.g. of a proxy in front

    @property
    def host(self) -> str:
        return f"{self.slug}.{ZONE}"

    @property
    def canary(self) -> str:
        return f"canary of {self.tenant_id}"

    def config(self, **changes: Any) -> TenantConfig:
        fields: dict[str, Any] = {
            "host": self.host,
            "tenant_id": self.tenant_id,
            "slug": self.slug,
            "status": Status.ACTIVE,
            "epoch": 1,
            "plan": "test",
            "pool_size": 5,
            "dedicated": False,
            "release": "0002",
            "placement": placement_of(self.tenant_id),
            "database": DatabaseAddress(
                "127.0.0.1",
                self.port or self.server.port,
                self.name,
                "arn:aws:secretsmanager:eu-central-1:123456789012:secret:"
                f"placements/{placement_of(self.tenant_id)}/app-AbCdEf",
                ROLE,
            ),
            "profile": {},
        }
        return TenantConfig(**(fields | changes))

    def entry(self, **changes: Any) -> tuple[str, str]:
        """(Redis key, signed entry)"""
        config = self.config(**changes)
        return cache_key(config.host), sign(config.to_payload(), key_id="k1", key=KEYS["k1"])

    def admin(self, database: str | None = None) -> psycopg.Connection[Any]:
        return psycopg.connect(self.server.url(database or self.name), autocommit=True)


def new_tenant_id() -> str:
    return "t-" + base64.b32encode(secrets.token_bytes(8)).decode().lower()[:12]


def create_tenant(server: PostgresServer, slug: str) -> TenantDatabase:
    tenant_id = new_tenant_id()
    name = tenant_id.replace("-", "_") + "_1"
    owner, app = sql.Identifier(name + "_owner"), sql.Identifier(name + "_app_a")
    database, password = sql.Identifier(name), secrets.token_urlsafe(24)
    with psycopg.connect(server.url(), autocommit=True) as conn:
        for statement in (
            "CREATE ROLE {owner} NOLOGIN",
            "CREATE ROLE {app} LOGIN NOINHERIT PASSWORD {password}",
            "CREATE DATABASE {database} TEMPLATE template0 OWNER {owner} ALLOW_CONNECTIONS false",
            "REVOKE ALL ON DATABASE {database} FROM PUBLIC",
            "GRANT CONNECT ON DATABASE {database} TO {app}",
            "ALTER DATABASE {database} ALLOW_CONNECTIONS true",
            "ALTER ROLE {app} IN DATABASE {database} SET search_path = app, pg_temp",
        ):
            conn.execute(
                sql.SQL(statement).format(
                    owner=owner, app=app, database=database, password=sql.Literal(password)
                )
            )
    tenant = TenantDatabase(tenant_id, slug, name, Credential(name + "_app_a", password), server)
    with tenant.admin() as conn:
        for statement in (
            "DROP SCHEMA public",
            "CREATE SCHEMA app AUTHORIZATION {owner}",
            "GRANT USAGE ON SCHEMA app TO {app}",
            "ALTER DEFAULT PRIVILEGES FOR ROLE {owner} IN SCHEMA app "
            "GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {app}",
            "ALTER DEFAULT PRIVILEGES FOR ROLE {owner} IN SCHEMA app "
            "GRANT USAGE, SELECT ON SEQUENCES TO {app}",
            "CREATE SCHEMA platform",
            "CREATE TABLE platform.identity (placement text NOT NULL, tenant text)",
            "INSERT INTO platform.identity VALUES ({placement}, {tenant_id})",
            "GRANT USAGE ON SCHEMA platform TO {app}",
            "GRANT SELECT ON platform.identity TO {app}",
            "SET ROLE {owner}",
            "SET search_path = app",
        ):
            conn.execute(
                sql.SQL(statement).format(
                    owner=owner,
                    app=app,
                    placement=sql.Literal(placement_of(tenant_id)),
                    tenant_id=sql.Literal(tenant_id),
                )
            )
        for migration in sorted(MIGRATIONS.glob("*.sql")):
            conn.execute(migration.read_bytes())
        conn.execute("INSERT INTO note (body) VALUES (%s)", (tenant.canary,))
    return tenant


@dataclass
class Logins:
    """A StaticCredentials that tests can add to, and a connector that uses it."""

    logins: dict[str, Credential] = field(default_factory=dict)

    def add(self, *tenants: TenantDatabase) -> None:
        for tenant in tenants:
            self.logins[tenant.tenant_id] = tenant.credential

    def connector(self, *, endpoints: EndpointMap | None = None, **transport: Any) -> Connector:
        return Connector(
            StaticCredentials(self.logins), Transport(sslmode="prefer", endpoints=endpoints, **transport)
        )
