"""`controlplane simulate`: the proof that the order of events makes no difference, on your own catalogue."""

from __future__ import annotations

import random
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import psycopg

from controlplane.cli import options, show
from controlplane.cli.failure import Failure, Misuse, Unreachable, clear_errors, clear_services
from controlplane.domain.catalogue import parse_catalogue

if TYPE_CHECKING:
    from controlplane.localcloud.simulator.box import RunReport
    from controlplane.localcloud.simulator.stream import Moment
    from controlplane.localcloud.simulator.verdict import Difference

PLANS = Path(__file__).parents[1] / "plans.toml"
MOST = 20
"""Differences that are printed; --json has them all."""
_probability = click.FloatRange(0, 0.5)


@click.command("simulate")
@click.option(
    "--stream",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A recording: JSON lines of Stripe's events and objects. Without, one is generated.",
)
@click.option("--tenants", type=click.IntRange(1, 10_000), default=50, show_default=True)
@click.option("--events", type=click.IntRange(1, 1_000_000), default=500, show_default=True)
@click.option("--seed", type=click.IntRange(0), help="Repeats a run exactly. Without, one is drawn.")
@click.option(
    "--shuffle",
    type=click.IntRange(0),
    default=20,
    show_default=True,
    help="Changes that may overtake an event.",
)
@click.option("--duplicate", type=_probability, default=0.1, show_default=True, help="Delivered twice.")
@click.option("--late", type=_probability, default=0.05, show_default=True, help="Delivered much later.")
@click.option("--drop", type=_probability, default=0.02, show_default=True, help="Never delivered.")
@click.option(
    "--crash",
    type=_probability,
    default=0.01,
    show_default=True,
    help="A worker dies, before and after each call.",
)
@click.option(
    "--catalogue",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    default=PLANS,
    help="The plan catalogue, by default the one that is shipped.",
)
@click.option("--livemode", is_flag=True, help="The recording is of live events.")
@click.option(
    "--registry", metavar="URL", help="An empty PostgreSQL database, instead of a server of its own."
)
@click.option(
    "--record", type=click.Path(dir_okay=False, path_type=Path), help="Write the stream to this file."
)
@options.as_json
def command(
    *,
    stream: Path | None,
    tenants: int,
    events: int,
    seed: int | None,
    shuffle: int,
    duplicate: float,
    late: float,
    drop: float,
    crash: float,
    catalogue: Path,
    livemode: bool,
    registry: str | None,
    record: Path | None,
    as_json: bool,
) -> None:
    """Deliver billing events shuffled, doubled, late and with losses, kill workers, and compare the end.

    Touches nothing that is configured: the external systems are simulated and the registry is its own.
    Fails (1) where the end differs from what Stripe's objects say or from a plain run.
    """
    with clear_services():
        from controlplane.localcloud.simulator import customers
        from controlplane.localcloud.simulator.schedule import Trouble
        from controlplane.localcloud.simulator.stream import dump, load

    seed = random.randrange(2**32) if seed is None else seed  # noqa: S311 — names a run, guards nothing
    trouble = Trouble(shuffle, duplicate, late, drop, crash)
    began = time.monotonic()
    with clear_errors(), clear_services():
        plans = parse_catalogue(catalogue.read_text(), source=str(catalogue))
        if stream is not None:
            moments = load(stream)
        else:
            moments = customers.generate(plans, tenants=tenants, events=events, seed=seed, livemode=livemode)
        if record is not None:
            dump(moments, record)
        with _registry(registry) as url:
            report, found = _both(url, moments, plans, trouble, seed=seed, livemode=livemode)
    document = _document(seed, report, found, seconds=round(time.monotonic() - began, 1))
    if as_json:
        show.as_json(document)
    else:
        _print(document)
    if found:
        raise Failure(f"{len(found)} differences; --seed {seed} repeats the run")


def _both(
    url: str, moments: list[Moment], plans: Any, trouble: Any, *, seed: int, livemode: bool
) -> tuple[RunReport, list[Difference]]:
    """The plain run, then in the same database the one with trouble."""
    from controlplane.localcloud.simulator.box import Box
    from controlplane.localcloud.simulator.schedule import NONE
    from controlplane.localcloud.simulator.verdict import differences, end_state

    with tempfile.TemporaryDirectory(prefix="controlplane-simulate-") as folder:
        _empty(url)
        with Box(url, Path(folder), plans, livemode=livemode, name="plain") as box:
            box.play(moments, NONE, seed=seed)
            plain = end_state(box)
        _empty(url)
        with Box(url, Path(folder), plans, livemode=livemode, name="trouble") as box:
            report = box.play(moments, trouble, seed=seed)
            return report, differences(box, moments, plain)


@contextmanager
def _registry(url: str | None) -> Iterator[str]:
    """A database to use: the named one if it is empty, else that of a server which ends with us."""
    if url is not None:
        try:
            with psycopg.connect(url, connect_timeout=5) as conn:
                row = conn.execute(
                    "SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
                    " WHERE n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema'"
                ).fetchone()
        except psycopg.OperationalError as error:
            raise Unreachable(f"--registry: {str(error).splitlines()[0]}") from error
        if row is None or row[0]:
            raise Misuse("--registry: expected an empty database, this one has tables")
        yield url
        return
    from controlplane.localcloud.servers.postgres import PostgresServer
    from controlplane.localcloud.servers.process import make_data_root

    root = make_data_root("controlplane-simulate-")
    try:
        with PostgresServer(root / "postgres") as server:
            yield server.create_database("simulation")
    finally:
        shutil.rmtree(root)


def _empty(url: str) -> None:
    """Begin anew in a database that was found empty."""
    from controlplane.store import schema_version
    from controlplane.store.registry import Registry

    with Registry(url, size=1) as registry, registry.connection() as conn:
        conn.execute("DROP SCHEMA IF EXISTS public CASCADE")
        conn.execute("CREATE SCHEMA public")
        schema_version.upgrade(conn)


def _document(seed: int, report: RunReport, found: list[Difference], *, seconds: float) -> dict[str, Any]:
    return {
        "converged": not found,
        "seed": seed,
        "events": report.events,
        "deliveries": report.deliveries,
        "doubled": len(report.doubled),
        "late": len(report.late),
        "dropped": len(report.dropped),
        "crashes": report.crashes,
        "found_by_comparison": report.found_by_comparison,
        "differences": [asdict(difference) for difference in found],
        "seconds": seconds,
    }


def _print(document: dict[str, Any]) -> None:
    show.line(
        f"seed {document['seed']}: {document['events']} events, {document['deliveries']} deliveries:"
        f" {document['doubled']} doubled, {document['late']} late, {document['dropped']} dropped;"
        f" {len(document['crashes'])} workers died"
    )
    show.line(f"found by the comparison with Stripe: {document['found_by_comparison']} tenants out of step")
    for difference in document["differences"][:MOST]:
        show.line(f"{difference['about']}: {difference['what']}")
        for event in difference["events"]:
            show.line(f"    {event}")
    if more := document["differences"][MOST:]:
        show.line(f"… and {len(more)} more (--json)")
    if document["converged"]:
        show.line(
            f"converged: every tenant is what Stripe says, as in a plain run ({document['seconds']:.1f} s)"
        )
