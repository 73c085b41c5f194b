"""What the tests of SQLAlchemy map: the notes of examples/notes."""

from __future__ import annotations

import flask_sqlalchemy.session
from sqlalchemy import String
from sqlalchemy.orm import DeclarativeBase, Mapped, foreign, mapped_column, relationship

from dataplane.sqlalchemy import TenantSession

URL = "postgresql+dataplane://"


class Base(DeclarativeBase):
    """Its classes are the same in every tenant's database."""


class Note(Base):
    __tablename__ = "note"
    id: Mapped[int] = mapped_column(primary_key=True)
    body: Mapped[str] = mapped_column(String)


_reading = Note.__table__.alias("reading")


class Reading(Base):
    """The same rows under another class, for relationships."""

    __table__ = _reading
    note: Mapped[Note] = relationship(
        primaryjoin=foreign(_reading.c.id) == Note.__table__.c.id, cascade="merge, save-update"
    )


class FlaskSession(TenantSession, flask_sqlalchemy.session.Session):
    """As docs/dataplane.md has it."""
