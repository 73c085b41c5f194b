/**
 * A tenant's database, through the process's pool.
 *
 * A request for A must never reach B's database, however wrong an address, a secret or a DNS answer
 * is. So every checkout asks the database itself who it is: `current_database()` and the marker
 * `platform.identity`, which the control plane writes once when it makes the database. One round trip
 * buys an answer that no configuration can fake. On return `DISCARD ALL` leaves nothing behind.
 */

import pg from "pg";
import type { QueryConfig, QueryResult, QueryResultRow } from "pg";

import type { DatabaseAddress, TenantConfig } from "./contract.js";
import { tenantOfSecret, type Credentials, type Login } from "./credentials.js";
import type { EndpointMap } from "./endpoints.js";
import { DataPlaneError, isDataPlaneError } from "./errors.js";
import { KeyedPool, type Claim, type Driver, type Lease, type PoolLimits } from "./pool.js";
import type { Notice } from "./resolve.js";
import type { SslMode } from "./settings.js";

const CONNECT_MS = 5_000;
const RESET_MS = 5_000;
const CLOSE_MS = 2_000;
const STATEMENT_MS = 30_000;
const WAKE_SECONDS = 5;
/** Idle connections that turn out dead at checkout, say after a restart, before one gives up. */
const CHECKOUTS = 4;

const WHO = "SELECT current_database() AS name, (SELECT tenant_id FROM platform.identity) AS tenant";

/** Sends statements, one after the other, on one connection. */
export interface Session {
  query<R extends QueryResultRow = QueryResultRow>(
    statement: string | QueryConfig,
    values?: unknown[],
  ): Promise<QueryResult<R>>;
}

/** Each `query` may use another connection; `session` and `transaction` hold one for `work`. */
export interface Database extends Session {
  session<T>(work: (session: Session) => Promise<T>): Promise<T>;
  transaction<T>(work: (session: Session) => Promise<T>): Promise<T>;
}

export interface DatabasesParts {
  readonly credentials: Credentials;
  readonly endpoints: EndpointMap;
  readonly sslMode: SslMode;
  readonly sslRootCert: string | null;
  readonly limits?: Partial<PoolLimits>;
  readonly report: (message: string, cause: unknown) => void;
}

type ActiveConfig = TenantConfig & { readonly database: DatabaseAddress };

export class Databases {
  readonly #pool: KeyedPool<ActiveConfig, pg.Client>;
  /** The pool's entry and the secret that each tenant was last seen with. */
  readonly #seen = new Map<string, { readonly id: string; readonly secret: string }>();

  constructor(private readonly parts: DatabasesParts) {
    const driver: Driver<ActiveConfig, pg.Client> = {
      open: (config) => this.#open(config),
      reset,
      close,
    };
    this.#pool = new KeyedPool(driver, parts.limits);
  }

  /** The database of a tenant that is active. @throws DataPlaneError "no-tenant" where it is not. */
  of(config: TenantConfig): Database {
    const claim = this.#claim(config);
    const session = <T>(work: (session: Session) => Promise<T>): Promise<T> => this.#session(claim, work);
    return {
      query: (statement, values) => session((one) => one.query(statement, values)),
      session,
      transaction: (work) => session((one) => inTransaction(one, work)),
    };
  }

  /**
   * Make sure that the tenant's database answers, within `wait` milliseconds; at once where it did
   * lately. @throws DataPlaneError "waking" when the time is over; the connect goes on behind.
   */
  async ready(config: TenantConfig, wait: number): Promise<void> {
    const claim = this.#claim(config);
    if (this.#pool.has(claim.id)) return;
    const connecting = this.#checkout(claim).then((lease) => lease.release());
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      const error = new DataPlaneError("waking", `database: no answer within ${wait} ms`, { retryAfter: WAKE_SECONDS });
      timer = setTimeout(() => reject(error), wait);
    });
    try {
      await Promise.race([connecting, late]);
    } finally {
      clearTimeout(timer);
      connecting.catch(() => undefined); // the pool remembers the failure for those who come next
    }
  }

  /** A rotated login is read anew, and connections that were opened with the old one are not used again. */
  heed(notice: Notice): void {
    if (notice.kind !== "credential") return;
    const seen = this.#seen.get(notice.tenant_id);
    if (seen === undefined) return;
    this.parts.credentials.expire(seen.secret);
    this.#pool.retire(seen.id);
  }

  get stats(): KeyedPool<ActiveConfig, pg.Client>["stats"] {
    return this.#pool.stats;
  }

  close(): Promise<void> {
    return this.#pool.close();
  }

  #claim(config: TenantConfig): Claim<ActiveConfig> {
    const { database, tenant_id: tenant } = config;
    if (config.status !== "active" || database === null) {
      throw new DataPlaneError("no-tenant", `database: expected an active tenant, got one that is ${config.status}`);
    }
    const id = `${tenant} ${database.host}:${database.port}/${database.name} ${database.secret}`;
    const seen = this.#seen.get(tenant);
    if (seen?.id !== id) {
      if (seen !== undefined) this.#pool.retire(seen.id); // the tenant moved
      this.#remember(tenant, id, database.secret);
    }
    return { id, key: { ...config, database }, limit: config.pool_size, dedicated: config.dedicated };
  }

  #remember(tenant: string, id: string, secret: string): void {
    this.#seen.set(tenant, { id, secret });
    if (this.#seen.size <= 10_000) return;
    for (const [oldest, { id: oldId }] of this.#seen) {
      if (oldest === tenant || this.#pool.has(oldId)) continue; // its connections still want notices
      this.#seen.delete(oldest);
      return;
    }
  }

  async #session<T>(claim: Claim<ActiveConfig>, work: (session: Session) => Promise<T>): Promise<T> {
    const lease = await this.#checkout(claim);
    let over = false;
    const session: Session = {
      query: async (statement: string | QueryConfig, values?: unknown[]) => {
        if (over) throw new Error("the session is over: its connection may serve somebody else by now");
        try {
          return await lease.connection.query(statement as string, values);
        } catch (error) {
          throw translated(error);
        }
      },
    };
    try {
      return await work(session);
    } finally {
      over = true;
      lease.release();
    }
  }

  async #checkout(claim: Claim<ActiveConfig>): Promise<Lease<pg.Client>> {
    for (let attempt = 1; ; attempt += 1) {
      const lease = await this.#pool.acquire(claim);
      try {
        await this.#identify(lease.connection, claim.key);
        return lease;
      } catch (error) {
        lease.release(true);
        if (attempt === CHECKOUTS || !isGone(error)) throw translated(error);
      }
    }
  }

  async #identify(client: pg.Client, config: ActiveConfig): Promise<void> {
    let found: { name: unknown; tenant: unknown } | undefined;
    try {
      found = (await client.query<{ name: unknown; tenant: unknown }>(WHO)).rows[0];
    } catch (error) {
      if (!/^(?:42|3F|21)/.test(codeOf(error))) throw error;
      throw this.#crossed(config, "the database can't say whose it is", error);
    }
    if (found?.name !== config.database.name || found.tenant !== config.tenant_id) {
      throw this.#crossed(config, "a connection led to another database", undefined);
    }
  }

  #crossed(config: ActiveConfig, what: string, cause: unknown): DataPlaneError {
    const error = new DataPlaneError("cross-tenant", `database: ${what}; it was not used`, { cause });
    this.parts.report(`cross-tenant: ${config.tenant_id} at ${config.host}: ${what}`, cause);
    return error;
  }

  async #open(config: ActiveConfig): Promise<pg.Client> {
    const { credentials } = this.parts;
    const { secret } = config.database;
    if ((tenantOfSecret(secret) ?? config.tenant_id) !== config.tenant_id) {
      throw this.#crossed(config, "the entry names another tenant's secret", undefined);
    }
    const login = await credentials.login(secret);
    try {
      return await this.#connect(config, login);
    } catch (error) {
      if (!isRefusedLogin(error)) throw connectError(error);
      const next = await credentials.afterRefusal(secret, login);
      if (next === login) throw connectError(error);
      return this.#connect(config, next).catch((again: unknown) => Promise.reject(connectError(again)));
    }
  }

  async #connect(config: ActiveConfig, login: Login): Promise<pg.Client> {
    const { database } = config;
    const at = this.parts.endpoints.resolve(database.host, database.port);
    const client = new pg.Client({
      host: at.host,
      port: at.port,
      database: database.name,
      user: login.username,
      password: login.password(),
      ssl: this.#tls(database.host),
      application_name: `nextjs ${config.tenant_id}`,
      connectionTimeoutMillis: CONNECT_MS,
      statement_timeout: STATEMENT_MS,
      idle_in_transaction_session_timeout: STATEMENT_MS,
      keepAlive: true,
    });
    client.on("error", () => this.#pool.lost(client));
    client.on("end", () => this.#pool.lost(client));
    try {
      await client.connect();
    } catch (error) {
      await close(client);
      throw error;
    }
    return client;
  }

  /** The name is verified, wherever the endpoint map sends the bytes. */
  #tls(name: string): pg.ClientConfig["ssl"] {
    const { sslMode, sslRootCert } = this.parts;
    if (sslMode === "disable") return false;
    const ca = sslRootCert === null ? {} : { ca: sslRootCert };
    const verified = sslMode === "verify-full" || sslMode === "verify-ca";
    const anyName = sslMode === "verify-ca" ? { checkServerIdentity: () => undefined } : {};
    return { host: name, servername: name, rejectUnauthorized: verified, ...ca, ...anyName };
  }
}

async function inTransaction<T>(session: Session, work: (session: Session) => Promise<T>): Promise<T> {
  await session.query("BEGIN");
  try {
    const result = await work(session);
    await session.query("COMMIT");
    return result;
  } catch (error) {
    // A connection that can't even roll back is closed at its release, which ends the transaction.
    await session.query("ROLLBACK").catch(() => undefined);
    throw error;
  }
}

/** What pg remembers about a connection's prepared statements, which DISCARD ALL has dropped. */
interface Prepared {
  readonly connection: { parsedStatements: Record<string, string>; submittedNamedStatements: Record<string, string> };
}

async function reset(client: pg.Client): Promise<void> {
  await within(RESET_MS, client.query("DISCARD ALL"));
  const { connection } = client as unknown as Prepared;
  connection.parsedStatements = {};
  connection.submittedNamedStatements = {};
}

async function close(client: pg.Client): Promise<void> {
  try {
    await within(CLOSE_MS, client.end());
  } catch {
    (client as unknown as { connection: { stream: { destroy(): void } } }).connection.stream.destroy();
  }
}

async function within<T>(duration: number, work: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no answer within ${duration} ms`)), duration);
  });
  try {
    return await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
    work.catch(() => undefined); // its end after the deadline is nobody's concern
  }
}

function codeOf(error: unknown): string {
  const code = typeof error === "object" && error !== null && "code" in error ? error.code : null;
  return typeof code === "string" ? code : "";
}

function isRefusedLogin(error: unknown): boolean {
  return codeOf(error) === "28P01" || codeOf(error) === "28000";
}

/** The connection is gone, or the server is going: another one may do. */
function isGone(error: unknown): boolean {
  if (isDataPlaneError(error)) return false;
  const code = codeOf(error);
  const message = error instanceof Error ? error.message : "";
  return /^(?:08|57P)/.test(code) || /^E[A-Z]+$/.test(code) || /terminated|not queryable|was closed/i.test(message);
}

function translated(error: unknown): unknown {
  if (!isGone(error)) return error;
  return new DataPlaneError("database-unavailable", "database: the connection was lost", {
    cause: error,
    retryAfter: 2,
  });
}

/** 57P03 and silence are what a starting server gives; a paused cluster holds the connect until it is up. */
function connectError(error: unknown): DataPlaneError {
  if (isDataPlaneError(error)) return error;
  const message = error instanceof Error ? error.message : "";
  const code = codeOf(error);
  if (code === "57P03" || code === "ETIMEDOUT" || /timeout expired/.test(message)) {
    return new DataPlaneError("waking", "database: it is starting", { cause: error, retryAfter: WAKE_SECONDS });
  }
  if (code === "53300") {
    return new DataPlaneError("busy", "database: the server takes no more connections", { cause: error, retryAfter: 2 });
  }
  if (isRefusedLogin(error)) {
    const refused = "credentials: the server refuses the login that the secret holds";
    return new DataPlaneError("credential-unavailable", refused, { cause: error, retryAfter: 5 });
  }
  return new DataPlaneError("database-unavailable", "database: it does not answer", { cause: error, retryAfter: 5 });
}
