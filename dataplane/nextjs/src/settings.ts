/**
 * The environment's variables, read once, the same as `dataplane/settings.py` reads. All mistakes are reported
 * at once, a line for each, which names the variable and what was expected; a value that may hold a
 * secret is in none. An empty variable counts as not set.
 */

import { X509Certificate } from "node:crypto";
import { readFileSync } from "node:fs";

import type { ConfigKeys } from "./tenant-config.js";
import { EndpointMap } from "./endpoints.js";
import { Zones } from "./hosts.js";
import { Releases } from "./releases.js";

const SSL_MODES = ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"] as const;
export type SslMode = (typeof SSL_MODES)[number];

/**
 * How long a visitor waits for a paused database. Aurora takes up to 15 seconds to resume, and 30 and more
 * after a day; a load balancer gives an answer up after 60 (AWS's default).
 */
export const WAKE_SECONDS = 45;

const AUTHORITIES =
  "a PEM file of certificate authorities (for RDS: download " +
  "https://truststore.pki.rds.amazonaws.com/global/global-bundle.pem, put it into the image, for example as " +
  "/etc/ssl/certs/global-bundle.pem, and name that path here)";

const PREFIX = "DATAPLANE_";
const NAMES: readonly string[] = [
  "CONFIG_KEYS", "CACHE_URL", "RESOLVE_URL", "RESOLVE_TOKEN", "PLATFORM_ZONES", "RELEASES", "TRUSTED_PROXIES",
  "POOL_BUDGET", "CLUSTER_BUDGET", "SSLMODE", "SSLROOTCERT", "STALE_SECONDS", "ENDPOINT_MAP",
  "WAKE_SECONDS",
].map((name) => PREFIX + name);

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
  /** DATAPLANE_SSLMODE, libpq's and with its meaning: verify-full unless said otherwise. */
  readonly sslMode: SslMode;
  /** DATAPLANE_SSLROOTCERT: path of a PEM file of authorities, or `system`. Here its text; null: Node's own. */
  readonly sslRootCert: string | null;
  /** DATAPLANE_POOL_BUDGET: database connections that this process may hold, over all tenants. */
  readonly poolBudget: number;
  /** DATAPLANE_CLUSTER_BUDGET: connections to one cluster over all processes; null: not limited. */
  readonly clusterBudget: number | null;
  /** DATAPLANE_STALE_SECONDS: how long known tenants are served with all behind down. */
  readonly staleSeconds: number;
  /** DATAPLANE_WAKE_SECONDS: how long a visitor waits for a paused database. */
  readonly wakeSeconds: number;
}

/** @throws Error with a line for each mistake. */
export function settingsFrom(environment: Readonly<Record<string, string | undefined>>): Settings {
  const read = new Reader(environment);
  const keys = read.optional("DATAPLANE_CONFIG_KEYS", keysFrom) ?? new Map<string, Uint8Array>();
  if (!read.has("DATAPLANE_CONFIG_KEYS")) read.wrong("DATAPLANE_CONFIG_KEYS", KEYS_EXPECTED);
  const cacheUrl = read.optional("DATAPLANE_CACHE_URL", redisUrl);
  const resolveUrl = read.optional("DATAPLANE_RESOLVE_URL", httpUrl);
  const resolveToken = read.optional("DATAPLANE_RESOLVE_TOKEN", token);
  if (!read.has("DATAPLANE_CACHE_URL") && !read.has("DATAPLANE_RESOLVE_URL")) {
    read.wrong("DATAPLANE_CACHE_URL", "expected it or DATAPLANE_RESOLVE_URL to be set");
  }
  if (read.has("DATAPLANE_RESOLVE_URL") && !read.has("DATAPLANE_RESOLVE_TOKEN")) {
    read.wrong("DATAPLANE_RESOLVE_TOKEN", "expected it together with DATAPLANE_RESOLVE_URL");
  }
  if (read.has("DATAPLANE_CLUSTER_BUDGET") && !read.has("DATAPLANE_CACHE_URL")) {
    read.wrong("DATAPLANE_CACHE_URL", "expected it together with DATAPLANE_CLUSTER_BUDGET, to count there");
  }
  const settings = {
    keys,
    cacheUrl,
    resolveUrl,
    resolveToken,
    zones: read.optional("DATAPLANE_PLATFORM_ZONES", zonesFrom) ?? new Zones([]),
    releases: read.optional("DATAPLANE_RELEASES", Releases.parse) ?? Releases.ALL,
    trustedProxies: read.optional("DATAPLANE_TRUSTED_PROXIES", integer(0, 10)) ?? 0,
    endpointMap: read.optional("DATAPLANE_ENDPOINT_MAP", endpointMap),
    ...tlsFrom(read),
    poolBudget: read.optional("DATAPLANE_POOL_BUDGET", integer(1, 10_000)) ?? 100,
    clusterBudget: read.optional("DATAPLANE_CLUSTER_BUDGET", integer(1, 100_000)),
    staleSeconds: read.optional("DATAPLANE_STALE_SECONDS", integer(0, 30 * 86_400)) ?? 6 * 3600,
    wakeSeconds: read.optional("DATAPLANE_WAKE_SECONDS", integer(1, 3600)) ?? WAKE_SECONDS,
  };
  read.misspellings();
  if (read.mistakes.length > 0) throw new Error(read.mistakes.join("\n"));
  return settings;
}

/** Gathers what is wrong in `mistakes` instead of stopping at the first. */
class Reader {
  readonly mistakes: string[] = [];
  readonly #given = new Map<string, string>();

  constructor(environment: Readonly<Record<string, string | undefined>>) {
    for (const [name, value] of Object.entries(environment)) {
      const text = value?.trim();
      if (name.startsWith(PREFIX) && text) this.#given.set(name, text);
    }
  }

  has(name: string): boolean {
    return this.#given.has(name);
  }

  wrong(name: string, what: string): void {
    this.mistakes.push(`${name}: ${what}`);
  }

  optional<T>(name: string, parse: (text: string) => T): T | null {
    const text = this.#given.get(name);
    if (text === undefined) return null;
    try {
      return parse(text);
    } catch (error) {
      this.wrong(name, (error as Error).message);
      return null;
    }
  }

  /** A name like one of ours that is not set is one of ours. Others may be the application's. */
  misspellings(): void {
    const unset = NAMES.filter((name) => !this.#given.has(name));
    for (const name of this.#given.keys()) {
      if (NAMES.includes(name)) continue;
      const meant = unset.find((known) => distance(name, known) <= 2);
      if (meant !== undefined) this.wrong(name, `no such setting; is it a misspelling of ${meant}?`);
    }
  }
}

/** How many characters one must insert, delete or replace to make `b` of `a`. */
function distance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i += 1) {
    const next = [i];
    for (let j = 1; j <= b.length; j += 1) {
      const replaced = (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(replaced, (row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1));
    }
    row = next;
  }
  return row[b.length] ?? 0;
}

/** A connect would find out as well, but only at the first visitor's request. */
function tlsFrom(read: Reader): Pick<Settings, "sslMode" | "sslRootCert"> {
  const given = read.optional("DATAPLANE_SSLMODE", sslModeFrom);
  const sslMode = given ?? "verify-full";
  const system = Symbol("system");
  const authorities = read.optional("DATAPLANE_SSLROOTCERT", (text) => (text === "system" ? system : authoritiesFrom(text)));
  if (given === null && read.has("DATAPLANE_SSLMODE")) return { sslMode, sslRootCert: null };
  if (authorities === system && sslMode !== "verify-full") {
    read.wrong("DATAPLANE_SSLMODE", `expected verify-full with the authorities "system", got "${sslMode}"`);
  }
  if (sslMode.startsWith("verify-") && !read.has("DATAPLANE_SSLROOTCERT")) {
    read.wrong("DATAPLANE_SSLROOTCERT", `expected to be set, as DATAPLANE_SSLMODE is ${sslMode}: ${AUTHORITIES}`);
  }
  return { sslMode, sslRootCert: typeof authorities === "string" ? authorities : null };
}

function sslModeFrom(text: string): SslMode {
  const mode = SSL_MODES.find((known) => known === text);
  if (mode === undefined) throw new Error(`expected one of ${SSL_MODES.join(", ")}, got ${JSON.stringify(text)}`);
  return mode;
}

/** The text of the file. Node would pass over what is no certificate in it, and verify nobody. */
function authoritiesFrom(path: string): string {
  let found: RegExpMatchArray | null;
  let text: string;
  try {
    text = readFileSync(/* turbopackIgnore: true */ path, "utf8");
    found = text.match(/-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----/gs);
    for (const certificate of found ?? []) new X509Certificate(certificate);
  } catch (error) {
    throw new Error(`expected ${AUTHORITIES}; ${JSON.stringify(path)}: ${(error as Error).message}`);
  }
  if (found === null) throw new Error(`expected ${AUTHORITIES}; ${JSON.stringify(path)} holds no PEM certificates`);
  return text;
}

function redisUrl(text: string): string {
  const { protocol, hostname, pathname } = parsedUrl(text) ?? {};
  const host = (protocol === "redis:" || protocol === "rediss:") && hostname && /^\/?[0-9]*$/.test(pathname ?? "");
  if (!host && !(protocol === "unix:" && pathname)) {
    throw new Error("expected redis://[[user]:password@]host[:port][/number], rediss:// or unix://path");
  }
  return text;
}

function httpUrl(text: string): string {
  const { protocol, hostname } = parsedUrl(text) ?? {};
  if ((protocol !== "http:" && protocol !== "https:") || !hostname) {
    throw new Error("expected http://host[:port][/path] or https://");
  }
  return text;
}

function parsedUrl(text: string): URL | null {
  return URL.canParse(text) ? new URL(text) : null;
}

function token(text: string): string {
  if (!/^[!-~]+$/.test(text)) throw new Error("expected printable ASCII characters without spaces");
  return text;
}

function zonesFrom(text: string): Zones {
  return new Zones(text.split(",").flatMap((zone) => zone.trim() || []));
}

function endpointMap(path: string): string {
  new EndpointMap(path).resolve("", 0); // reads it
  return path;
}

const KEYS_EXPECTED = "expected <key id>:<base64 of 32 bytes or more>[,…]";

function keysFrom(text: string): ConfigKeys {
  const keys = new Map<string, Uint8Array>();
  for (const part of text.split(",")) {
    const [, id, encoded] = /^([^.:,\s]+):([A-Za-z0-9+/_-]+={0,2})$/.exec(part.trim()) ?? [];
    const key = Buffer.from(encoded ?? "", "base64");
    if (id === undefined || key.length < 32) throw new Error(KEYS_EXPECTED);
    keys.set(id, key);
  }
  return keys;
}

function integer(least: number, most: number): (text: string) => number {
  return (text) => {
    const value = /^[0-9]+$/.test(text) ? Number(text) : NaN;
    if (!(value >= least && value <= most)) throw new Error(`expected a whole number from ${least} to ${most}`);
    return value;
  };
}
