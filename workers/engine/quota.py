"""How much room the AWS account has for more clusters."""

from __future__ import annotations

import logging

from controlplane.domain.errors import ControlPlaneError
from controlplane.domain.pool import Room
from controlplane.workers.engine.context import Context

log = logging.getLogger(__name__)


def room_left(ctx: Context, *, max_age: float = 0.0) -> Room:
    """Unknown where AWS can't be asked: the catalogue's own limit holds then, and AWS's refusal."""
    try:
        status = ctx.providers.quotas.room(max_age=max_age)
    except ControlPlaneError as error:
        log.warning("the account's quota is unknown: %s", error)
        return Room()
    return Room(clusters=status.clusters, instances=status.instances)
