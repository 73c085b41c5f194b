"""The web process, put together: settings → registry, wake-ups, signing key → application.

The only place of the web side that knows Celery and the data plane's contract. gunicorn asks
for `app` in each of its workers, after the fork; it is made then, so that importing this does nothing.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from celery import Celery
from flask import Flask

from controlplane.settings import WebSettings
from controlplane.store.registry import Registry
from controlplane.wake_up import Publish, WakeUp, publisher
from controlplane.web.app import create_app
from controlplane.web.edge import Sign
from dataplane import tenant_config

NOTIFY_TIMEOUT = 0.25  # seconds, to connect and for each answer
REGISTRY_CONNECTIONS = 8  # of each process
REGISTRY_WAIT = 2.0  # seconds for one of them
STATEMENT_TIMEOUT = 5.0  # seconds; every request is a few lookups by key


def create(env: Mapping[str, str] | None = None) -> Flask:
    """Raises SettingsError."""
    settings = WebSettings.from_environment(env)
    registry = Registry(
        settings.registry_url,
        size=REGISTRY_CONNECTIONS,
        wait=REGISTRY_WAIT,
        statement_timeout=STATEMENT_TIMEOUT,
    )
    notify = WakeUp(celery_publish(settings.broker_url))
    return create_app(registry, settings, notify, signer(settings))


def __getattr__(name: str) -> Flask:
    if name == "app":
        return create()
    raise AttributeError(f"controlplane.wsgi has no {name}")


def celery_publish(broker_url: str) -> Publish:
    """Raises within three NOTIFY_TIMEOUTs where the broker does not answer, and tries nothing again."""
    celery = Celery("controlplane.web", broker=broker_url, set_as_current=False)
    celery.conf.update(
        broker_connection_timeout=NOTIFY_TIMEOUT,
        broker_connection_retry=False,
        broker_transport_options={
            "max_retries": 0,
            "socket_timeout": NOTIFY_TIMEOUT,
            "socket_connect_timeout": NOTIFY_TIMEOUT,
            "retry_on_timeout": False,
        },
        task_publish_retry=False,
        task_ignore_result=True,
    )
    return publisher(celery)


def signer(settings: WebSettings) -> Sign:
    """Entries issued now and signed with the first of the signing keys."""
    key_id, key = settings.config_signing_keys[0]

    def sign(payload: Mapping[str, Any]) -> str:
        issued = tenant_config.issued(payload, at=time.time())
        return tenant_config.sign(issued, key_id=key_id, key=key)

    return sign
