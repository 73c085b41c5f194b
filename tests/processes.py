"""Is a process there? Looked up in /proc, since it is seldom our own child."""

from __future__ import annotations

from pathlib import Path


def is_running(pid: int) -> bool:
    """An exit status that nobody has asked for yet (a zombie) does not count: whoever is the parent of
    orphans on this machine may take its time."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in {"Z", "X"}
