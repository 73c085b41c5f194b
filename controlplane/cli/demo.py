"""`controlplane demo`: the whole product on this machine, from a paid subscription to a served page.

Nothing here is staged: customers subscribe through Stripe's own SDK, the webhooks arrive signed over
HTTP, a Celery worker runs the real Terraform with the real AWS provider, and the pages come from real
PostgreSQL databases through the data plane. Only the endpoints are those of the local cloud.

What it needs beyond the product (the extra `localcloud`, Terraform, the sample application of a checkout)
is asked for when it runs: `--help` works without.
"""

from __future__ import annotations

import shutil
import signal
from contextlib import nullcontext, suppress
from pathlib import Path

import click
from rich.console import Console

from controlplane.cli.failure import Exit, Failure, clear_services


@click.command("demo")
@click.option(
    "--exit", "exit_", is_flag=True, help="End when all is shown; status 0 only if all of it holds."
)
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Keep everything in this folder (default: a temporary one, removed at the end).",
)
@click.option(
    "--warm", is_flag=True, help="Make clusters ahead of demand first, then let a customer pay for one."
)
@click.option("--timeout", default=600.0, show_default=True, help="Seconds to wait for the tenants at most.")
def command(*, exit_: bool, warm: bool, data_dir: Path | None, timeout: float) -> None:
    """Start everything on this machine, subscribe customers, watch them become tenants."""
    with clear_services():
        from controlplane.localcloud.demo.processes import (
            MIGRATIONS,
            DemoFailed,
            DemoProcesses,
        )
        from controlplane.localcloud.demo.scenario import Scenario
        from controlplane.localcloud.demo.warm import WarmScenario, warm_catalogue
    if not MIGRATIONS.is_dir():
        raise Failure(
            f"demo: its sample application is not at {MIGRATIONS.parent}, since packages have none of it:"
            " run the demo in a checkout of the repository (make demo)"
        )
    if shutil.which("terraform") is None:
        raise Failure("demo: terraform is not on PATH: install Terraform 1.11 or newer")
    for ending in (signal.SIGINT, signal.SIGTERM):  # a shell lets what it starts behind "&" ignore the first
        signal.signal(ending, signal.default_int_handler)
    console = Console(highlight=False, soft_wrap=True)
    try:
        with (
            clear_services(),
            warm_catalogue() if warm else nullcontext() as catalogue,
            DemoProcesses(console, data_dir, settings=catalogue) as processes,
        ):
            scenario = (WarmScenario if warm else Scenario)(processes, console, timeout=timeout)
            scenario.run()
            if not exit_:
                scenario.where_to_go_next()
                with suppress(KeyboardInterrupt):  # how it is to be ended
                    processes.wait_until_one_fails()
    except DemoFailed as error:
        raise Failure(f"demo: {error}") from error
    except KeyboardInterrupt:
        console.print("\nstopped before all was shown; nothing is left running")
        raise SystemExit(Exit.INTERRUPTED) from None
    console.print("nothing is left running")
