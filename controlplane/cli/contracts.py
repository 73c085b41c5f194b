"""`controlplane contracts`"""

from __future__ import annotations

import click

from controlplane.cli import options, show
from controlplane.cli.api import Api, Json


@click.group("contracts")
def command() -> None:
    """Contracts: what customers are owed, and what became of the last observation of each."""


@command.command("list")
@click.option("--outcome", type=click.Choice(["new", "applied", "waiting", "ignored", "parked"]))
@options.limited
@options.as_json
def list_(*, outcome: str | None, limit: int, everything: bool, as_json: bool) -> None:
    """Oldest first. `--outcome parked` are those that wait for a person."""
    found = Api.from_environment().listing(
        "/v1/contracts", limit=None if everything else limit, outcome=outcome
    )
    if as_json:
        show.as_json(found)
        return
    show.table(
        ["CONTRACT", "CUSTOMER", "STANDING", "OUTCOME", "TENANT", "SINCE", "REASON"],
        [
            (
                item["id"],
                item["customer"],
                item["standing"],
                item["outcome"],
                item["tenant"],
                show.moment(item["first_event_at"]),
                _proposed(item) or item["reason"],
            )
            for item in found["items"]
        ],
        none="no contracts",
    )
    show.more(found)


def _proposed(item: Json) -> str | None:
    asked = item["proposed"]
    return asked and f"{asked['actor']} asks for it to be for {asked['tenant']}; a second person must, too"
