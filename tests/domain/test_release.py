"""Which files are a release, after which one, and what is refused before the first tenant sees it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.domain.errors import Conflict, Invalid
from controlplane.domain.release import (
    MAX_FILE_BYTES,
    MAX_FILES,
    Adapter,
    Release,
    ReleaseFile,
    compose,
    digest_of,
    sql_file_fault,
    transactional,
)


def file(name: str, body: bytes = b"SELECT 1;") -> ReleaseFile:
    return ReleaseFile(name, digest_of(body), body)


def numbered(*names: str) -> list[ReleaseFile]:
    return [file(f"{number:04d}_{name}.sql") for number, name in enumerate(names, start=1)]


def release(*names: str) -> Release:
    return compose(Adapter.SQL, numbered(*names), None)


# ----------------------------------------------------------------------------------------- numbers


def test_numbered_sql_is_called_by_its_newest_file() -> None:
    assert release("notes").number == "0001"
    assert compose(Adapter.SQL, numbered("notes", "tags"), release("notes")).number == "0002"


def test_releases_of_other_tools_are_counted() -> None:
    first = compose(Adapter.ALEMBIC, [file("versions/a1.py")], None)
    second = compose(Adapter.ALEMBIC, [file("versions/a1.py"), file("versions/b2.py")], first)
    assert (first.number, second.number) == ("0001", "0002")


def test_files_of_other_tools_may_come_and_go() -> None:
    first = compose(Adapter.COMMAND, [file("a/b.js"), file("c.js")], None)
    assert compose(Adapter.COMMAND, [file("c.js", b"other")], first).number == "0002"


@given(st.integers(1, 9), st.data())
def test_an_earlier_release_is_what_it_was_when_it_was_the_newest(most: int, data: st.DataObject) -> None:
    names = "abcdefghi"[:most]
    until = data.draw(st.integers(1, most))
    assert release(*names).up_to(f"{until:04d}") == release(*names[:until])


@pytest.mark.parametrize("number", ["0000", "0003", "9999"])
def test_a_release_holds_no_number_that_is_not_its_own(number: str) -> None:
    with pytest.raises(Invalid, match=r"^release: expected a number that release 0002 \(sql\) holds"):
        release("notes", "tags").up_to(number)


def test_only_numbered_sql_holds_its_earlier_releases() -> None:
    other = compose(Adapter.ALEMBIC, [file("a.py")], None)
    with pytest.raises(Invalid, match=r"release 0001 \(alembic\)"):
        other.up_to("0001")


def test_the_checksum_is_over_tool_names_contents_and_order() -> None:
    files = (file("a.py"), file("b.py"))
    whole = Release("0001", Adapter.ALEMBIC, files)
    others = [
        replace(whole, adapter=Adapter.COMMAND),
        replace(whole, files=files[::-1]),
        replace(whole, files=(files[0], file("c.py"))),
        replace(whole, files=(files[0], file("b.py", b"other"))),
    ]
    assert len({each.checksum for each in (whole, *others)}) == 5
    assert replace(whole, number="0002").checksum == whole.checksum


# ------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize(
    ("name", "position", "fault"),
    [
        ("0001_create_notes.sql", 1, None),
        ("1_notes.sql", 1, "1_notes.sql: expected a name like 0001_create_notes.sql (a-z, 0-9, _)"),
        ("0001_Notes.sql", 1, "0001_Notes.sql: expected a name like 0001_create_notes.sql (a-z, 0-9, _)"),
        ("0001_a.sql", 2, "0001_a.sql: the number 0001 is there twice"),
        ("0003_a.sql", 2, "0003_a.sql: expected the number 0002 next, there is a gap"),
    ],
)
def test_sql_files_are_numbered_without_gaps(name: str, position: int, fault: str | None) -> None:
    assert sql_file_fault(name, position, b"SELECT 1") == fault


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (b"", None),
        (b"x" * MAX_FILE_BYTES, None),
        (b"x" * (MAX_FILE_BYTES + 1), f"expected at most {MAX_FILE_BYTES} bytes and no NUL"),
        (b"SELECT '\0'", f"expected at most {MAX_FILE_BYTES} bytes and no NUL"),
        (b"SELECT '\xff'", "expected UTF-8"),
        (b"SELECT 1; SELECT 2", None),
        (
            b"SELECT 1;\nCOMMIT;\nEND;",
            "line 2 runs in a transaction already, leave out its BEGIN, COMMIT, ROLLBACK",
        ),
        (b"-- no-transaction\nCREATE INDEX CONCURRENTLY i ON a (b);", None),
        (b"-- no-transaction\nCOMMIT", None),
        (
            b"-- no-transaction\nSELECT 1; SELECT 2",
            "-- no-transaction goes with one statement, this has 2",
        ),
        (b"-- no-transaction\n", "-- no-transaction goes with one statement, this has 0"),
    ],
)
def test_what_a_file_may_hold(body: bytes, fault: str | None) -> None:
    expected = None if fault is None else f"0001_a.sql: {fault}"
    assert sql_file_fault("0001_a.sql", 1, body) == expected


@pytest.mark.parametrize(
    ("body", "within"),
    [
        (b"SELECT 1", True),
        (b"-- no-transaction", False),
        (b" \n\n-- NO-Transaction  \nSELECT 1", False),
        (b"SELECT 1;\n-- no-transaction", True),
        (b"-- no-transaction please", True),
    ],
)
def test_only_the_first_line_takes_a_file_out_of_its_transaction(body: bytes, within: bool) -> None:
    assert transactional(body) is within


# ----------------------------------------------------------------------------------------- refused


def test_a_release_has_some_files_and_not_too_many() -> None:
    with pytest.raises(Invalid, match=f"^files: expected 1 to {MAX_FILES} of them, got 0"):
        compose(Adapter.ALEMBIC, [], None)
    many = [file(f"{number}.py") for number in range(MAX_FILES + 1)]
    with pytest.raises(Invalid, match=f"got {MAX_FILES + 1}"):
        compose(Adapter.ALEMBIC, many, None)
    assert len(compose(Adapter.ALEMBIC, many[1:], None).files) == MAX_FILES


def test_each_name_is_there_once() -> None:
    with pytest.raises(Invalid, match=r"^files: expected each name once"):
        compose(Adapter.ALEMBIC, [file("a.py"), file("a.py", b"other")], None)


def test_the_fleet_keeps_its_tool() -> None:
    with pytest.raises(Conflict, match="the fleet's releases are of sql"):
        compose(Adapter.ALEMBIC, [file("a.py")], release("notes"))


def test_a_digest_is_one_and_that_of_the_contents() -> None:
    with pytest.raises(Invalid, match=r"^sha256: expected 64 hexadecimal digits, got 'abc'"):
        compose(Adapter.ALEMBIC, [ReleaseFile("a.py", "abc")], None)
    with pytest.raises(Invalid, match=r"^sha256: expected the digest of a\.py"):
        compose(Adapter.ALEMBIC, [ReleaseFile("a.py", digest_of(b"x"), b"y")], None)
    assert compose(Adapter.ALEMBIC, [ReleaseFile("a.py", digest_of(b"x"))], None).number == "0001"


def test_sql_comes_with_its_contents_and_without_faults() -> None:
    with pytest.raises(Invalid, match=r"^files: expected the contents of 0001_a\.sql"):
        compose(Adapter.SQL, [ReleaseFile("0001_a.sql", digest_of(b"x"))], None)
    with pytest.raises(Invalid, match=r"^files: expected 0002_a\.sql: expected the number 0001 next"):
        compose(Adapter.SQL, [file("0002_a.sql")], None)


@pytest.mark.parametrize("name", ["/etc/passwd", "../a.py", "a/../b.py", "a b.py", "", "x" * 201])
def test_files_of_other_tools_are_relative_paths(name: str) -> None:
    with pytest.raises(Invalid, match=r"^files: expected relative paths"):
        compose(Adapter.ALEMBIC, [file(name)], None)


# ----------------------------------------------------------------------------------------- history


def test_the_same_files_are_the_same_release() -> None:
    for adapter, files in ((Adapter.SQL, numbered("notes")), (Adapter.ALEMBIC, [file("a.py")])):
        newest = compose(adapter, files, None)
        with pytest.raises(Conflict, match=r"^these files are release 0001 already$"):
            compose(adapter, files, newest)


def test_a_file_that_was_released_is_not_changed_or_renamed() -> None:
    for changed in (file("0001_notes.sql", b"SELECT 2;"), file("0001_note.sql")):
        with pytest.raises(Conflict, match=r"differs from 0001_notes\.sql of release 0001, which is history"):
            compose(Adapter.SQL, [changed, *numbered("notes", "tags")[1:]], release("notes"))


def test_a_release_is_not_cut_short() -> None:
    with pytest.raises(Conflict, match=r"^release 0002 has more files than these$"):
        compose(Adapter.SQL, numbered("notes"), release("notes", "tags"))
