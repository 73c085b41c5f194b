"""However long nobody listens, each wake-up waits once; and whatever is lost of them is sent again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import kombu
import pytest
import redis

from controlplane import task_names, wsgi
from controlplane.domain.errors import Retryable
from controlplane.domain.notification import NotificationKind
from controlplane.domain.placement import tenant_id_for
from controlplane.localcloud.servers.valkey import ValkeyServer
from controlplane.store import notification, preview
from controlplane.workers.engine.context import Notify
from controlplane.workers.jobs import intake
from controlplane.workers.runtime import queue_probe
from controlplane.workers.runtime.queue_probe import QueueProbe
from controlplane.workers.schedule import sweep
from tests.harness.engine import Harness
from tests.web.site import ENVIRONMENT

EVENTS, TENANTS = 20, 15


@pytest.fixture
def queues(broker: ValkeyServer) -> Iterator[redis.Redis]:
    with redis.Redis(port=broker.port) as client:
        yield client


@pytest.fixture
def swept(harness: Harness, broker: ValkeyServer) -> Callable[[], sweep.Swept]:
    """A sweep over events, operations, a preview and a notification that are due, and nobody who works."""
    for number in range(TENANTS):
        intake.handle_event(harness.ctx, harness.hear(harness.subscribe(number)))
    for number in range(EVENTS):
        harness.hear(f"sub_{number:08d}")
    with harness.ctx.registry.connection() as conn:
        first = tenant_id_for("sub_00000000")
        preview.request(conn, first, actor="support")
        notification.add(conn, first, NotificationKind.READY, once="first")
    ctx = replace(harness.ctx, notify=wsgi.celery_notify(broker.url))
    missing = QueueProbe(broker.url).missing
    return lambda: sweep.sweep(ctx, missing)


def lengths(queues: redis.Redis) -> dict[str, int]:
    return {queue: int(queues.llen(queue)) for queue in task_names.EVERY_QUEUE.split(",")}


DUE = {"events": EVENTS + 1, "clock": 0, "controlplane": TENANTS + 2, "rollouts": 0}
"""The notification is with the events, the preview and the shared cluster with the operations."""


def test_a_hundred_sweeps_without_a_worker_wake_up_once(
    swept: Callable[[], sweep.Swept], queues: redis.Redis
) -> None:
    first = swept()
    assert (first.events, first.operations, first.previews, first.notifications) == (
        EVENTS,
        TENANTS + 1,
        1,
        1,
    )
    assert lengths(queues) == DUE
    for _ in range(99):
        assert swept().events == 0
    assert lengths(queues) == DUE


def test_a_broker_that_was_flushed_is_notified_anew_at_the_next_sweep(
    swept: Callable[[], sweep.Swept], queues: redis.Redis
) -> None:
    for _ in range(3):
        queues.flushall()
        swept()
        assert lengths(queues) == DUE


def test_a_wake_up_that_was_lost_out_of_a_backlog_is_found_while_the_others_wait(
    swept: Callable[[], sweep.Swept], queues: redis.Redis
) -> None:
    swept()
    assert queues.rpop("controlplane") is not None
    assert queues.lpop("events") is not None
    again = swept()
    assert again.events + again.notifications == 1
    assert again.operations + again.previews == 1
    assert lengths(queues) == DUE


def test_a_queue_that_is_too_long_to_be_read_is_left_alone(
    swept: Callable[[], sweep.Swept], queues: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also the bound where messages can't be understood: they count for nothing, but they are counted."""
    monkeypatch.setattr(queue_probe, "READ_AT_MOST", 60)
    queues.lpush("events", *(b"?" for _ in range(55)))
    for _ in range(10):
        swept()
    assert lengths(queues)["events"] == 55 + EVENTS + 1
    queues.delete("events")
    swept()
    assert lengths(queues) == DUE


def _by_workers(url: str) -> Notify:
    from controlplane.workers.runtime.celery_app import app

    def notify(task: str, args: list[str]) -> None:
        with kombu.Connection(url) as connection:
            app.send_task(task, args=args, retry=False, connection=connection)

    return notify


@pytest.mark.parametrize("publisher", [wsgi.celery_notify, _by_workers])
def test_the_notifies_of_both_sides_are_understood(
    broker: ValkeyServer, publisher: Callable[[str], Notify], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("CONTROLPLANE_REGISTRY_URL", "CONTROLPLANE_BROKER_URL"):
        monkeypatch.setenv(name, ENVIRONMENT[name])
    notify, missing = publisher(broker.url), QueueProbe(broker.url).missing
    wake_ups: list[queue_probe.Message] = [
        (task_names.CONVERGE, ("tenant", "tn_1")),
        (task_names.CONVERGE, ("tenant", "tn_2")),
        (task_names.HANDLE_EVENT, ("evt_1",)),
        (task_names.SWEEP, ()),
    ]
    assert missing(wake_ups) == wake_ups
    for task, args in wake_ups[1:]:
        notify(task, list(args))
    assert missing(wake_ups) == wake_ups[:1]


def test_a_broker_that_does_not_answer_ends_the_sweep_soon(
    swept: Callable[[], sweep.Swept], broker: ValkeyServer
) -> None:
    broker.kill()
    began = time.monotonic()
    with pytest.raises(Retryable, match="the broker can't be asked"):
        swept()
    assert time.monotonic() - began < 2 * queue_probe.PATIENCE
    broker.start()
    assert swept().events == EVENTS
