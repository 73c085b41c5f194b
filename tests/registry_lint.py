"""`python -m tests.registry_lint`: what is dangerous in the registry's own schema, by the linter that
tenants' migrations go through. A part of `make lint`; ends with 1 where it finds something.

Who has a reason to do it all the same says so above the statement, with squawk's `-- squawk-ignore <rule>`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from controlplane.domain.release import ReleaseFile, digest_of
from controlplane.services.migration_lint import dangers
from controlplane.store import schema_version


def findings(files: Sequence[tuple[str, str]]) -> list[str]:
    """A line for each dangerous statement of these (name, SQL)."""
    bodies = [(name, text.encode()) for name, text in files]
    found = dangers([ReleaseFile(name, digest_of(body), body) for name, body in bodies])
    return [f"{f.file}:{f.line} {f.rule} “{f.statement}” {f.message}" for f in found]


def main() -> int:
    lines = findings(schema_version.migrations())
    for line in lines:
        sys.stdout.write(f"controlplane/store/schema/{line}\n")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
