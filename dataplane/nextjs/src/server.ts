/**
 * The tenant of the request and its database, for server components, route handlers and server actions.
 *
 * Nothing here takes a bare id at its word. `tenant()` wants two signatures: the proxy's pass, which
 * says for which host the request was let in some moments ago, and the control plane's entry, which
 * says whose host that is. A client that sends these headers has no key to make them with, and an old
 * entry that leaked is worth nothing without a pass. An entry older than what this process knows by
 * now (a tenant suspended, a domain that changed hands) gives way to the newer one.
 */

import { headers } from "next/headers.js";
import { cache } from "react";

import { TenantConfigError, verify, type TenantConfig } from "./tenant-config.js";
import type { Database } from "./databases.js";
import { DataPlaneError, errorResponse, isDataPlaneError } from "./errors.js";
import { ENTRY_HEADER, PASS_HEADER, runtime } from "./runtime.js";
import { hostOfPass, readSegment, segmentOf } from "./seal.js";

export { errorResponse, isDataPlaneError } from "./errors.js";
export type { Database, Session } from "./databases.js";

/** Entries that are followed to a tenant; each names the host of its own moment, so one is enough. */
const MOVES = 3;

/** What the application may know of its tenant: plain, and safe to hand to client components. */
export interface Tenant {
  readonly id: string;
  readonly slug: string;
  readonly host: string;
  readonly plan: string;
  readonly release: string | null;
  readonly profile: Readonly<Record<string, unknown>>;
  /** Names the tenant towards `tenantFrom()`: the key of everything that is cached for it. */
  readonly segment: string;
}

/** The tenant of this request; verified once a render. @throws DataPlaneError "no-tenant" outside of one. */
export const tenant = cache(async (): Promise<Tenant> => tenantOf(await requestConfig()));

/**
 * The tenant of a segment: in a page under `app/t/[tenant]`, where Next.js has no request to look at
 * because the result is for many of them, or inside a cached function.
 * @throws DataPlaneError "unknown-host" where no proxy of ours made the segment, or the tenant is gone.
 */
export async function tenantFrom(segment: string): Promise<Tenant> {
  return tenantOf(await segmentConfig(decodeURIComponent(segment)));
}

/**
 * The tenant's database: of this request, or of the tenant or segment given. Connections are
 * taken when something is asked, and given back when it is answered.
 */
export function db(of?: Tenant | string): Database {
  const database = async (): Promise<Database> => runtime().databases.of(await configOf(of));
  return {
    query: async (statement, values) => (await database()).query(statement, values),
    session: async (work) => (await database()).session(work),
    transaction: async (work) => (await database()).transaction(work),
  };
}

/** A route handler that answers what may go wrong on the way to the database: 503 with `Retry-After`, … */
export function tenantRoute<C>(
  handler: (request: Request, context: C) => Promise<Response>,
): (request: Request, context: C) => Promise<Response> {
  return async (request, context) => {
    try {
      return await handler(request, context);
    } catch (error) {
      if (!isDataPlaneError(error)) throw error;
      return errorResponse(error);
    }
  };
}

function configOf(of: Tenant | string | undefined): Promise<TenantConfig> {
  if (of === undefined) return requestConfig();
  return segmentConfig(typeof of === "string" ? of : of.segment);
}

async function requestConfig(): Promise<TenantConfig> {
  const sent = await headers();
  const { settings, resolver } = runtime();
  const host = hostOfPass(sent.get(PASS_HEADER), settings.keys, Date.now() / 1000);
  const entry = sent.get(ENTRY_HEADER);
  if (host === null || entry === null) {
    throw new DataPlaneError("no-tenant", "tenant: the proxy did not see this request; does its matcher take the path?");
  }
  const known = resolver.known(host);
  if (known?.entry === entry) return current(known.config); // verified when it was loaded
  let config: TenantConfig;
  try {
    config = verify(entry, host, settings.keys);
  } catch (error) {
    if (!(error instanceof TenantConfigError)) throw error;
    throw new DataPlaneError("no-tenant", "tenant: the entry is not one of this host", { cause: error });
  }
  return current(known !== null && known.config.epoch > config.epoch ? known.config : config);
}

async function segmentConfig(segment: string): Promise<TenantConfig> {
  const { settings, resolver } = runtime();
  const named = readSegment(segment, settings.keys);
  const resolved = named === null ? null : await resolver.resolve(named.host);
  if (resolved === null || resolved.config.tenant_id !== named?.tenantId) {
    throw new DataPlaneError("unknown-host", "tenant: the segment names none that is here");
  }
  return current(resolved.config);
}

/** Of an active tenant. One that has moved to another host meanwhile is the same tenant there. */
async function current(found: TenantConfig): Promise<TenantConfig> {
  let config = found;
  for (let moves = 0; config.moved_to !== null; moves += 1) {
    const next = moves < MOVES ? await runtime().resolver.resolve(config.moved_to) : null;
    if (next?.config.tenant_id !== found.tenant_id) {
      throw new DataPlaneError("unknown-host", `tenant: not at ${config.moved_to}, to which ${found.host} leads`);
    }
    config = next.config;
  }
  if (config.status === "active") {
    if (runtime().settings.releases.serve(config.release)) return config;
    throw new DataPlaneError("being-updated", `tenant: of release ${config.release}`, { retryAfter: 5 });
  }
  const code = config.status === "gone" || config.status === "moved" ? "unknown-host" : config.status;
  throw new DataPlaneError(code, `tenant: ${config.status}`, code === "provisioning" ? { retryAfter: 5 } : {});
}

function tenantOf(config: TenantConfig): Tenant {
  return {
    id: config.tenant_id,
    slug: config.slug,
    host: config.host,
    plan: config.plan,
    release: config.release,
    profile: config.profile,
    segment: segmentOf(config, runtime().settings.keys),
  };
}
