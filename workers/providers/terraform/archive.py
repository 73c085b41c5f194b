"""A release of the stacks: their files, all modules and lock files, as one archive under its digest.

One archive holds every stack, since what they share changes in all of them at once, and a cluster's row then
names one thing. It is a tar of the same bytes wherever it is packed: names in order, no times, owners or
modes of this machine. And it is not compressed: two versions of zlib make different bytes of the same files,
and so its digest is that of the object in the bucket, as `sha256sum` prints it.
"""

from __future__ import annotations

import hashlib
import io
import re
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from controlplane.domain.errors import NeedsHuman, Refused

RUNBOOK = "stack-release"
STACKS = ("cluster", "placements")
LOCK_FILE = ".terraform.lock.hcl"
_VARIABLE = re.compile(r'^variable\s+"(\w+)"', re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Archive:
    """`digest`: SHA-256 of `body`, 64 hexadecimal digits. `variables`: by stack, those that it declares."""

    digest: str
    body: bytes = field(repr=False)
    variables: Mapping[str, tuple[str, ...]]


def pack(terraform: Path) -> Archive:
    """`terraform`: the folder with `stacks` and `modules`. Raises Refused where one of STACKS is missing."""
    for stack in STACKS:
        for folder in (terraform / "stacks" / stack, terraform / "modules" / stack):
            if not (folder / "main.tf").is_file():
                raise Refused(
                    f"{folder}: expected a part of the Terraform stack {stack!r}, found none: this"
                    " installation of tenant-controlplane is incomplete, install it again"
                )
    found = {
        path.relative_to(terraform).as_posix(): path.read_bytes()
        for path in terraform.glob("*/*/*")
        if path.is_file() and _belongs(path, terraform)
    }
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in sorted(found.items()):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    body = written.getvalue()
    return Archive(
        digest_of(body), body, {stack: _variables(terraform / "stacks" / stack) for stack in STACKS}
    )


def unpack(body: bytes, into: Path) -> None:
    """`body`: of an archive whose digest is right. Raises NeedsHuman where it holds more than plain files
    below `into`: no command of ours has packed that."""
    with tarfile.open(fileobj=io.BytesIO(body), mode="r:") as tar:
        for entry in tar:
            target, content = into / entry.name, tar.extractfile(entry)
            below = target.is_relative_to(into) and ".." not in target.parts
            if content is None or not entry.isfile() or not below:
                raise NeedsHuman(
                    f"release {digest_of(body)} of the stacks holds {entry.name!r}", runbook=RUNBOOK
                )
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content.read())


def digest_of(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def key_of(digest: str) -> str:
    """Of the object, in the bucket of the states."""
    return f"releases/{digest}.tar"


def _variables(stack: Path) -> tuple[str, ...]:
    texts = [path.read_text(encoding="utf-8") for path in stack.glob("*.tf")]
    return tuple(sorted(name for text in texts for name in _VARIABLE.findall(text)))


def _belongs(path: Path, terraform: Path) -> bool:
    """A module has no lock file, whatever `terraform init` has left there."""
    kind = path.relative_to(terraform).parts[0]
    if kind not in {"stacks", "modules"}:
        return False
    return path.suffix in {".tf", ".json"} or (kind == "stacks" and path.name == LOCK_FILE)
