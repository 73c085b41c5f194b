"""What the API was asked for: an operation to watch, or a preview to show."""

from __future__ import annotations

import click

from controlplane.cli import operations, show
from controlplane.cli.api import Api, Json
from controlplane.cli.failure import Failure
from controlplane.cli.watching import ENDED, await_end


def requested(api: Api, operation: Json, *, wait: bool, timeout: float, as_json: bool) -> None:
    if wait:
        operations.follow(api, operation["id"], timeout=timeout, as_json=as_json)
    elif as_json:
        show.as_json(operation)
    else:
        show.line(f"operation {operation['id']} is {operation['state']}")
        show.line(f"watch it with: controlplane operations watch {operation['id']}")


def decided(api: Api, tenant_id: str, *, timeout: float, as_json: bool) -> None:
    """Wait until a worker has decided anew what the tenant should be, and has brought it about."""
    found = await_end(
        api,
        f"/v1/tenants/{tenant_id}",
        busy=lambda observed: (
            observed["deciding"] or any(each["state"] not in ENDED for each in observed["operations"])
        ),
        timeout=timeout,
        late=lambda observed: f"tenant {observed['slug']} is not decided about after {timeout:g} s",
    )
    show.as_json(found) if as_json else show.line(f"{found['slug']} is {found['phase']}")
    if not found["reconciled"]:
        attention = show.attention(found["needs_attention"])
        raise Failure(f"tenant {found['slug']} is not as it should be: {attention}")


def preview(api: Api, preview_id: int, *, timeout: float, as_json: bool) -> None:
    reported: set[str] = set()

    def report(observed: Json) -> None:
        """Once each, on stderr: what is printed on stdout is the preview."""
        if observed["waits_for"] not in reported:
            reported.add(observed["waits_for"])
            click.echo(f"waits for: {observed['waits_for']}", err=True)

    found = await_end(
        api,
        f"/v1/previews/{preview_id}",
        busy=lambda observed: observed["state"] == "waiting",
        timeout=timeout,
        late=lambda last: (
            f"preview {preview_id} is not worked out after {timeout:g} s, it waits for: {last['waits_for']}"
        ),
        report=report,
    )
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
