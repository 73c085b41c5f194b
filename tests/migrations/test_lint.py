"""What the linter names, and what it lets pass."""

from __future__ import annotations

import pytest

from controlplane.domain.release import ReleaseFile, digest_of
from controlplane.services.migration_lint import dangers


def rules(text: str) -> list[str]:
    body = text.encode()
    return [found.rule for found in dangers([ReleaseFile("0002_x.sql", digest_of(body), body)])]


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("ALTER TABLE notes ALTER COLUMN n TYPE bigint", "changing-column-type"),
        ("ALTER TABLE notes ADD COLUMN n int NOT NULL", "adding-required-field"),
        ("ALTER TABLE notes ALTER COLUMN n SET NOT NULL", "adding-not-nullable-field"),
        ("ALTER TABLE notes ADD COLUMN t timestamptz DEFAULT clock_timestamp()", "adding-field-with-default"),
        ("CREATE INDEX i ON notes (n)", "require-concurrent-index-creation"),
        ("DROP INDEX i", "require-concurrent-index-deletion"),
        ("ALTER TABLE notes ADD CONSTRAINT c CHECK (n > 0)", "constraint-missing-not-valid"),
        ("ALTER TABLE notes ADD FOREIGN KEY (n) REFERENCES other", "adding-foreign-key-constraint"),
        ("ALTER TABLE notes DROP COLUMN n", "ban-drop-column"),
        ("DROP TABLE notes", "ban-drop-table"),
        ("ALTER TABLE notes RENAME COLUMN n TO m", "renaming-column"),
        ("ALTER TABLE notes RENAME TO papers", "renaming-table"),
        ("UPDATE notes SET n = 1", "whole-table-write"),
        ("DELETE FROM notes", "whole-table-write"),
        ("LOCK TABLE notes", "long-lock"),
        ("REINDEX TABLE notes", "long-lock"),
        ("REFRESH MATERIALIZED VIEW v", "long-lock"),
        ("CLUSTER notes", "table-rewrite"),
        ("VACUUM FULL notes", "table-rewrite"),
        ("SELEC 1", "syntax-error"),
        ("-- no-transaction\nCREATE INDEX CONCURRENTLY i ON notes (n)", "prefer-robust-stmts"),
    ],
)
def test_a_dangerous_statement_is_named(text: str, rule: str) -> None:
    assert rule in rules(text)


@pytest.mark.parametrize(
    "text",
    [
        "CREATE TABLE notes (id bigint PRIMARY KEY, n int NOT NULL);\nCREATE INDEX i ON notes (n)",
        "ALTER TABLE notes ADD COLUMN n int",
        "ALTER TABLE notes ADD COLUMN n int NOT NULL DEFAULT 0",
        "ALTER TABLE notes ADD CONSTRAINT c CHECK (n > 0) NOT VALID",
        "-- no-transaction\nCREATE INDEX CONCURRENTLY IF NOT EXISTS i ON notes (n)",
        "UPDATE notes SET n = 1 WHERE n IS NULL",
        "INSERT INTO notes (n) VALUES (1)",
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS $$ SELECT 1 $$",
    ],
)
def test_what_holds_nobody_up_is_let_pass(text: str) -> None:
    assert rules(text) == []


def test_a_finding_names_file_line_and_statement() -> None:
    body = b"CREATE TABLE a (id int8);\n\n-- gone for good\nDROP TABLE\n  notes;\n"
    (found,) = dangers([ReleaseFile("0002_x.sql", digest_of(body), body)])
    assert (found.file, found.line, found.statement) == ("0002_x.sql", 4, "DROP TABLE notes")
    assert "existing clients" in found.message
