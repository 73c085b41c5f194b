"""The processes of the fleet, as their heartbeats (`store/job.beat`) tell of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from controlplane.store.registry import Connection, select

SILENT = 60.0
"""Seconds after which one that says nothing is taken for dead; its leases have run out long before."""


@dataclass(frozen=True, slots=True)
class ProcessRow:
    """`jobs`: that it holds now. `alive`: it has said so within SILENT seconds."""

    id: str
    lanes: list[str]
    version: str
    started_at: datetime
    heartbeat_at: datetime
    jobs: int = field(
        metadata={"sql": "(SELECT count(*) FROM job WHERE holder = process.id AND state = 'running')"}
    )
    alive: bool = field(
        metadata={"sql": f"heartbeat_at > clock_timestamp() - make_interval(secs => {SILENT})"}
    )


def known(conn: Connection) -> list[ProcessRow]:
    """Those of the last day, the newest sign of life first."""
    return select(conn, ProcessRow, "FROM process ORDER BY heartbeat_at DESC, id LIMIT 1000").fetchall()
