"""The endpoint map: found, not found, changed, and each way in which the file can be wrong."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from controlplane.domain.errors import Invalid
from controlplane.workers.providers.databases import PostgresDatabases
from controlplane.workers.providers.endpoint_map import EndpointMap
from tests.harness.databases import new_placement, run_server


def write(path: Path, content: object) -> None:
    draft = path.with_suffix(".new")
    draft.write_text(content if isinstance(content, str) else json.dumps(content))
    os.replace(draft, path)


def test_without_a_file_nothing_is_mapped() -> None:
    assert EndpointMap().resolve("c.example", 5432) == {}


def test_an_endpoint_is_mapped_and_the_file_reread(tmp_path: Path) -> None:
    path = tmp_path / "map.json"
    write(path, {"c.example:5432": "127.0.0.1:6000", "d.example:5432": "[::1]:6001"})
    endpoints = EndpointMap(path)
    assert endpoints.resolve("c.example", 5432) == {"hostaddr": "127.0.0.1", "port": 6000}
    assert endpoints.resolve("d.example", 5432) == {"hostaddr": "::1", "port": 6001}
    assert endpoints.resolve("c.example", 5433) == {}
    write(path, {"c.example:5432": "127.0.0.1:6002"})
    assert endpoints.resolve("c.example", 5432) == {"hostaddr": "127.0.0.1", "port": 6002}
    assert endpoints.resolve("d.example", 5432) == {}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "map.json: expected JSON"),
        ("[]", "map.json: expected a JSON object, got 'list'"),
        ({"c.example:5432": "localhost:6000"}, "c.example:5432: expected"),
        ({"c.example:5432": "127.0.0.1"}, "c.example:5432: expected"),
        ({"c.example:5432": "127.0.0.1:0"}, "c.example:5432: expected"),
        ({"c.example:5432": "127.0.0.1:70000"}, "c.example:5432: expected"),
        ({"c.example:5432": 6000}, "c.example:5432: expected"),
    ],
)
def test_a_malformed_file_is_named(tmp_path: Path, content: object, message: str) -> None:
    path = tmp_path / "map.json"
    write(path, content)
    with pytest.raises(Invalid, match=message):
        EndpointMap(path).resolve("c.example", 5432)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match=r"map\.json: expected a readable file"):
        EndpointMap(tmp_path / "map.json").resolve("c.example", 5432)


def test_the_provider_goes_where_the_map_says(tmp_path: Path) -> None:
    path = tmp_path / "map.json"
    with run_server() as server:
        write(path, {"cluster.invalid:5432": f"127.0.0.1:{server.at.port}"})
        databases = PostgresDatabases(server.secrets, EndpointMap(path), sslmode="disable")
        at = replace(server.at, host="cluster.invalid", port=5432)
        assert not databases.observe(at, new_placement()).exists
