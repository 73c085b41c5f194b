"""Forged entries in the cache: they stop nobody, and their hosts are taken back.

The attacker has what every process of the data plane has: the key that verifies, which is the one that signs,
and a connection to the cache. Registry, Valkey and the data plane's resolver are real.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import redis
from click.testing import CliRunner

from controlplane.cli.verify import command
from controlplane.domain.errors import Invalid
from controlplane.domain.placement import tenant_id_for
from controlplane.localcloud.fakes.aws import secret_arn
from controlplane.localcloud.servers.valkey import ValkeyServer
from controlplane.services import routes
from controlplane.store import route
from controlplane.store.registry import Registry, one
from controlplane.workers.providers.config_cache import TOMBSTONE_SECONDS, RedisConfigCache
from controlplane.workers.steps import routes as publishing
from dataplane import tenant_config
from dataplane.invalidations import InvalidationListener
from dataplane.resolver import Resolver
from dataplane.tenant_config import MAX_EPOCH, TenantConfig, cache_key, issued, sign
from dataplane.tiers import RedisTier, RegistryTier
from tests.harness.engine import ZONE, Harness

KEY = ("k1", b"k" * 32)
HOSTS = [f"customer-{number}.{ZONE}" for number in (1, 2)]
IDS = [tenant_id_for(f"sub_{number:08d}") for number in (1, 2)]
STEP = 1_000_000
PATIENCE = 60.0


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyServer]:
    with ValkeyServer(tmp_path_factory.mktemp("valkey")) as server:
        yield server


class Shared:
    """A harness with two tenants whose cache is a real one that somebody else can write to."""

    def __init__(self, harness: Harness, valkey: ValkeyServer) -> None:
        valkey.flush()
        self.harness = harness
        self.url = valkey.url
        self.redis = redis.Redis.from_url(valkey.url)
        self.cache = RedisConfigCache(valkey.url, [KEY])
        harness.ctx = replace(harness.ctx, providers=replace(harness.ctx.providers, cache=self.cache))
        for number in (1, 2):
            self.bill(number, "active")

    def bill(self, number: int, status: str, **fields: Any) -> None:
        self.harness.hear(self.harness.subscribe(number, status=status, **fields))
        self.harness.work()

    def forge(self, host: str, epoch: int, **changes: Any) -> None:
        """A signed entry for the host that leads to the attacker's tenant, or wherever `changes` say."""
        found = self.cache.read(host)
        assert found is not None
        payload = {**found.payload, "tenant_id": "t-attackerdb12", "epoch": epoch, **changes}
        self.redis.set(cache_key(host), sign(issued(payload, at=time.time()), key_id=KEY[0], key=KEY[1]))

    def served(self, host: str) -> tuple[str, str]:
        """(tenant, status)."""
        found = self.cache.read(host)
        assert found is not None
        return found.payload["tenant_id"], found.payload["status"]

    def newest(self) -> int:
        with self.harness.ctx.registry.connection() as conn:
            return int(one(conn.execute("SELECT last_value FROM epoch").fetchone())["last_value"])

    def reported(self) -> list[dict[str, Any]]:
        """The notifications that a person must look."""
        with self.harness.ctx.registry.connection() as conn:
            rows = conn.execute(
                "SELECT payload FROM notification WHERE kind = 'needs_attention' ORDER BY seq"
            ).fetchall()
        return [row["payload"]["data"] for row in rows]

    def close(self) -> None:
        self.cache.close()
        self.redis.close()


@pytest.fixture
def shared(harness: Harness, valkey: ValkeyServer) -> Iterator[Shared]:
    opened = Shared(harness, valkey)
    yield opened
    opened.close()


def test_both_sides_know_the_same_step() -> None:
    assert tenant_config.EPOCH_STEP == route.EPOCH_STEP == STEP
    assert MAX_EPOCH < 2**53 - 1


@pytest.mark.parametrize("epoch", [MAX_EPOCH, MAX_EPOCH - 1])
def test_a_forged_entry_stops_nobody(shared: Shared, caplog: pytest.LogCaptureFixture, epoch: int) -> None:
    before = shared.newest()
    shared.forge(HOSTS[0], epoch)
    with caplog.at_level(logging.ERROR):
        for number in (1, 2):
            shared.bill(number, "unpaid")
    assert [shared.served(host) for host in HOSTS] == [(IDS[0], "suspended"), (IDS[1], "suspended")]
    assert shared.newest() < before + 100, "the sequence of all tenants has not followed"
    assert HOSTS[0] in caplog.text
    assert str(epoch) in caplog.text
    (reported,) = shared.reported()
    assert (reported["tenant"], reported["runbook"]) == (IDS[0], "forged-entry")
    assert HOSTS[0] in reported["reason"]


@pytest.mark.parametrize(
    ("ahead", "leads_to"),
    [(MAX_EPOCH, "t-attackerdb12"), (STEP // 2, "t-attackerdb12"), (1, IDS[1]), (-1, IDS[1]), (0, IDS[1])],
    ids=["far beyond", "within the step", "the next epoch", "drawn for another host", "of its own epoch"],
)
def test_the_full_pass_takes_the_host_back_and_says_so(
    shared: Shared, caplog: pytest.LogCaptureFixture, ahead: int, leads_to: str
) -> None:
    """`ahead`: of the sequence."""
    now = shared.cache.read(HOSTS[0])
    assert now is not None
    newest = shared.newest()
    shared.forge(HOSTS[0], min(MAX_EPOCH, newest + ahead) if ahead else now.epoch, tenant_id=leads_to)
    with caplog.at_level(logging.ERROR):
        assert publishing.publish_all(shared.harness.ctx) == 1
    assert shared.served(HOSTS[0]) == (IDS[0], "active")
    assert publishing.publish_all(shared.harness.ctx) == 0
    assert f"{HOSTS[0]}: the cache held" in caplog.text
    assert shared.newest() <= newest + STEP + 10
    shared.bill(2, "unpaid")
    assert shared.served(HOSTS[1]) == (IDS[1], "suspended")


def test_what_is_wrong_with_another_route_keeps_no_host_with_the_attacker(shared: Shared) -> None:
    shared.forge(HOSTS[0], MAX_EPOCH)
    with shared.harness.ctx.registry.connection() as conn:
        conn.execute("UPDATE route SET payload = payload || '{\"plan\": 7}' WHERE host = %s", [HOSTS[1]])
    with pytest.raises(Invalid, match="plan: expected str"):
        publishing.publish_all(shared.harness.ctx)
    assert shared.served(HOSTS[0]) == (IDS[0], "active")


def test_a_full_pass_follows_by_one_step_however_many_are_forged(shared: Shared) -> None:
    before = shared.newest()
    for number, host in enumerate(HOSTS, start=1):
        shared.forge(host, before + number * STEP)  # each within a step of the one before
    publishing.publish_all(shared.harness.ctx)
    assert [shared.served(host) for host in HOSTS] == [(IDS[0], "active"), (IDS[1], "active")]
    assert shared.newest() <= before + STEP + 10


def test_a_registry_restored_from_a_backup_goes_beyond_its_own_former_entries(shared: Shared) -> None:
    """The entries are honest: their epochs were drawn, and the registry has forgotten it."""
    lost = shared.newest() + 5000
    for number, host in enumerate(HOSTS):
        shared.forge(host, lost + number, tenant_id=IDS[number])
    assert publishing.publish_all(shared.harness.ctx) == 2
    assert [shared.served(host) for host in HOSTS] == [(IDS[0], "active"), (IDS[1], "active")]
    entries = [shared.cache.read(host) for host in HOSTS]
    assert all(entry is not None and entry.epoch > lost for entry in entries), "data planes take it at once"
    assert shared.reported() == []
    shared.bill(1, "unpaid")
    assert shared.served(HOSTS[0]) == (IDS[0], "suspended")


def test_a_registry_far_behind_recovers_too(shared: Shared) -> None:
    for number, host in enumerate(HOSTS):
        shared.forge(host, shared.newest() + 5 * STEP, tenant_id=IDS[number])
    shared.bill(1, "unpaid")
    assert publishing.publish_all(shared.harness.ctx) == 1
    assert [shared.served(host) for host in HOSTS] == [(IDS[0], "suspended"), (IDS[1], "active")]


def test_a_process_that_holds_the_forged_entry_lets_go_of_it(shared: Shared) -> None:
    registry = shared.harness.ctx.registry
    resolver = Resolver(
        cache=RedisTier.from_url(shared.url, dict([KEY]), timeout=5),
        fallback=RegistryTier(lambda host: _in_registry(registry, host)),
        invalidations=InvalidationListener(shared.url),
    )
    try:
        for epoch in (shared.newest() + 10, MAX_EPOCH):
            shared.forge(HOSTS[0], epoch)
            shared.redis.publish(
                tenant_config.INVALIDATION_CHANNEL,
                tenant_config.Invalidation("config", HOSTS[0], epoch, IDS[0]).encode(),
            )
            _eventually(lambda: resolver.resolve(HOSTS[0]).tenant_id == "t-attackerdb12")
            publishing.publish_all(shared.harness.ctx)
            _eventually(lambda: resolver.resolve(HOSTS[0]).tenant_id == IDS[0])
    finally:
        resolver.close()


@pytest.mark.parametrize("epoch", ["next", MAX_EPOCH])
def test_verify_names_an_entry_that_leads_to_another_tenant_and_mends_it(
    shared: Shared, monkeypatch: pytest.MonkeyPatch, epoch: int | str
) -> None:
    monkeypatch.setattr(
        "controlplane.workers.runtime.wiring.context_from_environment", lambda: shared.harness.ctx
    )
    monkeypatch.setattr(shared.harness.ctx.registry, "close", lambda: None)
    other = shared.cache.read(HOSTS[1])
    assert other is not None
    forged = shared.newest() + 1 if epoch == "next" else MAX_EPOCH
    placed = {name: other.payload[name] for name in ("placement", "database")}
    shared.forge(HOSTS[0], forged, tenant_id=IDS[1], **placed)
    found = json.loads(CliRunner().invoke(command, ["--json"]).stdout)["findings"]
    assert [(one["system"], one["fault"], one["name"]) for one in found] == [("Cache", "differs", HOSTS[0])]
    for word in ("tenant_id", "database", "forged", str(forged)):
        assert word in found[0]["detail"]
    done = CliRunner().invoke(command, ["--repair", "--grace", "0"])
    assert f"republish {HOSTS[0]}: published" in done.output
    assert shared.served(HOSTS[0]) == (IDS[0], "active")
    assert CliRunner().invoke(command, []).exit_code == 0


def test_an_entry_for_a_host_that_nobody_has_is_withdrawn_and_the_host_can_be_given_away(
    shared: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "controlplane.workers.runtime.wiring.context_from_environment", lambda: shared.harness.ctx
    )
    monkeypatch.setattr(shared.harness.ctx.registry, "close", lambda: None)
    later = f"customer-3.{ZONE}"
    found = shared.cache.read(HOSTS[0])
    assert found is not None
    payload = {**found.payload, "host": later, "epoch": MAX_EPOCH}
    shared.redis.set(cache_key(later), sign(issued(payload, at=time.time()), key_id=KEY[0], key=KEY[1]))
    done = CliRunner().invoke(command, ["--repair", "--grace", "0"])
    assert f"withdraw {later}: withdrawn" in done.output
    assert shared.served(later) == ("", "gone")
    shared.bill(3, "active")
    assert shared.served(later) == (tenant_id_for("sub_00000003"), "active")
    assert shared.reported() == []


def test_a_host_that_was_given_up_does_not_stay_with_the_attacker(
    shared: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "controlplane.workers.runtime.wiring.context_from_environment", lambda: shared.harness.ctx
    )
    monkeypatch.setattr(shared.harness.ctx.registry, "close", lambda: None)
    shared.bill(1, "canceled")
    assert shared.served(HOSTS[0])[1] == "gone"
    database = {"host": "203.0.113.9", "port": 5432, "name": "x"}
    database |= {
        "secret": secret_arn("placements/p-attackerdb23/app"),
        "role": "arn:aws:iam::666666666666:role/x",
    }
    placement = "p-attackerdb23"
    shared.forge(HOSTS[0], MAX_EPOCH, status="active", placement=placement, database=database)
    (found,) = json.loads(CliRunner().invoke(command, ["--json"]).stdout)["findings"]
    assert "t-attackerdb12" in found["detail"]
    assert publishing.publish_all(shared.harness.ctx) == 1
    assert shared.served(HOSTS[0])[1] == "gone"


def test_the_full_pass_leaves_no_tombstone_without_an_end(shared: Shared) -> None:
    shared.bill(1, "canceled")
    publishing.publish_all(shared.harness.ctx)
    assert shared.served(HOSTS[0])[1] == "gone"
    assert 0 < shared.redis.ttl(cache_key(HOSTS[0])) <= TOMBSTONE_SECONDS


def _in_registry(registry: Registry, host: str) -> TenantConfig | None:
    with registry.connection() as conn:
        try:
            return TenantConfig.from_payload(issued(routes.resolve(conn, host), at=time.time()))
        except routes.UnknownHost:
            return None


def _eventually(true: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < until, "it did not come to pass"
        time.sleep(0.02)
