"""What the drift report finds: a thing that is missing, nobody's, different, or open, and who may repair
it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Fault(StrEnum):
    MISSING = "missing"
    ORPHAN = "orphan"
    DIFFERS = "differs"
    BREACH = "breach"


class Repair(StrEnum):
    """What may be repaired without a person: nothing here deletes or replaces anything with data in it."""

    REPROVISION = "reprovision"  # ask the engine to look at this tenant and repair
    REPROVISION_CLUSTER = "reprovision_cluster"  # the same for this cluster
    REPUBLISH = "republish"  # write this host's route into the cache again
    WITHDRAW = "withdraw"  # leave a tombstone for a host that nobody has
    DELETE_HOSTNAME = "delete_hostname"  # a custom hostname of ours without a tenant
    APPLY_CONTRACTS = "apply_contracts"  # fetch this customer's contracts and bring its tenants to them


@dataclass(frozen=True, slots=True)
class Finding:
    """`system`: whose system; `kind`: what sort of thing, `name`: which; `owner`: the tenant or cluster it is
    about, where one is known. `monthly_usd`: an estimate of what an orphan costs. `target`: of the repair,
    the thing's name unless it is another."""

    system: str
    fault: Fault
    kind: str
    name: str
    detail: str
    owner: str | None = None
    monthly_usd: float | None = None
    repair: Repair | None = None
    target: str = ""

    @property
    def key(self) -> tuple[str, str, str, str]:
        """The same finding of another observation."""
        return self.system, self.fault, self.kind, self.name
