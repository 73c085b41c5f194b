"""`controlplane tenants purge` and `controlplane tenants certificate`"""

from __future__ import annotations

from typing import Any

import click

from controlplane.cli import operations, options, show
from controlplane.cli.api import Api, Json, in_path
from controlplane.cli.failure import Misuse
from controlplane.domain.placement import TENANT_ID


@click.command()
@click.argument("tenant")
@click.option("--dry-run", is_flag=True, help="Show what would be deleted; change nothing.")
@click.option("--approve", metavar="DIGEST", help="Approve what somebody else asked for, by its digest.")
@click.option("--withdraw", is_flag=True, help="Take it back, as long as it has not begun.")
@click.option("--early", is_flag=True, help="Before the end of its retention: the customer demands it.")
@click.option("--reason", default="asked for by hand", show_default=True, help="For the audit trail.")
@click.option("--wait", is_flag=True, help="With --approve: watch it; its outcome is the exit status.")
@options.timeout(3600)
@options.as_json
def purge(
    *,
    tenant: str,
    dry_run: bool,
    approve: str | None,
    withdraw: bool,
    early: bool,
    reason: str,
    wait: bool,
    timeout: float,
    as_json: bool,
) -> None:
    """Delete a closed tenant for good. One person asks, another one approves.

    TENANT is its id in full, t-… (with --dry-run the slug will do).
    """
    if sum((dry_run, approve is not None, withdraw)) > 1:
        raise click.UsageError("--dry-run, --approve and --withdraw exclude each other")
    if wait and approve is None:
        raise click.UsageError("--wait goes with --approve")
    if not dry_run and not TENANT_ID.match(tenant):
        raise Misuse(f"tenant: expected its id in full (t-…), got {tenant[:80]!a}")
    api, path = Api.from_environment(), f"/v1/tenants/{in_path('tenant', tenant)}/purge"
    if approve is not None:
        _approve(api, path, approve, wait=wait, timeout=timeout, as_json=as_json)
        return
    if dry_run:
        found = api.get(path)
    elif withdraw:
        found = api.post(f"{path}/withdraw", {"reason": reason})
    else:
        found = api.post(path, {"reason": reason, "early": early})
    if as_json:
        show.as_json(found)
    else:
        _print(found)


def _approve(api: Api, path: str, digest: str, *, wait: bool, timeout: float, as_json: bool) -> None:
    answer = api.post(f"{path}/approve", {"digest": digest})
    operation = answer["operation"]
    if wait:
        operations.follow(api, operation["id"], timeout=timeout, as_json=as_json)
    elif as_json:
        show.as_json(answer)
    else:
        asked = answer["purge"]
        show.line(f"purge {asked['id']}, asked for by {asked['requested_by']}, is approved")
        show.line(f"watch it with: controlplane operations watch {operation['id']}")


def _print(found: Json) -> None:
    content, asked, copy = found["would_delete"], found["purge"], found["copy"]
    rows: list[tuple[str, Any]] = [
        ("tenant", found["tenant"]),
        ("phase", found["phase"]),
        ("closed", found["closed_at"] and show.moment(found["closed_at"])),
        ("retention ends", found["purge_after"] and show.moment(found["purge_after"])),
        ("not to be purged", found["kept_for"]),
    ]
    if content is not None:
        cluster = content["cluster"] and (
            f"{content['cluster']}, which goes too" if content["cluster_goes"] else content["cluster"]
        )
        rows += [
            ("database", content["database"] and f"{content['database']} on {cluster}"),
            ("roles", ", ".join(content["roles"])),
            ("secrets", ", ".join(content["secrets"])),
            ("IAM role", content["iam_role"]),
            ("Terraform", content["workspace"]),
            ("hosts", ", ".join(content["hosts"])),
            ("copy first", content["copy"]),
            ("clones that stay", ", ".join(content["clones"])),
            ("digest", found["digest"]),
        ]
    if asked is not None:
        rows.append(("purge", f"{asked['id']} is {asked['state']}: {asked['reason']}"))
        rows.append(("asked for by", f"{asked['requested_by']}, {show.moment(asked['requested_at'])}"))
        if asked["approved_by"]:
            rows.append(("approved by", f"{asked['approved_by']}, {show.moment(asked['approved_at'])}"))
    if copy is not None:
        rows.append(("copy", f"{copy['kind']} {copy['name']}, {copy['state']}"))
        rows.append(("copy kept until", copy["kept_until"] and show.moment(copy["kept_until"])))
    show.pairs(rows)
    if asked is not None and asked["state"] == "requested":
        show.line()
        show.line("somebody else approves it with:")
        show.line(f"  controlplane tenants purge {found['tenant']} --approve {asked['digest']}")


@click.command()
@click.argument("tenant")
@options.as_json
def certificate(*, tenant: str, as_json: bool) -> None:
    """What was deleted of a purged tenant, by whose word, and the proof that nothing is left.

    With --json it is the signed document; `controlplane certificate check` verifies it.
    """
    found = Api.from_environment().get(f"/v1/tenants/{in_path('tenant', tenant)}/certificate")
    if as_json:
        show.as_json(found)
        return
    document, signature = found["certificate"], found["signature"]
    order, existed = document["order"], document["existed"]
    show.pairs(
        [
            ("tenant", f"{document['tenant']['slug']} ({document['tenant']['id']})"),
            ("issued", f"{document['issued_at']} by {document['issuer']['zone']}"),
            ("existed", f"{existed['created_at']} to {existed['closed_at']}"),
            ("asked for by", f"{order['requested_by']}, {order['requested_at']}: {order['reason']}"),
            ("approved by", f"{order['approved_by']}, {order['approved_at']}"),
            ("signature", f"{signature['algorithm']}, key {signature['key']}" if signature else "none"),
        ]
    )
    show.line()
    show.table(
        ["SYSTEM", "ASKED FOR", "ANSWER"],
        [(line["system"], line["asked"], line["answer"]) for line in document["deletion_proof"]],
        none="there never was anything outside",
    )
    for kept in document["kept"]:
        show.line(f"kept until {kept['until']}: {kept['kind']} {kept['name']}")
    for line in document["remains"]:
        show.line(f"remains: {line}")
