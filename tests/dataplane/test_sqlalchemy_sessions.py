"""Two tenants, one Session: what it has in memory is shown to nobody else and written nowhere else."""

from __future__ import annotations

import contextlib
import pickle
import threading
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from sqlalchemy import Engine, delete, insert, inspect, select, text, update
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.orm import Session, joinedload, scoped_session, selectinload, sessionmaker

from dataplane.context import current_tenant, no_tenant, use_tenant
from dataplane.errors import NoTenant, TenantChanged
from dataplane.pools import KeyedPools
from dataplane.settings import DataPlane
from dataplane.sqlalchemy import TenantSession, tenant_engine
from tests.dataplane.orm import URL, FlaskSession, Note, Reading
from tests.dataplane.tenants import TenantDatabase


@pytest.fixture
def engine() -> Engine:
    return tenant_engine()


def bodies(tenant: TenantDatabase) -> list[str]:
    with tenant.admin() as admin:
        return [row[0] for row in admin.execute("SELECT body FROM app.note ORDER BY id")]


@pytest.fixture
def untouched(tenants: list[TenantDatabase]) -> Iterator[None]:
    before = [bodies(tenant) for tenant in tenants]
    yield
    assert [bodies(tenant) for tenant in tenants] == before


Kept = tuple[Note, Reading]

# What is done with a session of acme's, and with objects of it, while another tenant is current.
USES: dict[str, Callable[[Session, Kept], object]] = {
    "get": lambda s, _: s.get(Note, 1),
    "get_one": lambda s, _: s.get_one(Note, 1),
    "get anew": lambda s, _: s.get(Note, 1, populate_existing=True),
    "query.get": lambda s, _: s.query(Note).filter_by(id=1).one(),
    "scalars": lambda s, _: s.scalars(select(Note)).all(),
    "joined": lambda s, _: s.scalars(select(Reading).options(joinedload(Reading.note))).all(),
    "text": lambda s, _: s.execute(text("SELECT 1")),
    "connection": lambda s, _: s.connection(),
    "refresh": lambda s, kept: s.refresh(kept[0]),
    "expired attribute": lambda s, kept: (s.expire(kept[0]), kept[0].body),
    "many to one, in memory": lambda s, kept: (s.expire(kept[1], ["note"]), kept[1].note),
    "many to one, not in memory": lambda s, kept: (
        s.expunge(kept[0]),
        s.expire(kept[1], ["note"]),
        kept[1].note,
    ),
    "flush of a change": lambda s, kept: (setattr(kept[0], "body", "changed"), s.flush()),
    "commit of a change": lambda s, kept: (setattr(kept[0], "body", "changed"), s.commit()),
    "autoflush": lambda s, kept: (setattr(kept[0], "body", "changed"), s.query(Note).count()),
    "delete": lambda s, kept: (s.delete(kept[0]), s.flush()),
    "add": lambda s, _: s.add(Note(body="new")),
    "merge": lambda s, kept: s.merge(kept[0]),
    "merge of a dict": lambda s, _: s.merge(Note(id=1, body="changed")),
    "bulk save": lambda s, kept: s.bulk_save_objects(kept[:1]),
    "bulk insert": lambda s, _: s.bulk_insert_mappings(inspect(Note), [{"body": "new"}]),
    "bulk update": lambda s, _: s.bulk_update_mappings(inspect(Note), [{"id": 1, "body": "changed"}]),
    "insert": lambda s, _: s.execute(insert(Note), [{"body": "new"}]),
    "insert returning": lambda s, _: s.scalars(insert(Note).returning(Note), [{"body": "new"}]),
    "update": lambda s, _: s.execute(update(Note).values(body="changed")),
    "delete all": lambda s, _: s.execute(delete(Note)),
}


@pytest.mark.parametrize("ended", [False, True])
@pytest.mark.parametrize("use", USES)
def test_a_session_is_of_use_to_its_own_tenant_only(
    use: str, ended: bool, engine: Engine, pools: KeyedPools, tenants: list[TenantDatabase], untouched: None
) -> None:
    acme, globex, _ = tenants
    for other, error in ((use_tenant(globex.config(), pools), TenantChanged), (no_tenant(), NoTenant)):
        session = TenantSession(engine, expire_on_commit=False)
        with use_tenant(acme.config(), pools):
            reading = session.get_one(Reading, 1)
            kept = (reading.note, reading)
            if ended:
                session.commit()
        with other, pytest.raises(error):
            USES[use](session, kept)
        session.close()
    with use_tenant(globex.config(), pools):
        assert session.get_one(Note, 1).body == globex.canary, "once closed it is nobody's"
        session.close()
    assert pools.statistics.opened == 2, "each connection was given back and used again"


def foreign_child(session: Session, kept: Kept) -> None:
    session.add(Reading(body="new", note=kept[0]))


# What is done in a session of globex's own with objects that acme's session has let go of.
GIFTS: dict[str, Callable[[Session, Kept], object]] = {
    "add": lambda s, kept: s.add(kept[0]),
    "add_all": lambda s, kept: s.add_all(kept),
    "a related object": foreign_child,
    "delete": lambda s, kept: s.delete(kept[0]),
    "merge": lambda s, kept: s.merge(kept[0]),
    "merge without load": lambda s, kept: s.merge(kept[0], load=False),
    "merge of a related object": lambda s, kept: s.merge(Reading(body="new", note=kept[0])),
    "bulk save": lambda s, kept: s.bulk_save_objects(kept),
    "pickled": lambda s, kept: s.merge(pickle.loads(pickle.dumps(kept[0])), load=False),
}


@pytest.mark.parametrize("gift", GIFTS)
def test_an_object_of_another_tenant_is_not_taken(
    gift: str, engine: Engine, pools: KeyedPools, tenants: list[TenantDatabase], untouched: None
) -> None:
    acme, globex, _ = tenants
    with use_tenant(acme.config(), pools), TenantSession(engine) as session:
        reading = session.get_one(Reading, 1)
        kept = (reading.note, reading)
        session.expunge_all()
    with use_tenant(globex.config(), pools), TenantSession(engine) as session:
        with pytest.raises(TenantChanged, match=acme.tenant_id):
            GIFTS[gift](session, kept)
        session.rollback()
        assert session.get_one(Note, 1).body == globex.canary
    with use_tenant(acme.config(), pools), TenantSession(engine) as session:
        with contextlib.suppress(InvalidRequestError):  # it is there already
            GIFTS[gift](session, kept)
        session.rollback()


def test_a_new_object_is_its_first_sessions_tenants(
    engine: Engine, pools: KeyedPools, tenants: list[TenantDatabase], untouched: None
) -> None:
    acme, globex, _ = tenants
    note = Note(body="of acme")
    with use_tenant(acme.config(), pools), TenantSession(engine) as session:
        session.add(note)
        session.flush()
        assert inspect(note).identity_key[2] == acme.tenant_id
        session.rollback()
    with use_tenant(globex.config(), pools), TenantSession(engine) as session:
        with pytest.raises(TenantChanged):
            session.add(note)
        with pytest.raises(TenantChanged):
            session.bulk_save_objects([note])


def test_an_object_whose_tenant_nobody_knows_is_not_taken(
    engine: Engine, pools: KeyedPools, tenants: list[TenantDatabase], untouched: None
) -> None:
    with use_tenant(tenants[0].config(), pools):
        with Session(engine) as plain:
            note = plain.get_one(Note, 1)
            plain.expunge(note)
        with TenantSession(engine) as session, pytest.raises(TenantChanged, match="nobody knows"):
            session.add(note)


def test_a_session_works_as_ever_for_its_tenant(
    engine: Engine, pools: KeyedPools, tenants: list[TenantDatabase], untouched: None
) -> None:
    with use_tenant(tenants[0].config(), pools), TenantSession(engine) as session:
        note = Note(body="one")
        session.add(note)
        session.flush()
        assert session.get(Note, note.id) is note, "found in memory"
        assert session.get_one(Reading, note.id).note is note
        assert note in session.scalars(select(Note))
        found = session.scalars(
            select(Reading).options(selectinload(Reading.note)).where(Reading.id == note.id)
        )
        assert found.one().note is note
        session.execute(update(Note).where(Note.id == note.id).values(body="two"))
        assert note.body == "two", "synchronized"
        session.expunge(note)
        note.body = "three"
        merged = session.merge(note)
        assert merged is not note
        session.flush()
        assert session.scalars(select(Note.body).where(Note.id == note.id)).one() == "three"
        assert session.merge(Note(id=note.id, body="four")) is merged, "found by its primary key alone"
        session.bulk_save_objects([Note(body="five"), Note(body="six")])
        session.delete(merged)
        session.flush()
        assert session.get(Note, note.id) is None
        session.rollback()


# ------------------------------------------------------------------- recipes of docs/dataplane.md


def test_a_scoped_session_that_was_not_removed_shows_nothing(
    engine: Engine, pools: KeyedPools, tenants: list[TenantDatabase]
) -> None:
    acme, globex, _ = tenants
    current = scoped_session(sessionmaker(engine, class_=TenantSession, expire_on_commit=False))
    with use_tenant(acme.config(), pools):
        assert current.get_one(Note, 1).body == acme.canary
    with use_tenant(globex.config(), pools):
        with pytest.raises(TenantChanged, match="remove"):
            current.get(Note, 1)
        current.remove()
        assert current.get_one(Note, 1).body == globex.canary
        current.remove()


def test_a_scope_of_a_thread_and_a_tenant_keeps_a_session_for_each(
    engine: Engine, pools: KeyedPools, tenants: list[TenantDatabase]
) -> None:
    current = scoped_session(
        sessionmaker(engine, class_=TenantSession),
        scopefunc=lambda: (threading.get_ident(), current_tenant().tenant_id),
    )
    for tenant in tenants * 2:
        with use_tenant(tenant.config(), pools):
            assert current.get_one(Note, 1).body == tenant.canary
    for tenant in tenants:
        with use_tenant(tenant.config(), pools):
            current.remove()
    assert pools.statistics.opened == 3


def test_flask_sqlalchemy_keeps_a_session_of_the_tenant(
    dataplane: DataPlane, tenants: list[TenantDatabase], untouched: None
) -> None:
    acme, globex, _ = tenants
    app = Flask(__name__)
    app.config["SQLALCHEMY_DATABASE_URI"] = URL
    db = SQLAlchemy(app, session_options={"class_": FlaskSession, "expire_on_commit": False})
    with app.app_context():
        with use_tenant(acme.config(), dataplane.pools):
            note = db.session.get_one(Note, 1)
            db.session.commit()
        with use_tenant(globex.config(), dataplane.pools):
            with pytest.raises(TenantChanged):
                db.session.get(Note, 1)
            note.body = "changed"
            with pytest.raises(TenantChanged):
                db.session.commit()


# ------------------------------------------------------------------- whatever is done in whatever order


class OneSession(RuleBasedStateMachine):
    """Every body begins with the id of the tenant that it was written for, so a look at the rows says
    whether one was written or shown elsewhere."""

    engine: Engine
    pools: KeyedPools
    admins: list[tuple[TenantDatabase, psycopg.Connection[Any]]]

    @initialize(expire=st.booleans())
    def begin(self, expire: bool) -> None:
        self.inside = contextlib.ExitStack()
        self.session = TenantSession(self.engine, expire_on_commit=expire)
        self.kept: list[Note] = []
        self.number = 0
        self.switch(self.admins[0][0])

    @rule(which=st.integers(0, 1))
    def switch_to(self, which: int) -> None:
        self.switch(self.admins[which][0])

    def switch(self, tenant: TenantDatabase) -> None:
        self.inside.close()
        self.tenant = tenant
        self.inside.enter_context(use_tenant(tenant.config(), self.pools))

    def attempt(self, act: Callable[[], Any]) -> Any:
        try:
            return act()
        except (TenantChanged, InvalidRequestError):
            self.session.rollback()
            return None

    def new_body(self) -> str:
        self.number += 1
        return f"{self.tenant.tenant_id}: {self.number}"

    def safe_repr(self, notes: list[Note] | None) -> None:
        for note in notes or []:
            assert note.body.startswith(self.tenant.tenant_id), "another tenant's row"
            self.kept.append(note)

    @rule()
    def read(self) -> None:
        self.safe_repr(self.attempt(lambda: list(self.session.scalars(select(Note).where(Note.id > 1)))))

    @rule(identity=st.integers(2, 9))
    def get(self, identity: int) -> None:
        self.safe_repr(self.attempt(lambda: [n for n in [self.session.get(Note, identity)] if n is not None]))

    @rule()
    def add(self) -> None:
        note = Note(body=self.new_body())
        self.attempt(lambda: self.session.add(note))

    @rule(index=st.integers(0, 9))
    def give(self, index: int) -> None:
        if index < len(self.kept):
            self.attempt(lambda: self.session.add(self.kept[index]))

    @rule(index=st.integers(0, 9), load=st.booleans())
    def merge(self, index: int, load: bool) -> None:
        if index < len(self.kept):
            merged = self.attempt(lambda: self.session.merge(self.kept[index], load=load))
            self.attempt(lambda: self.safe_repr([] if merged is None else [merged]))

    @rule(index=st.integers(0, 9))
    def change(self, index: int) -> None:
        """Only what it may see: application code has no other to change."""
        if index < len(self.kept):
            note = self.kept[index]
            if inspect(note).identity_token == self.tenant.tenant_id:
                self.attempt(lambda: setattr(note, "body", self.new_body()))

    @rule(which=st.sampled_from(["flush", "commit", "rollback", "close"]))
    def end(self, which: str) -> None:
        self.attempt(getattr(self.session, which))

    @invariant()
    def every_row_is_at_home(self) -> None:
        for tenant, admin in self.admins:
            written = admin.execute("SELECT body FROM app.note").fetchall()
            assert all(tenant.tenant_id in body for (body,) in written)

    def teardown(self) -> None:
        if hasattr(self, "session"):
            self.session.close()
            self.inside.close()
            self.clear()

    @classmethod
    def clear(cls) -> None:
        """Remove what this one wrote, or tests before it: the databases are those of the whole run."""
        for _, admin in cls.admins:
            admin.execute("DELETE FROM app.note WHERE id > 1")
            admin.execute("ALTER TABLE app.note ALTER id RESTART WITH 2")


def test_no_order_of_uses_shows_or_writes_a_row_elsewhere(
    engine: Engine, pools: KeyedPools, tenants: list[TenantDatabase]
) -> None:
    with contextlib.ExitStack() as opened:
        OneSession.engine, OneSession.pools = engine, pools
        OneSession.admins = [(tenant, opened.enter_context(tenant.admin())) for tenant in tenants[:2]]
        OneSession.clear()
        limits = settings(max_examples=25, stateful_step_count=20, deadline=None)
        run_state_machine_as_test(OneSession, settings=limits)
    assert pools.open_connections[0] <= 2
