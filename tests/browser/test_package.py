"""The npm package by itself: its own tests, its types, and what a publication would hold."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from controlplane.localcloud.aws.account import session_of
from controlplane.localcloud.aws.emulator import AwsEmulator
from controlplane.localcloud.servers.process import free_port
from tests.browser.endpoints import EndpointFile
from tests.browser.package import build_tests, require, run
from tests.browser.tenants import CLUSTER, Platform, Tenant
from tests.dataplane.tenants import new_tenant_id
from tests.harness.access import app_role, cluster_role, placement_of, tenant_secret
from tests.tls import PORT, RIGHT, WRONG, TlsServer

pytestmark = [pytest.mark.browser, pytest.mark.timeout(900)]  # the first one builds the example


def test_its_own_tests_pass(package: Path) -> None:
    output = run([require("npm", "npm"), "test"], package, 120)
    assert "\n# fail 0\n" in output
    passed = int(output.rpartition("\n# pass ")[2].splitlines()[0])
    assert passed > 80


def test_sessions_on_real_databases(
    package: Path,
    platform: Platform,
    globex: Tenant,
    endpoints: EndpointFile,
    tls_server: TlsServer,
    aws_emulator: AwsEmulator,
) -> None:
    encrypted = Tenant("t-browsersecret", "secret", ("secret.example",), ())
    there = Platform(tls_server.postgres, platform.cache)
    there.create(encrypted)
    tls = {
        "payload": there.config(encrypted, encrypted.host),
        "login": there.login(encrypted),
        "endpointMap": str(tls_server.endpoint_map),
        "right": RIGHT,
        "wrong": WRONG,
        "port": PORT,
        "authorities": str(tls_server.authorities),
        "strangers": str(tls_server.strangers),
    }
    given = {
        "payload": platform.config(globex, globex.host),
        "login": platform.login(globex),
        "endpointMap": str(endpoints.path),
    }
    for name in ("unbound", "unidentified"):
        tenant = Tenant(f"t-browser{name}", name, (f"{name}.example",), ())
        platform.create(tenant)
        if name == "unbound":
            platform.mark(tenant, None)
        else:
            platform.forget(tenant)
        given[name] = {"payload": platform.config(tenant, tenant.host), "login": platform.login(tenant)}
    role, logins = cluster_role(CLUSTER), []
    for number in range(20):
        tenant_id = new_tenant_id()
        arn = tenant_secret(tenant_id, CLUSTER, json.dumps({"username": f"u{number}", "password": "p"}))
        placed = {"placement": placement_of(tenant_id), "role": role, "secret": arn}
        logins.append(placed | {"username": f"u{number}"})
    aws = aws_emulator.environ() | session_of(app_role(), aws_emulator.environ())
    build_tests(package)
    output = run(
        [require("npm", "npm"), "run", "test:real"],
        package,
        120,
        environment={
            **aws,
            "TEST_TENANT": json.dumps(given),
            "TEST_TLS": json.dumps(tls),
            "TEST_AWS": json.dumps(logins),
        },
    )
    assert "\n# fail 0\n" in output


def test_a_publication_holds_the_build_and_nothing_else(package: Path) -> None:
    command = [require("npm", "npm"), "pack", "--dry-run", "--json", "--ignore-scripts"]
    listing = json.loads(run(command, package, 60))
    # npm 12 lists packages by name, earlier ones in a row.
    (packed,) = listing if isinstance(listing, list) else listing.values()
    paths = {entry["path"] for entry in packed["files"]}
    assert {"package.json", "README.md", "dist/proxy.js", "dist/proxy.d.ts", "dist/server.js"} <= paths
    assert all(path.startswith("dist/") for path in paths - {"package.json", "README.md"})


def test_the_lock_names_no_host(package: Path) -> None:
    """Each package is locked by its hash; where it comes from is the business of who installs it."""
    packages = json.loads((package / "package-lock.json").read_text())["packages"]
    installed = {path: entry for path, entry in packages.items() if path.startswith("node_modules/")}
    linked = {path for path, entry in installed.items() if entry.get("link")}
    assert linked == {"node_modules/example", "node_modules/@tenant-controlplane/nextjs"}
    for path, entry in installed.items():
        if path not in linked:
            assert entry["integrity"].startswith("sha512-"), path
            assert entry.get("resolved", "https://registry.npmjs.org/").startswith(
                "https://registry.npmjs.org/"
            )


def test_a_server_without_settings_does_not_start(package: Path) -> None:
    """Not at the first visitor's request: `next start` ends, and says what is missing."""
    program = package / "node_modules" / "next" / "dist" / "bin" / "next"
    start = [require("node", "nodejs"), str(program), "start", "--port", str(free_port())]
    given = {"NODE_ENV": "production", "DATAPLANE_POOL_BUDGTE": "7"}
    with pytest.raises(RuntimeError, match="status 1\n") as caught:
        run(start, package / "example", 240, environment=given)
    reported = str(caught.value)
    for line in (
        "DATAPLANE_CONFIG_KEYS: expected",
        "DATAPLANE_SSLROOTCERT: expected to be set, as DATAPLANE_SSLMODE is verify-full",
        "https://truststore.pki.rds.amazonaws.com/global/global-bundle.pem",
        "DATAPLANE_POOL_BUDGTE: no such setting; is it a misspelling of DATAPLANE_POOL_BUDGET?",
    ):
        assert line in reported
