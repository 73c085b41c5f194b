"""`controlplane web`, `worker` and `beat`: the processes of a deployment (see the Procfile).

Each checks its settings first, so that a mistake is a clear line and not a server's traceback, and then
becomes the server: signals reach it without anything in between.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import NoReturn

import click

from controlplane import bells
from controlplane.cli.failure import clear_errors
from controlplane.settings import WEB, WORKER, Group, Settings


@click.command()
@click.option("--bind", default="127.0.0.1:8000", show_default=True, help="host:port")
@click.option("--workers", type=click.IntRange(1, 64), default=2, show_default=True, help="Processes.")
@click.option(
    "--threads", type=click.IntRange(1, 256), default=16, show_default=True, help="Of each process."
)
def web(*, bind: str, workers: int, threads: int) -> None:
    """Serve webhooks and the API, with gunicorn."""
    _check(WEB)
    arguments = ["--config", "python:controlplane.web.gunicorn", "--bind", bind]
    arguments += ["--workers", str(workers), "--threads", str(threads)]
    _become("gunicorn", *arguments, "controlplane.wsgi:app")


@click.command()
@click.option(
    "--concurrency", type=click.IntRange(1, 64), default=4, show_default=True, help="Operations at once."
)
@click.option("--queues", default=bells.EVERY_QUEUE, show_default=True, help="What to work on.")
def worker(*, concurrency: int, queues: str) -> None:
    """Converge tenants and clusters, with Celery."""
    _check(WORKER)
    arguments = ["worker", "--concurrency", str(concurrency), "--queues", queues]
    _celery(*arguments, "--without-gossip", "--without-mingle", "--loglevel", "INFO")


@click.command()
def beat() -> None:
    """Ring the sweep at its intervals, with Celery. Run one; a second one does no harm."""
    _check([Group.REGISTRY, Group.BROKER])
    # Celery unpickles this file, so it stands in a folder that is new and nobody else's.
    schedule = Path(tempfile.mkdtemp(prefix="controlplane-beat-")) / "schedule"
    _celery("beat", "--schedule", str(schedule), "--loglevel", "WARNING")


def _check(groups: Iterable[Group]) -> None:
    with clear_errors():
        Settings.from_environment(os.environ, require=groups)


def _celery(*arguments: str) -> NoReturn:
    _become("celery", "--app", "workers.app", *arguments)


def _become(module: str, *arguments: str) -> NoReturn:
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", module, *arguments])  # noqa: S606 - no shell is the point
