"""Terraform's command lines, built by python-terraform.

python-terraform 0.10.1 builds commands well and runs them badly: no timeout, no signal, variables in
its log and in files that stay behind a kill, `synchronous=False` handed to terraform as a flag, and a
`destroy` with an option that terraform no longer has. So it is kept to what it is good at: `cmd()`
returns the command instead of running it, and `process` runs it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from python_terraform import IsFlagged, IsNotFlagged, Terraform

LOCK_TIMEOUT = "20s"


class Commands(Terraform):  # type: ignore[misc]  # python-terraform has no types
    """Argument lists for one terraform binary."""

    def __init__(self, binary: str) -> None:
        super().__init__(terraform_bin_path=binary)
        self.variables = None  # an empty dictionary would become a temporary file at every command

    def read_state_file(self, file_path: str | None = None) -> None:
        """Nothing: the state is in the bucket, and python-terraform would read the current folder's."""

    def cmd(self, cmd: str, *args: str, **options: Any) -> list[str]:
        """The argument list of `terraform cmd`; options as python-terraform takes them."""
        command: list[str] = self.generate_cmd_string(cmd, *args, **options)
        return command

    def initialise(self, backend: dict[str, str]) -> list[str]:
        return self.cmd(
            "init", input=False, no_color=IsFlagged, lockfile="readonly", backend_config=backend or None
        )

    def make_plan(
        self, out: Path, variables: Path, *, targets: Sequence[str] = (), destroy: bool = False
    ) -> list[str]:
        return self.cmd(
            "plan",
            json=IsFlagged,
            input=False,
            detailed_exitcode=IsFlagged,
            destroy=IsFlagged if destroy else IsNotFlagged,
            lock_timeout=LOCK_TIMEOUT,
            out=str(out),
            var_file=str(variables),
            target=list(targets),
        )

    def show_plan(self, saved: Path) -> list[str]:
        return self.cmd("show", str(saved), json=IsFlagged)

    def apply_plan(self, saved: Path) -> list[str]:
        return self.cmd("apply", str(saved), json=IsFlagged, input=False, lock_timeout=LOCK_TIMEOUT)

    def untaint(self, address: str) -> list[str]:
        return self.cmd("untaint", address, no_color=IsFlagged, lock_timeout=LOCK_TIMEOUT)

    def forget(self, addresses: Sequence[str]) -> list[str]:
        return self.cmd("state rm", *addresses, lock_timeout=LOCK_TIMEOUT)

    def push_state(self, state: Path) -> list[str]:
        return self.cmd("state push", str(state), lock_timeout=LOCK_TIMEOUT)

    def delete_workspace(self, workspace: str) -> list[str]:
        return self.cmd("workspace delete", workspace, no_color=IsFlagged, lock_timeout=LOCK_TIMEOUT)

    def show_version(self) -> list[str]:
        return self.cmd("version", json=IsFlagged)
