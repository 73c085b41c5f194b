"""`controlplane web` and `worker`: the processes of a deployment (see the Procfile).

Each checks its settings first, so that a mistake is a clear line and not a server's traceback, and then
becomes the server: signals reach it without anything in between.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, NoReturn

import click

from controlplane.cli import options
from controlplane.cli.doctor import report
from controlplane.cli.failure import Misuse, clear_errors
from controlplane.domain.job import Lane
from controlplane.settings import Settings, SettingsError, WebSettings, WorkerSettings

if TYPE_CHECKING:
    from controlplane.workers.drift.doctor import Check


@click.command()
@click.option("--bind", default="127.0.0.1:8000", show_default=True, help="host:port")
@click.option("--workers", type=click.IntRange(1, 64), default=2, show_default=True, help="Processes.")
@click.option(
    "--threads", type=click.IntRange(1, 256), default=16, show_default=True, help="Of each process."
)
def web(*, bind: str, workers: int, threads: int) -> None:
    """Serve webhooks and the API, with gunicorn."""
    _check(WebSettings)
    arguments = ["--config", "python:controlplane.web.gunicorn", "--bind", bind]
    arguments += ["--workers", str(workers), "--threads", str(threads)]
    _become("gunicorn", *arguments, "controlplane.wsgi:app")


@click.command()
@click.option("--concurrency", type=click.IntRange(1, 64), default=4, show_default=True, help="Jobs at once.")
@click.option(
    "--lane",
    type=click.Choice([lane.value for lane in Lane]),
    required=True,
    help="quick: events, routes, decisions. long: what may take minutes, such as Terraform, copies, dumps.",
)
@click.option("--check", is_flag=True, help="Say whether it could start and what it would do; start nothing.")
@options.as_json
def worker(*, concurrency: int, lane: str, check: bool, as_json: bool) -> None:
    """Do the jobs of one lane, with Celery; a deployment needs a worker for each.

    --check looks at this machine alone (settings, Terraform, programs, files) and fails (1) where a worker
    would not do; `doctor` looks at the systems outside too. --json is for --check.
    """
    if as_json and not check:
        raise Misuse("--json: expected together with --check, a worker that runs prints its log")
    if check:
        report(_checks(concurrency, lane), as_json=as_json)
        return
    _check(WorkerSettings)
    from controlplane.workers.runtime.wiring import stack_release

    with clear_errors():
        stack_release()
    arguments = ["worker", "--concurrency", str(concurrency), "--queues", lane]
    _celery(*arguments, "--without-gossip", "--without-mingle", "--loglevel", "INFO")


def _checks(concurrency: int, lane: str) -> Iterator[Check]:
    """Without good settings nothing can be looked for where they say; the stacks need none."""
    from controlplane.workers.drift.doctor import (
        Check,
        check_stacks,
        checks,
    )

    try:
        settings = WorkerSettings.from_environment()
    except SettingsError as error:
        yield from (Check("settings", False, line, 0.0) for line in error.errors)
        yield check_stacks()
        return
    work = f"{concurrency} jobs at once of the {lane} lane"
    yield Check("settings", True, f"{settings.environment}: {work}", 0.0)
    yield from checks(settings, local=True)


def _check(of: type[Settings]) -> None:
    with clear_errors():
        of.from_environment()


def _celery(*arguments: str) -> NoReturn:
    _become("celery", "--app", "controlplane.workers.runtime.celery_app", *arguments)


def _become(module: str, *arguments: str) -> NoReturn:
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", module, *arguments])  # noqa: S606 - no shell is the point
