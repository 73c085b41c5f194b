"""What waits in the broker's queues already, so that nobody notifies of it again.

The sweep and beat come round every few seconds, however long the workers take. Without this probe they would
notify each time of what still waits to be heard, and a queue would grow as long as its workers are busy or
away. Only the broker knows which wake-ups are lost and which merely wait: anything that is kept beside it (a
column, a key with a lifetime) has to guess, and a guess either holds back a wake-up that was lost or lets
wake-ups pile up. So the queue itself is read. Nothing has to be kept in step with it, and a queue that was
flushed says so by being empty.

A message that can't be read counts for nothing, and a queue longer than READ_AT_MOST gets no more at all: its
workers have enough to do, and it stays bounded whatever is in it.
"""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Iterable

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from controlplane import task_names
from controlplane.domain.errors import Retryable

log = logging.getLogger(__name__)

READ_AT_MOST = 5000  # messages of a queue, of some 1000 bytes each
PATIENCE = 3.0  # seconds for each answer

Message = tuple[str, tuple[str, ...]]
"""A task's name and its arguments."""


class QueueProbe:
    """A look at the queues of one broker; it connects at the first."""

    def __init__(self, broker_url: str) -> None:
        self._redis = redis.Redis.from_url(
            broker_url,
            socket_timeout=PATIENCE,
            socket_connect_timeout=PATIENCE,
            retry=Retry(NoBackoff(), 0),
        )

    def missing(self, wake_ups: Iterable[Message]) -> list[Message]:
        """Those that wait in no queue, in their order. Raises Retryable where the broker does not answer."""
        waiting: dict[str, set[Message] | None] = {}
        found = []
        for notify in wake_ups:
            queue = task_names.QUEUES[notify[0]]
            if queue not in waiting:
                waiting[queue] = self._waiting(queue)
            notified = waiting[queue]
            if notified is not None and notify not in notified:
                found.append(notify)
        return found

    def _waiting(self, queue: str) -> set[Message] | None:
        """None where it is too long to be read."""
        try:
            messages = self._redis.lrange(queue, 0, READ_AT_MOST)
        except (redis.RedisError, OSError) as error:
            raise Retryable(f"the broker can't be asked what waits ({type(error).__name__})") from error
        if len(messages) > READ_AT_MOST:
            log.warning(
                "queue %s is longer than %d: nothing is sent until it is shorter", queue, READ_AT_MOST
            )
            return None
        return {notified for message in messages if (notified := _read(message)) is not None}


def _read(message: bytes | str) -> Message | None:
    """Of the Celery message protocol, version 2, as kombu puts it into a Redis list."""
    try:
        envelope = json.loads(message)
        args, _, _ = json.loads(base64.b64decode(envelope["body"]))
        return str(envelope["headers"]["task"]), tuple(str(arg) for arg in args)
    except (ValueError, KeyError, TypeError):
        return None
