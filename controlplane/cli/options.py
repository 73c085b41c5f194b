"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON value.")


def limited(command: F) -> F:
    """`limit` and `everything`."""
    decorate = click.option(
        "--limit", type=click.IntRange(1, 100_000), default=50, show_default=True, help="How many at most."
    )
    return decorate(click.option("--all", "everything", is_flag=True, help="All of them.")(command))


def timeout(seconds: float) -> Callable[[F], F]:
    return click.option(
        "--timeout",
        type=click.FloatRange(1, 86_400),
        default=seconds,
        show_default=True,
        help="Seconds to wait at most.",
    )
