"""`controlplane tenants`"""

from __future__ import annotations

from typing import Any

import click

from controlplane.actions.action import Subject
from controlplane.cli import actions, operations, options, purges, show
from controlplane.cli.api import Api, Json, in_path


@click.group("tenants")
def command() -> None:
    """Tenants: list, show, and what may be done to one. Each is named by id or slug."""


for _made in (*actions.commands(Subject.TENANT), purges.certificate):
    command.add_command(_made)


@command.command("list")
@options.limited
@options.as_json
def list_(*, limit: int, everything: bool, as_json: bool) -> None:
    """All tenants, by slug."""
    found = Api.from_environment().listing("/v1/tenants", limit=None if everything else limit)
    if as_json:
        show.as_json(found)
        return
    show.table(
        ["SLUG", "ID", "PHASE", "PLAN", "HOST", "PAID TO READY", "NEEDS ATTENTION"],
        [
            (
                item["slug"],
                item["id"],
                item["phase"],
                item["spec"]["plan"],
                item["host"],
                show.seconds(item["timings"]["paid_to_ready_seconds"]),
                show.attention(item["needs_attention"]),
            )
            for item in found["items"]
        ],
        none="no tenants",
    )
    show.more(found)


@command.command("show")
@click.argument("tenant")
@options.as_json
def show_(*, tenant: str, as_json: bool) -> None:
    """One tenant: what it should be, where it is, its hosts and last operations.

    TENANT is its id or slug, or what support has of it: a former slug, a host, its customer (cus_…) or one of
    its contracts (sub_…).
    """
    found = Api.from_environment().get(f"/v1/tenants/{in_path('tenant', tenant)}")
    if as_json:
        show.as_json(found)
    else:
        _print(found, tenant)


def _login(credential: Json) -> str:
    text = f"{credential['username']}, password {credential['generation']}"
    text += f" since {show.moment(credential['rotated_at'])}"
    if credential["rotation_requested"]:
        text += ", a new one was asked for"
    return text + (", the one before is being retired" if credential["retiring"] else "")


def _transfer(found: Json) -> str:
    restore, text = found["restore"], str(found["phase"])
    if restore is not None:
        what = f"snapshot {restore['snapshot']}" if restore["snapshot"] else show.moment(restore["at"])
        text += f", to {what}"
        if restore["cluster"] and not found["copied_at"]:
            text += f", rows come from cluster {restore['cluster']}"
    elif found["to"]:
        text += f", to {found['to']}"
    if found["finished_at"]:
        text += f", finished {show.moment(found['finished_at'])}"
    if found["pause_seconds"] is not None:
        text += f", no write for {found['pause_seconds']:.3f} s"
    compared = found["compared"]
    if compared is not None:
        same = "the same" if not compared["differing"] else f"differing: {', '.join(compared['differing'])}"
        text += f", {compared['rows']} rows of {compared['tables']} tables {same}"
    if found["source_kept_until"]:
        text += f", source kept until {show.moment(found['source_kept_until'])}"
    return text


def _counted(addons: Json) -> str:
    return ", ".join(f"{name} × {number}" for name, number in sorted(addons.items()))


def _hold(found: Json) -> str:
    what = found["kind"] if found["plan"] is None else f"plan {found['plan']}"
    return f"{what} until {show.moment(found['ends_at'])}: {found['reason']} ({found['actor']})"


def _contract(found: Json) -> str:
    text = f"{found['id']} of {found['customer']}, {found['standing']} ({found['status']})"
    ends = found["period_end"]
    return text if ends is None else f"{text}, period ends {show.moment(ends)}"


def _print(found: Json, name: str) -> None:
    spec, timings, placement = found["spec"], found["timings"], found["placement"]
    rows: list[tuple[str, Any]] = [
        ("tenant", f"{found['slug']} ({found['id']})"),
        ("found by", found["found_by"] and f"its {found['found_by']} {name}"),
        ("renamed", found["found_by"] == "former slug" and f"from {name} to {found['slug']}"),
        ("name", found["display_name"]),
        ("customer", found["customer"]),
        ("clone of", found["clone_of"] or False),
        ("phase", found["phase"]),
        ("needs attention", found["needs_attention"] and show.attention(found["needs_attention"])),
        ("frozen", show.freezes(found["freezes"])),
        ("plan", f"{spec['plan']}, {spec['lifecycle']}"),
        ("paid for", f"{spec['subscription_status']}, quantity {spec['quantity']}"),
        ("add-ons", _counted(spec["addons"]) or False),
        *(("contract", _contract(each)) for each in found["contracts"]),
        *(("hold", _hold(each)) for each in found["holds"]),
        ("trial ends", spec["trial_ends_at"] and show.moment(spec["trial_ends_at"])),
        ("suspended at", spec["grace_ends_at"] and f"{show.moment(spec['grace_ends_at'])} unless paid"),
        ("closes", spec["closes_at"] and show.moment(spec["closes_at"])),
        ("closed", found["closed_at"] and show.moment(found["closed_at"])),
        ("data kept until", found["purge_after"] and show.moment(found["purge_after"])),
        ("purged", found["purged_at"] and show.moment(found["purged_at"])),
        (
            "generation",
            f"{found['generation']}, {'reconciled' if found['reconciled'] else 'not reconciled yet'}",
        ),
        ("database", placement and f"{placement['database']} on {placement['cluster']}"),
        ("login", found["credential"] and _login(found["credential"])),
        (
            f"last {found['transfer']['kind'] if found['transfer'] else 'transfer'}",
            found["transfer"] and _transfer(found["transfer"]),
        ),
        ("paid", timings["paid_at"] and show.moment(timings["paid_at"])),
        ("ready", timings["ready_at"] and show.moment(timings["ready_at"])),
        (
            "paid to ready",
            timings["paid_to_ready_seconds"] is not None and show.seconds(timings["paid_to_ready_seconds"]),
        ),
    ]
    show.pairs((name, value) for name, value in rows if value is not False)
    show.line()
    show.table(
        ["HOST", "KIND", "SERVES", "STATUS", "CERTIFICATE", "PROBLEM"],
        [
            (
                host["host"],
                host["kind"],
                host["serves"],
                f"until {show.moment(host['until'])}" if "until" in host else host.get("status"),
                host.get("ssl_status"),
                host.get("refused") or "; ".join(host.get("errors", [])) or None,
            )
            for host in found["hostnames"]
        ],
        none="",
    )
    records = [record for host in found["hostnames"] for record in host.get("dns", [])]
    if records:
        show.line()
        show.line("DNS records for the customer to set:")
        show.table(
            ["TYPE", "NAME", "VALUE"],
            [(record["kind"], record["name"], record["value"]) for record in records],
            none="",
        )
    show.line()
    operations.print_list(found["operations"])
