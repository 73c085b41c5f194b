"""The Celery application. The broker only wakes workers up, and the settings below say so.

A message carries a task's name and an id. Losing it costs seconds (`workers/schedule/sweep.py`), so nothing
is acknowledged late, retried, delayed or answered: late acknowledgement over Redis was measured to lose and
to double tasks when workers are killed, and a visibility timeout redelivers a Terraform run that is
still going on (docs/adr/0004-broker-only-wakes-up.md). Nor is a worker controlled by messages.
"""

from __future__ import annotations

from celery import Celery

from controlplane import task_names
from controlplane.settings import BeatSettings
from controlplane.workers.schedule.duties import DUTIES, name_of

settings = BeatSettings.from_environment()

app = Celery("controlplane", broker=settings.broker_url, include=["controlplane.workers.runtime.tasks"])
app.conf.update(
    task_ignore_result=True,
    task_store_errors_even_if_ignored=False,
    task_acks_late=False,
    task_serializer="json",
    accept_content=["json"],
    task_default_queue=task_names.OPERATIONS,
    worker_enable_remote_control=False,  # or whoever reaches the broker shuts the workers down
    worker_prefetch_multiplier=1,
    worker_max_tasks_per_child=500,
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
    beat_scheduler="controlplane.workers.runtime.beat:Scheduler",
    beat_schedule={
        "sweep": {"task": task_names.SWEEP, "schedule": settings.sweep_interval},
        **{
            name_of(duty.task): {"task": duty.task, "schedule": getattr(settings, duty.interval)}
            for duty in DUTIES
        },
    },
    task_routes=task_names.ROUTES,
)
