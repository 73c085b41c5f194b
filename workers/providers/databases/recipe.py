"""The hardened tenant database, as lines that know whether they hold and how to make them hold.

A line looks at what the catalogues show and yields the statements that are missing; none means that
it holds. So making a database, resuming where a killed worker stopped and repairing drift are one
act, and "hardened" means that no line has anything to say. docs/adr/0003-tenant-database-hardening.md
argues each line; what it comes to:

- an owner that nobody can log in as; a migrator that acts as the owner, inherits nothing and can log in only
  while a worker lets it in; two application logins that are members of nothing and may only read and write
  rows in schema `app`;
- the database itself is the master's, so that no migration changes how it is entered or dropped;
- of each login exactly the settings below, and of the database none: whoever is logged in may set its own;
- nothing for PUBLIC, and no schema `public`;
- schema `platform`, the master's own: whose database this is, and which migrations it has had;
- CONNECT for the tenant's logins comes *last*, so a half-made database lets nobody in.

RDS's master is no superuser. So nothing here says SUPERUSER, REPLICATION or BYPASSRLS (naming them
is refused, NO… included), and the master is granted the owner before anything is made in its name.
From PostgreSQL 16 on, a grant says what it is for: acting as (SET) and having the rights of (INHERIT)
are separate, and the role's creator gets neither by itself. PostgreSQL 15 knows membership alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import LiteralString

from psycopg import sql

from controlplane.domain.placement import Placement
from controlplane.workers.providers.databases.inspection import (
    PUBLIC,
    Acl,
    DatabaseInspection,
    Role,
    ServerInspection,
)

MIGRATOR_CONNECTIONS = 3
APP_SCHEMA = "app"
SEARCH_PATH = "search_path=app, pg_temp"
APP_LIMITS = ("idle_in_transaction_session_timeout=5min", "statement_timeout=15min")
"""What an application login begins with, not what holds it: it may lift them for itself."""
TEMP_FILE_LIMIT = "temp_file_limit=10GB"
"""Of an application's session, which can't lift it, where the server lets the master set it. The migrator has
none, since it builds indexes."""
OF_A_MOVE = frozenset({"session_replication_role=replica"})
"""The migrator's while a move fills its database; no tenant may set it."""
OWNER_RIGHTS = ("CREATE", "TEMPORARY")
TABLE_RIGHTS = ("SELECT", "INSERT", "UPDATE", "DELETE")
SEQUENCE_RIGHTS = ("USAGE", "SELECT")
KEEP_IDENTITY = """
BEGIN
  IF TG_OP = 'UPDATE' THEN
    IF NEW.placement = OLD.placement AND OLD.tenant IS NULL AND NEW.tenant IS NOT NULL THEN
      RETURN NEW;
    END IF;
  END IF;
  RAISE EXCEPTION 'platform.identity: expected a tenant where there is none yet, got another %', TG_OP
    USING ERRCODE = 'restrict_violation';
END
"""
IDENTITY_TRIGGERS = {
    "identity_is_kept": ("BEFORE DELETE OR UPDATE", "ROW"),
    "identity_is_not_truncated": ("BEFORE TRUNCATE", "STATEMENT"),
}
IDENTITY_GUARDS = frozenset(
    {
        "CREATE UNIQUE INDEX identity_is_one_row ON platform.identity USING btree ((true))",
        *(
            f"ALWAYS CREATE TRIGGER {name} {event} ON platform.identity FOR EACH {each} EXECUTE FUNCTION"
            f" platform.keep_identity() OWNER master SET search_path=pg_catalog, pg_temp AS {KEEP_IDENTITY}"
            for name, (event, each) in IDENTITY_TRIGGERS.items()
        ),
    }
)
"""As `inspection` reads them."""

Statements = Iterator[sql.Composed]
ServerLine = Callable[[ServerInspection], Statements]
InsideLine = Callable[[DatabaseInspection], Statements]


@dataclass(frozen=True, slots=True)
class Recipe:
    """For one placement. `connection_limit`: of each application login; None accepts any but
    "unlimited". `grant_options`: does the server know `GRANT … WITH INHERIT`, i.e. is it 16 or later?"""

    placement: Placement
    connection_limit: int | None = None
    grant_options: bool = True

    # ------------------------------------------------------------------------- phases, in this order

    @property
    def roles(self) -> tuple[ServerLine, ...]:
        """One transaction, in any database of the cluster."""
        return (
            self.owner_role,
            self.master_acts_as_owner,
            self.migrator_role,
            self.migrator_acts_as_owner,
            self.app_roles,
        )

    @property
    def database(self) -> tuple[ServerLine, ...]:
        """No transaction: CREATE DATABASE allows none."""
        return (self.database_exists,)

    @property
    def shell(self) -> tuple[ServerLine, ...]:
        """One transaction: from here on the master can get in, and nobody else."""
        return (
            self.master_owns_database,
            self.plain_database,
            self.nothing_for_public,
            self.owner_may_create,
            self.login_settings,
            self.accepts_connections,
        )

    @property
    def inside(self) -> tuple[InsideLine, ...]:
        """One transaction, inside of the database."""
        return (
            self.no_public_schema,
            self.app_schema,
            self.default_rights,
            self.platform_schema,
            self.identity,
            self.schema_migration,
        )

    @property
    def doors(self) -> tuple[ServerLine, ...]:
        return (self.logins_may_connect,)

    def shut(self, server: ServerInspection) -> bool:
        """Does the shell not hold, so that nobody, or not everybody, gets in who should?"""
        return any(_says_anything(line(server)) for line in self.shell)

    def missing(self, server: ServerInspection, inside: DatabaseInspection | None) -> list[str]:
        """The lines that do not hold; `inside` None where nobody can get in to look."""
        outer = (*self.roles, *self.database, *self.shell, *self.doors)
        names = [line.__name__ for line in outer if _says_anything(line(server))]
        if inside is None:
            return [*names, "inside"]
        return names + [line.__name__ for line in self.inside if _says_anything(line(inside))]

    # ---------------------------------------------------------------------------------------- roles

    def owner_role(self, observed: ServerInspection) -> Statements:
        """INHERIT, though it is a member of nothing: until 15 a role without it is not followed to
        pg_database_owner either, and with that goes the right to drop schema `public`."""
        name = self.placement.owner_role
        role = observed.roles.get(name)
        if role is None:
            yield _sql("CREATE ROLE {} NOLOGIN INHERIT", name)
        elif role.login or not role.inherit:
            yield _sql("ALTER ROLE {} NOLOGIN INHERIT", name)

    def master_acts_as_owner(self, observed: ServerInspection) -> Statements:
        if not observed.master_acts_as_owner:
            options = sql.SQL(" WITH INHERIT TRUE, SET TRUE" if self.grant_options else "")
            yield _sql("GRANT {} TO CURRENT_USER", self.placement.owner_role) + options

    def migrator_role(self, observed: ServerInspection) -> Statements:
        """It can't log in, but while somebody who has the lock on the placement's logins lets it in."""
        name = self.placement.migrator_role
        role = observed.roles.get(name)
        if role is None:
            yield _limited("CREATE ROLE {} NOLOGIN NOINHERIT CONNECTION LIMIT {}", name, MIGRATOR_CONNECTIONS)
            return
        if role.login and not observed.let_in:
            yield _sql("ALTER ROLE {} NOLOGIN PASSWORD NULL", name)
        if (role.inherit, role.connection_limit) != (False, MIGRATOR_CONNECTIONS):
            yield _limited("ALTER ROLE {} NOINHERIT CONNECTION LIMIT {}", name, MIGRATOR_CONNECTIONS)

    def migrator_acts_as_owner(self, observed: ServerInspection) -> Statements:
        owner, migrator = self.placement.owner_role, self.placement.migrator_role
        if (owner, migrator) not in observed.memberships:
            options = sql.SQL(" WITH INHERIT FALSE, SET TRUE" if self.grant_options else "")
            yield _sql("GRANT {} TO {}", owner, migrator) + options

    def app_roles(self, observed: ServerInspection) -> Statements:
        """A login without a password, which SCRAM lets nobody use. One that was closed stays closed,
        and if one is, so is the other: opening is `open_logins`' business."""
        present = [observed.roles[name] for name in self.placement.app_roles if name in observed.roles]
        closed = any(not role.open for role in present)
        for name in self.placement.app_roles:
            role = observed.roles.get(name)
            limit = self._limit_of(role)
            if role is None and closed:
                yield _sql("CREATE ROLE {} NOLOGIN NOINHERIT CONNECTION LIMIT 0", name)
            elif role is None:
                yield _limited("CREATE ROLE {} LOGIN NOINHERIT CONNECTION LIMIT {}", name, limit)
            elif closed and role.open:
                yield _sql("ALTER ROLE {} NOLOGIN NOINHERIT CONNECTION LIMIT 0", name)
            elif role.inherit or (role.open and role.connection_limit != limit):
                yield _limited("ALTER ROLE {} NOINHERIT CONNECTION LIMIT {}", name, limit if role.open else 0)

    def _limit_of(self, role: Role | None) -> int:
        if self.connection_limit is not None:
            return self.connection_limit
        return 1 if role is None or role.connection_limit < 0 else role.connection_limit

    # ------------------------------------------------------------------------------------- database

    def database_exists(self, observed: ServerInspection) -> Statements:
        """From template0, since what somebody put into template1 must not be in it; with connections
        off, since PUBLIC may connect to every new database."""
        if observed.database_owner is None:
            yield _sql(
                "CREATE DATABASE {} TEMPLATE template0 ENCODING 'UTF8' ALLOW_CONNECTIONS false",
                self.placement.database,
            )

    def master_owns_database(self, observed: ServerInspection) -> Statements:
        """The owner of a database may set what every session of it begins with, the master's too. Those
        that earlier releases made belong to the tenant's owner."""
        if observed.database_owner == self.placement.owner_role:
            yield _sql("ALTER DATABASE {} OWNER TO CURRENT_USER", self.placement.database)

    def plain_database(self, observed: ServerInspection) -> Statements:
        """What its former owner may have done: a template can't be dropped, a limit of 0 lets nobody in,
        and a setting (`local_preload_libraries`, `role`) can end or turn every session."""
        name = self.placement.database
        if observed.is_template:
            yield _sql("ALTER DATABASE {} IS_TEMPLATE false", name)
        if observed.database_limit != -1:
            yield _sql("ALTER DATABASE {} CONNECTION LIMIT -1", name)
        if ("", name) in observed.settings:
            yield _sql("ALTER DATABASE {} RESET ALL", name)

    def nothing_for_public(self, observed: ServerInspection) -> Statements:
        if any(grantee == PUBLIC for grantee, _ in observed.database_acl) or observed.database_owner is None:
            yield _sql("REVOKE ALL ON DATABASE {} FROM PUBLIC", self.placement.database)

    def owner_may_create(self, observed: ServerInspection) -> Statements:
        """Schemas, trusted extensions, publications and temporary tables, which migrations may want."""
        name, owner = self.placement.database, self.placement.owner_role
        granted = {privilege for grantee, privilege in observed.database_acl if grantee == owner}
        if granted != set(OWNER_RIGHTS):
            yield _sql("REVOKE ALL ON DATABASE {} FROM {}", name, owner)
            yield _sql("GRANT CREATE, TEMPORARY ON DATABASE {} TO {}", name, owner)

    def login_settings(self, observed: ServerInspection) -> Statements:
        """What the migrator makes belongs to the owner, and unqualified names mean schema `app`. Nothing
        beside: `default_transaction_read_only` or `statement_timeout=1`, which a login may set for itself
        in this database or in all, would outlast whoever set it."""
        place = self.placement
        wanted: dict[str, tuple[str, ...]] = {
            place.owner_role: (),
            place.migrator_role: (f"role={place.owner_role}", SEARCH_PATH),
        }
        limits = (*APP_LIMITS, TEMP_FILE_LIMIT) if observed.may_limit_temp_files else APP_LIMITS
        wanted |= dict.fromkeys(place.app_roles, (SEARCH_PATH, *limits))
        for name, settings in wanted.items():
            if (name, "") in observed.settings:
                yield _sql("ALTER ROLE {} RESET ALL", name)
            here = observed.settings.get((name, place.database), frozenset())
            of_a_move = here & OF_A_MOVE if name == place.migrator_role else frozenset()
            if here - of_a_move == frozenset(settings):
                continue
            change = _sql("ALTER ROLE {} IN DATABASE {} ", name, place.database)
            if here:
                yield change + sql.SQL("RESET ALL")
            for setting in (*settings, *of_a_move):
                key, _, value = setting.partition("=")
                values = map(sql.Literal, value.split(", "))
                yield change + sql.SQL("SET {} = ").format(sql.Identifier(key)) + sql.SQL(", ").join(values)

    def accepts_connections(self, observed: ServerInspection) -> Statements:
        if not observed.accepts_connections:
            yield _sql("ALTER DATABASE {} ALLOW_CONNECTIONS true", self.placement.database)

    def logins_may_connect(self, observed: ServerInspection) -> Statements:
        for name in (self.placement.migrator_role, *self.placement.app_roles):
            if {privilege for grantee, privilege in observed.database_acl if grantee == name} != {"CONNECT"}:
                yield _sql("REVOKE ALL ON DATABASE {} FROM {}", self.placement.database, name)
                yield _sql("GRANT CONNECT ON DATABASE {} TO {}", self.placement.database, name)

    # --------------------------------------------------------------------------------------- inside

    def no_public_schema(self, observed: DatabaseInspection) -> Statements:
        """Without CASCADE: where something is in it, a person has to look."""
        if "public" in observed.schemas:
            yield _sql("DROP SCHEMA public")

    def app_schema(self, observed: DatabaseInspection) -> Statements:
        schema = observed.schemas.get(APP_SCHEMA)
        if schema is None:
            yield _sql("CREATE SCHEMA app AUTHORIZATION {}", self.placement.owner_role)
        wanted = frozenset((name, "USAGE") for name in self.placement.app_roles)
        if schema is None or _others(schema.acl, schema.owner) != wanted:
            yield _sql("REVOKE ALL ON SCHEMA app FROM PUBLIC, {}, {}", *self.placement.app_roles)
            yield _sql("GRANT USAGE ON SCHEMA app TO {}, {}", *self.placement.app_roles)

    def default_rights(self, observed: DatabaseInspection) -> Statements:
        """For whatever migrations will make: rows and sequences to the logins, functions to nobody."""
        owner, logins = self.placement.owner_role, self.placement.app_roles
        for kind, name, rights in (
            ("r", sql.SQL("TABLES"), TABLE_RIGHTS),
            ("S", sql.SQL("SEQUENCES"), SEQUENCE_RIGHTS),
        ):
            wanted = frozenset((login, right) for login in logins for right in rights)
            given = _others(observed.default_acls.get((APP_SCHEMA, kind), frozenset()), owner)
            change = _sql("ALTER DEFAULT PRIVILEGES FOR ROLE {} IN SCHEMA app ", owner)
            if given - wanted:
                grantees = sql.SQL(", ").join(
                    sql.SQL("PUBLIC") if grantee == PUBLIC else sql.Identifier(grantee)
                    for grantee in sorted({grantee for grantee, _ in given})
                )
                yield change + sql.SQL("REVOKE ALL ON {} FROM {}").format(name, grantees)
            if given != wanted:
                listed = sql.SQL(", ").join(sql.SQL(right) for right in rights)
                yield (change + sql.SQL("GRANT {} ON {} TO ").format(listed, name) + _sql("{}, {}", *logins))
        functions = observed.default_acls.get(("", "f"))
        if functions is None or any(grantee == PUBLIC for grantee, _ in functions):
            yield _sql("ALTER DEFAULT PRIVILEGES FOR ROLE {} REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC", owner)

    def platform_schema(self, observed: DatabaseInspection) -> Statements:
        place = self.placement
        schema = observed.schemas.get("platform")
        if schema is None:
            yield _sql("CREATE SCHEMA platform AUTHORIZATION CURRENT_USER")
        readers = (place.owner_role, place.migrator_role, *place.app_roles)
        if schema is None or _others(schema.acl, schema.owner) != {(name, "USAGE") for name in readers}:
            yield _sql("REVOKE ALL ON SCHEMA platform FROM PUBLIC, {}, {}, {}, {}", *readers)
            yield _sql("GRANT USAGE ON SCHEMA platform TO {}, {}, {}, {}", *readers)

    def identity(self, observed: DatabaseInspection) -> Statements:
        """One row that says which placement this is, and later for which tenant. No login of the tenant may
        write it, and the master's mistakes are refused: the index keeps it to one row, the triggers to one
        change. They fire always, since a move's sessions replicate, which passes over other triggers."""
        place = self.placement
        table = observed.tables.get("identity")
        if table is None:
            yield _sql("CREATE TABLE platform.identity (placement text NOT NULL, tenant text)")
        if observed.guards != IDENTITY_GUARDS:
            yield from self._guard_identity()
        if not observed.identity:
            yield sql.SQL("INSERT INTO platform.identity (placement) VALUES ({})").format(
                sql.Literal(place.id)
            )
        readers = (place.owner_role, place.migrator_role, *place.app_roles)
        if table is None or _others(table.acl, table.owner) != {(name, "SELECT") for name in readers}:
            yield _sql("REVOKE ALL ON platform.identity FROM PUBLIC, {}, {}, {}, {}", *readers)
            yield _sql("GRANT SELECT ON platform.identity TO {}, {}, {}, {}", *readers)

    def _guard_identity(self) -> Statements:
        yield _sql("CREATE UNIQUE INDEX IF NOT EXISTS identity_is_one_row ON platform.identity ((true))")
        yield sql.SQL(
            "CREATE OR REPLACE FUNCTION platform.keep_identity() RETURNS trigger LANGUAGE plpgsql"
            " SET search_path = pg_catalog, pg_temp AS {}"
        ).format(sql.Literal(KEEP_IDENTITY))
        yield _sql("REVOKE ALL ON FUNCTION platform.keep_identity() FROM PUBLIC")
        for name, (event, each) in IDENTITY_TRIGGERS.items():
            yield sql.SQL(
                "CREATE OR REPLACE TRIGGER {} {} ON platform.identity FOR EACH {}"
                " EXECUTE FUNCTION platform.keep_identity()"
            ).format(sql.Identifier(name), sql.SQL(event), sql.SQL(each))
            yield _sql("ALTER TABLE platform.identity ENABLE ALWAYS TRIGGER {}", name)

    def schema_migration(self, observed: DatabaseInspection) -> Statements:
        """Which migrations were applied. The owner may add a row, in the migration's transaction, and
        can neither change nor delete one; so history stays what it was, and the master can read it
        without touching anything of the tenant's."""
        owner = self.placement.owner_role
        table = observed.tables.get("schema_migration")
        if table is None:
            yield _sql(
                "CREATE TABLE platform.schema_migration ("
                "number text PRIMARY KEY CHECK (number ~ '^[0-9]{{4}}$'), name text NOT NULL, "
                "sha256 text NOT NULL, applied_at timestamptz NOT NULL DEFAULT clock_timestamp())"
            )
        wanted = {(owner, "SELECT"), (owner, "INSERT")}
        if table is None or _others(table.acl, table.owner) != wanted:
            yield _sql("REVOKE ALL ON platform.schema_migration FROM PUBLIC, {}", owner)
            yield _sql("GRANT SELECT, INSERT ON platform.schema_migration TO {}", owner)

    # -------------------------------------------------------------------------- beyond our repairing

    def violations(self, server: ServerInspection, inside: DatabaseInspection | None) -> list[str]:
        """What no line repairs, because somebody must first say how it came about."""
        place = self.placement
        ours = {place.owner_role, place.migrator_role, *place.app_roles}
        found = [
            f"role {name} has {', '.join(sorted(role.powers))}"
            for name, role in sorted(server.roles.items())
            if role.powers
        ]
        found += [
            f"{member} is a member of {group}"
            for group, member in sorted(server.memberships)
            if (group, member) != (place.owner_role, place.migrator_role)
            and not (group in ours and member == server.master)
        ]
        if server.database_owner not in {None, place.owner_role, server.master}:
            found.append(f"the database belongs to {server.database_owner}")
        strangers = {grantee for grantee, _ in server.database_acl} - ours - {PUBLIC, server.master}
        found += [f"{name} has rights on the database" for name in sorted(strangers)]
        if inside is not None:
            for schema, owner in ((APP_SCHEMA, place.owner_role), ("platform", server.master)):
                if schema in inside.schemas and inside.schemas[schema].owner != owner:
                    found.append(f"schema {schema} belongs to {inside.schemas[schema].owner}")
            found += [
                f"table platform.{name} belongs to {table.owner}"
                for name, table in sorted(inside.tables.items())
                if table.owner != server.master
            ]
        return found

    def is_anothers(self, inside: DatabaseInspection | None) -> bool:
        """Another placement's, another tenant's, or two's: what it says of itself."""
        found = () if inside is None else inside.identity
        return len(found) > 1 or not all(identity.fits(self.placement) for identity in found)


def _says_anything(statements: Iterable[sql.Composed]) -> bool:
    return any(True for _ in statements)


def _others(acl: Acl, owner: str) -> Acl:
    return frozenset((grantee, privilege) for grantee, privilege in acl if grantee != owner)


def _sql(text: LiteralString, *names: str) -> sql.Composed:
    return sql.SQL(text).format(*map(sql.Identifier, names))


def _limited(text: LiteralString, name: str, limit: int) -> sql.Composed:
    return sql.SQL(text).format(sql.Identifier(name), sql.Literal(limit))
