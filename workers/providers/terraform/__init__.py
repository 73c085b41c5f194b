"""Terraform as a provider: `TerraformRunner` implements `ports.Terraform`.

One apply goes through these files, one noun each: `archive` (a release of the stacks), `installation` (one of
its stacks, initialised once),
`folder` (a run's own), `locks` and `recovery` (what a killed run left), `session` (the commands of one
run) over `process` (a child that can be stopped and that dies with its parent), `guard` (no
destruction without approval), `events` and `diagnostics` (what Terraform says, in our words).
`commands` alone knows python-terraform.
"""

from controlplane.workers.providers.terraform.locks import lock_owner
from controlplane.workers.providers.terraform.runner import TerraformRunner

__all__ = ["TerraformRunner", "lock_owner"]
