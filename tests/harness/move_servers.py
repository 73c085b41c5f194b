"""Two placements of one tenant on real servers, hardened and migrated, with a writer at the first."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from controlplane.domain.placement import tenant_id_for
from controlplane.workers.providers.endpoint_map import EndpointMap
from controlplane.workers.providers.moves import PostgresMoves
from controlplane.workers.providers.ports import Credential, Home, MoveRun
from tests.harness.databases import Server, credential_of, placement_of


def going(fencing_token: int = 1) -> MoveRun:
    return MoveRun(fencing_token=fencing_token, stopped=lambda: False)


@dataclass
class Pair:
    source: Home
    target: Home
    servers: tuple[Server, Server]
    moves: PostgresMoves
    app: Credential  # of the source

    @contextmanager
    def writing(self) -> Iterator[psycopg.Connection]:
        """As the application, at the source."""
        with self.servers[0].login(self.app) as conn:
            yield conn

    def owner(self, end: int, *statements: str) -> None:
        """As the migrator, at the source (0) or the target (1)."""
        home = (self.source, self.target)[end]
        with self.servers[end].migrator(home.placement) as conn:
            for statement in statements:
                conn.execute(statement)

    def rows(self, end: int, query: str) -> list[tuple[object, ...]]:
        home = (self.source, self.target)[end]
        with self.servers[end].superuser(home.placement.database) as conn:
            conn.execute("SET search_path = app")
            return conn.execute(query).fetchall()

    def close(self) -> None:
        self.servers[0].provider().close_logins(self.source.at, self.source.placement)

    def end(self) -> None:
        self.moves.clear(self.source, self.target)
        for server, home in zip(self.servers, (self.source, self.target), strict=True):
            server.provider().drop(home.at, home.placement)


def make_pair(source: Server, target: Server, migrations: Path) -> Pair:
    """`target` may be the same server. Both databases have the schema of `migrations`."""
    tenant = tenant_id_for(uuid.uuid4().hex)
    homes = []
    app = None
    for server in (source, target):
        placed = placement_of(tenant)
        databases = server.provider()
        databases.create(server.at, placed, connection_limit=20)
        databases.bind(server.at, placed)
        login = credential_of(placed, placed.app_roles[0])
        databases.set_password(server.at, login)
        server.secrets.values[placed.app_secret] = login
        databases.migrate(server.at, placed, migrations)
        app = app or login
        homes.append(Home(server.at, placed))
    secrets = source.secrets
    secrets.values |= target.secrets.values
    assert app is not None
    moves = PostgresMoves(secrets, EndpointMap(), sslmode="disable")
    return Pair(homes[0], homes[1], (source, target), moves, app)


@dataclass
class Writer:
    """Inserts, updates, deletes as fast as it is let, each in a transaction of its own, and keeps what the
    server has confirmed. `journal`: id → body of every row that must be there; the one statement that was
    cut off without an answer may or may not have happened, and stands in `doubtful`."""

    pair: Pair
    journal: dict[int, str] = field(default_factory=dict)
    doubtful: set[int] = field(default_factory=set)
    written: int = 0

    def __enter__(self) -> Writer:
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(30)

    def _run(self) -> None:
        number = 0
        with self.pair.writing() as conn:
            while not self._over.is_set():
                number += 1
                self.doubtful = {number, number - 3, number - 5}
                try:
                    self._three(conn, number)
                except psycopg.Error:
                    return
                self.doubtful = set()

    def _three(self, conn: psycopg.Connection, number: int) -> None:
        with conn.transaction():
            conn.execute("INSERT INTO notes (id, body) VALUES (%s, %s)", (number, f"note {number}"))
            changed = conn.execute(
                "UPDATE notes SET body = body || '!' WHERE id = %s RETURNING body", (number - 3,)
            ).fetchone()
            conn.execute("DELETE FROM notes WHERE id = %s AND id %% 2 = 0", (number - 5,))
        self.journal[number] = f"note {number}"
        if changed is not None:
            self.journal[number - 3] = changed[0]
        if (number - 5) % 2 == 0:
            self.journal.pop(number - 5, None)
        self.written += 3
