"""What `ports.CustomHostnames` promises, of the real provider on the fake server and of the fake alike."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import pytest

from controlplane.domain.errors import NeedsHuman, Refused, Retryable
from controlplane.localcloud.fakes.custom_hostnames import FakeCustomHostnames
from controlplane.localcloud.fakes.world import World
from controlplane.workers.providers.cloudflare_hostnames import CloudflareHostnames
from controlplane.workers.providers.ports import CustomHostnames, HostnameDescription
from tests.harness.cloudflare import (
    TOKEN,
    ZONE,
    CloudflareFixture,
    eventually,
    run_cloudflare_here,
)

HOST, OURS, THEIRS = "notes.acme.dev", "t-aaaaaaaaaaaa", "t-bbbbbbbbbbbb"


class Fixture(Protocol):
    """The outside, as a test arranges it."""

    hostnames: CustomHostnames

    def put(self, host: str, *, tenant_id: str | None) -> str: ...
    def stick(self, host: str) -> None: ...
    def throttle(self, *, after: float) -> None: ...


class FakeServer:
    def __init__(self, cloudflare: CloudflareFixture) -> None:
        self.cloudflare = cloudflare
        self.hostnames: CustomHostnames = CloudflareHostnames(TOKEN, ZONE, cloudflare.base)

    def put(self, host: str, *, tenant_id: str | None) -> str:
        mark = {"custom_metadata": {"tenant_id": tenant_id}} if tenant_id else {}
        return str(self.cloudflare.create(host, **mark).id)

    def stick(self, host: str) -> None:
        self.cloudflare.control.set_hostname(host, stuck=True)

    def throttle(self, *, after: float) -> None:
        self.cloudflare.control.set_faults(api=[{"status": 429, "count": 1, "retry_after": after}])


class Fake:
    def __init__(self) -> None:
        self.fake = FakeCustomHostnames(World())
        self.hostnames: CustomHostnames = self.fake

    def put(self, host: str, *, tenant_id: str | None) -> str:
        return self.fake.put(host, tenant_id=tenant_id)

    def stick(self, host: str) -> None:
        self.fake.stick(host)

    def throttle(self, *, after: float) -> None:
        self.fake.fail(Retryable("Cloudflare failed", after=after))


@pytest.fixture(params=["fake server", "fake"])
def fixture(request: pytest.FixtureRequest) -> Iterator[Fixture]:
    if request.param == "fake":
        yield Fake()
        return
    with run_cloudflare_here() as cloudflare:
        yield FakeServer(cloudflare)


def found(fixture: Fixture, host: str = HOST) -> HostnameDescription:
    seen = fixture.hostnames.find(host)
    assert seen is not None
    return seen


def test_it_is_ours_and_not_ready_at_first(fixture: Fixture) -> None:
    made = fixture.hostnames.create(HOST, OURS)
    assert (made.host, made.tenant_id, made.ready) == (HOST, OURS, False)
    assert made.status == "pending"
    assert found(fixture).id == made.id


def test_it_becomes_ready_in_time(fixture: Fixture) -> None:
    fixture.hostnames.create(HOST, OURS)
    ready = eventually(lambda: (seen := found(fixture)).ready and seen)
    assert (ready.status, ready.ssl_status, ready.tenant_id) == ("active", "active", OURS)


def test_the_certificates_records_come_later_than_the_ownership_record(fixture: Fixture) -> None:
    made = fixture.hostnames.create(HOST, OURS)
    fixture.stick(HOST)
    assert [(record.kind, record.name) for record in made.records] == [("txt", f"_cf-custom-hostname.{HOST}")]
    both = eventually(lambda: len((seen := found(fixture)).records) == 2 and seen)
    assert both.records[0] == made.records[0]
    assert both.records[1].kind == "http"
    assert both.records[1].name.startswith(f"http://{HOST}/.well-known/")
    assert all(record.value for record in both.records)


def test_creating_twice_adopts_what_is_ours(fixture: Fixture) -> None:
    first = fixture.hostnames.create(HOST, OURS)
    assert fixture.hostnames.create(HOST, OURS).id == first.id


@pytest.mark.parametrize("owner", [THEIRS, None])
def test_what_is_not_ours_is_never_adopted(fixture: Fixture, owner: str | None) -> None:
    key = fixture.put(HOST, tenant_id=owner)
    with pytest.raises(NeedsHuman, match=HOST) as raised:
        fixture.hostnames.create(HOST, OURS)
    assert raised.value.runbook == "hostname-conflict"
    assert (found(fixture).id, found(fixture).tenant_id) == (key, owner)


def test_hosts_are_told_apart_exactly(fixture: Fixture) -> None:
    fixture.put(f"a.{HOST}", tenant_id=THEIRS)
    assert fixture.hostnames.find(HOST) is None
    made = fixture.hostnames.create(HOST.upper(), OURS)
    assert made.host == HOST
    assert found(fixture, HOST.upper()).id == made.id


@pytest.mark.parametrize(
    "host", ["acme", "acme.test", "acme.localhost", "shop.example.com", "bücher.acme.dev"]
)
def test_a_host_cloudflare_will_not_take_is_refused(fixture: Fixture, host: str) -> None:
    with pytest.raises(Refused, match="will not take the host"):
        fixture.hostnames.create(host, OURS)
    assert fixture.hostnames.find(host) is None


def test_deleting_twice_is_success(fixture: Fixture) -> None:
    made = fixture.hostnames.create(HOST, OURS)
    fixture.hostnames.delete(made.id)
    assert fixture.hostnames.find(HOST) is None
    fixture.hostnames.delete(made.id)
    again = fixture.hostnames.create(HOST, OURS)
    assert again.id != made.id


def test_a_stuck_validation_shows_why_and_stays_pending(fixture: Fixture) -> None:
    fixture.hostnames.create(HOST, OURS)
    fixture.stick(HOST)
    for _ in range(10):
        assert not found(fixture).ready
    assert "ownership verification token was not found" in found(fixture).errors[0]


def test_a_rate_limit_says_when_to_come_back(fixture: Fixture) -> None:
    fixture.throttle(after=300)
    with pytest.raises(Retryable) as raised:
        fixture.hostnames.create(HOST, OURS)
    assert raised.value.after == 300
    assert fixture.hostnames.create(HOST, OURS).host == HOST


def test_all_are_listed_with_their_owners(fixture: Fixture) -> None:
    assert list(fixture.hostnames.list()) == []
    owners = {f"h{number}.acme.dev": (OURS if number % 2 else None) for number in range(101)}
    ids = {host: fixture.put(host, tenant_id=owner) for host, owner in owners.items()}

    def listed() -> bool:
        return len(list(fixture.hostnames.list())) == len(owners)

    eventually(listed)
    seen = list(fixture.hostnames.list())
    assert {found.host: found.tenant_id for found in seen} == owners
    assert {found.host: found.id for found in seen} == ids
