"""What all listings have in common: pages, cursors, filters."""

import base64
import json
from collections.abc import Callable

import pytest

from tests.web.site import Site, event

LISTINGS = ["tenants", "operations", "events", "clusters", "contracts"]


def fill_tenants(site: Site) -> None:
    for number in range(7):
        site.found(f"sub_{number}", name=f"Customer {number}")


def fill_events(site: Site) -> None:
    for number in range(7):
        site.deliver(event(f"evt_{number}"))
    site.rows("UPDATE stripe_event SET received_at = '2026-01-01Z'")  # the id alone tells them apart


def fill_clusters(site: Site) -> None:
    fill_tenants(site)
    for number in range(6):
        site.rows(
            "INSERT INTO cluster (id, cluster_class, slots, spec) SELECT %s, cluster_class, slots, spec FROM"
            " cluster LIMIT 1",
            f"c-{'abcdefg'[number] * 12}",
        )


def fill_contracts(site: Site) -> None:
    for number in range(7):
        site.rows(
            "INSERT INTO contract (id, outcome, first_event_at) VALUES (%s, 'parked', '2026-01-01Z')",
            f"sub_{number}",
        )


FILLS: dict[str, Callable[[Site], None]] = {
    "tenants": fill_tenants,
    "operations": fill_tenants,
    "events": fill_events,
    "clusters": fill_clusters,
    "contracts": fill_contracts,
}


@pytest.mark.parametrize("size", [1, 3, 7, 200])
@pytest.mark.parametrize("listing", LISTINGS)
def test_pages_together_are_the_whole_and_nothing_twice(site: Site, listing: str, size: int) -> None:
    FILLS[listing](site)
    whole = [item["id"] for item in site.get(f"/v1/{listing}").json["items"]]
    assert len(whole) >= 7
    found, cursor, pages = [], "", 0
    while cursor is not None:
        answer = site.get(f"/v1/{listing}?limit={size}{cursor}").json
        assert len(answer["items"]) <= size
        found += [item["id"] for item in answer["items"]]
        cursor = None if answer["next_cursor"] is None else f"&cursor={answer['next_cursor']}"
        pages += 1
    assert found == whole
    assert pages == -(-len(whole) // size)


@pytest.mark.parametrize("listing", LISTINGS)
def test_an_empty_listing_is_empty(site: Site, listing: str) -> None:
    assert site.get(f"/v1/{listing}").json == {"items": [], "next_cursor": None}


@pytest.mark.parametrize("listing", LISTINGS)
def test_a_wrong_limit_is_named(site: Site, listing: str) -> None:
    for value in ("0", "201", "-1", "x", "", "1.5", "٣", "1e2", "9" * 30, "9" * 5000):
        answer = site.get(f"/v1/{listing}?limit={value}")
        assert answer.status_code == 400
        assert answer.json["error"]["field"] == "limit"
        assert len(answer.json["error"]["message"]) < 200


def cursor_of(*content: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(content).encode()).rstrip(b"=").decode()


NO_CURSORS = ["", "x", "é", "a" * 5000, "////", cursor_of(), cursor_of("other", "x"), cursor_of(["x"])]
NO_POSITIONS: list[list[object]] = [
    [],
    ["a\0b"],
    [""],
    [None],
    [{}],
    [True],
    [-1],
    [1.5],
    [2**63],
    ["x" * 301],
    ["2026-01-01", "x"],
    ["2026-01-01T00:00:00", "x"],
    ["2026-01-01T00:00:00+00:00", "a\0"],
    ["2026-01-01T00:00:00+00:00", 7],
    ["yesterday", "x"],
    [["x"]],
    ["a", "b", "c"],
]


@pytest.mark.parametrize("listing", LISTINGS)
def test_a_wrong_cursor_is_named(site: Site, listing: str) -> None:
    for cursor in [*NO_CURSORS, *(cursor_of(listing, *position) for position in NO_POSITIONS)]:
        answer = site.get(f"/v1/{listing}?cursor={cursor}")
        assert answer.status_code == 400, cursor
        assert answer.json["error"]["field"] == "cursor"


@pytest.mark.parametrize(
    "path",
    [
        "/v1/tenants?state=active",
        "/v1/operations?state=dead",
        "/v1/operations?state=",
        "/v1/operations?resource=acme",
        "/v1/operations?resource=t-x",
        "/v1/operations?resource=t-aaaaaaaaaaaa%00",
        "/v1/operations?state=done&state=waiting",
        "/v1/events?state=waiting",
        "/v1/events?type=x",
        "/v1/contracts?outcome=dead",
        "/v1/clusters?slots=1",
        "/v1/summary?x=1",
        "/v1/tenants/acme?x=1",
        "/v1/operations/1?events_after=-1",
        "/v1/operations/1?events_after=x",
        "/v1/previews/1?x=1",
        "/v1/resolve",
        "/v1/resolve?host=",
        "/v1/resolve?host=a",
        "/v1/resolve?host=10.0.0.1",
        "/v1/resolve?host=a.example%00",
        "/v1/resolve?host=a.example:80",
        "/v1/resolve?host=a.example&host=b.example",
        "/v1/resolve?host=a.example&x=1",
        "/v1/resolve?host=" + "a." * 200 + "example",
    ],
)
def test_a_wrong_parameter_is_named(site: Site, path: str) -> None:
    answer = site.get(path)
    assert answer.status_code == 400
    query = path.partition("?")[2] or "host="
    assert answer.json["error"]["field"] in {part.partition("=")[0] for part in query.split("&")}


def test_an_unknown_url_is_json_too(site: Site) -> None:
    answer = site.get("/v1/nothing")
    assert answer.status_code == 404
    assert answer.json["error"]["code"] == "no_such_url"
