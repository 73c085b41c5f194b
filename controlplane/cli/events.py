"""`controlplane events`"""

from __future__ import annotations

import click

from controlplane.cli import options, show
from controlplane.cli.api import Api, in_path


@click.group("events")
def command() -> None:
    """Billing events as they came in: list, show, replay, dismiss."""


@command.command("list")
@click.option("--state", type=click.Choice(["received", "applied", "ignored", "parked"]))
@options.limited
@options.as_json
def list_(*, state: str | None, limit: int, everything: bool, as_json: bool) -> None:
    """Newest first."""
    found = Api.from_environment().listing("/v1/events", limit=None if everything else limit, state=state)
    if as_json:
        show.as_json(found)
        return
    show.table(
        ["EVENT", "TYPE", "STATE", "RECEIVED", "SUBSCRIPTION", "REASON"],
        [
            (
                item["id"],
                item["type"],
                item["state"],
                show.moment(item["received_at"]),
                item["subscription"],
                item["reason"],
            )
            for item in found["items"]
        ],
        none="no events",
    )
    show.more(found)


@command.command("show")
@click.argument("event")
@options.as_json
def show_(*, event: str, as_json: bool) -> None:
    """One event; its body too, for a token that may see it."""
    found = Api.from_environment().get(f"/v1/events/{in_path('event', event)}")
    if as_json:
        show.as_json(found)
        return
    show.pairs(
        [
            ("event", found["id"]),
            ("type", found["type"]),
            ("API version", found["api_version"]),
            ("livemode", found["livemode"]),
            ("state", found["state"]),
            ("reason", found["reason"]),
            ("subscription", found["subscription"]),
            ("created", show.moment(found["created_at"])),
            ("received", show.moment(found["received_at"])),
            ("handled", found["handled_at"] and show.moment(found["handled_at"])),
        ]
    )
    if "body" in found:
        show.line()
        for text in found["body"].splitlines():
            show.line(text)


@command.command()
@click.argument("event")
@options.as_json
def replay(*, event: str, as_json: bool) -> None:
    """Have a worker handle it again from the start."""
    found = Api.from_environment().post(f"/v1/events/{in_path('event', event)}/replay")["event"]
    if as_json:
        show.as_json(found)
    else:
        show.line(f"event {found['id']} is {found['state']}: a worker will handle it again")


@command.command()
@click.argument("event")
@click.option("--reason", required=True, help="Why nothing is to be done about it, for the audit trail.")
@options.as_json
def dismiss(*, event: str, reason: str, as_json: bool) -> None:
    """Take a parked event off the list of those that wait for a person."""
    path = f"/v1/events/{in_path('event', event)}/dismiss"
    found = Api.from_environment().post(path, {"reason": reason})["event"]
    if as_json:
        show.as_json(found)
    else:
        show.line(f"event {found['id']} is {found['state']}: {found['reason']}")
