"""Forged requests, rotated logins, and the connection budget."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.browser.app import App
from tests.browser.conftest import BUDGET, ZONE
from tests.browser.tenants import KEY_ID, Platform, Tenant

pytestmark = [pytest.mark.browser, pytest.mark.timeout(900)]  # the first one builds the example

INSERTIONS = [*"-._%@/\\,:;[]", "xn--", "..", "ü".encode().decode("latin-1")]


def test_headers_of_the_client_choose_no_tenant(
    app: App, platform: Platform, acme: Tenant, globex: Tenant
) -> None:
    entry = platform.entry(globex.host)
    forged = [
        {"X-Tenant-Id": globex.tenant_id, "X-Tenant-Slug": globex.slug, "X-Tenant-Entry": entry},
        {"x-tenant-entry": entry.replace(f".{KEY_ID}.", ".k0.")},
        {"x-tenant-pass": f"{globex.host}~{int(time.time()) + 60}~{'A' * 22}", "x-tenant-entry": entry},
        {"X-Forwarded-Host": globex.host},
        {"Forwarded": f"host={globex.host}"},
        {"X-Middleware-Subrequest": ":".join(["proxy"] * 5), "X-Tenant-Entry": entry},
        {"X-Middleware-Request-X-Tenant-Entry": entry, "X-Middleware-Override-Headers": "x-tenant-entry"},
    ]
    for headers in forged:
        answer = app.request("GET", acme.host, "/api/notes", headers)
        assert answer.status == 200
        assert acme.tenant_id in answer.text, headers
        assert "Globex" not in answer.text
    board = app.request("GET", acme.host, "/board", {"X-Forwarded-Proto": "https", "X-Forwarded-Port": "1"})
    assert (board.status, acme.notes[0] in board.text) == (200, True)


def test_a_thousand_made_up_hosts_reach_nobody(app: App, acme: Tenant, globex: Tenant) -> None:
    rng = random.Random(4)
    hosts = [_mangled(rng, rng.choice([acme.host, globex.host])) for _ in range(1000)]

    def ask(host: str) -> int:
        answer = app.get(host, "/api/notes")
        assert "canary" not in answer.text, host
        return answer.status

    with ThreadPoolExecutor(8) as threads:
        statuses = Counter(threads.map(ask, hosts))
    assert set(statuses) <= {400, 404}
    assert statuses[404] > 100


def test_a_rotation_fails_no_request(app: App, platform: Platform, acme: Tenant) -> None:
    answers: Counter[tuple[int, int]] = Counter()  # (rotations before it, status)
    rotations = 0
    over = threading.Event()

    def visit() -> None:
        while not over.is_set():
            before = rotations
            answers[before, app.get(acme.host, "/api/notes").status] += 1

    while app.get(acme.host, "/api/notes").status != 200:  # not a cold start; the test's timeout bounds it
        time.sleep(0.2)
    with ThreadPoolExecutor(4) as threads:
        visitors = [threads.submit(visit) for _ in range(4)]
        time.sleep(0.5)
        for _ in range(2):
            platform.rotate(acme)
            rotations += 1
            time.sleep(1)
        over.set()
        for each in visitors:
            each.result()
    assert set(answers) == {(0, 200), (1, 200), (2, 200)}


def test_a_changed_password_is_found_without_a_notice(app: App, platform: Platform, globex: Tenant) -> None:
    assert app.get(globex.host, "/api/notes").status == 200
    platform.change_password(globex)
    assert app.get(globex.host, "/api/notes").status == 200


def test_all_tenants_together_stay_within_the_budget(
    app: App, platform: Platform, acme: Tenant, globex: Tenant
) -> None:
    others = [
        Tenant(f"t-browserextr{n}", f"extra{n}", (f"extra{n}.{ZONE}",), (f"Canary {n}",)) for n in "abc"
    ]
    for tenant in others:
        platform.create(tenant)
    tenants = [acme, globex, *others]

    def visit(turn: int) -> int:
        tenant = tenants[turn % len(tenants)]
        answer = app.get(tenant.host, "/api/notes")
        assert tenant.tenant_id in answer.text
        assert not any(
            note in answer.text for other in tenants if other is not tenant for note in other.notes
        )
        return answer.status

    with ThreadPoolExecutor(16) as threads:
        visits = [threads.submit(visit, turn) for turn in range(300)]
        most = 0
        while not all(each.done() for each in visits):
            most = max(most, platform.connections())
        assert {each.result() for each in visits} == {200}
    assert 0 < most <= BUDGET


def _mangled(rng: random.Random, host: str) -> str:
    """A host that looks much like a tenant's and is none."""
    while True:
        characters = list(host)
        for _ in range(rng.randint(1, 3)):
            at = rng.randrange(len(characters))
            choice = rng.randrange(3)
            if choice == 0:
                characters[at] = chr(rng.choice([*range(33, 127), *range(161, 255)]))
            elif choice == 1:
                characters.insert(at, rng.choice(INSERTIONS))
            elif len(characters) > 1:
                del characters[at]
        name = "".join(characters)
        if name.lower().rstrip(".").partition(":")[0].rstrip(".") != host:
            return name
