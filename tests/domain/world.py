"""A world for the planner: what the registry knows and what is outside, and what each step does to both.

Each act is what the docstrings of `workers/steps/` say, as a generator: at each `yield` its worker may be
killed, and what came before has happened. Acts assert what they rely on, above all that nobody's rows are
gone: the planner decides the order, and nothing here repairs a wrong one.

`goal` and `status` are what the engine makes of a record and of its look (`workers/engine/goal.py`,
`workers/engine/observe.py`), as far as the planner decides by it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from controlplane.domain.catalogue import Isolation
from controlplane.domain.planner import (
    LastTransfer,
    PurgeGoal,
    ResidenceGoal,
    RetentionGoal,
    TenantGoal,
    TransferGoal,
    plan_tenant,
)
from controlplane.domain.status import (
    CredentialStatus,
    DatabaseStatus,
    HostnameStatus,
    PurgeStatus,
    TenantStatus,
    TransferStatus,
)
from controlplane.domain.steps import Step, StepName
from controlplane.domain.tenant import Lifecycle
from controlplane.domain.transfer import TransferKind, TransferPhase

HOST, OTHER_HOST = "a.z", "b.z"
GRACE = 900.0  # seconds until a login that was rotated away is retired
ROTATE_AFTER = 1e6
NOTHING = CredentialStatus(None, None)

Act = Iterator[None]


class Failed(Exception):
    """The act ends with an error that time, or nothing but another look, repairs."""


@dataclass
class Login:
    """`secret`: the version that the secret has; `on_server`: the one that the server's password is of;
    `recorded`: the same, as far as the registry knows."""

    secret: str | None = None
    on_server: str | None = None
    recorded: str | None = None
    generation: int = 1
    requested: int = 1
    age: float = 0.0
    retire_in: float | None = None

    @property
    def gets_in(self) -> bool:
        return self.secret is not None and self.on_server == self.secret


@dataclass
class Home:
    """A placement. `confirmed`: its secret, as far as the registry knows; `applied`: it was once. `rows`:
    "now", or "then" for those of a restore; None where it has none."""

    id: str
    isolation: Isolation
    cluster_ready: bool = False
    secrets: bool = False
    confirmed: bool = False
    applied: bool = False
    exists: bool = False
    hardened: bool = False
    roles: bool = False
    logins_open: bool = False
    release: str | None = None
    rows: str | None = None
    access_proof: str | None = None
    app: Login = field(default_factory=Login)


@dataclass
class Transfer:
    """`streaming`, `copied`: what the databases say of a move; `recorded`: the target has its rows, as far as
    the registry knows. `made`, `ready`, `opened`, `gone`: the restored cluster."""

    kind: TransferKind
    source: int | None
    plan: str
    destination: Isolation
    by_hand: bool
    phase: TransferPhase = TransferPhase.PREPARING
    target: int | None = None
    streaming: bool = False
    copied: bool = False
    recorded: bool = False
    compared: bool = False
    differing: tuple[str, ...] = ()
    kept_long: bool = False
    declined: bool = False
    made: bool = False
    ready: bool = False
    opened: bool = False
    gone: bool = True
    release_then: str = "0001"

    @property
    def other(self) -> int | None:
        return self.target if self.phase.before_cut or self.phase is TransferPhase.ABORTED else self.source

    def turn(self, to: TransferPhase) -> None:
        assert self.phase in to.sources, f"{self.kind} from {self.phase} to {to}"
        self.phase = to


@dataclass
class World:
    """A tenant, all of it. `host`: that of its slug; `former`: those of its former slugs, and whether their
    time is over. `served`: it has been ready once. `cloudflare`: what that does with a domain: nothing
    special, "slow" (it is active after a poll), "refused"."""

    lifecycle: Lifecycle = Lifecycle.ACTIVE
    host: str = HOST
    former: dict[str, bool] = field(default_factory=dict)
    isolation: Isolation = Isolation.SHARED
    release: str = "0002"
    domains: tuple[str, ...] = ()
    clone: bool = False
    served: bool = False
    homes: dict[str, Home] = field(default_factory=dict)
    drawn: int = 0
    current: str | None = None
    cache: dict[str, dict[str, Any]] = field(default_factory=dict)
    routed: dict[str, str] = field(default_factory=dict)
    hostnames: dict[str, HostnameStatus] = field(default_factory=dict)
    cloudflare: dict[str, str] = field(default_factory=dict)
    transfer: Transfer | None = None
    last_transfer: Transfer | None = None
    differs: bool = False
    pays: bool = False
    noted: bool = False
    unasked: bool = False
    retention_over: bool = False
    requested: bool = False
    approved: bool = False
    begun: bool = False
    purged: bool = False
    cluster_goes: bool = False
    cluster_gone: bool = False
    releasing: bool = False
    copy: str | None = None
    copy_overdue: bool = False
    versions: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    # ---------------------------------------------------------------------------- what is decided by

    @property
    def plan_name(self) -> str:
        return f"plan-{self.isolation.value}"

    @property
    def home(self) -> Home:
        assert self.current is not None
        return self.homes[self.current]

    @property
    def moving(self) -> Transfer:
        assert self.transfer is not None
        return self.transfer

    @property
    def there(self) -> Home:
        """The target of its move."""
        assert self.moving.target is not None
        return self.homes[self.moving.target]

    def kept_for(self) -> str | None:
        return "its customer pays" if self.pays and not self.clone else None

    def proof(self, home: Home, release: str) -> str | None:
        return None if home.app.secret is None else f"{home.id}/{home.app.secret}/{release}"

    def release_there(self) -> str:
        """What the target of a move is brought to."""
        if self.moving.kind is TransferKind.RESTORE and not self.moving.recorded:
            return self.moving.release_then
        return max(self.release, self.home.release or "")

    def goal(self) -> TenantGoal:
        routes: dict[str, dict[str, Any]] = {}
        announcement = {}
        if self.lifecycle is Lifecycle.ACTIVE:
            announcement = {self.host: {"status": "provisioning"}}
            if self.current is not None and self.home.cluster_ready and self.home.applied:
                ready = [h.host for h in self.hostnames.values() if h.ready and h.host in self.domains]
                active = {"status": "active", "placement": self.current, "release": self.release}
                routes = {host: active.copy() for host in (self.host, *ready)}
        elif self.lifecycle is Lifecycle.SUSPENDED:
            served = [d for d in self.domains if self.routed.get(d) in ("active", "suspended")]
            routes = {host: {"status": "suspended"} for host in (self.host, *served)}
        keep = {self.host} if self.lifecycle is Lifecycle.ACTIVE else set()
        released = {host: host for host, over in self.former.items() if over}
        if self.lifecycle is not Lifecycle.CLOSED:
            moved = self.former.keys() - released.keys()
            routes |= {host: {"status": "moved", "to": self.host} for host in sorted(moved)}
        own = TenantGoal(
            lifecycle=self.lifecycle,
            release=self.release,
            access_proof=None if self.current is None else self.proof(self.home, self.release),
            routes=routes,
            announcement=announcement,
            domains=() if self.lifecycle is Lifecycle.CLOSED else self.domains,
            withdrawn=tuple(
                host for host in {**self.routed, **released} if host not in routes and host not in keep
            ),
            released=released,
            rotate_after=ROTATE_AFTER,
            purge=PurgeGoal(1, self.cluster_goes) if self.approved else None,
            retention=self._retention(),
            residence=self._residence(),
            transfer=self._transfer_goal(),
        )
        there = self._target()
        if there is None:
            return own
        release = self.release_there()
        proof = self.proof(there, release)
        secondary = replace(own, release=release, access_proof=proof, transfer=None)
        return replace(own, secondary=secondary)

    def _target(self) -> Home | None:
        """As long as it is being made and filled."""
        found = self.transfer
        if found is None or not found.phase.before_cut or found.target in (None, self.current):
            return None
        return self.there

    def _retention(self) -> RetentionGoal | None:
        if self.lifecycle is not Lifecycle.CLOSED or self.approved or self.transfer is not None:
            return None
        left = 0.0 if self.retention_over else 1.0
        return RetentionGoal(left, None, self.kept_for(), self.noted, self.requested, self.unasked)

    def _residence(self) -> ResidenceGoal | None:
        if self.current is None or self.lifecycle is not Lifecycle.ACTIVE:
            return None
        moves = [
            m for m in (self.transfer, self.last_transfer) if m is not None and m.kind is TransferKind.MOVE
        ]
        last = [LastTransfer(m.phase, m.plan, m.by_hand, m.declined) for m in moves[:1]]
        return ResidenceGoal(self.plan_name, self.isolation, self.home.isolation, last[0] if last else None)

    def _transfer_goal(self) -> TransferGoal | None:
        found = self.transfer
        if found is None:
            return None
        over = found.kept_long or self.lifecycle is Lifecycle.CLOSED
        return TransferGoal(
            found.phase,
            found.other,
            overdue=over and found.compared and not found.differing,
            unproven=over and not found.compared and not found.phase.before_cut,
            pointless=found.phase.before_cut
            and not found.by_hand
            and found.destination is not self.isolation,
            kind=found.kind,
            differing=found.differing,
        )

    def status(self) -> TenantStatus:
        routes = {host: dict(payload) for host, payload in self.cache.items()}
        domains = tuple(self.hostnames.values())
        if self.current is None:
            bare = TenantStatus(False, False, None, NOTHING, None, routes, domains, purging=self._purging())
            return replace(bare, transfer=self._transfer_status())
        own = self._status_of(self.home)
        there = self._target()
        secondary = None if there is None else self._status_of(there)
        return replace(
            own,
            routes=routes,
            hostnames=domains,
            purging=self._purging(),
            transfer=self._transfer_status(),
            secondary=secondary,
        )

    def _transfer_status(self) -> TransferStatus | None:
        found = self.transfer
        if found is None:
            return None
        cluster = found.made, found.ready, found.opened, found.gone
        return TransferStatus(found.streaming, found.copied, *cluster)

    def _status_of(self, home: Home) -> TenantStatus:
        database = DatabaseStatus(home.exists, home.hardened, home.logins_open, home.release, home.roles)
        return TenantStatus(
            cluster_ready=home.cluster_ready,
            secret_made=home.confirmed and home.secrets,
            database=database if home.cluster_ready else None,
            app=_credential(home, home.app),
            access_proof=home.access_proof,
            routes={},
            hostnames=(),
        )

    def _purging(self) -> PurgeStatus | None:
        if not self.approved:
            return None
        return PurgeStatus(
            placed=self.current is not None,
            releasing=self.releasing,
            copied=self.copy == "kept",
            cluster_gone=self.cluster_gone,
            purged=self.purged,
            copy_overdue=self.copy == "kept" and self.copy_overdue,
        )

    def plan(self) -> list[Step]:
        return plan_tenant(self.goal(), self.status())

    # ------------------------------------------------------------------------------- what steps do

    def act(self, step: Step) -> Act:
        act: Callable[[Step], Act] = getattr(self, f"do_{step.name}")
        return act(step)

    def at(self, step: Step) -> Home:
        return self.home if step.placement is None else self.homes[step.placement]

    def do_announce(self, step: Step) -> Act:
        assert self.lifecycle is Lifecycle.ACTIVE
        self.routed[step.target] = "provisioning"
        yield
        self.cache[step.target] = self.goal().announcement[step.target]

    def do_publish(self, step: Step) -> Act:
        route = self.goal().routes[step.target]
        yield from self._publish(step.target, dict(route))

    def _publish(self, host: str, route: dict[str, Any]) -> Act:
        if route["status"] == "active":
            assert self.lifecycle is Lifecycle.ACTIVE
            assert self.home.logins_open, "nobody is sent where no login gets in"
            assert self.home.app.gets_in
            assert self.home.rows is not None
        self.routed[host] = route["status"]
        yield
        self.cache[host] = route
        yield
        self.served = self.served or route["status"] == "active"

    def do_withdraw(self, step: Step) -> Act:
        self.routed[step.target] = "gone"
        if self.former.get(step.target):
            del self.former[step.target]
        yield
        self.cache[step.target] = {"status": "gone"}

    def do_create_database(self, step: Step) -> Act:
        home = self.at(step)
        assert home.cluster_ready
        assert home.exists or not (self.served and home.id == self.current), "its rows were there"
        home.roles = True
        yield
        home.exists = True
        yield
        home.hardened = True
        if home.rows is None and not self.clone and home.id == self.current:
            home.rows = "now"  # a new tenant's are there as soon as it can write

    def do_open_logins(self, step: Step) -> Act:
        assert self.lifecycle is Lifecycle.ACTIVE, "who is suspended or leaves gets no login back"
        home = self.at(step)
        assert home.exists
        assert home.hardened
        home.logins_open = True
        yield

    def do_close_logins(self, _step: Step) -> Act:
        self.home.logins_open = False
        yield

    def do_write_credential(self, step: Step) -> Act:
        home = self.at(step)
        login = home.app
        assert home.secrets, "a secret has a container"
        assert login.secret is None
        login.secret = f"version {next(self.versions)}"
        yield

    def do_set_password(self, step: Step) -> Act:
        login = self.at(step).app
        if login.secret is None:
            raise Failed
        login.on_server = login.secret
        yield
        login.recorded = login.secret

    def do_rotate_credential(self, step: Step) -> Act:
        home = self.at(step)
        login = home.app
        assert login.secret is not None
        assert login.retire_in is None, "the idle login is one that nobody uses"
        version = f"{home.id} {login.generation + 1}"
        login.on_server = login.secret = version
        yield
        login.recorded, login.age = version, 0.0
        login.generation += 1
        login.requested = max(login.requested, login.generation)
        login.retire_in = GRACE

    def do_retire_login(self, step: Step) -> Act:
        self.at(step).app.retire_in = None
        yield

    def do_migrate_schema(self, step: Step) -> Act:
        home = self.at(step)
        assert home.exists
        assert home.hardened
        release = self.release if step.placement is None else self.release_there()
        assert (home.release or "") < release
        yield
        home.release = release

    def do_verify_access(self, step: Step) -> Act:
        home = self.at(step)
        assert home.exists
        assert home.logins_open
        if not home.app.gets_in:
            home.app.recorded = None
            return
        yield
        release = self.release if step.placement is None else self.release_there()
        home.access_proof = self.proof(home, release)

    def do_register_hostname(self, step: Step) -> Act:
        does = self.cloudflare.get(step.target, "active")
        new = HostnameStatus(step.target, None, "new", "new", poll_due=False)
        if does == "refused":
            self.hostnames[step.target] = replace(new, refused=True)
            return
        yield
        status = "active" if does == "active" else "pending"
        self.hostnames[step.target] = replace(new, id="id", status=status, ssl_status=status)

    def do_poll_hostname(self, step: Step) -> Act:
        found = self.hostnames[step.target]
        yield
        self.hostnames[step.target] = replace(found, status="active", ssl_status="active", poll_due=False)

    def do_remove_hostname(self, step: Step) -> Act:
        yield
        del self.hostnames[step.target]

    # ----------------------------------------------------------------------------------- transfers

    def do_begin_transfer(self, step: Step) -> Act:
        assert self.transfer is None
        to = Isolation(step.target)
        self.transfer = Transfer(TransferKind.MOVE, self.home.id, self.plan_name, to, by_hand=False)
        yield

    def do_place_transfer(self, _step: Step) -> Act:
        found = self.moving
        assert found.target is None
        self.drawn += 1
        name = f"p-{self.drawn}"
        if found.kind is TransferKind.CLONE:
            assert self.current is None
            self.current = name
        same = found.kind is TransferKind.RESTORE
        self.homes[name] = Home(name, self.home.isolation if same else found.destination)
        found.target = name
        yield

    def do_begin_copy(self, _step: Step) -> Act:
        assert self.there.release == self.home.release, "rows go into the schema that they have"
        self.moving.streaming = True
        yield

    def do_copy_rows(self, _step: Step) -> Act:
        found, rows = self.moving, "now"
        match found.kind:
            case TransferKind.MOVE:
                assert found.streaming, "what is written during the copy is kept"
            case TransferKind.RESTORE:
                assert found.opened, "nobody is told that a database was not there then"
                assert self.there.release == found.release_then, "rows go into the schema that they had"
                rows = "then"
            case TransferKind.CLONE:
                assert not self.served, "a clone that is served has rows of its own"
        assert self.there.release is not None
        found.turn(TransferPhase.COPYING)
        yield
        self.there.rows = rows
        found.copied = found.kind is TransferKind.MOVE
        yield
        found.recorded = True
        found.compared = found.kind is not TransferKind.MOVE
        if found.kind is TransferKind.CLONE:
            found.turn(TransferPhase.CONFIRMED)
            self.transfer = None
        else:
            found.turn(TransferPhase.FOLLOWING)

    def do_cut_over(self, step: Step) -> Act:
        found, source, target = self.moving, self.home, self.there
        assert found.kind is not TransferKind.CLONE
        assert found.streaming or found.kind is TransferKind.RESTORE, "what was written since is followed"
        assert step.placement == target.id
        assert self.lifecycle is Lifecycle.ACTIVE
        assert found.recorded, "the target has the rows"
        assert target.rows is not None
        assert target.logins_open, "the application gets into the target"
        assert target.app.gets_in
        assert (target.release or "") >= (source.release or "")
        found.turn(TransferPhase.CUT)
        yield
        source.logins_open = False
        yield
        self.current = target.id
        found.turn(TransferPhase.REVERSIBLE)
        yield
        for host, route in self.goal().routes.items():
            yield from self._publish(host, dict(route))
        if found.kind is TransferKind.MOVE:
            found.compared, found.differing = True, ("notes",) if self.differs else ()

    def go_back(self) -> None:
        """What an act does about an error before the cut: the source is in use again."""
        if self.transfer is not None and self.transfer.phase is TransferPhase.CUT:
            self.home.logins_open = True
            self.transfer.turn(TransferPhase.FOLLOWING)

    def do_end_copy(self, _step: Step) -> Act:
        assert not self.moving.phase.before_cut
        self.moving.streaming = self.moving.copied = False
        yield

    def do_confirm_transfer(self, _step: Step) -> Act:
        assert self.moving.compared, "a person confirms what was not compared"
        assert self.moving.differing == (), "a person confirms what differs"
        assert self.moving.phase is TransferPhase.REVERSIBLE
        self.moving.turn(TransferPhase.CONFIRMED)
        yield

    def do_abort_transfer(self, _step: Step) -> Act:
        self.moving.turn(TransferPhase.ABORTED)
        if self.moving.kind is TransferKind.CLONE:
            self.transfer = None
        yield

    def do_remove_placement(self, step: Step) -> Act:
        found = self.moving
        assert found.phase in (TransferPhase.CONFIRMED, TransferPhase.ABORTED)
        assert step.placement == found.other
        assert step.placement is None or step.placement != self.current, "it is the one in use"
        assert not found.streaming, "the source's log is let go first"
        if step.placement is not None:
            other = self.homes[step.placement]
            other.exists = other.logins_open = other.roles = False
            other.rows = other.release = None
            yield
            other.secrets = other.confirmed = False
            self.releasing = True
            yield
            del self.homes[other.id]
        self.transfer = None
        if found.kind is TransferKind.MOVE:
            self.last_transfer = found

    def do_restore_cluster(self, _step: Step) -> Act:
        self.moving.made, self.moving.gone = True, False
        yield

    def do_open_restored(self, _step: Step) -> Act:
        assert self.moving.ready
        yield
        self.moving.opened = True

    # -------------------------------------------------------------------------------------- purges

    def do_heed_return(self, _step: Step) -> Act:
        why = self.kept_for()
        if why is not None:
            self.requested = self.approved = False
        self.noted = why is not None
        yield

    def do_order_purge(self, _step: Step) -> Act:
        assert self.unasked
        assert self.retention_over
        assert self.kept_for() is None
        self.approve()
        yield

    def approve(self) -> None:
        """By the word of a second person or of the catalogue."""
        self.requested, self.approved = False, True
        self.cluster_goes = self.current is not None and self.home.isolation is Isolation.DEDICATED

    def _no_way_back(self) -> None:
        """Before anything is deleted: the customer is asked about, and by then nothing is taken back."""
        assert self.lifecycle is Lifecycle.CLOSED
        assert self.approved
        if self.kept_for() is not None and not self.begun:
            self.approved, self.noted = False, True
            raise Failed
        self.begun = True

    def _safe(self) -> bool:
        return self.copy == "kept" or self.home.rows is None

    def do_keep_copy(self, step: Step) -> Act:
        assert step.target == ("snapshot" if self.cluster_goes else "dump")
        assert self.home.exists
        if self.kept_for() is not None and not self.begun:
            self.approved, self.noted = False, True
            raise Failed
        self.copy = "making"
        yield
        self.copy = "kept"

    def do_drop_database(self, _step: Step) -> Act:
        self._no_way_back()
        assert self._safe()
        assert not self.cluster_goes
        self.home.exists = self.home.logins_open = False
        self.home.rows = self.home.release = None
        yield
        self.home.roles = False

    def do_release_placement(self, _step: Step) -> Act:
        self._no_way_back()
        assert self._safe()
        assert self.cluster_goes or not (self.home.exists or self.home.roles), "nobody would ever drop it"
        del self.homes[self.home.id]
        self.current, self.releasing = None, True
        yield

    def do_certify(self, _step: Step) -> Act:
        self._no_way_back()
        assert not self.homes
        assert not self.releasing
        assert not any(h.id for h in self.hostnames.values())
        assert self.cluster_gone or not self.cluster_goes
        yield
        self.purged = True

    def do_delete_copy(self, _step: Step) -> Act:
        assert self.purged
        assert self.copy == "kept"
        assert self.copy_overdue
        yield
        self.copy = "deleted"

    # ------------------------------------------------------------------------------------- waiting

    def grant(self, step: Step) -> bool:
        """What a step waits for happens outside; False for a step that does something itself."""
        found = self.transfer
        match step.name:
            case StepName.AWAIT_CLUSTER:
                self.at(step).cluster_ready = True
            case StepName.AWAIT_SECRET:
                home = self.at(step)
                assert home.cluster_ready
                home.secrets = home.confirmed = home.applied = True
            case StepName.AWAIT_SECRET_END:
                assert self.current is None, "its secret ends when nobody uses them"
                self.releasing = False
            case StepName.AWAIT_CLUSTER_END:
                assert self.current is None, "its cluster ends when it is nobody's"
                self.cluster_gone = True
            case StepName.AWAIT_RESTORED if found is not None:
                found.ready = True
            case StepName.AWAIT_RESTORED_END if found is not None:
                assert found.recorded or found.phase is TransferPhase.ABORTED
                found.gone = True
            case StepName.AWAIT_DECISION:
                self._decide(step)
            case _:
                return False
        return True

    def _decide(self, step: Step) -> None:
        """A person's word, by the runbook."""
        match step.runbook:
            case "purge-due":
                assert self.kept_for() is None
                self.approve()
            case "move-mismatch":
                self.moving.phase = TransferPhase.CONFIRMED
            case "move-between-clusters" if self.transfer is not None:
                assert self.transfer.phase is TransferPhase.REVERSIBLE, "nothing else of it is left to do"
                self.transfer.phase = TransferPhase.CONFIRMED
            case "move-between-clusters" if self.last_transfer is not None:
                self.last_transfer.by_hand = True
            case _:
                raise AssertionError(f"nobody is told what to decide: {step}")


def _credential(home: Home, login: Login) -> CredentialStatus:
    return CredentialStatus(
        login.secret if home.secrets else None,
        login.recorded,
        login.generation,
        login.requested,
        login.age,
        login.retire_in,
    )
