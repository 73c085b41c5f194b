"""A cluster's parameter group decides what its log is for, as on Aurora."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from tests.localcloud.conftest import POSTGRES, EmulatedAws, refused

POSITIONS = ("pg_current_wal_lsn", "pg_current_wal_insert_lsn", "pg_current_wal_flush_lsn", "pg_switch_wal")


@pytest.fixture
def group(account: EmulatedAws, name: str) -> Iterator[str]:
    """A parameter group with logical replication."""
    account.rds.create_db_cluster_parameter_group(
        DBClusterParameterGroupName=f"{name}-logical",
        DBParameterGroupFamily="aurora-postgresql17",
        Description="a test's",
    )
    set_logical(account, f"{name}-logical", "1")
    yield f"{name}-logical"
    account.rds.delete_db_cluster_parameter_group(DBClusterParameterGroupName=f"{name}-logical")


def set_logical(account: EmulatedAws, group: str, value: str) -> None:
    account.rds.modify_db_cluster_parameter_group(
        DBClusterParameterGroupName=group,
        Parameters=[
            {
                "ParameterName": "rds.logical_replication",
                "ParameterValue": value,
                "ApplyMethod": "pending-reboot",
            }
        ],
    )


def wal_level(connection: psycopg.Connection) -> str:
    row = connection.execute("SELECT current_setting('wal_level')").fetchone()
    assert row is not None
    return str(row[0])


def assert_refuses_positions(connection: psycopg.Connection) -> None:
    for function in POSITIONS:
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState) as caught:
            connection.execute(f"SELECT {function}()")
        assert caught.value.sqlstate == "55000"
        assert caught.value.diag.message_primary == "wal_level must be set to 'logical'"
        assert caught.value.diag.message_hint == (
            "WAL control functions cannot be executed when wal_level < logical."
        )


def test_without_a_group_no_position_in_the_log_is_told(account: EmulatedAws, name: str) -> None:
    account.create_cluster(name)
    account.create_instance(name)
    with account.connect(name) as connection:
        assert wal_level(connection) == "replica"
        assert_refuses_positions(connection)
        for template in ("template0", "template1"):
            connection.execute(f"CREATE DATABASE of_{template} TEMPLATE {template}")
            with account.connect(name, dbname=f"of_{template}") as inside:
                assert_refuses_positions(inside)


def test_a_group_with_logical_replication_does(account: EmulatedAws, name: str, group: str) -> None:
    account.create_cluster(name, DBClusterParameterGroupName=group)
    account.create_instance(name)
    with account.connect(name) as connection:
        assert wal_level(connection) == "logical"
        for function in POSITIONS[:3]:
            row = connection.execute(f"SELECT {function}() > '0/0'").fetchone()
            assert row == (True,)
    account.delete(name)


def test_another_group_takes_effect_at_a_reboot(account: EmulatedAws, name: str, group: str) -> None:
    account.create_cluster(name)
    account.create_instance(name)
    account.rds.modify_db_cluster(
        DBClusterIdentifier=name, DBClusterParameterGroupName=group, ApplyImmediately=True
    )
    with account.connect(name) as connection:
        assert wal_level(connection) == "replica"
    account.rds.reboot_db_instance(DBInstanceIdentifier=f"{name}-1")
    with account.connect(name) as connection:
        assert wal_level(connection) == "logical"
        connection.execute("SELECT pg_current_wal_lsn()")
    set_logical(account, group, "0")
    account.rds.reboot_db_instance(DBInstanceIdentifier=f"{name}-1")
    with account.connect(name) as connection:
        assert_refuses_positions(connection)
    account.delete(name)


def test_a_restored_cluster_answers_by_its_own_group(account: EmulatedAws, name: str, group: str) -> None:
    """The moment's own log is replayed by the emulator, whatever the group is."""
    account.create_cluster(name)
    account.create_instance(name)
    with account.connect(name) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS x")
        at = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=1)
        connection.execute("SELECT pg_sleep_until(%s)", [at + timedelta(seconds=1)])
        connection.execute("INSERT INTO kept VALUES (2)")
    for restored, options, level in (
        (f"{name}-default", {}, "replica"),
        (f"{name}-of-group", {"DBClusterParameterGroupName": group}, "logical"),
    ):
        account.rds.restore_db_cluster_to_point_in_time(
            DBClusterIdentifier=restored, SourceDBClusterIdentifier=name, RestoreToTime=at, **options
        )
        account.rds.modify_db_cluster(
            DBClusterIdentifier=restored, ManageMasterUserPassword=True, ApplyImmediately=True
        )
        account.create_instance(restored)
        with account.connect(restored) as connection:
            assert connection.execute("SELECT x FROM kept").fetchall() == [(1,)]
            assert wal_level(connection) == level
            if level == "replica":
                assert_refuses_positions(connection)
        account.delete(restored)


def test_a_group_that_is_not_there_is_refused(account: EmulatedAws, name: str) -> None:
    with refused("DBParameterGroupNotFound"):
        account.create_cluster(name, DBClusterParameterGroupName="nobody-made-it")
    account.create_cluster(name)
    with refused("DBParameterGroupNotFound"):
        account.rds.modify_db_cluster(
            DBClusterIdentifier=name, DBClusterParameterGroupName="nobody-made-it", ApplyImmediately=True
        )
    assert account.describe(name)["Engine"] == POSTGRES
