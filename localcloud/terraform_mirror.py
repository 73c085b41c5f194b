"""Where Terraform finds its providers on a machine without the public registry.

An air-gapped machine keeps a copy of its providers on disk, and every distribution puts it elsewhere.
So it is found by convention, the first of:

1. a CLI configuration that TF_CLI_CONFIG_FILE names, if the file exists (Terraform itself only warns
   when it does not, and goes on without);
2. Terraform's own implied mirror folders ("Implied Local Mirror Directories" in its documentation of
   the CLI configuration): Terraform looks there by itself;
3. a `registry.terraform.io` tree one level below the folder of add-on software (FHS 3.13, /opt);
4. none: the public registry.

Terraform installs providers several times faster from a shared plugin cache. It is not safe for two
`init` at once (hashicorp/terraform#25849), so who runs them takes turns.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

REGISTRY = "registry.terraform.io"
ADD_ON_SOFTWARE = Path(os.sep, "opt")


def terraform_environment(
    work_dir: Path, environ: Mapping[str, str] | None = None, *, add_ons: Path = ADD_ON_SOFTWARE
) -> dict[str, str]:
    """Variables for every Terraform run. Writes its CLI configuration into `work_dir`, which is
    made if it is not there. `environ` None means this process's own."""
    environ = os.environ if environ is None else environ
    work_dir = work_dir.resolve()
    cache = work_dir / "plugin-cache"
    cache.mkdir(parents=True, exist_ok=True)
    return {
        "CHECKPOINT_DISABLE": "1",
        "TF_CLI_CONFIG_FILE": str(_configuration(work_dir, environ, add_ons)),
        "TF_PLUGIN_CACHE_DIR": str(cache),
    }


def find_mirror(environ: Mapping[str, str], *, add_ons: Path = ADD_ON_SOFTWARE) -> Path | None:
    """The folder of the mirror that Terraform has to know of; None where it finds one by itself
    or there is none."""
    if any((folder / REGISTRY).is_dir() for folder in _implied_folders(environ)):
        return None
    return next((tree.parent for tree in sorted(add_ons.glob(f"*/{REGISTRY}")) if tree.is_dir()), None)


def _configuration(work_dir: Path, environ: Mapping[str, str], add_ons: Path) -> Path:
    named = environ.get("TF_CLI_CONFIG_FILE")
    if named and Path(named).is_file():
        return Path(named)
    mirror = find_mirror(environ, add_ons=add_ons)
    blocks = "" if mirror is None else _installation(mirror)
    written = work_dir / "terraform.rc"
    with tempfile.NamedTemporaryFile("w", dir=work_dir, prefix=".terraform.rc.", delete=False) as draft:
        draft.write(blocks)  # a draft for each caller, also for threads of one process
    Path(draft.name).replace(written)
    return written


def _installation(mirror: Path) -> str:
    """The mirror's providers come from the mirror alone, all others from the registry."""
    present = sorted("/".join(folder.relative_to(mirror).parts) for folder in mirror.glob(f"{REGISTRY}/*/*"))
    providers = json.dumps(present)
    return (
        "provider_installation {\n"
        "  filesystem_mirror {\n"
        f"    path    = {json.dumps(str(mirror))}\n"
        f"    include = {providers}\n"
        "  }\n"
        "  direct {\n"
        f"    exclude = {providers}\n"
        "  }\n"
        "}\n"
    )


def _implied_folders(environ: Mapping[str, str]) -> list[Path]:
    home = Path(environ.get("HOME") or Path.home())
    if sys.platform == "darwin":
        return [
            home / ".terraform.d" / "plugins",
            home / "Library" / "Application Support" / "io.terraform" / "plugins",
            Path(os.sep, "Library", "Application Support", "io.terraform", "plugins"),
        ]
    data_home = Path(environ.get("XDG_DATA_HOME") or home / ".local" / "share")
    data_dirs = environ.get("XDG_DATA_DIRS") or os.pathsep.join(
        [str(Path(os.sep, "usr", "local", "share")), str(Path(os.sep, "usr", "share"))]
    )
    shared = [data_home, *(Path(folder) for folder in data_dirs.split(os.pathsep) if folder)]
    return [home / ".terraform.d" / "plugins", *(folder / "terraform" / "plugins" for folder in shared)]
