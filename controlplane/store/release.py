"""Releases: what they are made of, and which of them a tenant is born with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from controlplane.domain.job import JobKind
from controlplane.domain.release import Adapter, Release, ReleaseFile
from controlplane.store import job
from controlplane.store.registry import Connection, exists, one, query, select

# New tenants share it, the end of a rollout takes it alone: none is made at the old release at the moment
# in which the rollout that would have taken it along ends.
_NEW_TENANTS = 0x7C9_0005


@dataclass(frozen=True, slots=True)
class ReleaseRow:
    """`files`: how many. `open_findings`: those that nobody has accepted. `tenants`: that have it."""

    number: str
    adapter: str
    checksum: str
    actor: str
    created_at: datetime
    files: int = field(metadata={"sql": "(SELECT count(*) FROM release_file f WHERE f.number = r.number)"})
    open_findings: int = field(
        metadata={
            "sql": "(SELECT count(*) FROM release_finding f"
            " WHERE f.number = r.number AND f.accepted_by IS NULL)"
        }
    )
    tenants: int = field(metadata={"sql": "(SELECT count(*) FROM tenant t WHERE t.release = r.number)"})


@dataclass(frozen=True, slots=True)
class FindingRow:
    """A dangerous statement. `accepted_by` None: nobody has looked at it yet."""

    id: str
    number: str
    rule: str
    file: str
    line: int
    statement: str
    message: str
    accepted_by: str | None
    accepted_at: datetime | None
    reason: str | None


def lock(conn: Connection) -> None:
    """Within a transaction: releases are registered one after the other."""
    conn.execute("LOCK TABLE release IN SHARE ROW EXCLUSIVE MODE")


def put_file(conn: Connection, file: ReleaseFile) -> None:
    conn.execute(
        "INSERT INTO migration_file (sha256, body) VALUES (%s, %s) ON CONFLICT DO NOTHING",
        [file.sha256, file.body],
    )


def bodies(conn: Connection, digests: Iterable[str]) -> dict[str, bytes]:
    """Digest → contents, of those that are kept."""
    rows = conn.execute("SELECT sha256, body FROM migration_file WHERE sha256 = ANY(%s)", [list(digests)])
    return {row["sha256"]: bytes(row["body"]) for row in rows}


def insert(conn: Connection, release: Release, *, actor: str) -> None:
    conn.execute(
        "INSERT INTO release (number, adapter, checksum, actor) VALUES (%s, %s, %s, %s)",
        [release.number, release.adapter, release.checksum, actor],
    )
    with conn.cursor() as cur:
        cur.executemany(
            "INSERT INTO release_file (number, position, name, sha256) VALUES (%s, %s, %s, %s)",
            [(release.number, i, file.name, file.sha256) for i, file in enumerate(release.files, start=1)],
        )


def newest(conn: Connection) -> Release | None:
    row = conn.execute("SELECT max(number) AS number FROM release").fetchone()
    return None if row is None or row["number"] is None else load(conn, row["number"])


def load(conn: Connection, number: str) -> Release:
    """The release, with the contents of its files where they are kept. One that was never registered
    by itself but is a part of a later one (numbered SQL) is cut out of that. Raises NotFound."""
    row = conn.execute(
        "SELECT number, adapter FROM release"
        " WHERE number = %(number)s OR (number > %(number)s AND adapter = 'sql') ORDER BY number LIMIT 1",
        {"number": number},
    ).fetchone()
    found = one(row, f"release {number}")
    files = query(
        conn,
        ReleaseFile,
        "SELECT f.name, f.sha256, b.body FROM release_file f LEFT JOIN migration_file b USING (sha256)"
        " WHERE f.number = %s ORDER BY f.position",
        [found["number"]],
    ).fetchall()
    release = Release(found["number"], Adapter(found["adapter"]), tuple(files))
    return release if release.number == number else release.up_to(number)


def find(conn: Connection, number: str | None) -> Release | None:
    """As `load`; None where no release is registered or none is asked for."""
    known = exists(conn, "SELECT FROM release LIMIT 1")
    return load(conn, number) if known and number is not None else None


def get(conn: Connection, number: str) -> ReleaseRow:
    """Raises NotFound."""
    row = select(conn, ReleaseRow, "FROM release r WHERE r.number = %s", [number], table="r").fetchone()
    return one(row, f"release {number}")


def page(conn: Connection, *, before: str | None, limit: int) -> list[ReleaseRow]:
    """Newest first, those below `before`."""
    return select(
        conn,
        ReleaseRow,
        "FROM release r WHERE (%(before)s::text IS NULL OR r.number < %(before)s)"
        " ORDER BY r.number DESC LIMIT %(limit)s",
        {"before": before, "limit": limit},
        table="r",
    ).fetchall()


@dataclass(frozen=True, slots=True)
class ShareRow:
    """The tenants of one release that are served. `release` None: it is not known. `example`: one of them."""

    release: str | None
    tenants: int = field(metadata={"sql": "count(*)"})
    example: str = field(metadata={"sql": "min(slug)"})


def fleet(conn: Connection) -> list[ShareRow]:
    """Tenants by release, the oldest first: those that have served and are active, of which an application
    may see requests."""
    return select(
        conn,
        ShareRow,
        "FROM tenant WHERE ready_at IS NOT NULL AND spec->>'lifecycle' = 'active'"
        " GROUP BY release ORDER BY release NULLS FIRST",
    ).fetchall()


# ------------------------------------------------------------------------------------- tenants


def adopt_fleet(conn: Connection) -> int:
    """With the first release the registry decides, no longer the workers' folder: every tenant has
    what was last observed in its database. How many there are."""
    return conn.execute(
        "UPDATE tenant SET release = status #>> '{database,release}'"
        " WHERE release IS NULL AND status #>> '{database,release}' ~ '^[0-9]{4}$'"
    ).rowcount


def give_new_tenants(conn: Connection, number: str) -> None:
    """Those that have no release yet and never served are to be born with this one."""
    conn.execute("UPDATE tenant SET release = %s WHERE release IS NULL AND ready_at IS NULL", [number])


def of_new_tenants(conn: Connection) -> str | None:
    """The release that a tenant is born with: that of the newest completed rollout, or of the one that
    runs once its canary wave is through; before the first rollout that of the fleet. None where no
    release is registered. The caller's transaction holds off the end of a rollout until it ends."""
    conn.execute("SELECT pg_advisory_xact_lock_shared(%s)", [_NEW_TENANTS])
    row = one(
        conn.execute(
            "SELECT coalesce((SELECT max(release) FROM rollout WHERE state = 'done'"
            "                  OR (state IN ('running', 'paused') AND wave > 0)),"
            " (SELECT max(release) FROM tenant WHERE EXISTS (SELECT FROM release)),"
            " (SELECT max(number) FROM release)) AS number"
        ).fetchone()
    )
    return None if row["number"] is None else str(row["number"])


def welcome_back(conn: Connection, tenant_id: str) -> None:
    """A tenant is to be served again, and while it was closed rollouts have passed over it: it is to have
    what a new one gets, and its own operation brings it there. As with a new tenant, no rollout ends at this
    moment."""
    number = of_new_tenants(conn)
    conn.execute(
        "UPDATE tenant SET release = %(number)s WHERE id = %(id)s AND release < %(number)s",
        {"id": tenant_id, "number": number},
    )


def lock_new_tenants(conn: Connection) -> None:
    """Within a transaction: nobody is being born, or coming back."""
    conn.execute("SELECT pg_advisory_xact_lock(%s)", [_NEW_TENANTS])


def raise_new_tenants(conn: Connection, number: str) -> int:
    """Tenants that have never served are to be born with this release; how many were to get less.
    Those whose database exists already are brought to it by their own operation."""
    rows = conn.execute(
        "UPDATE tenant SET release = %(number)s"
        " WHERE ready_at IS NULL AND (release IS NULL OR release < %(number)s)"
        "  AND spec->>'lifecycle' <> 'closed' RETURNING id",
        {"number": number},
    ).fetchall()
    raised = [row["id"] for row in rows]
    job.ensure_all(conn, JobKind.TENANT, raised, reason=f"release {number}", actor="rollout")
    return len(raised)


# ------------------------------------------------------------------------------------ findings


def add_findings(conn: Connection, findings: Sequence[FindingRow]) -> None:
    with conn.cursor() as cur:
        cur.executemany(
            "INSERT INTO release_finding (id, number, rule, file, line, statement, message)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
            [(f.id, f.number, f.rule, f.file, f.line, f.statement, f.message) for f in findings],
        )


def findings(conn: Connection, number: str) -> list[FindingRow]:
    return select(
        conn, FindingRow, "FROM release_finding WHERE number = %s ORDER BY file, line, id", [number]
    ).fetchall()


def accept_finding(conn: Connection, finding_id: str, *, actor: str, reason: str) -> FindingRow:
    """Raises NotFound. One that is accepted already stays as it was."""
    conn.execute(
        "UPDATE release_finding SET accepted_by = %s, accepted_at = clock_timestamp(), reason = %s"
        " WHERE id = %s AND accepted_by IS NULL",
        [actor, reason, finding_id],
    )
    row = select(conn, FindingRow, "FROM release_finding WHERE id = %s", [finding_id]).fetchone()
    return one(row, f"finding {finding_id}")
