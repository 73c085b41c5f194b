"""Five ways to be wrong about who is to be served, each as a change of the product that looks reasonable.

Most were the product's own before a customer could have several contracts; the others are what one writes
first. A proof that passes with one of them proves nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from controlplane.domain.billing import contract_of
from controlplane.domain.binding import Binding, Holder, Known, Verdict, bind
from controlplane.domain.catalogue import Catalogue
from controlplane.domain.contract import Contract, ContractOutcome, Park
from controlplane.domain.job import JobKind
from controlplane.domain.stripe_json import dig, parsed
from controlplane.domain.tenant import Lifecycle
from controlplane.services import billing
from controlplane.store import event
from controlplane.workers.engine.context import Context
from controlplane.workers.engine.heartbeat import Hold
from controlplane.workers.jobs import intake
from controlplane.workers.jobs.handlers import HANDLERS

Patch = pytest.MonkeyPatch


def return_founds_anew(patch: Patch) -> None:
    """What is closed stays closed: who comes back is a new customer."""

    def anew(
        customer: str, contracts: Sequence[Known], holders: Sequence[Holder], *rest: Any, **more: Any
    ) -> Binding:
        closed = [replace(h, gone=h.gone or h.spec.lifecycle is Lifecycle.CLOSED) for h in holders]
        return bind(customer, contracts, closed, *rest, **more)

    patch.setattr(billing, "bind", anew)


def grace_by_latest_invoice(patch: Patch) -> None:
    """The latest invoice stands in the subscription, and says since when it is owed."""

    def latest(item: dict[str, Any]) -> Contract | Park:
        owed = sorted(item.get("open_invoices", ()), key=lambda invoice: invoice["created"])
        return contract_of({**item, "open_invoices": owed[-1:]})

    patch.setattr(intake, "contract_of", latest)


def catalogue_before_status(patch: Patch) -> None:
    """What the catalogue does not know stops for a person first, and its tenant stays as it is."""

    def stops(
        customer: str,
        contracts: Sequence[Known],
        holders: Sequence[Holder],
        catalogue: Catalogue,
        **more: Any,
    ) -> Binding:
        found = bind(customer, contracts, holders, catalogue, **more)
        unknown = {k.id for k in contracts if k.contract and _unknown(k.contract, catalogue)}
        left = {found.verdicts[name].tenant_id for name in unknown}
        there = {holder.id for holder in holders}
        parked = {
            name: Verdict(ContractOutcome.PARKED, "unknown", home if home in there else None)
            for name, home in ((name, found.verdicts[name].tenant_id) for name in unknown)
        }
        asked = {name: asked for name, asked in found.tenants.items() if name not in left}
        return Binding({**found.verdicts, **parked}, asked)

    patch.setattr(billing, "bind", stops)


def _unknown(contract: Contract, catalogue: Catalogue) -> bool:
    return any(catalogue.sold(line.price, line.key, line.product) is None for line in contract.lines)


def first_contract_wins(patch: Patch) -> None:
    """The contract that a tenant was founded for is the one that makes it."""

    def first(customer: str, contracts: Sequence[Known], *rest: Any, **more: Any) -> Binding:
        found = bind(customer, contracts, *rest, **more)
        firsts: dict[str | None, Known] = {}
        for known in contracts:
            if known.contract is None:
                continue
            home = found.verdicts[known.id].tenant_id or known.id
            before = firsts.get(home)
            if before is None or _began(known) < _began(before):
                firsts[home] = known
        only = bind(customer, list(firsts.values()), *rest, **more)
        return Binding({**found.verdicts, **only.verdicts}, only.tenants)

    patch.setattr(billing, "bind", first)


def _began(known: Known) -> tuple[Any, str]:
    assert known.contract is not None
    return known.contract.started_at, known.id


def last_event_wins(patch: Patch) -> None:
    """An event carries its object: why fetch it again?"""

    def as_told(ctx: Context, hold: Hold) -> float | None:
        with ctx.registry.connection() as conn:
            rows = event.received(conn, hold.job.subject)
        objects = [dig(parsed(row.body), "data", "object") for row in rows]
        told = {item["id"]: item for item in objects if item["object"] == "subscription"}
        providers = replace(ctx.providers, billing=_Told(ctx.providers.billing, told))
        return handler.run(replace(ctx, providers=providers), hold)

    handler = HANDLERS[JobKind.INTAKE]
    patch.setitem(HANDLERS, JobKind.INTAKE, replace(handler, run=as_told))  # type: ignore[arg-type]


def deletes_unasked(patch: Patch) -> None:
    """The registry knows who has left: why ask Stripe before anything is deleted?"""

    def unasked(ctx: Context, hold: Hold) -> float | None:
        providers = replace(ctx.providers, billing=_Told(ctx.providers.billing, {}, silent=True))
        return handler.run(replace(ctx, providers=providers), hold)

    handler = HANDLERS[JobKind.TENANT]
    patch.setitem(HANDLERS, JobKind.TENANT, replace(handler, run=unasked))  # type: ignore[arg-type]


class _Told:
    """Billing, where what was told stands above what is so. `silent`: it names no subscription."""

    def __init__(self, asked: Any, told: Mapping[str, dict[str, Any]], *, silent: bool = False) -> None:
        self._asked, self._told, self._silent = asked, told, silent

    def subscriptions_of(self, customer_id: str) -> list[dict[str, Any]]:
        if self._silent:
            return []
        return [self._told.get(item["id"], item) for item in self._asked.subscriptions_of(customer_id)]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._asked, name)


POLICIES: dict[str, Callable[[Patch], None]] = {
    policy.__name__: policy
    for policy in (
        return_founds_anew,
        grace_by_latest_invoice,
        catalogue_before_status,
        first_contract_wins,
        last_event_wins,
        deletes_unasked,
    )
}
