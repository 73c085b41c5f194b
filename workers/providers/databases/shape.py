"""What a tenant's schema is, as lines that can be compared: one for each column, constraint, index,
view, function, trigger and type of schema `app`, in an order that does not depend on how they came.

Names and definitions alone, no row and no owner: two tenants of one release have the same lines, or
somebody has been at one of them by hand. The catalogues are read by the master, and none of what the
tenant's roles made is run.
"""

from __future__ import annotations

import psycopg

MAX_LINES = 20_000
_LINES = """
SELECT line FROM (
  SELECT format('table %%s column %%s %%s%%s%%s', c.relname, a.attname, format_type(a.atttypid, a.atttypmod),
                CASE WHEN a.attnotnull THEN ' not null' ELSE '' END,
                coalesce(' default ' || pg_get_expr(d.adbin, d.adrelid), '')) AS line
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
   WHERE n.nspname = %(schema)s AND c.relkind IN ('r', 'p', 'f')
  UNION ALL
  SELECT format('constraint %%s on %%s %%s', o.conname, c.relname, pg_get_constraintdef(o.oid))
    FROM pg_constraint o JOIN pg_class c ON c.oid = o.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
   WHERE n.nspname = %(schema)s AND o.contype <> 'n'
  UNION ALL
  SELECT format('index %%s%%s', pg_get_indexdef(i.indexrelid),
                CASE WHEN i.indisvalid THEN '' ELSE ' invalid' END)
    FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid JOIN pg_namespace n ON n.oid = c.relnamespace
   WHERE n.nspname = %(schema)s
  UNION ALL
  SELECT format('view %%s %%s', c.relname, md5(pg_get_viewdef(c.oid)))
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
   WHERE n.nspname = %(schema)s AND c.relkind IN ('v', 'm')
  UNION ALL
  SELECT format('function %%s(%%s) %%s', p.proname, pg_get_function_identity_arguments(p.oid), md5(
                coalesce(p.prosrc, '') || coalesce(pg_get_function_sqlbody(p.oid), '')))
    FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
   WHERE n.nspname = %(schema)s
  UNION ALL
  SELECT format('trigger %%s on %%s %%s', t.tgname, c.relname, pg_get_triggerdef(t.oid))
    FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
   WHERE n.nspname = %(schema)s AND NOT t.tgisinternal
  UNION ALL
  SELECT format('type %%s %%s', t.typname, (SELECT string_agg(e.enumlabel, ', ' ORDER BY e.enumsortorder)
                FROM pg_enum e WHERE e.enumtypid = t.oid))
    FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
   WHERE n.nspname = %(schema)s AND t.typtype = 'e') AS found
 ORDER BY line COLLATE "C" LIMIT %(limit)s
"""


def lines(conn: psycopg.Connection, schema: str) -> list[str]:
    """`conn`: the master's, in the tenant's database. At most MAX_LINES."""
    return [line for (line,) in conn.execute(_LINES, {"schema": schema, "limit": MAX_LINES})]
