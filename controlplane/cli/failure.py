"""How a command fails: lines on stderr, and a status that scripts can tell apart."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from typing import IO, Any

import click

from controlplane.domain.errors import ControlPlaneError, NotFound
from controlplane.settings import SettingsError

EXTRA = "install the extra `localcloud` (pip install 'tenant-controlplane[localcloud]')"


class Exit(IntEnum):
    OK = 0
    FAILED = 1
    MISUSE = 2
    UNREACHABLE = 3
    MISSING = 4
    NOT_ALLOWED = 5
    GAVE_UP = 6
    INTERRUPTED = 130


class Failure(click.ClickException):
    """It was tried and failed. Each line of the message becomes a line behind "error:"."""

    exit_code = Exit.FAILED

    def show(self, file: IO[Any] | None = None) -> None:
        for line in self.message.splitlines():
            click.echo(f"error: {line}", file=file, err=file is None)


class Misuse(Failure):
    """The command, a setting or a file is not as it should be."""

    exit_code = Exit.MISUSE


class Unreachable(Failure):
    """The API or the registry does not answer."""

    exit_code = Exit.UNREACHABLE


class Missing(Failure):
    """What was asked for does not exist."""

    exit_code = Exit.MISSING


class NotAllowed(Failure):
    """No token, a wrong one, or one that may not do this."""

    exit_code = Exit.NOT_ALLOWED


class GaveUp(Failure):
    """It goes on, and the time to wait for it is over."""

    exit_code = Exit.GAVE_UP


@contextmanager
def clear_errors() -> Iterator[None]:
    """Errors of ours leave as a Failure: clear lines, no traceback."""
    try:
        yield
    except SettingsError as error:
        raise Misuse(str(error)) from error
    except NotFound as error:
        raise Missing(str(error)) from error
    except ControlPlaneError as error:
        raise Failure(str(error)) from error


@contextmanager
def clear_services() -> Iterator[None]:
    """The same for what the local cloud lacks or can't start, for commands that bring their own world."""
    from controlplane.localcloud.servers.process import ServiceError

    try:
        yield
    except ModuleNotFoundError as error:
        raise Failure(f"the Python package {error.name} is not installed: {EXTRA}") from error
    except ServiceError as error:
        raise Failure(str(error)) from error
