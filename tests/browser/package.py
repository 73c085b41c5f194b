"""Builds the npm package and its example from a copy, as somebody who just fetched them would.

A copy, so that several test runs don't get into each other's way and no `node_modules` of a
developer's makes a lock file look complete that is not. What is built and the end of a failed
command's output are all that matters; both are bounded.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
NODE_MODULES_SECONDS = 240
BUILD_SECONDS = 240


def require(program: str, package: str) -> str:
    """Where `program` is. Raises RuntimeError naming the Debian package that brings it."""
    found = shutil.which(program)
    if found is None:
        raise RuntimeError(f"{program} is not installed: the browser tests need Debian's package {package}")
    return found


def copy_and_build(target: Path) -> Path:
    """The locked packages, the package's build, the example's build; the package's folder below `target`."""
    npm = require("npm", "npm (or Node 20 with npm)")
    folder = target / "dataplane" / "nextjs"
    shutil.copytree(
        REPOSITORY / "dataplane" / "nextjs",
        folder,
        ignore=shutil.ignore_patterns("node_modules", ".next", "dist", "build", "*.tsbuildinfo"),
    )
    shutil.copytree(REPOSITORY / "tests" / "vectors", target / "tests" / "vectors")
    run([npm, "ci", "--no-audit", "--no-fund", "--prefer-offline"], folder, NODE_MODULES_SECONDS)
    run([npm, "run", "build"], folder, BUILD_SECONDS)
    run([npm, "run", "build", "--workspace", "example"], folder, BUILD_SECONDS)
    return folder


def build_tests(package: Path) -> None:
    """The package's own tests, below `build`."""
    if not (package / "build" / "test" / "real").is_dir():
        run([require("npm", "npm"), "run", "pretest"], package, BUILD_SECONDS)


def run(
    command: list[str], folder: Path, timeout: float, *, environment: Mapping[str, str] | None = None
) -> str:
    """The command's output. Raises RuntimeError with its last lines when it fails or takes too long."""
    quiet = {"NEXT_TELEMETRY_DISABLED": "1", "NO_COLOR": "1", "CI": "true"}
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, **quiet, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"{' '.join(command)}: not done after {timeout:.0f} s") from error
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: status {done.returncode}\n{done.stdout[-8000:]}")
    return done.stdout
