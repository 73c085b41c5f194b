"""The environment: what is wrong is named, with what was expected, and no secret is shown."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path

import pytest

from dataplane.credentials import StaticCredentials
from dataplane.endpoints import EndpointMap
from dataplane.settings import SettingsError, from_environment, parse_keys
from tests.tls import authority_files

KEY = base64.b64encode(b"k" * 32).decode()
GOOD = {
    "DATAPLANE_CONFIG_KEYS": f"k1:{KEY}",
    "DATAPLANE_CACHE_URL": "redis://127.0.0.1:1/0",
    "DATAPLANE_SSLROOTCERT": "system",
}
TLS = json.loads((Path(__file__).parents[1] / "vectors" / "tls.json").read_text())["cases"]
BUNDLE = "https://truststore.pki.rds.amazonaws.com/global/global-bundle.pem"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"DATAPLANE_CONFIG_KEYS": ""}, "DATAPLANE_CONFIG_KEYS: expected a value, it is not set"),
        ({"DATAPLANE_CONFIG_KEYS": KEY}, "DATAPLANE_CONFIG_KEYS: key 1: expected <key id>:<base64>"),
        ({"DATAPLANE_CONFIG_KEYS": f"k1:{KEY},k.0:{KEY}"}, "key 2: expected <key id>:<base64>"),
        ({"DATAPLANE_CONFIG_KEYS": "k1:!!"}, r"key 1 \(k1\): expected base64"),
        ({"DATAPLANE_CONFIG_KEYS": "k1:c2hvcnQ="}, r"key 1 \(k1\): expected at least 32 bytes, got 5"),
        ({"DATAPLANE_CACHE_URL": ""}, "DATAPLANE_CACHE_URL: expected it or DATAPLANE_RESOLVE_URL"),
        ({"DATAPLANE_CACHE_URL": "127.0.0.1"}, "DATAPLANE_CACHE_URL: expected redis://"),
        ({"DATAPLANE_CACHE_URL": "redis://:canary@h:xyz/0"}, "^DATAPLANE_CACHE_URL: expected redis://"),
        ({"DATAPLANE_CACHE_URL": "redis://:canary@[::1"}, "^DATAPLANE_CACHE_URL: expected redis://"),
        ({"DATAPLANE_CACHE_URL": "redis://:canary@h?max_connections=zz"}, "^DATAPLANE_CACHE_URL: expected"),
        ({"DATAPLANE_CACHE_URL": "redis://h/abc"}, "^DATAPLANE_CACHE_URL: expected redis://"),
        ({"DATAPLANE_CACHE_URL": "redis://"}, "^DATAPLANE_CACHE_URL: expected redis://"),
        ({"DATAPLANE_RESOLVE_URL": "https://", "DATAPLANE_RESOLVE_TOKEN": "t"}, "^DATAPLANE_RESOLVE_URL: ex"),
        ({"DATAPLANE_RESOLVE_URL": "https://h:x", "DATAPLANE_RESOLVE_TOKEN": "t"}, "^DATAPLANE_RESOLVE_URL"),
        (
            {"DATAPLANE_RESOLVE_URL": "https://h", "DATAPLANE_RESOLVE_TOKEN": "canary\nx: y"},
            "^DATAPLANE_RESOLVE_TOKEN: expected",
        ),
        (
            {"DATAPLANE_POOL_BUDGTE": "7"},
            "^DATAPLANE_POOL_BUDGTE: no such setting; is it a misspelling of DATAPLANE_POOL_BUDGET",
        ),
        ({"DATAPLANE_RESOLVE_URL": "control.example"}, "DATAPLANE_RESOLVE_URL: expected http"),
        ({"DATAPLANE_RESOLVE_URL": "https://control.example"}, "DATAPLANE_RESOLVE_TOKEN: expected a value"),
        ({"DATAPLANE_PLATFORM_ZONES": "a.example, *.b"}, "DATAPLANE_PLATFORM_ZONES: host: expected letters"),
        ({"DATAPLANE_TRUSTED_PROXIES": "-1"}, "PROXIES: expected a whole number of at least 0"),
        ({"DATAPLANE_POOL_BUDGET": "0"}, "DATAPLANE_POOL_BUDGET: expected a whole number of at least 1"),
        ({"DATAPLANE_POOL_BUDGET": "many"}, "DATAPLANE_POOL_BUDGET: .* got 'many'"),
        ({"DATAPLANE_SSLMODE": "on"}, "DATAPLANE_SSLMODE: expected one of disable, .* got 'on'"),
        ({"DATAPLANE_ENDPOINT_MAP": "/does/not/exist"}, "ENDPOINT_MAP: endpoint map .*No such file"),
    ],
)
def test_what_is_wrong_is_named(changes: dict[str, str], message: str) -> None:
    with pytest.raises(SettingsError, match=message) as caught:
        from_environment(GOOD | changes)
    assert KEY not in str(caught.value)
    assert "canary" not in str(caught.value)


def test_all_mistakes_are_told_at_once() -> None:
    wrong = {"DATAPLANE_CONFIG_KEYS": "", "DATAPLANE_POOL_BUDGET": "0", "DATAPLANE_SSLMODE": "on"}
    with pytest.raises(SettingsError) as caught:
        from_environment(GOOD | wrong)
    assert {line.partition(":")[0] for line in str(caught.value).splitlines()} == set(wrong)


@pytest.mark.parametrize("case", TLS, ids=lambda case: f"{case['sslmode']}-{case['sslrootcert']}")
def test_databases_that_could_not_be_verified_stop_the_start(case: dict[str, str], tmp_path: Path) -> None:
    env = {name: value for name, value in GOOD.items() if name != "DATAPLANE_SSLROOTCERT"}
    if case["sslmode"] is not None:
        env["DATAPLANE_SSLMODE"] = case["sslmode"]
    if case["sslrootcert"] is not None:
        files = authority_files(tmp_path)
        env["DATAPLANE_SSLROOTCERT"] = str(files.get(case["sslrootcert"], case["sslrootcert"]))
    if case["wrong"] is None:
        transport = from_environment(env).pools._connector.transport
        assert transport.sslmode == (case["sslmode"] or "verify-full")
        assert transport.sslrootcert == env.get("DATAPLANE_SSLROOTCERT")
        return
    with pytest.raises(SettingsError) as caught:
        from_environment(env)
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"DATAPLANE_{case['wrong'].upper()}: expected ")
    if case["wrong"] == "sslrootcert":
        assert BUNDLE in line


def test_what_is_right_makes_a_data_plane(tmp_path: Path) -> None:
    endpoints = tmp_path / "map.json"
    endpoints.write_text("{}")
    env = GOOD | {
        "DATAPLANE_SSLROOTCERT": "",
        "DATAPLANE_RESOLVE_URL": "https://control.example",
        "DATAPLANE_RESOLVE_TOKEN": "t",
        "DATAPLANE_PLATFORM_ZONES": "a.example,b.example,",
        "DATAPLANE_POOL_BUDGET": "7",
        "DATAPLANE_STALE_SECONDS": "60",
        "DATAPLANE_TRUSTED_PROXIES": "2",
        "DATAPLANE_ENDPOINT_MAP": str(endpoints),
        "DATAPLANE_SSLMODE": "prefer",
    }
    dataplane = from_environment(env, credentials=StaticCredentials({}))
    assert dataplane.trusted_proxies == 2
    assert dataplane.resolver._policy.max_age == 60
    assert dataplane.resolver._zones.zones == ("a.example", "b.example")
    assert dataplane.pools._scheduler.limits.budget == 7
    assert dataplane.async_pools._scheduler is dataplane.pools._scheduler
    assert dataplane.pools._connector.transport.sslmode == "prefer"
    dataplane.close()


def test_production_is_the_default() -> None:
    dataplane = from_environment(GOOD)
    assert dataplane.pools._connector.transport.sslmode == "verify-full"
    assert dataplane.pools._connector.transport.endpoints is None
    assert dataplane.trusted_proxies == 0


def test_keys_are_read_in_order() -> None:
    other = base64.b64encode(b"o" * 40).decode()
    assert parse_keys(f"k2:{other}, k1:{KEY}") == {"k2": b"o" * 40, "k1": b"k" * 32}


def test_the_endpoint_map_is_read_again_when_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "map.json"
    path.write_text(json.dumps({"db.example:5432": "127.0.0.1:6000"}))
    endpoints = EndpointMap(path)
    assert endpoints.address("db.example", 5432) == ("127.0.0.1", 6000)
    assert endpoints.address("other.example", 5432) is None
    written = tmp_path / "next.json"
    written.write_text(json.dumps({"db.example:5432": "[::1]:6001"}))
    os.replace(written, path)
    assert endpoints.address("db.example", 5432) == ("::1", 6001)
    path.write_text("{half")
    assert endpoints.address("db.example", 5432) == ("::1", 6001), "the last good one holds"
    path.unlink()
    assert endpoints.address("db.example", 5432) == ("::1", 6001)


@pytest.mark.parametrize(
    "content",
    ["[]", "{", '{"a:1": 7}', '{"a:1": "db.example:5432"}', '{"a:1": "127.0.0.1:0"}', '{"a:1": "::1"}'],
)
def test_a_bad_endpoint_map_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "map.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"endpoint map .*map.json: "):
        EndpointMap(path)
