/**
 * A tenant's database, through the process's pool.
 *
 * A request for A must never reach B's database, however wrong an address, a secret or a DNS answer
 * is. So every checkout asks the database itself who it is: `current_database()` and `platform.identity`,
 * where the control plane writes each field once, and a trigger refuses to change it. One round trip buys an
 * answer that no configuration can fake. On return `DISCARD ALL` leaves nothing behind.
 */

import type pg from "pg";
import type { QueryConfig, QueryResult, QueryResultRow } from "pg";

import { codeOf, Connector, isGone, leftOpen, patience, silence, translated, type ActiveConfig, type Transport } from "./connect.js";
import type { TenantConfig } from "./tenant-config.js";
import type { Credentials } from "./credentials.js";
import { DataPlaneError, isDataPlaneError } from "./errors.js";
import { KeyedPool, type Claim, type Fleet, type Lease, type PoolLimits } from "./pool.js";
import type { Invalidation } from "./resolve.js";

/** Idle connections that turn out dead at checkout, say after a restart, before one gives up. */
const CHECKOUTS = 4;

const WHO = "SELECT pg_catalog.current_database() AS name, placement, tenant FROM platform.identity";

/** What a database says of itself. `tenant`: null until it is bound to one. */
export interface Identity {
  readonly name: string;
  readonly placement: string;
  readonly tenant: string | null;
}

/**
 * Is the database the entry's? Each field must be, but that a database without a tenant may be anybody's: it is
 * published before its tenant is written into it.
 */
export function isOwn(rows: readonly Identity[], config: ActiveConfig): boolean {
  const [found] = rows;
  if (found === undefined || rows.length !== 1) return false;
  const { name, placement, tenant } = found;
  return name === config.database.name && placement === config.placement && (tenant === null || tenant === config.tenant_id);
}

/** Sends statements, one after the other, on one connection. */
export interface Session {
  query<R extends QueryResultRow = QueryResultRow>(
    statement: string | QueryConfig,
    values?: unknown[],
  ): Promise<QueryResult<R>>;
}

/**
 * Each `query` may use another connection; `session` and `transaction` hold one for `work`. So a transaction
 * must begin and end within one of them: what is left open is rolled back, and the call rejects.
 */
export interface Database extends Session {
  session<T>(work: (session: Session) => Promise<T>): Promise<T>;
  transaction<T>(work: (session: Session) => Promise<T>): Promise<T>;
}

export interface DatabasesParts extends Transport {
  readonly credentials: Credentials;
  readonly limits?: Partial<PoolLimits>;
  /** Where other processes use the clusters too. */
  readonly fleet?: Fleet | null;
  readonly report: (message: string, cause: unknown) => void;
}

export class Databases {
  readonly #pool: KeyedPool<ActiveConfig, pg.Client>;
  /** The pool's entry and the secret that each tenant was last seen with. */
  readonly #seen = new Map<string, { readonly id: string; readonly secret: string }>();

  constructor(private readonly parts: DatabasesParts) {
    const connector = new Connector(parts.credentials, parts, (client) => this.#pool.lost(client));
    this.#pool = new KeyedPool(connector, parts.limits, parts.fleet);
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
   * Make sure that the tenant's database answers; at once where a connection is open. Waits for a paused one as
   * long as `wake` says. @throws DataPlaneError "waking" when the time is over, "database-unavailable" where the
   * plan never pauses; the connect goes on behind.
   */
  async ready(config: TenantConfig): Promise<void> {
    const claim = this.#claim(config);
    if (this.#pool.isOpen(claim.id)) return;
    const connecting = this.#checkout(claim).then((lease) => lease.release());
    const wait = patience(config, this.parts);
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      const error = silence(config, `database: no answer within ${wait} ms`);
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
  heed(invalidation: Invalidation): void {
    if (invalidation.kind !== "credential") return;
    const seen = this.#seen.get(invalidation.tenant_id);
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
    const { database, placement, tenant_id: tenant } = config;
    if (config.status !== "active" || database === null || placement === null) {
      throw new DataPlaneError("no-tenant", `database: expected an active tenant, got one that is ${config.status}`);
    }
    const id = `${tenant} ${database.host}:${database.port}/${database.name} ${database.secret}`;
    const seen = this.#seen.get(tenant);
    if (seen?.id !== id) {
      if (seen !== undefined) this.#pool.retire(seen.id); // the tenant moved
      this.#remember(tenant, id, database.secret);
    }
    const cluster = `${database.host}:${database.port}`;
    return { id, key: { ...config, placement, database }, cluster, limit: config.pool_size, dedicated: config.dedicated };
  }

  #remember(tenant: string, id: string, secret: string): void {
    this.#seen.set(tenant, { id, secret });
    if (this.#seen.size <= 10_000) return;
    for (const [oldest, { id: oldId }] of this.#seen) {
      if (oldest === tenant || this.#pool.has(oldId)) continue; // its connections still want invalidations
      this.#seen.delete(oldest);
      return;
    }
  }

  async #session<T>(claim: Claim<ActiveConfig>, work: (session: Session) => Promise<T>): Promise<T> {
    const lease = await this.#checkout(claim);
    let over = false;
    let open = false;
    let last: Promise<unknown> = Promise.resolve();
    const session: Session = {
      query: async <R extends QueryResultRow>(statement: string | QueryConfig, values?: unknown[]) => {
        if (over) throw new Error("the session is over: its connection may serve somebody else by now");
        const answer = lease.connection.query<R>(statement as string, values);
        last = answer;
        try {
          return await answer;
        } catch (error) {
          throw translated(error);
        }
      },
    };
    try {
      const result = await work(session);
      over = true;
      open = await leftOpen(lease.connection, last);
      if (!open) return result;
    } finally {
      over = true;
      lease.release(open);
    }
    throw new Error(
      "database: a statement left a transaction open, which is rolled back: each query() may use another " +
        "connection, so begin and end a transaction within one session(), or use transaction()",
    );
  }

  async #checkout(claim: Claim<ActiveConfig>): Promise<Lease<pg.Client>> {
    for (let attempt = 1; ; attempt += 1) {
      const lease = await this.#pool.acquire(claim).catch((error: unknown) => {
        // In line behind a connect that nobody has answered yet: it is not the tenant who is busy.
        const unanswered = isDataPlaneError(error) && error.code === "busy" && this.#pool.has(claim.id);
        throw unanswered && !this.#pool.isOpen(claim.id) ? silence(claim.key, error.message, error) : error;
      });
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
    let rows: Identity[];
    try {
      ({ rows } = await client.query<Identity & QueryResultRow>(WHO));
    } catch (error) {
      if (!/^(?:42|3F)/.test(codeOf(error))) throw error;
      throw this.#crossed(config, "the database can't say whose it is", error);
    }
    if (!isOwn(rows, config)) throw this.#crossed(config, "a connection led to another database", undefined);
  }

  #crossed(config: ActiveConfig, what: string, cause: unknown): DataPlaneError {
    const error = new DataPlaneError("cross-tenant", `database: ${what}; it was not used`, { cause });
    this.parts.report(`cross-tenant: ${config.tenant_id} at ${config.host}: ${what}`, cause);
    return error;
  }
}

async function inTransaction<T>(session: Session, work: (session: Session) => Promise<T>): Promise<T> {
  await session.query("BEGIN");
  try {
    const result = await work(session);
    const { command } = await session.query("COMMIT");
    if (command !== "ROLLBACK") return result; // which PostgreSQL answers where a statement had failed
    throw new Error(
      "database: nothing was stored, since a statement of this transaction had failed: let its error out " +
        "of transaction(), or set a SAVEPOINT before what may fail",
    );
  } catch (error) {
    // A connection that can't even roll back is closed at its release, which ends the transaction.
    await session.query("ROLLBACK").catch(() => undefined);
    throw error;
  }
}
