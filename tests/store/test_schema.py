"""The registry's schema: upgraded once, alone and in order, by the rules that tenants' migrations have."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Iterator

import psycopg
import pytest
from psycopg.rows import dict_row

from controlplane.domain.billing import EventState
from controlplane.domain.contract import ContractOutcome, Standing
from controlplane.domain.data_copy import CopyKind, CopyState
from controlplane.domain.errors import Refused
from controlplane.domain.hold import HoldKind
from controlplane.domain.job import JobKind, Lane, OperationState, PreviewState
from controlplane.domain.notification import NotificationState
from controlplane.domain.placement import PlacementState
from controlplane.domain.purge import PurgeState
from controlplane.domain.release import Adapter
from controlplane.domain.rollout import MemberState, RehearsalState, RolloutState, SnapshotState
from controlplane.domain.state import State
from controlplane.domain.steps import StepState
from controlplane.domain.transfer import TransferKind, TransferPhase
from controlplane.store import job, operation, schema_version
from controlplane.store.registry import Connection, Registry, one
from controlplane.store.report import About
from tests import registry_lint

FIRST = ("0001_a.sql", "CREATE TABLE a (id bigint PRIMARY KEY);\nCREATE TABLE b ()")
SECOND = ("0002_b.sql", "ALTER TABLE a ADD COLUMN n int")
INDEX = ("0003_i.sql", "-- no-transaction\nCREATE INDEX CONCURRENTLY IF NOT EXISTS a_n ON a (n)")


@pytest.fixture
def conn(empty_database_url: str) -> Iterator[Connection]:
    with psycopg.connect(empty_database_url, autocommit=True, row_factory=dict_row) as opened:
        yield opened


@pytest.fixture
def release(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """The schema's files as this release has them."""
    files: list[tuple[str, str]] = []
    monkeypatch.setattr(schema_version, "migrations", lambda: list(files))
    return files


def test_what_is_new_is_applied_once(conn: Connection, release: list[tuple[str, str]]) -> None:
    release[:] = [FIRST]
    assert not schema_version.is_current(conn)
    assert schema_version.upgrade(conn) == ["0001_a.sql"]
    release.append(SECOND)
    assert not schema_version.is_current(conn)
    assert schema_version.upgrade(conn) == ["0002_b.sql"]
    assert schema_version.upgrade(conn) == []
    assert schema_version.is_current(conn)


def test_a_file_that_fails_leaves_nothing_and_those_before_it_stay(
    conn: Connection, release: list[tuple[str, str]]
) -> None:
    release[:] = [FIRST, ("0002_b.sql", "ALTER TABLE a ADD COLUMN n int; SELECT nowhere")]
    with pytest.raises(psycopg.errors.UndefinedColumn):
        schema_version.upgrade(conn)
    assert conn.execute("SELECT * FROM a").description[-1].name == "id"  # type: ignore[index]
    release[1] = SECOND
    assert schema_version.upgrade(conn) == ["0002_b.sql"]


def test_a_file_that_was_changed_is_refused(conn: Connection, release: list[tuple[str, str]]) -> None:
    release[:] = [FIRST]
    schema_version.upgrade(conn)
    release[:] = [(FIRST[0], FIRST[1] + ";"), SECOND]
    with pytest.raises(Refused, match=r"0001_a\.sql was changed"):
        schema_version.upgrade(conn)


def test_a_registry_that_is_ahead_is_left_alone(conn: Connection, release: list[tuple[str, str]]) -> None:
    """Workers of two releases share it in a deploy, and a deploy may be taken back."""
    release[:] = [FIRST, SECOND]
    schema_version.upgrade(conn)
    release[:] = [FIRST]
    assert schema_version.is_current(conn)
    assert schema_version.upgrade(conn) == []


def test_a_registry_of_another_history_is_refused(conn: Connection, release: list[tuple[str, str]]) -> None:
    release[:] = [FIRST, ("0002_other.sql", "CREATE TABLE other ()")]
    schema_version.upgrade(conn)
    release[:] = [FIRST, SECOND]
    with pytest.raises(Refused, match=r"has 0002_other\.sql, .* lacks 0002_b\.sql"):
        schema_version.upgrade(conn)
    assert conn.execute("SELECT FROM a").description == []


def test_an_index_is_built_outside_a_transaction(conn: Connection, release: list[tuple[str, str]]) -> None:
    release[:] = [FIRST, SECOND, INDEX]
    assert schema_version.upgrade(conn)[-1] == "0003_i.sql"
    assert one(conn.execute("SELECT to_regclass('a_n') AS name").fetchone())["name"] == "a_n"


def test_an_index_that_was_cut_short_is_not_taken_for_one(
    conn: Connection, release: list[tuple[str, str]]
) -> None:
    release[:] = [FIRST, SECOND]
    schema_version.upgrade(conn)
    conn.execute("INSERT INTO a VALUES (1, 0), (2, 0)")
    with pytest.raises(psycopg.errors.UniqueViolation):
        conn.execute("CREATE UNIQUE INDEX CONCURRENTLY a_n ON a (n)")
    release.append(INDEX)
    with pytest.raises(Refused, match="index a_n is invalid"):
        schema_version.upgrade(conn)
    assert not schema_version.is_current(conn)
    conn.execute("DROP INDEX CONCURRENTLY a_n")
    assert schema_version.upgrade(conn) == ["0003_i.sql"]


def test_several_at_once_apply_each_file_once(
    empty_database_url: str, release: list[tuple[str, str]]
) -> None:
    """The one that builds an index must not wait for those that wait for it."""
    release[:] = [FIRST, SECOND, INDEX]
    applied: list[list[str]] = []

    def upgrade() -> None:
        with psycopg.connect(empty_database_url, autocommit=True, row_factory=dict_row) as conn:
            applied.append(schema_version.upgrade(conn))

    threads = [threading.Thread(target=upgrade) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(applied, key=len) == [[], [], [], [name for name, _ in (FIRST, SECOND, INDEX)]]


# ---------------------------------------------------------------------------------------- rules


def test_the_schema_has_no_dangerous_statement() -> None:
    assert registry_lint.findings(schema_version.migrations()) == []


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("CREATE INDEX tenant_paid ON tenant (paid_at)", "require-concurrent-index-creation"),
        ("ALTER TABLE tenant ADD COLUMN n int NOT NULL", "adding-required-field"),
        ("ALTER TABLE tenant ADD CONSTRAINT c CHECK (slug <> '')", "constraint-missing-not-valid"),
        ("ALTER TABLE tenant DROP COLUMN status", "ban-drop-column"),
        ("UPDATE tenant SET release = NULL", "whole-table-write"),
    ],
)
def test_a_dangerous_next_file_is_named(text: str, rule: str) -> None:
    """The same statements pass within the file that makes the table."""
    lines = registry_lint.findings([*schema_version.migrations(), ("0002_next.sql", text)])
    assert [line.split()[:2] for line in lines] == [["0002_next.sql:1", rule]]


# --------------------------------------------------------------------------------------- values

VALUES: dict[str, Iterable[str]] = {
    "data_copy.kind": CopyKind,
    "data_copy.state": CopyState,
    "job.lane": Lane,
    "job.state": ("waiting", "running"),
    "job_history.state": ("done", "parked"),
    "transfer.checked": ("before", "after"),
    "transfer.kind": TransferKind,
    "transfer.phase": TransferPhase,
    "notification.state": NotificationState,
    "placement.state": PlacementState,
    "preview.state": PreviewState,
    "purge.state": PurgeState,
    "rehearsal.state": RehearsalState,
    "release.adapter": Adapter,
    "rollout.state": RolloutState,
    "rollout_snapshot.state": SnapshotState,
    "rollout_member.state": MemberState,
    "step.state": StepState,
    "stripe_event.state": EventState,
    "hold.kind": HoldKind,
    "contract.outcome": ContractOutcome,
    "contract.standing": Standing,
    "report.about": About,
}
_LIST = re.compile(r"CHECK \(\((\w+) = ANY \(ARRAY\[(.*)\]\)\)\)")


def test_a_column_takes_the_values_of_its_enum_and_no_other(registry: Registry) -> None:
    with registry.connection() as conn:
        rows = conn.execute(
            "SELECT conrelid::regclass::text AS name, pg_get_constraintdef(oid) AS rule FROM pg_constraint"
            " WHERE contype = 'c' AND connamespace = 'public'::regnamespace"
        ).fetchall()
    found = {
        f"{row['name']}.{listed[1]}": set(re.findall(r"'(\w+)'::text", listed[2]))
        for row in rows
        if (listed := _LIST.fullmatch(row["rule"]))
    }
    assert found == {name: set(values) for name, values in VALUES.items()}


@pytest.mark.parametrize("states", [each for each in VALUES.values() if isinstance(each, type)])
def test_a_state_is_reached_from_others_of_its_own(states: type[State]) -> None:
    if issubclass(states, State):
        assert {source for state in states for source in state.sources} <= set(states)


def test_an_operation_is_in_one_of_the_states_of_its_job() -> None:
    assert {*VALUES["job.state"], *VALUES["job_history.state"]} == set(OperationState)


def test_an_operation_that_nobody_asked_for_says_so_as_its_job_does(registry: Registry) -> None:
    with registry.connection() as conn:
        job.ensure(conn, JobKind.TENANT, "t-aaaaaaaaaaaa")
        held = job.claim(conn, Lane.QUICK, holder="w", seconds=30)
        assert held is not None
        shown = operation.get(conn, held.id)
    assert (shown.reason, shown.actor) == (held.reason, held.actor)
