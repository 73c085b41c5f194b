"""Which tenant the code that runs now works for.

A context variable, so that threads, coroutines and greenlets each have their own, and one that has
none gets an error and not somebody else's data: there is no default tenant.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from contextvars import ContextVar, Token
from dataclasses import dataclass
from typing import Any

import psycopg

from dataplane.async_pools import AsyncKeyedPools
from dataplane.contract import TenantConfig
from dataplane.errors import NoTenant
from dataplane.pools import KeyedPools

Pools = KeyedPools | AsyncKeyedPools


@dataclass(frozen=True, slots=True)
class Bound:
    """A tenant, and the pools through which its database is reached (None: not reached here)."""

    config: TenantConfig
    pools: Pools | None


_bound: ContextVar[Bound | None] = ContextVar("dataplane_tenant", default=None)


def bind(bound: Bound | None) -> Token[Bound | None]:
    """For middleware: set the tenant until `unbind`, in the same context."""
    return _bound.set(bound)


def unbind(token: Token[Bound | None]) -> None:
    _bound.reset(token)


def current_tenant() -> TenantConfig:
    """Raises NoTenant outside of a tenant's request or job."""
    return _current().config


@contextlib.contextmanager
def use_tenant(config: TenantConfig, pools: Pools | None = None) -> Iterator[TenantConfig]:
    """Work for this tenant inside the block: jobs, scripts, tests. `pools`: None keeps those of the
    surrounding block."""
    outer = _bound.get()
    token = bind(Bound(config, pools if pools is not None or outer is None else outer.pools))
    try:
        yield config
    finally:
        unbind(token)


@contextlib.contextmanager
def tenant_connection(*, timeout: float | None = None) -> Iterator[psycopg.Connection[Any]]:
    """A connection to the current tenant's database, in one transaction. Raises NoTenant and what
    `KeyedPools.connection` raises."""
    bound = _current()
    if not isinstance(bound.pools, KeyedPools):
        raise NoTenant("the current tenant was bound without pools for threads")
    with bound.pools.connection(bound.config, timeout=timeout) as conn:
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


def _current() -> Bound:
    bound = _bound.get()
    if bound is None:
        raise NoTenant
    return bound
