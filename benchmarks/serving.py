"""An application under gunicorn, as a child of its own."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from controlplane.localcloud.servers.process import accepts, free_port, spawn

ROOT = Path(__file__).parents[1]


@contextmanager
def served(app: str, *options: str, log: Path, env: Mapping[str, str] | None = None) -> Iterator[int]:
    """Its port, once that is open. `app`: as gunicorn names it. `env`: None for this process' own."""
    port = free_port()
    command = [sys.executable, "-m", "gunicorn", "--no-control-socket", *options]
    child = spawn("gunicorn", [*command, "--bind", f"127.0.0.1:{port}", app], log=log, env=env, cwd=ROOT)
    child.wait_until(lambda: accepts(port))
    try:
        yield port
    finally:
        child.stop(grace=30)
