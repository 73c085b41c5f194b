"""Which of the errors that a server or a network gives is retried, and which is a person's case."""

from __future__ import annotations

import psycopg
import pytest

from controlplane.domain.errors import ControlPlaneError, NeedsHuman, Retryable
from controlplane.workers.providers.databases.errors import (
    DatabaseClosed,
    LoginRefused,
    NoSuchDatabase,
    connect_error,
    statement_error,
)

AT = 'connection failed: connection to server at "10.0.0.1", port 5432 failed: '


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (AT + 'FATAL:  password authentication failed for user "x"', LoginRefused),
        (AT + 'FATAL:  role "x" is not permitted to log in', LoginRefused),
        (AT + 'FATAL:  role "x" does not exist', LoginRefused),
        (AT + 'FATAL:  database "x" does not exist', NoSuchDatabase),
        (AT + 'FATAL:  database "x" is not currently accepting connections', DatabaseClosed),
        (AT + 'FATAL:  permission denied for database "x"', DatabaseClosed),
        (AT + 'FATAL:  too many connections for role "x"', Retryable),
        (AT + "FATAL:  sorry, too many clients already", Retryable),
        (AT + "FATAL:  remaining connection slots are reserved for roles with …", Retryable),
        (AT + "FATAL:  the database system is starting up", Retryable),
        (AT + "FATAL:  the database system is shutting down", Retryable),
        (AT + "FATAL:  terminating connection due to administrator command", Retryable),
        (AT + "Connection refused\n\tIs the server running on that host?", Retryable),
        (AT + "server closed the connection unexpectedly", Retryable),
        ('connection failed: could not translate host name "x" to address', Retryable),
        ("connection timeout expired", Retryable),
        (AT + 'FATAL:  no pg_hba.conf entry for host "10.0.0.9", user "x"', NeedsHuman),
        (AT + "FATAL:  something that nobody has seen", NeedsHuman),
        (AT + "SSL error: certificate verify failed", NeedsHuman),
        (AT + "server does not support SSL, but SSL was required", NeedsHuman),
        ('connection is bad: invalid sslmode value: "x"', NeedsHuman),
    ],
)
def test_while_connecting(text: str, kind: type[ControlPlaneError]) -> None:
    error = connect_error(psycopg.OperationalError(text), "app@db on host")
    assert type(error) is kind
    assert str(error).startswith("app@db on host: connection")
    assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("state", "kind"),
    [
        ("08006", Retryable),
        ("40001", Retryable),
        ("40P01", Retryable),
        ("53100", Retryable),
        ("53300", Retryable),
        ("55006", Retryable),
        ("55P03", Retryable),
        ("57014", Retryable),
        ("57P01", Retryable),
        ("42501", NeedsHuman),
        ("2BP01", NeedsHuman),
        ("XX000", NeedsHuman),
    ],
)
def test_of_a_statement(state: str, kind: type[ControlPlaneError]) -> None:
    error = statement_error(psycopg.errors.lookup(state)("…"), "creating", runbook="page")
    assert type(error) is kind
    assert str(error).startswith(f"creating: {state} ")
    assert getattr(error, "runbook", None) == ("page" if kind is NeedsHuman else None)


def test_a_lost_connection_is_retried_and_a_driver_error_is_not() -> None:
    assert type(statement_error(psycopg.OperationalError("consuming input failed"), "x")) is Retryable
    assert type(statement_error(psycopg.ProgrammingError("wrong use"), "x")) is NeedsHuman


def test_a_long_message_is_cut() -> None:
    assert len(str(connect_error(psycopg.OperationalError("x" * 5000), "who"))) == len("who: ") + 300
