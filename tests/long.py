"""`make test-long`: what `make mutants`, `make faults` and `make soak` run, and a line in
benchmarks/RESULTS.md.

The line is written when it failed as well: a page that knows only good days says nothing.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence

from benchmarks import page

PARTS = {
    "mutants": ["-m", "tests.mutants"],
    "faults": ["-m", "tests.faults"],
    "soak": ["-m", "pytest", "-m", "soak", "--ignore=tests/faults"],  # that folder is a part of its own
}
HEAD = "## Long tests\n\nMutants, faults, seeds and soaks; a line for each `make test-long`.\n\n"


def main(arguments: Sequence[str]) -> int:
    """Arguments go to both runs of pytest; a run that is narrowed by them names them in its line, and leaves
    mutants out."""
    load, failed, results = page.load(), 0, []
    for name, command in PARTS.items():
        if arguments and name == "mutants":
            continue
        began = time.monotonic()
        status = subprocess.run([sys.executable, *command, *arguments], check=False).returncode
        failed |= status
        outcome = "passed" if status == 0 else f"failed (ended with {status})"
        results.append(f"{name} {outcome} in {(time.monotonic() - began) / 60:.0f} min")
    narrowed = f" Only `{' '.join(arguments)}`." if arguments else ""
    page.append("long-tests", HEAD, f"- {page.stamp(load)} {', '.join(results)}.{narrowed}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
