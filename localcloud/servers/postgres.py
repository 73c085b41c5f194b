"""A real PostgreSQL on loopback: the registry, and what stands behind every emulated RDS cluster.

Started directly and not by `pg_ctl`, so that it is our child and ends with us. Logins with a
password go through SCRAM as they do on RDS; only the superuser of a server that was given no
password is trusted. `fsync` is off unless asked for: it protects against a power cut, which no local
data needs surviving, while a killed server (`kill`) recovers either way.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from urllib.parse import quote

import psycopg
from psycopg import sql

from controlplane.localcloud.servers import postgres_install as install
from controlplane.localcloud.servers.process import (
    Child,
    ServiceError,
    free_port,
    spawn,
)

START_ATTEMPTS = 5
STOP_SIGNALS = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}
# A killed server's backends notice within moments, but until the last one is gone its shared memory
# keeps a successor out.
LEFTOVERS_SECONDS = 15


class PostgresServer:
    """One PostgreSQL on 127.0.0.1, its data in `data_dir`, which is made if it does not exist.

    `port` 0 takes a free one and keeps it over restarts. `user` is the superuser; with `password`
    None it is trusted, else every login needs SCRAM. `options` are configuration parameters, e.g.
    {"wal_level": "logical"}; the attribute is read at each start. `fsync` True is for measuring honest
    commit times.

    Started by root it runs as `nobody`, who must be able to pass through the folders above
    `data_dir`: temporary folders are usually closed to others, those of `process.make_data_root`
    are not.
    """

    def __init__(
        self,
        data_dir: Path,
        port: int = 0,
        *,
        user: str = "postgres",
        password: str | None = None,
        options: Mapping[str, str] | None = None,
        fsync: bool = False,
    ) -> None:
        self.data_dir = data_dir.resolve()
        self.port = port
        self.user = user
        self._password = password
        self.options = dict(options or {})
        self._fsync = fsync
        self._child: Child | None = None
        self._prepared = False

    def __enter__(self) -> PostgresServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def running(self) -> bool:
        return self._child is not None and self._child.running

    @property
    def pid(self) -> int:
        if self._child is None:
            raise ServiceError("postgres: not started")
        return self._child.pid

    def url(self, dbname: str = "postgres", *, user: str | None = None, password: str | None = None) -> str:
        """How `user` connects; None means the superuser. Holds the password where there is one: not
        for logs."""
        if user is None:
            user, password = self.user, self._password
        secret = "" if password is None else ":" + quote(password, safe="")
        return f"postgresql://{quote(user, safe='')}{secret}@127.0.0.1:{self.port}/{quote(dbname)}"

    def start(self) -> None:
        """Start and wait until it takes connections. Raises ServiceError."""
        if self.running:
            return
        if not self._prepared:
            self._prepare()
        self._launch()

    def _launch(self) -> None:
        deadline = time.monotonic() + LEFTOVERS_SECONDS
        attempts = START_ATTEMPTS if self.port == 0 else 1
        while True:
            port = self.port or free_port()
            (self.data_dir / "server.log").unlink(missing_ok=True)
            child = spawn(
                f"postgres in {self.data_dir.name}",
                self._command(port),
                log=self.data_dir / "server.log",
                user=install.run_as(),
                death_signal=signal.SIGQUIT,
            )
            try:
                child.wait_until(partial(self._ready, child.pid))
            except ServiceError as error:
                attempts -= 1
                taken = "Address already in use" in str(error) and attempts > 0
                leftovers = "is still in use" in str(error) and time.monotonic() < deadline
                if not taken and not leftovers:
                    raise
                time.sleep(0.1)
                continue
            self.port, self._child = port, child
            return

    def stop(self, mode: str = "fast") -> None:
        """`mode`: "smart" waits for sessions to end, "fast" ends them, "immediate" crashes."""
        if mode not in STOP_SIGNALS:
            raise ServiceError(f"mode: expected one of {', '.join(STOP_SIGNALS)}, got {mode!r}")
        if self._child is not None:
            self._child.stop(STOP_SIGNALS[mode], grace=30)
            self._child = None

    def restart(self, mode: str = "fast") -> None:
        self.stop(mode)
        self.start()

    def kill(self) -> None:
        """What the kernel's out-of-memory killer does to the postmaster."""
        if self._child is not None:
            self._child.kill()
            self._child = None

    def create_database(self, name: str, *, owner: str | None = None, template: str = "template0") -> str:
        """Make an empty database, or a copy of one to which nobody is connected; return the
        superuser's URL of it. `owner` None: the superuser."""
        names = [sql.Identifier(part) for part in (name, owner or self.user, template)]
        # A fifth less processor time than through the log, for two checkpoints, cheap without fsync.
        statement = "CREATE DATABASE {} OWNER {} TEMPLATE {}" + ("" if self._fsync else " STRATEGY file_copy")
        self._administer(sql.SQL(statement).format(*names))
        return self.url(name)

    def create_role(self, name: str, password: str) -> None:
        """Make a login without any privilege."""
        self._administer(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(name)))
        self.set_password(name, password)

    def set_password(self, role: str, password: str) -> None:
        """Only the SCRAM verifier leaves this process."""
        with psycopg.connect(self.url(), autocommit=True) as connection:
            verifier = connection.pgconn.encrypt_password(
                password.encode(), role.encode(), b"scram-sha-256"
            ).decode()
            connection.execute(
                sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(role), sql.Literal(verifier))
            )

    def drop_database(self, name: str) -> None:
        """Delete it, whoever is connected; gone already is success."""
        self._administer(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def backup(self, target: Path) -> None:
        """Copy the running server's data, consistently, to a folder that does not exist yet: the
        data folder of another server."""
        target.parent.mkdir(parents=True, exist_ok=True)
        target.mkdir(mode=0o700)
        install.give_to_runner(target)
        install.run(
            [
                install.program("pg_basebackup"),
                *("--pgdata", target),
                *("--host", "127.0.0.1", "--port", str(self.port), "--username", self.user),
                *("--checkpoint=fast", "--wal-method=stream", "--no-sync", "--no-manifest", "--no-password"),
            ],
            environment={"PGPASSWORD": self._password or ""},
        )

    def _administer(self, statement: sql.Composed) -> None:
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(statement)

    def _prepare(self) -> None:
        if not (self.data_dir / "PG_VERSION").exists():
            if self.data_dir.is_dir():
                self.data_dir.rmdir()  # an empty one is welcome, anything else is not ours to use
            self.data_dir.parent.mkdir(parents=True, exist_ok=True)
            install.copy_empty_cluster(self.data_dir, self.user)
        else:
            install.require_reachable(self.data_dir)
        if (self.data_dir / "recovery.signal").exists():
            self._replay()
        trusted = ""
        if self._password is None:
            trusted = f'host all,replication "{self.user}" 127.0.0.1/32 trust\n'
        rules = self.data_dir / "pg_hba.conf"
        rules.write_text(trusted + "host all,replication all 127.0.0.1/32 scram-sha-256\n")
        install.give_to_runner(rules)
        if self._password is not None:
            self._set_own_password(self._password)
        self._prepared = True

    def _replay(self) -> None:
        """Bring the data to the moment that its settings name (`localcloud/point_in_time.py`). Nobody can log
        in meanwhile: pg_hba.conf is still the empty cluster's. Single-user mode can't do it."""
        port = self.port
        self._launch()
        self.stop()
        self.port = port  # one that was free before need not be so afterwards
        if (self.data_dir / "recovery.signal").exists():
            raise ServiceError(f"postgres in {self.data_dir.name}: the log was not replayed to its end")

    def _set_own_password(self, password: str) -> None:
        """In single-user mode, so that no moment exists in which the port is open without one, and
        over standard input, so that it is in no argument and no file."""
        name = self.user.replace('"', '""')
        value = password.replace("'", "''")
        if "\n" in password:
            raise ServiceError("password: expected a single line")
        install.run(
            [
                install.program("postgres"),
                "--single",
                "-D",
                self.data_dir,
                *("-c", "exit_on_error=true"),
                *("-c", "log_min_error_statement=panic"),
                *("-c", f"fsync={'on' if self._fsync else 'off'}"),
                "postgres",
            ],
            stdin=f"ALTER ROLE \"{name}\" PASSWORD '{value}'\n",
        )

    def _command(self, port: int) -> list[str | Path]:
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(port),
            "unix_socket_directories": "",  # their paths are limited to 107 bytes, temporary folders are not
            "shared_buffers": "32MB",
            "max_connections": "200",
            "timezone": "UTC",
            "log_timezone": "UTC",
            **({} if self._fsync else {"fsync": "off", "full_page_writes": "off"}),
            **self.options,
        }
        return [
            install.program("postgres"),
            "-D",
            self.data_dir,
            *(part for name, value in settings.items() for part in ("-c", f"{name}={value}")),
        ]

    def _ready(self, pid: int) -> bool:
        """The postmaster writes "ready" into the eighth line of its lock file: what `pg_ctl -w`
        waits for as well."""
        try:
            lines = (self.data_dir / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return len(lines) >= 8 and lines[0] == str(pid) and lines[7].strip() == "ready"
