"""One table says what is due and how often it was tried; three statements pass over what others have locked.

A second table with such columns is a second queue: with a claim, a policy of trying again and a way to hold
what it took of its own (docs/adr/0012-one-job-table.md).
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

from controlplane.store.registry import Registry

ROOT = Path(__file__).parents[2]
DUE = {"due_at", "next_attempt_at", "next_retry_at", "retry_at", "run_at"}
TRIED = {"attempts", "attempt", "retries"}
HELD = {"holder", "fencing_token", "lease_until"}
ARCHIVE = "job_history"
"""Where jobs go that have ended: the same noun, of which nothing is due or held any more."""
OUTBOX = "notification"
"""`tries` and `next_try_at` are not a job's: one job delivers them all, in their order (ADR 12)."""


def columns(registry: Registry) -> dict[str, set[str]]:
    """Table → its columns; views are none."""
    with registry.connection() as conn:
        rows = conn.execute(
            "SELECT table_name, array_agg(column_name::text) AS names FROM information_schema.columns"
            " JOIN information_schema.tables USING (table_schema, table_name)"
            " WHERE table_schema = 'public' AND table_type = 'BASE TABLE' GROUP BY 1"
        ).fetchall()
    return {row["table_name"]: set(row["names"]) for row in rows}


def test_one_table_has_what_a_queue_has(registry: Registry) -> None:
    tables = columns(registry)
    assert {name for name, found in tables.items() if found & DUE} == {"job"}
    assert {name for name, found in tables.items() if found & TRIED} == {"job", ARCHIVE}
    assert {name for name, found in tables.items() if found & HELD} == {"job", ARCHIVE}
    assert {name for name, found in tables.items() if found & {"tries", "next_try_at"}} == {OUTBOX}
    assert {"due_at", "attempts"} <= tables["job"]


def test_three_statements_pass_over_what_is_locked() -> None:
    """The claim, the take-over, and the search for a cluster with room. Whatever else would need it is a
    queue, or waits for its turn in the order of the ids."""
    found = {path: n for path in _product() if (n := _skips(path))}
    assert found == {"controlplane/store/job.py": 2, "controlplane/store/cluster.py": 1}


def _product() -> list[str]:
    """Python and SQL; a link into another folder is counted there."""
    folders = [ROOT / name for name in ("controlplane", "workers", "dataplane")]
    paths = [path for folder in folders for path in folder.rglob("*") if path.suffix in {".py", ".sql"}]
    return sorted(
        {str(path.resolve().relative_to(ROOT)) for path in paths if "node_modules" not in path.parts}
    )


def _skips(name: str) -> int:
    text = (ROOT / name).read_text(encoding="utf-8")
    texts = _strings(ast.parse(text)) if name.endswith(".py") else [re.sub(r"--.*", "", text)]
    return sum(len(re.findall(r"SKIP\s+LOCKED", each, re.IGNORECASE)) for each in texts)


def _strings(tree: ast.Module) -> list[str]:
    """What may be sent to a server: every string but those that stand alone, as docstrings do."""
    alone = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    return [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in alone
    ]
