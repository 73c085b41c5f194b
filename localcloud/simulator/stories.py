"""Stories of customers: how they buy, fall behind, leave and return, and what that means.

A story is one customer's. Each change of it is told twice: to Stripe as objects and an event, and to the
oracle as a deed. Nothing of the product says which deed belongs to which object: that is what is proved.

The days of a story lie in the past, since the product asks the real clock: a debt of forty days was made
forty days ago. The same arguments give the same stories.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from controlplane.localcloud.simulator import stripe_objects
from controlplane.localcloud.simulator.oracle import (
    Begins,
    Changes,
    Deed,
    Halts,
    Leaves,
    Opens,
    Orders,
    Owes,
    Pays,
    Points,
    Resumes,
)
from controlplane.localcloud.simulator.stream import Moment
from controlplane.localcloud.simulator.stripe_objects import Invoice, Item, Subscription

DAY = 86_400
BEGIN = 420.0
"""Days ago, at most, when a story begins."""

CATALOGUE = """
version = 1

[plans.brief]
isolation = "shared"
lookup_keys = ["brief"]
min_acu = 0.5
max_acu = 4
backup_retention_days = 1
slots = 25
pool_size = 5
connection_limit = 20
retention_days = 0
purge_without_approval = true
dunning_grace_days = 3

[plans.legacy]
isolation = "shared"
lookup_keys = ["legacy"]
min_acu = 0.5
max_acu = 4
backup_retention_days = 7
slots = 25
pool_size = 5
connection_limit = 20
retention_days = 30

[plans.small]
isolation = "shared"
lookup_keys = ["small"]
product_ids = ["prod_small"]
min_acu = 0.5
max_acu = 4
backup_retention_days = 7
slots = 25
pool_size = 5
connection_limit = 20
custom_domains = 1
retention_days = 30

[plans.large]
isolation = "shared"
lookup_keys = ["large"]
product_ids = ["prod_large"]
min_acu = 0.5
max_acu = 4
backup_retention_days = 7
slots = 25
pool_size = 5
connection_limit = 20
custom_domains = 2
retention_days = 30
dunning_grace_days = 30
trial_plan = "small"
suspend_on_pause_collection = true

[plans.whole]
isolation = "dedicated"
lookup_keys = ["whole"]
product_ids = ["prod_whole"]
min_acu = 0.5
max_acu = 4
backup_retention_days = 7
pool_size = 5
connection_limit = 20
custom_domains = 1
retention_days = 30
dunning_grace_days = 7

[plans.site]
isolation = "shared"
family = "sites"
lookup_keys = ["site"]
min_acu = 0.5
max_acu = 4
backup_retention_days = 7
slots = 25
pool_size = 5
connection_limit = 20
retention_days = 30

[addons.seats]
lookup_keys = ["seats"]
seats = true

[addons.support]
product_ids = ["prod_support"]

[families.sites]
tenants = "many"

[ignore]
product_ids = ["prod_newsletter"]
"""

GRACE = {"brief": 3, "legacy": 14, "small": 14, "large": 30, "whole": 7, "site": 14}
"""Days for which who owes is served: what the customers were promised."""
TRIED_AS = {"large": "small"}
PAUSES = frozenset({"large"})
"""Plans of which a pause of the collection pauses the service too."""
USUAL = ("small", "large")


@dataclass(frozen=True, slots=True)
class Chapter:
    """A change: `moment` at Stripe, and what `customer` did by it. `demands`: of which place it asks for the
    deletion at this moment. `settled`: it has seen what became of all before. `at_once`: nobody else does
    anything between this and what it did last."""

    customer: str
    moment: Moment
    deeds: tuple[Deed, ...] = ()
    demands: str | None = None
    settled: bool = False
    at_once: bool = False


class Customer:
    """Each verb is a change. `zone`: of the platform; `now`: in seconds since 1970."""

    def __init__(self, number: int, rng: random.Random, *, zone: str, now: int) -> None:
        self.rng = rng
        self.chapters: list[Chapter] = []
        self._number, self._zone, self._now = number, zone, now
        self._id = f"cus_{number:08d}"
        self._ago = BEGIN
        self._orders = self._events = self._sent = 0
        self._homes: set[str] = set()
        self._hurries = False

    # ------------------------------------------------------------------------------------ time

    def wait(self, least: float, most: float) -> None:
        """Days, and never until today."""
        self._ago -= min(self.rng.uniform(least, most), self._ago / 2)

    def until(self, ago: float) -> None:
        """So many days ago; not back."""
        self._ago = min(self._ago, ago)

    @property
    def today(self) -> int:
        return int(self._now - self._ago * DAY)

    # ----------------------------------------------------------------------------------- orders

    def orders(
        self,
        plan: str,
        *,
        seats: int = 1,
        place: str = "",
        known: bool = True,
        named: bool = False,
        collection: str = "charge_automatically",
        trial_end: int | None = None,
    ) -> Subscription:
        """The first payment is open; no event tells of it yet. `place`: what it is for, where the customer
        has more than one. `known`: can anybody know what it is? `named`: it says which tenant it is for."""
        order, slug = self._new(Item(f"price_{plan}", plan, f"prod_{plan}", seats)), self._slug(place)
        order.status, order.collection, order.trial_end = "incomplete", collection, trial_end
        order.metadata |= {"tenant": slug} if named else {}
        order.metadata |= {"slug": slug} if place or self._orders == 1 else {}
        home = f"{self._number}{place}"
        deeds: list[Deed] = []
        if home not in self._homes:
            self._homes.add(home)
            deeds.append(Opens(home, self._id, f"{slug}.{self._zone}"))
        deeds.append(Orders(order.id, home, plan if known else None, seats))
        called = f"Customer {self._number}"
        known_as = stripe_objects.customer(self._id, called=called, created=self.today)
        self._put(Moment((known_as, order.body()), None), *deeds)
        return order

    def beside(self, item: Item, *deeds: Deed) -> Subscription:
        """A subscription that nobody is served for."""
        order = self._new(item)
        self.says(order, "customer.subscription.created", *deeds)
        return order

    def _new(self, item: Item) -> Subscription:
        self._orders += 1
        return Subscription(f"sub_{self._number:08d}_{self._orders}", self._id, self.today, [item])

    def _slug(self, place: str) -> str:
        return f"customer-{self._number}{place}"

    def signs_up(self, plan: str, *, seats: int = 1, place: str = "", named: bool = False) -> Subscription:
        """Orders and pays at once."""
        order = self.orders(plan, seats=seats, place=place, named=named)
        self.begins(order)
        return order

    def begins(self, order: Subscription, *deeds: Deed, status: str = "active") -> None:
        """At the checkout, where the customer types its slug and of which Stripe tells beside the
        subscription, in any order; or by hand."""
        order.status = status
        if self.rng.random() < 0.5:
            self.says(order, "customer.subscription.created", Begins(order.id), *deeds)
            return
        slug = order.metadata.pop("slug", None) if order.metadata.get("slug") == self._slug("") else None
        session = stripe_objects.checkout(order, slug=slug)
        self._tell(order, "checkout.session.completed", session, Begins(order.id), *deeds)
        self.says(order, "customer.subscription.created")

    def tries(self, plan: str, *, seats: int) -> Subscription:
        order = self.orders(plan, seats=seats, trial_end=self._now + 5 * DAY)
        tried = Changes(order.id, TRIED_AS.get(plan, plan), order.items[0].quantity)
        self.begins(order, tried, status="trialing")
        return order

    def stays(self, order: Subscription, plan: str, *, pays: bool) -> None:
        """The trial is over."""
        order.status, order.trial_end = "active", None
        told = Changes(order.id, plan, order.items[0].quantity)
        if pays:
            self.says(order, "customer.subscription.updated", told)
        else:
            self.owes(order, told)

    def changes(self, order: Subscription, *, plan: str | None = None, seats: int | None = None) -> None:
        item = order.items[0]
        if plan is not None:
            order.items[0] = item = Item(f"price_{plan}", plan, f"prod_{plan}", item.quantity)
        item.quantity = item.quantity if seats is None else seats
        told = plan or item.product.removeprefix("prod_")
        self.says(order, "customer.subscription.updated", Changes(order.id, told, item.quantity))

    def leaves(self, order: Subscription) -> None:
        order.status, order.ended = "canceled", self.today
        order.owed.clear()
        self.says(order, "customer.subscription.deleted", Leaves(order.id))

    def gives_up_paying(self, order: Subscription) -> None:
        """The first payment never came."""
        order.status, order.ended = "incomplete_expired", self.today
        self.says(order, "customer.subscription.updated", Leaves(order.id))

    def looks(self) -> None:
        """What comes now comes after it has seen what it bought."""
        self.chapters.append(Chapter(self._id, Moment((), None), settled=True))

    def demands_deletion(self) -> None:
        """Once it has seen that its place is closed; and often it has a change of heart at once."""
        demand = Chapter(self._id, Moment((), None), demands=f"{self._number}", settled=True)
        self.chapters.append(demand)
        self._hurries = self.rng.random() < 0.7

    def points(self, order: Subscription, host: str) -> None:
        order.metadata["custom_domain"] = host
        self.says(order, "customer.subscription.updated", Points(str(self._number), host))

    @property
    def own_domain(self) -> str:
        return f"notes.customer-{self._number}.dev"

    # ------------------------------------------------------------------------------------ money

    def owes(
        self, order: Subscription, *deeds: Deed, first: bool = False, due_in: float | None = None
    ) -> Invoice:
        """A bill that was not paid. `due_in`: days that the customer had to pay it, from when it was sent."""
        self._sent += 1
        due = None if due_in is None else int(self.today + due_in * DAY)
        bill = Invoice(f"in_{self._number:08d}_{self._sent}", self.today, first=first, due=due)
        order.owed.append(bill)
        deed = Owes(order.id, bill.id, float(due or bill.created))
        if order.status != "unpaid":
            order.status = "past_due"
        self._bills(order, bill, "invoice.payment_failed", deed, *deeds)
        if self.rng.random() < 0.5:
            self.says(order, "customer.subscription.updated")
        return bill

    def pays(self, order: Subscription, *bills: Invoice) -> None:
        """These, or all."""
        for bill in bills or tuple(order.owed):
            order.owed.remove(bill)
            deeds: tuple[Deed, ...] = (Pays(order.id, bill.id),)
            if not order.owed:
                deeds += (Resumes(order.id),) if order.status == "unpaid" else ()
                deeds += (Begins(order.id),) if bill.first else ()
                order.status = "active"
            self._bills(order, bill, "invoice.paid", *deeds)

    def pays_besides(self, order: Subscription) -> None:
        """A bill of its own, for a change; what is owed stays so."""
        self._sent += 1
        self._bills(order, Invoice(f"in_{self._number:08d}_{self._sent}", self.today), "invoice.paid")

    def is_given_up(self, order: Subscription) -> None:
        order.status = "unpaid"
        self.says(order, "customer.subscription.updated", Halts(order.id))

    def is_paused(self, order: Subscription) -> None:
        order.status = "paused"
        self.says(order, "customer.subscription.paused", Halts(order.id))

    def is_resumed(self, order: Subscription) -> None:
        order.status = "active"
        self.says(order, "customer.subscription.resumed", Resumes(order.id))

    def pauses_collection(self, order: Subscription, *, paused: bool) -> None:
        order.collection_paused = paused
        matters = order.items[0].product.removeprefix("prod_") in PAUSES
        deed = Halts(order.id) if paused else Resumes(order.id)
        self.says(order, "customer.subscription.updated", *([deed] if matters else []))

    # ----------------------------------------------------------------------------------- telling

    def says(self, order: Subscription, type_: str, *deeds: Deed) -> None:
        self._tell(order, type_, None, *deeds)

    def silently(self, order: Subscription, *deeds: Deed) -> None:
        """Stripe changes it and sends no event of it."""
        self._put(Moment((order.body(),), None), *deeds)

    def _bills(self, order: Subscription, bill: Invoice, type_: str, *deeds: Deed) -> None:
        status = "paid" if type_ == "invoice.paid" else "open"
        self._tell(order, type_, bill.body(order, status=status), *deeds)

    def _tell(self, order: Subscription, type_: str, about: dict[str, Any] | None, *deeds: Deed) -> None:
        self._events += 1
        name = f"evt_{self._number:08d}_{self._events}"
        event = stripe_objects.event(name, type_, about or order.told(), created=self.today)
        session = (about,) if about is not None and about["object"] == "checkout.session" else ()
        self._put(Moment((*session, order.body()), event), *deeds)

    def _put(self, moment: Moment, *deeds: Deed) -> None:
        self.chapters.append(Chapter(self._id, moment, deeds, at_once=self._hurries))
        self._hurries = False


# ------------------------------------------------------------------------------------------- stories


def plain(who: Customer) -> None:
    """It pays, and changes its seats, its plan and its mind."""
    rng = who.rng
    order = who.signs_up(rng.choice(USUAL), seats=rng.randint(1, 9))
    for _ in range(rng.randint(1, 5)):
        who.wait(5, 60)
        match rng.randrange(4):
            case 0 if not order.collection_paused:
                who.changes(order, plan=rng.choice(USUAL))
            case 1:
                who.pauses_collection(order, paused=not order.collection_paused)
            case 2 if not order.collection_paused:
                who.is_paused(order)
                who.wait(1, 20)
                who.is_resumed(order)
            case _:
                who.changes(order, seats=rng.randint(1, 500))


def returns(who: Customer) -> None:
    """It falls behind until it is canceled, and comes back with a new subscription, once or twice."""
    rng = who.rng
    plan = rng.choice((*USUAL, "whole"))
    order = who.signs_up(plan, seats=rng.randint(1, 9))
    for _ in range(rng.choice((1, 1, 2))):
        who.wait(20, 90)
        if rng.random() < 0.7:
            who.owes(order)
            who.wait(5, 30)
            if rng.random() < 0.5:
                who.is_given_up(order)
        who.leaves(order)
        if rng.random() < 0.4:
            who.demands_deletion()
        if rng.random() < 0.2:
            return
        who.wait(0, 20)
        plan = plan if plan == "whole" else rng.choice(USUAL)
        order = who.orders(plan, seats=rng.randint(1, 9))
        if rng.random() < 0.3:
            who.says(order, "customer.subscription.created")
            who.gives_up_paying(order)
            order = who.orders(plan, seats=rng.randint(1, 9))
        who.begins(order)


def upgrades(who: Customer) -> None:
    """By a new subscription; the old one is canceled before or after."""
    rng = who.rng
    old = who.signs_up("small", seats=rng.randint(1, 9))
    who.wait(20, 90)
    if rng.random() < 0.5:
        new = who.signs_up("large", seats=rng.randint(10, 99))
        who.wait(0, 3)
        who.leaves(old)
    else:
        who.leaves(old)
        new = who.signs_up("large", seats=rng.randint(10, 99))
    if rng.random() < 0.5:
        who.wait(20, 60)
        who.changes(new, seats=rng.randint(100, 500))


def doubles(who: Customer) -> None:
    """Two checkouts for one thing; one of the two is canceled, or not paid any more."""
    rng = who.rng
    plan = rng.choice(USUAL)
    one = who.signs_up(plan, seats=3)
    who.wait(0, 1)
    other = who.signs_up(plan, seats=5)
    kept, gone = rng.sample((one, other), 2)
    who.wait(1, 30)
    if rng.random() < 0.5:
        who.owes(gone)
        who.wait(1, 30)
        if rng.random() < 0.5:
            who.is_given_up(gone)
    if rng.random() < 0.8:
        who.leaves(gone)
        who.wait(1, 30)
        who.changes(kept, seats=rng.randint(6, 60))


def on_account(who: Customer) -> None:
    """Its invoices are sent and due in thirty days. The last is paid late, or never."""
    rng = who.rng
    plan = rng.choice(("small", "large", "whole"))
    order = who.orders(plan, seats=rng.randint(1, 9), collection="send_invoice")
    who.begins(order)
    late = _near(rng, GRACE[plan])
    who.until(late + 30)
    who.owes(order, due_in=30)
    if rng.random() < 0.4:
        who.until(late / 2)
        who.pays(order)


def lingers(who: Customer) -> None:
    """It is left overdue for half a year, with a new bill each month; the oldest counts."""
    rng = who.rng
    plan = rng.choice(USUAL)
    order = who.signs_up(plan, seats=2)
    months = rng.randint(2, 6)
    newest = rng.uniform(0.5, 29)
    bills = []
    for month in range(months, -1, -1):
        who.until(newest + 30 * month)
        bills.append(who.owes(order))
        if rng.random() < 0.25:
            who.changes(order, seats=rng.randint(3, 30))
            who.pays_besides(order)
    match rng.randrange(4):
        case 0:
            who.pays(order)
        case 1:
            who.pays(order, *bills[:-1])
        case 2:
            who.pays(order, *bills[1:])
        case _:
            pass


def price_rise(who: Customer) -> None:
    """The lookup key goes to a new price. Who bought the old one is known by the product alone."""
    rng = who.rng
    plan = rng.choice(USUAL)
    order = who.signs_up(plan, seats=4)
    who.wait(20, 60)
    order.items[0].key = None
    who.silently(order)
    who.wait(1, 60)
    if rng.random() < 0.5:
        order.items[0].quantity = 7
        who.says(order, "customer.subscription.updated", Changes(order.id, plan, 7))
    _falls_behind(who, order, plan)


def unknown_price(who: Customer) -> None:
    """The key goes to a new price, and nothing else says what was bought."""
    order = who.signs_up("legacy", seats=4)
    who.looks()
    who.wait(20, 60)
    order.items[0].key = None
    who.silently(order, Changes(order.id, None, None))
    who.says(order, "customer.subscription.updated")
    _falls_behind(who, order, "legacy")


def unknown_item(who: Customer) -> None:
    """Something that nobody has listed stands beside the plan."""
    rng = who.rng
    plan = rng.choice(USUAL)
    extra = Item("price_onboarding", None, "prod_onboarding")
    order = who.orders(plan, seats=4)
    if rng.random() < 0.3:
        order.items.append(extra)
        who.silently(order)
    who.begins(order)
    who.wait(20, 60)
    if extra not in order.items:
        order.items.insert(rng.choice((0, 1)), extra)
        who.says(order, "customer.subscription.updated")
    _falls_behind(who, order, plan)


def _falls_behind(who: Customer, order: Subscription, plan: str) -> None:
    """Or not; and pays, or not."""
    rng = who.rng
    if rng.random() < 0.2:
        return
    who.until(_near(rng, GRACE[plan]))
    who.owes(order)
    if rng.random() < 0.5:
        who.wait(0, 1)
        who.is_given_up(order)
    if rng.random() < 0.4:
        who.wait(0, 1)
        who.pays(order)


def _near(rng: random.Random, grace: int) -> float:
    """Days: an hour short of the grace or an hour over it, or anything."""
    if grace and rng.random() < 0.5:
        return grace + rng.choice((-1, 1)) / 24
    return rng.uniform(0.5, 3 * grace + 20)


def foreign(who: Customer) -> None:
    """It reads the company's newsletter too."""
    rng = who.rng

    paper = Item("price_letter", None, "prod_newsletter")
    letter = who.beside(paper) if rng.random() < 0.5 else None
    order = who.signs_up(rng.choice(USUAL), seats=2)
    letter = letter or who.beside(paper)
    who.wait(10, 30)
    if rng.random() < 0.5:
        letter.status, letter.ended = "canceled", who.today
        who.says(letter, "customer.subscription.deleted")
        who.wait(10, 30)
    if rng.random() < 0.4:
        who.leaves(order)
        if rng.random() < 0.5:
            who.demands_deletion()


def addons(who: Customer) -> None:
    """It buys seats or support by a subscription of its own, which holds up nobody and serves nobody."""
    rng = who.rng
    order = who.signs_up("small", seats=3)
    who.wait(10, 30)
    seats = rng.random() < 0.6
    item = Item("price_seats", "seats", "prod_seats", 20) if seats else Item("p", None, "prod_support")
    more = who.beside(item, *([Changes(order.id, "small", 20)] if seats else []))
    who.wait(10, 30)
    match rng.randrange(4):
        case 0:
            more.status = "unpaid"
            who.says(more, "customer.subscription.updated", Changes(order.id, "small", 3))
        case 1:
            more.status, more.ended = "canceled", who.today
            who.says(more, "customer.subscription.deleted", Changes(order.id, "small", 3))
        case 2:
            who.leaves(order)
        case _:
            _falls_behind(who, order, "small")


def trial(who: Customer) -> None:
    """It tries, and stays, goes, or does not pay its first bill."""
    rng = who.rng
    plan = rng.choice(USUAL)
    who.until(40)
    order = who.tries(plan, seats=2)
    who.wait(5, 14)
    match rng.randrange(4):
        case 0:
            who.stays(order, plan, pays=True)
        case 1:
            who.leaves(order)
        case 2:
            who.stays(order, plan, pays=False)
        case _:
            pass


def never(who: Customer) -> None:
    """The first payment never came; at a second attempt it did, or did not."""
    rng = who.rng
    order = who.orders("small", seats=2)
    who.says(order, "customer.subscription.created")
    who.wait(0, 1)
    who.gives_up_paying(order)
    match rng.randrange(3):
        case 0:
            who.wait(1, 30)
            who.signs_up("small", seats=4)
        case 1:
            again = who.orders("small", seats=4)
            who.says(again, "customer.subscription.created")
        case _:
            pass


def first_charge(who: Customer) -> None:
    """Overdue from the first bill on: it has never paid, so it has no grace."""
    rng = who.rng
    order = who.orders("small", seats=2)
    who.until(rng.uniform(0.5, 40))
    who.owes(order, first=True)
    if rng.random() < 0.5:
        who.pays(order)


def domain(who: Customer) -> None:
    """Its own domain follows it when it leaves, and comes back without saying it again."""
    rng = who.rng
    order = who.signs_up(rng.choice(USUAL), seats=2)
    who.points(order, who.own_domain)
    who.looks()
    for _ in range(rng.choice((0, 1, 2))):
        who.wait(20, 60)
        if rng.random() < 0.5:
            who.owes(order)
            who.wait(5, 20)
        if rng.random() < 0.5:
            new = who.signs_up("large", seats=3)
            who.leaves(order)
        else:
            who.leaves(order)
            who.wait(0, 10)
            new = who.signs_up("large", seats=3)
        order = new


def brief(who: Customer) -> None:
    """Its data goes as soon as it has left, and it is back at once: before that, or after. What it comes back
    with may be nothing that anybody knows."""
    rng = who.rng
    order = who.signs_up("brief", seats=2)
    for _ in range(rng.choice((1, 1, 2))):
        who.wait(10, 30)
        early, known = rng.random() < 0.5, rng.random() < 0.8
        if not early:
            who.leaves(order)
        new = who.orders("brief" if known else "mystery", seats=3, known=known)
        if early:
            who.leaves(order)
        if rng.random() < 0.2:
            who.gives_up_paying(new)
            return
        who.begins(new)
        if not known:
            return
        order = new


def regrets(who: Customer) -> None:
    """It demands that its data is deleted, and buys again while that is being done, or after."""
    rng = who.rng
    order = who.signs_up(rng.choice((*USUAL, "whole")), seats=2)
    who.looks()
    who.wait(20, 60)
    who.leaves(order)
    who.demands_deletion()
    new = who.orders("small", seats=3)
    if rng.random() < 0.8:
        who.begins(new)
    if rng.random() < 0.3:
        who.looks()
        who.leaves(new)


def several(who: Customer) -> None:
    """Two sites of one customer, each with a subscription of its own; it leaves one, or both, and returns."""
    rng = who.rng
    orders = {place: who.signs_up("site", seats=2, place=place) for place in ("-b", "-c")}
    who.looks()
    who.wait(20, 60)
    left = rng.choice((("-b",), ("-c",), ("-b", "-c")))
    for place in left:
        who.leaves(orders[place])
        who.wait(1, 10)
    for place in rng.sample(left, rng.randint(0, len(left))):
        who.signs_up("site", seats=5, place=place, named=len(left) > 1)


STORIES: Mapping[str, Callable[[Customer], None]] = {
    story.__name__: story
    for story in (
        plain,
        returns,
        upgrades,
        doubles,
        on_account,
        lingers,
        price_rise,
        unknown_price,
        unknown_item,
        foreign,
        addons,
        trial,
        never,
        first_charge,
        domain,
        brief,
        regrets,
        several,
    )
}


def tell(names: Sequence[str], *, seed: int, zone: str, now: int) -> list[Chapter]:
    """One customer for each name, its changes in their order, those of all as the seed mixes them."""
    rng = random.Random(seed)
    told: list[list[Chapter]] = []
    for number, name in enumerate(names):
        who = Customer(number, random.Random(rng.getrandbits(64)), zone=zone, now=now)
        STORIES[name](who)
        told.append(who.chapters)
    turns = [number for number, chapters in enumerate(told) for c in chapters if not c.at_once]
    rng.shuffle(turns)
    left = [deque(chapters) for chapters in told]
    mixed = []
    for number in turns:
        mixed.append(left[number].popleft())
        while left[number] and left[number][0].at_once:
            mixed.append(left[number].popleft())
    return mixed
