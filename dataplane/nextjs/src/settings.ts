/** The environment's variables, read once; a wrong one is named together with what was expected. */

import { readFileSync } from "node:fs";

import type { ConfigKeys } from "./contract.js";
import { Zones } from "./hosts.js";
import { Releases } from "./releases.js";

export type SslMode = "disable" | "require" | "verify-ca" | "verify-full";

const SSL_MODES: ReadonlySet<string> = new Set<SslMode>(["disable", "require", "verify-ca", "verify-full"]);

export interface Settings {
  /** DATAPLANE_CONFIG_KEYS, `k1:<base64 of 32 bytes or more>[,k0:…]`: the control plane's signing keys. */
  readonly keys: ConfigKeys;
  /** DATAPLANE_CACHE_URL, `redis://…`: the configuration cache. */
  readonly cacheUrl: string | null;
  /** DATAPLANE_RESOLVE_URL: the control plane, asked at `/v1/resolve`. */
  readonly resolveUrl: string | null;
  /** DATAPLANE_RESOLVE_TOKEN: the bearer token for it, required with it. */
  readonly resolveToken: string | null;
  /** DATAPLANE_PLATFORM_ZONES, comma separated. */
  readonly zones: Zones;
  /** DATAPLANE_RELEASES: the tenants' releases that this version of the application serves; all unless said. */
  readonly releases: Releases;
  /** DATAPLANE_TRUSTED_PROXIES: how many proxies of one's own write X-Forwarded-Host. 0: only Host counts. */
  readonly trustedProxies: number;
  /** DATAPLANE_ENDPOINT_MAP: see `endpoints.ts`. Empty in production. */
  readonly endpointMap: string | null;
  /** DATAPLANE_SSLMODE: verify-full unless said otherwise. */
  readonly sslMode: SslMode;
  /** DATAPLANE_SSLROOTCERT: path of a PEM file of authorities, or `system`. Here its text. */
  readonly sslRootCert: string | null;
  /** DATAPLANE_TENANT_ROLE, `arn:…:role/{placement}`: read each secret as the tenant's own role. */
  readonly tenantRole: string | null;
  /** DATAPLANE_POOL_BUDGET: database connections that this process may hold, over all tenants. */
  readonly poolBudget: number;
  /** DATAPLANE_CLUSTER_BUDGET: connections to one cluster over all processes; null: not limited. */
  readonly clusterBudget: number | null;
  /** DATAPLANE_STALE_SECONDS: how long known tenants are served with all behind down. */
  readonly staleSeconds: number;
}

export function settingsFrom(environment: Readonly<Record<string, string | undefined>>): Settings {
  const text = (name: string): string | null => environment[name]?.trim() || null;
  const cacheUrl = text("DATAPLANE_CACHE_URL");
  const resolveUrl = text("DATAPLANE_RESOLVE_URL");
  if (cacheUrl === null && resolveUrl === null) {
    throw new Error("DATAPLANE_CACHE_URL: expected it or DATAPLANE_RESOLVE_URL to be set");
  }
  const resolveToken = text("DATAPLANE_RESOLVE_TOKEN");
  if (resolveUrl !== null && resolveToken === null) {
    throw new Error("DATAPLANE_RESOLVE_TOKEN: expected it together with DATAPLANE_RESOLVE_URL");
  }
  const clusterBudget = text("DATAPLANE_CLUSTER_BUDGET");
  if (clusterBudget !== null && cacheUrl === null) {
    throw new Error("DATAPLANE_CACHE_URL: expected it together with DATAPLANE_CLUSTER_BUDGET, to count there");
  }
  const sslMode = text("DATAPLANE_SSLMODE") ?? "verify-full";
  if (!SSL_MODES.has(sslMode)) throw new Error(`DATAPLANE_SSLMODE: expected one of ${[...SSL_MODES].join(", ")}`);
  const tenantRole = text("DATAPLANE_TENANT_ROLE");
  if (tenantRole !== null && !tenantRole.includes("{placement}")) {
    throw new Error("DATAPLANE_TENANT_ROLE: expected an ARN with {placement} in it");
  }
  const authorities = text("DATAPLANE_SSLROOTCERT") ?? "system";
  const number = (name: string, usual: number, least: number, most: number): number =>
    integer(name, text(name) ?? String(usual), least, most);
  return {
    keys: keysFrom(text("DATAPLANE_CONFIG_KEYS")),
    cacheUrl,
    resolveUrl,
    resolveToken,
    zones: new Zones((text("DATAPLANE_PLATFORM_ZONES") ?? "").split(",").flatMap((zone) => zone.trim() || [])),
    releases: releasesFrom(text("DATAPLANE_RELEASES")),
    trustedProxies: number("DATAPLANE_TRUSTED_PROXIES", 0, 0, 10),
    endpointMap: text("DATAPLANE_ENDPOINT_MAP"),
    sslMode: sslMode as SslMode,
    sslRootCert: authorities === "system" ? null : readFileSync(/* turbopackIgnore: true */ authorities, "utf8"),
    tenantRole,
    poolBudget: number("DATAPLANE_POOL_BUDGET", 100, 1, 10_000),
    clusterBudget: clusterBudget === null ? null : number("DATAPLANE_CLUSTER_BUDGET", 1, 1, 100_000),
    staleSeconds: number("DATAPLANE_STALE_SECONDS", 6 * 3600, 0, 30 * 86_400),
  };
}

function keysFrom(text: string | null): ConfigKeys {
  const keys = new Map<string, Uint8Array>();
  for (const part of (text ?? "").split(",")) {
    const [, id, encoded] = /^([^.:,\s]+):([A-Za-z0-9+/_-]+={0,2})$/.exec(part.trim()) ?? [];
    const key = Buffer.from(encoded ?? "", "base64");
    if (id === undefined || key.length < 32) {
      throw new Error("DATAPLANE_CONFIG_KEYS: expected <key id>:<base64 of 32 bytes or more>[,…]");
    }
    keys.set(id, key);
  }
  return keys;
}

function releasesFrom(text: string | null): Releases {
  if (text === null) return Releases.ALL;
  try {
    return Releases.parse(text);
  } catch (error) {
    throw new Error(`DATAPLANE_RELEASES: ${(error as Error).message}`, { cause: error });
  }
}

function integer(name: string, text: string, least: number, most: number): number {
  const value = /^[0-9]+$/.test(text) ? Number(text) : NaN;
  if (!(value >= least && value <= most)) throw new Error(`${name}: expected a whole number from ${least} to ${most}`);
  return value;
}
