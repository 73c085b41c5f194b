"""From one end to the other, a piece of the log at a time, and no change twice.

A piece is read from the slot without consuming it, made in the target together with the position of its
last commit, and only then given up at the source. Whoever dies in between leaves a piece that is read once
more, and passes over what the target says it has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import psycopg

from controlplane.domain.errors import Retryable
from controlplane.workers.providers.moves import progress, stream
from controlplane.workers.providers.moves import tables as catalogue
from controlplane.workers.providers.moves.applying import Applier
from controlplane.workers.providers.moves.pgoutput import Begin, Commit, Message, Note, Relation
from controlplane.workers.providers.moves.progress import Progress, Snapshot
from controlplane.workers.providers.ports import MoveRun

APPLY_AT_ONCE = 5000


@dataclass(frozen=True, slots=True)
class Ends:
    """`name`: of slot and publication. `master`, `reader`: the source's master and migrator; `writer`: the
    target's migrator."""

    name: str
    master: psycopg.Connection
    reader: psycopg.Connection
    writer: psycopg.Connection


def follow_a_piece(ends: Ends, run: MoveRun, note: bytes | None) -> tuple[int, bool]:
    """How many changes it had that were new, and whether the note was in it."""
    run.check()
    end = stream.end_of_log(ends.master)
    target = _Target(ends.writer, run)
    waiting: list[Message] = []
    current: list[Message] = []
    begun, last, met = Begin(0, 0), Commit(0, 0), False
    for message in stream.read(ends.master, ends.name):
        match message:
            case Begin():
                begun, current = message, []
            case Relation():
                target.applier.learn(message)
            case Note():
                met = met or (message.prefix == stream.NOTE and message.content == note)
            case Commit():
                last = message
                if not target.has(begun):
                    waiting += current
                if len(waiting) >= APPLY_AT_ONCE:
                    target.make(waiting, last)
                    waiting = []
            case _:
                current.append(message)
    if waiting:
        target.make(waiting, last)
    stream.advance(ends.master, ends.name, stream.lsn_text(last.end) if last.end else end)
    return target.applier.changes, met


class _Target:
    def __init__(self, writer: psycopg.Connection, run: MoveRun) -> None:
        self._writer = writer
        self._run = run
        with writer.transaction():
            self._at = progress.take(writer, run.fencing_token)
        self._snapshot = _snapshot_of(self._at)
        self.applier = Applier(writer, {table.label: table for table in catalogue.tables(writer)})

    def has(self, begun: Begin) -> bool:
        """Is what this transaction changed in the copy already?"""
        if begun.lsn <= self._at.applied:
            return True
        return begun.lsn <= self._at.copied_to and self._snapshot.sees(begun.xid)

    def make(self, changes: Sequence[Message], last: Commit) -> None:
        """`last`: the end of the last transaction among them, or of one behind it that has no changes."""
        self._run.check()
        with self._writer.transaction():
            here = progress.take(self._writer, self._run.fencing_token)
            if here.applied != self._at.applied:
                raise Retryable("somebody else has been at the copy")
            self.applier.apply(changes)
            progress.applied(self._writer, last.lsn)
        self._at = replace(here, applied=last.lsn)


def _snapshot_of(at: Progress) -> Snapshot:
    if at.snapshot is None:
        raise Retryable("the rows have not been copied")
    return Snapshot(at.snapshot)
