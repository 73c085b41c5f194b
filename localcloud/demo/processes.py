"""The processes of the demo: the local cloud, and the product's own as a platform would run them."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx
from rich.console import Console

from controlplane.domain.job import Lane
from controlplane.localcloud.aws.account import session_of
from controlplane.localcloud.cloud import LocalCloud, write_environment
from controlplane.localcloud.demo import orphans
from controlplane.localcloud.servers.process import (
    Child,
    free_port,
    spawn,
)
from controlplane.settings import for_child
from controlplane.store import schema_version
from controlplane.store.registry import Registry

SLOTS = {Lane.QUICK: 3, Lane.LONG: 4}
"""Of the worker of each lane."""
ROOT = Path(__file__).parents[3]
CATALOGUE = ROOT / "controlplane/plans.toml"
MIGRATIONS = ROOT / "examples/notes/migrations"
READY_WITHIN = 60.0
SAVED_WITHIN = 20.0
"""Seconds that a Terraform whose worker has been stopped gets to save its state."""
SOCKET_PATH = 80
"""Characters of a temporary folder below which a Unix socket's path stays within its 107."""
_STOP = {f"worker-{lane}": signal.SIGQUIT for lane in Lane}
"""Celery's cold shutdown: a warm one would wait for Terraform. The registry resumes what is cut off."""
_DEATH = {f"worker-{lane}": signal.SIGKILL for lane in Lane}
"""When the demo itself is killed. A cold shutdown can hang; killed, its pool and Terraform end with it."""


class DemoFailed(RuntimeError):
    """Something that the demo must show does not hold."""


class DemoProcesses:
    """Use as a context manager. `data_dir` None: a temporary folder, removed at the end. `settings`
    are variables for the product's processes, over those of the demo."""

    def __init__(
        self, console: Console, data_dir: Path | None = None, *, settings: Mapping[str, str] | None = None
    ) -> None:
        self._console = console
        self._settings = dict(settings or {})
        self.cloud = LocalCloud(data_dir)
        self.children: dict[str, Child] = {}
        self.web_port, self.app_port = free_port(), free_port()
        self._registry: Registry | None = None
        self._outside: set[int] = set()

    def __enter__(self) -> Self:
        orphans.adopt(on=True)
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None and issubclass(kind, DemoFailed):
            self._show_logs()
        self._say("stopping …")
        self.close()

    @property
    def registry(self) -> Registry:
        if self._registry is None:
            raise DemoFailed("the registry has not been started")
        return self._registry

    @property
    def web_url(self) -> str:
        return f"http://127.0.0.1:{self.web_port}"

    def environment(self) -> dict[str, str]:
        """What the product's processes are given."""
        cloud = self.cloud.environment()
        return {
            **for_child(),
            **cloud,
            "CONTROLPLANE_ENVIRONMENT": "demo",
            "CONTROLPLANE_PLAN_CATALOGUE": str(CATALOGUE),
            "CONTROLPLANE_TENANT_MIGRATIONS": str(MIGRATIONS),
            "DATAPLANE_CACHE_URL": cloud["CONTROLPLANE_CACHE_URL"],
            "DATAPLANE_RESOLVE_URL": self.web_url,
            "DATAPLANE_RESOLVE_TOKEN": self.cloud.credentials.viewer_token,
            "PYTHONUNBUFFERED": "1",
            **self._temporary_folder(),
            **self._settings,
        }

    def write_environment(self) -> Path:
        """For whoever looks at it from another terminal: the settings of the product's processes, and the
        tokens of two persons of support."""
        given = {**os.environ, "PYTHONUNBUFFERED": "1", **self._temporary_folder()}
        own = {name: value for name, value in self.environment().items() if given.get(name) != value}
        credentials, path = self.cloud.credentials, self.cloud.data_dir / "environment"
        support = {
            "CONTROLPLANE_API_URL": self.web_url,
            "CONTROLPLANE_API_TOKEN": credentials.operator_token,
            "SECOND_PERSONS_TOKEN": credentials.second_operator_token,
        }
        write_environment(path, {**own, **support})
        return path

    def _temporary_folder(self) -> dict[str, str]:
        """In the data folder, so that what a killed process leaves there goes with it."""
        folder = self.cloud.data_dir / "tmp"
        if len(str(folder)) > SOCKET_PATH:
            return {}
        folder.mkdir(exist_ok=True)
        return {"TMPDIR": str(folder)}

    def failed_process(self) -> str | None:
        """The name of a process of the product that has ended; None while all run. A worker that has
        is started again, as a platform would: it may be killed at any moment."""
        for lane in Lane:
            worker = self.children.get(f"worker-{lane}")
            if worker is not None and not worker.running:
                self._say(f"  the worker of the {lane} lane has ended; another one takes its place")
                worker.kill()
                self.start_worker(lane)
        return next((name for name, child in self.children.items() if not child.running), None)

    def wait_until_one_fails(self) -> None:
        """Raises DemoFailed once a process of the product has ended."""
        while (failed := self.failed_process()) is None:
            time.sleep(1)
        raise DemoFailed(f"{failed} has stopped")

    def close(self) -> None:
        for name in reversed(self.children):
            self.children[name].stop(_STOP.get(name, signal.SIGTERM))
        self.children.clear()
        orphans.outlive(self._outside, SAVED_WITHIN)
        orphans.adopt(on=False)
        if self._registry is not None:
            self._registry.close()
        self.cloud.close()

    def _start(self) -> None:
        started = time.monotonic()
        self._say("starting PostgreSQL, two Valkeys, AWS, Stripe and Cloudflare on this machine …")
        self.cloud.start()
        self._outside = orphans.children()
        self._registry = Registry(self.cloud.environment()["CONTROLPLANE_REGISTRY_URL"])
        with self._registry.connection() as conn:
            schema_version.upgrade(conn)
        self.cloud.deliver_webhooks_to(f"{self.web_url}/webhooks/stripe")
        self._say(f"  the external systems run after {time.monotonic() - started:.1f} s")
        self._start_product()
        self._say(f"  web, workers and the sample app run after {time.monotonic() - started:.1f} s")

    def start_worker(self, *lanes: Lane) -> None:
        """A Celery worker for each of these lanes, for all where none is named; those before them, if any,
        must have ended."""
        for lane in lanes or Lane:
            command = [sys.executable, "-m", "controlplane.cli.main", "worker", "--lane", lane.value]
            self._spawn(f"worker-{lane}", [*command, "--concurrency", str(SLOTS[lane])], self.environment())

    def _start_product(self) -> None:
        environment = self.environment()
        cli = [sys.executable, "-m", "controlplane.cli.main"]
        gunicorn = [sys.executable, "-m", "gunicorn", "--worker-class", "gthread", "--threads", "8"]
        gunicorn += ["--no-control-socket", "--log-level", "warning"]
        web = ["web", "--bind", f"127.0.0.1:{self.web_port}", "--workers", "1"]
        self._spawn("web", [*cli, *web], environment)
        self._spawn(
            "app",
            [*gunicorn, "--bind", f"127.0.0.1:{self.app_port}", "examples.notes.app:create_app()"],
            # As its task's role, which may read no secret itself.
            environment | session_of(environment["CONTROLPLANE_APP_ROLE_ARN"], environment),
        )
        self.start_worker()
        self._until_answers("web", f"{self.web_url}/readyz")
        self._until_answers("app", f"http://127.0.0.1:{self.app_port}/healthz")

    def _spawn(self, name: str, command: list[str], environment: Mapping[str, str]) -> None:
        log = self.cloud.data_dir / f"{name}.log"
        self.children[name] = spawn(
            name,
            command,
            log=log,
            env=dict(environment),
            cwd=ROOT,
            death_signal=_DEATH.get(name, signal.SIGTERM),
        )

    def _until_answers(self, name: str, url: str) -> None:
        deadline = time.monotonic() + READY_WITHIN
        answer = "nothing"
        while time.monotonic() < deadline:
            if failed := self.failed_process():
                raise DemoFailed(f"{failed} ended while starting")
            try:
                status = httpx.get(url, timeout=2).status_code
            except httpx.TransportError as error:
                answer = type(error).__name__
            else:
                if status == httpx.codes.OK:
                    return
                answer = f"status {status}"
            time.sleep(0.1)
        raise DemoFailed(f"{name} does not answer at {url} ({answer})")

    def _show_logs(self) -> None:
        for child in self.children.values():
            lines = child.log.read_text(errors="replace").splitlines()[-15:] if child.log.exists() else []
            self._say(f"--- the end of {child.name}'s log")
            for line in lines:
                self._console.print(line, markup=False)

    def _say(self, text: str) -> None:
        self._console.print(text, markup=False)
