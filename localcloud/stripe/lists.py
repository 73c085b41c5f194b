"""Stripe's lists: newest first, `limit`, `starting_after`, `ending_before`, `has_more`."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Any

from controlplane.localcloud.servers.fake_http.store import Object, ObjectStore
from controlplane.localcloud.stripe.errors import StripeError, no_such
from controlplane.localcloud.stripe.params import Params

DEFAULT_LIMIT, MAX_LIMIT = 10, 100


def page(
    store: ObjectStore, params: Params, kind: str, *, url: str, matches: Callable[[Object], bool]
) -> dict[str, Any]:
    """One page of the objects of `kind` that match. Reads the paging parameters, and refuses the
    ones that nobody has read."""
    limit = params.integer("limit", low=1, high=MAX_LIMIT) or DEFAULT_LIMIT
    after, before = params.string("starting_after"), params.string("ending_before")
    params.finish()
    if after and before:
        raise StripeError("You may only specify one of starting_after and ending_before.")
    if before:
        rising = store.oldest(kind, after=_position(store, kind, before, "ending_before"))
        found = list(islice((item for item in rising if matches(item)), limit + 1))
        data = found[:limit][::-1]
    else:
        edge = _position(store, kind, after, "starting_after") if after else None
        falling = store.newest(kind, before=edge)
        found = list(islice((item for item in falling if matches(item)), limit + 1))
        data = found[:limit]
    return {"object": "list", "url": url, "has_more": len(found) > limit, "data": data}


def of(data: list[Any], url: str) -> dict[str, Any]:
    """A list that is all there."""
    return {"object": "list", "url": url, "has_more": False, "data": data}


def _position(store: ObjectStore, kind: str, key: str, param: str) -> int:
    position = store.position(kind, key)
    if position is None:
        raise no_such(kind, key, param=param, status=400)
    return position
