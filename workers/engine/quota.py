"""How much of what is made for tenants the AWS account may still have.

Asked before anything is made: Terraform would make half of a cluster, and then wait minutes for AWS to refuse
the rest.
"""

from __future__ import annotations

import logging
from dataclasses import replace

from controlplane.domain.errors import ControlPlaneError, NeedsHuman
from controlplane.domain.pool import QUOTA_RUNBOOK, Quota
from controlplane.workers.engine.context import Context

log = logging.getLogger(__name__)


def quota_left(ctx: Context, *, max_age: float = 0.0) -> Quota:
    """Unknown where AWS can't be asked: the catalogue's own limit holds then, and AWS's refusal. Where
    clusters share a subnet group nobody needs another."""
    try:
        left = ctx.providers.quotas.left(max_age=max_age)
        return left if ctx.platform.subnet_group is None else replace(left, subnet_groups=None)
    except ControlPlaneError as error:
        log.warning("the account's quota is unknown: %s", error)
        return Quota()


def require_quota(ctx: Context, **needed: int) -> None:
    """`needed` by the names of `Quota`. Raises NeedsHuman("aws-quota") where there is too little of one."""
    lacking = quota_left(ctx).lacks(**needed)
    if lacking is not None:
        raise NeedsHuman(lacking, runbook=QUOTA_RUNBOOK)
