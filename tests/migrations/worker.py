"""A rollout worker as a process of its own: `python -m tests.migrations.worker REGISTRY_URL LEASE`."""

from __future__ import annotations

import sys
import time

from controlplane.store import rollout
from controlplane.workers.jobs import rollouts
from tests.migrations.fleet import context


def main() -> None:
    url, lease = sys.argv[1:]
    ctx = context(url, lease_seconds=float(lease))
    while True:
        with ctx.registry.connection() as conn:
            [newest] = rollout.page(conn, before=None, limit=1)
        if newest.state != "running":
            return
        rollouts.work(ctx, newest.id, threads=4)
        time.sleep(0.05)


if __name__ == "__main__":
    main()
