"""Releases: register one from its files, show it, accept what the linter found in it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from controlplane.domain.errors import Invalid
from controlplane.domain.release import (
    MAX_FILE_BYTES,
    Adapter,
    Release,
    ReleaseFile,
    compose,
    digest_of,
)
from controlplane.store import audit, release
from controlplane.store.registry import Connection
from controlplane.store.release import FindingRow, ReleaseRow


@dataclass(frozen=True, slots=True)
class Finding:
    """A dangerous statement. `line` counts from 1."""

    rule: str
    file: str
    line: int
    statement: str
    message: str


Lint = Callable[[Sequence[ReleaseFile]], list[Finding]]
"""Finds the dangerous statements in numbered SQL files."""


@dataclass(frozen=True, slots=True)
class ReleaseDetail:
    release: ReleaseRow
    files: tuple[ReleaseFile, ...]
    findings: list[FindingRow]


def store_file(conn: Connection, body: bytes) -> str:
    """Keep the contents of a migration until a release names it; its digest. Raises Invalid."""
    if not body or len(body) > MAX_FILE_BYTES:
        raise Invalid("body", f"1 to {MAX_FILE_BYTES} bytes", got=len(body))
    file = ReleaseFile("", digest_of(body), body)
    release.put_file(conn, file)
    return file.sha256


def create(
    conn: Connection, adapter: Adapter, files: Sequence[tuple[str, str]], lint: Lint, *, actor: str
) -> ReleaseDetail:
    """Register a release from (name, digest) in order; numbered SQL must have been stored before.

    With the first one the registry decides which release a tenant has, and no longer the workers'
    folder. Raises Invalid, Conflict (see `domain.release.compose`).
    """
    with conn.transaction():
        release.lock(conn)
        newest = release.newest(conn)
        kept = release.bodies(conn, [digest for _, digest in files]) if adapter is Adapter.SQL else {}
        made = compose(
            adapter, [ReleaseFile(name, digest, kept.get(digest)) for name, digest in files], newest
        )
        release.insert(conn, made, actor=actor)
        fresh = made.files if newest is None else made.files[len(newest.files) :]
        found = lint(fresh) if adapter is Adapter.SQL else []
        release.add_findings(conn, [_row(made, finding) for finding in found])
        if newest is None:
            release.adopt_fleet(conn)
            born = release.of_new_tenants(conn)
            if born is not None:
                release.give_new_tenants(conn, born)
        audit.append(
            conn,
            actor=actor,
            action="release.create",
            resource=f"release:{made.number}",
            detail={"adapter": adapter, "checksum": made.checksum, "files": len(made.files)},
        )
        return show(conn, made.number)


def _row(made: Release, finding: Finding) -> FindingRow:
    """Its id is that of the statement and the rule, so that it is the same on every look."""
    seed = f"{made.number}\0{finding.file}\0{finding.line}\0{finding.rule}\0{finding.statement}"
    return FindingRow(
        id="f-" + hashlib.sha256(seed.encode()).hexdigest()[:10],
        number=made.number,
        rule=finding.rule,
        file=finding.file,
        line=finding.line,
        statement=finding.statement[:500],
        message=finding.message[:500],
        accepted_by=None,
        accepted_at=None,
        reason=None,
    )


def accept(conn: Connection, finding_id: str, *, actor: str, reason: str) -> FindingRow:
    """Somebody has looked at the statement and takes it. Raises NotFound, Invalid."""
    if not 3 <= len(reason.strip()) <= 500:
        raise Invalid("reason", "3 to 500 characters that say why it is safe here")
    with conn.transaction():
        row = release.accept_finding(conn, finding_id, actor=actor, reason=reason.strip())
        audit.append(
            conn,
            actor=actor,
            action="release.accept",
            resource=f"release:{row.number}",
            detail={"finding": row.id, "rule": row.rule, "file": row.file, "reason": reason.strip()},
        )
    return row


def show(conn: Connection, number: str) -> ReleaseDetail:
    """Raises NotFound."""
    return ReleaseDetail(
        release=release.get(conn, number),
        files=release.load(conn, number).files,
        findings=release.findings(conn, number),
    )
