"""Background jobs carry their tenant, through a real broker and a real worker."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from typing import Any

import celery
import pytest
from celery import Celery, chain
from celery.contrib.testing.worker import start_worker

import dataplane.celery
from controlplane.localcloud.servers.valkey import ValkeyServer
from dataplane.celery import HEADER, TenantTask
from dataplane.context import bound_tenant, current_tenant, tenant_connection, use_tenant
from dataplane.errors import NoTenant, Suspended, TenantChanged
from dataplane.memory import Policy
from dataplane.pools import KeyedPools
from dataplane.resolver import Resolver
from dataplane.tenant_config import Status
from tests.dataplane.tenants import TenantDatabase
from tests.dataplane.tiers import FakeTier


class Jobs:
    """An app whose tasks say what they saw."""

    def __init__(self, broker: str, resolver: Resolver, pools: KeyedPools) -> None:
        self.app = Celery("jobs", broker=broker, backend="cache+memory://", task_cls=TenantTask)
        self.app.conf.update(task_store_eager_result=True, broker_connection_retry_on_startup=True)
        self.app.set_current()
        self.seen: list[Any] = []
        self.signal = threading.Semaphore(0)
        dataplane.celery.configure(self.app, resolver, pools)

        # shared=False: else every other app of the process would get these tasks, each time anew.
        @self.app.task(name="look", shared=False, bind=True)
        def look(task: celery.Task, *_: Any) -> str:
            with tenant_connection() as conn:
                row = conn.execute("SELECT body FROM note WHERE body LIKE 'canary%'").fetchone()
            assert row is not None
            self.saw((current_tenant().slug, row[0], bool(task.request.id)))
            return str(current_tenant().slug)

        @self.app.task(name="outer", shared=False)
        def outer() -> None:
            look.delay()

        @self.app.task(name="again", shared=False, bind=True, max_retries=1)
        def again(task: celery.Task) -> None:
            if not task.request.retries:
                raise task.retry(countdown=0)
            self.saw(current_tenant().slug)

        @self.app.task(name="nobody", shared=False)
        def nobody() -> None:
            self.saw(bound_tenant())

        self.look, self.outer, self.again, self.nobody = look, outer, again, nobody

    def saw(self, thing: Any) -> None:
        self.seen.append(thing)
        self.signal.release()

    def wait(self, number: int = 1) -> list[Any]:
        for _ in range(number):
            assert self.signal.acquire(timeout=120)
        return self.seen


@pytest.fixture
def tier(tenants: list[TenantDatabase]) -> FakeTier:
    return FakeTier(*(tenant.config() for tenant in tenants))


@pytest.fixture
def jobs(broker: ValkeyServer, tier: FakeTier, pools: KeyedPools) -> Iterator[Jobs]:
    jobs = Jobs(broker.url, Resolver(cache=tier, policy=Policy(ttl=0, grace=0)), pools)
    yield jobs
    jobs.app.close()


@pytest.fixture
def worker(jobs: Jobs) -> Iterator[None]:
    root = logging.getLogger()
    before = root.level
    with start_worker(jobs.app, perform_ping_check=False, pool="solo", loglevel="ERROR"):
        yield
    root.setLevel(before)  # Celery raises it, and a later test would read no warnings


@pytest.mark.usefixtures("worker")
def test_jobs_run_for_the_tenant_that_sent_them(
    jobs: Jobs, pools: KeyedPools, tenants: list[TenantDatabase]
) -> None:
    acme, globex, _ = tenants
    with use_tenant(acme.config(), pools):
        jobs.look.delay()
    with use_tenant(globex.config(), pools):
        jobs.look.delay()
    assert jobs.wait(2) == [("acme", acme.canary, True), ("globex", globex.canary, True)]
    with use_tenant(acme.config(), pools):
        jobs.outer.delay()
        jobs.again.delay()
    assert set(jobs.wait(2)[2:]) == {("acme", acme.canary, True), "acme"}
    with use_tenant(globex.config(), pools):
        chain(jobs.look.s(), jobs.look.s()).delay()
    assert jobs.wait(2)[4:] == [("globex", globex.canary, True)] * 2
    jobs.nobody.delay()
    assert jobs.wait()[-1] is None, "a job without a tenant has none, whoever came before"


def send(jobs: Jobs, tenant: TenantDatabase, **header: str) -> Any:
    return jobs.look.apply(headers={HEADER: {"id": tenant.tenant_id, "host": tenant.host, **header}})


def test_the_host_is_resolved_when_the_job_runs(
    jobs: Jobs, tier: FakeTier, tenants: list[TenantDatabase]
) -> None:
    acme, globex, _ = tenants
    assert send(jobs, acme).result == "acme"
    tier.put(globex.config(host=acme.host, epoch=2))
    assert isinstance(send(jobs, acme).result, TenantChanged)
    tier.put(acme.config(status=Status.SUSPENDED, epoch=3))
    assert isinstance(send(jobs, acme).result, Suspended)


def test_a_job_of_a_host_that_has_moved_runs_at_the_new_one(
    jobs: Jobs, tier: FakeTier, tenants: list[TenantDatabase]
) -> None:
    acme, globex, _ = tenants
    moved = {"status": Status.MOVED, "database": None, "epoch": 2}
    tier.put(acme.config(host="before.example", moved_to=acme.host, **moved))
    assert send(jobs, acme, host="before.example").result == "acme"
    tier.put(acme.config(host="before.example", moved_to=globex.host, **moved))
    assert isinstance(send(jobs, acme, host="before.example").result, TenantChanged)


def test_what_is_not_a_header_of_ours_is_refused(jobs: Jobs, tenants: list[TenantDatabase]) -> None:
    assert isinstance(jobs.look.apply(headers={HEADER: "t-acme"}).result, NoTenant)
    assert isinstance(jobs.look.apply().result, NoTenant)
    del jobs.app.dataplane
    assert "configure() was not called" in str(send(jobs, tenants[0]).result)


def test_called_as_a_function_it_stays_where_it_is(
    jobs: Jobs, pools: KeyedPools, tenants: list[TenantDatabase]
) -> None:
    with use_tenant(tenants[1].config(), pools):
        assert jobs.look() == "globex"
    with pytest.raises(NoTenant):
        jobs.look()
