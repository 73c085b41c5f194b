"""What a leak costs a month, so that findings can be ordered by what they waste, and what a tenant costs that
nobody uses, so that a plan's price covers it. Estimates both.

US dollars a month of 730 hours at public list prices of 2025, rounded, without region, discounts, taxes or
traffic. An invoice is not to be checked against these.
"""

from __future__ import annotations

from controlplane.domain.catalogue import Isolation, Plan

HOURS = 730
ACU_HOUR = 0.12  # Aurora capacity unit, PostgreSQL, standard storage
ACU_ASSUMED = 0.5  # of a cluster whose settings nobody knows any more; one that pauses costs less

SECRET = 0.40
KMS_KEY = 1.00
CUSTOM_HOSTNAME = 0.10
STORAGE_GB = 0.10
BACKUP_GB = 0.021
CLUSTER = round(ACU_ASSUMED * ACU_HOUR * HOURS, 2)

BY_ARN = (("rds", "cluster", CLUSTER), ("secretsmanager", "secret", SECRET), ("kms", "key", KMS_KEY))


def of_arn(service: str, kind: str) -> float | None:
    """None where the thing itself costs nothing, or is counted with something else."""
    return next((price for its, what, price in BY_ARN if (its, what) == (service, kind)), None)


EMPTY_DATABASE_GB = 0.008
"""PostgreSQL 18.6 reports 7.4 MB. Aurora has four of its own in each cluster, beside its tenants'."""
OWN_DATABASES = 4
IDLE_FLOOR_GOAL = 0.50


def idle_floor(plan: Plan) -> dict[str, float]:
    """What a tenant of the plan costs a month while nobody uses it, by part: its secret, and its share of a
    full cluster. `capacity`: what that uses at its least, nothing where it pauses; a parameter group with
    logical replication keeps it awake, which the plan does not tell. `snapshot`: one copy of what it stores.
    The log group costs nothing where nothing is written. `available`: free slots that the plan keeps ahead of
    demand, with their placements, as if its customers filled one cluster."""
    stored = EMPTY_DATABASE_GB * (1 + OWN_DATABASES / plan.slots)
    parts = {
        "secret": SECRET,
        "master_secret": SECRET / plan.slots,
        "key": KMS_KEY / plan.slots,
        "capacity": plan.min_acu * plan.instance_count * ACU_HOUR * HOURS / plan.slots,
        "storage": stored * STORAGE_GB,
        "snapshot": stored * BACKUP_GB,
        "log_group": 0.0,
    }
    return parts | {"available": sum(parts.values()) * plan.warm_slots / plan.slots}


def over_goal(plan: Plan) -> bool:
    """Is the floor of a shared tenant above what it is meant to be? A cluster of its own has its price."""
    return plan.isolation is Isolation.SHARED and round(sum(idle_floor(plan).values()), 2) > IDLE_FLOOR_GOAL
