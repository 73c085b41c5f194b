/**
 * One connection to a tenant's database: how it is opened, cleaned and closed, each within a bounded
 * time, and what PostgreSQL's and the network's ways of saying no mean for a request.
 */

import { setTimeout as sleep } from "node:timers/promises";

import pg from "pg";

import type { DatabaseAddress, TenantConfig } from "./tenant-config.js";
import type { Credentials, Login } from "./credentials.js";
import type { EndpointMap } from "./endpoints.js";
import { DataPlaneError, isDataPlaneError } from "./errors.js";
import type { Driver } from "./pool.js";
import { WAKE_SECONDS, type SslMode } from "./settings.js";

/** Seconds after which to try a database again that is starting. */
const RETRY_SECONDS = 5;

const CONNECT_MS = 5_000;
const PAUSE_MS = 500;
const RESET_MS = 5_000;
const CLOSE_MS = 2_000;
const STATEMENT_MS = 30_000;

export type ActiveConfig = TenantConfig & { readonly placement: string; readonly database: DatabaseAddress };

export interface Transport {
  readonly endpoints: EndpointMap;
  readonly sslMode: SslMode;
  readonly sslRootCert: string | null;
  /** Milliseconds that a request waits for a paused database; WAKE_SECONDS unless said otherwise. */
  readonly wake?: number;
}

/** Encrypted or not, in the order of libpq's manual. */
const WAYS: Readonly<Record<SslMode, readonly boolean[]>> = {
  disable: [false],
  allow: [false, true],
  prefer: [true, false],
  require: [true],
  "verify-ca": [true],
  "verify-full": [true],
};

/** What pg remembers about a connection's prepared statements, which DISCARD ALL has dropped. */
interface Prepared {
  readonly connection: { parsedStatements: Record<string, string>; submittedNamedStatements: Record<string, string> };
}

export class Connector implements Driver<ActiveConfig, pg.Client> {
  /** `lost` hears of connections that ended by themselves. */
  constructor(
    private readonly credentials: Credentials,
    private readonly transport: Transport,
    private readonly lost: (client: pg.Client) => void,
  ) {}

  async open(config: ActiveConfig): Promise<pg.Client> {
    const { credentials } = this;
    const { secret, role } = config.database;
    const address = { placement: config.placement, role, secret };
    const until = performance.now() + patience(config, this.transport);
    const login = await credentials.login(address);
    try {
      return await this.#patiently(config, login, until);
    } catch (error) {
      if (!isRefusedLogin(error)) throw connectError(config, error);
      const next = await credentials.afterRefusal(address, login);
      if (next === login) throw connectError(config, error);
      return this.#patiently(config, next, until).catch((again: unknown) => Promise.reject(connectError(config, again)));
    }
  }

  async reset(client: pg.Client): Promise<void> {
    await within(RESET_MS, client.query("DISCARD ALL"));
    const { connection } = client as unknown as Prepared;
    connection.parsedStatements = {};
    connection.submittedNamedStatements = {};
  }

  async close(client: pg.Client): Promise<void> {
    try {
      await within(CLOSE_MS, client.end());
    } catch {
      (client as unknown as { connection: { stream: { destroy(): void } } }).connection.stream.destroy();
    }
  }

  /** Tries again while the database starts. */
  async #patiently(config: ActiveConfig, login: Login, until: number): Promise<pg.Client> {
    for (;;) {
      try {
        return await this.#connect(config, login, until);
      } catch (error) {
        if (!isStarting(config, error) || performance.now() + PAUSE_MS >= until) throw error;
        await sleep(PAUSE_MS);
      }
    }
  }

  async #connect(config: ActiveConfig, login: Login, until: number): Promise<pg.Client> {
    const [first = true, second] = WAYS[this.transport.sslMode];
    try {
      return await this.#connectBy(first, config, login, until);
    } catch (error) {
      if (second === undefined || !isAboutEncryption(error)) throw error;
      return this.#connectBy(second, config, login, until);
    }
  }

  async #connectBy(encrypted: boolean, config: ActiveConfig, login: Login, until: number): Promise<pg.Client> {
    const { database } = config;
    const at = this.transport.endpoints.resolve(database.host, database.port);
    const client = new pg.Client({
      host: at.host,
      port: at.port,
      database: database.name,
      user: login.username,
      password: login.password(),
      ssl: encrypted && this.#tls(database.host),
      application_name: `nextjs ${config.tenant_id}`,
      connectionTimeoutMillis: Math.max(1, until - performance.now()),
      statement_timeout: STATEMENT_MS,
      idle_in_transaction_session_timeout: STATEMENT_MS,
      keepAlive: true,
    });
    client.on("error", () => this.lost(client));
    client.on("end", () => this.lost(client));
    try {
      await client.connect();
    } catch (error) {
      await this.close(client);
      throw error;
    }
    return client;
  }

  /** The name is verified, wherever the endpoint map sends the bytes. */
  #tls(name: string): pg.ClientConfig["ssl"] {
    const { sslMode, sslRootCert } = this.transport;
    const ca = sslRootCert === null ? {} : { ca: sslRootCert };
    const named = sslMode === "verify-full";
    const anyName = named ? {} : { checkServerIdentity: () => undefined };
    // As libpq does: authorities that are named are asked in every mode.
    return { host: name, servername: name, rejectUnauthorized: named || sslRootCert !== null, ...ca, ...anyName };
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

/**
 * Does the connection end inside of a transaction? `last` is the last statement that was sent. An error of
 * it arrives before the server says what became of the transaction, which the answer to an empty one brings.
 */
export async function leftOpen(client: pg.Client, last: Promise<unknown>): Promise<boolean> {
  try {
    await within(STATEMENT_MS + RESET_MS, last.catch(() => client.query("")));
  } catch {
    return false; // it is lost, which its reset finds out
  }
  return client.getTransactionStatus() !== "I";
}

export function codeOf(error: unknown): string {
  const code = typeof error === "object" && error !== null && "code" in error ? error.code : null;
  return typeof code === "string" ? code : "";
}

/** May the same server be reached with TLS where it was not without, or the other way round? */
function isAboutEncryption(error: unknown): boolean {
  const code = codeOf(error);
  if (code === "28000") return true; // no pg_hba.conf entry for this kind of connection
  return !/^(?:[0-9A-Z]{5}|E[A-Z]+)$/.test(code) && !/timeout expired/.test(error instanceof Error ? error.message : "");
}

/** A server that starts says 57P03; where the cluster may pause, one that can't be reached starts as well. */
function isStarting(config: TenantConfig, error: unknown): boolean {
  return codeOf(error) === "57P03" || (mayPause(config) && isGone(error));
}

function isRefusedLogin(error: unknown): boolean {
  return codeOf(error) === "28P01" || codeOf(error) === "28000";
}

/** The connection is gone, or the server is going: another one may do. */
export function isGone(error: unknown): boolean {
  if (isDataPlaneError(error)) return false;
  const code = codeOf(error);
  const message = error instanceof Error ? error.message : "";
  return /^(?:08|57P)/.test(code) || /^E[A-Z]+$/.test(code) || /terminated|not queryable|was closed/i.test(message);
}

/** Milliseconds that the tenant's database may take to answer a connect. */
export function patience(config: TenantConfig, { wake = WAKE_SECONDS * 1000 }: Pick<Transport, "wake">): number {
  return mayPause(config) ? wake : CONNECT_MS;
}

/** Does the plan let the tenant's cluster pause when nobody uses it? */
function mayPause(config: TenantConfig): boolean {
  return config.profile["pauses"] === true;
}

/** Nothing was heard in time: "waking" where the tenant's cluster may pause, else "database-unavailable". */
export function silence(config: TenantConfig, message: string, cause?: unknown): DataPlaneError {
  const code = mayPause(config) ? "waking" : "database-unavailable";
  return new DataPlaneError(code, message, { cause, retryAfter: RETRY_SECONDS });
}

/** The error of a statement, as a request may see it. */
export function translated(error: unknown): unknown {
  if (!isGone(error)) return error;
  return new DataPlaneError("database-unavailable", "database: the connection was lost", {
    cause: error,
    retryAfter: 2,
  });
}

/**
 * A server that is silent starts where the plan lets its cluster pause (`profile.pauses`), since a paused
 * cluster holds the connect until it is up. Any other silence is a fault.
 */
function connectError(config: TenantConfig, error: unknown): DataPlaneError {
  if (isDataPlaneError(error)) return error;
  const message = error instanceof Error ? error.message : "";
  const code = codeOf(error);
  if (isStarting(config, error)) {
    return new DataPlaneError("waking", "database: it is starting", { cause: error, retryAfter: RETRY_SECONDS });
  }
  if (code === "ETIMEDOUT" || /timeout expired/.test(message)) {
    return silence(config, "database: it does not answer", error);
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
