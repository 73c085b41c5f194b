"""`controlplane notifications`"""

from __future__ import annotations

import json

import click

from controlplane.cli import options, show
from controlplane.cli.api import Api, in_path


@click.group("notifications")
def command() -> None:
    """What the operator's systems were reported: list, show, redeliver."""


@command.command("list")
@click.option("--state", type=click.Choice(["waiting", "delivered", "dead", "no_destination"]))
@options.limited
@options.as_json
def list_(*, state: str | None, limit: int, everything: bool, as_json: bool) -> None:
    """Newest first."""
    found = Api.from_environment().listing(
        "/v1/notifications", limit=None if everything else limit, state=state
    )
    if as_json:
        show.as_json(found)
        return
    show.table(
        ["NOTIFICATION", "WHAT", "TENANT", "STATE", "CREATED", "ATTEMPTS", "ANSWER"],
        [
            (
                item["id"],
                item["kind"],
                item["tenant"],
                item["state"],
                show.moment(item["created_at"]),
                item["attempts"],
                item["answer"],
            )
            for item in found["items"]
        ],
        none="no notifications",
    )
    show.more(found)


@command.command("show")
@click.argument("notification")
@options.as_json
def show_(*, notification: str, as_json: bool) -> None:
    """One notification, with what is sent."""
    found = Api.from_environment().get(f"/v1/notifications/{in_path('notification', notification)}")
    if as_json:
        show.as_json(found)
        return
    show.pairs(
        [
            ("notification", found["id"]),
            ("what", found["kind"]),
            ("tenant", found["tenant"]),
            ("state", found["state"]),
            ("attempts", found["attempts"]),
            ("answer", found["answer"]),
            ("created", show.moment(found["created_at"])),
            ("next attempt", found["next_attempt_at"] and show.moment(found["next_attempt_at"])),
            ("finished", found["finished_at"] and show.moment(found["finished_at"])),
        ]
    )
    show.line()
    for text in json.dumps(found["payload"], indent=2).splitlines():
        show.line(text)


@command.command()
@click.argument("notification")
@options.as_json
def redeliver(*, notification: str, as_json: bool) -> None:
    """Have it delivered again, under the same id."""
    found = Api.from_environment().post(
        f"/v1/notifications/{in_path('notification', notification)}/redeliver"
    )["notification"]
    if as_json:
        show.as_json(found)
    else:
        show.line(f"notification {found['id']} is {found['state']}: a worker will deliver it again")
