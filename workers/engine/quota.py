"""How much quota the AWS account has for more clusters."""

from __future__ import annotations

import logging

from controlplane.domain.errors import ControlPlaneError
from controlplane.domain.pool import Quota
from controlplane.workers.engine.context import Context

log = logging.getLogger(__name__)


def quota_left(ctx: Context, *, max_age: float = 0.0) -> Quota:
    """Unknown where AWS can't be asked: the catalogue's own limit holds then, and AWS's refusal."""
    try:
        return ctx.providers.quotas.left(max_age=max_age)
    except ControlPlaneError as error:
        log.warning("the account's quota is unknown: %s", error)
        return Quota()
