"""Behind every emulated cluster is a PostgreSQL, and its logins are the cluster's."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from tests.localcloud.conftest import POSTGRES, EmulatedAws

WRONG = "password authentication failed"


def test_the_managed_secret_opens_the_cluster(account: EmulatedAws, name: str) -> None:
    account.create_cluster(name, DatabaseName="first")
    assert not any(name in endpoint for endpoint in account.endpoints)
    account.create_instance(name)
    with account.connect(name, dbname="first") as connection:
        assert connection.execute("SELECT current_user::text").fetchone() == ("platform",)
        with pytest.raises(psycopg.OperationalError, match=WRONG):
            account.connect(name, {"username": "platform", "password": "guessed"})


def test_every_endpoint_leads_there(account: EmulatedAws, name: str) -> None:
    account.create_cluster(name)
    instance = account.create_instance(name)
    seen = account.describe(name)
    hosts = {seen["Endpoint"], seen["ReaderEndpoint"], instance["Endpoint"]["Address"]}
    targets = {account.endpoints[f"{host}:5432"] for host in hosts}
    assert len(hosts) == 3
    assert len(targets) == 1


def test_the_master_is_what_rds_makes_it(account: EmulatedAws, name: str) -> None:
    account.create_cluster(name)
    account.create_instance(name)
    with account.connect(name) as connection:
        shown = connection.execute(
            "SELECT rolsuper, rolcreaterole, rolcreatedb FROM pg_roles WHERE rolname = current_user"
        ).fetchone()
        assert shown == (False, True, True)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("ALTER SYSTEM SET work_mem = '1GB'")
        connection.execute("CREATE ROLE someone LOGIN")
        connection.execute("GRANT rds_iam TO someone")
        connection.execute("REVOKE CONNECT ON DATABASE postgres, template1 FROM PUBLIC")


def test_two_clusters_share_nothing(account: EmulatedAws, name: str) -> None:
    other = f"{name}-2"
    for each in (name, other):
        account.create_cluster(each)
        account.create_instance(each)
    assert account.master(name)["password"] != account.master(other)["password"]
    with account.connect(name) as connection:
        connection.execute("CREATE DATABASE here")
    with pytest.raises(psycopg.OperationalError, match=r'database "here" does not exist'):
        account.connect(other, dbname="here")
    with pytest.raises(psycopg.OperationalError, match=WRONG):
        account.connect(other, account.master(name))


def test_rotation_changes_the_password_and_keeps_the_last(account: EmulatedAws, name: str) -> None:
    account.create_cluster(name)
    account.create_instance(name)
    before = account.master(name)
    account.rds.modify_db_cluster(
        DBClusterIdentifier=name, RotateMasterUserPassword=True, ApplyImmediately=True
    )
    assert account.master(name) != before
    assert account.master(name, VersionStage="AWSPREVIOUS") == before
    account.connect(name).close()
    with pytest.raises(psycopg.OperationalError, match=WRONG):
        account.connect(name, before)


def test_a_rotation_reaches_the_server_before_the_secret(account: EmulatedAws, name: str) -> None:
    account.create_cluster(name)
    account.create_instance(name)
    before = account.master(name)
    account.settings(rds_rotation_seconds=3600)
    account.rds.modify_db_cluster(
        DBClusterIdentifier=name, RotateMasterUserPassword=True, ApplyImmediately=True
    )
    assert account.master(name) == before
    with pytest.raises(psycopg.OperationalError, match=WRONG):
        account.connect(name)
    account.settings(rds_rotation_seconds=0)
    assert account.master(name) != before
    account.connect(name).close()
    assert account.master(name, VersionStage="AWSPREVIOUS") == before


def test_asking_again_for_a_managed_password_changes_nothing(account: EmulatedAws, name: str) -> None:
    account.create_cluster(name)
    before = account.describe(name)["MasterUserSecret"]["SecretArn"]
    account.rds.modify_db_cluster(DBClusterIdentifier=name, ManageMasterUserPassword=True)
    assert account.describe(name)["MasterUserSecret"]["SecretArn"] == before


def test_a_password_can_be_handed_over_to_rds_and_back(account: EmulatedAws, name: str) -> None:
    own = {"username": "platform", "password": "chosen-by-hand"}
    account.create_cluster(name, MasterUserPassword=own["password"])
    account.create_instance(name)
    account.connect(name, own).close()

    account.rds.modify_db_cluster(
        DBClusterIdentifier=name, ManageMasterUserPassword=True, ApplyImmediately=True
    )
    account.connect(name).close()
    with pytest.raises(psycopg.OperationalError, match=WRONG):
        account.connect(name, own)

    account.rds.modify_db_cluster(
        DBClusterIdentifier=name,
        ManageMasterUserPassword=False,
        MasterUserPassword=own["password"],
        ApplyImmediately=True,
    )
    account.connect(name, own).close()


def test_a_new_name_has_new_endpoints(account: EmulatedAws, name: str) -> None:
    account.create_cluster(name)
    account.create_instance(name)
    old = account.describe(name)["Endpoint"]
    account.rds.modify_db_cluster(
        DBClusterIdentifier=name, NewDBClusterIdentifier=f"{name}-new", ApplyImmediately=True
    )
    account.connect(f"{name}-new").close()
    assert f"{old}:5432" not in account.endpoints


def test_data_sleeps_while_there_is_no_instance(account: EmulatedAws, name: str) -> None:
    account.create_cluster(name)
    account.create_instance(name)
    with account.connect(name) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS x")
    account.rds.delete_db_instance(DBInstanceIdentifier=f"{name}-1")
    with pytest.raises(psycopg.OperationalError, match="refused"):
        account.connect(name)
    account.create_instance(name)
    with account.connect(name) as connection:
        assert connection.execute("SELECT x FROM kept").fetchall() == [(1,)]


def test_a_stopped_cluster_refuses_and_comes_back(account: EmulatedAws, name: str) -> None:
    account.create_cluster(name)
    account.create_instance(name)
    account.rds.stop_db_cluster(DBClusterIdentifier=name)
    with pytest.raises(psycopg.OperationalError, match="refused"):
        account.connect(name)
    account.rds.start_db_cluster(DBClusterIdentifier=name)
    account.connect(name).close()


def test_nothing_is_left_of_a_deleted_cluster(account: EmulatedAws, name: str) -> None:
    resource_id = account.create_cluster(name)["DbClusterResourceId"]
    account.create_instance(name)
    data = account.emulator.data_dir / "clusters" / resource_id
    address, port = account.endpoints[f"{account.describe(name)['Endpoint']}:5432"].split(":")
    assert data.is_dir()
    account.delete(name)
    assert not data.exists()
    assert not any(name in endpoint for endpoint in account.endpoints)
    with pytest.raises(psycopg.OperationalError, match="refused"):
        psycopg.connect(host=address, port=port, user="platform")


def restore(account: EmulatedAws, snapshot: str, cluster: str) -> None:
    account.rds.restore_db_cluster_from_snapshot(
        DBClusterIdentifier=cluster, SnapshotIdentifier=snapshot, Engine=POSTGRES
    )
    wake(account, cluster)


def wake(account: EmulatedAws, cluster: str) -> None:
    assert "MasterUserSecret" not in account.describe(cluster)
    account.rds.modify_db_cluster(
        DBClusterIdentifier=cluster, ManageMasterUserPassword=True, ApplyImmediately=True
    )
    account.create_instance(cluster)


def test_snapshots_bring_the_data_back(account: EmulatedAws, name: str) -> None:
    account.create_cluster(name, DeletionProtection=True)
    account.create_instance(name)
    with account.connect(name) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS x")
        account.rds.create_db_cluster_snapshot(
            DBClusterIdentifier=name, DBClusterSnapshotIdentifier=f"{name}-manual"
        )
        connection.execute("INSERT INTO kept VALUES (2)")
    account.rds.modify_db_cluster(DBClusterIdentifier=name, DeletionProtection=False)
    account.delete(name, final_snapshot=f"{name}-final")

    for kind, rows in (("manual", [(1,)]), ("final", [(1,), (2,)])):
        restored = f"{name}-{kind}"
        restore(account, f"{name}-{kind}", restored)
        assert account.describe(restored)["DeletionProtection"] is False
        with account.connect(restored) as connection:
            assert connection.execute("SELECT x FROM kept ORDER BY x").fetchall() == rows


def test_a_restored_cluster_keeps_the_password_in_its_data(account: EmulatedAws, name: str) -> None:
    own = {"username": "platform", "password": "chosen-by-hand"}
    account.create_cluster(name, MasterUserPassword=own["password"])
    account.create_instance(name)
    account.delete(name, final_snapshot=f"{name}-final")
    restored = f"{name}-restored"
    account.rds.restore_db_cluster_from_snapshot(
        DBClusterIdentifier=restored, SnapshotIdentifier=f"{name}-final", Engine=POSTGRES
    )
    account.create_instance(restored)
    account.connect(restored, own).close()


def test_a_snapshot_is_not_seen_before_it_is_whole(account: EmulatedAws, name: str) -> None:
    account.create_cluster(name)
    account.create_instance(name)
    with account.connect(name) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS x")
    snapshot = f"{name}-manual"
    with ThreadPoolExecutor(max_workers=1) as pool:
        taken = pool.submit(
            account.rds.create_db_cluster_snapshot,
            DBClusterIdentifier=name,
            DBClusterSnapshotIdentifier=snapshot,
        )
        found: list[Any] = []
        while not found:
            found = account.rds.describe_db_cluster_snapshots(
                DBClusterIdentifier=name, SnapshotType="manual"
            )["DBClusterSnapshots"]
        restore(account, snapshot, f"{name}-restored")
        taken.result()
    with account.connect(f"{name}-restored") as connection:
        assert connection.execute("SELECT x FROM kept").fetchall() == [(1,)]


def test_a_copied_snapshot_outlives_its_source(account: EmulatedAws, name: str) -> None:
    account.create_cluster(name)
    account.create_instance(name)
    with account.connect(name) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS x")
    snapshot = {"DBClusterIdentifier": name, "DBClusterSnapshotIdentifier": f"{name}-source"}
    account.rds.create_db_cluster_snapshot(**snapshot)
    account.rds.copy_db_cluster_snapshot(
        SourceDBClusterSnapshotIdentifier=f"{name}-source",
        TargetDBClusterSnapshotIdentifier=f"{name}-copy",
    )
    folders = account.emulator.data_dir / "snapshots"
    kept = set(folders.iterdir())
    account.rds.delete_db_cluster_snapshot(DBClusterSnapshotIdentifier=f"{name}-source")
    restore(account, f"{name}-copy", f"{name}-restored")
    with account.connect(f"{name}-restored") as connection:
        assert connection.execute("SELECT x FROM kept").fetchall() == [(1,)]
    account.rds.delete_db_cluster_snapshot(DBClusterSnapshotIdentifier=f"{name}-copy")
    assert len(set(folders.iterdir())) == len(kept) - 1


def test_a_clone_has_the_data_of_now(account: EmulatedAws, name: str) -> None:
    account.create_cluster(name)
    account.create_instance(name)
    with account.connect(name) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS x")
    account.rds.restore_db_cluster_to_point_in_time(
        DBClusterIdentifier=f"{name}-clone", SourceDBClusterIdentifier=name, UseLatestRestorableTime=True
    )
    wake(account, f"{name}-clone")
    with account.connect(f"{name}-clone") as connection:
        assert connection.execute("SELECT x FROM kept").fetchall() == [(1,)]


def restore_to(account: EmulatedAws, source: str, cluster: str, at: datetime) -> None:
    account.rds.restore_db_cluster_to_point_in_time(
        DBClusterIdentifier=cluster, SourceDBClusterIdentifier=source, RestoreToTime=at
    )


def test_a_point_in_time_has_the_data_of_then(account: EmulatedAws, name: str) -> None:
    account.create_cluster(name)
    account.create_instance(name)
    with account.connect(name) as connection:
        connection.execute("CREATE TABLE kept AS SELECT generate_series(1, 1000) AS x")
    time.sleep(1.1)
    at = datetime.now(UTC).replace(microsecond=0)
    time.sleep(1.1)
    with account.connect(name) as connection:
        connection.execute("DELETE FROM kept")
        connection.execute("CREATE ROLE later")
    restore_to(account, name, f"{name}-then", at)
    wake(account, f"{name}-then")
    with account.connect(f"{name}-then") as connection:
        assert connection.execute("SELECT count(*) FROM kept").fetchone() == (1000,)
        assert connection.execute("SELECT FROM pg_roles WHERE rolname = 'later'").fetchone() is None
        connection.execute("INSERT INTO kept VALUES (0)")
    with account.connect(name) as connection:
        assert connection.execute("SELECT count(*) FROM kept").fetchone() == (0,)


def test_a_restored_cluster_with_a_key_is_encrypted(account: EmulatedAws, name: str) -> None:
    account.create_cluster(name)
    account.rds.create_db_cluster_snapshot(DBClusterIdentifier=name, DBClusterSnapshotIdentifier=f"{name}-s")
    assert account.describe(name)["StorageEncrypted"] is False
    key = "arn:aws:kms:eu-central-1:123456789012:key/11111111-2222-3333-4444-555555555555"
    account.rds.restore_db_cluster_from_snapshot(
        DBClusterIdentifier=f"{name}-a", SnapshotIdentifier=f"{name}-s", Engine=POSTGRES, KmsKeyId=key
    )
    account.rds.restore_db_cluster_to_point_in_time(
        DBClusterIdentifier=f"{name}-b",
        SourceDBClusterIdentifier=name,
        UseLatestRestorableTime=True,
        KmsKeyId=key,
    )
    for restored in (f"{name}-a", f"{name}-b"):
        seen = account.describe(restored)
        assert (seen["StorageEncrypted"], seen["KmsKeyId"]) == (True, key)


def test_moments_that_can_not_be_had_are_refused(account: EmulatedAws, name: str) -> None:
    account.create_cluster(name)
    account.create_instance(name)
    now = datetime.now(UTC)
    for at in (now - timedelta(hours=1), now + timedelta(hours=1)):
        with pytest.raises(account.rds.exceptions.ClientError, match="restorable window"):
            restore_to(account, name, f"{name}-never", at)
    account.rds.create_db_cluster_snapshot(DBClusterIdentifier=name, DBClusterSnapshotIdentifier=f"{name}-s")
    restore(account, f"{name}-s", f"{name}-restored")
    time.sleep(1.1)
    with pytest.raises(account.rds.exceptions.ClientError, match="its past is not kept"):
        restore_to(account, f"{name}-restored", f"{name}-never", datetime.now(UTC))
    with pytest.raises(account.rds.exceptions.DBClusterNotFoundFault):
        account.describe(f"{name}-never")


def test_other_engines_have_no_database(account: EmulatedAws, name: str) -> None:
    account.create_cluster(name, Engine="aurora-mysql")
    account.rds.create_db_instance(
        DBInstanceIdentifier=f"{name}-1",
        DBClusterIdentifier=name,
        DBInstanceClass="db.r6g.large",
        Engine="aurora-mysql",
    )
    assert not any(name in endpoint for endpoint in account.endpoints)
