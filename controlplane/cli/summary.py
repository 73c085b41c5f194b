"""`controlplane summary`"""

from __future__ import annotations

import click

from controlplane.cli import options, show
from controlplane.cli.api import Api, Json


@click.command("summary")
@options.as_json
def command(*, as_json: bool) -> None:
    """The state of everything in a few numbers."""
    found = Api.from_environment().get("/v1/summary")
    if as_json:
        show.as_json(found)
        return
    tenants, clusters, events = found["tenants"], found["clusters"], found["events"]
    needing = f"{tenants['needs_attention']} tenants, {clusters['needs_attention']} clusters"
    show.pairs(
        [
            ("tenants", _counts(tenants["phases"])),
            ("need attention", needing),
            ("clusters", f"{clusters['ready']} of {clusters['total']} ready"),
            ("of another release", f"{clusters['outdated']} clusters" if clusters["outdated"] else None),
            ("drifted", f"{clusters['drifted']} clusters" if clusters["drifted"] else None),
            ("slots", f"{clusters['used_slots']} of {clusters['slots']} used"),
            ("operations", _counts(found["operations"])),
            ("events", f"{events['received']} to handle, {events['parked']} parked"),
            ("oldest event", show.seconds(events["oldest_received_seconds"]) if events["received"] else None),
            ("contracts", _counts(found["contracts"])),
            ("compared", _comparison(found["comparison"])),
            ("frozen", show.freezes(found["freezes"])),
        ]
    )


def _comparison(found: Json | None) -> str:
    """With the billing system."""
    if found is None:
        return "never yet"
    text = (
        f"{show.moment(found['at'])}: {found['subscriptions']} subscriptions, {found['out_of_step']} mended"
    )
    failed = found["failed"]
    for each in failed["first"][:3]:
        text += f"; {each['customer']} could not be: {each['reason']}"
    return text if failed["count"] <= 3 else f"{text}; {failed['count']} failed in all"


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items() if count) or "none"
