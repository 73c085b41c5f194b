"""A release is the same bytes wherever it is packed, and holds what Terraform reads and nothing else."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import tarfile
from pathlib import Path

import pytest

from controlplane.domain.errors import NeedsHuman, Refused
from controlplane.workers.providers.terraform import archive
from tests.harness.terraform import ROOT


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(ROOT, tmp_path / "terraform"))


def names(body: bytes) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(body)) as tar:
        return tar.getnames()


def test_times_modes_and_the_place_make_no_difference(copy: Path) -> None:
    for path in sorted(copy.rglob("*"), reverse=True):
        os.utime(path, (1, 1))
        path.chmod(0o700)
    packed = archive.pack(copy)
    assert packed == archive.pack(ROOT)
    assert packed.digest == hashlib.sha256(packed.body).hexdigest()


def test_it_holds_every_file_that_terraform_reads_in_order() -> None:
    found = names(archive.pack(ROOT).body)
    assert found == sorted(found)
    read = {
        path.relative_to(ROOT).as_posix()
        for folder in ("stacks", "modules")
        for path in ROOT.glob(f"{folder}/*/*")
        if path.suffix == ".tf" or path.name == ".terraform.lock.hcl"
    }
    assert set(found) == {name for name in read if not name.startswith("modules/") or name.endswith(".tf")}
    assert {
        "stacks/cluster/main.tf",
        "stacks/placements/.terraform.lock.hcl",
        "modules/placements/main.tf",
    } < set(found)


def test_it_says_which_variables_each_stack_declares(copy: Path) -> None:
    more = copy / "stacks" / "placements" / "extra.tf"
    more.write_text('variable "one_more" {}\n# variable "none" {}\nlocals { variable = "x" }\n')
    before, after = archive.pack(ROOT).variables, archive.pack(copy).variables
    assert set(after["placements"]) - set(before["placements"]) == {"one_more"}
    assert after["cluster"] == before["cluster"]
    assert {"cluster_id", "min_acu", "operation_id", "deletion_protection"} < set(after["cluster"])


@pytest.mark.parametrize(
    ("name", "differs"),
    [
        ("stacks/cluster/extra.tf", True),
        ("stacks/placements/.terraform.lock.hcl", True),
        ("modules/placements/extra.tf.json", True),
        ("modules/placements/README.md", False),
        ("modules/placements/.terraform.lock.hcl", False),
        ("modules/placements/tests/extra.tftest.hcl", False),
        ("README.md", False),
    ],
)
def test_what_makes_another_release(copy: Path, name: str, differs: bool) -> None:
    (copy / name).write_text("changed")
    assert (archive.pack(copy).digest != archive.pack(ROOT).digest) is differs


@pytest.mark.parametrize("name", ["stacks/cluster", "modules/placements"])
def test_an_installation_that_lacks_a_part_is_refused(copy: Path, name: str) -> None:
    (copy / name / "main.tf").unlink()
    with pytest.raises(Refused, match=f"{name}: expected a part .* install it again"):
        archive.pack(copy)


def test_it_is_unpacked_as_it_was(tmp_path: Path) -> None:
    packed = archive.pack(ROOT)
    archive.unpack(packed.body, tmp_path / "there")
    assert archive.pack(tmp_path / "there") == packed


@pytest.mark.parametrize("name", ["../outside", "/tmp/outside", "stacks/../../outside"])
def test_nothing_is_written_outside_of_the_folder(tmp_path: Path, name: str) -> None:
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w") as tar:
        tar.addfile(tarfile.TarInfo(name))
    with pytest.raises(NeedsHuman, match="outside") as refused:
        archive.unpack(written.getvalue(), tmp_path / "there")
    assert refused.value.runbook == "stack-release"
    assert list(tmp_path.rglob("outside")) == []
