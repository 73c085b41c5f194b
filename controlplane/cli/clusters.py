"""`controlplane clusters`"""

from __future__ import annotations

import click

from controlplane.actions.action import Subject
from controlplane.actions.upgrade import DIGITS
from controlplane.cli import actions, operations, options, show
from controlplane.cli.api import Api, Json, in_path


@click.group("clusters")
def command() -> None:
    """Database clusters: list, show, and what may be done to one."""


for _made in actions.commands(Subject.CLUSTER):
    command.add_command(_made)


@command.command("list")
@options.limited
@options.as_json
def list_(*, limit: int, everything: bool, as_json: bool) -> None:
    """All clusters, by id."""
    found = Api.from_environment().listing("/v1/clusters", limit=None if everything else limit)
    if as_json:
        show.as_json(found)
        return
    show.table(
        ["CLUSTER", "READY", "ISOLATION", "SLOTS USED", "ACU", "AWAKE", "CREATED", "NEEDS ATTENTION"],
        [
            (
                item["id"],
                item["ready"],
                item["spec"]["isolation"],
                f"{item['used']} of {item['slots']}" if item["slots"] else "restored, none",
                _capacity(item),
                item["awake"],
                show.moment(item["created_at"]),
                show.attention(item["needs_attention"]),
            )
            for item in found["items"]
        ],
        none="no clusters",
    )
    show.more(found)


@command.command("show")
@click.argument("cluster")
@options.as_json
def show_(*, cluster: str, as_json: bool) -> None:
    """One cluster: its tenants and last operations."""
    found = Api.from_environment().get(f"/v1/clusters/{in_path('cluster', cluster)}")
    if as_json:
        show.as_json(found)
        return
    endpoint = found["endpoint"]
    show.pairs(
        [
            ("cluster", found["id"]),
            ("ready", found["ready"]),
            ("needs attention", found["needs_attention"] and show.attention(found["needs_attention"])),
            ("frozen", show.freezes(found["freezes"])),
            ("isolation", found["spec"]["isolation"]),
            ("capacity", f"{_capacity(found)} ACU"),
            *([("awake", _awake(found))] if found["awake"] is not None else []),
            ("slots", f"{found['used']} of {found['slots']} used"),
            ("release", _release(found)),
            ("drift", _drift(found["drift"])),
            *([("restored from", _origin(found))] if "origin" in found["spec"] else []),
            ("endpoint", endpoint and f"{endpoint.get('host')}:{endpoint.get('port')}"),
            ("created", show.moment(found["created_at"])),
            ("tenants", ", ".join(found["tenants"])),
        ]
    )
    show.line()
    operations.print_list(found["operations"])


def _awake(item: Json) -> str:
    """And by whom, when it was observed."""
    when = show.moment(item["observed_at"])
    if not item["awake"]:
        return f"no, as of {when}"
    clients = [_client(found) for found in item["clients"] or ()]
    nobody = "by nobody: it pauses, unless its parameter group sets rds.logical_replication"
    return f"yes, as of {when}, kept so {'by ' + '; '.join(clients) if clients else nobody}"


def _client(found: Json) -> str:
    whose = found["tenant"] or f"no tenant (database {found['database'] or 'none'})"
    last = found["last_statement"]
    idle = "no statement yet" if last is None else f"last statement {show.seconds(last)} ago"
    what = f"{found['sessions']} of {found['application'] or 'an application without a name'}"
    return f"{what} as {found['user']}, {whose}, connected for {show.seconds(found['oldest'])}, {idle}"


def _release(item: Json) -> str:
    """Of the stacks."""
    named, installed = item["release"], item["installed_release"]
    if named is None:
        return "none yet: the first apply takes the installed one"
    text = str(named[:DIGITS])
    if item["upgraded_from"] is not None:
        text += f", being upgraded from {item['upgraded_from'][:DIGITS]}"
    if installed in (None, named):
        return text if installed is None else f"{text}, the installed one"
    return f"{text}; installed is {installed[:DIGITS]}"


def _drift(changes: list[Json] | None) -> str | None:
    return ", ".join(f"{change['action']} {change['address']}" for change in changes or ())


def _origin(item: Json) -> str:
    origin = item["spec"]["origin"]
    of = f"snapshot {origin['snapshot']}" if "snapshot" in origin else f"the state at {origin['at']}"
    return f"{origin['cluster_id']}, {of}"


def _capacity(item: Json) -> str:
    spec = item["spec"]
    return f"{spec['min_acu']:g} to {spec['max_acu']:g}"
