"""The form of an action, and the two ways to use one: `run` it, or ask what it would do.

An action only changes what the registry says and asks for an operation; a worker does the work. `run` is the
one place that locks a tenant, checks the parameters and writes the audit trail, so no action can forget it,
and all of it is one transaction with the change.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from controlplane.domain.errors import Invalid
from controlplane.domain.job import JobKind
from controlplane.services.purges import PurgeDetail
from controlplane.store import audit, cluster, job, tenant
from controlplane.store.cluster import ClusterRow
from controlplane.store.data_copy import CopyRow
from controlplane.store.hold import HoldRow
from controlplane.store.purge import PurgeRow
from controlplane.store.registry import Connection
from controlplane.store.tenant import TenantRow


class Parameters(BaseModel):
    """A field's `title` says what is expected, for error messages; its `description` is the option's help."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)


class Subject(StrEnum):
    """What an action is done to."""

    TENANT = "tenant"
    CLUSTER = "cluster"
    FLEET = "fleet"


@dataclass(frozen=True, slots=True)
class Fleet:
    """All tenants and clusters; there is one."""

    id: str = Subject.FLEET.value


P = TypeVar("P", bound=Parameters)
R = TypeVar("R", TenantRow, ClusterRow, Fleet)


@dataclass(frozen=True, slots=True)
class Asked(Generic[R, P]):
    """`row`: the tenant or cluster as it is now; a tenant is locked to the end of the transaction, unless it
    is a dry run. `reason`: empty for a dry run."""

    conn: Connection
    subject: Subject
    row: R
    params: P
    actor: str
    reason: str

    def converge(self, resource_id: str | None = None, *, subject: Subject | None = None) -> int:
        """Ask for an operation of what was asked about, or of another resource, for the reason that was
        given; its id."""
        kind = JobKind(subject or self.subject)
        return job.ensure(self.conn, kind, resource_id or self.row.id, reason=self.reason, actor=self.actor)


OfTenant = Asked[TenantRow, P]
OfCluster = Asked[ClusterRow, P]


@dataclass(frozen=True, slots=True)
class Begun:
    """What was begun. `detail`: for the audit trail beside the reason; None where nothing was new.
    `operation_id`: of what was asked about, or of the tenant `made`; `export`, `purge`, `freeze`, or anything
    else that is plain to see, `recorded`: what it recorded."""

    detail: Mapping[str, object] | None
    operation_id: int | None = None
    made: str | None = None
    export: CopyRow | None = None
    purge: PurgeRow | None = None
    freeze: HoldRow | None = None
    recorded: Mapping[str, object] | None = None


Preview = int | PurgeDetail | Mapping[str, object]
"""The id of a preview that a worker works out, or what is known at once."""


@dataclass(frozen=True, slots=True)
class Action(Generic[P]):
    """`name`: the last part of the API's URL and the command. `subject`: what it is done to. `audit`: as the
    trail names it, `<subject>.<name>` unless given. `permission`: the role that may. `full_id`: a slug is not
    enough to name the tenant by. `second_person`: which action somebody else must take before this one has an
    effect, None where nobody need. `patience`: seconds that the command waits unless `--timeout` says how
    long, 0 where there is nothing to wait for."""

    name: str
    summary: str
    perform: Callable[[Asked[Any, P]], Begun]
    params: type[P] = Parameters  # type: ignore[assignment]  # none
    preview: Callable[[Asked[Any, P]], Preview] | None = None
    subject: Subject = Subject.TENANT
    audit: str = ""
    permission: str = "operator"
    full_id: bool = False
    second_person: Callable[[P], str | None] = lambda _params: None
    patience: float = 3600.0

    def path(self, name: str) -> str:
        """Of the API. `name`: what it is done to; the fleet has none."""
        of = "" if self.subject is Subject.FLEET else f"s/{name}"
        return f"/v1/{self.subject}{of}/{self.name}"

    @property
    def audited_as(self) -> str:
        return self.audit or f"{self.subject}.{self.name}"

    def parse(self, given: Mapping[str, object]) -> P:
        """Raises Invalid, which names the first field that is wrong and what was expected."""
        try:
            return self.params.model_validate(dict(given))
        except ValidationError as error:
            name = str(error.errors()[0]["loc"][0])
            field = self.params.model_fields.get(name)
            if field is None:
                known = ", ".join(self.params.model_fields) or "none"
                raise Invalid(name[:80], f"no other parameters than: {known}") from None
            raise Invalid(name, str(field.title), got=given.get(name)) from None


REGISTERED: dict[tuple[Subject, str], Action[Any]] = {}


def register(action: Action[P]) -> Action[P]:
    REGISTERED[action.subject, action.name] = action
    return action


def run(
    conn: Connection,
    name: str,
    subject_id: str,
    *,
    actor: str,
    reason: str,
    subject: Subject = Subject.TENANT,
    **params: object,
) -> Begun:
    """Raises what the action raises: Invalid, NotFound, Conflict."""
    action = REGISTERED[subject, name]
    parsed = action.parse(params)
    with conn.transaction():
        row = _row(conn, subject, subject_id, lock=True)
        begun = action.perform(Asked(conn, subject, row, parsed, actor, reason))
        if begun.detail is not None:
            detail = {**begun.detail, "reason": reason}
            audit.append(conn, actor=actor, action=action.audited_as, resource=row.id, detail=detail)
    return begun


def dry_run(
    conn: Connection,
    name: str,
    subject_id: str,
    *,
    actor: str,
    subject: Subject = Subject.TENANT,
    **params: object,
) -> Preview:
    """What it would do. Raises as `run`, and Invalid for an action without a dry run."""
    action = REGISTERED[subject, name]
    if action.preview is None:
        raise Invalid("dry_run", f"false: {action.name} has none")
    parsed = action.parse(params)
    with conn.transaction():
        row = _row(conn, subject, subject_id, lock=False)
        return action.preview(Asked(conn, subject, row, parsed, actor, ""))


def _row(
    conn: Connection, subject: Subject, subject_id: str, *, lock: bool
) -> TenantRow | ClusterRow | Fleet:
    if subject is Subject.FLEET:
        return Fleet()
    if subject is Subject.CLUSTER:
        return cluster.get(conn, subject_id)
    return tenant.get(conn, subject_id, lock=lock)
