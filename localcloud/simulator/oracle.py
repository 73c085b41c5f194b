"""Who is to be served, by what customers did; and what their pages show that is not so.

It imports nothing of the product, so no rule of billing can be wrong in both. What it knows is what a
customer's own lawyer would: who ordered what, since when which bill is owed, which was paid, who left, which
rows were written where. Of the product it sees what any visitor sees, the answer of a page, and one thing
more: whether what stands behind a page is being deleted. Three rules follow from that.

    who pays is served, with its own rows, no others and all of them
    who has not paid for longer than its plan's grace is not served, nor who stopped or has left
    nothing is being deleted of a customer that has an order which may still be paid

A customer whose data was deleted while it had no order left has no claim to it. It may come again, and is
then served at a page that it is told of, where its new rows are.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

DAY = 86_400.0


class Seen(StrEnum):
    """What a page answers."""

    SERVED = "served"
    SUSPENDED = "suspended"
    BEING_MADE = "being made"
    NOT_THERE = "not there"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class Page:
    """`rows`, `plan` and `seats`: of one that is served."""

    seen: Seen
    rows: tuple[str, ...] = ()
    plan: str | None = None
    seats: int | None = None


class Deletion(StrEnum):
    """Of what stands behind a host. `BEGUN`: there is no way back."""

    ASKED = "asked for"
    BEGUN = "begun"


@dataclass(frozen=True, slots=True)
class Opens:
    """A customer's place: what it buys for one purpose, and where it expects to find it."""

    home: str
    customer: str
    host: str


@dataclass(frozen=True, slots=True)
class Orders:
    """Nothing is paid yet. `plan`: None for something that nobody could know: a person has to say what
    becomes of it, and until then nothing of its customer is deleted."""

    order: str
    home: str
    plan: str | None
    seats: int


@dataclass(frozen=True, slots=True)
class Begins:
    """It was paid for, or tried, or is to be paid later as agreed."""

    order: str


@dataclass(frozen=True, slots=True)
class Changes:
    """`plan`, `seats`: None for one that nobody could know any more."""

    order: str
    plan: str | None
    seats: int | None


@dataclass(frozen=True, slots=True)
class Owes:
    """`since`: in seconds since 1970, from which on the grace counts."""

    order: str
    bill: str
    since: float


@dataclass(frozen=True, slots=True)
class Pays:
    order: str
    bill: str


@dataclass(frozen=True, slots=True)
class Halts:
    """Nobody tries to collect any more, or it is paused."""

    order: str


@dataclass(frozen=True, slots=True)
class Resumes:
    order: str


@dataclass(frozen=True, slots=True)
class Leaves:
    """For ever."""

    order: str


@dataclass(frozen=True, slots=True)
class Points:
    """The customer has a domain of its own for its place."""

    home: str
    host: str


Deed = Opens | Orders | Begins | Changes | Owes | Pays | Halts | Resumes | Leaves | Points


@dataclass(slots=True)
class _Order:
    home: str
    plan: str | None
    seats: int | None
    grace_of: str | None
    """The last plan that was known."""
    begun: bool = False
    halted: bool = False
    ended: bool = False
    debts: dict[str, float] = field(default_factory=dict)


@dataclass(slots=True)
class _Home:
    customer: str
    host: str
    domain: str | None = None
    rows: list[str] = field(default_factory=list)
    served_once: bool = False
    forgotten: list[str] = field(default_factory=list)
    """Hosts of what was deleted when nothing was owed for it any more."""
    wronged: bool = False
    """Its data is being deleted, which was said."""


class Oracle:
    """`grace`: days for which who owes is served, by the name of the plan."""

    def __init__(self, grace: Mapping[str, int]) -> None:
        self._grace = grace
        self._orders: dict[str, _Order] = {}
        self._homes: dict[str, _Home] = {}
        self.deleted = 0
        """Places whose rows were deleted when nothing was ordered for them any more."""

    # ------------------------------------------------------------------------ what customers did

    def did(self, deed: Deed) -> None:
        match deed:
            case Opens():
                self._homes.setdefault(deed.home, _Home(deed.customer, deed.host))
            case Points():
                self._homes[deed.home].domain = deed.host
            case Orders():
                self._orders[deed.order] = _Order(deed.home, deed.plan, deed.seats, deed.plan)
            case _:
                self._follow(self._orders[deed.order], deed)

    def _follow(self, order: _Order, deed: Begins | Changes | Owes | Pays | Halts | Resumes | Leaves) -> None:
        match deed:
            case Begins():
                order.begun = True
            case Changes():
                order.plan, order.seats = deed.plan, deed.seats
                order.grace_of = deed.plan or order.grace_of
            case Owes():
                order.debts[deed.bill] = deed.since
            case Pays():
                del order.debts[deed.bill]
            case Halts():
                order.halted = True
            case Resumes():
                order.halted = False
            case Leaves():
                order.ended = True

    def wrote(self, home: str, row: str) -> None:
        """The page took this row."""
        self._homes[home].rows.append(row)

    def hosts(self) -> dict[str, str]:
        """Where each place is expected to be found."""
        return {name: home.host for name, home in self._homes.items()}

    def hosts_of(self, customer: str) -> dict[str, str]:
        return {name: home.host for name, home in self._homes.items() if home.customer == customer}

    def told(self, hosts: Mapping[str, Sequence[str]]) -> None:
        """The hosts that each customer was told of, in that order: who begins anew after a deletion goes to
        the newest."""
        for home in self._homes.values():
            new = [host for host in hosts.get(home.customer, ()) if host not in home.forgotten]
            if home.forgotten and new:
                home.host = new[-1]

    # ----------------------------------------------------------------------- what does not hold

    def deletions(self, found: Mapping[str, Deletion]) -> list[str]:
        """Call it before anything that a customer does. `found`: by host."""
        wrong = []
        for name, home in self._homes.items():
            if found.get(home.host) is not Deletion.BEGUN or home.host in home.forgotten or home.wronged:
                continue
            if open_ := self._open(name):
                home.wronged = True
                wrong.append(f"{home.host}: its rows are being deleted, and it has {', '.join(open_)}")
            else:
                self.deleted += 1
            home.forgotten.append(home.host)
            home.rows.clear()
            home.served_once = False
        return wrong

    def judge(
        self,
        page: Callable[[str], Page],
        found: Mapping[str, Deletion],
        *,
        now: float,
        of: Collection[str] | None = None,
    ) -> list[str]:
        """At a moment when nothing is left to do. `found`: by host. `of`: the customers of whose last deed
        the product can know; None for all. Of any other it is wrong only that rows are lost or another's."""
        wrong = self.deletions(found)
        for name, home in self._homes.items():
            answer = page(home.host)
            strict = of is None or home.customer in of
            home.served_once |= answer.seen is Seen.SERVED
            said = self._of_rows(home, answer)
            if strict and not home.wronged:
                said += self._of_service(name, home, answer, now)
                if found.get(home.host) is Deletion.ASKED and (open_ := self._open(name)):
                    said.append(f"a deletion is asked for, and it has {', '.join(open_)}")
                if home.domain is not None and of is None:
                    said += self._of_domain(home, page(home.domain), answer)
            wrong += [f"{home.host}: {what}" for what in said]
        return wrong

    def _of_rows(self, home: _Home, answer: Page) -> list[str]:
        if answer.seen is not Seen.SERVED:
            return []
        lost, foreign = set(home.rows) - set(answer.rows), set(answer.rows) - set(home.rows)
        said = [f"served without its rows {', '.join(sorted(lost))}"] if lost else []
        return said + ([f"served with another's rows {', '.join(sorted(foreign))}"] if foreign else [])

    def _of_service(self, name: str, home: _Home, answer: Page, now: float) -> list[str]:
        orders = self._of(name).values()
        if any(self._is_a_riddle(order) for order in orders):
            return []
        served = [order for order in orders if self._is_served(order, now)]
        if not served:
            return self._of_refusal(name, home, answer, now)
        if answer.seen is not Seen.SERVED:
            return [f"pays, and its page is {answer.seen}"]
        if len(served) > 1:
            return []
        ordered = {"as plan": (served[0].plan, answer.plan), "seats": (served[0].seats, answer.seats)}
        return [
            f"has ordered {wanted} {what}, is served with {got}"
            for what, (wanted, got) in ordered.items()
            if wanted not in (None, got)
        ]

    def _of_refusal(self, name: str, home: _Home, answer: Page, now: float) -> list[str]:
        """It is not to be served. Who may still pay for what it had is told that it is suspended."""
        why_not = self._why_not(name, now)
        if answer.seen is Seen.SERVED:
            return [f"served, and {why_not}"]
        wanted = answer.seen
        if not self._open(name):
            wanted = Seen.NOT_THERE
        elif self._in_debt(name) and home.served_once:
            wanted = Seen.SUSPENDED
        return [] if answer.seen is wanted else [f"{answer.seen}, should be {wanted}: {why_not}"]

    def _of_domain(self, home: _Home, there: Page, here: Page) -> list[str]:
        """As at the other host."""
        if there == here:
            return []
        return [f"{here.seen}, at its own domain {home.domain} {there.seen}"]

    def _is_a_riddle(self, order: _Order) -> bool:
        return order.grace_of is None and order.begun and not order.ended

    def _is_served(self, order: _Order, now: float) -> bool:
        if not order.begun or order.halted or order.ended or order.grace_of is None:
            return False
        grace = self._grace[order.grace_of] * DAY
        return all(now - since < grace for since in order.debts.values())

    def _of(self, name: str) -> dict[str, _Order]:
        return {key: order for key, order in self._orders.items() if order.home == name}

    def _open(self, name: str) -> list[str]:
        """Orders that may still be paid."""
        return [key for key, order in self._of(name).items() if not order.ended]

    def _in_debt(self, name: str) -> bool:
        return any(order.begun and not order.ended for order in self._of(name).values())

    def _why_not(self, name: str, now: float) -> str:
        words = []
        for key, order in self._of(name).items():
            if order.ended:
                words.append(f"{key} has ended")
            elif not order.begun:
                words.append(f"{key} was never paid")
            elif order.halted:
                words.append(f"{key} is not collected any more")
            else:
                days = (now - min(order.debts.values())) / DAY
                words.append(f"{key} is owed for {days:.1f} days, the grace of {order.grace_of} is over")
        return "; ".join(words) or "it has ordered nothing"
