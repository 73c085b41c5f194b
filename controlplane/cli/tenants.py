"""`controlplane tenants`"""

from __future__ import annotations

import time
from typing import Any

import click

from controlplane.cli import exports, operations, options, purges, show
from controlplane.cli.api import Api, Json, in_path
from controlplane.cli.failure import Failure, GaveUp
from controlplane.cli.watching import POLL, patient_get


@click.group("tenants")
def command() -> None:
    """Tenants: list, show, reprovision, rotate, purge. A tenant is named by its id or its slug."""


command.add_command(purges.purge)
command.add_command(purges.certificate)
command.add_command(exports.export)


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
                item["desired"]["plan"],
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
    """One tenant: what it should be, where it is, its hosts and last operations."""
    found = Api.from_environment().get(f"/v1/tenants/{in_path('tenant', tenant)}")
    if as_json:
        show.as_json(found)
    else:
        _print(found)


@command.command()
@click.argument("tenant")
@click.option("--reason", default="asked for by hand", show_default=True, help="For the audit trail.")
@click.option("--dry-run", is_flag=True, help="Show what it would do; change nothing.")
@click.option("--wait", is_flag=True, help="Watch the operation; its outcome is the exit status.")
@options.timeout(3600)
@options.as_json
def reprovision(
    *, tenant: str, reason: str, dry_run: bool, wait: bool, timeout: float, as_json: bool
) -> None:
    """Look at everything anew, Terraform included, and mend what differs."""
    if dry_run and wait:
        raise click.UsageError("--dry-run waits by itself: leave --wait out")
    api = Api.from_environment()
    answer = api.post(
        f"/v1/tenants/{in_path('tenant', tenant)}/reprovision", {"reason": reason, "dry_run": dry_run}
    )
    if dry_run:
        _preview(api, answer["preview"]["id"], timeout=timeout, as_json=as_json)
    else:
        _requested(api, answer["operation"], wait=wait, timeout=timeout, as_json=as_json)


@command.command()
@click.argument("tenant")
@click.option("--reason", default="asked for by hand", show_default=True, help="For the audit trail.")
@click.option("--wait", is_flag=True, help="Watch the operation; its outcome is the exit status.")
@options.timeout(600)
@options.as_json
def rotate(*, tenant: str, reason: str, wait: bool, timeout: float, as_json: bool) -> None:
    """Give its database logins new passwords; no request fails meanwhile."""
    api = Api.from_environment()
    answer = api.post(f"/v1/tenants/{in_path('tenant', tenant)}/rotate", {"reason": reason})
    _requested(api, answer["operation"], wait=wait, timeout=timeout, as_json=as_json)


def _requested(api: Api, operation: Json, *, wait: bool, timeout: float, as_json: bool) -> None:
    if wait:
        operations.follow(api, operation["id"], timeout=timeout, as_json=as_json)
    elif as_json:
        show.as_json(operation)
    else:
        show.line(f"operation {operation['id']} is {operation['state']}")
        show.line(f"watch it with: controlplane operations watch {operation['id']}")


def _preview(api: Api, preview_id: int, *, timeout: float, as_json: bool) -> None:
    deadline = time.monotonic() + timeout
    path = f"/v1/previews/{preview_id}"
    while (found := patient_get(api, path, until=deadline))["state"] == "waiting":
        if time.monotonic() > deadline:
            raise GaveUp(f"preview {preview_id} is not worked out after {timeout:g} s")
        time.sleep(POLL)
    if as_json:
        show.as_json(found)
    if found["state"] == "failed":
        raise Failure(f"preview {preview_id}: {found['error']}")
    if as_json:
        return
    show.table(
        ["STEP", "TARGET", "WHY"],
        [(step["name"], step["target"], step["reason"]) for step in found["steps"]],
        none="nothing to do: it is as it should be",
    )
    if found["changes"]:
        show.line()
        show.table(
            ["TERRAFORM WOULD", "RESOURCE", "DESTRUCTIVE"],
            [(change["action"], change["address"], change["destructive"]) for change in found["changes"]],
            none="",
        )


def _login(credential: Json) -> str:
    text = f"{credential['username']}, password {credential['generation']}"
    text += f" since {show.moment(credential['rotated_at'])}"
    if credential["rotation_wanted"]:
        text += ", a new one was asked for"
    return text + (", the one before is being retired" if credential["retiring"] else "")


def _print(found: Json) -> None:
    desired, timings, placement = found["desired"], found["timings"], found["placement"]
    rows: list[tuple[str, Any]] = [
        ("tenant", f"{found['slug']} ({found['id']})"),
        ("name", found["display_name"]),
        ("customer", found["customer"]),
        ("phase", found["phase"]),
        ("needs attention", found["needs_attention"] and show.attention(found["needs_attention"])),
        ("plan", f"{desired['plan']}, {desired['lifecycle']}"),
        ("subscription", f"{desired['subscription_status']}, quantity {desired['quantity']}"),
        ("period ends", desired["current_period_end"] and show.moment(desired["current_period_end"])),
        ("trial ends", desired["trial_ends_at"] and show.moment(desired["trial_ends_at"])),
        ("suspended at", desired["grace_ends_at"] and f"{show.moment(desired['grace_ends_at'])} unless paid"),
        ("closes", desired["closes_at"] and show.moment(desired["closes_at"])),
        ("closed", found["closed_at"] and show.moment(found["closed_at"])),
        ("data kept until", found["purge_after"] and show.moment(found["purge_after"])),
        ("purged", found["purged_at"] and show.moment(found["purged_at"])),
        ("generation", f"{found['generation']}, {'settled' if found['settled'] else 'not settled yet'}"),
        ("database", placement and f"{placement['database']} on {placement['cluster']}"),
        ("login", found["credential"] and _login(found["credential"])),
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
                host.get("status"),
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
