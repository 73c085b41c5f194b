"""Placements and their applications' logins."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from controlplane.domain.job import JobKind
from controlplane.domain.placement import Placement, PlacementState
from controlplane.store import job
from controlplane.store.registry import Connection, one, select, transition


def insert(conn: Connection, placement: Placement, *, state: PlacementState = PlacementState.CURRENT) -> None:
    """`state`: TARGET for the one that a transfer goes to."""
    conn.execute(
        "INSERT INTO placement (id, tenant_id, cluster_id, state, username) VALUES (%s, %s, %s, %s, %s)",
        [placement.id, placement.tenant_id, placement.cluster_id, state, placement.app_roles[0]],
    )


def current(conn: Connection, tenant_id: str) -> Placement | None:
    return select(
        conn, Placement, "FROM placement WHERE tenant_id = %s AND state = 'current'", [tenant_id]
    ).fetchone()


def get(conn: Connection, placement_id: str) -> Placement:
    return one(select(conn, Placement, "FROM placement WHERE id = %s", [placement_id]).fetchone())


def all_of(conn: Connection, tenant_id: str) -> list[Placement]:
    """Where it lives and ever lived, oldest first."""
    return select(
        conn, Placement, "FROM placement WHERE tenant_id = %s ORDER BY created_at", [tenant_id]
    ).fetchall()


def on_cluster(conn: Connection, cluster_id: str) -> list[Placement]:
    """All that are or were there, for whatever of them is left."""
    return select(
        conn, Placement, "FROM placement WHERE cluster_id = %s ORDER BY created_at", [cluster_id]
    ).fetchall()


def turn(conn: Connection, placement_id: str | None, to: PlacementState) -> None:
    """Raises LookupError where it can't come to this state, which the tenant's lease makes impossible."""
    transition(conn, "placement", {"id": placement_id}, to, error=LookupError)


def release(conn: Connection, placed: Placement, *, by: str, actor: str) -> None:
    """Its database is gone and its slot is free; its cluster's own operation takes the secret away, by the
    word of `by`."""
    conn.execute("UPDATE placement SET released_by = %s WHERE id = %s", [by[:1000], placed.id])
    turn(conn, placed.id, PlacementState.RELEASED)
    job.ensure(conn, JobKind.CLUSTER, placed.cluster_id, reason=by, actor=actor)


def purged(conn: Connection, released: Iterable[str]) -> None:
    """Nothing of these is left outside."""
    for placement_id in released:
        turn(conn, placement_id, PlacementState.PURGED)


@dataclass(frozen=True, slots=True)
class Login:
    """The application's, of a placement. `password_from`: the version of the secret that its password was
    last set from. `age`, `retire_in`: seconds, see `CredentialStatus`. `access_proof`: the digest of what was
    shown to work together, None where nothing was."""

    username: str
    password_from: str | None
    generation: int
    requested: int
    rotated_at: datetime
    access_proof: str | None
    age: float = field(metadata={"sql": "extract(epoch FROM clock_timestamp() - rotated_at)::float8"})
    retire_in: float | None = field(
        metadata={"sql": "extract(epoch FROM retire_at - clock_timestamp())::float8"}
    )


def login(conn: Connection, placement: Placement) -> Login:
    return one(select(conn, Login, "FROM placement WHERE id = %s", [placement.id]).fetchone())


def set_password_from(
    conn: Connection, placement: Placement, version: str | None, *, username: str | None = None
) -> None:
    """`username`: the one that the secret names, where it is known."""
    conn.execute(
        "UPDATE placement SET password_from = %s, username = coalesce(%s, username) WHERE id = %s",
        [version, username, placement.id],
    )


def ask_rotation(conn: Connection, placement: Placement) -> None:
    """A new password for the placement's login; asked twice before it is done, it is one."""
    conn.execute(
        "UPDATE placement SET requested = generation + 1 WHERE id = %s",
        [placement.id],
    )


def rotated(
    conn: Connection,
    placement: Placement,
    *,
    generation: int,
    username: str,
    version: str,
    retire_in: float,
) -> None:
    """The secret names `username` with the password of `version` now. `retire_in`: seconds until the
    login that was in use before is to be retired."""
    conn.execute(
        "UPDATE placement SET generation = %(generation)s, requested = greatest(requested, %(generation)s),"
        " username = %(username)s, password_from = %(version)s, rotated_at = clock_timestamp(),"
        " retire_at = clock_timestamp() + make_interval(secs => %(retire_in)s)"
        " WHERE id = %(placement)s",
        {
            "generation": generation,
            "username": username,
            "version": version,
            "retire_in": retire_in,
            "placement": placement.id,
        },
    )


def skip_generation(conn: Connection, placement: Placement, *, generation: int) -> None:
    """This generation was never in use and will not be; a rotation is still wanted."""
    conn.execute(
        "UPDATE placement SET generation = %(generation)s, requested = %(generation)s + 1"
        " WHERE id = %(placement)s",
        {"generation": generation, "placement": placement.id},
    )


def set_access_proof(conn: Connection, placement: Placement, access_proof: str | None) -> None:
    conn.execute("UPDATE placement SET access_proof = %s WHERE id = %s", [access_proof, placement.id])


def retired(conn: Connection, placement: Placement) -> None:
    conn.execute("UPDATE placement SET retire_at = NULL WHERE id = %s", [placement.id])
