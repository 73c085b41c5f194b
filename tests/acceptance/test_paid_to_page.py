"""From a signed webhook to a routed page, on real parts, while Terraform and workers are killed."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import psycopg
import pytest

from controlplane.domain.job import Lane
from controlplane.domain.placement import tenant_id_for
from controlplane.localcloud.demo.processes import DemoProcesses
from controlplane.store import operation, placement
from controlplane.workers.providers.endpoint_map import EndpointMap
from tests.acceptance import drift
from tests.acceptance.customers import Customers, wait_for

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(900)]

CLUSTER_WITHIN = 420
TENANT_WITHIN = 240


def _terraform_in(workspace: str) -> list[int]:
    """The pids of terraform (not of its providers) at work in this workspace."""
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            name = (folder / "comm").read_text().strip()
            environment = (folder / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if name == "terraform" and f"TF_WORKSPACE={workspace}".encode() in environment:
            found.append(int(folder.name))
    return found


def _cluster_of(harness: DemoProcesses, subscription: str) -> str:
    def placed() -> str | None:
        with harness.registry.connection() as conn:
            found = placement.current(conn, tenant_id_for(subscription))
        return None if found is None else found.cluster_id

    return wait_for(placed, timeout=60, what=lambda: f"{subscription} has no placement")


@pytest.fixture(scope="module")
def two(harness: DemoProcesses, customers: Customers) -> dict[str, str]:
    """Acme on a cluster of its own, whose Terraform is killed in the middle; Bolt on a shared one."""
    subscriptions = {
        "acme": customers.subscribe("acme", "team_monthly", custom_domain="notes.acme.dev"),
        "bolt": customers.subscribe("bolt", "starter_monthly"),
    }
    cluster = _cluster_of(harness, subscriptions["acme"])
    customers.wait_for_step(
        cluster, "apply_cluster_stack", timeout=180, event="started module.cluster.aws_rds_cluster.this"
    )
    victims = _terraform_in(cluster)
    assert victims, "no terraform is at work on the cluster"
    for pid in victims:
        os.kill(pid, signal.SIGKILL)
    return subscriptions


def test_both_are_served_from_databases_of_their_own(
    harness: DemoProcesses, customers: Customers, two: dict[str, str]
) -> None:
    pages = {slug: customers.wait_for_page(slug, timeout=CLUSTER_WITHIN) for slug in two}
    for slug in two:
        customers.write(slug, f"canary of {slug}")
    for slug in two:
        text = customers.page(slug).text
        assert f"canary of {slug}" in text
        assert not any(f"canary of {other}" in text for other in two if other != slug)
    assert pages["acme"]["database"] != pages["bolt"]["database"]
    assert customers.page("nobody").status_code == 404


def test_the_killed_cluster_was_adopted_and_nothing_destroyed(
    harness: DemoProcesses, customers: Customers, two: dict[str, str]
) -> None:
    for subscription in two.values():
        customers.wait_until_reconciled(subscription, timeout=CLUSTER_WITHIN)
    cluster = _cluster_of(harness, two["acme"])
    with harness.registry.connection() as conn:
        actions = conn.execute(
            "SELECT e.kind, e.action FROM step_event e JOIN operation o ON o.id = e.operation_id"
            " WHERE o.resource_id = %s",
            [cluster],
        ).fetchall()
    assert any(action["kind"] == "adopted" for action in actions)
    assert not any(action["action"] in ("delete", "replace", "remove") for action in actions)
    assert drift.violations(harness) == []


def test_the_tenants_logins_are_refused_by_the_others_database(
    harness: DemoProcesses, two: dict[str, str]
) -> None:
    secrets = drift.account(harness).client("secretsmanager")
    where = EndpointMap(Path(harness.environment()["CONTROLPLANE_DATABASE_ENDPOINT_MAP"]))
    with harness.registry.connection() as conn:
        placed = {slug: placement.current(conn, tenant_id_for(sub)) for slug, sub in two.items()}
    for slug, other in (("acme", "bolt"), ("bolt", "acme")):
        mine, theirs = placed[slug], placed[other]
        assert mine is not None
        assert theirs is not None
        own = json.loads(secrets.get_secret_value(SecretId=mine.app_secret)["SecretString"])
        target = json.loads(secrets.get_secret_value(SecretId=theirs.app_secret)["SecretString"])
        with pytest.raises(psycopg.OperationalError, match=r"password|permission denied|does not exist"):
            psycopg.connect(
                host=target["host"],
                dbname=theirs.database,
                user=own["username"],
                password=own["password"],
                connect_timeout=5,
                **where.resolve(target["host"], target["port"]),
            )


@pytest.mark.parametrize(
    ("slug", "step", "event"),
    [
        ("cobalt", "apply_placements_stack", "lock_taken"),
        ("delta", "apply_placements_stack", "started module.placements.aws_secretsmanager_secret.app"),
        ("echo", "create_database", None),
        ("foxtrot", "publish", None),
    ],
)
def test_a_worker_killed_in_the_middle_is_succeeded(
    harness: DemoProcesses, customers: Customers, two: dict[str, str], slug: str, step: str, event: str | None
) -> None:
    customers.wait_until_reconciled(two["bolt"], timeout=CLUSTER_WITHIN)
    with harness.registry.connection() as conn:
        home = placement.current(conn, tenant_id_for(two["bolt"]))
        assert home is not None
        [before] = operation.page(conn, before=None, limit=1, resource_id=home.cluster_id)
    subscription = customers.subscribe(slug, "starter_monthly")
    of_cluster = step == "apply_placements_stack"
    whose = home.cluster_id if of_cluster else tenant_id_for(subscription)
    after = before.id if of_cluster else 0
    customers.wait_for_step(whose, step, timeout=TENANT_WITHIN, event=event, after=after)
    for lane in Lane:  # whichever of them does it
        harness.children[f"worker-{lane}"].kill()
    harness.start_worker()
    customers.wait_for_page(slug, timeout=TENANT_WITHIN)
    customers.wait_until_reconciled(subscription, timeout=TENANT_WITHIN)
    assert drift.violations(harness) == []
