"""A rollout over every tenant database, beside what people do without one, in one run.

    python -m benchmarks.migrations [--sizes 100,300,1000] [--write]

Three migrations for each database (a table with an index; a column; a table with a foreign key and ten
rows). All contenders log in over SCRAM and act as the same owner, in the same databases of one real
PostgreSQL: the peers with a password that is kept, ours as each database's migrator, whom it lets in. Each
makes tables of its own names, so nobody finds another's work. The floor is psycopg with as many threads as
the rollout has and none of its care: no lock, no record of who is at what, no look at what was applied.
Floor and rollout take turns (A B B A, twice), since the machine does other things. Before that each goes
over every size once, unmeasured: the first writer of a fresh database extends every file of its catalogue,
and the first rollout brings those that are new at this size to the release of the others. The server's
shared buffers hold the fleet's catalogues, as those of a server for so many databases should.

About 8 MB of disk for each database, gone at the end. Ends with 1 where a goal was missed.
"""

from __future__ import annotations

import argparse
import base64
import gc
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from benchmarks import page
from benchmarks.migrations_report import Size, draw, report
from controlplane.domain.placement import Placement, cluster_id_for, placement_id_for, tenant_id_for
from controlplane.domain.release import Adapter
from controlplane.domain.rollout import Spec
from controlplane.localcloud.servers.postgres import PostgresServer
from controlplane.localcloud.servers.process import make_data_root
from controlplane.services import releases, rollout_plot, rollouts
from controlplane.store import rollout as rollout_rows
from controlplane.store import schema_version
from controlplane.store.registry import Registry
from controlplane.workers.engine.heartbeat import Heartbeat
from controlplane.workers.jobs import rollouts as executor
from controlplane.workers.providers.databases import PostgresDatabases
from controlplane.workers.providers.endpoint_map import EndpointMap
from controlplane.workers.providers.ports import Credential

RESULTS = Path(__file__).parent / "results"
THREADS = 8
AHEAD = 4  # members that the rollout may hold claimed beyond those that its threads are at
LOGIN, PASSWORD = "bench_migrator", "bench-migrator-password"
MASTER: Any = SimpleNamespace(read=lambda _: Credential("postgres", ""))
TEMPLATE = "bench_template"
OPTIONS = {"max_connections": "100", "shared_buffers": "2GB"}


def migrations(prefix: str) -> list[str]:
    return [
        f"CREATE TABLE {prefix}_notes (id bigserial PRIMARY KEY, body text NOT NULL);\n"
        f"CREATE INDEX {prefix}_notes_body ON {prefix}_notes (body);",
        f"ALTER TABLE {prefix}_notes ADD COLUMN stars integer NOT NULL DEFAULT 0;",
        f"CREATE TABLE {prefix}_tags (note_id bigint REFERENCES {prefix}_notes, tag text, PRIMARY KEY"
        f" (note_id, tag));\nINSERT INTO {prefix}_notes (body) SELECT 'note ' || n"
        " FROM generate_series(1, 10) AS n;",
    ]


@dataclass
class Harness:
    """The fleet and its registry. `databases`: as many as the largest size."""

    server: PostgresServer
    registry: Registry
    databases: list[Placement] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)

    def conninfo(self, database: str) -> str:
        return (
            f"host=127.0.0.1 port={self.server.port} user={LOGIN} password={PASSWORD}"
            f" dbname={database} sslmode=disable"
        )

    def superuser(self, database: str = "postgres") -> psycopg.Connection:
        return psycopg.connect(self.server.url(database), autocommit=True)


# ------------------------------------------------------------------------------------ the fleet


@contextmanager
def harness(size: int) -> Iterator[Harness]:
    root = make_data_root("bench-migrations-")
    try:
        with (
            PostgresServer(root / "pg", options=OPTIONS) as server,
            Registry(server.create_database("registry"), size=4) as registry,
        ):
            with registry.connection() as conn:
                schema_version.upgrade(conn)
            made = Harness(server, registry)
            prepare(made)
            grow(made, size)
            yield made
    finally:
        shutil.rmtree(root)


def prepare(made: Harness) -> None:
    with made.superuser() as conn:
        verifier = conn.pgconn.encrypt_password(PASSWORD.encode(), LOGIN.encode(), b"scram-sha-256").decode()
        conn.execute("CREATE ROLE bench_owner NOLOGIN")
        conn.execute(f"CREATE ROLE {LOGIN} LOGIN PASSWORD '{verifier}' IN ROLE bench_owner")
        act_as_owner(conn, LOGIN)
    made.server.create_database(TEMPLATE)
    with made.superuser(TEMPLATE) as conn:
        conn.execute("CREATE SCHEMA app AUTHORIZATION bench_owner")
        conn.execute("CREATE SCHEMA platform")
        for table in ("schema_migration", "floor"):
            conn.execute(
                f"CREATE TABLE platform.{table} (number text PRIMARY KEY, name text NOT NULL,"
                " sha256 text NOT NULL, applied_at timestamptz NOT NULL DEFAULT clock_timestamp())"
            )
        conn.execute("GRANT USAGE ON SCHEMA platform TO bench_owner")
        conn.execute("GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA platform TO bench_owner")


def act_as_owner(conn: psycopg.Connection, role: str) -> None:
    conn.execute(f"ALTER ROLE {role} SET role = 'bench_owner'")
    conn.execute(f"ALTER ROLE {role} SET search_path = app, pg_temp")


def grow(made: Harness, size: int) -> None:
    cluster = cluster_id_for(b"bench-cluster")
    endpoint = {"host": "127.0.0.1", "port": made.server.port, "master_secret_arn": "", "resource_id": ""}
    made.databases = [
        Placement(placement_id_for(str(n).encode()), tenant_id_for(f"bench {n}"), cluster)
        for n in range(size)
    ]
    with made.superuser() as conn:
        for placed in made.databases:
            conn.execute(f"CREATE DATABASE {placed.database} TEMPLATE {TEMPLATE}")
            conn.execute(f"CREATE ROLE {placed.migrator_role} NOLOGIN IN ROLE bench_owner")
            act_as_owner(conn, placed.migrator_role)
    with made.registry.connection() as conn, conn.transaction():
        conn.execute(
            "INSERT INTO cluster (id, cluster_class, slots, spec, endpoint) VALUES (%s, 'bench', 9999, '{}',"
            " %s)",
            [cluster, Jsonb(endpoint)],
        )
        ids = [placed.tenant_id for placed in made.databases]
        conn.execute(
            "INSERT INTO tenant (id, slug, display_name, customer_id, spec, ready_at)"
            " SELECT id, id, id, 'cus', '{\"lifecycle\": \"active\"}', now() FROM unnest(%s::text[]) AS id",
            [ids],
        )
        conn.execute(
            "INSERT INTO placement (id, tenant_id, cluster_id, state, username)"
            " SELECT unnest(%s::text[]), unnest(%s::text[]), %s, 'current', 'x'",
            [[placed.id for placed in made.databases], ids, cluster],
        )
    for placed in made.databases:  # so that the first contender does not pay for cold files
        psycopg.connect(made.conninfo(placed.database)).close()


# ----------------------------------------------------------------------------------- contenders


def psql(made: Harness, fleet: Sequence[Placement], prefix: str) -> None:
    """A shell loop: one psql for each database, its files in one transaction."""
    folder = Path(made.server.data_dir.parent / f"psql-{prefix}")
    folder.mkdir()
    names = []
    for number, text in enumerate(migrations(prefix), start=1):
        (folder / f"{number}.sql").write_text(text)
        names += ["-f", str(folder / f"{number}.sql")]
    program = shutil.which("psql")
    if program is None:
        raise SystemExit("psql: expected on PATH, it is what the rollout is held against")
    env = {**os.environ, "PGPASSWORD": PASSWORD, "PGSSLMODE": "disable"}
    place = ["-h", "127.0.0.1", "-p", str(made.server.port), "-U", LOGIN]
    for placed in fleet:
        subprocess.run(
            [program, "-X", "-q", "-1", "-v", "ON_ERROR_STOP=1", *place, "-d", placed.database, *names],
            env=env,
            check=True,
            stdout=subprocess.DEVNULL,
        )


def one_by_psycopg(made: Harness, placed: Placement, files: Sequence[str], prefix: str) -> None:
    with psycopg.connect(made.conninfo(placed.database), autocommit=True) as conn:
        for number, text in enumerate(files, start=1):
            with conn.transaction():
                conn.execute(text.encode())
                conn.execute(
                    "INSERT INTO platform.floor (number, name, sha256) VALUES (%s, %s, %s)",
                    [f"{prefix}_{number}", prefix, hashlib.sha256(text.encode()).hexdigest()],
                )


def psycopg_sequential(made: Harness, fleet: Sequence[Placement], prefix: str) -> None:
    files = migrations(prefix)
    for placed in fleet:
        one_by_psycopg(made, placed, files, prefix)


def floor(made: Harness, fleet: Sequence[Placement], prefix: str) -> None:
    files = migrations(prefix)
    with ThreadPoolExecutor(THREADS) as pool:
        for done in [pool.submit(one_by_psycopg, made, placed, files, prefix) for placed in fleet]:
            done.result()


def alembic(made: Harness, fleet: Sequence[Placement], prefix: str) -> None:
    """A loop over `upgrade head` in one process."""
    from alembic import command
    from alembic.config import Config
    from sqlalchemy import create_engine
    from sqlalchemy.pool import NullPool

    folder = made.server.data_dir.parent / f"alembic-{prefix}"
    (folder / "versions").mkdir(parents=True)
    (folder / "env.py").write_text(
        "from alembic import context\n"
        "context.configure(connection=context.config.attributes['connection'],"
        f" version_table='{prefix}_version')\n"
        "with context.begin_transaction():\n    context.run_migrations()\n"
    )
    for number, text in enumerate(migrations(prefix), start=1):
        before = None if number == 1 else f"{prefix}{number - 1}"
        (folder / "versions" / f"{number}.py").write_text(
            f"from alembic import op\nrevision = {f'{prefix}{number}'!r}\ndown_revision = {before!r}\n"
            f"def upgrade():\n    op.execute({text!r})\n"
        )
    config = Config()
    config.set_main_option("script_location", str(folder))
    for placed in fleet:
        info = made.conninfo(placed.database)
        engine = create_engine(
            "postgresql+psycopg://", creator=lambda info=info: psycopg.connect(info), poolclass=NullPool
        )
        with engine.connect() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            connection.commit()
        engine.dispose()


def rollout(made: Harness, fleet: Sequence[Placement], prefix: str) -> None:
    """Ours, whole: release, waves of 1, 10, 50 and 100 %, registry, locks, records."""
    number = release(made, prefix)
    with made.registry.connection() as conn:
        spec = Spec(concurrency=THREADS + AHEAD, per_cluster=THREADS + AHEAD)
        started = rollouts.start(conn, number, spec, actor="bench")
    ctx: Any = SimpleNamespace(
        registry=made.registry,
        providers=SimpleNamespace(
            databases=PostgresDatabases(MASTER, EndpointMap(), sslmode="disable"),
        ),
        platform=SimpleNamespace(lease=30.0, heartbeat=5.0),
        catalogue=SimpleNamespace(plans={}),
        holder="bench",
        heartbeat=Heartbeat(made.registry, "bench", seconds=30.0, every=5.0),
    )
    done = executor.work(ctx, started, threads=THREADS)
    ctx.heartbeat.close()
    with made.registry.connection() as conn:
        state = rollouts.show(conn, started)
    if done != len(fleet) or state.rollout.state != "done":
        raise SystemExit(f"the rollout ended as {state.rollout.state} with {done} of {len(fleet)}")


def release(made: Harness, prefix: str) -> str:
    for text in migrations(prefix):
        made.files[f"{len(made.files) + 1:04d}_{prefix}.sql"] = text
    with made.registry.connection() as conn:
        named = [(name, releases.store_file(conn, text.encode())) for name, text in made.files.items()]
        return releases.create(conn, Adapter.SQL, named, lambda _: [], actor="bench").release.number


@contextmanager
def only(made: Harness, size: int) -> Iterator[list[Placement]]:
    """The first so many tenants; the others are closed for the while, so that no rollout takes them."""
    rest = [placed.tenant_id for placed in made.databases[size:]]
    change = "UPDATE tenant SET spec = %s WHERE id = ANY(%s)"
    with made.registry.connection() as conn:
        conn.execute(change, [Jsonb({"lifecycle": "closed"}), rest])
    yield made.databases[:size]
    with made.registry.connection() as conn:
        conn.execute(change, [Jsonb({"lifecycle": "active"}), rest])


# ----------------------------------------------------------------------------------- measuring

Contender = Callable[[Harness, Sequence[Placement], str], None]
PEERS: dict[str, Contender] = {
    "psql, a loop": psql,
    "psycopg, a loop": psycopg_sequential,
    "Alembic, a loop in one process": alembic,
}


def measure(made: Harness, size: int) -> Size:
    seconds: dict[str, list[float]] = {}

    def take(name: str, contender: Contender, fleet: Sequence[Placement]) -> None:
        seconds.setdefault(name, []).append(timed(contender, made, fleet))

    with only(made, size) as fleet:
        for contender in (floor, rollout):
            timed(contender, made, fleet)
        with peak_memory() as peak:
            take("rollout", rollout, fleet)
        for contender in (floor, floor, rollout, rollout, floor, floor, rollout):
            take(contender.__name__, contender, fleet)
        for name, peer in PEERS.items():
            take(name, peer, fleet)
    return Size(size, {name: statistics.median(times) for name, times in seconds.items()}, peak[0])


def timed(contender: Contender, made: Harness, fleet: Sequence[Placement]) -> float:
    prefix = "m" + base64.b16encode(os.urandom(4)).decode().lower()
    began = time.perf_counter()
    contender(made, fleet, prefix)
    took = time.perf_counter() - began
    for placed in (fleet[0], fleet[-1]):  # whoever did not do the work has no time either
        with made.superuser(placed.database) as conn:
            row = conn.execute(f"SELECT count(*), max(stars) FROM app.{prefix}_notes").fetchone()
            assert row == (10, 0), row
    print(
        f"  {contender.__name__:<20} {len(fleet):>5}  {took:8.1f} s  {len(fleet) / took:6.1f}/s", flush=True
    )
    return took


@contextmanager
def peak_memory() -> Iterator[list[float]]:
    gc.collect()
    before, peak, ended = resident(), [0.0], threading.Event()

    def watch() -> None:
        while not ended.wait(0.1):
            peak[0] = max(peak[0], resident() - before)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        ended.set()
        thread.join()


def resident() -> float:
    """MB of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def django_tenants(made: Harness, tenants: int) -> tuple[float, float]:
    """(seconds one after the other, seconds by processes) for as many schemas of one database."""
    url = made.server.create_database("django_peer")
    child = subprocess.run(
        [sys.executable, "-m", "benchmarks.django_peer", url, str(tenants)],
        cwd=Path(__file__).parent.parent,
        check=True,
        stdout=subprocess.PIPE,
        timeout=1200,
    )
    found = json.loads(child.stdout.splitlines()[-1])
    return found["standard"], found["multiprocessing"]


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.migrations", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--sizes", default="100,300,1000", help="databases, comma separated, rising")
    parser.add_argument("--no-django", action="store_true", help="leave django-tenants out")
    parser.add_argument("--write", action="store_true", help="write its section of benchmarks/RESULTS.md")
    options = parser.parse_args(arguments)
    sizes = sorted(int(text) for text in options.sizes.split(","))
    load = page.load()
    with harness(max(sizes)) as made:
        print(f"{max(sizes)} databases are there", flush=True)
        measured = [measure(made, size) for size in sizes]
        peer = None if options.no_django else (sizes[0], *django_tenants(made, sizes[0]))
        with made.registry.connection() as conn:
            newest = rollout_rows.page(conn, before=None, limit=1)[0]
            drawing = rollout_plot.draw(conn, newest.id)
    text, missed = report(measured, peer, threads=THREADS, stamp=page.stamp(load))
    print(text)
    if options.write:
        RESULTS.mkdir(exist_ok=True)
        draw(measured, RESULTS / "migrations.svg")
        (RESULTS / "migrations_rollout.svg").write_text(drawing + "\n")
        pictures = (
            "![Seconds by databases](results/migrations.svg)\n\n![A rollout](results/migrations_rollout.svg)"
        )
        page.write("migrations", f"{text}\n{pictures}")
    for goal in missed:
        print(f"missed: {goal}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
