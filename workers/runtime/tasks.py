"""The Celery side of a worker: each pool process is one slot, and a message makes it look at once.

A process builds its context once, after the fork, since connections can't be shared over it, and before the
first customer waits for it.
"""

from __future__ import annotations

import mmap
import threading
from functools import lru_cache

from celery.signals import (
    celeryd_after_setup,
    worker_process_init,
    worker_process_shutdown,
    worker_shutting_down,
)

from controlplane.domain.job import Lane
from controlplane.wake_up import TASK, WakeUp, publisher
from controlplane.workers.engine.context import Context
from controlplane.workers.runtime.celery_app import app
from controlplane.workers.runtime.orphans import end_with_parent
from controlplane.workers.runtime.polling import Slot
from controlplane.workers.runtime.wiring import context_from_environment, prepare_from_environment

notify = WakeUp(publisher(app))
_leaving = mmap.mmap(-1, 1)
"""Shared with the children, which begin nothing once it is set: Celery itself lets them know that the worker
is to end only when they have nothing to do."""


class _Stop(threading.Event):
    def is_set(self) -> bool:
        return super().is_set() or _leaving[0] != 0


def lanes() -> list[Lane]:
    """Those that this worker takes from."""
    return [Lane(name) for name in app.amqp.queues.consume_from if name in list(Lane)]


@lru_cache(maxsize=1)
def context() -> Context:
    return context_from_environment(notify, lanes())


@lru_cache(maxsize=1)
def slot() -> Slot:
    return Slot(lambda: context(), lanes(), _Stop())  # noqa: PLW0108 — tests put another in its place


@celeryd_after_setup.connect
def _prepare(**_: object) -> None:
    """Before the children are forked: a lock held in the middle of a fork would never be let go."""
    if Lane.LONG in lanes():
        prepare_from_environment()


@worker_shutting_down.connect
def _leave(**_: object) -> None:
    _leaving[0] = 1


@worker_process_init.connect
def _begin(**_: object) -> None:
    end_with_parent()
    threading.Thread(target=slot().poll, name="poll", daemon=True).start()


@worker_process_shutdown.connect
def _end(**_: object) -> None:
    slot().end()
    if context.cache_info().currsize:
        context().heartbeat.close()
        context().registry.close()


@app.task(name=TASK)
def work(_lane: str) -> None:
    slot().work()
