"""Splitting: the statements are the file, and a semicolon inside of something ends nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.domain.sql_statements import statements

pieces = st.sampled_from(
    [
        "select 1", ";", "\n", "'", "''", '"', "$$", "$a$", "--", "/*", "*/", "(", ")", "E'\\'", " ",
        "begin atomic", "create function f()", "end", "case", "$1", "a$b", "é", "x'1'",
    ]
)  # fmt: skip


@given(st.lists(pieces, max_size=30).map("".join))
def test_the_statements_together_are_the_file(text: str) -> None:
    found = statements(text)
    assert "".join(statement.text for statement in found) in (text, "")


@pytest.mark.parametrize(
    "whole",
    [
        "SELECT ';'",
        "SELECT 'it''s; fine'",
        r"SELECT E'\';'",
        'SELECT ";"',
        "SELECT $$;$$",
        "SELECT $tag$ $$;$$ ; $tag$",
        "SELECT 1 -- ; no\n",
        "SELECT /* ; /* ; */ ; */ 1",
        "CREATE RULE r AS ON INSERT TO a DO ALSO (DELETE FROM b; DELETE FROM c)",
        "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; SELECT 2; END",
        "CREATE OR REPLACE PROCEDURE p() LANGUAGE sql BEGIN ATOMIC INSERT INTO a VALUES (1); END",
        "DO $$ BEGIN PERFORM 1; END $$",
        "SELECT $1, a$b$c",
        "CREATE VIEW v AS SELECT begin, atomic FROM t",
        "COMMENT ON FUNCTION begin.atomic() IS 'x'",
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS $$ SELECT 1 $$",
    ],
)
def test_one_statement_stays_one(whole: str) -> None:
    assert [statement.text for statement in statements(f"{whole};SELECT 2")] == [f"{whole};", "SELECT 2"]


def test_lines_and_excerpts_are_those_of_the_first_word() -> None:
    first, second = statements(
        "-- a table\n\nCREATE TABLE a (\n  x int\n);\n/* and */ DROP  TABLE b; -- end\n"
    )
    assert (first.line, first.excerpt) == (3, "CREATE TABLE a ( x int )")
    assert (second.line, second.words[:2]) == (6, ("DROP", "TABLE"))
    assert second.text.endswith("-- end\n")


@pytest.mark.parametrize("text", ["", " \n", "-- nothing", "/* ; */", ";", " ; ; "])
def test_nothing_is_no_statement(text: str) -> None:
    assert statements(text) == []


@pytest.mark.parametrize(
    ("text", "ends"),
    [
        ("COMMIT", True),
        ("  /* x */ rollback to savepoint a", True),
        ("START TRANSACTION", True),
        ("PREPARE TRANSACTION 'x'", True),
        ("END", True),
        ("PREPARE p AS SELECT 1", False),
        ("SELECT commit FROM a", False),
        ("COMMENT ON TABLE a IS 'COMMIT;'", False),
    ],
)
def test_what_ends_a_transaction_is_known(text: str, ends: bool) -> None:
    (found,) = statements(text)
    assert found.ends_transaction is ends
