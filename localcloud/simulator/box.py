"""A control plane in a box: the product's intake, engine and comparison on a simulated external systems.

One thread does everything in an order that the seed decides, so a run can be repeated exactly. A worker
dies by an exception that nothing in the product catches: what it had in hand is left just as `kill -9`
leaves it, with the lease held, the transaction undone and the world as far as the call had come. Time
passes by decree: whatever waits for less than an hour is due.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from controlplane.domain.catalogue import Catalogue
from controlplane.domain.job import JobKind, Lane
from controlplane.localcloud.fakes.aws import (
    LOGICAL_GROUP,
)
from controlplane.localcloud.fakes.providers import providers
from controlplane.localcloud.fakes.terraform import OWNER
from controlplane.localcloud.fakes.world import World
from controlplane.localcloud.simulator.schedule import Trouble, schedule
from controlplane.localcloud.simulator.stream import Moment
from controlplane.services import billing
from controlplane.store.registry import Registry
from controlplane.workers.engine.context import (
    Context,
    Platform,
)
from controlplane.workers.engine.heartbeat import Heartbeat
from controlplane.workers.engine.run import claim, run
from controlplane.workers.jobs import comparison
from controlplane.workers.jobs.handlers import HANDLERS
from controlplane.workers.providers.databases import new_password
from controlplane.workers.providers.databases.migrations import load
from controlplane.workers.schedule import warm_pool
from controlplane.workers.schedule.duties import run_timers

ZONE = "tenants.simulated.dev"
MIGRATION = "CREATE TABLE app.note (id bigint PRIMARY KEY, body text NOT NULL);\n"
ROUNDS = 200
"""After so many times an hour there must be nothing left to do."""


class Killed(BaseException):
    """The worker is dead. No handler of the product's may catch it: a dead process handles nothing."""


@dataclass
class RunReport:
    """What happened in a run, for the report. `crashes`: the points at which a worker died, in order."""

    events: int = 0
    deliveries: int = 0
    doubled: frozenset[str] = frozenset()
    late: frozenset[str] = frozenset()
    dropped: frozenset[str] = frozenset()
    crashes: list[str] = field(default_factory=list)
    found_by_comparison: int = 0
    rounds: int = 0


class Watch:
    """What happens in a box, for who wants to know: nobody."""

    def rests(self, place: int) -> bool | None:
        """Shall the workers finish before this change? True: and compare with Stripe; None: go on."""
        return None

    def finished(self, *, compared: bool) -> None:
        """Nothing is left to do. `compared`: and nothing was missed."""

    def changes(self, place: int) -> None:
        """This change is about to be made."""

    def delivered(self, event: dict[str, Any]) -> None:
        """It is in the inbox, for the first time."""


NOBODY = Watch()


class Box:
    """Use as a context manager. `registry_url`: an empty registry, its schema up to date. `folder`: for
    the application's migration."""

    def __init__(
        self, registry_url: str, folder: Path, catalogue: Catalogue, *, livemode: bool, name: str
    ) -> None:
        self.world = World(crash=self._reach)
        self.report = RunReport()
        self._rng = random.Random()
        self._crash = 0.0
        migrations = folder / "migrations"
        migrations.mkdir(exist_ok=True)
        (migrations / "0001_notes.sql").write_text(MIGRATION)
        made = providers(self.world)
        self._billing, self.terraform = made.billing, made.terraform
        registry, holder = Registry(registry_url, size=3), f"simulator/{name}"
        self.ctx = Context(
            registry=registry,
            providers=made,
            catalogue=catalogue,
            platform=Platform(
                environment="simulation",
                zone=ZONE,
                livemode=livemode,
                vpc_id="vpc-1",
                subnet_ids=("subnet-1", "subnet-2"),
                app_security_group_ids=("sg-1",),
                app_role_arn="arn:aws:iam::123456789012:role/app",
                permissions_boundary_arn="arn:aws:iam::123456789012:policy/boundary",
                cluster_parameter_group=LOGICAL_GROUP,
            ),
            migrations=migrations,
            release=load(migrations)[-1].number,
            holder=holder,
            lock_owner=OWNER,
            notify=lambda _lane: None,
            heartbeat=Heartbeat(registry, holder, seconds=60.0, every=10.0),
            new_password=new_password,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.ctx.heartbeat.close()
        self.ctx.registry.close()
        self.world.close()

    def play(
        self, moments: Sequence[Moment], trouble: Trouble, *, seed: int, watch: Watch = NOBODY
    ) -> RunReport:
        """Let it all happen, then let the workers finish. Stops after ROUNDS with what is left undone."""
        self._rng = random.Random(seed)
        planned = schedule(moments, trouble, self._rng)
        self._crash = trouble.crash
        report = self.report
        report.events = sum(moment.event is not None for moment in moments)
        report.doubled, report.late, report.dropped = planned.doubled, planned.late, planned.dropped
        waiting = list(planned.deliveries)
        for place, moment in enumerate(moments):
            self._rest(watch, compare=watch.rests(place))
            watch.changes(place)
            for item in moment.objects:
                self._put(item)
            while waiting and waiting[0][0] <= place:
                self._deliver(waiting.pop(0)[1], watch)
            for _ in range(self._rng.choice((0, 0, 1, 2))):
                self._survive(self._act)
        for _, event in waiting:
            self._deliver(event, watch)
            self._survive(self._act)
        self._rest(watch, compare=False)
        with self.calm():
            report.found_by_comparison = len(self.out_of_step())
        self._rest(watch, compare=True)
        self._crash = 0.0
        return report

    @contextmanager
    def calm(self) -> Iterator[None]:
        """Nobody dies meanwhile: it is not the workers who are at it."""
        crash, self._crash = self._crash, 0.0
        try:
            yield
        finally:
            self._crash = crash

    def out_of_step(self) -> dict[str, str]:
        """Subscriptions of which the registry does not hold what Stripe's object says, by their status
        there."""
        return {
            found.id: f"not as Stripe has it, which is {found.item.get('status')}"
            for batch in comparison.listed(self.ctx)
            for found in batch
            if not found.in_step
        }

    # ------------------------------------------------------------------------------------- Stripe

    def _put(self, item: dict[str, Any]) -> None:
        put = {
            "subscription": self._billing.put_subscription,
            "customer": self._billing.put_customer,
            "checkout.session": self._billing.put_checkout_session,
        }
        put[item["object"]](item)

    def _deliver(self, event: dict[str, Any], watch: Watch) -> None:
        self.report.deliveries += 1
        body, livemode = json.dumps(event).encode(), self.ctx.platform.livemode
        with self.ctx.registry.connection() as conn:
            recorded = billing.record_event(conn, event, body, livemode=livemode)
        if recorded.due:
            watch.delivered(event)

    # ------------------------------------------------------------------------------------ workers

    def _act(self) -> bool:
        """One job, the intake of events more often first than not; was there one?"""
        kinds = ([JobKind.INTAKE], [JobKind.TENANT, JobKind.CLUSTER])
        for several in kinds if self._rng.random() < 0.7 else reversed(kinds):
            for lane in Lane:
                job = claim(self.ctx, lane, several)
                if job is not None:
                    run(self.ctx, HANDLERS, job)
                    return True
        return False

    def _rest(self, watch: Watch, *, compare: bool | None) -> None:
        if compare is None:
            return
        if compare:
            while self._survive(lambda: comparison.compare(self.ctx) is None):
                pass
        self._finish()
        watch.finished(compared=compare)

    def _finish(self) -> None:
        for _ in range(ROUNDS):
            while self._survive(self._act):
                pass
            self.report.rounds += 1
            tended = self._survive(lambda: warm_pool.tend(self.ctx) > 0)
            tended |= self._survive(lambda: run_timers(self.ctx) > 0)
            if not self._time_passes() and not tended:
                return

    def _survive(self, act: Callable[[], bool]) -> bool:
        """What `act` says; True where the worker died over it, so there is more to do."""
        try:
            return act()
        except Killed:
            self._successor()
            return True

    def _reach(self, point: str) -> None:
        if self._crash and self._rng.random() < self._crash:
            self.report.crashes.append(point)
            raise Killed(point)

    def _successor(self) -> None:
        """Its lease has run out."""
        with self.ctx.registry.connection() as conn:
            conn.execute("UPDATE job SET lease_until = '-infinity' WHERE state = 'running'")

    def _time_passes(self) -> int:
        """What waits for less than an hour is due, but for the hourly look at a tenant; how much waited."""
        self._successor()
        with self.ctx.registry.connection() as conn:
            conn.execute("UPDATE hostname SET next_poll_at = clock_timestamp() WHERE next_poll_at > now()")
            looked_at = conn.execute(
                "UPDATE tenant SET next_observation_at = clock_timestamp()"
                " WHERE next_observation_at < now() + interval '30 minutes'"
            )
            waited = conn.execute(
                "UPDATE job SET due_at = least(due_at, now()) WHERE state = 'running'"
                " OR due_at < now() + interval '1 hour'"
            )
            return looked_at.rowcount + waited.rowcount
