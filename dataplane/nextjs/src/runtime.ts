/**
 * What a process has one of: resolver, invalidations, logins, connections.
 *
 * Kept on `globalThis`, because Next.js compiles the proxy, pages and route handlers into bundles with
 * module states of their own, all running in one process; a pool a bundle would multiply the budget.
 * Built on first use from the environment, so that `next build` needs none of it.
 */

import { ControlPlaneTier } from "./control.js";
import { Credentials, secretsManagerReader } from "./credentials.js";
import { Databases } from "./databases.js";
import { EndpointMap } from "./endpoints.js";
import { FleetBudget } from "./fleet.js";
import { rawHost } from "./hosts.js";
import { InvalidationListener, RedisTier } from "./redis.js";
import { Resolver, type ResolverParts } from "./resolve.js";
import { settingsFrom, type Settings } from "./settings.js";

export interface Runtime {
  readonly settings: Settings;
  readonly resolver: Resolver;
  readonly databases: Databases;
}

/** The request headers in which the proxy passes on the control plane's entry and its own pass. */
export const ENTRY_HEADER = "x-tenant-entry";
export const PASS_HEADER = "x-tenant-pass";

const KEY = Symbol.for("tenant-controlplane.nextjs.runtime");
const WARN_EVERY_MS = 10_000;

export function runtime(): Runtime {
  const holder = globalThis as { [KEY]?: Runtime };
  holder[KEY] ??= build(settingsFrom(process.env));
  return holder[KEY];
}

/** The host of a request as the header that counts spells it. */
export function rawHostOf(headers: Headers, settings: Settings): string {
  return rawHost(headers.get("host"), headers.get("x-forwarded-host"), settings.trustedProxies);
}

function build(settings: Settings): Runtime {
  const warn = warner();
  const { cacheUrl, clusterBudget } = settings;
  const counted = cacheUrl !== null && clusterBudget !== null;
  const databases = new Databases({
    credentials: new Credentials(secretsManagerReader()),
    endpoints: new EndpointMap(settings.endpointMap),
    sslMode: settings.sslMode,
    sslRootCert: settings.sslRootCert,
    wake: settings.wakeSeconds * 1000,
    limits: { budget: settings.poolBudget },
    fleet: counted ? new FleetBudget(cacheUrl, { limit: clusterBudget, warn }) : null,
    report: (message, cause) => console.error(`[tenant] ${line(message, cause)}`),
  });
  const tiers: Pick<ResolverParts, "cache" | "authority"> = {
    ...(cacheUrl !== null && { cache: new RedisTier(cacheUrl, warn) }),
    ...(settings.resolveUrl !== null && {
      authority: new ControlPlaneTier(settings.resolveUrl, settings.resolveToken),
    }),
  };
  const resolver = new Resolver({
    keys: settings.keys,
    ...tiers,
    releases: settings.releases,
    limits: { serveStale: settings.staleSeconds * 1000 },
    warn,
  });
  if (cacheUrl !== null) {
    new InvalidationListener(
      cacheUrl,
      (invalidation) => {
        resolver.heed(invalidation);
        databases.heed(invalidation);
      },
      (listening) => resolver.heard(listening),
      warn,
    );
  }
  return { settings, resolver, databases };
}

/** An outage says its word every ten seconds, not at every request. Messages begin with "<topic>:". */
function warner(): (message: string, cause: unknown) => void {
  const quietUntil = new Map<string, number>();
  return (message, cause) => {
    const now = performance.now();
    const topic = message.slice(0, message.indexOf(":"));
    if (now < (quietUntil.get(topic) ?? 0)) return;
    quietUntil.set(topic, now + WARN_EVERY_MS);
    console.warn(`[tenant] ${line(message, cause)}`);
  };
}

function line(message: string, cause: unknown): string {
  return cause instanceof Error ? `${message} (${cause.name}: ${cause.message})` : message;
}
