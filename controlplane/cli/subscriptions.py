"""`controlplane subscriptions`"""

from __future__ import annotations

import click

from controlplane.cli import options, show
from controlplane.cli.api import Api


@click.group("subscriptions")
def command() -> None:
    """Subscriptions: what became of the last observation of each."""


@command.command("list")
@click.option("--outcome", type=click.Choice(["new", "applied", "waiting", "ignored", "parked"]))
@options.limited
@options.as_json
def list_(*, outcome: str | None, limit: int, everything: bool, as_json: bool) -> None:
    """Oldest first. `--outcome parked` are those that wait for a person."""
    found = Api.from_environment().listing(
        "/v1/subscriptions", limit=None if everything else limit, outcome=outcome
    )
    if as_json:
        show.as_json(found)
        return
    show.table(
        ["SUBSCRIPTION", "CUSTOMER", "STATUS", "OUTCOME", "TENANT", "SINCE", "REASON"],
        [
            (
                item["id"],
                item["customer"],
                item["status"],
                item["outcome"],
                item["tenant"],
                show.moment(item["first_event_at"]),
                item["reason"],
            )
            for item in found["items"]
        ],
        none="no subscriptions",
    )
    show.more(found)
