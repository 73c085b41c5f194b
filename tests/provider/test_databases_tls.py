"""The worker's sessions over TLS: a server that can't be verified is a person's case, and never used."""

from __future__ import annotations

import pytest

from controlplane.domain.errors import NeedsHuman
from controlplane.workers.providers.databases import PostgresDatabases
from controlplane.workers.providers.endpoint_map import EndpointMap
from controlplane.workers.providers.ports import ClusterEndpoint, Credential
from tests.harness.databases import MASTER_ARN, MemorySecrets
from tests.tls import PORT, RIGHT, WRONG, TlsServer


@pytest.fixture(scope="module")
def secrets(tls_server: TlsServer) -> MemorySecrets:
    tls_server.postgres.create_role("platform", "canary-master")
    return MemorySecrets({MASTER_ARN: Credential("platform", "canary-master")})


def names(tls_server: TlsServer, secrets: MemorySecrets, host: str, sslmode: str, root: str) -> list[str]:
    databases = PostgresDatabases(
        secrets,
        EndpointMap(tls_server.endpoint_map),
        sslmode=sslmode,
        sslrootcert=getattr(tls_server, root),
    )
    return databases.names(ClusterEndpoint(host, PORT, MASTER_ARN, "cluster-RESOURCE"))


@pytest.mark.parametrize(
    ("host", "sslmode"), [(RIGHT, "verify-full"), (RIGHT, "verify-ca"), (WRONG, "verify-ca")]
)
def test_a_server_that_the_authorities_vouch_for_is_used(
    tls_server: TlsServer, secrets: MemorySecrets, host: str, sslmode: str
) -> None:
    assert "postgres" in names(tls_server, secrets, host, sslmode, "authorities")


@pytest.mark.parametrize(
    ("host", "sslmode", "root", "why"),
    [
        (WRONG, "verify-full", "authorities", f'does not match host name "{WRONG}"'),
        (RIGHT, "verify-full", "strangers", "certificate verify failed"),
        (RIGHT, "verify-ca", "strangers", "certificate verify failed"),
        (RIGHT, "require", "strangers", "certificate verify failed"),
    ],
)
def test_any_other_server_is_refused(
    tls_server: TlsServer, secrets: MemorySecrets, host: str, sslmode: str, root: str, why: str
) -> None:
    with pytest.raises(NeedsHuman, match=why):
        names(tls_server, secrets, host, sslmode, root)
