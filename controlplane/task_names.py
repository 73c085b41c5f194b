"""What workers are notified of: their tasks by name, and the queue that each goes to.

The web side must not import workers, and both sides publish. So the names and queues stand here once,
below both: a task that one side sent to a queue of its own would wait behind what it was kept apart from.
"""

from __future__ import annotations

HANDLE_EVENT = "controlplane.workers.runtime.tasks.handle_event"
DELIVER_NOTIFICATIONS = "controlplane.workers.runtime.tasks.deliver"
SWEEP = "controlplane.workers.runtime.tasks.sweep"
REPUBLISH = "controlplane.workers.runtime.tasks.republish"
COMPARE = "controlplane.workers.runtime.tasks.compare"
PRUNE = "controlplane.workers.runtime.tasks.prune"
CONVERGE = "controlplane.workers.runtime.tasks.converge"
PREVIEW = "controlplane.workers.runtime.tasks.preview"
TAKE_SNAPSHOTS = "controlplane.workers.runtime.tasks.rollout_snapshots"
ROLLOUT = "controlplane.workers.runtime.tasks.rollout"
REHEARSE = "controlplane.workers.runtime.tasks.rehearsal"
EXPORT = "controlplane.workers.runtime.tasks.export"

EVENTS, OPERATIONS, ROLLOUTS, CLOCK = "events", "controlplane", "rollouts", "clock"

QUEUES = {
    HANDLE_EVENT: EVENTS,
    DELIVER_NOTIFICATIONS: EVENTS,
    SWEEP: CLOCK,
    REPUBLISH: CLOCK,
    COMPARE: CLOCK,
    PRUNE: CLOCK,
    CONVERGE: OPERATIONS,
    PREVIEW: OPERATIONS,
    TAKE_SNAPSHOTS: OPERATIONS,
    ROLLOUT: ROLLOUTS,
    REHEARSE: ROLLOUTS,
    EXPORT: ROLLOUTS,
}
"""Short things, a customer's operations, what may take hours, and what beat asks for. A worker takes from its
queues in turn, so the sweep, which finds lost wake-ups, stands behind no backlog of the others."""

EVERY_QUEUE = ",".join(dict.fromkeys(QUEUES.values()))
"""As `--queues` takes them."""

ROUTES = {task: {"queue": queue} for task, queue in QUEUES.items()}
"""The same as Celery's `task_routes`."""
