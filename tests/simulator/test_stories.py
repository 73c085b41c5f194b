"""Who pays is served with its own rows, who has not paid is not, and nobody's rows go while it pays.

`controlplane/localcloud/simulator/proof.py` plays stories of customers with every trouble and asks an oracle
that knows nothing of the product. Here is the proof that it can say no, too: the oracle alone, page by page,
and the product with a wrong policy, each of which is found out.
"""

from __future__ import annotations

import ast
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from controlplane.domain.catalogue import parse_catalogue
from controlplane.localcloud.servers.postgres import PostgresServer
from controlplane.localcloud.simulator import oracle
from controlplane.localcloud.simulator.oracle import (
    DAY,
    Begins,
    Changes,
    Deed,
    Deletion,
    Halts,
    Leaves,
    Opens,
    Oracle,
    Orders,
    Owes,
    Page,
    Pays,
    Points,
    Seen,
)
from controlplane.localcloud.simulator.proof import Proved, prove
from controlplane.localcloud.simulator.stories import CATALOGUE, GRACE, STORIES, tell
from tests.simulator.policies import POLICIES

SEEDS = 500
WITHIN = 50
"""Seeds in which a wrong policy must be found out."""
HOST, DOMAIN, NOW = "acme.tenants.dev", "notes.acme.dev", 1_790_000_000.0

Prove = Callable[..., Proved]


@pytest.fixture
def proved(postgres_server: PostgresServer, registry_template: str, tmp_path: Path) -> Prove:
    """`prove` with a registry of its own each time."""

    @contextmanager
    def registry() -> Iterator[str]:
        name = f"stories_{uuid.uuid4().hex}"
        yield postgres_server.create_database(name, template=registry_template)
        postgres_server.drop_database(name)

    def play(seed: int, *stories: str) -> Proved:
        with registry() as url:
            return prove(url, tmp_path, seed=seed, stories=stories)

    return play


# ----------------------------------------------------------------------------------- the product


@pytest.mark.parametrize("story", STORIES)
def test_each_story_by_itself(proved: Prove, story: str) -> None:
    assert proved(1, story, story).wrong == ()


@pytest.mark.parametrize("seed", range(3))
def test_customers_get_what_they_pay_for(proved: Prove, seed: int) -> None:
    found = proved(seed)
    assert found.wrong == ()
    assert min(found.rests, found.rows, found.report.deliveries, len(found.report.crashes)) > 0


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_customers_get_what_they_pay_for_whatever_happens(proved: Prove) -> None:
    wrong = {}
    rests = rows = deleted = crashes = dropped = 0
    told: set[str] = set()
    for seed in range(SEEDS):
        found = proved(seed)
        told |= set(found.stories)
        rests, rows, deleted = rests + found.rests, rows + found.rows, deleted + found.deleted
        crashes, dropped = crashes + len(found.report.crashes), dropped + len(found.report.dropped)
        if found.wrong:
            wrong[seed] = (found.stories, found.wrong)
    print(
        f"{SEEDS} seeds: {rests} times asked, {rows} rows, {deleted} deletions, {crashes} crashes,"
        f" {dropped} events lost; wrong: {wrong}"
    )
    assert wrong == {}
    assert told == set(STORIES)
    assert min(rests, rows, deleted, crashes, dropped) > SEEDS / 10


@pytest.mark.parametrize("policy", POLICIES)
def test_a_wrong_policy_is_found_out(proved: Prove, monkeypatch: pytest.MonkeyPatch, policy: str) -> None:
    POLICIES[policy](monkeypatch)
    found = next((seed for seed in range(WITHIN) if proved(seed).wrong), None)
    assert found is not None, f"{policy} passes {WITHIN} seeds"


# ------------------------------------------------------------------------------------ the stories


def test_the_same_seed_tells_the_same_stories() -> None:
    first, second, other = (
        tell(tuple(STORIES), seed=seed, zone="tenants.dev", now=1_790_000_000) for seed in (7, 7, 8)
    )
    assert first == second
    assert first != other


def test_the_customers_were_promised_what_the_catalogue_says() -> None:
    """The oracle has it in words of its own, so one that is changed alone is noticed."""
    plans = parse_catalogue(CATALOGUE, source="stories").plans
    assert {name: plan.dunning_grace_days for name, plan in plans.items()} == GRACE


# ------------------------------------------------------------------------------------- the oracle


def test_the_oracle_knows_nothing_of_the_product() -> None:
    tree = ast.parse(Path(str(oracle.__file__)).read_text(encoding="utf-8"))
    imported = {
        name
        for node in ast.walk(tree)
        for name in (
            [node.module]
            if isinstance(node, ast.ImportFrom)
            else [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else []
        )
    }
    assert imported == {"__future__", "collections.abc", "dataclasses", "enum"}


BOUGHT = (
    Opens("acme", "cus_1", HOST),
    Orders("sub_1", "acme", "team", 3),
    Begins("sub_1"),
)
SERVED = Page(Seen.SERVED, ("kept",), "team", 3)


def judged(
    *deeds: Deed,
    page: Page = SERVED,
    domain: Page | None = None,
    deletions: Mapping[str, Deletion] | None = None,
    before: Page | None = None,
    then: tuple[Deed, ...] = (),
) -> list[str]:
    """What an oracle says of one that has bought, written a row and then did this. `before`: what was seen at
    its pages after these deeds, before it did what comes `then`."""
    asked = Oracle({"team": 14})
    for deed in BOUGHT:
        asked.did(deed)
    asked.wrote("acme", "kept")
    for deed in deeds:
        asked.did(deed)
    if before is not None:
        asked.judge(lambda _host: before, {}, now=NOW)
    for deed in then:
        asked.did(deed)
    pages = {HOST: page, DOMAIN: domain or page}
    return asked.judge(lambda host: pages[host], deletions or {}, now=NOW)


OWED = Owes("sub_1", "in_1", NOW - 13.9 * DAY)
OVERDUE = Owes("sub_1", "in_1", NOW - 14.1 * DAY)
NEWER = Owes("sub_1", "in_2", NOW - 1 * DAY)
AGAIN = (Orders("sub_2", "acme", "team", 3), Begins("sub_2"))
GONE, STOPPED = Page(Seen.NOT_THERE), Page(Seen.SUSPENDED)


@pytest.mark.parametrize(
    ("deeds", "page"),
    [
        ((), SERVED),
        ((OWED,), SERVED),
        ((OVERDUE,), STOPPED),
        ((OVERDUE, NEWER), STOPPED),
        ((OVERDUE, NEWER, Pays("sub_1", "in_2")), STOPPED),
        ((OVERDUE, NEWER, Pays("sub_1", "in_1")), SERVED),
        ((Halts("sub_1"),), STOPPED),
        ((Leaves("sub_1"),), GONE),
        ((Leaves("sub_1"), Orders("sub_2", "acme", "team", 3)), GONE),
        ((Leaves("sub_1"), *AGAIN), SERVED),
        ((Changes("sub_1", None, None),), SERVED),
    ],
)
def test_it_finds_nothing_wrong_with_what_is_right(deeds: tuple[Deed, ...], page: Page) -> None:
    assert judged(*deeds, page=page) == []


@pytest.mark.parametrize(
    ("deeds", "page", "said"),
    [
        ((), GONE, "pays, and its page is not there"),
        ((), STOPPED, "pays, and its page is suspended"),
        ((), Page(Seen.BEING_MADE), "pays, and its page is being made"),
        ((), Page(Seen.BROKEN), "pays, and its page is broken"),
        ((OWED,), STOPPED, "pays, and its page is suspended"),
        ((), Page(Seen.SERVED, (), "team", 3), "served without its rows kept"),
        ((), Page(Seen.SERVED, ("kept", "x"), "team", 3), "served with another's rows x"),
        ((), Page(Seen.SERVED, ("kept",), "free", 3), "has ordered team as plan, is served with free"),
        ((), Page(Seen.SERVED, ("kept",), "team", 2), "has ordered 3 seats, is served with 2"),
        ((OVERDUE, NEWER), SERVED, "served, and sub_1 is owed for 14.1 days, the grace of team is over"),
        ((Halts("sub_1"),), SERVED, "served, and sub_1 is not collected any more"),
        ((Leaves("sub_1"),), SERVED, "served, and sub_1 has ended"),
        ((Leaves("sub_1"),), STOPPED, "suspended, should be not there: sub_1 has ended"),
        (
            (Leaves("sub_1"), Orders("sub_2", "acme", "team", 3)),
            SERVED,
            "served, and sub_1 has ended; sub_2 was never paid",
        ),
    ],
)
def test_it_says_what_is_wrong(deeds: tuple[Deed, ...], page: Page, said: str) -> None:
    assert judged(*deeds, page=page) == [f"{HOST}: {said}"]


def test_who_was_served_and_owes_is_told_so() -> None:
    assert judged(OVERDUE, page=GONE) == []  # it was never there
    said = judged(before=SERVED, then=(OVERDUE,), page=GONE)
    assert said == [
        f"{HOST}: not there, should be suspended: sub_1 is owed for 14.1 days, the grace of team is over"
    ]


@pytest.mark.parametrize(
    ("deeds", "page", "domain", "right"),
    [
        ((), SERVED, SERVED, True),
        ((), SERVED, GONE, False),
        ((Halts("sub_1"),), STOPPED, STOPPED, True),
        ((Halts("sub_1"),), STOPPED, GONE, False),
        ((Halts("sub_1"),), STOPPED, SERVED, False),
        ((Leaves("sub_1"),), GONE, GONE, True),
        ((Leaves("sub_1"),), GONE, SERVED, False),
        ((Leaves("sub_1"), *AGAIN, Halts("sub_2")), STOPPED, GONE, False),
        ((Leaves("sub_1"), *AGAIN, Halts("sub_2")), STOPPED, STOPPED, True),
    ],
)
def test_a_domain_of_its_own_shows_the_same(
    deeds: tuple[Deed, ...], page: Page, domain: Page, right: bool
) -> None:
    said = judged(Points("acme", DOMAIN), before=SERVED, then=deeds, page=page, domain=domain)
    assert said == ([] if right else [f"{HOST}: {page.seen}, at its own domain {DOMAIN} {domain.seen}"])


@pytest.mark.parametrize("deletion", Deletion)
def test_nothing_is_deleted_of_who_may_still_pay(deletion: Deletion) -> None:
    again = (Leaves("sub_1"), Orders("sub_2", "acme", "team", 3))
    words = {
        Deletion.ASKED: f"{HOST}: a deletion is asked for, and it has sub_2",
        Deletion.BEGUN: f"{HOST}: its rows are being deleted, and it has sub_2",
    }
    assert judged(*again, page=GONE, deletions={HOST: deletion}) == [words[deletion]]
    assert judged(Leaves("sub_1"), page=GONE, deletions={HOST: deletion}) == []


def test_who_returns_after_its_deletion_is_served_where_it_is_told() -> None:
    asked = Oracle({"team": 14})
    for deed in (*BOUGHT, Leaves("sub_1")):
        asked.did(deed)
    asked.wrote("acme", "kept")
    begun = {HOST: Deletion.BEGUN}
    assert asked.deletions(begun) == []
    for deed in (Orders("sub_2", "acme", "team", 1), Begins("sub_2")):
        asked.did(deed)
    asked.told({"cus_1": [HOST, "acme-2.tenants.dev"]})
    pages = {HOST: GONE, "acme-2.tenants.dev": Page(Seen.SERVED, (), "team", 1)}
    assert asked.judge(lambda host: pages[host], begun, now=NOW) == []
    pages["acme-2.tenants.dev"] = GONE
    assert asked.judge(lambda host: pages[host], begun, now=NOW) == [
        "acme-2.tenants.dev: pays, and its page is not there"
    ]


def test_of_whom_nothing_was_heard_only_rows_count() -> None:
    asked = Oracle({"team": 14})
    for deed in (*BOUGHT, Leaves("sub_1")):
        asked.did(deed)
    asked.wrote("acme", "kept")
    assert asked.judge(lambda _host: SERVED, {}, now=NOW, of=()) == []
    bare = Page(Seen.SERVED, (), "team", 3)
    assert asked.judge(lambda _host: bare, {}, now=NOW, of=()) == [f"{HOST}: served without its rows kept"]
