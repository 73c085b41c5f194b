import os
import signal

import pytest
import redis

from controlplane import task_names, wsgi
from controlplane.localcloud.servers.valkey import ValkeyServer
from controlplane.settings import SettingsError
from controlplane.web import stripe_webhook
from controlplane.web.api import events, notifications, rehearsals, rollouts
from tests.web.site import ENVIRONMENT

TASKS = {
    stripe_webhook.TASK,
    events.HANDLE,
    task_names.CONVERGE,
    task_names.PREVIEW,
    task_names.EXPORT,
    notifications.DELIVER,
    rollouts.WORK,
    rehearsals.REHEARSE,
}


def test_every_wake_up_goes_to_the_queue_that_the_workers_listen_to(
    broker: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("CONTROLPLANE_REGISTRY_URL", "CONTROLPLANE_BROKER_URL"):
        monkeypatch.setenv(name, ENVIRONMENT[name])
    from controlplane.workers.runtime.celery_app import app

    notify = wsgi.celery_notify(broker.url)
    for task in TASKS:
        notify(task, ["x"])
    with redis.Redis(port=broker.port) as client:
        notified = {queue: client.llen(queue) for queue in (*task_names.EVERY_QUEUE.split(","), "celery")}
    wanted = [app.conf.task_routes[task]["queue"] for task in TASKS]
    assert notified == {queue: wanted.count(queue) for queue in notified}
    assert notified["celery"] == 0
    import controlplane.workers.runtime.tasks  # noqa: F401 — which registers them

    assert {task for task in app.tasks if task.startswith("controlplane.workers.")} == set(task_names.QUEUES)


@pytest.mark.parametrize("fault", ["dead", "silent"])
def test_a_broker_that_does_not_answer_is_given_up(broker: ValkeyServer, fault: str) -> None:
    notify = wsgi.celery_notify(broker.url)
    notify("task", ["x"])
    if fault == "dead":
        broker.kill()
    else:
        os.kill(broker.pid, signal.SIGSTOP)
    try:
        for _ in range(2):
            with pytest.raises(Exception, match=r"Timeout|refused|closed"):
                notify("task", ["x"])
    finally:
        if fault == "silent":
            os.kill(broker.pid, signal.SIGCONT)
        broker.start()
    notify("task", ["x"])


def test_a_missing_setting_is_named() -> None:
    env = ENVIRONMENT | {"CONTROLPLANE_PLATFORM_ZONE": ""}
    with pytest.raises(SettingsError, match="CONTROLPLANE_PLATFORM_ZONE: expected to be set"):
        wsgi.create(env)


def test_the_web_process_needs_no_credential_of_the_workers() -> None:
    app = wsgi.create(ENVIRONMENT)
    assert app.test_client().get("/healthz").status_code == 200
