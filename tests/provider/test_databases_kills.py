"""Nothing leaves a tenant's database undone: no kill, at whatever line of the recipe, and no race."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from controlplane.domain.placement import Placement
from tests.harness.databases import (
    Server,
    new_placement,
    server,
)

__all__ = ["server"]  # a fixture


class KilledError(BaseException):
    """Stands for the end of the process: nothing in the product catches it."""


class Fuse:
    """Cuts the connection after so many statements (BEGIN, COMMIT and all)."""

    def __init__(self, statements: int) -> None:
        self.left = statements

    def connection_class(self) -> type[psycopg.Connection[Any]]:
        fuse = self

        class Fused(psycopg.Connection[Any]):
            def wait(self, *args: Any, **options: Any) -> Any:
                if fuse.left <= 0:
                    self.pgconn.finish()
                    raise KilledError
                fuse.left -= 1
                return super().wait(*args, **options)

        return Fused


def kill_after(server: Server, placement: Placement, statements: int) -> bool:
    """Create until the fuse blows; False where it was long enough."""
    fuse = Fuse(statements)
    try:
        server.provider(connection_class=fuse.connection_class()).create(
            server.at, placement, connection_limit=4
        )
    except KilledError:
        return True
    return False


@contextmanager
def quiet_rollbacks(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with caplog.at_level("ERROR", logger="psycopg"):
        yield


def test_killed_after_any_statement_it_converges(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """Every one on the newest server; on the oldest, whose statements are the same, every third."""
    databases = server.provider()
    with server.superuser() as conn:
        step = 1 if conn.info.server_version >= 160000 else 3
    with quiet_rollbacks(caplog):
        for statements in range(1, 200, step):
            placement = new_placement()
            killed = kill_after(server, placement, statements)
            if not killed:
                break
            seen = databases.observe(server.at, placement)
            with server.superuser() as conn:
                doors = conn.execute(
                    "SELECT bool_or(has_database_privilege(r.rolname, d.oid, 'CONNECT')) "
                    "FROM pg_roles AS r, pg_database AS d WHERE r.rolname = ANY(%s) AND d.datname = %s "
                    "AND d.datallowconn",
                    ([placement.migrator_role, *placement.app_roles], placement.database),
                ).fetchone()
            assert not (doors and doors[0]) or seen.hardened, f"open before it was hardened, at {statements}"
            databases.create(server.at, placement, connection_limit=4)
            assert databases.observe(server.at, placement).hardened, f"after a kill at {statements}"
    assert statements > 40, "create sends more than 40 statements"


def test_killed_again_and_again_it_converges(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    placement = new_placement()
    with quiet_rollbacks(caplog):
        tries = next(n for n in range(5, 200) if not kill_after(server, placement, n))
    assert tries > 5
    assert server.provider().observe(server.at, placement).hardened


def test_several_at_once_make_one(server: Server) -> None:
    placement = new_placement()

    def create(_: int) -> None:
        server.provider().create(server.at, placement, connection_limit=4)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(create, range(4)))
    assert server.provider().observe(server.at, placement).hardened


def test_different_tenants_at_once(server: Server) -> None:
    placements = [new_placement() for _ in range(6)]

    def create(placement: Placement) -> bool:
        databases = server.provider()
        databases.create(server.at, placement, connection_limit=4)
        return databases.observe(server.at, placement).hardened

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(create, placements))
