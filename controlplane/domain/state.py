"""States of rows, and the transitions between them.

A row is written by several processes at once: workers whose hold may have run out, a person, a timer. So no
write says "this is its state now" but "from one of these states to that one", and the registry refuses
whatever else (`store.registry.transition`). Which ones those are stands in the enum, beside each state; that
the schema's CHECK has the same states is held by `tests/store/test_schema.py`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Self


class State(StrEnum):
    """Each member is its name in the registry, and then the states that a row can come to it from; none for
    one in which rows only begin. One that names itself can be written again."""

    sources: tuple[str, ...]

    def __new__(cls, value: str, *sources: str) -> Self:
        member = str.__new__(cls, value)
        member._value_ = value
        member.sources = sources
        return member
