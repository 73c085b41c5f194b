"""What a cluster's catalogues say about one tenant's database, in two queries.

The first reads what all databases of a cluster share and works from any of them; the second has to
be asked inside. Both only look: whether what they find is right is decided in `recipe`. Nothing that
the tenant's own roles made is read (a view of theirs would run their functions with the master's
rights); contents are read only from tables that the master owns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, LiteralString

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from controlplane.domain.placement import Identity, Placement
from controlplane.workers.providers.databases.sessions import MAINTENANCE_DATABASE

PUBLIC = "public"  # a reserved word: no role can have this name

Acl = frozenset[tuple[str, str]]  # (grantee, privilege)


@dataclass(frozen=True, slots=True)
class Role:
    login: bool
    inherit: bool
    connection_limit: int  # -1: none
    powers: frozenset[str]  # of "superuser", "createdb", "createrole", "replication", "bypassrls"

    @property
    def open(self) -> bool:
        return self.login and self.connection_limit != 0


@dataclass(frozen=True, slots=True)
class Object:
    """A schema or a table."""

    owner: str
    acl: Acl


@dataclass(frozen=True, slots=True)
class ServerInspection:
    """What the cluster knows from outside of the database."""

    master: str
    master_acts_as_owner: bool
    may_limit_temp_files: bool  # the master: `temp_file_limit` takes a superuser or a grant of a superuser's
    roles: Mapping[str, Role]
    let_in: bool  # is the migrator let in by another session, which has the lock on its logins?
    memberships: Acl  # (group, member), wherever one of the placement's roles is either
    database_owner: str | None  # None: there is no such database
    accepts_connections: bool
    is_template: bool
    database_limit: int  # of connections; -1: none
    database_acl: Acl
    settings: Mapping[tuple[str, str], frozenset[str]]
    """(role or "", this database or "") → "name=value": a role's settings in this database and in all,
    and the database's for every role."""


@dataclass(frozen=True, slots=True)
class DatabaseInspection:
    """What only a session inside of the database can see."""

    master: str
    schemas: Mapping[str, Object]  # of "public", "app" and "platform", those that exist
    default_acls: Mapping[tuple[str, str], Acl]  # (schema or "", object type) → for what the owner makes
    tables: Mapping[str, Object]  # of schema platform
    guards: frozenset[str]  # of platform.identity: its triggers with their functions, and its indexes
    identity: tuple[Identity, ...]  # one if all is well, at most two are read
    release: str | None


def _acl(column: LiteralString, kind: LiteralString, owner: LiteralString) -> sql.Composed:
    """An ACL as pairs; NULL in a catalogue means the default, which has to be spelt out."""
    return sql.SQL(
        """(SELECT coalesce(json_agg(json_build_array(
        CASE a.grantee WHEN 0 THEN 'public' ELSE pg_get_userbyid(a.grantee) END, a.privilege_type)), '[]')
        FROM aclexplode(coalesce({}, acldefault('{}', {}))) AS a)"""
    ).format(sql.SQL(column), sql.SQL(kind), sql.SQL(owner))


_SERVER = sql.SQL(
    """
SELECT current_user::text AS master,
  coalesce((SELECT bool_and(pg_has_role(r.oid, mode))
      FROM pg_roles AS r, unnest(%(modes)s::text[]) AS mode WHERE rolname = %(owner)s), false)
    AS master_acts_as_owner,
  has_parameter_privilege('temp_file_limit', 'SET') AS may_limit_temp_files,
  (SELECT coalesce(json_object_agg(rolname, json_build_object(
        'login', rolcanlogin, 'inherit', rolinherit, 'connection_limit', rolconnlimit,
        'powers', array_remove(ARRAY[
          CASE WHEN rolsuper THEN 'superuser' END, CASE WHEN rolcreatedb THEN 'createdb' END,
          CASE WHEN rolcreaterole THEN 'createrole' END, CASE WHEN rolreplication THEN 'replication' END,
          CASE WHEN rolbypassrls THEN 'bypassrls' END], NULL))), '{{}}')
      FROM pg_roles WHERE rolname = ANY(%(roles)s)) AS roles,
  CASE WHEN (SELECT rolcanlogin FROM pg_roles WHERE rolname = %(migrator)s) THEN
    EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted AND pid <> pg_backend_pid()
      AND database = (SELECT oid FROM pg_database WHERE datname = %(maintenance)s) AND objsubid = 1
      AND classid::bigint << 32 | objid::bigint = hashtextextended(%(database)s, 0))
  ELSE false END AS let_in,
  (SELECT coalesce(json_agg(json_build_array(g.rolname, m.rolname)), '[]')
      FROM pg_auth_members AS am
      JOIN pg_roles AS g ON g.oid = am.roleid JOIN pg_roles AS m ON m.oid = am.member
      WHERE g.rolname = ANY(%(roles)s) OR m.rolname = ANY(%(roles)s)) AS memberships,
  (SELECT json_build_object('owner', pg_get_userbyid(datdba), 'accepts', datallowconn,
        'template', datistemplate, 'limit', datconnlimit, 'acl', {acl})
      FROM pg_database WHERE datname = %(database)s) AS database,
  (SELECT coalesce(json_agg(json_build_array(coalesce(r.rolname, ''), coalesce(d.datname, ''), s.setconfig)),
        '[]')
      FROM pg_db_role_setting AS s
      LEFT JOIN pg_database AS d ON d.oid = s.setdatabase LEFT JOIN pg_roles AS r ON r.oid = s.setrole
      WHERE (s.setrole = 0 OR r.rolname = ANY(%(roles)s)) AND (s.setdatabase = 0 OR d.datname = %(database)s)
        AND (s.setrole <> 0 OR s.setdatabase <> 0)) AS settings
"""
).format(acl=_acl("datacl", "d", "datdba"))

_INSIDE = sql.SQL(
    """
SELECT current_user::text AS master,
  (SELECT coalesce(json_object_agg(nspname, json_build_object(
        'owner', pg_get_userbyid(nspowner), 'acl', {schema_acl})), '{{}}')
      FROM pg_namespace WHERE nspname IN ('public', 'app', 'platform')) AS schemas,
  (SELECT coalesce(json_agg(json_build_array(coalesce(n.nspname, ''), d.defaclobjtype, {default_acl})), '[]')
      FROM pg_default_acl AS d LEFT JOIN pg_namespace AS n ON n.oid = d.defaclnamespace
      WHERE d.defaclrole = (SELECT oid FROM pg_roles WHERE rolname = %(owner)s)) AS default_acls,
  (SELECT coalesce(json_object_agg(c.relname, json_build_object(
        'owner', pg_get_userbyid(c.relowner), 'acl', {table_acl})), '{{}}')
      FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
      WHERE n.nspname = 'platform' AND c.relkind = 'r') AS tables,
  ARRAY(SELECT concat_ws(' ', CASE t.tgenabled WHEN 'A' THEN 'ALWAYS' END, pg_get_triggerdef(t.oid),
        CASE WHEN pg_get_userbyid(p.proowner) = current_user THEN 'OWNER master' END,
        CASE WHEN has_function_privilege('public', p.oid, 'EXECUTE') THEN 'PUBLIC' END,
        'SET', array_to_string(p.proconfig, ' '), 'AS', p.prosrc)
      FROM pg_trigger AS t JOIN pg_proc AS p ON p.oid = t.tgfoid
      WHERE t.tgrelid = to_regclass('platform.identity') AND NOT t.tgisinternal
    UNION ALL SELECT pg_get_indexdef(indexrelid) FROM pg_index
      WHERE indrelid = to_regclass('platform.identity')) AS guards
"""
).format(
    schema_acl=_acl("nspacl", "n", "nspowner"),
    default_acl=_acl("d.defaclacl", "r", "d.defaclrole"),
    table_acl=_acl("c.relacl", "r", "c.relowner"),
)

_CONTENTS = {
    "identity": sql.SQL("ARRAY(SELECT ARRAY[placement, tenant] FROM platform.identity LIMIT 2)"),
    "schema_migration": sql.SQL("(SELECT max(number) FROM platform.schema_migration)"),
}
"""By table, whichever of them are the master's."""


def see_server(conn: psycopg.Connection, placement: Placement) -> ServerInspection:
    """Works in any database of the cluster."""
    # Until 15 membership alone lets a role act as another; since 16 each grant says what it is for.
    modes = ["USAGE", "SET"] if conn.info.server_version >= 160000 else ["USAGE", "MEMBER"]
    row = _one(
        conn,
        _SERVER,
        {
            "modes": modes,
            "owner": placement.owner_role,
            "migrator": placement.migrator_role,
            "roles": [placement.owner_role, placement.migrator_role, *placement.app_roles],
            "database": placement.database,
            "maintenance": MAINTENANCE_DATABASE,
        },
    )
    absent: dict[str, Any] = {"owner": None, "accepts": False, "template": False, "limit": -1, "acl": []}
    database = row["database"] or absent
    return ServerInspection(
        master=row["master"],
        master_acts_as_owner=row["master_acts_as_owner"],
        may_limit_temp_files=row["may_limit_temp_files"],
        roles={
            name: Role(**{**role, "powers": frozenset(role["powers"])}) for name, role in row["roles"].items()
        },
        let_in=row["let_in"],
        memberships=_pairs(row["memberships"]),
        database_owner=database["owner"],
        accepts_connections=database["accepts"],
        is_template=database["template"],
        database_limit=database["limit"],
        database_acl=_pairs(database["acl"]),
        settings={(role, database): frozenset(config) for role, database, config in row["settings"]},
    )


def see_inside(conn: psycopg.Connection, placement: Placement) -> DatabaseInspection:
    """`conn` is on the placement's database."""
    row = _one(conn, _INSIDE, {"owner": placement.owner_role})
    schemas = {name: Object(it["owner"], _pairs(it["acl"])) for name, it in row["schemas"].items()}
    tables = {name: Object(it["owner"], _pairs(it["acl"])) for name, it in row["tables"].items()}
    read = {n: q for n, q in _CONTENTS.items() if n in tables and tables[n].owner == row["master"]}
    contents: dict[str, Any] = {}
    if read:
        columns = (sql.SQL("{} AS {}").format(query, sql.Identifier(name)) for name, query in read.items())
        contents = _one(conn, sql.SQL("SELECT {}").format(sql.SQL(", ").join(columns)), {})
    return DatabaseInspection(
        master=row["master"],
        schemas=schemas,
        default_acls={(schema, kind): _pairs(acl) for schema, kind, acl in row["default_acls"]},
        tables=tables,
        guards=frozenset(row["guards"]),
        identity=tuple(Identity(*each) for each in contents.get("identity", ())),
        release=contents.get("schema_migration"),
    )


def _one(
    conn: psycopg.Connection, query: sql.SQL | sql.Composed, parameters: dict[str, Any]
) -> dict[str, Any]:
    with conn.cursor(row_factory=dict_row) as cursor:
        row = cursor.execute(query, parameters).fetchone()
    assert row is not None  # noqa: S101 - a SELECT without FROM
    return row


def _pairs(entries: list[list[str]]) -> Acl:
    return frozenset((first, second) for first, second in entries)
