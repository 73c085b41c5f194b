"""The `controlplane` command.

Support's commands are a client of the API and need nothing but its address and a token. Each command's
module is imported when the command is called, so `tenants list` does not wait for what `doctor` needs,
and a machine without the demo's dependencies still has all the others.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

import click

from controlplane.cli.failure import Exit, Failure

COMMANDS = {
    "tenants": (
        "tenants",
        "Tenants: list, show, reprovision, rotate, export, certificate; rename; bind, split, hold, end-hold;"
        " freeze, unfreeze; move, restore, confirm-transfer, abort-transfer; clone, close; purge,"
        " approve-purge, withdraw-purge.",
    ),
    "operations": ("operations", "Operations: list, show, watch."),
    "events": ("events", "Billing events: list, show, replay, dismiss."),
    "contracts": ("contracts", "Contracts, above all the parked ones."),
    "releases": ("releases", "Releases of the tenants' schema: create, list, accept."),
    "schema": ("schema", "Which tenants' schemas differ from their release."),
    "rollouts": ("rollouts", "Bring a release to every tenant, in waves."),
    "clusters": ("clusters", "Database clusters: list, show, reprovision, upgrade, freeze, unfreeze."),
    "fleet": ("fleet", "The workers: show, freeze, unfreeze."),
    "pool": ("pool", "The warm pool: free slots ahead of demand."),
    "notifications": ("notifications", "Notifications to the operator's systems: list, show, redeliver."),
    "certificate": ("certificates", "Check a deletion certificate."),
    "summary": ("summary", "The state of everything in a few numbers."),
    "doctor": ("doctor", "Check every outside system, one line each."),
    "verify": (
        "verify",
        "Compare the registry with every external system; find leaks and gaps in isolation.",
    ),
    "catalogue": ("catalogue", "Check a plan catalogue."),
    "simulate": ("simulate", "Prove that the order of billing events makes no difference."),
    "stacks": ("stacks", "Publish the Terraform stacks of this installation."),
    "db": ("db", "The registry's schema: upgrade, check."),
    "web": ("processes", "Serve webhooks and the API."),
    "worker": ("processes", "Do the jobs of one lane."),
    "demo": ("demo", "Everything on this machine, from payment to page."),
}
"""Command → (its module in this folder, what it is for). The module has it under its own name, or
under `command` where it is named like the module."""


class LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        name, _ = COMMANDS[cmd_name]
        try:
            module = importlib.import_module(f"controlplane.cli.{name}")
        except ModuleNotFoundError as error:
            raise Failure(f"{cmd_name}: the Python package {error.name} is not installed") from error
        command: click.Command = getattr(module, "command" if name == cmd_name else cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """From the table above: help must not import everything."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, about) for name, (_, about) in COMMANDS.items()])


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="tenant-controlplane", prog_name="controlplane")
def cli() -> None:
    """Control plane for SaaS companies that give every customer a database of its own.

    Support's commands speak to the API at CONTROLPLANE_API_URL with the token in
    CONTROLPLANE_API_TOKEN.

    \b
    Exit status:
      0  success               4    what was asked for does not exist
      1  failed                5    not allowed
      2  wrong usage, setting  6    timed out, still running
      3  can't be reached      130  interrupted
    """


def main(args: list[str] | None = None) -> Any:
    """The status for `sys.exit`."""
    try:
        return cli.main(args=args, standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return int(error.exit_code)
    except click.Abort:
        click.echo("interrupted", err=True)
        return int(Exit.INTERRUPTED)
    except BrokenPipeError:
        # Whoever read our output has gone; what is still buffered must not fail again at the exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return int(Exit.FAILED)


if __name__ == "__main__":
    sys.exit(main())
