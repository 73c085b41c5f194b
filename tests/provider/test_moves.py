"""What a copy needs of the two clusters' logs: nothing, unless it follows one. Real servers and the fake."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from controlplane.domain.errors import NeedsHuman
from controlplane.domain.placement import Identity, Placement, cluster_id_for, placement_id_for, tenant_id_for
from controlplane.localcloud.fakes.aws import (
    LOGICAL_GROUP,
    FakeAccount,
    endpoint_of,
)
from controlplane.localcloud.fakes.databases import FakeDatabases
from controlplane.localcloud.fakes.moves import FakeMoves
from controlplane.localcloud.fakes.world import World
from controlplane.workers.providers.ports import Credential, Databases, Home, Moves
from tests.harness.databases import (
    LOGICAL,
    NOTES,
    MemorySecrets,
    Server,
    credential_of,
    run_server,
    write_migrations,
)
from tests.harness.move_servers import going, make_pair


@dataclass
class Subject:
    moves: Moves
    databases: Databases
    source: Home
    target: Home
    close: Callable[[], None]
    reported: list[str] = field(default_factory=list)

    def pause(self) -> None:
        self.reported.append("pause")
        self.close()

    def cut(self) -> None:
        self.reported.append("cut")

    def require_own_identity(self) -> None:
        """No copy carries what a database says of itself."""
        for home in (self.source, self.target):
            found = self.databases.observe(home.at, home.placement)
            assert found.identity == Identity(home.placement.id, home.placement.tenant_id)


@pytest.fixture(scope="module")
def default_server() -> Iterator[Server]:
    with run_server() as running:
        yield running


@pytest.fixture(scope="module")
def logical_server() -> Iterator[Server]:
    with run_server(options=LOGICAL) as running:
        yield running


def real(request: pytest.FixtureRequest, *groups: str) -> Subject:
    source, target = (request.getfixturevalue(f"{group}_server") for group in groups)
    folder: Path = request.getfixturevalue("tmp_path")
    pair = make_pair(source, target, write_migrations(folder / "m", _0001_notes=NOTES))
    request.addfinalizer(pair.end)
    with pair.writing() as conn:
        conn.execute("INSERT INTO notes (body) SELECT 'note ' || n FROM generate_series(1, 100) n")
    return Subject(pair.moves, target.provider(), pair.source, pair.target, pair.close)


def fake(request: pytest.FixtureRequest, *groups: str) -> Subject:
    world, tenant = World(), tenant_id_for("sub_1")
    request.addfinalizer(world.close)
    secrets = MemorySecrets()
    databases = FakeDatabases(world, secrets)
    homes = []
    for number, group in enumerate(groups, start=1):
        placed = Placement(
            placement_id_for(bytes([number]) * 16), tenant, cluster_id_for(bytes([number]) * 16)
        )
        at = endpoint_of(placed.cluster_id)
        secrets.values[at.master_secret_arn] = Credential("platform", "x")
        name = LOGICAL_GROUP if group == "logical" else None
        FakeAccount(world).make("cluster", placed.cluster_id, status="available", parameter_group=name)
        databases.create(at, placed, connection_limit=5)
        databases.bind(at, placed)
        homes.append(Home(at, placed))
    source, target = homes
    app = credential_of(source.placement, source.placement.app_roles[0])
    databases.set_password(source.at, app)
    for n in range(100):
        databases.write(source.at, app, f"note {n}")
    close = lambda: databases.close_logins(source.at, source.placement)  # noqa: E731
    return Subject(FakeMoves(world, databases), databases, source, target, close)


Build = Callable[..., Subject]


@pytest.fixture(params=[real, fake], ids=["real", "fake"])
def build(request: pytest.FixtureRequest) -> Build:
    make: Build = request.param
    return lambda *groups: make(request, *groups)


@pytest.mark.parametrize("target", ["default", "logical"])
def test_a_clone_needs_no_log_to_follow(build: Build, target: str) -> None:
    subject = build("default", target)
    copied = subject.moves.clone(subject.source, subject.target, going())
    assert copied.rows == 100
    assert [table.same for table in copied.compared] == [True]
    subject.require_own_identity()


def test_a_move_needs_no_log_at_its_target(build: Build) -> None:
    subject = build("logical", "default")
    subject.moves.require_followable(subject.source)
    subject.moves.begin(subject.source, subject.target, going())
    assert subject.moves.copy(subject.source, subject.target, going()).rows == 100
    handed = subject.moves.hand_over(
        subject.source, subject.target, going(), pause=subject.pause, cut=subject.cut
    )
    assert subject.reported == ["pause", "cut"]
    assert [(table.rows, table.same) for table in handed.tables] == [(100, True)]
    subject.require_own_identity()


def test_a_move_from_a_cluster_without_one_is_refused_at_once(build: Build) -> None:
    subject = build("default", "logical")
    calls: tuple[Callable[[], None], ...] = (
        lambda: subject.moves.require_followable(subject.source),
        lambda: subject.moves.begin(subject.source, subject.target, going()),
    )
    for call in calls:
        with pytest.raises(NeedsHuman, match=r"keeps no log .*rds\.logical_replication = 1") as caught:
            call()
        assert caught.value.runbook == "move"
        assert subject.source.placement.cluster_id in str(caught.value)
    seen = subject.moves.observe(subject.source, subject.target)
    assert not seen.streaming
    assert not seen.copied
