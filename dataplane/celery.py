"""Celery: a background job works for the tenant whose request has sent it.

    class App(Celery): task_cls = TenantTask      # or Celery(..., task_cls=TenantTask)
    configure(app, resolver, pools)

A message carries the tenant's id and host in its headers, and nothing else of it: the worker resolves
the host when it runs the job, so a job of yesterday uses today's database, login and host, and one whose
host belongs to somebody else by now is refused. Jobs sent by jobs, retries and the links of a chain keep
the tenant. A job that was sent without one has none, and asking for a connection raises NoTenant.
"""

from __future__ import annotations

from typing import Any

import celery
from celery import Task

from dataplane.context import Pools, bound_tenant, no_tenant, use_tenant
from dataplane.errors import NoTenant, TenantChanged
from dataplane.resolver import Resolver
from dataplane.tenant_config import TenantConfig

HEADER = "dataplane_tenant"  # {"id": …, "host": …}


def configure(app: celery.Celery, resolver: Resolver, pools: Pools | None = None) -> None:
    """What the tasks of this app resolve hosts and connect with."""
    app.dataplane = (resolver, pools)


class TenantTask(Task):  # type: ignore[misc]  # celery has no types
    """Send with the current tenant, run for the tenant that the message names.

    Raises, in place of running: TenantChanged, and what `Resolver.follow` raises; the task's own
    `autoretry_for` may name these.
    """

    abstract = True

    def apply_async(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        header = self._sender()
        if header is not None:
            options["headers"] = {HEADER: header, **(options.get("headers") or {})}
        return super().apply_async(args, kwargs, **options)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.request.called_directly:  # as a function: what is bound stays bound
            return super().__call__(*args, **kwargs)
        header = self._received()
        if header is None:
            with no_tenant():
                return self.run(*args, **kwargs)
        config, pools = self._tenant(header)
        with use_tenant(config, pools):
            return self.run(*args, **kwargs)

    def _tenant(self, header: dict[str, str]) -> tuple[TenantConfig, Pools | None]:
        setup = getattr(self.app, "dataplane", None)
        if setup is None:
            raise NoTenant("dataplane.celery.configure() was not called for this app")
        resolver, pools = setup
        config: TenantConfig = resolver.follow(header["host"])
        if config.tenant_id != header["id"]:
            raise TenantChanged(f"{header['host']} is {config.tenant_id}'s, it was {header['id']}'s")
        return config, pools

    def _sender(self) -> dict[str, str] | None:
        config = bound_tenant()
        if config is not None:
            return {"id": config.tenant_id, "host": config.host}
        # Celery sends the next link of a chain after the job has ended, when no tenant is bound any
        # more; the job's own message still is the current one then.
        current = celery.current_task
        return _header(current.request) if current else None

    def _received(self) -> dict[str, str] | None:
        return _header(self.request)


def _header(request: Any) -> dict[str, str] | None:
    """Depending on how a task was called, headers of ours are in `headers` or beside Celery's own."""
    header = (request.headers or {}).get(HEADER) or request.get(HEADER)
    if header is None:
        return None
    if not isinstance(header, dict) or not all(isinstance(header.get(key), str) for key in ("id", "host")):
        raise NoTenant(f"{HEADER}: expected an object with id and host in the message's headers")
    return header
