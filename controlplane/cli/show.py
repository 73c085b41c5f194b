"""How commands print: one JSON value, or tables for people.

What customers wrote (names, domains) is printed too, so no cell may steer a terminal or be read as
markup. Tables are as wide as they need to be, so that an id can always be copied as one word; only on
a terminal is the last column, where the long texts are, folded to what is left of the width. A script
that cuts columns should use --json, but nothing is cut from it in silence.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

UNLIMITED = 10_000  # characters
NARROW = 24  # characters that the last column has at least
GAP = 2


def as_json(document: Any) -> None:
    click.echo(json.dumps(document, indent=2))


def line(text: str = "") -> None:
    click.echo(plain(text))


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, none: str) -> None:
    """`none`: what to say where there are no rows."""
    found = [[Text(plain(cell)) for cell in row] for row in rows]
    if not found:
        click.echo(none)
        return
    drawn = Table(box=None, padding=(0, GAP, 0, 0), header_style="bold", show_edge=False)
    *others, last = columns
    for column in others:
        drawn.add_column(column, no_wrap=True)
    taken = sum(max(len(name), *(row[i].cell_len for row in found)) + GAP for i, name in enumerate(others))
    console = Console(file=sys.stdout, highlight=False)
    room = max(NARROW, console.width - taken - GAP) if console.is_terminal else UNLIMITED
    drawn.add_column(last, overflow="fold", max_width=room)
    for row in found:
        drawn.add_row(*row)
    Console(file=sys.stdout, highlight=False, width=UNLIMITED).print(drawn)


def pairs(rows: Iterable[tuple[str, Any]]) -> None:
    """`name  value` lines; those without a value are left out."""
    shown = [(name, plain(value)) for name, value in rows if value not in (None, "", [])]
    width = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        click.echo(f"{name:<{width}}  {value}")


def plain(value: Any) -> str:
    """A cell's text: printable, on one line."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "".join(letter if letter.isprintable() else "?" for letter in str(value))


def seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} s"


def moment(value: str | None) -> str:
    """The API's moments to the second."""
    return "-" if value is None else value[:19].replace("T", " ") + "Z"


def attention(value: dict[str, Any] | None) -> str:
    return "-" if value is None else f"{value['reason']} (runbook {value['runbook']})"


def freeze(value: dict[str, Any]) -> str:
    ends = f"until {moment(value['ends_at'])}" + (", what ran was cut off" if value["interrupts"] else "")
    return f"{value['scope']} is frozen {ends}: {value['reason']} ({value['actor']})"


def freezes(values: Iterable[dict[str, Any]]) -> str:
    return "; ".join(freeze(value) for value in values)


def more(found: dict[str, Any]) -> None:
    """Say so where a listing goes on."""
    if found["next_cursor"] is not None:
        click.echo("… there are more: --limit or --all", err=True)
