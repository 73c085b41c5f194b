"""Logins that are refused or rotated under load, and never shown."""

from __future__ import annotations

import logging
import threading
import time
import traceback

import pytest
from psycopg import sql

from controlplane.localcloud.servers.postgres import PostgresServer
from dataplane.credentials import Credential
from dataplane.errors import (
    CredentialUnavailable,
    DatabaseError,
)
from dataplane.pools import KeyedPools
from dataplane.tenant_config import Invalidation, TenantConfig
from tests.dataplane.reading import read
from tests.dataplane.tenants import Logins, TenantDatabase, create_tenant


class Rotating:
    """A vault with a version that tests rotate."""

    def __init__(self, credential: Credential) -> None:
        self.vault = credential
        self.known = credential
        self.fetched = 0

    def get(self, config: TenantConfig) -> Credential:
        return self.known

    def refresh(self, config: TenantConfig, refused: Credential) -> Credential:
        self.fetched += 1
        self.known = self.vault
        return self.known

    def forget(self, tenant_id: str) -> None:
        self.refresh(None, self.known)  # type: ignore[arg-type]


@pytest.fixture
def rotating(postgres_server: PostgresServer) -> tuple[TenantDatabase, Rotating]:
    tenant = create_tenant(postgres_server, "rotating")
    return tenant, Rotating(tenant.credential)


def change_password(tenant: TenantDatabase, password: str) -> Credential:
    with tenant.admin() as admin:
        admin.execute(
            sql.SQL("ALTER ROLE {} PASSWORD {}").format(
                sql.Identifier(tenant.credential.username), sql.Literal(password)
            )
        )
    return Credential(tenant.credential.username, password)


def with_credentials(logins: Logins, credentials: Rotating) -> KeyedPools:
    connector = logins.connector()
    connector.credentials = credentials
    return KeyedPools(connector)


def test_a_refused_login_is_fetched_anew_once(
    rotating: tuple[TenantDatabase, Rotating], logins: Logins
) -> None:
    tenant, credentials = rotating
    pools = with_credentials(logins, credentials)
    credentials.vault = change_password(tenant, "new")
    assert read(pools, tenant.config())[0] == tenant.name
    assert credentials.fetched == 1
    pools.close()


def test_a_login_that_stays_refused_is_an_answer(
    rotating: tuple[TenantDatabase, Rotating], logins: Logins
) -> None:
    tenant, credentials = rotating
    pools = with_credentials(logins, credentials)
    change_password(tenant, "known to nobody")
    with pytest.raises(CredentialUnavailable, match="the login was refused"):
        read(pools, tenant.config())
    assert credentials.fetched == 1
    with tenant.admin() as admin:
        admin.execute(sql.SQL("ALTER ROLE {} NOLOGIN").format(sql.Identifier(tenant.credential.username)))
    time.sleep(0.6)
    with pytest.raises(CredentialUnavailable):
        read(pools, tenant.config())
    assert credentials.fetched == 2
    pools.close()


def test_a_rotation_under_load_fails_no_request(
    rotating: tuple[TenantDatabase, Rotating], logins: Logins
) -> None:
    """Two logins: the next is made, the invalidation goes out, the old one is closed."""
    tenant, credentials = rotating
    pools = with_credentials(logins, credentials)
    failures: list[BaseException] = []
    stop = threading.Event()

    def load() -> None:
        while not stop.is_set():
            try:
                read(pools, tenant.config())
            except BaseException as error:  # raised in the test's own thread
                failures.append(error)

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    names = {"a": tenant.credential.username, "b": tenant.credential.username[:-1] + "b"}
    with tenant.admin() as admin:
        grant = "GRANT {a} TO {b}; ALTER ROLE {b} INHERIT; GRANT CONNECT ON DATABASE {d} TO {b}"
        admin.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'b'").format(sql.Identifier(names["b"])))
        admin.execute(
            sql.SQL(grant).format(
                a=sql.Identifier(names["a"]), b=sql.Identifier(names["b"]), d=sql.Identifier(tenant.name)
            )
        )
        admin.execute(
            sql.SQL("ALTER ROLE {} IN DATABASE {} SET search_path = app").format(
                sql.Identifier(names["b"]), sql.Identifier(tenant.name)
            )
        )
        time.sleep(0.2)
        credentials.vault = Credential(names["b"], "b")
        pools.invalidated(Invalidation("credential", "", 0, tenant.tenant_id))
        time.sleep(0.3)
        old = "SELECT count(*) FROM pg_stat_activity WHERE usename = %s"
        assert admin.execute(old, [names["a"]]).fetchone() == (0,), "nobody uses the old one any more"
        admin.execute(sql.SQL("ALTER ROLE {} NOLOGIN").format(sql.Identifier(names["a"])))
        time.sleep(0.2)
    stop.set()
    for thread in threads:
        thread.join(10)
    assert not failures
    pools.close()


def test_no_error_of_a_connect_carries_the_password(
    rotating: tuple[TenantDatabase, Rotating], logins: Logins, caplog: pytest.LogCaptureFixture
) -> None:
    """I9. psycopg's own exception does, in `pgconn` and in the locals of its frames."""
    caplog.set_level(logging.DEBUG)
    tenant, credentials = rotating
    credentials.vault = credentials.known = Credential(tenant.credential.username, "canary-of-a-password")
    pools = with_credentials(logins, credentials)
    with pytest.raises(DatabaseError) as caught:
        read(pools, tenant.config())
    error: BaseException | None = caught.value
    while error is not None:
        shown = traceback.TracebackException.from_exception(error, capture_locals=True)
        assert "canary-of-a-password" not in "".join(shown.format())
        assert "canary-of-a-password" not in repr(vars(error))
        error = error.__cause__ or error.__context__
    assert "canary-of-a-password" not in caplog.text
    assert "canary-of-a-password" not in repr(credentials.vault)
