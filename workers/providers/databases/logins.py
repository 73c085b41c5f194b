"""Tenant logins: which names and limits are theirs, how a password is made, and the only form in
which a server gets it.

PostgreSQL takes a role's password in the text of a statement, and statements end in logs
(`log_statement`, `pg_stat_statements`, an audit extension). So the SCRAM verifier is computed on
this side and sent instead: it proves a password and does not yield it ("Password Authentication",
PostgreSQL's manual). With 256 random bits behind it, guessing from a leaked verifier is hopeless too.
"""

from __future__ import annotations

import re
import secrets

import psycopg

from controlplane.domain.errors import Invalid

PASSWORD_BYTES = 32
APP_LOGIN = re.compile(r"p_[a-z2-7]{12}_app_[ab]")
TENANT_LOGIN = re.compile(r"p_[a-z2-7]{12}_(migrator|app_a|app_b)")
MOST_CONNECTIONS = 10_000
LEFT_OPEN_SECONDS = 30.0


def new_password() -> str:
    """256 random bits in URL-safe ASCII, so that no driver and no connection URL has to quote it."""
    return secrets.token_urlsafe(PASSWORD_BYTES)


def scram_verifier(conn: psycopg.Connection, username: str, password: str) -> str:
    """The `SCRAM-SHA-256$…` string for `ALTER ROLE … PASSWORD`, computed here by libpq."""
    return conn.pgconn.encrypt_password(password.encode(), username.encode(), b"scram-sha-256").decode()


def is_tenant_login(username: str) -> bool:
    return TENANT_LOGIN.fullmatch(username) is not None


def require_app_login(username: str) -> None:
    """Raises Invalid for any other role, above all the master: its password is RDS's business."""
    if APP_LOGIN.fullmatch(username) is None:
        raise Invalid("username", "a tenant's application login", got=username)


def require_limit(connection_limit: int) -> None:
    if not 1 <= connection_limit <= MOST_CONNECTIONS:
        raise Invalid("connection_limit", f"1 to {MOST_CONNECTIONS}", got=connection_limit)


def end_left_open(master: psycopg.Connection, *, seconds: float = LEFT_OPEN_SECONDS) -> int:
    """End the sessions of applications, of whichever tenant of the cluster, that have written and then left
    their transaction idle for so many seconds; how many. What reads the log has to wait for each of them,
    so one tenant could else hold up its neighbours' moves: the timeout that logins begin with is theirs to
    lift."""
    return len(
        master.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE usename ~ '^p_[a-z2-7]{12}_app_[ab]$' AND backend_xid IS NOT NULL"
            " AND state LIKE 'idle in transaction%%'"
            " AND state_change <= clock_timestamp() - make_interval(secs => %s)",
            (seconds,),
        ).fetchall()
    )
