import os
import signal

import pytest
import redis

from controlplane import wsgi
from controlplane.domain.job import Lane
from controlplane.localcloud.servers.valkey import ValkeyServer
from controlplane.settings import SettingsError
from controlplane.wake_up import TASK
from tests.web.site import ENVIRONMENT


def test_every_wake_up_goes_to_the_queue_that_the_workers_listen_to(
    broker: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("CONTROLPLANE_REGISTRY_URL", "CONTROLPLANE_BROKER_URL"):
        monkeypatch.setenv(name, ENVIRONMENT[name])
    from controlplane.workers.runtime.celery_app import app

    publish = wsgi.celery_publish(broker.url)
    with redis.Redis(port=broker.port) as client:
        for lane in Lane:
            publish(lane)
            with app.connection_for_read(broker.url) as connection, connection.channel() as channel:
                app.amqp.queues.select([lane.value])  # what `controlplane worker --lane` names
                (queue,) = app.amqp.queues.consume_from.values()
                message = queue.bind(channel).get(no_ack=True)
            assert (message.headers["task"], message.payload[0]) == (TASK, [lane])
        assert client.llen("celery") == 0
    import controlplane.workers.runtime.tasks  # noqa: F401 — which registers it

    assert {task for task in app.tasks if task.startswith("controlplane.")} == {TASK}


@pytest.mark.parametrize("fault", ["dead", "silent"])
def test_a_broker_that_does_not_answer_is_given_up(broker: ValkeyServer, fault: str) -> None:
    publish = wsgi.celery_publish(broker.url)
    publish(Lane.QUICK)
    if fault == "dead":
        broker.kill()
    else:
        os.kill(broker.pid, signal.SIGSTOP)
    try:
        for _ in range(2):
            with pytest.raises(Exception, match=r"Timeout|refused|closed"):
                publish(Lane.QUICK)
    finally:
        if fault == "silent":
            os.kill(broker.pid, signal.SIGCONT)
        broker.start()
    publish(Lane.QUICK)


def test_a_missing_setting_is_named() -> None:
    env = ENVIRONMENT | {"CONTROLPLANE_PLATFORM_ZONE": ""}
    with pytest.raises(SettingsError, match="CONTROLPLANE_PLATFORM_ZONE: expected to be set"):
        wsgi.create(env)


def test_the_web_process_needs_no_credential_of_the_workers() -> None:
    app = wsgi.create(ENVIRONMENT)
    assert app.test_client().get("/healthz").status_code == 200
