"""PostgreSQL's logical replication messages, as `pgoutput` writes them (protocol version 1).

"Logical Replication Message Formats" in PostgreSQL's manual. Values come as text in the server's encoding,
which for a tenant's database is UTF-8. A transaction comes whole and in the order of commits, so there is
nothing to be put together here: bytes in, one frozen message out.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from controlplane.domain.errors import NeedsHuman

RUNBOOK = "move"


class Unchanged(Enum):
    """A value that is stored out of line and was not touched: it is not sent."""

    UNCHANGED = "unchanged"


UNCHANGED = Unchanged.UNCHANGED
Values = tuple[str | Unchanged | None, ...]


@dataclass(frozen=True, slots=True)
class Begin:
    """`lsn`: of the commit."""

    lsn: int
    xid: int


@dataclass(frozen=True, slots=True)
class Commit:
    """`end`: the first position behind the transaction."""

    lsn: int
    end: int


@dataclass(frozen=True, slots=True)
class Relation:
    """`keys`: for each column, whether it is part of what identifies a row."""

    id: int
    schema: str
    name: str
    columns: tuple[str, ...]
    keys: tuple[bool, ...]


@dataclass(frozen=True, slots=True)
class Insert:
    relation: int
    new: Values


@dataclass(frozen=True, slots=True)
class Update:
    """`old`: None where the key is what it was."""

    relation: int
    old: Values | None
    new: Values


@dataclass(frozen=True, slots=True)
class Delete:
    relation: int
    old: Values


@dataclass(frozen=True, slots=True)
class Truncate:
    relations: tuple[int, ...]
    cascade: bool
    restart: bool


@dataclass(frozen=True, slots=True)
class Note:
    """What `pg_logical_emit_message` left in the stream."""

    prefix: str
    content: bytes


Message = Begin | Commit | Relation | Insert | Update | Delete | Truncate | Note


def decode(data: bytes) -> Message | None:
    """None for messages that say nothing about rows (types, origins). Raises NeedsHuman for one that this
    version of the protocol does not have."""
    reader = _Reader(data)
    kind = reader.character()
    if kind not in _READERS:
        raise NeedsHuman(f"replication message {kind!r} is unknown", runbook=RUNBOOK)
    return _READERS[kind](reader)


def _begin(reader: _Reader) -> Begin:
    lsn, _time, xid = reader.take("!QQI")
    return Begin(lsn, xid)


def _commit(reader: _Reader) -> Commit:
    _flags, lsn, end, _time = reader.take("!BQQQ")
    return Commit(lsn, end)


def _insert(reader: _Reader) -> Insert:
    (relation,) = reader.take("!I")
    reader.character()
    return Insert(relation, reader.values())


def _delete(reader: _Reader) -> Delete:
    (relation,) = reader.take("!I")
    reader.character()
    return Delete(relation, reader.values())


def _truncate(reader: _Reader) -> Truncate:
    count, options = reader.take("!IB")
    return Truncate(reader.take(f"!{count}I"), cascade=bool(options & 1), restart=bool(options & 2))


def _note(reader: _Reader) -> Note:
    reader.take("!BQ")
    prefix = reader.text()
    (length,) = reader.take("!I")
    return Note(prefix, reader.raw(length))


def _nothing(_reader: _Reader) -> None:
    return None


def _relation(reader: _Reader) -> Relation:
    (number,) = reader.take("!I")
    schema, name = reader.text(), reader.text()
    _identity, count = reader.take("!BH")
    columns, keys = [], []
    for _ in range(count):
        (flags,) = reader.take("!B")
        columns.append(reader.text())
        keys.append(bool(flags & 1))
        reader.take("!Ii")
    return Relation(number, schema, name, tuple(columns), tuple(keys))


def _update(reader: _Reader) -> Update:
    (relation,) = reader.take("!I")
    old = None
    if reader.character() in "KO":
        old = reader.values()
        reader.character()
    return Update(relation, old, reader.values())


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, form: str) -> tuple[int, ...]:
        found = struct.unpack_from(form, self._data, self._at)
        self._at += struct.calcsize(form)
        return found

    def raw(self, length: int) -> bytes:
        found = self._data[self._at : self._at + length]
        self._at += length
        return found

    def character(self) -> str:
        return self.raw(1).decode("ascii")

    def text(self) -> str:
        end = self._data.index(b"\0", self._at)
        found = self._data[self._at : end].decode()
        self._at = end + 1
        return found

    def values(self) -> Values:
        (count,) = self.take("!H")
        return tuple(self._value() for _ in range(count))

    def _value(self) -> str | Unchanged | None:
        kind = self.character()
        if kind == "n":
            return None
        if kind == "u":
            return UNCHANGED
        (length,) = self.take("!I")
        return self.raw(length).decode()


_READERS: dict[str, Callable[[_Reader], Message | None]] = {
    "B": _begin,
    "C": _commit,
    "R": _relation,
    "I": _insert,
    "U": _update,
    "D": _delete,
    "T": _truncate,
    "M": _note,
    "O": _nothing,
    "Y": _nothing,
}
