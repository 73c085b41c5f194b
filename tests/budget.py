"""`python -m tests.budget`: what a reader must know, counted, beside what docs/adr/0010-budget.md allows.

Printed at the end of `make lint`; ends with 1 where a count is over its budget, and says what to do. It runs
in a process of its own because a function that is cached or imported by an earlier test would not be seen.
"""

from __future__ import annotations

import ast
import inspect
import json
import os
import re
import shutil
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import FrameType

from rich.console import Console
from rich.table import Table

from controlplane import settings
from controlplane.localcloud.servers.postgres import PostgresServer
from controlplane.localcloud.servers.process import make_data_root
from controlplane.store import schema_version
from controlplane.store.registry import Registry
from tests import builders
from tests.harness.engine import ZONE, Harness
from tests.harness.work import do_one
from tests.web.site import Site

ROOT = Path(__file__).parents[1]
RECORD = ROOT / "docs/adr/0010-budget.md"
PRODUCT = ("controlplane", "workers", "dataplane")
PYTHON = sorted(path for folder in PRODUCT for path in (ROOT / folder).rglob("*.py"))
_SETTING = re.compile(r'"(DATAPLANE_[A-Z_]+)"')


def in_the_repository() -> dict[str, int]:
    """What is counted by reading files, by its name in the record."""
    return {
        "tables": tables(),
        "nouns": nouns(),
        "settings": len(settings.names()) + len(dataplane_settings()),
        "runbooks": len(list((ROOT / "docs/runbooks").glob("*.md"))),
        "statements": sum(statements(path.read_text(encoding="utf-8")) for path in PYTHON),
    }


def tables() -> int:
    """What the schema's files make and do not drop again."""
    schema = sorted((ROOT / "controlplane/store/schema").glob("*.sql"))
    text = "\n".join(path.read_text(encoding="utf-8") for path in schema)
    made = re.findall(r"^CREATE TABLE (\w+)", text, re.MULTILINE)
    return len(set(made) - set(re.findall(r"^DROP TABLE (\w+)", text, re.MULTILINE)))


def nouns() -> int:
    """The words of the glossary; a row that explains several counts as several."""
    rows = re.findall(
        r"^\| ([^|]+) \|", (ROOT / "docs/glossary.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    return sum(row.count(",") + 1 for row in rows if row != "word" and not row.startswith("---"))


def dataplane_settings() -> set[str]:
    """The names that either data plane reads; one that both read is one setting."""
    sources = [*(ROOT / "dataplane").glob("*.py"), *(ROOT / "dataplane/nextjs/src").glob("*.ts")]
    return {name for path in sources for name in _SETTING.findall(path.read_text(encoding="utf-8"))}


def statements(source: str) -> int:
    """Python's statements, without imports and without strings that stand alone."""
    return sum(
        isinstance(node, ast.stmt)
        and not isinstance(node, ast.Import | ast.ImportFrom)
        and not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
        for node in ast.walk(ast.parse(source))
    )


def of_one_event() -> dict[str, int]:
    """Files and functions of the product that one event enters, from Stripe's POST to the published route of
    a tenant on a new cluster. PostgreSQL is started for it; vendors and wake-ups are fakes, threads
    beside the work and what is done by the clock are not followed."""
    entered: set[tuple[str, str]] = set()
    product = tuple(f"{ROOT / folder}/" for folder in PRODUCT)
    real = cache(os.path.realpath)  # `controlplane/localcloud` is a link, and no part of the product

    def profile(frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if (
            event == "call"
            and code.co_flags & inspect.CO_OPTIMIZED  # neither a module's body nor a class's
            and not code.co_name.startswith("<")  # nor a lambda or comprehension
            and (file := real(code.co_filename)).startswith(product)
        ):
            entered.add((file, code.co_qualname))

    root = make_data_root("budget-")
    try:
        with PostgresServer(root / "postgres") as server:
            url = server.create_database("registry")
            with Registry(url, size=4) as registry:
                with registry.connection() as conn:
                    schema_version.upgrade(conn)
                harness, site = Harness(url), Site(registry, settings={"CONTROLPLANE_PLATFORM_ZONE": ZONE})
                subscription = harness.subscribe(1)
                body = builders.event(
                    "customer.subscription.created", harness.billing.subscription(subscription)
                )
                sys.setprofile(profile)
                try:
                    answer = site.deliver(json.dumps(body).encode())
                    while do_one(harness.ctx) is not None or harness.pass_time():
                        continue
                finally:
                    sys.setprofile(None)
                route = harness.cache.read(f"customer-1.{ZONE}")
                harness.close()
    finally:
        shutil.rmtree(root)
    if answer.status_code != 200 or route is None or route.payload["status"] != "active":
        raise AssertionError(f"expected a published route, got {route} after {answer.status}: {answer.text}")
    return {"event files": len({file for file, _ in entered}), "event functions": len(entered)}


def budget(record: str) -> dict[str, int]:
    """The last line of the record's table, by the names in its head."""
    rows = [
        [cell.strip() for cell in line.strip("| ").split("|")]
        for line in record.splitlines()
        if line[:1] == "|"
    ]
    head, last = rows[0], rows[-1]
    return {name: int(cell.replace(",", "")) for name, cell in zip(head[1:-1], last[1:-1], strict=True)}


def exceeded(counted: Mapping[str, int], allowed: Mapping[str, int]) -> list[str]:
    """A line for each count that is over its budget, and for each that lost one of the two."""
    if counted.keys() != allowed.keys() or not all(counted.values()):
        return [
            f"{RECORD.name}: expected a column for each of {', '.join(counted)}, and none of them 0;"
            f" counted {counted}, allowed {allowed}"
        ]
    return [
        f"{name}: {number:,}, over the budget of {allowed[name]:,}. Take something away, or add a line to"
        f" docs/adr/{RECORD.name} that says why a reader must know more"
        for name, number in counted.items()
        if number > allowed[name]
    ]


def main() -> int:
    counted, allowed = in_the_repository() | of_one_event(), budget(RECORD.read_text(encoding="utf-8"))
    table = Table("to know", "counted", "budget", box=None, pad_edge=False)
    for name, number in counted.items():
        table.add_row(name, f"{number:,}", f"{allowed[name]:,}" if name in allowed else "none")
    console = Console(width=100, highlight=False, soft_wrap=True)
    console.print(table)
    lines = exceeded(counted, allowed)
    for line in lines:
        console.print(line)
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
