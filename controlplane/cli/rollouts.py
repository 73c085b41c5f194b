"""`controlplane rollouts`"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from controlplane.cli import options, show
from controlplane.cli.api import Api, Json
from controlplane.cli.failure import Failure
from controlplane.cli.watching import await_end
from controlplane.domain.rollout import MemberState

rollout_id = click.argument("rollout", type=click.IntRange(1))


@click.group("rollouts")
def command() -> None:
    """Bring a release to every tenant: start, watch, pause, resume, retry, skip, abort."""


@command.command()
@click.argument("release")
@click.option("--wave", "waves", multiple=True, metavar="NAMES|PERCENT", help="acme,globex or 5%; in order.")
@click.option("--concurrency", type=int, help="Tenants at once.")
@click.option("--per-cluster", type=int, help="Tenants at once on one cluster.")
@click.option("--sequential", is_flag=True, help="One tenant after the other.")
@click.option("--pace", type=float, help="Least seconds between two starts.")
@click.option("--wave-pause", type=float, help="Seconds between two waves.")
@click.option("--failures", type=int, help="So many may fail before it halts.")
@click.option("--failure-ratio", type=float, help="Or this part of all tenants, whichever is more.")
@click.option(
    "--window", "windows", multiple=True, metavar="HOURS", help="'mon-fri 22:00-05:30 Europe/Berlin'"
)
@click.option("--lock-timeout", type=float, help="Seconds that a statement waits for a lock.")
@click.option("--statement-timeout", type=float, help="Seconds that a statement may run.")
@click.option("--snapshot-timeout", type=float, help="Seconds that a cluster's snapshot may take.")
@click.option("--snapshot-days", type=int, help="Days for which snapshots are kept after its end.")
@click.option("--wait", is_flag=True, help="Watch it; its outcome is the exit status.")
@options.timeout(86_400)
@options.as_json
def start(*, release: str, sequential: bool, wait: bool, timeout: float, as_json: bool, **given: Any) -> None:
    """Begin to bring RELEASE to every tenant, in waves: without --wave 1%, 10%, 50%, 100%."""
    spec = {name: value for name, value in given.items() if value not in (None, ())}
    spec |= {name: list(spec[name]) for name in ("waves", "windows") if name in spec}
    if sequential:
        spec |= {"concurrency": 1, "per_cluster": 1}
    api = Api.from_environment()
    started = api.post("/v1/rollouts", {"release": release, "spec": spec})
    if wait:
        follow(api, started["id"], timeout=timeout, as_json=as_json)
    elif as_json:
        show.as_json(started)
    else:
        show.line(f"rollout {started['id']} of release {release}: {started['counts']['total']} tenants")
        show.line(f"watch it with: controlplane rollouts watch {started['id']}")


@command.command("list")
@options.limited
@options.as_json
def list_(*, limit: int, everything: bool, as_json: bool) -> None:
    """Newest first."""
    found = Api.from_environment().listing("/v1/rollouts", limit=None if everything else limit)
    if as_json:
        show.as_json(found)
        return
    show.table(
        ["ROLLOUT", "RELEASE", "STATE", "STARTED", "TOOK", "ACTOR", "REASON"],
        [
            (
                item["id"],
                item["release"],
                item["state"],
                show.moment(item["created_at"]),
                show.seconds(item["seconds"]),
                item["actor"],
                item["reason"],
            )
            for item in found["items"]
        ],
        none="no rollouts",
    )
    show.more(found)


@command.command("show")
@rollout_id
@click.option("--members", is_flag=True, help="Every tenant of it.")
@click.option("--state", type=click.Choice([state.value for state in MemberState]), help="Those alone.")
@options.as_json
def show_(*, rollout: int, members: bool, state: str | None, as_json: bool) -> None:
    """One rollout: its waves, and its failures grouped by error."""
    api = Api.from_environment()
    found = api.get(f"/v1/rollouts/{rollout}")
    if members or state is not None:
        found["members"] = api.listing(f"/v1/rollouts/{rollout}/members", limit=None, state=state)["items"]
    if as_json:
        show.as_json(found)
        return
    _print(found)
    if "members" in found:
        _print_members(found["members"])


@command.command()
@rollout_id
@options.timeout(86_400)
@options.as_json
def watch(*, rollout: int, timeout: float, as_json: bool) -> None:
    """Follow it live. The exit status is its outcome: 0 done, 1 halted or aborted, 6 still going on."""
    follow(Api.from_environment(), rollout, timeout=timeout, as_json=as_json)


@command.command()
@rollout_id
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="The file; else stdout.")
def plot(*, rollout: int, output: Path | None) -> None:
    """Draw it as SVG: who was through when, by wave."""
    svg = Api.from_environment().get(f"/v1/rollouts/{rollout}/plot")["svg"]
    if output is None:
        click.echo(svg)
        return
    output.write_text(svg + "\n", encoding="utf-8")
    show.line(f"wrote {output}")


def _steering(name: str, about: str, *, reason: bool) -> None:
    decorate: list[Callable[[Any], Any]] = [rollout_id, options.as_json]
    if reason:
        decorate.insert(1, click.option("--reason", required=True, help="For the audit trail."))

    def act(*, rollout: int, as_json: bool, **fields: str) -> None:
        _say(Api.from_environment().post(f"/v1/rollouts/{rollout}/{name}", dict(fields)), as_json=as_json)

    for decorator in reversed(decorate):
        act = decorator(act)
    command.command(name, help=about)(act)


_steering("pause", "Start nobody more; those that run are finished.", reason=True)
_steering("resume", "Go on. Refused while more have failed than the budget allows.", reason=True)
_steering("abort", "End it. Who was not reached keeps the release it has.", reason=True)


@command.command()
@rollout_id
@click.argument("tenants", nargs=-1)
@options.as_json
def retry(*, rollout: int, tenants: tuple[str, ...], as_json: bool) -> None:
    """Try the failed again, all or TENANTS, and go on where they had halted it."""
    fields = {"tenants": list(tenants)} if tenants else {}
    _say(Api.from_environment().post(f"/v1/rollouts/{rollout}/retry", fields), as_json=as_json)


@command.command()
@rollout_id
@click.argument("tenants", nargs=-1, required=True)
@click.option("--reason", required=True, help="For the audit trail.")
@options.as_json
def skip(*, rollout: int, tenants: tuple[str, ...], reason: str, as_json: bool) -> None:
    """Leave TENANTS out; they keep the release they have."""
    fields = {"tenants": list(tenants), "reason": reason}
    _say(Api.from_environment().post(f"/v1/rollouts/{rollout}/skip", fields), as_json=as_json)


def follow(api: Api, number: int, *, timeout: float, as_json: bool) -> None:
    """Print the rollout's progress until somebody must decide or it has ended; raises Failure unless it
    is done."""
    reported = ""

    def report(observed: Json) -> None:
        nonlocal reported
        line = _progress(observed)
        if line != reported and not as_json:
            show.line(line)
        reported = line

    observed = await_end(
        api,
        f"/v1/rollouts/{number}",
        busy=lambda observed: observed["state"] in ("running", "paused"),
        timeout=timeout,
        late=lambda last: f"rollout {number} is still {last['state']} after {timeout:g} s",
        report=report,
    )
    if as_json:
        show.as_json(observed)
    else:
        _print(observed)
    if observed["state"] != "done":
        raise Failure(f"rollout {number} is {observed['state']}: {observed['reason']}")


def _progress(observed: Json) -> str:
    counts = observed["counts"]
    width = 30
    bar = "█" * (width * (counts["done"] + counts["skipped"]) // max(counts["total"], 1))
    parts = [f"{counts[state]} {state}" for state in ("running", "failed", "skipped") if counts[state]]
    making = sum(snapshot["state"] == "making" for snapshot in observed["snapshots"])
    parts += [f"{making} snapshots in the making"] if making else []
    waves = max([wave["wave"] for wave in observed["waves"]], default=0) + 1
    return (
        f"wave {min(observed['wave'], waves - 1) + 1} of {waves}  {bar:<{width}}  "
        f"{counts['done']} of {counts['total']} done" + "".join(f", {part}" for part in parts)
    )


def _say(found: Json, *, as_json: bool) -> None:
    if as_json:
        show.as_json(found)
    else:
        show.line(f"rollout {found['id']} is {found['state']}: {_progress(found)}")


def _print(found: Json) -> None:
    show.pairs(
        [
            ("rollout", f"{found['id']} of release {found['release']}"),
            ("state", found["state"]),
            ("reason", found["reason"]),
            ("started", f"{show.moment(found['created_at'])} by {found['actor']}"),
            ("took", found["seconds"] and show.seconds(found["seconds"])),
            ("at once", f"{found['spec']['concurrency']}, {found['spec']['per_cluster']} on a cluster"),
        ]
    )
    show.line()
    names = found["spec"]["waves"]
    show.table(
        ["WAVE", "WHO", "DONE", "RUNNING", "PENDING", "FAILED", "SKIPPED", "STALE", "STARTED", "ENDED"],
        [
            (
                wave["wave"] + 1,
                names[wave["wave"]] if wave["wave"] < len(names) else "everybody else",
                *(
                    wave["counts"][state]
                    for state in ("done", "running", "pending", "failed", "skipped", "stale")
                ),
                show.moment(wave["started_at"]),
                show.moment(wave["finished_at"]),
            )
            for wave in found["waves"]
        ],
        none="no tenant has an older release",
    )
    if found["snapshots"]:
        _print_snapshots(found["snapshots"])
    if found["failures"]:
        show.line()
        show.table(
            ["FAILED", "FILE", "STATEMENT", "ERROR", "FOR EXAMPLE"],
            [
                (fault["tenants"], fault["file"], fault["statement"], fault["error"], fault["example"])
                for fault in found["failures"]
            ],
            none="",
        )


def _print_snapshots(snapshots: list[Json]) -> None:
    show.line()
    show.table(
        ["CLUSTER", "SNAPSHOT", "STATE", "REQUESTED", "AVAILABLE", "KEPT UNTIL", "PROBLEM"],
        [
            (
                snapshot["cluster"],
                snapshot["name"],
                snapshot["state"],
                show.moment(snapshot["requested_at"]),
                show.moment(snapshot["available_at"]),
                show.moment(snapshot["kept_until"]),
                snapshot["error"],
            )
            for snapshot in snapshots
        ],
        none="",
    )


def _print_members(members: list[Json]) -> None:
    show.line()
    show.table(
        ["TENANT", "SLUG", "WAVE", "FROM", "STATE", "TRIES", "TOOK", "ERROR"],
        [
            (
                member["tenant"],
                member["slug"],
                member["wave"] + 1,
                member["from_release"],
                member["state"],
                member["attempts"],
                show.seconds(member["seconds"]),
                member["error"],
            )
            for member in members
        ],
        none="no members",
    )
