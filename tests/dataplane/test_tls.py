"""Databases over TLS: the name and the authority are verified, as RDS's have to be."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
import redis
from werkzeug.test import Client

from controlplane.localcloud.servers.valkey import ValkeyServer
from dataplane.context import tenant_connection
from dataplane.credentials import StaticCredentials
from dataplane.settings import from_environment
from tests.dataplane.tenants import KEYS, TenantDatabase, create_tenant
from tests.tls import PORT, RIGHT, WRONG, TlsServer


@pytest.fixture(scope="module")
def tenant(tls_server: TlsServer) -> TenantDatabase:
    return create_tenant(tls_server.postgres, "encrypted")


def is_encrypted(_: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    with tenant_connection() as conn:
        row = conn.execute("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()").fetchone()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(row and row[0]).encode()]


@pytest.mark.parametrize(
    ("host", "sslmode", "authorities", "answer"),
    [
        (RIGHT, "verify-full", "authorities", "True"),
        (WRONG, "verify-full", "authorities", None),
        (RIGHT, "verify-full", "strangers", None),
        (WRONG, "verify-ca", "authorities", "True"),
        (RIGHT, "verify-ca", "strangers", None),
        (RIGHT, "require", "", "True"),
        (RIGHT, "require", "strangers", None),
        (RIGHT, "prefer", "", "True"),
        (RIGHT, "allow", "", "False"),
        (RIGHT, "disable", "", "False"),
    ],
)
def test_a_visitor_is_served_over_the_connection_that_the_setting_asks_for(
    tls_server: TlsServer,
    cache: ValkeyServer,
    cache_client: redis.Redis,
    tenant: TenantDatabase,
    host: str,
    sslmode: str,
    authorities: str,
    answer: str | None,
) -> None:
    address = tenant.config().database
    assert address is not None
    cache_client.set(*tenant.entry(database=replace(address, host=host, port=PORT)))
    dataplane = from_environment(
        {
            "DATAPLANE_CONFIG_KEYS": "k1:" + base64.b64encode(KEYS["k1"]).decode(),
            "DATAPLANE_CACHE_URL": cache.url,
            "DATAPLANE_ENDPOINT_MAP": str(tls_server.endpoint_map),
            "DATAPLANE_SSLMODE": sslmode,
            "DATAPLANE_SSLROOTCERT": str(getattr(tls_server, authorities)) if authorities else "",
        },
        credentials=StaticCredentials({tenant.tenant_id: tenant.credential}),
    )
    try:
        got = Client(dataplane.wsgi(is_encrypted)).get("/", headers={"Host": tenant.host}, buffered=True)
    finally:
        dataplane.close()
    assert (got.status_code, got.text) == (200, answer) if answer else got.status_code == 503
