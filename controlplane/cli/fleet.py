"""`controlplane fleet`"""

from __future__ import annotations

import click

from controlplane.actions.action import Subject
from controlplane.cli import actions, options, show
from controlplane.cli.api import Api


@click.group("fleet")
def command() -> None:
    """The workers, and what they must leave alone."""


for _made in actions.commands(Subject.FLEET):
    command.add_command(_made)


@command.command("show")
@options.as_json
def show_(*, as_json: bool) -> None:
    """The processes that work, and what is frozen."""
    found = Api.from_environment().get("/v1/fleet")
    if as_json:
        show.as_json(found)
        return
    show.table(
        ["PROCESS", "LANES", "ALIVE", "JOBS", "VERSION", "HEARTBEAT"],
        [
            (
                row["id"],
                ", ".join(row["lanes"]),
                row["alive"],
                row["jobs"],
                row["version"],
                show.moment(row["heartbeat_at"]),
            )
            for row in found["processes"]
        ],
        none="no process has worked within a day",
    )
    for row in found["freezes"]:
        show.line(show.freeze(row))
