"""A tenant is promoted while its application writes, by everything that ships but Terraform and AWS."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from controlplane.actions.action import run
from controlplane.domain.placement import Placement
from controlplane.domain.transfer import TransferPhase
from controlplane.localcloud.servers.valkey import ValkeyServer
from controlplane.store import transfer
from controlplane.store.registry import Registry
from tests.harness.databases import (
    LOGICAL,
    Server,
    run_server,
)
from tests.harness.engine import Harness
from tests.harness.moves import (
    Journal,
    audit,
    moving_harness,
)


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[Server, Server]]:
    with run_server(options=LOGICAL) as first, run_server() as second:
        yield first, second


def bodies(server: Server, placed: Placement) -> list[str]:
    with server.superuser(placed.database) as conn:
        return [body for (body,) in conn.execute("SELECT body FROM app.note").fetchall()]


def ask(harness: Harness, placed: Placement) -> None:
    with harness.ctx.registry.connection() as conn:
        run(conn, "move", placed.tenant_id, to="dedicated", actor="support", reason="it grows")


@pytest.mark.parametrize("check_between", [0, 2**30], ids=["compared after", "compared before"])
def test_a_tenant_is_promoted_under_writes(
    registry: Registry,
    database_url: str,
    cache: ValkeyServer,
    servers: tuple[Server, Server],
    tmp_path: Path,
    check_between: int,
) -> None:
    with moving_harness(database_url, cache.url, servers, tmp_path, check_between=check_between) as (
        harness,
        dataplane,
    ):
        before = harness.placement("sub_00000001")
        with Journal(dataplane, rate=100) as journal:
            time.sleep(0.5)
            ask(harness, before)
            harness.work()
            time.sleep(0.5)
            written = len(journal.confirmed)
            deadline = time.monotonic() + 60
            while len(journal.confirmed) == written and time.monotonic() < deadline:
                time.sleep(0.05)
        after = harness.placement("sub_00000001")
        there = bodies(servers[1], after)
        lost, wrong = audit(journal, there)
        assert (lost, wrong) == ([], [])
        assert len(journal.confirmed) > written
        with harness.ctx.registry.connection() as conn:
            found = transfer.latest(conn, before.tenant_id)
        assert found is not None
        assert (found.phase, found.differing) == (TransferPhase.REVERSIBLE, [])
        assert found.checked == ("after" if check_between == 0 else "before")
        assert found.pause_seconds is not None
        print(
            f"\n{len(journal.confirmed)} writes, no write for {found.pause_seconds:.3f} s by the registry,"
            f" {journal.longest_gap:.3f} s by the writers; {dict(journal.errors)}"
        )
        with servers[0].superuser() as conn:
            assert conn.execute("SELECT slot_name FROM pg_replication_slots").fetchall() == []
        with harness.ctx.registry.connection() as conn:
            run(conn, "confirm-transfer", before.tenant_id, actor="support", reason="looks good")
        harness.work()
        with servers[0].superuser() as conn:
            left = conn.execute(
                "SELECT datname FROM pg_database WHERE datname = %s", [before.database]
            ).fetchall()
        assert left == []
