"""The connection comes from the rollout, with its timeouts; on a developer's machine from DATABASE_URL."""

import os

from alembic import context
from sqlalchemy import create_engine

connection = context.config.attributes.get("connection")
if connection is None:
    url = os.environ["DATABASE_URL"].replace("postgresql://", "postgresql+psycopg://", 1)
    connection = create_engine(url).connect()
context.configure(connection=connection)
with context.begin_transaction():
    context.run_migrations()
