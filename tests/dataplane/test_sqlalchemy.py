"""One SQLAlchemy engine, whichever tenant is current."""

from __future__ import annotations

import contextvars
import threading

import pytest
from sqlalchemy import Engine, String, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from dataplane.context import use_tenant
from dataplane.errors import NoTenant, PoolExhausted
from dataplane.pools import KeyedPools
from dataplane.sqlalchemy import tenant_engine
from tests.dataplane.tenants import TenantDatabase


class Base(DeclarativeBase):
    """Its classes are the same in every tenant's database."""


class Note(Base):
    __tablename__ = "note"
    id: Mapped[int] = mapped_column(primary_key=True)
    body: Mapped[str] = mapped_column(String)


@pytest.fixture
def engine() -> Engine:
    return tenant_engine()


def test_a_session_is_the_current_tenants(
    engine: Engine, pools: KeyedPools, tenants: list[TenantDatabase]
) -> None:
    for _ in range(2):
        for tenant in tenants:
            with use_tenant(tenant.config(), pools), Session(engine) as session:
                bodies = session.scalars(select(Note.body).where(Note.body.like("canary%"))).all()
                assert bodies == [tenant.canary]
    assert pools.statistics.opened == 3, "given back and reused"
    with use_tenant(tenants[0].config(), pools), Session(engine) as session:
        session.add(Note(body="by the ORM"))
        session.commit()
        note = session.scalars(select(Note).where(Note.body == "by the ORM")).one()
        session.delete(note)
        session.commit()
    assert pools.open_connections == (3, 0)


def test_without_a_tenant_there_is_no_connection(engine: Engine) -> None:
    with pytest.raises(NoTenant):
        contextvars.Context().run(engine.connect)


def test_a_lent_connection_counts(engine: Engine, pools: KeyedPools, tenants: list[TenantDatabase]) -> None:
    config = tenants[0].config(pool_size=1)
    pools._timeout = 0.1
    with use_tenant(config, pools):
        with engine.connect(), pytest.raises(PoolExhausted):
            engine.connect()
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
            conn.execute(text("SET statement_timeout = '9s'"))
        with engine.connect() as conn:
            assert conn.execute(text("SHOW statement_timeout")).scalar() == "0"
            raw = conn.connection.driver_connection
            assert raw is not None
            assert not raw.autocommit
            assert not raw._notice_handlers, "nothing adds up on a connection that comes by often"


def test_a_connection_that_dies_in_use_is_thrown_away(
    engine: Engine, pools: KeyedPools, tenants: list[TenantDatabase]
) -> None:
    tenant = tenants[0]
    with use_tenant(tenant.config(), pools):
        with engine.connect() as conn:
            pid = conn.execute(text("SELECT pg_backend_pid()")).scalar()
            with tenant.admin() as admin:
                admin.execute("SELECT pg_terminate_backend(%s)", [pid])
            with pytest.raises(DBAPIError):
                conn.execute(text("SELECT 1"))
        with engine.connect() as conn:
            assert conn.execute(text("SELECT pg_backend_pid()")).scalar() != pid
    assert pools.open_connections == (1, 0)


def test_threads_share_the_engine(engine: Engine, pools: KeyedPools, tenants: list[TenantDatabase]) -> None:
    wrong: list[object] = []

    def work(tenant: TenantDatabase) -> None:
        for _ in range(30):
            with use_tenant(tenant.config(), pools), Session(engine) as session:
                seen = session.scalars(text("SELECT body FROM note WHERE body LIKE 'canary%'")).all()
                if seen != [tenant.canary]:
                    wrong.append(seen)

    threads = [threading.Thread(target=work, args=(tenant,)) for tenant in tenants * 3]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not wrong
