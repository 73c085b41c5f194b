"""Placements and their logins."""

from __future__ import annotations

from controlplane.domain.observed import CredentialObserved
from controlplane.domain.placement import Placement
from controlplane.store.registry import Connection


def insert(conn: Connection, placement: Placement) -> None:
    conn.execute(
        "INSERT INTO placement (tenant_id, number, cluster_id, state) VALUES (%s, %s, %s, 'current')",
        [placement.tenant_id, placement.number, placement.cluster_id],
    )
    logins = (("app", placement.app_roles[0]), ("migrator", placement.migrator_role))
    for login, username in logins:
        conn.execute(
            "INSERT INTO credential (tenant_id, number, login, username) VALUES (%s, %s, %s, %s)",
            [placement.tenant_id, placement.number, login, username],
        )


def current(conn: Connection, tenant_id: str) -> Placement | None:
    row = conn.execute(
        "SELECT tenant_id, number, cluster_id FROM placement WHERE tenant_id = %s AND state = 'current'",
        [tenant_id],
    ).fetchone()
    return None if row is None else Placement(row["tenant_id"], row["number"], row["cluster_id"])


def login(conn: Connection, placement: Placement, name: str) -> tuple[str, str | None]:
    """(username, version of the secret that its password was last set from)."""
    row = conn.execute(
        "SELECT username, password_from FROM credential WHERE tenant_id = %s AND number = %s AND login = %s",
        [placement.tenant_id, placement.number, name],
    ).fetchone()
    if row is None:
        raise LookupError(f"{placement.key} has no login {name}")
    return row["username"], row["password_from"]


def credential(conn: Connection, placement: Placement, name: str, version: str | None) -> CredentialObserved:
    """`version`: what the secret holds now."""
    return CredentialObserved(secret_version=version, password_from=login(conn, placement, name)[1])


def set_password_from(conn: Connection, placement: Placement, name: str, version: str | None) -> None:
    conn.execute(
        "UPDATE credential SET password_from = %s, changed_at = clock_timestamp()"
        " WHERE tenant_id = %s AND number = %s AND login = %s",
        [version, placement.tenant_id, placement.number, name],
    )
