"""Every way in which a request can fail to reach its tenant's database.

Each error carries what an HTTP answer needs, because the person who sees it is a customer of a
customer: `status`, `code` (stable, for machines), `retry_after` (seconds, where waiting helps) and
two sentences for people. None of them names a database, a login or an address.

    DataPlaneError
    ├── RoutingError             the host does not lead to a tenant that may be served
    │   ├── BadHost              400  the Host header is malformed (404 where it is an IP address)
    │   ├── UnknownHost          404  nobody lives here, and the tiers behind said so
    │   ├── Moved                308  the tenant has another host now
    │   ├── Suspended            403
    │   ├── Provisioning         503  made at this moment
    │   ├── BeingUpdated         503  its schema is of a release that this version can't serve
    │   └── RoutingUnavailable   503  nothing that knows could be asked: never a 404
    ├── DatabaseError            the tenant is known, its database can't be used now
    │   ├── PoolExhausted        503  every connection that it may have is in use
    │   ├── DatabaseWaking       503  it was paused and is starting
    │   ├── DatabaseUnavailable  503  it does not answer
    │   ├── CredentialUnavailable 503 its login could not be fetched
    │   └── CrossTenantDetected  500  a connection led to another tenant's database; it was destroyed
    ├── NoTenant                 500  a programming error: a connection was asked for without a tenant
    └── TenantChanged            500  what was begun for one tenant goes on under another: a job whose host
                                      changed hands, a session or an object kept beyond its request
"""

from __future__ import annotations

from typing import ClassVar


class DataPlaneError(Exception):
    """The request could not be taken to its tenant."""

    status: int = 500
    code: ClassVar[str] = "data-plane"
    title: ClassVar[str] = "Something went wrong"
    explanation: ClassVar[str] = "The request could not be completed."

    def __init__(self, message: str | None = None, *, retry_after: float | None = None) -> None:
        """`retry_after`: seconds after which trying again makes sense."""
        super().__init__(message or (type(self).__doc__ or "").strip().splitlines()[0])
        self.retry_after = retry_after


class RoutingError(DataPlaneError):
    """The host does not lead to a tenant that may be served."""


class BadHost(RoutingError):
    """The Host header names no host that could be a tenant's."""

    code = "bad-host"
    title = "Bad request"
    explanation = "The address of this request is not a valid host name."

    def __init__(self, reason: str, message: str) -> None:
        """`reason`: empty, duplicate, port, ip, length, charset, label or idn."""
        super().__init__(f"host: {message}")
        self.reason = reason
        self.status = 404 if reason == "ip" else 400


class UnknownHost(RoutingError):
    """No tenant lives at this host."""

    status = 404
    code = "unknown-host"
    title = "Nothing here"
    explanation = "No customer of ours has this address. Please check its spelling."


class Moved(RoutingError):
    """The tenant at this host is at another one now."""

    status = 308
    code = "moved"
    title = "Moved"
    explanation = "This account has a new address."

    def __init__(self, to: str) -> None:
        """`to`: that host, as the signed entry names it."""
        super().__init__()
        self.to = to


class Suspended(RoutingError):
    """The tenant at this host is suspended."""

    status = 403
    code = "suspended"
    title = "Suspended"
    explanation = "This account is suspended. Its data is kept. Its owner can lift this in the billing page."


class Provisioning(RoutingError):
    """The tenant at this host is being set up."""

    status = 503
    code = "provisioning"
    title = "Almost there"
    explanation = "This account is being set up at this moment. This page works as soon as it is ready."


class BeingUpdated(RoutingError):
    """The tenant's schema is of a release that this version of the application does not serve."""

    status = 503
    code = "being-updated"
    title = "Being updated"
    explanation = (
        "This account is being updated at this moment. This page works again as soon as that is done."
    )


class RoutingUnavailable(RoutingError):
    """Whether this host has a tenant can't be found out at the moment."""

    status = 503
    code = "routing-unavailable"
    title = "Back in a moment"
    explanation = "This address can't be looked up at the moment. Nothing is lost; please try again."


class DatabaseError(DataPlaneError):
    """The tenant's database can't be used at the moment."""

    status = 503
    code = "database"
    title = "Back in a moment"
    explanation = "The data of this account can't be reached at the moment. Nothing is lost."


class PoolExhausted(DatabaseError):
    """Every connection that this tenant may have is in use."""

    code = "busy"
    title = "Very busy"
    explanation = "There are more requests than this account can answer at once. Please try again."


class DatabaseWaking(DatabaseError):
    """The tenant's database was paused and is starting."""

    code = "waking"
    title = "Waking up"
    explanation = "The database of this account was asleep and is starting. That can take a minute."


class DatabaseUnavailable(DatabaseError):
    """The tenant's database does not answer."""

    code = "database-unavailable"


class CredentialUnavailable(DatabaseError):
    """The login of the tenant's database could not be fetched."""

    code = "credential-unavailable"


class CrossTenantDetected(DatabaseError):
    """A connection led to another tenant's database, and was destroyed before anybody used it."""

    status = 500
    code = "cross-tenant"
    title = "Stopped for safety"
    explanation = "A safety check stopped this request. Our staff has been notified."


class NoTenant(DataPlaneError):
    """A connection or the current tenant was asked for outside of a tenant's request."""

    code = "no-tenant"


class TenantChanged(DataPlaneError):
    """What was begun for one tenant goes on under another."""

    code = "tenant-changed"
