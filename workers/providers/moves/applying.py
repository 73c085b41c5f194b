"""Changes that were read from one database, made in another.

Statements go out in a pipeline, and each that changes or deletes must have met exactly one row: a target
that has come apart from its source is noticed at the first row that it lacks, not when somebody misses it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import psycopg
from psycopg import sql

from controlplane.domain.errors import NeedsHuman
from controlplane.workers.providers.moves.pgoutput import (
    RUNBOOK,
    UNCHANGED,
    Delete,
    Insert,
    Message,
    Relation,
    Truncate,
    Update,
    Values,
)
from controlplane.workers.providers.moves.tables import Table

IN_FLIGHT = 500
Check = Callable[[], None]


class Applier:
    """Over one session of the target. `tables`: the target's, by label."""

    def __init__(self, conn: psycopg.Connection, tables: Mapping[str, Table]) -> None:
        self._conn = conn
        self._tables = tables
        self._relations: dict[int, Relation] = {}
        self._texts: dict[tuple[object, ...], sql.Composed] = {}
        self._pending: list[Check] = []
        self.changes = 0

    def learn(self, relation: Relation) -> None:
        self._relations[relation.id] = relation

    def apply(self, changes: Iterable[Message]) -> None:
        """The changes of one or more transactions, in their order."""
        with self._conn.pipeline() as pipeline:
            for change in changes:
                self._one(change)
                self.changes += 1
                if len(self._pending) >= IN_FLIGHT:
                    pipeline.sync()
                    self._check()
        self._check()

    def _one(self, change: Message) -> None:
        match change:
            case Insert(number, new):
                self._insert(self._relations[number], new)
            case Update(number, old, new):
                self._update(self._relations[number], old, new)
            case Delete(number, old):
                relation = self._relations[number]
                where, values = self._where(relation, old)
                text = self._text(
                    ("delete", number),
                    lambda: sql.SQL("DELETE FROM ONLY {} WHERE {}").format(_name(relation), where),
                )
                self._execute(relation, text, values)
            case Truncate(numbers, cascade, restart):
                names = sql.SQL(", ").join(
                    sql.SQL("ONLY {}").format(_name(self._relations[number])) for number in numbers
                )
                self._conn.execute(
                    sql.SQL("TRUNCATE {}{}{}").format(
                        names,
                        sql.SQL(" RESTART IDENTITY" if restart else ""),
                        sql.SQL(" CASCADE" if cascade else ""),
                    )
                )

    def _insert(self, relation: Relation, new: Values) -> None:
        text = self._text(
            ("insert", relation.id),
            lambda: sql.SQL("INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE VALUES ({})").format(
                _name(relation),
                sql.SQL(", ").join(map(sql.Identifier, relation.columns)),
                sql.SQL(", ").join([sql.Placeholder()] * len(relation.columns)),
            ),
        )
        self._execute(relation, text, list(new))

    def _update(self, relation: Relation, old: Values | None, new: Values) -> None:
        """An identity that is ALWAYS generated is never assigned to: it can't have changed but to a newly
        generated value, and then the row is written anew."""
        always = set(self._tables[f"{relation.schema}.{relation.name}"].always)
        keys: list[object] = [value for value, key in zip(old or new, relation.keys, strict=True) if key]
        if old is not None and any(
            name in always and before != after
            for name, key, before, after in zip(relation.columns, relation.keys, old, new, strict=True)
            if key
        ):
            self._replace(relation, old, new)
            return
        kept = [
            (name, value)
            for name, value in zip(relation.columns, new, strict=True)
            if value is not UNCHANGED and name not in always
        ]
        if not kept:
            return
        where, _ = self._where(relation, old or new)
        names = tuple(name for name, _ in kept)
        text = self._text(
            ("update", relation.id, names),
            lambda: sql.SQL("UPDATE ONLY {} SET {} WHERE {}").format(
                _name(relation),
                sql.SQL(", ").join(sql.SQL("{} = %s").format(sql.Identifier(name)) for name in names),
                where,
            ),
        )
        self._execute(relation, text, [*(value for _, value in kept), *keys])

    def _replace(self, relation: Relation, old: Values, new: Values) -> None:
        if UNCHANGED in new:
            raise NeedsHuman(
                f"{relation.schema}.{relation.name}: a generated key changed in a row with values that are"
                " not sent",
                runbook=RUNBOOK,
            )
        self._one(Delete(relation.id, old))
        self._insert(relation, new)

    def _where(self, relation: Relation, values: Values) -> tuple[sql.Composed, list[object]]:
        keys = [
            (name, value)
            for name, key, value in zip(relation.columns, relation.keys, values, strict=True)
            if key
        ]
        condition = sql.SQL(" AND ").join(sql.SQL("{} = %s").format(sql.Identifier(name)) for name, _ in keys)
        return condition, [value for _, value in keys]

    def _text(self, key: tuple[object, ...], make: Callable[[], sql.Composed]) -> sql.Composed:
        if key not in self._texts:
            self._texts[key] = make()
        return self._texts[key]

    def _execute(self, relation: Relation, text: sql.Composed, values: Sequence[object]) -> None:
        cursor = self._conn.execute(text, values)

        def check() -> None:
            if cursor.rowcount != 1:
                raise NeedsHuman(
                    f"{relation.schema}.{relation.name}: a change met {cursor.rowcount} rows of the copy,"
                    " expected one",
                    runbook=RUNBOOK,
                )

        self._pending.append(check)

    def _check(self) -> None:
        pending, self._pending = self._pending, []
        for check in pending:
            check()


def _name(relation: Relation) -> sql.Identifier:
    return sql.Identifier(relation.schema, relation.name)
