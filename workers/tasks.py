"""The Celery tasks: parse, one call, say what came of it.

A task that can't reach the registry ends; the sweep rings again when the registry is back. Each child
process builds its context once, after the fork, since connections can't be shared over it.
"""

from __future__ import annotations

import logging
from functools import lru_cache

from celery.signals import worker_init, worker_process_init, worker_process_shutdown
from kombu.exceptions import OperationalError as BrokerError

from controlplane import bells
from controlplane.domain.errors import ControlPlaneError, Retryable
from controlplane.domain.operation import ResourceKind
from workers import compare as comparing
from workers import converge as engine
from workers import exports, intake, notices, rehearsals, rollouts, snapshots
from workers import preview as previews
from workers import sweep as sweeping
from workers.app import app, settings
from workers.bootstrap import context_from_environment, prepare_from_environment
from workers.context import Context
from workers.doorbell import Doorbell
from workers.orphans import end_with_parent
from workers.pace import Pace

log = logging.getLogger(__name__)

ROLLOUT_SLICE = 60.0  # seconds
sweep_pace = Pace(settings.sweep_interval / 2)
"""Messages that a busy worker had fetched ahead are one sweep, not several one behind the other."""


def ring(task: str, args: list[str]) -> None:
    """A lost ring costs seconds: the sweep finds what is due."""
    try:
        app.send_task(task, args=args, retry=False)
    except (BrokerError, OSError) as error:
        log.warning("could not ring %s %s: %s", task, args, type(error).__name__)


@lru_cache(maxsize=1)
def context() -> Context:
    return context_from_environment(ring)


@lru_cache(maxsize=1)
def doorbell() -> Doorbell:
    return Doorbell(settings.broker_url)


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


@app.task(name=intake.TASK)
def handle_event(event_id: str) -> None:
    try:
        intake.handle_event(context(), event_id)
    except Retryable as error:
        log.warning("event %s: %s", event_id, error)


@app.task(name=engine.TASK)
def converge(kind: str, resource_id: str) -> None:
    """Where another worker died over something, that goes first."""
    try:
        engine.take_over(context())
        engine.converge(context(), ResourceKind(kind), resource_id)
    except Retryable as error:
        log.warning("%s %s: %s", kind, resource_id, error)


@app.task(name=previews.TASK)
def preview(preview_id: str) -> None:
    try:
        previews.work_out(context(), int(preview_id))
    except Retryable as error:
        log.warning("preview %s: %s", preview_id, error)


@app.task(name=notices.TASK)
def deliver() -> None:
    try:
        notices.deliver(context())
    except Retryable as error:
        log.warning("notices: %s", error)


@app.task(name=exports.TASK)
def export(export_id: str) -> None:
    try:
        exports.work(context(), int(export_id))
    except Retryable as error:
        log.warning("export %s: %s", export_id, error)


@app.task(name=rollouts.TASK)
def rollout(rollout_id: str) -> None:
    """A slice of it, so that a deployment is not held up; the sweep rings again."""
    try:
        rollouts.work(context(), int(rollout_id), seconds=ROLLOUT_SLICE)
    except Retryable as error:
        log.warning("rollout %s: %s", rollout_id, error)


@app.task(name=rehearsals.TASK)
def rehearsal() -> None:
    try:
        rehearsals.work(context())
    except Retryable as error:
        log.warning("rehearsal: %s", error)


@app.task(name=snapshots.TASK)
def rollout_snapshots() -> None:
    try:
        snapshots.work(context())
    except Retryable as error:
        log.warning("snapshots: %s", error)


@app.task(name=bells.SWEEP)
def sweep() -> None:
    if not sweep_pace.allows():
        return
    try:
        sweeping.sweep(context(), doorbell().unheard)
    except Retryable as error:
        log.warning("sweep: %s", error)


@app.task(name=bells.REPUBLISH)
def republish() -> None:
    try:
        log.info("republish wrote %d routes", sweeping.republish(context()))
    except Retryable as error:
        log.warning("republish: %s", error)


@app.task(name=bells.COMPARE)
def compare() -> None:
    try:
        found = comparing.compare(context())
    except ControlPlaneError as error:
        log.warning("compare: %s", error)
    else:
        log.info("compared %d subscriptions, %d were out of step", found.subscriptions, found.out_of_step)
