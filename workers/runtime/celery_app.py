"""The Celery application. The broker only wakes workers up, and the settings below say so.

A message says that a lane has work. Losing it costs a second (`workers/runtime/polling.py`), so nothing is
acknowledged late, retried, delayed or answered: late acknowledgement over Redis was measured to lose and
to double tasks when workers are killed, and a visibility timeout redelivers a Terraform run that is
still going on (docs/adr/0004-broker-only-wakes-up.md). Nor is a worker controlled by messages. A lane is a
queue; a worker takes from one.
"""

from __future__ import annotations

from celery import Celery

from controlplane.domain.job import Lane
from controlplane.settings import BrokerSettings

settings = BrokerSettings.from_environment()

app = Celery("controlplane", broker=settings.broker_url, include=["controlplane.workers.runtime.tasks"])
app.conf.update(
    task_ignore_result=True,
    task_store_errors_even_if_ignored=False,
    task_acks_late=False,
    task_serializer="json",
    accept_content=["json"],
    task_default_queue=Lane.QUICK.value,
    worker_enable_remote_control=False,  # or whoever reaches the broker shuts the workers down
    worker_prefetch_multiplier=1,
    worker_cancel_long_running_tasks_on_connection_loss=False,
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    broker_transport_options={
        "visibility_timeout": 7 * 24 * 3600,
        "socket_timeout": 10,
        "socket_connect_timeout": 3,
        "socket_keepalive": True,
        "health_check_interval": 10,
        "retry_on_timeout": True,
    },
    task_publish_retry=False,
)
