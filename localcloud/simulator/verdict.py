"""What differs at the end of a run, and why: an empty list is the proof.

Three questions. Is every tenant what Stripe's objects say it should be, with nothing left to do? Does
every system of the external systems agree with the registry, with nothing made twice? And did a plain run of
the same stream, in order and without faults, end alike? A tenant that is closed and one that never was
count as alike: whose first event is handled after the customer has left is not founded any more.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from controlplane.localcloud.fakes.aws import FakeAccount
from controlplane.localcloud.simulator.box import ZONE, Box
from controlplane.localcloud.simulator.stream import Moment
from controlplane.workers.drift.verify import verify

_TENANT = re.compile(r"t-[a-z2-7]{12}")
MOST_EVENTS = 8
"""Of one subscription's or customer's events that an explanation lists."""


@dataclass(frozen=True, slots=True)
class Difference:
    """`about`: a subscription, a customer, an operation, or a thing outside. `events`: what was heard of
    it."""

    about: str
    what: str
    events: tuple[str, ...] = ()


def differences(box: Box, moments: Iterable[Moment], plain: Mapping[str, Any]) -> list[Difference]:
    """`plain`: the `end_state` of the plain run."""
    heard = _Heard(box, moments)
    found = [
        Difference(subscription_id, what, heard.of(subscription_id))
        for subscription_id, what in box.out_of_step().items()
    ]
    state = end_state(box)
    for customer_id in sorted({*plain, *state}):
        here, there = state.get(customer_id), plain.get(customer_id)
        if here != there:
            what = f"ends as {here}, in the plain run as {there}"
            found.append(Difference(customer_id, what, heard.of(customer_id)))
    return [*found, *_undone(box), *_outside(box)]


def end_state(box: Box) -> dict[str, list[dict[str, Any]]]:
    """What customers could notice of their tenants, by customer; closed ones are left out."""
    with box.ctx.registry.connection() as conn:
        rows = conn.execute(
            "SELECT t.customer_id, t.slug, t.spec, c.spec->>'isolation' AS isolation, c.slots FROM tenant t"
            " LEFT JOIN placement p ON p.tenant_id = t.id AND p.state = 'current'"
            " LEFT JOIN cluster c ON c.id = p.cluster_id WHERE t.spec->>'lifecycle' <> 'closed'"
            " ORDER BY t.customer_id, t.slug"
        ).fetchall()
    state: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        entry = box.ctx.providers.cache.read(f"{row['slug']}.{ZONE}")
        seen = {"spec": row["spec"], "served": None if entry is None else entry.payload["status"]}
        if row["spec"]["lifecycle"] == "active":  # who was never active has no home yet
            seen["cluster"] = {"isolation": row["isolation"], "slots": row["slots"]}
        state.setdefault(row["customer_id"], []).append(seen)
    return state


def _undone(box: Box) -> list[Difference]:
    """Events and operations that have not ended well."""
    with box.ctx.registry.connection() as conn:
        events = conn.execute(
            "SELECT id, type, state, reason FROM stripe_event WHERE state NOT IN ('applied', 'ignored')"
            " ORDER BY id"
        ).fetchall()
        operations = conn.execute(
            "SELECT * FROM (SELECT DISTINCT ON (kind, resource_id)"
            " id, kind, resource_id, state, reason, error,"
            " next_attempt_at > clock_timestamp() + interval '1 hour' AS later"
            " FROM operation ORDER BY kind, resource_id, id DESC) newest"
            " WHERE state <> 'done' AND NOT (state = 'waiting' AND later) ORDER BY id"
        ).fetchall()
    found = [Difference(row["id"], f"{row['type']} is {row['state']}: {row['reason']}") for row in events]
    return found + [
        Difference(
            f"{row['kind']} {row['resource_id']}", f"{row['reason']} is {row['state']}: {row['error']}"
        )
        for row in operations
    ]


def _outside(box: Box) -> list[Difference]:
    report = verify(box.ctx, probes=0, wake=True)
    found = [
        Difference(finding.name, f"{finding.system}: {finding.fault} {finding.kind}, {finding.detail}")
        for finding in report.findings
    ]
    found += [Difference(thing, "was made more than once") for thing in FakeAccount(box.world).duplicates()]
    found += [Difference(thing, "is in no Terraform state") for thing in _strays(box)]
    return found + [Difference("verify", f"could not read {system}") for system in report.unread]


def _strays(box: Box) -> list[str]:
    """Without what a killed run made for a tenant that was then suspended or closed: it has its row, and
    the state learns of it when the tenant comes back or goes."""
    with box.ctx.registry.connection() as conn:
        rows = conn.execute("SELECT id FROM tenant WHERE spec->>'lifecycle' <> 'active'").fetchall()
    resting = {row["id"] for row in rows}
    return [thing for thing in box.terraform.orphans() if not resting & set(_TENANT.findall(thing))]


class _Heard:
    """What became of the events about each subscription and each customer."""

    def __init__(self, box: Box, moments: Iterable[Moment]) -> None:
        with box.ctx.registry.connection() as conn:
            rows = conn.execute("SELECT id, state, reason FROM stripe_event").fetchall()
        became = {
            row["id"]: f"{row['state']} ({row['reason']})" if row["reason"] else row["state"] for row in rows
        }
        self._of: dict[str, list[str]] = {}
        for moment in moments:
            if moment.event is None:
                continue
            about = f"{moment.event['id']} {moment.event['type']}"
            outcome = f"{about}: {became.get(moment.event['id'], 'dropped')}"
            for item in moment.objects:
                if item["object"] == "subscription":
                    for name in (item["id"], item["customer"]):
                        self._of.setdefault(name, []).append(outcome)

    def of(self, name: str) -> tuple[str, ...]:
        return tuple(self._of.get(name, [])[-MOST_EVENTS:])
