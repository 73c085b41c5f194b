"""`controlplane operations`"""

from __future__ import annotations

from typing import Any

import click

from controlplane.cli import options, show
from controlplane.cli.api import Api, Json, in_path
from controlplane.cli.failure import Failure
from controlplane.cli.watching import watch as watch_operation
from controlplane.domain.job import OperationState
from controlplane.domain.placement import CLUSTER_ID, TENANT_ID


@click.group("operations")
def command() -> None:
    """Attempts to bring a tenant or cluster to what it should be: list, show, watch."""


@command.command("list")
@click.option("--resource", metavar="ID|SLUG", help="Of this tenant or cluster alone.")
@click.option("--state", type=click.Choice([state.value for state in OperationState]))
@options.limited
@options.as_json
def list_(*, resource: str | None, state: str | None, limit: int, everything: bool, as_json: bool) -> None:
    """Newest first."""
    api = Api.from_environment()
    found = api.listing(
        "/v1/operations",
        limit=None if everything else limit,
        resource=None if resource is None else _resource_id(api, resource),
        state=state,
    )
    if as_json:
        show.as_json(found)
        return
    print_list(found["items"])
    show.more(found)


@command.command("show")
@click.argument("operation", type=click.IntRange(1))
@options.as_json
def show_(*, operation: int, as_json: bool) -> None:
    """One operation with its steps and the progress inside them."""
    api = Api.from_environment()
    found = api.get(f"/v1/operations/{operation}")
    while (rest := api.get(f"/v1/operations/{operation}", events_after=found["events_after"]))["events"]:
        found = {**rest, "events": found["events"] + rest["events"]}
    if as_json:
        show.as_json(found)
    else:
        _print(found)


@command.command()
@click.argument("operation", type=click.IntRange(1))
@options.timeout(3600)
@options.as_json
def watch(*, operation: int, timeout: float, as_json: bool) -> None:
    """Follow it live. The exit status is its outcome: 0 done, 1 parked, 6 still going on."""
    follow(Api.from_environment(), operation, timeout=timeout, as_json=as_json)


def follow(api: Api, operation_id: int, *, timeout: float, as_json: bool) -> None:
    """Print an operation's progress until it has ended; raises Failure unless it is done."""
    ended = watch_operation(api, operation_id, timeout=timeout, say=_silent if as_json else show.line)
    if as_json:
        show.as_json(ended)
    if ended["state"] != "done":
        runbook = f" (runbook {ended['runbook']})" if ended["runbook"] else ""
        raise Failure(f"operation {ended['id']} is {ended['state']}: {ended['error']}{runbook}")
    if not as_json:
        show.line(f"done in {show.seconds(ended['seconds'])}")


def print_list(items: list[Json]) -> None:
    show.table(
        ["OPERATION", "RESOURCE", "STATE", "REASON", "ACTOR", "CREATED", "TOOK", "ERROR"],
        [
            (
                item["id"],
                item["resource"],
                item["state"],
                item["reason"] + _others(item),
                item["actor"],
                show.moment(item["created_at"]),
                show.seconds(item["seconds"]),
                item["error"],
            )
            for item in items
        ],
        none="no operations",
    )


def _print(found: Json) -> None:
    rows: list[tuple[str, Any]] = [
        ("operation", found["id"]),
        (found["kind"], found["resource"]),
        ("state", found["state"]),
        ("reason", f"{found['reason']} (asked for by {found['actor']})"),
        ("attempts", found["attempts"]),
        ("next attempt", found["next_attempt_at"] and show.moment(found["next_attempt_at"])),
        ("error", found["error"]),
        ("runbook", found["runbook"]),
        ("created", show.moment(found["created_at"])),
        ("took", found["seconds"] and show.seconds(found["seconds"])),
    ]
    show.pairs(rows)
    if found["cause_count"] > 1:
        show.line()
        show.table(
            ["ASKED FOR", "BY", "WHY", "EVENT", "REQUEST"],
            [
                (show.moment(cause["at"]), cause["actor"], cause["reason"], cause["event"], cause["request"])
                for cause in found["causes"]
            ],
            none="",
        )
        if found["cause_count"] > len(found["causes"]):
            show.line(f"{found['cause_count']} in all: the first and the newest are kept")
    show.line()
    show.table(
        ["STEP", "NAME", "TARGET", "STATE", "TOOK", "WHY", "ERROR"],
        [
            (
                step["seq"],
                step["name"],
                step["target"],
                step["state"],
                show.seconds(step["seconds"]),
                step["reason"],
                step["error"],
            )
            for step in found["steps"]
        ],
        none="no steps yet",
    )
    if found["events"]:
        show.line()
        show.table(
            ["STEP", "RESOURCE", "ACTION", "PROGRESS", "TOOK"],
            [
                (
                    event["step"],
                    event["address"],
                    event["action"],
                    event["kind"],
                    show.seconds(event["seconds"]),
                )
                for event in found["events"]
            ],
            none="",
        )


def _others(item: Json) -> str:
    """How many asked for it besides the one that its reason is from."""
    others = item["cause_count"] - 1
    return "" if others < 1 else f" (+{others} more)"


def _resource_id(api: Api, name: str) -> str:
    if TENANT_ID.match(name) or CLUSTER_ID.match(name):
        return name
    return str(api.get(f"/v1/tenants/{in_path('tenant', name)}")["id"])


def _silent(_: str) -> None:
    """With --json the operation's end is all that is printed."""
