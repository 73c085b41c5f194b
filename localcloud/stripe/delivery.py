"""Sends events to webhook endpoints: signed, over real HTTP, retried until the endpoint says 2xx.

The signature's timestamp is the machine's time, not the fake server's: the receiver checks it against
its own clock, and an advanced test clock must not look like an attack. Retries wait on the
fake server's clock, so advancing it makes them due.
"""

from __future__ import annotations

import hmac
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx

from controlplane.localcloud.servers.fake_http.store import Object
from controlplane.localcloud.stripe import (
    checkout_visit,
    delivery_queue,
    lifecycle,
    versions,
    webhook_endpoints,
)
from controlplane.localcloud.stripe.account import Account, Request

TIMEOUT_SECONDS = 10.0
POLL_SECONDS = 0.25


class Deliverer:
    """One thread that looks for what is due, and a few that send."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self._stopping = threading.Event()
        self._slots = threading.Semaphore(account.settings.delivery_threads)
        self._senders = ThreadPoolExecutor(account.settings.delivery_threads, thread_name_prefix="webhook")
        self._client = httpx.Client(timeout=TIMEOUT_SECONDS, trust_env=False, follow_redirects=False)
        self._thread = threading.Thread(target=self._run, name="deliveries", daemon=True)

    def start(self) -> None:
        """Take up what an earlier run left half sent, then deliver."""
        with self._account.store.transaction():
            for delivery in list(self._account.store.oldest(delivery_queue.KIND)):
                if delivery["state"] == "sending":
                    delivery["state"] = "pending"
                    delivery_queue.save(self._account, delivery)
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._account.work.set()
        self._thread.join(timeout=5)
        self._senders.shutdown(wait=True, cancel_futures=True)
        self._client.close()

    def _run(self) -> None:
        try:
            self._deliver()
        except Exception as error:
            # A fake server that serves but delivers nothing would look like a lost webhook.
            self._account.failure = f"deliveries have stopped: {type(error).__name__}: {error}"
            raise

    def _deliver(self) -> None:
        account = self._account
        while not self._stopping.is_set():
            account.work.wait(timeout=POLL_SECONDS)
            account.work.clear()
            with account.answering(Request()):
                lifecycle.advance(account)
                checkout_visit.expire_due(account)
                delivery_queue.release_full_window(account)
            while not self._stopping.is_set() and self._send_next():
                pass

    def _send_next(self) -> bool:
        """Hand the delivery that is due first to a sender; False where none is due."""
        self._slots.acquire()
        account = self._account
        with account.store.transaction():
            found = account.store.first_due(delivery_queue.KIND, until=account.clock.now())
            if found is not None:
                found[1]["state"] = "sending"
                delivery_queue.save(account, found[1])
        if found is None:
            self._slots.release()
            return False
        self._senders.submit(self._send, found[1])
        return True

    def _send(self, delivery: Object) -> None:
        try:
            account = self._account
            with account.store.transaction():
                endpoint = account.store.get("webhook_endpoint", delivery["endpoint"])
                event = account.store.get("event", delivery["event"])
                keys = webhook_endpoints.live_secrets(account, delivery["endpoint"])
            if endpoint is None or event is None or endpoint["status"] != "enabled":
                self._record(delivery, {"error": "the endpoint or the event is gone"}, final="failed")
                return
            started = time.time()
            outcome = self._post(endpoint, event, keys)
            attempt = {"at": started, "seconds": round(time.time() - started, 4), **outcome}
            status = outcome.get("status")
            self._record(
                delivery, attempt, final="delivered" if status is not None and 200 <= status < 300 else None
            )
        finally:
            self._slots.release()
            self._account.work.set()

    def _post(self, endpoint: Object, event: Object, keys: list[str]) -> dict[str, Any]:
        version = endpoint["api_version"] or event["api_version"]
        shown = versions.render({**event, "api_version": version}, version)
        body = json.dumps(shown, indent=2, ensure_ascii=False)
        headers = {
            "Accept": "*/*; q=0.5, application/xml",
            "Cache-Control": "no-cache",
            "Content-Type": "application/json; charset=utf-8",
            "Stripe-Signature": signature(body, keys, at=int(time.time())),
            "User-Agent": "Stripe/1.0 (+https://stripe.com/docs/webhooks)",
        }
        try:
            answer = self._client.post(endpoint["url"], content=body.encode(), headers=headers)
        except httpx.HTTPError as error:
            return {"error": f"{type(error).__name__}: {error}"}
        return {"status": answer.status_code}

    def _record(self, delivery: Object, attempt: dict[str, Any], *, final: str | None) -> None:
        """Keep the attempt's outcome, and plan the next where there is to be one."""
        account = self._account
        waits = account.settings.retry_seconds
        with account.store.transaction():
            delivery["attempts"].append(attempt)
            made = len(delivery["attempts"])
            if final is None and made > len(waits):
                final = "failed"
            delivery["state"] = final or "pending"
            if final is None:
                delivery["due"] = account.clock.now() + waits[made - 1]
            delivery_queue.save(account, delivery)
            event = account.store.get("event", delivery["event"])
            if final is not None and event is not None and delivery["copy"] == 0:
                event["pending_webhooks"] = max(0, event["pending_webhooks"] - 1)
                account.save(event)


def signature(body: str, keys: list[str], *, at: int) -> str:
    """`t=…,v1=…[,v1=…]`: one HMAC-SHA256 of `<t>.<body>` for each live secret (Stripe's page "Verify
    webhook signatures manually")."""
    signed = f"{at}.{body}".encode()
    return ",".join([f"t={at}", *(f"v1={hmac.digest(key.encode(), signed, 'sha256').hex()}" for key in keys)])
