"""What a leak costs a month: an estimate, so that findings can be ordered by what they waste.

US dollars a month of 730 hours at public list prices of 2025, rounded, without region, discounts, taxes,
storage or traffic. An invoice is not to be checked against these.
"""

from __future__ import annotations

HOURS = 730
ACU_HOUR = 0.12  # Aurora capacity unit, PostgreSQL, standard storage
ACU_ASSUMED = 0.5  # of a cluster whose settings nobody knows any more; one that pauses costs less

SECRET = 0.40
KMS_KEY = 1.00
CUSTOM_HOSTNAME = 0.10
CLUSTER = round(ACU_ASSUMED * ACU_HOUR * HOURS, 2)

BY_ARN = (("rds", "cluster", CLUSTER), ("secretsmanager", "secret", SECRET), ("kms", "key", KMS_KEY))


def of_arn(service: str, kind: str) -> float | None:
    """None where the thing itself costs nothing, or is counted with something else."""
    return next((price for its, what, price in BY_ARN if (its, what) == (service, kind)), None)
