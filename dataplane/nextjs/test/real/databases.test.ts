/**
 * Sessions on a real PostgreSQL. TEST_TENANT is JSON: `payload` of an active entry, `login` as its secret
 * holds it, `endpointMap`; the first two of a tenant whose database is not bound, and of one whose has no
 * identity. `tests/browser` makes such tenants and runs this.
 */

import assert from "node:assert/strict";
import { after, test } from "node:test";

import { drizzle } from "drizzle-orm/node-postgres";
import { pgSchema, text } from "drizzle-orm/pg-core";

import { configOf } from "../../src/tenant-config.js";
import { Credentials } from "../../src/credentials.js";
import { Databases, type Session } from "../../src/databases.js";
import { EndpointMap } from "../../src/endpoints.js";
import { isDataPlaneError, type ErrorCode } from "../../src/errors.js";
import type { SslMode } from "../../src/settings.js";

interface Tenant {
  readonly payload: Record<string, unknown>;
  readonly login: { readonly username: string; readonly password: string };
}

interface Given extends Tenant {
  readonly endpointMap: string;
  readonly unbound: Tenant;
  readonly unidentified: Tenant;
}

const given = JSON.parse(process.env["TEST_TENANT"] ?? "null") as Given | null;
assert.ok(given, "TEST_TENANT: expected a tenant's JSON");
const config = { ...configOf(given.payload), pool_size: 1 }; // one connection, so that it must be shared

function databases(
  login: { username: string; password: string } = given!.login,
  reports: string[] = [],
  sslMode: SslMode = "disable",
): Databases {
  const made = new Databases({
    credentials: new Credentials(async () => JSON.stringify(login)),
    endpoints: new EndpointMap(given!.endpointMap),
    sslMode,
    sslRootCert: null,
    report: (message) => reports.push(message),
  });
  after(() => made.close());
  return made;
}

const db = databases().of(config);
const failing = (code: ErrorCode) => (error: unknown) => isDataPlaneError(error) && error.code === code;
const backend = async () => (await db.query<{ pid: number }>("SELECT pg_backend_pid() AS pid")).rows[0]?.pid;

test("a prepared statement can be used again after its connection was cleaned", async () => {
  const pids = new Set<number | undefined>();
  for (let i = 0; i < 3; i += 1) {
    const { rows } = await db.query<{ n: number; pid: number }>({
      name: "twice",
      text: "SELECT $1::int * 2 AS n, pg_backend_pid() AS pid",
      values: [i],
    });
    assert.equal(rows[0]?.n, i * 2);
    pids.add(rows[0]?.pid);
  }
  assert.equal(pids.size, 1);
});

test("nothing of one user is left for the next", async () => {
  const before = await backend();
  await db.session(async (session) => {
    await session.query("SET search_path = pg_catalog");
    await session.query("SELECT set_config('app.user', 'ada', false), pg_advisory_lock(7)");
    await session.query("CREATE TEMP TABLE left_over (n int)").catch(() => undefined); // TEMP may be revoked
    await session.query("PREPARE left_over AS SELECT 1");
  });
  const { rows } = await db.query(
    `SELECT pg_backend_pid() AS pid, current_setting('app.user', true) AS name, current_setting('search_path') AS path,
            (SELECT count(*)::int FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()) AS locks,
            (SELECT count(*)::int FROM pg_prepared_statements WHERE name = 'left_over') AS prepared`,
  );
  assert.deepEqual(rows, [{ pid: before, name: "", path: "app, pg_temp", locks: 0, prepared: 0 }]);
});

/** Statements sent one by one through `db.query`, as if they shared a connection, up to the first refusal. */
const OPENING: readonly (readonly [string, string])[] = [
  ["BEGIN", "BEGIN"],
  ["START TRANSACTION", "START TRANSACTION READ WRITE"],
  ["several statements in one", "BEGIN; INSERT INTO app.note (body) VALUES ('left open')"],
  ["a chained commit", "BEGIN; COMMIT AND CHAIN"],
  ["a comment before it", "/* first */ begin"],
];

for (const [what, statement] of OPENING) {
  test(`${what}: a transaction that a single query leaves open is refused and not kept`, async () => {
    const before = await backend();
    await assert.rejects(db.query(statement), /left a transaction open.*session\(\)/);
    await assert.rejects(
      db.session((session) => session.query(statement)),
      /left a transaction open.*session\(\)/,
      "nor may a session end so",
    );
    const { rows } = await db.query("SELECT count(*)::int AS n FROM app.note WHERE body = 'left open'");
    assert.deepEqual(rows, [{ n: 0 }]);
    assert.notEqual(await backend(), before, "the connection is closed");
  });
}

test("a session that swallows the error which aborted its transaction is reported", async () => {
  await assert.rejects(
    db.session(async (session) => {
      await session.query("BEGIN");
      await session.query("SELECT no_such_column").catch(() => undefined);
    }),
    /left a transaction open/,
  );
  await assert.rejects(
    db.session((session) => session.query("BEGIN; SELECT no_such_column").catch(() => undefined)),
    /left a transaction open/,
  );
  await assert.rejects(db.query("BEGIN; SELECT no_such_column"), { code: "42703" }, "the statement's own error");
});

test("a session that does not wait for its last statement is reported as well", async () => {
  await assert.rejects(
    db.session(async (session) => {
      void session.query("BEGIN");
    }),
    /left a transaction open/,
  );
});

test("whole transactions pass, by themselves and in a session", async () => {
  const before = await backend();
  await db.query("BEGIN; SELECT 1; COMMIT");
  await db.session(async (session) => {
    await session.query("BEGIN");
    await session.query("COMMIT; SELECT no_such_column").catch(() => undefined);
  });
  await db.session(async (session) => {
    await session.query("BEGIN");
    await session.query("ROLLBACK");
  });
  assert.equal(await backend(), before);
});

test("a transaction in which a statement failed is never taken for committed", async () => {
  await assert.rejects(
    db.transaction(async (session) => {
      await session.query("INSERT INTO app.note (body) VALUES ('never committed')");
      await session.query("SELECT no_such_column").catch(() => undefined);
    }),
    /nothing was stored/,
  );
  const { rows } = await db.query("SELECT count(*)::int AS n FROM app.note WHERE body = 'never committed'");
  assert.deepEqual(rows, [{ n: 0 }]);
});

test("a transaction is all or nothing", async () => {
  const body = `note ${process.pid}`;
  await assert.rejects(
    db.transaction(async (session) => {
      await session.query("INSERT INTO app.note (body) VALUES ($1)", [body]);
      throw new Error("changed my mind");
    }),
    /changed my mind/,
  );
  const count = async () => (await db.query("SELECT 1 FROM app.note WHERE body = $1", [body])).rowCount;
  assert.equal(await count(), 0);
  await db.transaction((session) => session.query("INSERT INTO app.note (body) VALUES ($1)", [body]));
  assert.equal(await count(), 1);
  assert.equal((await db.query("DELETE FROM app.note WHERE body = $1", [body])).rowCount, 1);
});

test("Drizzle works in a session, and can't begin a transaction outside of one", async () => {
  const note = pgSchema("app").table("note", { body: text("body").notNull() });
  const body = `drizzle ${process.pid}`;
  const stored = async () => (await db.query("SELECT 1 FROM app.note WHERE body = $1", [body])).rowCount;
  const write = (client: Session, then: () => void) =>
    drizzle({ client: client as never }).transaction(async (tx) => {
      await tx.insert(note).values({ body });
      then();
    });
  const changeMind = () => {
    throw new Error("changed my mind");
  };
  await assert.rejects(db.session((session) => write(session, changeMind)), /changed my mind/);
  assert.equal(await stored(), 0);
  await db.session((session) => write(session, () => undefined));
  assert.equal(await stored(), 1);
  await db.query("DELETE FROM app.note WHERE body = $1", [body]);

  const outside = write(db, changeMind);
  await assert.rejects(outside, (error: Error) => /left a transaction open/.test(String(error.cause ?? error)));
  assert.equal(await stored(), 0);
});

test("a session can't be used once it is over", async () => {
  const kept = await db.session(async (session) => session);
  await assert.rejects(kept.query("SELECT 1"), /the session is over/);
});

test("an error of the application's own SQL is passed on as it is, and the connection lives", async () => {
  const before = await backend();
  await assert.rejects(db.query("SELECT no_such_column"), { code: "42703" });
  assert.equal(await backend(), before);
});

test("a connection that died while nobody used it is replaced", async () => {
  const killer = databases().of(config);
  for (let i = 0; i < 3; i += 1) {
    const pid = await backend();
    await killer.query("SELECT pg_terminate_backend($1)", [pid]);
    assert.notEqual(await backend(), pid);
  }
});

test("a connection that dies in use is an honest 503, and so is a wrong password", async () => {
  await assert.rejects(db.query("SELECT pg_terminate_backend(pg_backend_pid())"), failing("database-unavailable"));
  const wrong = databases({ ...given!.login, password: "wrong" }).of(config);
  await assert.rejects(wrong.query("SELECT 1"), failing("credential-unavailable"));
});

test("a database that says it is another's is never used", async () => {
  for (const other of [{ tenant_id: "t-somebodyelse" }, { placement: "p-elsewhere" }]) {
    const reports: string[] = [];
    const crossed = databases(given!.login, reports).of({ ...config, ...other });
    let used = false;
    await assert.rejects(
      crossed.session(async () => {
        used = true;
      }),
      failing("cross-tenant"),
    );
    assert.deepEqual([used, reports.length], [false, 1]);
  }
});

test("a database without a tenant is anybody's of its placement, and one without an identity nobody's", async () => {
  const whose = (name: "unbound" | "unidentified", changes = {}) => {
    const { payload, login } = given![name];
    return databases(login).of({ ...configOf(payload), ...changes }).query<{ n: number }>("SELECT 1 AS n");
  };
  assert.deepEqual((await whose("unbound")).rows, [{ n: 1 }]);
  await assert.rejects(whose("unbound", { placement: "p-elsewhere" }), failing("cross-tenant"));
  await assert.rejects(whose("unidentified"), failing("cross-tenant"));
});

test("a server without TLS is reached in the clear by prefer and allow, and by nothing else", async () => {
  const reached = async (sslMode: SslMode) => {
    const made = databases(given!.login, [], sslMode).of(config);
    return (await made.query<{ ssl: boolean }>("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")).rows[0]?.ssl;
  };
  assert.deepEqual([await reached("prefer"), await reached("allow")], [false, false]);
  await assert.rejects(reached("require"), failing("database-unavailable"));
});

test("only an active tenant has a database", () => {
  assert.throws(() => databases().of({ ...config, status: "suspended", database: null }), failing("no-tenant"));
});
