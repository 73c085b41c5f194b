"""benchmarks/RESULTS.md: the last figures of every benchmark on one page, each in a section of its own.

A benchmark that is called with `--write` puts its section in place of its last one and leaves the others
alone, so each section says for itself when, where and beside what load it was measured. `make test-long`
adds a line to its section and keeps the earlier ones.
"""

from __future__ import annotations

import os
import platform
import re
from datetime import UTC, datetime
from pathlib import Path

PAGE = Path(__file__).with_name("RESULTS.md")
_NAME = re.compile(r"[a-z][a-z-]*")


def write(name: str, body: str, *, page: Path = PAGE) -> None:
    """Put `body` (Markdown; links are relative to the page) in place of the section `name`, or behind the
    others where there is none of that name yet."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"name: expected a-z and hyphens, got {name!r}")
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    section = f"{begin}\n{body.strip()}\n{end}"
    text = page.read_text(encoding="utf-8")
    found = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if found.search(text):
        text = found.sub(lambda _: section, text, count=1)
    else:
        text = f"{text.rstrip()}\n\n{section}\n"
    page.write_text(text, encoding="utf-8")


def append(name: str, head: str, line: str, *, page: Path = PAGE) -> None:
    """Put `line` behind the others of the section `name`, begun with `head` where there is none yet."""
    found = re.search(
        f"<!-- begin {re.escape(name)} -->\n(.*?)\n<!-- end", page.read_text(encoding="utf-8"), re.DOTALL
    )
    write(name, f"{found[1]}\n{line}" if found else head + line, page=page)


def stamp(load_before: float) -> str:
    """When and where it was measured. `load_before`: the machine's load (1 minute) at the start."""
    return (
        f"Measured on {datetime.now(UTC):%Y-%m-%d} on {os.cpu_count()} cores ({_processor()}),"
        f" {_memory():.0f} GB, {platform.system()} {platform.release()}, Python {platform.python_version()};"
        f" load {load_before:.1f} before, {load():.1f} after."
    )


def load() -> float:
    """Of the last minute."""
    return os.getloadavg()[0]


def _processor() -> str:
    named = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return platform.machine() if named is None else named[1].strip()


def _memory() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
