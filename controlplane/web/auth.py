"""Who is calling, and may they?

Bearer tokens come from the settings, each with a name that the audit trail shows and a role. A token
is compared by digest with every one there is, in constant time, so neither its length nor its first
letters can be found by timing. Roles form a ladder of what they may do, with one rung beside it: the
data plane may ask where a host leads and nothing else.

    operator   reads and acts
    viewer     reads
    dataplane  resolves hosts
"""

from __future__ import annotations

import functools
import hashlib
import hmac
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import ParamSpec, TypeVar

from flask import g, request

from controlplane.domain.errors import ControlPlaneError
from controlplane.domain.job import Lane
from controlplane.settings.readers import ApiToken
from controlplane.store.job import caused_by

P = ParamSpec("P")
R = TypeVar("R")


class Role(StrEnum):
    OPERATOR = "operator"
    VIEWER = "viewer"
    DATAPLANE = "dataplane"


READERS = frozenset({Role.OPERATOR, Role.VIEWER})
OPERATORS = frozenset({Role.OPERATOR})
RESOLVERS = frozenset(Role)


class Unauthorized(ControlPlaneError):
    """A valid bearer token is required: `Authorization: Bearer <token>`."""


class Forbidden(ControlPlaneError):
    """The token's role does not allow this."""


@dataclass(frozen=True, slots=True)
class Caller:
    name: str
    role: Role

    @property
    def actor(self) -> str:
        """As the audit trail names it, apart from the control plane's own actors."""
        return f"api:{self.name}"


class Guard:
    """Admits callers by the tokens it was made with, of which it keeps only digests. `notify`: of the lanes
    that have work after a request."""

    def __init__(self, tokens: Iterable[ApiToken], notify: Callable[[Lane], None]) -> None:
        self._notify = notify
        self._known = [(_digest(t.token.encode()), Caller(t.name, Role(t.role))) for t in tokens]

    def allow(self, roles: frozenset[Role]) -> Callable[[Callable[P, R]], Callable[P, R]]:
        """Decorate a view: only callers of these roles get in."""

        def decorate(view: Callable[P, R]) -> Callable[P, R]:
            @functools.wraps(view)
            def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
                caller = self._caller()
                if caller.role not in roles:
                    needed = " or ".join(sorted(roles))
                    raise Forbidden(f"this needs a token of role {needed}, this one's is {caller.role}")
                with caused_by(request=g.request_id) as lanes:
                    answer = view(*args, **kwargs)
                for lane in lanes:  # what was asked for is committed by now
                    self._notify(lane)
                return answer

            return guarded

        return decorate

    def _caller(self) -> Caller:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        offered = _digest(token.strip().encode("utf-8", "surrogateescape"))
        found = None
        for digest, caller in self._known:
            if hmac.compare_digest(digest, offered):
                found = caller
        if found is None or scheme.lower() != "bearer":
            raise Unauthorized
        g.caller = found
        return found


def caller() -> Caller:
    """Who made this request; within a guarded view."""
    found: Caller = g.caller
    return found


def _digest(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()
