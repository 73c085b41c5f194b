"""/v1/pool"""

from dataclasses import replace

import pytest

from controlplane.domain.pool import Quota
from controlplane.services import pool
from tests.web.site import CATALOGUE, Site

WARM = replace(CATALOGUE, plans={"team": replace(CATALOGUE.plans["team"], warm_slots=4)})


def test_before_the_first_look_there_is_nothing_to_tell(site: Site) -> None:
    assert site.get("/v1/pool").json == {"observed_at": None, "classes": [], "without_plan": []}


def test_each_fit_says_what_is_asked_for_and_what_is_there(site: Site) -> None:
    site.found("sub_1")
    before = site.jobs()
    with site.registry.connection() as conn:
        assert pool.tend(conn, replace(WARM, plans={}), lambda row: "", Quota(clusters=7)) == 0
    found = site.get("/v1/pool").json
    assert found["classes"] == []
    assert found["without_plan"][0]["used"] == 1
    assert found["quota_left"].pop("clusters") == 7
    assert set(found["quota_left"].values()) == {None}
    with site.registry.connection() as conn:
        assert pool.tend(conn, WARM, lambda row: "", Quota()) == 0
    assert site.jobs() == before
    found = site.get("/v1/pool").json
    (cluster_class,) = found["classes"]
    assert (cluster_class["plans"], cluster_class["warm_slots"]) == (["team"], 4)
    assert (
        cluster_class["free"],
        cluster_class["making"],
        cluster_class["used"],
        cluster_class["held_back"],
    ) == (0, 9, 1, None)
    assert found["observed_at"] is not None


@pytest.mark.parametrize(("role", "status"), [("viewer", 200), ("operator", 200), ("dataplane", 403)])
def test_readers_alone_may_see_it(site: Site, role: str, status: int) -> None:
    assert site.get("/v1/pool", role=role).status_code == status
