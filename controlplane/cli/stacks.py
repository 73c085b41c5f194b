"""`controlplane stacks`: run it where a worker runs, with a worker's environment."""

from __future__ import annotations

from dataclasses import asdict

import click

from controlplane.cli import options, show
from controlplane.cli.failure import clear_errors

SAID = {
    ("absent", False): "published",
    ("absent", True): "is not published: it would be",
    ("damaged", False): "was damaged and is replaced",
    ("damaged", True): "is damaged: it would be replaced",
}


@click.group("stacks")
def command() -> None:
    """Releases of the Terraform stacks."""


@command.command()
@click.option("--dry-run", is_flag=True, help="Show what it would do; change nothing.")
@options.as_json
def publish(*, dry_run: bool, as_json: bool) -> None:
    """Put the stacks of this installation into the state bucket, under their digest.

    Clusters go on with the release that each names: `clusters upgrade` brings one to another.
    """
    from controlplane.workers.runtime.wiring import publish_from_environment

    with clear_errors():
        found = publish_from_environment(dry_run=dry_run)
    if as_json:
        show.as_json({**asdict(found), "dry_run": dry_run})
        return
    said = SAID.get((found.found.value, dry_run), "is published already")
    show.line(f"release {found.digest} {said}")
    show.line(f"{found.place}, {found.size} bytes")
