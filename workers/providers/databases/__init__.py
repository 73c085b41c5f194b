"""Tenant databases: made, hardened, opened, closed, migrated and proved, over psycopg 3.

postgres     the provider: one method for each thing the engine asks
recipe       what a hardened database is, and the statements that make it one
inspection   what the catalogues show
sessions     who logs in, with which bounds
rehearsal    a copy that is migrated to see what it takes
shape        a schema as lines that can be compared
migrations   the tenant application's numbered SQL files
passwords    how a password is made and how it travels
errors       what a server's error means for the engine
"""

from controlplane.workers.providers.databases.logins import new_password
from controlplane.workers.providers.databases.postgres import PostgresDatabases

__all__ = ["PostgresDatabases", "new_password"]
