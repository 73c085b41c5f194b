"""How a purge is shown, and `controlplane tenants certificate`"""

from __future__ import annotations

from typing import Any

import click

from controlplane.cli import options, show
from controlplane.cli.api import Api, Json, in_path


def print_purge(found: Json) -> None:
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
        show.line(f"  controlplane tenants approve-purge {found['tenant']} --digest {asked['digest']}")


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
