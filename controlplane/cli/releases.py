"""`controlplane releases`"""

from __future__ import annotations

from pathlib import Path

import click

from controlplane import migration_project
from controlplane.cli import options, show
from controlplane.cli.api import Api, Json, in_path
from controlplane.cli.failure import Failure, clear_errors
from controlplane.cli.watching import await_end
from dataplane.releases import ALL, Releases


@click.group("releases")
def command() -> None:
    """Releases of the tenants' schema: create, list, show, compat, accept, rehearse."""


@command.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@options.as_json
def create(*, folder: Path, as_json: bool) -> None:
    """Register the migrations of FOLDER: NNNN_name.sql files, or a project with a migrations.toml."""
    with clear_errors():
        project = migration_project.read(folder)
    api = Api.from_environment()
    known: set[str] = set()
    newest = api.listing("/v1/releases", limit=1)["items"]
    if newest:
        files = api.get(f"/v1/releases/{newest[0]['number']}")["files"]
        known = {file["sha256"] for file in files}
    for file in project.files:
        if file.body is not None and file.sha256 not in known:
            api.post("/v1/releases/files", {"body": file.body.decode("utf-8", "strict")})
    made = api.post(
        "/v1/releases",
        {
            "adapter": project.adapter,
            "files": [{"name": file.name, "sha256": file.sha256} for file in project.files],
        },
    )
    if as_json:
        show.as_json(made)
        return
    show.line(f"release {made['number']}: {len(made['files'])} files, checksum {made['checksum'][:12]}")
    _print_findings(made)


@command.command("list")
@options.limited
@options.as_json
def list_(*, limit: int, everything: bool, as_json: bool) -> None:
    """Newest first."""
    found = Api.from_environment().listing("/v1/releases", limit=None if everything else limit)
    if as_json:
        show.as_json(found)
        return
    show.table(
        ["RELEASE", "ADAPTER", "FILES", "TENANTS", "NOT ACCEPTED", "CREATED", "ACTOR"],
        [
            (
                item["number"],
                item["adapter"],
                item["files"],
                item["tenants"],
                item["open_findings"],
                show.moment(item["created_at"]),
                item["actor"],
            )
            for item in found["items"]
        ],
        none="no releases",
    )
    show.more(found)


@command.command("show")
@click.argument("release")
@options.as_json
def show_(*, release: str, as_json: bool) -> None:
    """One release: its files and what the linter found in them."""
    found = Api.from_environment().get(f"/v1/releases/{in_path('release', release)}")
    if as_json:
        show.as_json(found)
        return
    show.pairs(
        [
            ("release", found["number"]),
            ("adapter", found["adapter"]),
            ("checksum", found["checksum"]),
            ("tenants", found["tenants"]),
            ("created", f"{show.moment(found['created_at'])} by {found['actor']}"),
        ]
    )
    show.line()
    rows = [(file["name"], file["sha256"][:12]) for file in found["files"]]
    show.table(["FILE", "SHA-256"], rows, none="")
    _print_findings(found)


def _range(ctx: click.Context, param: click.Parameter, value: str | None) -> Releases | None:
    """What DATAPLANE_RELEASES takes."""
    try:
        return None if value is None else Releases.parse(value)
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, param) from error


@command.command()
@click.argument("releases", callback=_range, required=False)
@options.as_json
def compat(*, releases: Releases | None, as_json: bool) -> None:
    """Tenants by release, and whom an application that serves RELEASES (as in DATAPLANE_RELEASES: 0003..0005,
    0003.., ..0005, 0004) would turn away. The exit status is 1 where that is anybody."""
    served = releases or ALL
    items = [
        {**item, "served": served.serve(item["release"])}
        for item in Api.from_environment().get("/v1/releases/fleet")["items"]
    ]
    away = sum(item["tenants"] for item in items if not item["served"])
    if as_json:
        show.as_json({"items": items, "tenants": sum(item["tenants"] for item in items), "turned_away": away})
    else:
        show.table(
            ["RELEASE", "TENANTS", "SERVED", "FOR EXAMPLE"],
            [
                (
                    item["release"] or "not known",
                    item["tenants"],
                    "yes" if item["served"] else "no",
                    item["example"],
                )
                for item in items
            ],
            none="no tenant is active",
        )
    if away:
        raise Failure(f"{away} tenants would be answered 503: they are on no release of those")


@command.command()
@click.argument("finding")
@click.option("--reason", required=True, help="Why it is safe here; for the audit trail.")
@options.as_json
def accept(*, finding: str, reason: str, as_json: bool) -> None:
    """Take a dangerous statement, named by the id of its finding."""
    done = Api.from_environment().post(
        f"/v1/releases/findings/{in_path('finding', finding)}/accept", {"reason": reason}
    )
    if as_json:
        show.as_json(done)
    else:
        show.line(f"{done['id']} ({done['rule']} in {done['file']}) accepted by {done['accepted_by']}")


@command.command()
@click.argument("release")
@click.option(
    "--copies", type=click.IntRange(1, 20), default=3, show_default=True, help="Of how many tenants."
)
@options.timeout(3600)
@options.as_json
def rehearse(*, release: str, copies: int, timeout: float, as_json: bool) -> None:
    """Migrate copies of the most divergent tenants, and tell how long it took and what it locked."""
    api = Api.from_environment()
    asked = api.post("/v1/rehearsals", {"release": release, "copies": copies})
    found = await_end(
        api,
        f"/v1/rehearsals/{asked['id']}",
        busy=lambda observed: observed["state"] in ("waiting", "running"),
        timeout=timeout,
        late=lambda observed: f"rehearsal {asked['id']} is still {observed['state']} after {timeout:g} s",
    )
    if as_json:
        show.as_json(found)
    else:
        _print_rehearsal(found)
    failed = [result["slug"] for result in found["results"] if result["error"] and not result["busy"]]
    if failed or found["state"] != "done":
        raise Failure(found["error"] or f"it fails on the copies of {', '.join(failed)}")


def _print_rehearsal(found: Json) -> None:
    show.table(
        ["COPY OF", "FROM", "ALIKE", "SIZE", "TOOK", "LONGEST LOCK", "PROBLEM"],
        [
            (
                result["slug"],
                result["from_release"],
                result["alike"],
                f"{result['size'] / 1e6:.0f} MB" if "size" in result else None,
                show.seconds(result.get("seconds")),
                _longest(result.get("locks", [])),
                result["error"],
            )
            for result in found["results"]
        ],
        none="no copy was made",
    )
    if found["estimate"] is not None:
        seconds, lock = found["estimate"]["seconds"], found["estimate"]["longest_lock"]
        show.line(f"for {found['tenants']} tenants about {seconds:g} s, locks up to {lock:g} s")


def _longest(locks: list[Json]) -> str | None:
    return f"{locks[0]['seconds']:g} s {locks[0]['mode']} on {locks[0]['table']}" if locks else None


def _print_findings(found: Json) -> None:
    if not found["findings"]:
        return
    show.line()
    show.table(
        ["FINDING", "RULE", "WHERE", "STATEMENT", "WHY", "ACCEPTED BY"],
        [
            (
                finding["id"],
                finding["rule"],
                f"{finding['file']}:{finding['line']}",
                finding["statement"],
                finding["message"],
                finding["accepted_by"],
            )
            for finding in found["findings"]
        ],
        none="",
    )
    if any(finding["accepted_by"] is None for finding in found["findings"]):
        show.line(
            "no rollout starts before each is accepted: controlplane releases accept FINDING --reason …"
        )
