"""The Celery tasks: parse, one call, say what came of it.

A task that can't reach the registry ends; the sweep notifies again when the registry is back. Each child
process builds its context once, after the fork, since connections can't be shared over it.
"""

from __future__ import annotations

import logging
from functools import lru_cache

from celery.signals import worker_init, worker_process_init, worker_process_shutdown
from kombu.exceptions import OperationalError as BrokerError

from controlplane import task_names
from controlplane.domain.errors import ControlPlaneError, LeaseLost, Retryable
from controlplane.store import duty as duties
from controlplane.workers.engine.context import Context
from controlplane.workers.runtime.celery_app import app, settings
from controlplane.workers.runtime.orphans import end_with_parent
from controlplane.workers.runtime.queue_probe import QueueProbe
from controlplane.workers.runtime.wiring import context_from_environment, prepare_from_environment
from controlplane.workers.schedule import sweep as sweeping
from controlplane.workers.schedule.duties import (
    DUTIES,
    WORK,
    Duty,
    Work,
    lasting,
    name_of,
)

log = logging.getLogger(__name__)

SLICE = 60.0  # seconds


def notify(task: str, args: list[str]) -> None:
    """A lost wake-up costs seconds: the sweep finds what is due."""
    try:
        app.send_task(task, args=args, retry=False)
    except (BrokerError, OSError) as error:
        log.warning("could not notify of %s %s: %s", task, args, type(error).__name__)


@lru_cache(maxsize=1)
def context() -> Context:
    return context_from_environment(notify)


@lru_cache(maxsize=1)
def queue_probe() -> QueueProbe:
    return QueueProbe(settings.broker_url)


@worker_init.connect
def _prepare(**_: object) -> None:
    """Before the children are forked: a lock held in the middle of a fork would never be let go."""
    prepare_from_environment()


@worker_process_init.connect
def _begin(**_: object) -> None:
    end_with_parent()


@worker_process_shutdown.connect
def _close(**_: object) -> None:
    if context.cache_info().currsize:
        context().registry.close()


def _add_work(work: Work) -> None:
    """A slice of it at most, so that a deployment is not held up; the sweep notifies again."""

    @app.task(name=work.task)
    def do(*args: str) -> None:
        try:
            work.do(context(), lasting(SLICE), args)
        except (LeaseLost, Retryable) as error:
            log.warning("%s %s: %s", name_of(work.task), " ".join(args), error)


def _add_duty(duty: Duty) -> None:
    @app.task(name=duty.task)
    def do() -> None:
        try:
            if _begin_turn(duty.task, getattr(settings, duty.interval)):
                log.info("%s: %s", name_of(duty.task), duty.do(context(), lambda: False))
        except ControlPlaneError as error:
            log.warning("%s: %s", name_of(duty.task), error)


def _begin_turn(task: str, interval: float) -> bool:
    """Messages that a busy worker had fetched ahead are one turn, not several one behind the other. Half an
    interval, since beat's ticks are not that even."""
    with context().registry.connection() as conn:
        return duties.begin(conn, name_of(task), interval=interval / 2)


@app.task(name=task_names.SWEEP)
def sweep() -> None:
    try:
        if _begin_turn(task_names.SWEEP, settings.sweep_interval):
            sweeping.sweep(context(), queue_probe().missing)
    except Retryable as error:
        log.warning("sweep: %s", error)


for _work in WORK:
    _add_work(_work)
for _duty in DUTIES:
    _add_duty(_duty)
