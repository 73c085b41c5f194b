"""The folder that a release is made from, on the machine that deploys and on the workers.

A folder of `NNNN_name.sql` needs nothing else. The project of another tool says in `migrations.toml`
how the tool is run and which files make a release:

    adapter = "command"                        # or "alembic"
    command = ["npx", "drizzle-kit", "migrate"]    # for "command": run in this folder
    files = ["drizzle/**/*", "drizzle.config.ts"]  # globs; a change in any makes another release
    timeout = 600                              # seconds for one database

What a worker runs comes from its own folder alone and never over the API, whose tokens would else be
worth a shell on every worker; the API carries digests, and the worker compares them.
"""

from __future__ import annotations

import hashlib
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controlplane.domain.errors import Invalid
from controlplane.domain.release import MAX_FILE_BYTES, MAX_FILES, Adapter, ReleaseFile

MANIFEST = "migrations.toml"
DEFAULT_TIMEOUT = 600.0
MAX_TIMEOUT = 6 * 3600.0


@dataclass(frozen=True, slots=True)
class Project:
    """`command`: program and arguments, empty but for the adapter "command". `timeout`: seconds."""

    folder: Path
    adapter: Adapter
    files: tuple[ReleaseFile, ...]
    command: tuple[str, ...] = ()
    timeout: float = DEFAULT_TIMEOUT


def is_project(folder: Path) -> bool:
    """Is it another tool's project, and not a folder of numbered SQL? Projects of several releases may
    stand side by side, each in a folder named by its number."""
    return (folder / MANIFEST).is_file() or any(folder.glob(f"[0-9][0-9][0-9][0-9]/{MANIFEST}"))


def read(folder: Path) -> Project:
    """Raises Invalid, naming the file and what was expected."""
    if not folder.is_dir():
        raise Invalid(str(folder), "a folder")
    if not (folder / MANIFEST).is_file():
        paths = sorted(path for path in folder.iterdir() if path.suffix == ".sql")
        if not paths:
            raise Invalid(str(folder), f"NNNN_name.sql files, or a {MANIFEST}")
        return Project(folder, Adapter.SQL, tuple(_file(folder, path) for path in paths))
    manifest = folder / MANIFEST
    try:
        data = tomllib.loads(manifest.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise Invalid(str(manifest), f"TOML ({error})") from error
    return _project(folder, data)


def _project(folder: Path, data: dict[str, Any]) -> Project:
    for name in data:
        if name not in {"adapter", "command", "files", "timeout"}:
            raise Invalid(f"{MANIFEST}: {name}", "one of adapter, command, files, timeout")
    if data.get("adapter") not in (Adapter.ALEMBIC, Adapter.COMMAND):
        raise Invalid(f"{MANIFEST}: adapter", '"alembic" or "command"', got=data.get("adapter"))
    adapter = Adapter(data["adapter"])
    command = _texts(data, "command") if adapter is Adapter.COMMAND else ()
    if adapter is Adapter.ALEMBIC and "command" in data:
        raise Invalid(f"{MANIFEST}: command", "no command with Alembic, which runs in process")
    timeout = data.get("timeout", DEFAULT_TIMEOUT)
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 1 <= timeout <= MAX_TIMEOUT:
        raise Invalid(f"{MANIFEST}: timeout", f"seconds, 1 to {MAX_TIMEOUT:g}", got=timeout)
    found = {folder / MANIFEST}
    for pattern in _texts(data, "files"):
        if Path(pattern).is_absolute() or ".." in Path(pattern).parts:
            raise Invalid(f"{MANIFEST}: files", "globs below the folder", got=pattern)
        matches = {
            path for path in folder.glob(pattern) if path.is_file() and "__pycache__" not in path.parts
        }
        if not matches:
            raise Invalid(f"{MANIFEST}: files", "globs that match a file", got=pattern)
        found |= matches
    if len(found) > MAX_FILES:
        raise Invalid(f"{MANIFEST}: files", f"at most {MAX_FILES} files", got=len(found))
    files = tuple(_file(folder, path, keep=False) for path in sorted(found))
    return Project(folder, adapter, files, command, float(timeout))


def _texts(data: dict[str, Any], name: str) -> tuple[str, ...]:
    value = data.get(name)
    if not isinstance(value, list) or not value or not all(isinstance(text, str) and text for text in value):
        raise Invalid(f"{MANIFEST}: {name}", "a list of texts, not empty", got=value)
    return tuple(value)


def _file(folder: Path, path: Path, *, keep: bool = True) -> ReleaseFile:
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise Invalid(str(path), f"at most {MAX_FILE_BYTES} bytes", got=size)
        body = path.read_bytes()
    except OSError as error:
        raise Invalid(str(path), f"a readable file ({error.strerror})") from error
    name = path.relative_to(folder).as_posix()
    return ReleaseFile(name, hashlib.sha256(body).hexdigest(), body if keep else None)
