"""`ports.Dumps`: real `pg_dump`, real database, emulated S3; the simulated one to the same rules."""

from __future__ import annotations

import hashlib
import json
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import boto3
import psycopg
import pytest

from controlplane.domain.errors import LeaseLost, NeedsHuman, Retryable
from controlplane.domain.placement import Placement
from controlplane.localcloud.aws.emulator import REGION, AwsEmulator
from controlplane.localcloud.fakes.databases import FakeDatabases
from controlplane.localcloud.fakes.dumps import FakeDumps
from controlplane.localcloud.fakes.world import World
from controlplane.localcloud.servers.postgres_install import program
from controlplane.workers.providers.dumps import PgDump, S3Dumps
from controlplane.workers.providers.ports import ClusterEndpoint, Credential, Databases, Dumps
from tests.harness.databases import (
    MASTER_ARN,
    NOTES,
    MemorySecrets,
    Server,
    new_placement,
    run_server,
    write_migrations,
)


def go_on() -> bool:
    return False


@dataclass
class Fixture:
    dumps: Dumps
    databases: Databases
    at: ClusterEndpoint

    def ready(self, tmp_path: Path) -> Placement:
        """A tenant's database with a table in it."""
        placement = new_placement()
        self.databases.create(self.at, placement, connection_limit=5)
        self.databases.migrate(self.at, placement, write_migrations(tmp_path / "m", _0001_notes=NOTES))
        return placement


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with run_server() as running:
        yield running


@pytest.fixture
def bucket(aws: AwsEmulator) -> str:
    name = f"copies-{uuid.uuid4().hex[:12]}"
    s3 = boto3.client("s3")
    s3.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": REGION})
    s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    return name


@pytest.fixture
def real(server: Server, bucket: str) -> Fixture:
    dumps = S3Dumps(PgDump(server.sessions(), program=pg_dump()), region=REGION, bucket=bucket)
    return Fixture(dumps, server.provider(), server.at)


@pytest.fixture(params=["simulated", "real"])
def fixture(request: pytest.FixtureRequest) -> Iterator[Fixture]:
    if request.param == "real":
        yield request.getfixturevalue("real")
        return
    world = World()
    at = ClusterEndpoint("c-1.example.internal", 5432, MASTER_ARN, "cluster-RESOURCE")
    databases = FakeDatabases(world, MemorySecrets({MASTER_ARN: Credential("platform", "x")}))
    yield Fixture(FakeDumps(world, databases), databases, at)
    world.close()


def may_log_in(server: Server, role: str) -> bool:
    with server.superuser() as conn:
        row = conn.execute("SELECT rolcanlogin FROM pg_roles WHERE rolname = %s", (role,)).fetchone()
    assert row is not None
    return bool(row[0])


def pg_dump() -> str:
    return str(program("pg_dump"))


def test_a_dump_is_kept_until_it_is_deleted(fixture: Fixture, tmp_path: Path) -> None:
    placed = fixture.ready(tmp_path)
    name = f"purges/{uuid.uuid4().hex}.dump"
    assert not fixture.dumps.exists(name)
    first = fixture.dumps.make(fixture.at, placed, name=name, stopped=go_on)
    assert (first.name, len(first.sha256)) == (name, 64)
    assert first.size > 0
    assert fixture.dumps.exists(name)
    assert fixture.dumps.make(fixture.at, placed, name=name, stopped=go_on).sha256 == first.sha256
    for _ in range(2):
        fixture.dumps.delete(name)
        assert not fixture.dumps.exists(name)


def test_who_has_lost_its_lease_keeps_nothing(fixture: Fixture, tmp_path: Path) -> None:
    placed = fixture.ready(tmp_path)
    name = f"purges/{uuid.uuid4().hex}.dump"
    with pytest.raises(LeaseLost):
        fixture.dumps.make(fixture.at, placed, name=name, stopped=lambda: True)
    assert not fixture.dumps.exists(name)


# ------------------------------------------------------------------------------------ the real one alone


def test_a_dump_restores_anywhere_with_the_rows_that_its_manifest_counts(
    real: Fixture, server: Server, bucket: str, tmp_path: Path
) -> None:
    placed = real.ready(tmp_path)
    with server.migrator(placed) as conn:
        conn.execute("INSERT INTO app.notes (body) SELECT 'note ' || n FROM generate_series(1, 1234) n")
    made = real.dumps.make(real.at, placed, name="purges/x.dump", stopped=go_on)
    assert made.tables == {"app.notes": 1234}
    s3 = boto3.client("s3")
    body = s3.get_object(Bucket=bucket, Key="purges/x.dump")["Body"].read()
    assert (hashlib.sha256(body).hexdigest(), len(body)) == (made.sha256, made.size)
    manifest = json.loads(s3.get_object(Bucket=bucket, Key="purges/x.dump.json")["Body"].read())
    assert manifest["tables"] == {"app.notes": 1234}
    file = tmp_path / "x.dump"
    file.write_bytes(body)
    target = f"restored_{uuid.uuid4().hex[:8]}"
    url = server.postgres.create_database(target)
    subprocess.run([program("pg_restore"), "--no-owner", "--dbname", url, file], check=True, timeout=60)
    with psycopg.connect(url) as conn:
        assert conn.execute("SELECT count(*), max(body) FROM app.notes").fetchone() == (1234, "note 999")
        assert conn.execute("SELECT to_regnamespace('platform')").fetchone() == (None,)


def test_rows_written_meanwhile_are_in_neither_dump_nor_manifest(
    real: Fixture, server: Server, tmp_path: Path
) -> None:
    placed = real.ready(tmp_path)
    dumper = PgDump(server.sessions(), program=pg_dump())
    with dumper.stream(real.at, placed, stopped=go_on) as stream:
        assert not may_log_in(server, placed.migrator_role), "the program is in"
        with server.migrator(placed) as conn:
            conn.execute("INSERT INTO app.notes (body) VALUES ('late')")
        assert stream.tables == {"app.notes": 0}
        content = b"".join(iter(stream.read, b""))
    assert content.startswith(b"PGDMP")
    file = tmp_path / "x.dump"
    file.write_bytes(content)
    command = [program("pg_restore"), "--data-only", "--file=-", file]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert "late" not in shown.stdout


def test_a_program_that_fails_leaves_nothing_that_could_be_taken_for_a_copy(
    real: Fixture, server: Server, bucket: str, tmp_path: Path
) -> None:
    placed = real.ready(tmp_path)
    broken = tmp_path / "pg_dump"
    broken.write_text(
        '#!/bin/sh\n[ "$1" = --version ] && exec echo "pg_dump (PostgreSQL) 99.1"\n'
        "echo PGDMPhalf\necho 'disk on fire' >&2\nexit 3\n"
    )
    broken.chmod(0o755)
    dumps = S3Dumps(PgDump(server.sessions(), program=str(broken)), region=REGION, bucket=bucket)
    with pytest.raises(Retryable, match="status 3: disk on fire"):
        dumps.make(real.at, placed, name="purges/broken.dump", stopped=go_on)
    assert not dumps.exists("purges/broken.dump")


@pytest.mark.parametrize(
    ("answer", "said"),
    [("pg_dump (PostgreSQL) 14.1", "got pg_dump"), ("", "got nothing"), (None, "does not run")],
)
def test_a_program_that_can_not_dump_this_server_is_a_persons_case(
    real: Fixture, server: Server, bucket: str, tmp_path: Path, answer: str | None, said: str
) -> None:
    placed = real.ready(tmp_path)
    old = tmp_path / "pg_dump"
    if answer is not None:
        old.write_text(f"#!/bin/sh\necho '{answer}'\n")
        old.chmod(0o755)
    dumps = S3Dumps(PgDump(server.sessions(), program=str(old)), region=REGION, bucket=bucket)
    with pytest.raises(NeedsHuman, match=said) as caught:
        dumps.make(real.at, placed, name="purges/old.dump", stopped=go_on)
    assert caught.value.runbook == "copy"


def test_without_a_bucket_a_person_is_asked(real: Fixture, server: Server, tmp_path: Path) -> None:
    placed = real.ready(tmp_path)
    dumps = S3Dumps(PgDump(server.sessions(), program=pg_dump()), region=REGION, bucket=None)
    with pytest.raises(NeedsHuman, match="CONTROLPLANE_COPY_BUCKET"):
        dumps.make(real.at, placed, name="x", stopped=go_on)


def test_no_password_is_among_the_arguments_or_in_what_is_said(
    real: Fixture, server: Server, bucket: str, tmp_path: Path
) -> None:
    placed = real.ready(tmp_path)
    spy, seen, known = tmp_path / "pg_dump", tmp_path / "seen", tmp_path / "known"
    spy.write_text(
        f'#!/bin/sh\n[ "$1" = --version ] && exec {pg_dump()} --version\n'
        f'echo "$@" > {seen}\nprintenv PGPASSWORD > {known}\nexec {pg_dump()} "$@"\n'
    )
    spy.chmod(0o755)
    dumps = S3Dumps(PgDump(server.sessions(), program=str(spy)), region=REGION, bucket=bucket)
    dumps.make(real.at, placed, name="purges/spy.dump", stopped=go_on)
    assert "--snapshot" in seen.read_text()
    password = known.read_text().strip()
    assert password
    assert password not in seen.read_text()
    assert password not in server.log
