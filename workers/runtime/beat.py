"""The clock's side of wake-ups: what nobody has heard yet is not sent again.

Celery's own scheduler publishes at every interval, whether anybody listens or not, so that a weekend
without workers would leave tens of thousands of sweeps in the broker.
"""

from __future__ import annotations

import logging
from typing import Any

from celery.beat import PersistentScheduler

from controlplane.domain.errors import Retryable
from controlplane.workers.runtime.queue_probe import QueueProbe

log = logging.getLogger(__name__)


class Scheduler(PersistentScheduler):  # type: ignore[misc]  # celery has no types
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._queue_probe = QueueProbe(self.app.conf.broker_url)

    def apply_entry(self, entry: Any, producer: Any = None) -> None:
        try:
            if not self._queue_probe.missing([(entry.task, ())]):
                return
        except Retryable as error:
            log.warning("%s is not sent: %s", entry.name, error)
            return
        super().apply_entry(entry, producer=producer)
