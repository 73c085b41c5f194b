"""`controlplane catalogue`"""

from __future__ import annotations

from pathlib import Path

import click

from controlplane.cli import options, show
from controlplane.cli.failure import Misuse, clear_errors
from controlplane.domain.catalogue import parse_catalogue


@click.group("catalogue")
def command() -> None:
    """The plan catalogue: what a price buys."""


@command.command()
@click.argument("file", type=click.Path(path_type=Path))
@options.as_json
def check(*, file: Path, as_json: bool) -> None:
    """Read FILE as the workers will, and name every mistake in it."""
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise Misuse(f"{file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise Misuse(f"{file}: expected UTF-8") from error
    with clear_errors():
        found = parse_catalogue(text, source=str(file))
    if as_json:
        show.as_json({"version": found.version, "plans": list(found.plans), "addons": list(found.addons)})
    else:
        show.line(f"{file}: good, {len(found.plans)} plans: {', '.join(found.plans)}")
