"""Notifications: written with what they tell of, delivered signed and once more where it failed."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from controlplane.domain import notification as signing
from controlplane.domain.errors import Retryable
from controlplane.domain.job import JobKind, Lane
from controlplane.services import notifications as outbox
from controlplane.store import job
from controlplane.workers.jobs import outbox as notifications
from controlplane.workers.providers.webhook import Webhook
from controlplane.workers.schedule import duties
from tests import builders
from tests.harness.engine import Harness
from tests.harness.work import do_one

SECRETS = (b"n" * 32, b"o" * 32)


@dataclass
class Heard:
    """`answers`: statuses of the next answers, then 204; `calls`: what came."""

    url: str = ""
    answers: list[int] = field(default_factory=list)
    calls: list[tuple[dict[str, str], bytes]] = field(default_factory=list)

    @property
    def types(self) -> list[str]:
        return [json.loads(body)["type"] for _, body in self.calls]


@pytest.fixture
def heard() -> Iterator[Heard]:
    found = Heard()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            found.calls.append(({k.lower(): v for k, v in self.headers.items()}, body))
            self.send_response(found.answers.pop(0) if found.answers else 204)
            self.send_header("Location", "http://127.0.0.1:1/elsewhere")
            self.send_header("Retry-After", "120")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Nothing on stderr."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    found.url = f"http://127.0.0.1:{server.server_port}/hooks"
    yield found
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def listening(harness: Harness, heard: Heard) -> Harness:
    harness.ctx = replace(harness.ctx, webhook_sink=Webhook(heard.url, SECRETS))
    return harness


def say(harness: Harness, status: str, **fields: Any) -> str:
    subscription = harness.subscribe(1, status=status, **fields)
    harness.hear(subscription)
    harness.work()
    return subscription


def rows(harness: Harness, columns: str = "kind, state, tries, answer") -> list[dict[str, Any]]:
    with harness.ctx.registry.connection() as conn:
        return conn.execute(f"SELECT {columns} FROM notification ORDER BY seq".encode()).fetchall()


def due_again(harness: Harness) -> None:
    with harness.ctx.registry.connection() as conn:
        conn.execute("UPDATE notification SET next_try_at = clock_timestamp()")


def test_the_life_of_a_tenant_is_told_once_each(listening: Harness, heard: Heard) -> None:
    for status in ("active", "active", "unpaid", "unpaid", "active", "canceled", "canceled"):
        say(listening, status)
    assert heard.types == ["tenant.ready", "tenant.suspended", "tenant.resumed", "tenant.closing"]
    closing = json.loads(heard.calls[-1][1])
    row = listening.tenant("sub_00000001")
    assert row.purge_after is not None
    assert closing["data"]["tenant"] == row.id
    assert closing["data"]["purge_after"] == row.purge_after.isoformat()
    assert {r["state"] for r in rows(listening)} == {"delivered"}


def test_a_notice_is_signed_after_standard_webhooks(listening: Harness, heard: Heard) -> None:
    say(listening, "active")
    [(headers, body)] = heard.calls
    assert headers["content-type"] == "application/json"
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    wanted = [base64.b64encode(hmac.new(s, signed, hashlib.sha256).digest()).decode() for s in SECRETS]
    assert headers["webhook-signature"] == " ".join(f"v1,{text}" for text in wanted)


def test_the_specifications_own_example() -> None:
    secret = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    made = signing.headers("msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}', [secret])
    assert made["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_one_that_is_not_heard_is_told_again_and_the_others_wait(listening: Harness, heard: Heard) -> None:
    heard.answers = [500, 302]
    say(listening, "active")
    assert (rows(listening)[0]["state"], rows(listening)[0]["answer"]) == ("waiting", "HTTP 500")
    assert rows(listening, "next_try_at > clock_timestamp() + interval '100 s' AS later") == [{"later": True}]
    due_again(listening)
    assert notifications.deliver(listening.ctx) == 1
    assert rows(listening)[0]["answer"] == "HTTP 302"
    due_again(listening)
    assert notifications.deliver(listening.ctx) == 1
    assert rows(listening)[0] | {"answer": ""} == {
        "kind": "ready",
        "state": "delivered",
        "tries": 3,
        "answer": "",
    }
    assert len({headers["webhook-id"] for headers, _ in heard.calls}) == 1


def test_it_is_given_up_after_its_last_try_and_can_be_sent_again(
    listening: Harness, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notifications, "ATTEMPTS", 2)
    heard.answers = [500, 500]
    say(listening, "active")
    due_again(listening)
    notifications.deliver(listening.ctx)
    [row] = rows(listening, "id, state")
    assert row["state"] == "dead"
    with listening.ctx.registry.connection() as conn:
        outbox.redeliver(conn, row["id"], actor="support")
    assert notifications.deliver(listening.ctx) == 1
    assert rows(listening)[0]["state"] == "delivered"


def test_nobody_there_and_nobody_named(harness: Harness) -> None:
    say(harness, "active")
    assert rows(harness)[0]["state"] == "no_destination"
    with pytest.raises(Retryable, match="can't be reached"):
        Webhook("http://127.0.0.1:1/x", SECRETS).deliver("msg_1", {})


def test_one_worker_of_the_fleet_is_at_it(listening: Harness, heard: Heard) -> None:
    say(listening, "active")
    say(listening, "unpaid")
    heard.calls.clear()
    duties.ensure(listening.ctx)
    with listening.ctx.registry.connection() as conn:
        conn.execute("UPDATE notification SET state = 'waiting', next_try_at = clock_timestamp()")
        held = job.claim(conn, Lane.QUICK, holder="one", seconds=60, kinds=[JobKind.NOTIFICATIONS])
    assert held is not None
    assert do_one(listening.ctx, JobKind.NOTIFICATIONS) is None
    assert heard.calls == []
    with listening.ctx.registry.connection() as conn:
        job.put_back(conn, held, after=0)
    assert do_one(listening.ctx, JobKind.NOTIFICATIONS) is not None
    assert heard.types == ["tenant.ready", "tenant.suspended"]


def test_what_needs_attention_is_told_when_it_begins(listening: Harness, heard: Heard) -> None:
    say(listening, "active")
    for _ in range(2):
        say(listening, "active", plan="nobody-knows")
    assert heard.types == ["tenant.ready", "tenant.needs_attention"]
    assert json.loads(heard.calls[-1][1])["data"]["runbook"] == "parked-contract"


def test_the_end_of_a_trial_is_told_ahead_and_the_end_of_a_grace_suspends(
    listening: Harness, heard: Heard
) -> None:
    with listening.ctx.registry.connection() as conn:
        row = conn.execute("SELECT extract(epoch FROM clock_timestamp())::int AS now").fetchone()
    assert row is not None
    now: int = row["now"]
    say(listening, "trialing", trial_end=now + 10 * 86400)
    duties.run_timers(listening.ctx)
    assert heard.types == ["tenant.ready"]
    say(listening, "trialing", trial_end=now + 2 * 86400)
    for _ in range(2):
        duties.run_timers(listening.ctx)
        notifications.deliver(listening.ctx)
    assert heard.types == ["tenant.ready", "tenant.trial_ending"]
    unpaid = {**builders.invoice(), "created": now - 14 * 86400 + 3600}
    subscription = say(listening, "past_due", open_invoices=[unpaid])
    assert listening.tenant(subscription).phase.value == "active"
    with listening.ctx.registry.connection() as conn:
        long_ago = '"2026-01-01T00:00:00+00:00"'
        conn.execute("UPDATE tenant SET spec = jsonb_set(spec, '{grace_ends_at}', %s)", [long_ago])
        conn.execute("UPDATE contract SET terms = jsonb_set(terms, '{overdue_since}', %s)", [long_ago])
    duties.run_timers(listening.ctx)
    listening.work()
    assert listening.tenant(subscription).phase.value == "suspended"
    say(listening, "past_due", open_invoices=[{**unpaid, "created": now - 15 * 86400}])
    assert listening.tenant(subscription).phase.value == "suspended"
    say(listening, "active")
    assert listening.tenant(subscription).phase.value == "active"
    assert heard.types[2:] == ["tenant.suspended", "tenant.resumed"]
    assert listening.violations() == []
