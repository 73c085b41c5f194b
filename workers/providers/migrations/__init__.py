"""How a release gets into a tenant's database: one adapter a file, all behind one Protocol.

port       what an adapter is, and the door to the database that it is given
sql        numbered SQL files, built in
alembic    Alembic, in this process
command    any other tool, as a command with DATABASE_URL in its environment
books      the record of a release in the database, for tools with books of their own
"""

from controlplane.domain.release import Adapter
from controlplane.workers.providers.migrations.alembic import AlembicMigrator
from controlplane.workers.providers.migrations.command import CommandMigrator
from controlplane.workers.providers.migrations.port import Door, Migrator
from controlplane.workers.providers.migrations.sql import SqlMigrator

__all__ = ["Door", "Migrator", "migrator"]

_MIGRATORS: dict[Adapter, Migrator] = {
    Adapter.SQL: SqlMigrator(),
    Adapter.ALEMBIC: AlembicMigrator(),
    Adapter.COMMAND: CommandMigrator(),
}


def migrator(adapter: Adapter) -> Migrator:
    return _MIGRATORS[adapter]
