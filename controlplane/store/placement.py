"""Placements and their logins."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from controlplane.domain.placement import Placement, PlacementState
from controlplane.store.registry import Connection, one, select, transition


def insert(conn: Connection, placement: Placement, *, state: PlacementState = PlacementState.CURRENT) -> None:
    """`state`: TARGET for the one that a transfer goes to."""
    conn.execute(
        "INSERT INTO placement (tenant_id, number, cluster_id, state) VALUES (%s, %s, %s, %s)",
        [placement.tenant_id, placement.number, placement.cluster_id, state],
    )
    logins = (("app", placement.app_roles[0]), ("migrator", placement.migrator_role))
    for login, username in logins:
        conn.execute(
            "INSERT INTO credential (tenant_id, number, login, username) VALUES (%s, %s, %s, %s)",
            [placement.tenant_id, placement.number, login, username],
        )


def current(conn: Connection, tenant_id: str) -> Placement | None:
    return select(
        conn, Placement, "FROM placement WHERE tenant_id = %s AND state = 'current'", [tenant_id]
    ).fetchone()


def get(conn: Connection, tenant_id: str, number: int) -> Placement:
    return one(
        select(
            conn, Placement, "FROM placement WHERE tenant_id = %s AND number = %s", [tenant_id, number]
        ).fetchone()
    )


def next_number(conn: Connection, tenant_id: str) -> int:
    row = conn.execute(
        "SELECT coalesce(max(number), 0) + 1 AS n FROM placement WHERE tenant_id = %s", [tenant_id]
    ).fetchone()
    return int(one(row)["n"])


def mark_gone(conn: Connection, placement: Placement) -> None:
    """Nothing is left of it outside, and its slot is free."""
    turn(conn, placement.tenant_id, placement.number, PlacementState.PURGED)


def turn(conn: Connection, tenant_id: str, number: int | None, to: PlacementState) -> None:
    """Raises LookupError where it can't come to this state, which the tenant's lease makes impossible."""
    key = {"tenant_id": tenant_id, "number": number}
    transition(conn, "placement", key, to, error=LookupError)


@dataclass(frozen=True, slots=True)
class Login:
    """`password_from`: the version of the secret that its password was last set from. `age`, `retire_in`:
    seconds, see `CredentialStatus`."""

    username: str
    password_from: str | None
    generation: int
    requested: int
    rotated_at: datetime
    age: float = field(metadata={"sql": "extract(epoch FROM clock_timestamp() - rotated_at)::float8"})
    retire_in: float | None = field(
        metadata={"sql": "extract(epoch FROM retire_at - clock_timestamp())::float8"}
    )


def login(conn: Connection, placement: Placement, name: str) -> Login:
    return one(
        select(
            conn,
            Login,
            "FROM credential WHERE tenant_id = %s AND number = %s AND login = %s",
            [placement.tenant_id, placement.number, name],
        ).fetchone()
    )


def set_password_from(
    conn: Connection, placement: Placement, name: str, version: str | None, *, username: str | None = None
) -> None:
    """`username`: the one that the secret names, where it is known."""
    conn.execute(
        "UPDATE credential SET password_from = %s, username = coalesce(%s, username)"
        " WHERE tenant_id = %s AND number = %s AND login = %s",
        [version, username, placement.tenant_id, placement.number, name],
    )


def ask_rotation(conn: Connection, placement: Placement) -> None:
    """A new password for each of the placement's logins; asked twice before it is done, it is one."""
    conn.execute(
        "UPDATE credential SET requested = generation + 1 WHERE tenant_id = %s AND number = %s",
        [placement.tenant_id, placement.number],
    )


def rotated(
    conn: Connection,
    placement: Placement,
    name: str,
    *,
    generation: int,
    username: str,
    version: str,
    retire_in: float | None,
) -> None:
    """The secret names `username` with the password of `version` now. `retire_in`: seconds until the
    login that was in use before is to be retired; None where there is none."""
    conn.execute(
        "UPDATE credential SET generation = %(generation)s, requested = greatest(requested, %(generation)s),"
        " username = %(username)s, password_from = %(version)s, rotated_at = clock_timestamp(),"
        " retire_at = clock_timestamp() + make_interval(secs => %(retire_in)s)"
        " WHERE tenant_id = %(tenant)s AND number = %(number)s AND login = %(login)s",
        {
            "generation": generation,
            "username": username,
            "version": version,
            "retire_in": retire_in,
            "tenant": placement.tenant_id,
            "number": placement.number,
            "login": name,
        },
    )


def skip_generation(conn: Connection, placement: Placement, name: str, *, generation: int) -> None:
    """This generation was never in use and will not be; a rotation is still wanted."""
    conn.execute(
        "UPDATE credential SET generation = %(generation)s, requested = %(generation)s + 1"
        " WHERE tenant_id = %(tenant)s AND number = %(number)s AND login = %(login)s",
        {
            "generation": generation,
            "tenant": placement.tenant_id,
            "number": placement.number,
            "login": name,
        },
    )


def retired(conn: Connection, placement: Placement, name: str) -> None:
    conn.execute(
        "UPDATE credential SET retire_at = NULL WHERE tenant_id = %s AND number = %s AND login = %s",
        [placement.tenant_id, placement.number, name],
    )
