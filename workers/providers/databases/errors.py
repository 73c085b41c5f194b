"""What a PostgreSQL error means for the engine.

A server's error carries an SQLSTATE, and that decides. An error *while connecting* carries none:
libpq keeps its text alone (psycopg 3.3, libpq 18), so the few texts that make a difference are
matched here, in one place. They are the server's English ones, which is what RDS speaks. A text that
nobody knows is a person's case if the server sent it ("FATAL:") and retried if the network did.

Only SQLSTATE and primary message are passed on, shortened. The server's DETAIL is left out, because
it quotes rows ("Key (email)=(…) already exists") and these messages end in logs and on screens.
"""

from __future__ import annotations

import re

import psycopg

from controlplane.domain.errors import ControlPlaneError, NeedsHuman, Retryable

RUNBOOK = "tenant-database"
MESSAGE_CHARACTERS = 300

# "PostgreSQL Error Codes", appendix A of the manual: two characters are a whole class.
RETRYABLE_CLASSES = frozenset({"08", "40", "53"})  # connection, rollback, insufficient resources
RETRYABLE_STATES = frozenset(
    {
        "25P03",  # idle_in_transaction_session_timeout
        "55006",  # object_in_use: CREATE DATABASE met another one
        "55P03",  # lock_not_available: our lock_timeout
        "57014",  # query_canceled: our statement_timeout
        "57P01",  # admin_shutdown, pg_terminate_backend
        "57P02",  # crash_shutdown
        "57P03",  # cannot_connect_now
        "57P05",  # idle_session_timeout
    }
)

_LOGIN_REFUSED = re.compile(
    r"password authentication failed|is not permitted to log in|no password supplied"
    r'|FATAL:  role ".*" does not exist|PAM authentication failed'
)
_NO_SUCH_DATABASE = re.compile(r'FATAL:  database ".*" does not exist')
_DATABASE_CLOSED = re.compile(r"is not currently accepting connections|permission denied for database")
_BUSY = re.compile(
    r"too many connections|too many clients|remaining connection slots"
    r"|the database system is|terminating connection|not yet accepting connections"
)
_MISCONFIGURED = re.compile(
    r"SSL was required|does not support SSL|certificate|no pg_hba.conf"
    r"|invalid (sslmode|connection|port|integer)"
)
# PostgreSQL 16 and later; up to 15.
_SUPERUSERS_SESSION = re.compile(r"permission denied to terminate process|to terminate superuser process")


class LoginRefused(Retryable):
    """The server refused this login. A new password may be on its way, so a later pass may get in."""


class DatabaseClosed(Retryable):
    """The database lets nobody, or not this login, in at the moment."""


class NoSuchDatabase(NeedsHuman):
    """The database that should be there is not."""


def connect_error(error: psycopg.Error, what: str) -> ControlPlaneError:
    """`what`: the login and database, for the message."""
    text = str(error)
    message = f"{what}: {shorten(text)}"
    if _LOGIN_REFUSED.search(text):
        return LoginRefused(message)
    if _NO_SUCH_DATABASE.search(text):
        return NoSuchDatabase(message, runbook=RUNBOOK)
    if _DATABASE_CLOSED.search(text):
        return DatabaseClosed(message)
    if _BUSY.search(text):
        return Retryable(message)
    if "FATAL:" in text or _MISCONFIGURED.search(text) or not isinstance(error, psycopg.OperationalError):
        return NeedsHuman(message, runbook=RUNBOOK)
    return Retryable(message)


def statement_error(error: psycopg.Error, what: str, *, runbook: str = RUNBOOK) -> ControlPlaneError:
    """`what`: what was being done, for the message; `runbook`: for what no retry repairs."""
    state = error.sqlstate
    message = f"{what}: {describe(error)}"
    if state is None:  # the connection broke
        lost = isinstance(error, psycopg.OperationalError)
        return Retryable(message) if lost else NeedsHuman(message, runbook=runbook)
    # Two sessions that changed one catalogue row at once get an "internal error".
    raced = state == "XX000" and "concurrently" in (error.diag.message_primary or "")
    # AWS's own agents visit a database as superusers, whom no master may end, and leave by themselves.
    visited = state == "42501" and _SUPERUSERS_SESSION.search(error.diag.message_primary or "")
    if visited:
        return Retryable(message, runbook=RUNBOOK)
    if state in RETRYABLE_STATES or state[:2] in RETRYABLE_CLASSES or raced:
        return Retryable(message)
    return NeedsHuman(message, runbook=runbook)


def describe(error: psycopg.Error) -> str:
    """SQLSTATE and primary message, or the first line of what the driver says."""
    if error.sqlstate is None:
        return shorten(str(error))
    return f"{error.sqlstate} {shorten(error.diag.message_primary or type(error).__name__)}"


def shorten(text: str) -> str:
    line = text.strip().partition("\n")[0]
    return line if len(line) <= MESSAGE_CHARACTERS else line[: MESSAGE_CHARACTERS - 1] + "…"
