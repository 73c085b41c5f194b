"""`ports.Moves` on the rows that `FakeDatabases.write` keeps: what was carried can be compared.

The fencing token of a copy is kept with it, as in the real one's table, and each commit of the real one is a
point at which a test may kill the worker. Only a cluster of the parameter group with logical replication
keeps a log that can be followed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from controlplane.domain.errors import LeaseLost, NeedsHuman, Retryable
from controlplane.domain.placement import Placement
from controlplane.localcloud.fakes.aws import LOGICAL_GROUP, FakeAccount
from controlplane.localcloud.fakes.databases import DATABASE, FakeDatabases
from controlplane.localcloud.fakes.world import World
from controlplane.workers.providers.ports import (
    Copied,
    HandedOver,
    Home,
    MoveDescription,
    MoveRun,
    TableCompared,
)

STREAM = "move-stream"
PROGRESS = "move-progress"
CLONED = "clone-fencing_token"
REFUSED = "move-refused"


class FakeMoves:
    def __init__(self, world: World, databases: FakeDatabases) -> None:
        self.world = world
        self._databases = databases
        self._account = FakeAccount(world)

    # ------------------------------------------------------------------------------ for tests alone

    def refuse(self, call: str, *, refuse: bool = True) -> None:
        """`call`: "begin", "copy" or "hand_over" raises NeedsHuman."""
        if refuse:
            self.world.put(REFUSED, call, True)
        else:
            self.world.drop(REFUSED, call)

    # ---------------------------------------------------------------------------------------- port

    def observe(self, source: Home, target: Home) -> MoveDescription:
        with self.world.call("moves.observe"):
            streaming = self.world.get(STREAM, _name(source.placement, target.placement)) is not None
            progress = self.world.get(PROGRESS, target.placement.database)
        return MoveDescription(streaming, streaming and progress is not None and progress["copied"])

    def require_followable(self, source: Home) -> None:
        with self.world.call("moves.require_followable"):
            cluster = self._account.get("cluster", source.placement.cluster_id) or {}
        if cluster.get("parameter_group") != LOGICAL_GROUP:
            raise NeedsHuman(
                f"cluster {source.placement.cluster_id} keeps no log that can be followed: its parameter"
                f" group is {cluster.get('parameter_group')}, expected one with rds.logical_replication = 1",
                runbook="move",
            )

    def begin(self, source: Home, target: Home, run: MoveRun) -> None:
        run.check()
        self._refused("begin")
        name = _name(source.placement, target.placement)
        if self.world.get(STREAM, name) is not None:
            return
        self.require_followable(source)
        with self.world.call("moves.begin.progress"):
            fencing_token = (self.world.get(PROGRESS, target.placement.database) or {"fencing_token": 0})[
                "fencing_token"
            ]
            fencing_token = max(fencing_token, run.fencing_token)
            self.world.put(
                PROGRESS, target.placement.database, {"fencing_token": fencing_token, "copied": False}
            )
        with self.world.call("moves.begin.slot"):
            self.world.put(STREAM, name, True)

    def copy(self, source: Home, target: Home, run: MoveRun) -> Copied:
        run.check()
        self._refused("copy")
        self._log_in(source, target)
        with self.world.call("moves.copy"):
            self._take(target, run)
            rows = self._carry(source, target)
            self.world.put(
                PROGRESS, target.placement.database, {"fencing_token": run.fencing_token, "copied": True}
            )
        return Copied(tables=1, rows=rows, size=rows, seconds=0.0)

    def clone(self, source: Home, target: Home, run: MoveRun) -> Copied:
        run.check()
        self._refused("clone")
        self._log_in(source, target)
        with self.world.call("moves.clone"):
            if (self.world.get(CLONED, target.placement.database) or 0) > run.fencing_token:
                raise LeaseLost(f"the copy has observed a later fencing_token than {run.fencing_token}")
            here, there = (self._database(home).get("migrations") for home in (source, target))
            if here != there:
                raise NeedsHuman("the two databases differ in their schema", runbook="move")
            rows = self._carry(source, target)
            self.world.put(CLONED, target.placement.database, run.fencing_token)
        compared = TableCompared("app.rows", rows, "0", same=True)
        return Copied(tables=1, rows=rows, size=rows, seconds=0.0, compared=(compared,))

    def follow(self, source: Home, target: Home, run: MoveRun) -> int:
        run.check()
        self._log_in(source, target)
        with self.world.call("moves.follow"):
            self._take(target, run)
            return self._carry(source, target)

    def hand_over(
        self,
        source: Home,
        target: Home,
        run: MoveRun,
        *,
        pause: Callable[[], None],
        cut: Callable[[], None],
    ) -> HandedOver:
        self.follow(source, target, run)
        pause()
        self._refused("hand_over")
        with self.world.call("moves.drain"):
            self._take(target, run)
            rows = self._carry(source, target)
        run.check()
        cut()
        return HandedOver([TableCompared("app.rows", rows, "0", same=True)], "before", 0.0)

    def clear(self, source: Home, target: Home | None) -> None:
        with self.world.call("moves.clear"):
            for name in self.world.all(STREAM):
                if name.startswith(f"{source.placement.database}/"):
                    self.world.drop(STREAM, name)
            if target is not None:
                self.world.drop(PROGRESS, target.placement.database)

    # -------------------------------------------------------------------------------------- inside

    def _log_in(self, *homes: Home) -> None:
        for home in homes:
            self._databases.as_migrator(home.at, home.placement)

    def _carry(self, source: Home, target: Home) -> int:
        here, there = self._database(source), self._database(target)
        self.world.put(DATABASE, self._key(target), there | {"rows": here.get("rows", [])})
        return len(here.get("rows", []))

    def _take(self, target: Home, run: MoveRun) -> None:
        progress = self.world.get(PROGRESS, target.placement.database)
        if progress is None:
            raise Retryable("nothing was begun")
        if progress["fencing_token"] > run.fencing_token:
            raise LeaseLost(f"the copy has observed a later fencing_token than {run.fencing_token}")
        self.world.put(PROGRESS, target.placement.database, progress | {"fencing_token": run.fencing_token})

    def _refused(self, call: str) -> None:
        if self.world.get(REFUSED, call):
            raise NeedsHuman(f"{call} was made to fail", runbook="move")

    def _database(self, home: Home) -> dict[str, Any]:
        found = self.world.get(DATABASE, self._key(home))
        if found is None:
            raise Retryable(f"{home.placement.database} does not exist")
        return dict(found)

    def _key(self, home: Home) -> str:
        return f"{home.at.host}:{home.at.port}/{home.placement.database}"


def _name(source: Placement, target: Placement) -> str:
    return f"{source.database}/{target.id}"
