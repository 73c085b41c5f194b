"""The releases of the Terraform stacks, what Terraform last confirmed for a workspace, and the runs that may
have left a lock behind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg.types.json import Jsonb

from controlplane.domain.job import Job
from controlplane.store.registry import Connection, column, one, select


@dataclass(frozen=True, slots=True)
class StackRow:
    """`drift`: what Terraform would have changed at the last look, [{"address", "action"}]; None where there
    was none since the last apply."""

    digest: str
    outputs: dict[str, Any]
    drift: list[dict[str, str]] | None


@dataclass(frozen=True, slots=True)
class StackRelease:
    """A release of the stacks whose archive was published. `variables`: {stack: those that it declares}.
    `installed_at`: when a worker that carries it last started; None where only a command has published it."""

    digest: str
    variables: dict[str, list[str]]
    published_at: datetime
    installed_at: datetime | None


@dataclass(frozen=True, slots=True)
class OpenRun:
    who: str
    started_at: datetime
    lock_id: str | None


def record_release(
    conn: Connection, digest: str, variables: Mapping[str, Sequence[str]], *, installed: bool = False
) -> None:
    """Its archive is in the bucket. `installed`: a worker that carries it starts."""
    conn.execute(
        "INSERT INTO stack_release (digest, variables, installed_at)"
        " VALUES (%(digest)s, %(variables)s, CASE WHEN %(installed)s THEN clock_timestamp() END)"
        " ON CONFLICT (digest) DO UPDATE SET installed_at = excluded.installed_at WHERE %(installed)s",
        {"digest": digest, "variables": Jsonb(dict(variables)), "installed": installed},
    )


def releases(conn: Connection, *, prefix: str = "", limit: int = 10) -> list[StackRelease]:
    """Those whose digest begins so. First the *installed* one, which the worker carries that started last,
    then those that were before; behind them what was published and never installed, the newest first."""
    return select(
        conn,
        StackRelease,
        "FROM stack_release WHERE starts_with(digest, %s)"
        " ORDER BY installed_at DESC NULLS LAST, published_at DESC, digest LIMIT %s",
        [prefix, limit],
    ).fetchall()


def installed(conn: Connection) -> StackRelease | None:
    """None until a worker has published one."""
    return next(iter(releases(conn, limit=1)), None)


def named_releases(conn: Connection) -> list[str]:
    """Those that clusters which are not destroyed are applied with."""
    return column(
        conn,
        "SELECT DISTINCT release FROM cluster WHERE destroyed_at IS NULL AND release IS NOT NULL ORDER BY 1",
    )


def workspace_of(name: str, cluster_id: str) -> str:
    """What rows call the workspace of a cluster's stack of this name: the cluster's own is called by its
    id."""
    return cluster_id if name == "cluster" else f"{name}/{cluster_id}"


def get(conn: Connection, workspace: str) -> StackRow | None:
    return select(conn, StackRow, "FROM stack WHERE workspace = %s", [workspace]).fetchone()


def confirm(conn: Connection, workspace: str, *, digest: str, outputs: dict[str, Any]) -> None:
    conn.execute(
        "INSERT INTO stack (workspace, digest, outputs) VALUES (%s, %s, %s)"
        " ON CONFLICT (workspace) DO UPDATE SET digest = excluded.digest, outputs = excluded.outputs,"
        " drift = NULL",
        [workspace, digest, Jsonb(outputs)],
    )


def note_drift(conn: Connection, workspace: str, drift: list[dict[str, str]]) -> None:
    conn.execute("UPDATE stack SET drift = %s WHERE workspace = %s", [Jsonb(drift), workspace])


def distrust(conn: Connection, workspace: str) -> None:
    """The next observation plans with Terraform again. What it made is still there, and known."""
    conn.execute("UPDATE stack SET digest = '' WHERE workspace = %s", [workspace])


def forget(conn: Connection, workspace: str) -> None:
    """It is destroyed."""
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
