"""`controlplane db`: the registry's schema, without the API, since it comes before it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click
import psycopg
from psycopg.rows import dict_row

from controlplane.cli import options, show
from controlplane.cli.failure import Failure, Unreachable, clear_errors
from controlplane.settings import RegistrySettings
from controlplane.store import schema_version
from controlplane.store.registry import Connection

CONNECT_TIMEOUT = 5  # seconds
STATEMENT_TIMEOUT = 600  # seconds that one statement of a migration may take


@click.group("db")
def command() -> None:
    """The registry's schema. Reads CONTROLPLANE_REGISTRY_URL."""


@command.command()
@options.as_json
def upgrade(*, as_json: bool) -> None:
    """Bring the schema up to date. Safe to run from several places at once."""
    with _registry() as conn:
        applied = schema_version.upgrade(conn)
    if as_json:
        show.as_json({"applied": applied})
    else:
        for name in applied:
            show.line(f"applied {name}")
        show.line("the schema is current")


@command.command()
@options.as_json
def check(*, as_json: bool) -> None:
    """Is the registry reachable and its schema current?"""
    with _registry() as conn:
        current = schema_version.is_current(conn)
    if as_json:
        show.as_json({"current": current})
    if not current:
        raise Failure("the schema is older than this release: run `controlplane db upgrade`")
    if not as_json:
        show.line("the schema is current")


@contextmanager
def _registry() -> Iterator[Connection]:
    """One connection without the pool around it, whose errors say what libpq said."""
    with clear_errors():
        settings = RegistrySettings.from_environment()
        try:
            with psycopg.connect(
                settings.registry_url,
                autocommit=True,
                row_factory=dict_row,
                connect_timeout=CONNECT_TIMEOUT,
                options=f"-c statement_timeout={STATEMENT_TIMEOUT * 1000} -c TimeZone=UTC",
            ) as conn:
                yield conn
        except psycopg.OperationalError as error:
            raise Unreachable(f"the registry: {str(error).splitlines()[0]}") from error
        except psycopg.Error as error:
            raise Failure(f"the registry: {str(error).splitlines()[0]}") from error
