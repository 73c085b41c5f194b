"""A machine without the public registry is understood by convention alone."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from controlplane.localcloud.terraform_mirror import REGISTRY, find_mirror, terraform_environment


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {
        "HOME": str(tmp_path / "home"),
        "XDG_DATA_HOME": str(tmp_path / "home" / "data"),
        "XDG_DATA_DIRS": str(tmp_path / "share"),
    }


@pytest.fixture
def add_ons(tmp_path: Path) -> Path:
    """Two folders of add-on software, one with a copy of a provider."""
    (tmp_path / "add-ons" / "other").mkdir(parents=True)
    (tmp_path / "add-ons" / "plugins" / REGISTRY / "hashicorp" / "aws" / "5.100.0").mkdir(parents=True)
    return tmp_path / "add-ons"


def configuration(work_dir: Path, environ: dict[str, str], add_ons: Path) -> str:
    variables = terraform_environment(work_dir, environ, add_ons=add_ons)
    assert variables["CHECKPOINT_DISABLE"] == "1"
    assert Path(variables["TF_PLUGIN_CACHE_DIR"]).is_dir()
    return variables["TF_CLI_CONFIG_FILE"]


def test_a_configuration_that_exists_wins(tmp_path: Path, environ: dict[str, str], add_ons: Path) -> None:
    own = tmp_path / "own.rc"
    own.write_text("")
    assert configuration(tmp_path / "work", environ | {"TF_CLI_CONFIG_FILE": str(own)}, add_ons) == str(own)


def test_a_tree_among_the_add_ons_is_used(tmp_path: Path, environ: dict[str, str], add_ons: Path) -> None:
    missing = {"TF_CLI_CONFIG_FILE": str(tmp_path / "missing.rc")}
    written = configuration(tmp_path / "work", environ | missing, add_ons)
    assert Path(written).parent == tmp_path / "work"
    text = Path(written).read_text()
    assert f'path    = "{add_ons / "plugins"}"' in text
    assert f'include = ["{REGISTRY}/hashicorp/aws"]' in text
    assert f'exclude = ["{REGISTRY}/hashicorp/aws"]' in text


def test_threads_may_ask_at_once(tmp_path: Path, environ: dict[str, str], add_ons: Path) -> None:
    def ask(_: int) -> str:
        return Path(configuration(tmp_path / "work", environ, add_ons)).read_text()

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(ask, range(200)))) == 1
    assert {entry.name for entry in (tmp_path / "work").glob("*.rc*")} == {"terraform.rc"}


@pytest.mark.parametrize(
    "folder", ["home/.terraform.d/plugins", "home/data/terraform/plugins", "share/terraform/plugins"]
)
def test_terraforms_own_folders_come_first(
    tmp_path: Path, environ: dict[str, str], add_ons: Path, folder: str
) -> None:
    assert find_mirror(environ, add_ons=add_ons) == add_ons / "plugins"
    (tmp_path / folder / REGISTRY).mkdir(parents=True)
    assert find_mirror(environ, add_ons=add_ons) is None
    assert Path(configuration(tmp_path / "work", environ, add_ons)).read_text() == ""


def test_without_any_the_registry_is_left_alone(tmp_path: Path, environ: dict[str, str]) -> None:
    assert Path(configuration(tmp_path / "work", environ, tmp_path / "nothing")).read_text() == ""
