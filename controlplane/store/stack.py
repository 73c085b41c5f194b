"""What Terraform last confirmed for a workspace, and the runs that may have left a lock behind."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg.types.json import Jsonb

from controlplane.domain.job import Job
from controlplane.store.registry import Connection, one, select


@dataclass(frozen=True, slots=True)
class StackRow:
    digest: str
    outputs: dict[str, Any]


@dataclass(frozen=True, slots=True)
class OpenRun:
    who: str
    started_at: datetime
    lock_id: str | None


def get(conn: Connection, workspace: str) -> StackRow | None:
    return select(conn, StackRow, "FROM stack WHERE workspace = %s", [workspace]).fetchone()


def confirm(conn: Connection, workspace: str, *, digest: str, outputs: dict[str, Any]) -> None:
    conn.execute(
        "INSERT INTO stack (workspace, digest, outputs) VALUES (%s, %s, %s)"
        " ON CONFLICT (workspace) DO UPDATE SET digest = excluded.digest, outputs = excluded.outputs",
        [workspace, digest, Jsonb(outputs)],
    )


def forget(conn: Connection, workspace: str) -> None:
    """The next observation plans with Terraform again."""
    conn.execute("DELETE FROM stack WHERE workspace = %s", [workspace])


def open_runs(conn: Connection, workspace: str) -> list[OpenRun]:
    return select(
        conn,
        OpenRun,
        "FROM terraform_run WHERE workspace = %s AND ended_at IS NULL ORDER BY id",
        [workspace],
    ).fetchall()


def begin_run(conn: Connection, held: Job, workspace: str, *, who: str) -> int:
    return int(
        one(
            conn.execute(
                "INSERT INTO terraform_run (workspace, operation_id, who) VALUES (%s, %s, %s) RETURNING id",
                [workspace, held.id, who],
            ).fetchone()
        )["id"]
    )


def note_lock(conn: Connection, run_id: int, lock_id: str) -> None:
    conn.execute("UPDATE terraform_run SET lock_id = %s WHERE id = %s", [lock_id, run_id])


def end_runs(conn: Connection, workspace: str) -> None:
    """The workspace has been applied to its end: no earlier run can have left anything behind."""
    conn.execute(
        "UPDATE terraform_run SET ended_at = clock_timestamp() WHERE workspace = %s AND ended_at IS NULL",
        [workspace],
    )
