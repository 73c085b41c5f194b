"""What happened at Stripe, in the order in which it happened: a file of JSON lines.

Each line is an object as Stripe gives it: an `event`, or a `subscription`, `customer` or
`checkout.session` as it was from then on. What `stripe events list` prints can be taken as it is, since
an event carries its object; where the file has lines of an object's own, they count, and not the copies
in events.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controlplane.domain.errors import Invalid
from controlplane.localcloud.fakes.billing import require_possible

KEPT = ("subscription", "customer", "checkout.session")
MAX_LINE = 1_000_000  # characters
_NEEDED: dict[str, dict[str, type]] = {
    "event": {"id": str, "type": str, "created": int, "data": dict},
    "subscription": {"id": str, "customer": str, "status": str, "created": int, "items": dict},
    "customer": {"id": str},
    "checkout.session": {"id": str},
}


@dataclass(frozen=True, slots=True)
class Moment:
    """`objects` became so, and then Stripe sent `event`; None where it sent none."""

    objects: tuple[dict[str, Any], ...]
    event: dict[str, Any] | None


def load(path: Path) -> list[Moment]:
    """Raises Invalid, which names the line and the field."""
    found = list(_objects(path))
    if not any(item["object"] == "event" for item in found):
        raise Invalid(path.name, "at least one event")
    stated = {item["id"] for item in found if item["object"] != "event"}
    moments = [_moment(item, stated) for item in found]
    _check_order(path.name, moments)
    return moments


def _check_order(name: str, moments: Sequence[Moment]) -> None:
    """A recording that is the wrong way round shows where a subscription that has ended lives again."""
    status: dict[str, str] = {}
    for item in (item for moment in moments for item in moment.objects if item["object"] == "subscription"):
        try:
            require_possible(item["id"], status.get(item["id"], ""), item["status"])
        except Invalid as error:
            raise Invalid(
                f"{name}: {error.field}", f"{error.expected}; the oldest comes first", got=item["status"]
            ) from error
        status[item["id"]] = item["status"]


def dump(moments: Iterable[Moment], path: Path) -> None:
    with path.open("w", encoding="utf-8") as file:
        for moment in moments:
            for item in (*moment.objects, *([moment.event] if moment.event else [])):
                file.write(json.dumps(item, separators=(",", ":")) + "\n")


def last_objects(moments: Sequence[Moment]) -> dict[str, dict[str, Any]]:
    """Each object as it is in the end, by id."""
    return {item["id"]: item for moment in moments for item in moment.objects}


def _moment(item: dict[str, Any], stated: set[str]) -> Moment:
    if item["object"] != "event":
        return Moment((item,), None)
    about = item["data"].get("object")
    if not isinstance(about, dict) or about.get("object") not in KEPT or about.get("id") in stated:
        return Moment((), item)
    if item["type"] == "customer.deleted":
        return Moment((), item)
    _check(about, f"event {item['id']}, data.object.")
    return Moment((about,), item)


def _objects(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            where = f"{path.name} line {number}"
            if len(line) > MAX_LINE:
                raise Invalid(where, f"at most {MAX_LINE} characters", got=len(line))
            try:
                item = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise Invalid(where, "a JSON object") from error
            if not isinstance(item, dict) or item.get("object") not in _NEEDED:
                raise Invalid(f"{where}: object", f"one of {', '.join(_NEEDED)}")
            _check(item, f"{where}: ")
            yield item


def _check(item: dict[str, Any], where: str) -> None:
    for field, kind in _NEEDED[item["object"]].items():
        if not isinstance(item.get(field), kind):
            raise Invalid(f"{where}{field}", kind.__name__)
