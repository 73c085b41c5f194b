"""`controlplane catalogue`"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import click

from controlplane.cli import options, show
from controlplane.cli.failure import Failure, Misuse, NotAllowed, Unreachable, clear_errors
from controlplane.domain import prices
from controlplane.domain.catalogue import Catalogue, parse_catalogue
from controlplane.domain.errors import NeedsHuman, Retryable
from controlplane.domain.preflight import Preflight, preflight, price_of
from controlplane.settings import StripeSettings

T = TypeVar("T")
Json = dict[str, Any]
CENT = 0.01
TOLD_EVERY = 2.0  # seconds


@click.group("catalogue")
def command() -> None:
    """The plan catalogue: what a price buys."""


@command.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--account", is_flag=True, help="Hold it against the Stripe account, too; with a worker's key.")
@options.as_json
def check(*, file: Path, account: bool, as_json: bool) -> None:
    """Read FILE as the workers will, and name every mistake in it.

    With --account: which of its names the account has not, and what would become of the account's
    subscriptions by it. Nothing is changed. Fails (1) where a name is not there or a subscription would park.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise Misuse(f"{file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise Misuse(f"{file}: expected UTF-8") from error
    with clear_errors():
        found = parse_catalogue(text, source=str(file))
        settings = StripeSettings.from_environment() if account else None
    used = {plan.family for plan in found.plans.values()}
    warnings = [f"families.{name}: no plan is of it" for name in found.families if name not in used]
    warnings += [
        f"plans.{name}: an idle tenant costs about {_dollars(sum(prices.idle_floor(plan).values()))} a month,"
        f" expected at most {_dollars(prices.IDLE_FLOOR_GOAL)} of a shared one"
        for name, plan in found.plans.items()
        if prices.over_goal(plan)
    ]
    floors = {name: prices.idle_floor(plan) for name, plan in found.plans.items()}
    for warning in warnings:
        click.echo(f"warning: {file}: {warning}", err=True)
    document = {
        "version": found.version,
        "plans": list(found.plans),
        "addons": list(found.addons),
        "idle_monthly_usd": {name: _floor(parts) for name, parts in floors.items()},
        "warnings": warnings,
    }
    good = f"{file}: good, {len(found.plans)} plans: {', '.join(found.plans)}"
    if settings is not None:
        _check_account(settings, found, document if as_json else None, good)
    elif as_json:
        show.as_json(document)
    else:
        show.line(good)
        show.line()
        show.table(
            ["PLAN", "IDLE TENANT, $/MONTH", "OF WHICH"],
            [(name, _dollars(sum(parts.values())), _parts(parts)) for name, parts in floors.items()],
            none="",
        )


def _parts(parts: Json) -> str:
    """Those that make a cent."""
    return ", ".join(
        f"{part.replace('_', ' ')} {_dollars(usd)}" for part, usd in parts.items() if usd >= CENT / 2
    )


def _dollars(usd: float) -> str:
    return f"{usd:.2f}"


def _floor(parts: Json) -> Json:
    """In dollars with four digits, of which two are what an estimate is worth."""
    return {"total": round(sum(parts.values()), 4), **{name: round(usd, 4) for name, usd in parts.items()}}


def _check_account(settings: StripeSettings, catalogue: Catalogue, document: Json | None, good: str) -> None:
    """`document`: to be printed with what was found in it, where JSON was asked for."""
    report, mode = _held_against(settings, catalogue), settings.stripe_api_key.split("_")[1]
    if document is not None:
        show.as_json({**document, "mode": mode, **report.to_json()})
    else:
        show.line(good)
        _print(report, mode)
    if not report.ok:
        parked, missing = report.subscriptions["parked"], len(report.missing)
        said = f"{_many(parked, 'subscription')} would park, {_many(missing, 'name')} not in the account"
        raise Failure(said)


def _held_against(settings: StripeSettings, catalogue: Catalogue) -> Preflight:
    """Raises NotAllowed, Unreachable and Failure where Stripe does not say."""
    from controlplane.workers.providers.stripe_billing import PAGE_TRIES, StripeBilling

    with clear_errors():
        billing = StripeBilling(settings.stripe_api_key, settings.stripe_api_base or "")
        try:
            recurring = [price_of(found) for found in _told(billing.prices(), "prices")]
            subscriptions = _told(billing.subscriptions(None), "subscriptions")
            whole = (billing.whole(found, tries=PAGE_TRIES) for found in subscriptions)
            return preflight(catalogue, recurring, whole, now=datetime.now(UTC))
        except NeedsHuman as error:
            if error.runbook != "stripe-credentials":
                raise
            needed = "it must be one that may read Prices, Subscriptions and Invoices"
            raise NotAllowed(f"{error}: {needed}") from error
        except Retryable as error:
            raise Unreachable(str(error)) from error


def _told(found: Iterable[T], what: str) -> Iterator[T]:
    """The same; on stderr, every few seconds, how many it were so far."""
    told = time.monotonic()
    for number, each in enumerate(found, 1):
        yield each
        if time.monotonic() - told >= TOLD_EVERY:
            told = time.monotonic()
            click.echo(f"{number:,} {what} so far …", err=True)


def _print(report: Preflight, mode: str) -> None:
    prices = _many(report.prices, "recurring price")
    subscriptions = _many(sum(report.subscriptions.values()), "subscription")
    show.line(f"the account ({mode} mode): {prices}, {subscriptions} not ended")
    if report.missing:
        show.line()
        show.table(
            ["FIELD", "THE ACCOUNT HAS NO RECURRING PRICE OF"],
            [(each.where, each.name) for each in report.missing],
            none="",
        )
    if report.unlisted:
        show.line()
        show.table(
            ["ACTIVE PRICE THAT IS NOT LISTED", "PRODUCT", "SUBSCRIPTIONS", "LOOKUP KEY"],
            [(each.price, each.product, each.subscriptions, each.lookup_key) for each in report.unlisted],
            none="",
        )
    show.line()
    for each in report.parked:
        these = f"{'these' if each.count > 1 else 'this'} {_many(each.count, 'subscription')}"
        show.line(f"{these} would park because {each.reason}: {_first(each.count, each.first)}")
    if twice := report.paid_twice.count:
        first = [f"{one['customer']} ({', '.join(one['contracts'])})" for one in report.paid_twice.first]
        show.line(f"{_many(twice, 'customer')} would pay twice for one tenant: {_first(twice, first)}")
    if named := report.name_a_tenant.count:
        these, names = _many(named, "subscription"), _first(named, report.name_a_tenant.first)
        show.line(f"{these} with `tenant` in the metadata: parked unless its customer has that one: {names}")
    for what, numbers in (("subscriptions", report.subscriptions), ("tenants", report.tenants)):
        show.line(f"{what} would be: {', '.join(f'{number:,} {name}' for name, number in numbers.items())}")


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _first(count: int, names: Sequence[str]) -> str:
    return ", ".join([*names, "…"] if count > len(names) else names)
