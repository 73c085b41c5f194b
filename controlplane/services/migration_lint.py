"""Which statements of a release are dangerous on a database that is in use?

Squawk knows: a linter of PostgreSQL migrations with a grammar of its own and some thirty rules, each
with the lock it is about (squawkhq.com, "Rules"). What is left out are its rules of taste, and those on
timeouts, which every migration has here anyway. Four dangers it has no rule for are added from the
statements' first words. A file that the grammar can't read is a finding too.

Statements are named, not forbidden: on an empty table each of them is harmless. A person accepts them
one by one, before the first tenant.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from controlplane.domain.errors import Retryable
from controlplane.domain.release import ReleaseFile, transactional
from controlplane.domain.sql_statements import Statement, statements
from controlplane.services.releases import Finding

TIMEOUT = 20.0  # seconds for one file
OLDEST_SERVER = "15.0"
TASTE = (
    "ban-char-field",
    "prefer-bigint-over-int",
    "prefer-bigint-over-smallint",
    "prefer-identity",
    "prefer-text-field",
    "prefer-timestamptz",
    "require-lock-timeout",
    "require-statement-timeout",
)
RERUN = "prefer-robust-stmts"
_WHERE = re.compile(r"\bwhere\b", re.I)
_CONCURRENTLY = re.compile(r"\bconcurrently\b", re.I)


def dangers(files: Sequence[ReleaseFile]) -> list[Finding]:
    """In the files' order, then by line. Raises Retryable where the linter itself does not run."""
    return [finding for file in files for finding in _of_file(file)]


def _of_file(file: ReleaseFile) -> list[Finding]:
    text = (file.body or b"").decode()
    found = statements(text)
    alone = not transactional(text.encode())
    findings = [*_squawk(text, alone=alone), *_own_rules(found)]
    lines: dict[tuple[str, int], Finding] = {}
    for rule, line, message in findings:
        statement = _at(found, line)
        start = line if statement is None else statement.line
        excerpt = "" if statement is None else statement.excerpt
        lines.setdefault((rule, start), Finding(rule, file.name, start, excerpt, message))
    return sorted(lines.values(), key=lambda finding: (finding.line, finding.rule))


def _at(found: Sequence[Statement], line: int) -> Statement | None:
    """The statement that this line is in."""
    before = [statement for statement in found if statement.line <= line]
    return before[-1] if before else None


def _squawk(text: str, *, alone: bool) -> Iterator[tuple[str, int, str]]:
    """(rule, line, message). `alone`: outside a transaction, where it must be possible to run it again."""
    excluded = [*TASTE, *([] if alone else [RERUN])]
    command = [_program(), "--reporter", "json", "--pg-version", OLDEST_SERVER, "--stdin-filepath", "m.sql"]
    command += [f"--exclude={','.join(excluded)}", *([] if alone else ["--assume-in-transaction"])]
    try:
        done = subprocess.run(
            command, input=text, capture_output=True, text=True, timeout=TIMEOUT, cwd="/", check=False
        )
        findings: list[dict[str, Any]] = json.loads(done.stdout or "[]")
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise Retryable(f"the linter of migrations did not answer: {type(error).__name__}") from error
    if done.returncode not in {0, 1}:
        raise Retryable(f"the linter of migrations ended with status {done.returncode}")
    for item in findings:
        message = " ".join(filter(None, (item["message"], item["help"])))
        yield item["rule_name"], item["line"] + 1, message


def _own_rules(found: Sequence[Statement]) -> Iterator[tuple[str, int, str]]:
    for statement in found:
        verb, text = statement.words[0] if statement.words else "", statement.text
        if verb in {"UPDATE", "DELETE"} and not _WHERE.search(text):
            yield (
                "whole-table-write",
                statement.line,
                f"{verb} without WHERE locks and rewrites every row: do it in batches.",
            )
        elif statement.words[:2] == ("LOCK", "TABLE") or verb == "LOCK":
            yield "long-lock", statement.line, "The lock is held until the file's transaction ends."
        elif verb == "CLUSTER" or statement.words[:2] == ("VACUUM", "FULL"):
            yield "table-rewrite", statement.line, "The table is rewritten under an ACCESS EXCLUSIVE lock."
        elif verb in {"REINDEX", "REFRESH"} and not _CONCURRENTLY.search(text):
            yield "long-lock", statement.line, f"{verb} without CONCURRENTLY blocks until it has ended."


def _program() -> str:
    """Beside this interpreter, where it was installed with this package, or on PATH."""
    beside = Path(sys.executable).with_name("squawk")
    found = str(beside) if os.access(beside, os.X_OK) else shutil.which("squawk")
    if found is None:
        raise Retryable("the linter of migrations is not there: install the Python package squawk-cli")
    return found
