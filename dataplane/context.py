"""Which tenant the code that runs now works for.

A context variable, so that threads, coroutines and greenlets each have their own, and one that has
none gets an error and not somebody else's data: there is no default tenant.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import psycopg

from dataplane.async_pools import AsyncKeyedPools
from dataplane.errors import NoTenant
from dataplane.pools import KeyedPools
from dataplane.tenant_config import TenantConfig

Pools = KeyedPools | AsyncKeyedPools


@dataclass(frozen=True, slots=True, eq=False)
class Bound:
    """A tenant, and the pools through which its database is reached (None: not reached here)."""

    config: TenantConfig
    pools: Pools | None


_bound: ContextVar[Bound | None] = ContextVar("dataplane_tenant", default=None)


def bind(bound: Bound | None) -> None:
    """For middleware: set the tenant of a request."""
    _bound.set(bound)


def release(bound: Bound | None) -> None:
    """For middleware: the request has ended. Afterwards there is no tenant, whatever was bound before
    it; where another request was begun meanwhile its tenant stays."""
    if _bound.get() is bound:
        _bound.set(None)


def current_tenant() -> TenantConfig:
    """Raises NoTenant outside of a tenant's request or job."""
    return _current().config


def bound_tenant() -> TenantConfig | None:
    """As `current_tenant`, and None where there is none."""
    bound = _bound.get()
    return None if bound is None else bound.config


@contextlib.contextmanager
def use_tenant(config: TenantConfig, pools: Pools | None = None) -> Iterator[TenantConfig]:
    """Work for this tenant inside the block: jobs, scripts, tests. `pools`: None keeps those of the
    surrounding block."""
    outer = _bound.get()
    token = _bound.set(Bound(config, pools if pools is not None or outer is None else outer.pools))
    try:
        yield config
    finally:
        _bound.reset(token)


@contextlib.contextmanager
def no_tenant() -> Iterator[None]:
    """Work for nobody inside the block: what asks for a tenant there raises."""
    token = _bound.set(None)
    try:
        yield
    finally:
        _bound.reset(token)


@contextlib.contextmanager
def tenant_connection(*, timeout: float | None = None) -> Iterator[psycopg.Connection[Any]]:
    """A connection to the current tenant's database, in one transaction. Raises NoTenant and what
    `KeyedPools.connection` raises."""
    with current_pools().connection(current_tenant(), timeout=timeout) as conn:
        yield conn


@contextlib.asynccontextmanager
async def tenant_connection_async(
    *, timeout: float | None = None
) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
    """As `tenant_connection`, for coroutines."""
    bound = _current()
    if not isinstance(bound.pools, AsyncKeyedPools):
        raise NoTenant("the current tenant was bound without pools for coroutines")
    async with bound.pools.connection(bound.config, timeout=timeout) as conn:
        yield conn


def current_pools() -> KeyedPools:
    """The pools for threads that the current tenant is reached through. Raises NoTenant."""
    pools = _current().pools
    if not isinstance(pools, KeyedPools):
        raise NoTenant("the current tenant was bound without pools for threads")
    return pools


def _current() -> Bound:
    bound = _bound.get()
    if bound is None:
        raise NoTenant
    return bound
