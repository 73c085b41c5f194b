import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from controlplane.web import logs
from tests.web.site import Site, bearer, event


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """What the web process would write to stderr, read back line by line."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logs.JsonFormatter())
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [handler])
    before = root.level
    root.setLevel(logging.INFO)  # not by monkeypatch: loggers remember what they found enabled
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    root.setLevel(before)


def test_a_request_is_one_line(site: Site, lines: Any) -> None:
    site.client.get("/v1/tenants?limit=3", headers=bearer("viewer") | {"X-Request-ID": "req-1"})
    (line,) = lines()
    assert line["message"] == "GET /v1/tenants"
    assert (line["status"], line["caller"], line["request_id"]) == (200, "viewer-bot", "req-1")
    assert line["milliseconds"] > 0


def test_every_line_of_a_request_carries_its_id(site: Site, lines: Any) -> None:
    site.broker_down = True
    assert site.deliver(event("evt_a")).status_code == 200
    assert [line["logger"] for line in lines()] == ["controlplane.wake_up", "controlplane.request"]
    assert len({line["request_id"] for line in lines()}) == 1


def test_probes_leave_no_line(site: Site, lines: Any) -> None:
    site.client.get("/healthz")
    site.client.get("/readyz")
    assert lines() == []


def test_the_callers_id_is_echoed_and_a_hostile_one_replaced(site: Site) -> None:
    def echoed(offered: str) -> str:
        return site.client.get("/healthz", headers={"X-Request-ID": offered}).headers["X-Request-ID"]

    assert echoed("a.b-c:1") == "a.b-c:1"
    for hostile in ("", "a b", "x" * 65, "é", "a;b"):
        assert len(echoed(hostile)) == 32


def test_no_body_and_no_query_is_logged(site: Site, lines: Any) -> None:
    site.deliver(event("evt_a", account="canary-in-the-body"))
    site.get("/v1/resolve?host=canary.tenants.example")
    assert len(lines()) == 2
    assert "canary" not in json.dumps(lines())


def test_a_fault_of_ours_is_logged_with_its_traceback_and_answered_without(site: Site, lines: Any) -> None:
    site.rows("ALTER TABLE tenant RENAME TO tenant_away")
    try:
        answer = site.get("/v1/tenants")
    finally:
        site.rows("ALTER TABLE tenant_away RENAME TO tenant")
    assert answer.status_code == 500
    assert answer.json["error"]["code"] == "internal"
    assert "tenant" not in answer.json["error"]["message"]
    fault, request = lines()
    assert "UndefinedTable" in fault["traceback"]
    assert fault["request_id"] == request["request_id"] == answer.headers["X-Request-ID"]


def test_a_line_can_not_be_forged(lines: Any) -> None:
    logging.getLogger("x").warning("one\n%s", '{"level": "info"}')
    (line,) = lines()
    assert line["message"] == 'one\n{"level": "info"}'
