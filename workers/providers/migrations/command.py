"""Any other tool (Django, Drizzle, Flyway, …): a command, run once for each tenant.

It finds DATABASE_URL in its environment, and never on its command line, where everybody on the machine
could read it. Of the worker's own environment it gets no more than it needs to run: what else is there
belongs to the control plane (keys of AWS, Stripe, Cloudflare). It stands in a session of its own, ends
with its worker and after its time, and the last lines it wrote are the error, without the password and
without PostgreSQL's DETAIL, which quotes rows.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path
from urllib.parse import quote

from controlplane.domain.errors import Retryable
from controlplane.domain.release import MigrationFailed, Release
from controlplane.migration_project import Project
from controlplane.settings import for_child
from controlplane.workers.providers.databases.errors import shorten
from controlplane.workers.providers.migrations.applied import project_of, run_recorded
from controlplane.workers.providers.migrations.port import Door
from controlplane.workers.providers.ports import Credential, FileRun
from controlplane.workers.providers.supervised import Supervised

PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "NODE_PATH", "PYTHONPATH", "VIRTUAL_ENV")
TAIL_BYTES = 8192
LINES = 3
GRACE = 5.0  # seconds between the request to end and the kill
MARGIN = 60.0  # seconds for which its login is good beyond that
_PASSING = (
    "canceling statement due to lock timeout",
    "could not connect",
    "Connection refused",
    "ECONNREFUSED",
)


class CommandMigrator:
    def apply(self, door: Door, release: Release, projects: Path | None) -> list[FileRun]:
        project = project_of(release, projects)
        return run_recorded(door, release, lambda: _run(door, project))


def _run(door: Door, project: Project) -> None:
    bound = project.timeout + GRACE + MARGIN
    with door.environment(seconds=bound) as (login, environment), tempfile.TemporaryFile() as output:
        process = Supervised(
            project.command,
            grace=GRACE,
            folder=project.folder,
            environment=for_child(*PASSED_ON) | environment,
            output=output,
            errors=subprocess.STDOUT,
        )
        try:
            status = process.wait(project.timeout)
        finally:
            process.stop()
        output.seek(max(0, output.seek(0, os.SEEK_END) - TAIL_BYTES))
        printed = output.read().decode(errors="replace")
    if status == 0:
        return
    name = Path(project.command[0]).name
    error = (
        f"no end after {project.timeout:g} s"
        if status is None
        else _last_lines(environment, login, printed, status)
    )
    if any(text in printed for text in _PASSING):
        raise Retryable(f"{name}: {error}")
    raise MigrationFailed(f"{name}: {error}", file=name, statement="", error=error)


def _last_lines(environment: dict[str, str], login: Credential, printed: str, status: int) -> str:
    for secret in (environment["DATABASE_URL"], login.password, quote(login.password, safe="")):
        printed = printed.replace(secret, "…")
    lines = [line.strip() for line in printed.splitlines() if line.strip()]
    lines = [line for line in lines if not line.upper().startswith(("DETAIL", "HINT"))]
    return f"status {status}: {shorten(' / '.join(lines[-LINES:]))}"
