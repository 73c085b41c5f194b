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
        rollouts.work(ctx, threads=4)
        with ctx.registry.connection() as conn:
            if not any(row.state == "running" for row in rollout.page(conn, before=None, limit=1)):
                return
        time.sleep(0.05)


if __name__ == "__main__":
    main()
