/** The environment's variables, read once; a wrong one is named together with what was expected. */

import { readFileSync } from "node:fs";

import type { ConfigKeys } from "./contract.js";
import { Zones } from "./hosts.js";

export type SslMode = "disable" | "require" | "verify-full";

export interface Settings {
  /** DATAPLANE_CONFIG_KEYS, `k1:<base64 of 32 bytes or more>[,k0:…]`: the control plane's signing keys. */
  readonly keys: ConfigKeys;
  /** DATAPLANE_CACHE_URL, `redis://…`: the configuration cache. */
  readonly cacheUrl: string | null;
  /** DATAPLANE_RESOLVE_URL: the control plane, asked at `/v1/resolve`. */
  readonly resolveUrl: string | null;
  /** DATAPLANE_RESOLVE_TOKEN: the bearer token for it. */
  readonly resolveToken: string | null;
  /** DATAPLANE_PLATFORM_ZONES, comma separated. */
  readonly zones: Zones;
  /** DATAPLANE_TRUSTED_PROXIES: how many proxies of one's own write X-Forwarded-Host. 0: only Host counts. */
  readonly trustedProxies: number;
  /** DATAPLANE_ENDPOINT_MAP: see `endpoints.ts`. Empty in production. */
  readonly endpointMap: string | null;
  /** DATAPLANE_SSLMODE: verify-full unless said otherwise. */
  readonly sslMode: SslMode;
  /** DATAPLANE_SSLROOTCERT: path of a PEM file of authorities, instead of the system's. */
  readonly sslRootCert: string | null;
  /** DATAPLANE_CONNECTION_BUDGET: database connections that this process may hold, over all tenants. */
  readonly connectionBudget: number;
}

export function settingsFrom(environment: Readonly<Record<string, string | undefined>>): Settings {
  const text = (name: string): string | null => environment[name]?.trim() || null;
  const cacheUrl = text("DATAPLANE_CACHE_URL");
  const resolveUrl = text("DATAPLANE_RESOLVE_URL");
  if (cacheUrl === null && resolveUrl === null) {
    throw new Error("DATAPLANE_CACHE_URL, DATAPLANE_RESOLVE_URL: expected at least one of them");
  }
  const sslMode = text("DATAPLANE_SSLMODE") ?? "verify-full";
  if (sslMode !== "disable" && sslMode !== "require" && sslMode !== "verify-full") {
    throw new Error("DATAPLANE_SSLMODE: expected disable, require or verify-full");
  }
  const certificate = text("DATAPLANE_SSLROOTCERT");
  return {
    keys: keysFrom(text("DATAPLANE_CONFIG_KEYS")),
    cacheUrl,
    resolveUrl,
    resolveToken: text("DATAPLANE_RESOLVE_TOKEN"),
    zones: new Zones((text("DATAPLANE_PLATFORM_ZONES") ?? "").split(",").flatMap((zone) => zone.trim() || [])),
    trustedProxies: integer("DATAPLANE_TRUSTED_PROXIES", text("DATAPLANE_TRUSTED_PROXIES") ?? "0", 0, 10),
    endpointMap: text("DATAPLANE_ENDPOINT_MAP"),
    sslMode,
    sslRootCert: certificate === null ? null : readFileSync(/* turbopackIgnore: true */ certificate, "utf8"),
    connectionBudget: integer("DATAPLANE_CONNECTION_BUDGET", text("DATAPLANE_CONNECTION_BUDGET") ?? "50", 1, 10_000),
  };
}

function keysFrom(text: string | null): ConfigKeys {
  const keys = new Map<string, Uint8Array>();
  for (const part of (text ?? "").split(",")) {
    const [, id, encoded] = /^([A-Za-z0-9_-]+):([A-Za-z0-9+/_-]+={0,2})$/.exec(part.trim()) ?? [];
    const key = Buffer.from(encoded ?? "", "base64");
    if (id === undefined || key.length < 32) {
      throw new Error("DATAPLANE_CONFIG_KEYS: expected <key id>:<base64 of 32 bytes or more>[,…]");
    }
    keys.set(id, key);
  }
  return keys;
}

function integer(name: string, text: string, least: number, most: number): number {
  const value = /^[0-9]+$/.test(text) ? Number(text) : NaN;
  if (!(value >= least && value <= most)) throw new Error(`${name}: expected a whole number from ${least} to ${most}`);
  return value;
}
