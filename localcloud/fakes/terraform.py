"""`ports.Terraform` without Terraform: the same resources, the same addresses, made in the `World`.

What matters about the real one under faults is kept. A run takes a lock and a killed one leaves it; the
state is saved when an apply ends and not before, so a killed run leaves resources that no state knows;
the next run breaks a lock of ours only, adopts by name, and refuses what would destroy. Every resource
is a crash point of its own: "terraform.apply:<address>". An archive holds what a module says beyond the
variables, so a run that took another than the one it names makes other things.
"""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from typing import Any

from controlplane.domain.errors import ControlPlaneError, LeaseLost, NeedsHuman, Retryable
from controlplane.domain.placement import PLACEMENT_ID
from controlplane.localcloud.fakes import aws, past
from controlplane.localcloud.fakes.aws import FakeAccount
from controlplane.localcloud.fakes.world import World
from controlplane.workers.providers.ports import (
    Credential,
    Found,
    PlannedChange,
    Publication,
    ResourceEvent,
    StackRun,
)
from controlplane.workers.providers.real import TERRAFORM
from controlplane.workers.providers.terraform import archive, guard, locks
from controlplane.workers.providers.terraform.inventory import ClusterInventory, PlacementsInventory
from controlplane.workers.providers.terraform.state import Lock

STATE = "terraform-state"
LOCK = "terraform-lock"
ARCHIVE = "terraform-archive"
FAILING = "terraform-failing"
OWNER = locks.lock_owner()
MOST_PLACEMENTS = 100
"""In a state, as the module says."""

OnEvent = Callable[[ResourceEvent], None]
Stopped = Callable[[], bool]


@dataclass(frozen=True, slots=True)
class Thing:
    """A resource of a stack: `kind` and `name` in the account, `values` it is made with."""

    address: str
    kind: str
    name: str
    values: dict[str, Any]


class FakeTerraform:
    def __init__(
        self, world: World, *, latency: float = 0.0, module: Mapping[str, Any] | None = None
    ) -> None:
        """`latency`: seconds that each resource takes. `module`: what the stacks that this worker carries say
        beside the variables, by address or block (an address without its key): further settings, or None for
        what they do not have."""
        self.world = world
        self._module = dict(module or {})
        self.release = _digest(self._module)
        self._variables = _declared()
        self._account = FakeAccount(world)
        self._latency = latency

    # ------------------------------------------------------------------------------ for tests alone

    def fail(self, address: str, error: ControlPlaneError, *, times: int = 1) -> None:
        """Let creating or changing what has this address, or is of this block (an address without its key),
        raise `error`, `times` times, in any process."""
        extra = {"after": getattr(error, "after", None), "runbook": getattr(error, "runbook", None)}
        kept = {"kind": type(error).__name__, "message": str(error), "times": times} | extra
        self.world.put(FAILING, address, kept)

    def lose_state(self, run: StackRun) -> None:
        self.world.drop(STATE, _key(run))

    def lock(self, run: StackRun, *, lock_id: str, who: str, created: datetime) -> None:
        self.world.put(LOCK, _key(run), {"id": lock_id, "who": who, "created": created.isoformat()})

    def orphans(self) -> list[str]:
        """Resources that no state names, but for secrets that wait for their deletion."""
        known = {
            tuple(thing) for state in self.world.all(STATE).values() for thing in state["things"].values()
        }
        return sorted(
            f"{kind}/{name}"
            for kind in (
                "key",
                "alias",
                "network",
                "subnet-group",
                "cluster",
                "instance",
                "secret",
                "role",
                "policy",
            )
            for name in self._account.names(kind)
            if (kind, name) not in known and not name.startswith("rds!")
            if not (self._account.get(kind, name) or {}).get("deleting")
        )

    def damage(self, release: str, *, lose: bool = False) -> None:
        """Somebody writes over the archive of this release, or deletes it."""
        if lose:
            self.world.drop(ARCHIVE, release)
        else:
            self.world.put(ARCHIVE, release, {"damaged": True})

    def applied(self, stack: str, workspace: str) -> str | None:
        """The release that the state was last made by."""
        state = self.world.get(STATE, f"{stack}/{workspace}") or {}
        return state.get("release")

    # ---------------------------------------------------------------------------------------- port

    def publish(self, *, dry_run: bool = False) -> Publication:
        kept = self.world.get(ARCHIVE, self.release)
        found = Found.ABSENT if kept is None else Found.PRESENT if kept == self._module else Found.DAMAGED
        if not dry_run and found is not Found.PRESENT:
            with self.world.call("terraform.publish"):
                self.world.put(ARCHIVE, self.release, self._module)
        size = len(json.dumps(self._module))
        return Publication(self.release, self._variables, _place(self.release), size, found)

    def apply(self, run: StackRun, *, on_event: OnEvent, stopped: Stopped) -> dict[str, Any]:
        things, outputs = self._unpack(run)
        with self.world.call("terraform.recover"):
            self._unlock(run, on_event)
        guard.check(self._changes(run, things), run.approved)
        lock_id = self._take_lock(run, on_event)
        try:
            state = self._state(run)
            for thing in things:
                if stopped():
                    raise LeaseLost
                self._bring(run, thing, state, on_event)
            for thing in self._gone(run, things):
                if stopped():
                    raise LeaseLost
                self._remove(thing, state, on_event)
            wanted = {thing.address for thing in things}
            state["things"] = {a: it for a, it in state["things"].items() if a in wanted}
            state |= {"outputs": outputs, "release": run.release}
            state["module"] = self.world.get(ARCHIVE, run.release)
            self._save(run, state, lock_id)
        except ControlPlaneError:
            self._save(run, state, lock_id)
            raise
        return outputs

    def plan(self, run: StackRun) -> list[PlannedChange]:
        things, _outputs = self._unpack(run)
        lock = self._lock(run)
        if lock is not None:
            raise locks.in_the_way(lock, run.workspace, now=datetime.now(UTC))
        with self.world.call("terraform.plan"):
            return self._changes(run, things)

    def destroy(self, run: StackRun, *, on_event: OnEvent, stopped: Stopped) -> None:
        things, _outputs = self._unpack(run)
        self._unlock(run, on_event)
        existing = [thing for thing in things if self._exists(run, thing)] + self._gone(run, things)
        kept = [
            thing
            for thing in existing
            if thing.address in {ClusterInventory.key, ClusterInventory.alias} - run.approved
        ]
        doomed = [thing for thing in existing if thing not in kept]
        guard.check(
            [PlannedChange(thing.address, "delete", destructive=True) for thing in doomed], run.approved
        )
        self._refuse_protected(run, doomed)
        for thing in reversed(doomed):
            if stopped():
                raise LeaseLost
            with self.world.call(f"terraform.destroy:{thing.address}"):
                self._delete(thing)
            on_event(ResourceEvent("done", thing.address, "delete", 0.0, "deleted"))
        if kept:
            self.world.put(
                STATE, _key(run), _empty() | {"things": {t.address: (t.kind, t.name) for t in kept}}
            )
        else:
            self.world.drop(STATE, _key(run))

    def version(self) -> str:
        return "1.11.4"

    # -------------------------------------------------------------------------------------- inside

    def _unpack(self, run: StackRun) -> tuple[list[Thing], dict[str, Any]]:
        module = self.world.get(ARCHIVE, run.release)
        if module is None or _digest(module) != run.release:
            raise NeedsHuman(
                f"release {run.release} of the stacks, to run {run.stack!r} with, is"
                f" {'missing' if module is None else 'damaged'}: expected it at {_place(run.release)}",
                runbook="stack-release",
            )
        things, outputs = _stack(run)
        before = self._state(run)["module"]
        there = []
        for thing in things:
            settings = _said(module, thing)
            if settings is not None:
                unset = dict.fromkeys(_said(before, thing) or ())
                there.append(replace(thing, values=thing.values | unset | settings))
        return there, outputs

    def _changes(self, run: StackRun, things: list[Thing]) -> list[PlannedChange]:
        state = self._state(run)
        changes = []
        for thing in things:
            if not self._exists(run, thing):
                changes.append(PlannedChange(thing.address, "create", destructive=False))
            elif thing.address not in state["things"]:
                changes.append(PlannedChange(thing.address, "import", destructive=False))
            elif self._differs(thing):
                changes.append(PlannedChange(thing.address, "update", destructive=False))
        gone = self._gone(run, things)
        return changes + [PlannedChange(thing.address, "delete", destructive=True) for thing in gone]

    def _gone(self, run: StackRun, things: list[Thing]) -> list[Thing]:
        """What no variable asks for any more, and the state knows or somebody approved to go."""
        wanted = {thing.address for thing in things}
        known = [
            Thing(address, kind, name, self._account.get(kind, name) or {})
            for address, (kind, name) in self._state(run)["things"].items()
        ]
        secrets = (
            address.split('"') for address in sorted(run.approved) if PlacementsInventory.APP in address
        )
        approved = [_secret(placement, run.variables) for _, placement, _ in secrets]
        left = {thing.address: thing for thing in [*approved, *known]}
        return [
            thing for address, thing in left.items() if address not in wanted and self._exists(run, thing)
        ]

    def _exists(self, run: StackRun, thing: Thing) -> bool:
        """It is there and does not wait for its deletion. What no state knows may be a stranger's."""
        observed = self._account.get(thing.kind, thing.name)
        if observed is None:
            return False
        if thing.address not in self._state(run)["things"]:
            self._require_ours(thing, observed)
        return not observed.get("deleting")

    def _require_ours(self, thing: Thing, observed: Mapping[str, Any]) -> None:
        """A secret by all its tags, anything else by the environment alone."""
        tags = _TAGS if thing.kind == "secret" else {"environment"} & observed.keys() & thing.values.keys()
        if any(observed.get(tag) != thing.values[tag] for tag in tags):
            raise NeedsHuman(f"{thing.kind} {thing.name} exists but is not ours", runbook="foreign-resource")

    def _remove(self, thing: Thing, state: dict[str, Any], on_event: OnEvent) -> None:
        """Delete what left the variables; first adopt it, where the state does not know it."""
        with self.world.call(f"terraform.apply:{thing.address}"):
            if thing.address not in state["things"]:
                on_event(ResourceEvent("adopted", thing.address, "import", None, "found by name"))
            self._delete(thing)
            state["things"].pop(thing.address, None)
        on_event(ResourceEvent("done", thing.address, "delete", 0.0, "deleted"))

    def _differs(self, thing: Thing) -> bool:
        observed = self._account.get(thing.kind, thing.name) or {}
        return any(observed.get(key) != value for key, value in thing.values.items() if key not in _BORN_WITH)

    def _bring(self, run: StackRun, thing: Thing, state: dict[str, Any], on_event: OnEvent) -> None:
        """Create, adopt or change one resource."""
        if self._latency:
            time.sleep(self._latency)
        with self.world.call(f"terraform.apply:{thing.address}"):
            self._fail_if_planted(thing.address)
            observed = self._account.get(thing.kind, thing.name)
            if observed is None:
                if thing.kind == "cluster":
                    self._restore(thing.name, run.variables.get("origin"))
                    self.make_master(thing.name)
                self._account.make(thing.kind, thing.name, **thing.values)
                on_event(ResourceEvent("done", thing.address, "create", self._latency, "created"))
            else:
                if thing.address not in state["things"]:
                    self._require_ours(thing, observed)
                values = {key: value for key, value in thing.values.items() if key not in _BORN_WITH}
                self._account.change(thing.kind, thing.name, **values | {"deleting": False})
                if thing.address not in state["things"]:
                    on_event(ResourceEvent("adopted", thing.address, "import", None, "found by name"))
        state["things"][thing.address] = (thing.kind, thing.name)

    def _restore(self, cluster_id: str, origin: Mapping[str, str] | None) -> None:
        if origin is None:
            return
        if "snapshot" in origin:
            kept = self._account.get("snapshot", origin["snapshot"])
            if kept is None:
                raise NeedsHuman(f"no snapshot {origin['snapshot']}", runbook="terraform-configuration")
            past.bring_back(self.world, kept["server"], cluster_id)
        else:
            at = datetime.fromisoformat(origin["at"])
            past.bring_back(self.world, past.at_moment(self.world, origin["cluster_id"], at), cluster_id)

    def make_master(self, cluster_id: str) -> None:
        """The login that RDS makes and keeps: it is in no state."""
        master = Credential(username="platform_master", password=aws.master_of(cluster_id))
        values = {"versions": {"1": aws.encode(master)}, "current": "1", "deleting": False}
        self._account.change("secret", f"rds!{cluster_id}", **values)

    def _delete(self, thing: Thing) -> None:
        if thing.kind == "secret":  # its name stays taken through the deletion window
            self._account.change("secret", thing.name, deleting=True)
            return
        if thing.kind == "cluster":
            self._account.delete("secret", f"rds!{thing.name}")
            for kind in ("database", "database-role", "database-cluster"):
                for key in self.world.all(kind):
                    if key.startswith(aws.endpoint_of(thing.name).host):
                        self.world.drop(kind, key)
            if not thing.values["skip_final_snapshot"]:
                self._account.make("snapshot", thing.values["final_snapshot"], cluster=thing.name)
        self._account.delete(thing.kind, thing.name)

    def _refuse_protected(self, run: StackRun, doomed: list[Thing]) -> None:
        if run.variables.get("deletion_protection", True) and any(t.kind == "cluster" for t in doomed):
            raise NeedsHuman("the cluster has deletion protection", runbook="terraform-configuration")

    def _fail_if_planted(self, address: str) -> None:
        block = address.partition("[")[0]
        address = address if self.world.get(FAILING, address) else block
        planted = self.world.get(FAILING, address)
        if planted is None or planted["times"] < 1:
            return
        self.world.put(FAILING, address, planted | {"times": planted["times"] - 1})
        if planted["kind"] == "NeedsHuman":
            raise NeedsHuman(planted["message"], runbook=planted["runbook"])
        raise Retryable(planted["message"], after=planted["after"], runbook=planted["runbook"])

    def _state(self, run: StackRun) -> dict[str, Any]:
        return self.world.get(STATE, _key(run)) or _empty()

    def _save(self, run: StackRun, state: dict[str, Any], lock_id: str) -> None:
        self.world.put(STATE, _key(run), state)
        lock = self._lock(run)
        if lock is not None and lock.id == lock_id:
            self.world.drop(LOCK, _key(run))

    def _lock(self, run: StackRun) -> Lock | None:
        raw = self.world.get(LOCK, _key(run))
        return None if raw is None else Lock(raw["id"], raw["who"], datetime.fromisoformat(raw["created"]))

    def _unlock(self, run: StackRun, on_event: OnEvent) -> None:
        lock = self._lock(run)
        if lock is None:
            return
        if not locks.is_ours(lock, run.prior_runs):
            raise locks.in_the_way(lock, run.workspace, now=datetime.now(UTC))
        self.world.drop(LOCK, _key(run))
        on_event(ResourceEvent("recovered", lock.id, "unlock", None, "broke the lock of our own run"))

    def _take_lock(self, run: StackRun, on_event: OnEvent) -> str:
        with self.world.call("terraform.lock"):
            lock_id = str(uuid.uuid4())
            self.lock(run, lock_id=lock_id, who=OWNER, created=datetime.now(UTC))
        on_event(ResourceEvent("lock_taken", lock_id, "lock", None, f"locked by {OWNER}"))
        return lock_id


_TAGS = frozenset({"environment", "cluster", "placement"})
# What a resource is made with and later applies leave alone.
_BORN_WITH = frozenset({"operation", "status", "versions", "current", "deleting"})


def _stack(run: StackRun) -> tuple[list[Thing], dict[str, Any]]:
    """The stack's resources in the order in which Terraform makes them, and its outputs."""
    stacks = {"cluster": _cluster, "placements": _placements}
    if run.stack not in stacks:
        raise NeedsHuman(f"stack {run.stack!r} has no inventory", runbook="terraform-configuration")
    try:
        return stacks[run.stack](run.variables)
    except KeyError as error:
        raise NeedsHuman(f"variable {error.args[0]} is missing", runbook="terraform-configuration") from error


def _cluster(v: Mapping[str, Any]) -> tuple[list[Thing], dict[str, Any]]:
    name: str = v["cluster_id"]
    tags = {"environment": v["environment"], "operation": v["operation_id"], "cluster": name}
    at = aws.endpoint_of(name)
    settings = {key: v[key] for key in ("engine_version", "min_acu", "max_acu", "backup_retention_days")}
    settings["auto_pause"] = v["seconds_until_auto_pause"]
    settings["parameter_group"] = v.get("cluster_parameter_group_name")
    shared = settings["subnet_group"] = v.get("db_subnet_group_name")
    settings["final_snapshot"] = v["final_snapshot_identifier"]
    settings["deletion_protection"] = v.get("deletion_protection", True)
    settings["skip_final_snapshot"] = v.get("skip_final_snapshot", False)
    network = {"vpc": v["vpc_id"], "subnets": v["subnet_ids"], "from": v["allowed_security_group_ids"]}
    things = [
        Thing(ClusterInventory.key, "key", name, tags),
        Thing(ClusterInventory.alias, "alias", name, {}),
        Thing(ClusterInventory.security_group, "network", name, tags | network),
        *([] if shared else [Thing(ClusterInventory.subnet_group, "subnet-group", name, tags)]),
        Thing(ClusterInventory.cluster, "cluster", name, tags | settings | {"status": "available"}),
    ]
    for number in range(1, v["instance_count"] + 1):
        address = f'module.cluster.aws_rds_cluster_instance.this["{number}"]'
        things.append(Thing(address, "instance", f"{name}-{number}", tags | {"status": "available"}))
    role = {"principal": v["app_role_arn"], "boundary": v["permissions_boundary_arn"]}
    things.append(Thing(ClusterInventory.role, "role", name, tags | role))
    things.append(Thing(ClusterInventory.policy, "policy", name, {"opens": "own"}))
    outputs = {
        "endpoint": at.host,
        "reader_endpoint": at.host.replace(".cluster-", ".cluster-ro-"),
        "port": at.port,
        "resource_id": at.resource_id,
        "master_secret_arn": at.master_secret_arn,
        "kms_key_arn": f"arn:aws:kms:{aws.REGION}:{aws.ACCOUNT}:key/{name}",
        "security_group_id": f"sg-{name}",
        "role_arn": f"arn:aws:iam::{aws.ACCOUNT}:role/{name}",
    }
    return things, outputs


def _said(module: Mapping[str, Any], thing: Thing) -> dict[str, Any] | None:
    """What the module says of a thing beside the variables."""
    said: dict[str, Any] | None = module.get(thing.address, module.get(thing.address.partition("[")[0], {}))
    return said


def _placements(v: Mapping[str, Any]) -> tuple[list[Thing], dict[str, Any]]:
    if len(v["placements"]) > MOST_PLACEMENTS or not all(map(PLACEMENT_ID.match, v["placements"])):
        raise NeedsHuman("terraform plan: Invalid value for variable", runbook="terraform-configuration")
    things = [_secret(placement, v) for placement in sorted(v["placements"])]
    return things, {
        "app_secret_arns": {thing.values["placement"]: aws.secret_arn(thing.name) for thing in things}
    }


def _secret(placement: str, v: Mapping[str, Any]) -> Thing:
    address, name = f'{PlacementsInventory.APP}["{placement}"]', f"placements/{placement}/app"
    tags = {"environment": v["environment"], "cluster": v["cluster_id"], "placement": placement}
    made = {"operation": v["operation_id"], "window": v["recovery_window_days"]}
    empty: dict[str, Any] = {"versions": {}, "current": None, "deleting": False}
    return Thing(address, "secret", name, tags | made | empty)


def _key(run: StackRun) -> str:
    return f"{run.stack}/{run.workspace}"


@cache
def _declared() -> Mapping[str, tuple[str, ...]]:
    """The variables of the real stacks."""
    return archive.pack(TERRAFORM).variables


def _digest(module: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(module, sort_keys=True).encode()).hexdigest()


def _place(release: str) -> str:
    return f"s3://terraform-states/releases/{release}.tar"


def _empty() -> dict[str, Any]:
    return {"things": {}, "outputs": {}, "module": {}}
