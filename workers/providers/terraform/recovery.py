"""What a killed run left, put right before the next plan.

A plain retry after a kill is dangerous. Measured: SIGKILL in the middle of a cluster's creation leaves
an *empty* state and a lock, and a naive second apply then fails on "already exists" four times while
silently making a second KMS key, after which the cluster can only be replaced; SIGINT saves the cluster
as tainted, and the next plan deletes it. So, each step only where it is needed:

1. a lock of ours is broken, anyone else's is respected (`locks`);
2. a state that a run could not save (`errored.tfstate`) is pushed, where it continues the saved one;
3. a state that nobody can read is put aside;
4. a key in the state that is not the cluster's is forgotten, with the alias that leads to it;
5. what is tainted but exists is untainted;
6. what exists under our names and is not in the state is adopted, by `import` blocks in the plan; before it
   what is approved to go and in no state, since Terraform deletes only what it knows.

On a healthy workspace this costs two reads of the state bucket.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from controlplane.workers.providers.ports import ResourceEvent, StackRun
from controlplane.workers.providers.terraform import locks
from controlplane.workers.providers.terraform import state as states
from controlplane.workers.providers.terraform.inventory import ClusterInventory, Inventory
from controlplane.workers.providers.terraform.session import Session
from controlplane.workers.providers.terraform.state import EMPTY, State, StateBucket, Unreadable


@dataclass(frozen=True, slots=True)
class Ground:
    """Where a plan may start from. `adopt`: import ids by address. `lost`: the same of what exists and is
    approved to go, while neither the state nor the variables know it."""

    state: State
    adopt: dict[str, str]
    lost: dict[str, str]

    def has(self, address: str) -> bool:
        return address in self.state.resources or address in self.adopt

    @property
    def empty(self) -> bool:
        return not self.state.resources and not self.adopt


class Recovery:
    def __init__(self, run: StackRun, session: Session, bucket: StateBucket, inventory: Inventory) -> None:
        self._run = run
        self._session = session
        self._bucket = bucket
        self._inventory = inventory

    def observe(self) -> Ground:
        """What is there, without changing anything; for a plan that is only shown."""
        lock = self._lock()
        if lock is not None:
            raise locks.in_the_way(lock, self._run.workspace, now=datetime.now(UTC))
        try:
            state = self._state()
        except Unreadable:
            state = None
        return self._ground(state or EMPTY, restore=False)

    def repair(self, errored: Sequence[Path], *, restore: bool = True) -> Ground:
        """Steps 1 to 6. `errored`: states that earlier runs on this machine could not save. `restore`:
        bring back what waits for its deletion."""
        self._unlock()
        for path in errored:
            self._push(path)
        try:
            state = self._state()
        except Unreadable as error:
            aside = self._bucket.put_aside(self._run.stack, self._run.workspace)
            self._tell(aside, "put-aside", str(error))
            state = None
        state = self._forget_wrong_key(state or EMPTY)
        return self._ground(self._untaint(state), restore=restore)

    def _lock(self) -> states.Lock | None:
        return self._bucket.lock(self._run.stack, self._run.workspace)

    def _state(self) -> State | None:
        return self._bucket.state(self._run.stack, self._run.workspace)

    def _unlock(self) -> None:
        lock = self._lock()
        if lock is None:
            return
        if not locks.is_ours(lock, self._run.prior_runs):
            raise locks.in_the_way(lock, self._run.workspace, now=datetime.now(UTC))
        if self._bucket.break_lock(self._run.stack, self._run.workspace, lock.id):
            self._tell(lock.id, "unlock", f"broke the lock of our own run that ended, {lock.created:%F %T}")

    def _push(self, errored: Path) -> None:
        """Push a state that continues the saved one; any other has nothing that adoption can't find."""
        try:
            saved = self._state() or EMPTY
            kept = states.parse(errored.read_bytes())
        except Unreadable:
            return
        if saved is EMPTY or (kept.lineage == saved.lineage and kept.serial > saved.serial):
            self._session.push_state(errored)
            self._tell("", "state-push", f"saved the state of an earlier run, serial {kept.serial}")

    def _forget_wrong_key(self, state: State) -> State:
        inventory = self._inventory
        if not isinstance(inventory, ClusterInventory) or inventory.key not in state.resources:
            return state
        key = str(state.resources[inventory.key].attributes.get("key_id", ""))
        if inventory.cluster in state.resources:
            used = state.resources[inventory.cluster].attributes.get("kms_key_id")
        else:
            used = (inventory.described or {}).get("KmsKeyId")
        if not used or str(used).rsplit("/", 1)[-1] == key:
            return state
        wrong = [address for address in (inventory.key, inventory.alias) if address in state.resources]
        self._session.forget(wrong)
        self._tell(inventory.key, "forget", f"the cluster is encrypted with another key than {key}")
        return self._state() or EMPTY

    def _untaint(self, state: State) -> State:
        tainted = [address for address, resource in state.resources.items() if resource.tainted]
        if not tainted:
            return state
        for address in self._inventory.find(tainted):
            self._session.untaint(address)
            self._tell(address, "untaint", "it was being made when an earlier run was stopped, and exists")
        return self._state() or EMPTY

    def _ground(self, state: State, *, restore: bool) -> Ground:
        wanted = self._inventory.addresses()
        missing = [address for address in wanted if address not in state.resources]
        going = sorted(self._run.approved.difference(wanted, state.resources))
        return Ground(
            state,
            adopt=self._inventory.find(missing, restore=restore) if missing else {},
            lost=self._inventory.find(going) if going else {},
        )

    def _tell(self, address: str, action: str, message: str) -> None:
        self._session.on_event(ResourceEvent("recovered", address, action, None, message))
