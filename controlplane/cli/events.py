"""`controlplane events`"""

from __future__ import annotations

import click

from controlplane.cli import options, show
from controlplane.cli.api import Api, Json, in_path
from controlplane.cli.failure import Misuse

MOST = 1000  # that one request replays
ALL = 100_000


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
    _table(found["items"], none="no events")
    show.more(found)


def _table(items: list[Json], *, none: str) -> None:
    show.table(
        ["EVENT", "TYPE", "STATE", "RECEIVED", "CONTRACT", "REASON"],
        [
            (
                item["id"],
                item["type"],
                item["state"],
                show.moment(item["received_at"]),
                item["contract"],
                item["reason"],
            )
            for item in items
        ],
        none=none,
    )


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
            ("contract", found["contract"]),
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
@click.argument("event", required=False)
@click.option("--state", type=click.Choice(["parked"]), help="Those in this state, instead of one EVENT.")
@click.option("--because", metavar="TEXT", help="Of the parked ones those whose reason has TEXT in it.")
@click.option("--dry-run", is_flag=True, help="List them and replay none.")
@click.option("--limit", type=click.IntRange(1, ALL), help="How many at most; all unless given.")
@options.as_json
def replay(
    *,
    event: str | None,
    state: str | None,
    because: str | None,
    dry_run: bool,
    limit: int | None,
    as_json: bool,
) -> None:
    """Have a worker handle EVENT again from the start, or all that are parked for one cause:
    --state parked --because TEXT."""
    if because is not None and event is None:
        _replay_because(because, dry_run=dry_run, limit=limit, as_json=as_json)
        return
    if event is None or because is not None or state or dry_run or limit:
        raise Misuse("expected EVENT alone, or --state parked --because TEXT with --dry-run and --limit")
    found = Api.from_environment().post(f"/v1/events/{in_path('event', event)}/replay")["event"]
    if as_json:
        show.as_json(found)
    else:
        show.line(f"event {found['id']} is {found['state']}: a worker will handle it again")


def _replay_because(text: str, *, dry_run: bool, limit: int | None, as_json: bool) -> None:
    """No more of them than there are at first: what is parked again meanwhile is not replayed again."""
    api = Api.from_environment()
    asked = {"because": text, "dry_run": dry_run}
    found = api.post("/v1/events/replay", {**asked, "limit": min(limit or MOST, MOST)})
    wanted = min(limit or ALL, found["count"] + found["left"])
    items = found["items"]
    while not dry_run and found["items"] and len(items) < wanted:
        click.echo(f"{len(items):,} replayed so far …", err=True)
        found = api.post("/v1/events/replay", {**asked, "limit": min(MOST, wanted - len(items))})
        items += found["items"]
    if as_json:
        show.as_json({"count": len(items), "left": found["left"], "items": items})
        return
    if dry_run and items:
        _table(items, none="")
    would, will = ("would replay", "would") if dry_run else ("replayed", "will")
    more = f"; {found['left']:,} more" if found["left"] else ""
    done = f"{would} {len(items):,} parked events: workers {will} handle them again{more}"
    show.line(done if items else "nothing to do: no parked event has that in its reason")


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
