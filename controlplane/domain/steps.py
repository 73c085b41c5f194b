"""The steps an operation can take; each is one idempotent act.

A step carries why it was planned, for the people who read the log. The engine executes steps by
name; in `workers/steps/` one act for each name registers itself (a test compares the two), and the crash
tests take theirs from here. A new step still needs a life in which it is planned.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from controlplane.domain.state import State


class StepState(State):
    """In the log. `waiting`: nothing was wrong, it needed more time. `abandoned`: its worker died."""

    RUNNING = "running"
    DONE = "done", "running"
    FAILED = "failed", "running"
    WAITING = "waiting", "running"
    ABANDONED = "abandoned", "running"


class StepName(StrEnum):
    # clusters
    APPLY_CLUSTER_STACK = "apply_cluster_stack"
    AWAIT_AVAILABLE = "await_available"
    HARDEN_CLUSTER = "harden_cluster"
    APPLY_PLACEMENTS_STACK = "apply_placements_stack"
    DESTROY_PLACEMENTS_STACK = "destroy_placements_stack"
    DESTROY_CLUSTER_STACK = "destroy_cluster_stack"
    # tenants
    ANNOUNCE = "announce"
    AWAIT_CLUSTER = "await_cluster"
    CREATE_DATABASE = "create_database"
    AWAIT_SECRET = "await_secret"  # noqa: S105 — a step's name
    WRITE_CREDENTIAL = "write_credential"
    SET_PASSWORD = "set_password"  # noqa: S105 — a step's name
    OPEN_LOGINS = "open_logins"
    CLOSE_LOGINS = "close_logins"
    ROTATE_CREDENTIAL = "rotate_credential"
    RETIRE_LOGIN = "retire_login"
    MIGRATE_SCHEMA = "migrate_schema"
    VERIFY_ACCESS = "verify_access"
    PUBLISH = "publish"
    WITHDRAW = "withdraw"
    REGISTER_HOSTNAME = "register_hostname"
    POLL_HOSTNAME = "poll_hostname"
    REMOVE_HOSTNAME = "remove_hostname"
    AWAIT_DECISION = "await_decision"
    # tenants that leave for good
    HEED_RETURN = "heed_return"
    ORDER_PURGE = "order_purge"
    KEEP_COPY = "keep_copy"
    DROP_DATABASE = "drop_database"
    RELEASE_PLACEMENT = "release_placement"
    AWAIT_SECRET_END = "await_secret_end"  # noqa: S105 — a step's name
    AWAIT_CLUSTER_END = "await_cluster_end"
    CERTIFY = "certify"
    DELETE_COPY = "delete_copy"
    # transfers
    BEGIN_TRANSFER = "begin_transfer"
    RESTORE_CLUSTER = "restore_cluster"
    PLACE_TRANSFER = "place_transfer"
    AWAIT_RESTORED = "await_restored"
    OPEN_RESTORED = "open_restored"
    BEGIN_COPY = "begin_copy"
    COPY_ROWS = "copy_rows"
    CUT_OVER = "cut_over"
    END_COPY = "end_copy"
    CONFIRM_TRANSFER = "confirm_transfer"
    ABORT_TRANSFER = "abort_transfer"
    AWAIT_RESTORED_END = "await_restored_end"
    REMOVE_PLACEMENT = "remove_placement"


@dataclass(frozen=True, slots=True)
class Step:
    """`target`: the host, the kind of copy or of cluster that it is about, where there are several.
    `placement`: the id of the one that it is about, where that is not the current one. `runbook`: of the
    decision that a person has to take first."""

    name: StepName
    reason: str
    target: str = ""
    placement: str | None = None
    runbook: str = ""

    @property
    def label(self) -> str:
        """What it is about, for people."""
        there = "" if self.placement is None else f"placement {self.placement}"
        return f"{self.target}, {there}" if self.target and there else self.target or there
