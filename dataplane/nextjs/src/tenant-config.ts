/**
 * TenantConfig v2, as the control plane publishes it: the TypeScript reading of the one schema whose
 * home is `dataplane/tenant_config.py`. Both read `tests/vectors/tenant_config.json` and must agree on
 * every entry there.
 *
 * An entry is `v2-hmac-sha256.<key id>.<payload, base64url>.<HMAC-SHA256, base64url>`, whose first part names
 * the version and the signature scheme. The signature covers the host as well as the payload, so an entry
 * copied under another host's key is refused: who can write to the cache still cannot send a request for A to
 * B's database. The package only verifies. It has no function that signs, so no bug in an application can mint
 * an entry.
 */

import { createHmac, timingSafeEqual } from "node:crypto";

import { normaliseHost } from "./hosts.js";

export const VERSION = 2;
export const FORMAT = "v2-hmac-sha256";
export const KEY_PREFIX = "tenant:host:";
export const INVALIDATION_CHANNEL = "tenant:invalidations";
export const MAX_ENTRY_BYTES = 16 * 1024;
export const MAX_POOL_SIZE = 1000;
export const MAX_EPOCH = 2 ** 48 - 1;
/** An epoch further beyond the registry's sequence than this is forged. */
export const EPOCH_STEP = 1_000_000;
/** The end of the year 9999, in seconds. */
export const MAX_SECONDS = 253_402_300_799;

/** The entry is not a TenantConfig v2 that may be trusted. The message names the field. */
export class TenantConfigError extends Error {
  override readonly name = "TenantConfigError";
}

/**
 * provisioning: 503. active: served. suspended: 403. moved: 308 to another host of the same tenant. gone: 404, a
 * tombstone that late writes lose to.
 */
export type Status = "provisioning" | "active" | "suspended" | "moved" | "gone";

const STATUSES: ReadonlySet<string> = new Set<Status>(["provisioning", "active", "suspended", "moved", "gone"]);

/** Where the tenant's database is, the ARN of the secret that opens it, and the ARN of the role as which that is read. */
export interface DatabaseAddress {
  readonly host: string;
  readonly port: number;
  readonly name: string;
  readonly secret: string;
  readonly role: string;
}

/** One host's routing entry; the fields keep the names they have on the wire. */
export interface TenantConfig {
  readonly host: string;
  readonly tenant_id: string;
  readonly slug: string;
  readonly status: Status;
  /** From one sequence over all tenants: of two entries for one host the higher is the newer. */
  readonly epoch: number;
  readonly plan: string;
  /** Connections that one process may hold for this tenant. */
  readonly pool_size: number;
  /** The tenant's pool stands outside the shared budget. */
  readonly dedicated: boolean;
  /** The newest schema migration of the tenant's database. */
  readonly release: string | null;
  /** What the session is tagged with that reads the secret: immutable and opaque. Null where `database` is. */
  readonly placement: string | null;
  /** Null unless `status` is active. */
  readonly database: DatabaseAddress | null;
  /** Plan name, subscription status and limits, for the application's own use. */
  readonly profile: Readonly<Record<string, unknown>>;
  /** The tenant's host from now on, as `normaliseHost` leaves it; null unless `status` is moved. */
  readonly moved_to: string | null;
  /** Whole seconds since 1970, as `not_after`. */
  readonly issued_at: number;
  /** The last second in which the entry is believed; see `resolve.ts` for what becomes of it then. */
  readonly not_after: number;
}

/** Key id to key, 32 bytes or more. Two are live while a key is rolled. */
export type ConfigKeys = ReadonlyMap<string, Uint8Array>;

/** The Redis key of a normalised host. */
export function cacheKeyOf(host: string): string {
  return KEY_PREFIX + host;
}

/**
 * The configuration in an entry found under `host`, which must be normalised.
 * @throws TenantConfigError where the entry is malformed, unsigned, another host's, or not v2.
 */
export function verify(entry: string, host: string, keys: ConfigKeys): TenantConfig {
  return configOf(verifiedPayload(entry, host, keys));
}

function verifiedPayload(entry: string, host: string, keys: ConfigKeys): Record<string, unknown> {
  if (entry.length > MAX_ENTRY_BYTES) throw new TenantConfigError(`entry: longer than ${MAX_ENTRY_BYTES} bytes`);
  const parts = entry.split(".");
  const [format, keyId, encodedBody, encodedMac] = parts;
  if (parts.length !== 4 || format !== FORMAT || keyId === undefined) {
    throw new TenantConfigError(`entry: expected ${FORMAT}.<key id>.<payload>.<signature>`);
  }
  const key = keys.get(keyId);
  if (key === undefined) throw new TenantConfigError("entry: signed with a key that is not known here");
  const body = decode(encodedBody);
  const mac = decode(encodedMac);
  const expected = createHmac("sha256", key).update(`${FORMAT}\n${keyId}\n${host}\n`).update(body).digest();
  if (mac.length !== expected.length || !timingSafeEqual(mac, expected)) {
    throw new TenantConfigError("entry: the signature does not fit this host and payload");
  }
  const payload = parse(body);
  if (!isRecord(payload) || payload["host"] !== host) throw new TenantConfigError("host: the entry is another host's");
  return payload;
}

/**
 * A payload's fields, each checked.
 * @throws TenantConfigError naming the field that is missing or of the wrong kind.
 */
export function configOf(payload: unknown): TenantConfig {
  if (!isRecord(payload)) throw new TenantConfigError("payload: expected an object");
  if (payload["v"] !== VERSION) {
    throw new TenantConfigError(`v: expected ${VERSION}, got ${JSON.stringify(payload["v"])}`);
  }
  const status = stringIn(payload, "status");
  if (!STATUSES.has(status)) throw new TenantConfigError(`status: ${JSON.stringify(status)} is not one of v2`);
  const raw = payload["database"] ?? null;
  if (raw !== null && !isRecord(raw)) throw new TenantConfigError("database: expected an object or null");
  if (status === "active" && raw === null) {
    throw new TenantConfigError("database: expected an object for an active tenant");
  }
  const release = payload["release"] ?? null;
  if (release !== null && typeof release !== "string") {
    throw new TenantConfigError("release: expected a string or null");
  }
  const profile = payload["profile"];
  if (!isRecord(profile)) throw new TenantConfigError("profile: expected an object");
  const dedicated = payload["dedicated"];
  if (typeof dedicated !== "boolean") throw new TenantConfigError("dedicated: expected a boolean");
  const host = stringIn(payload, "host");
  const placement = raw === null ? null : placementOf(payload);
  return {
    host,
    tenant_id: stringIn(payload, "tenant_id"),
    slug: stringIn(payload, "slug"),
    status: status as Status,
    epoch: integerIn(payload, "epoch", 0, MAX_EPOCH),
    plan: stringIn(payload, "plan"),
    pool_size: integerIn(payload, "pool_size", 1, MAX_POOL_SIZE),
    dedicated,
    release,
    placement,
    database: raw === null || placement === null ? null : addressOf(raw, placement),
    profile,
    moved_to: status === "moved" ? movedTo(payload, host) : null,
    issued_at: integerIn(payload, "issued_at", 0, MAX_SECONDS),
    not_after: integerIn(payload, "not_after", 0, MAX_SECONDS),
  };
}

/** It is written into a header: a plain host name and nothing else, and not the one that was asked for. */
function movedTo(payload: Record<string, unknown>, host: string): string {
  const name = stringIn(payload, "moved_to");
  if (!isPlain(name) || name === host) throw new TenantConfigError("moved_to: expected another host's name");
  return name;
}

function isPlain(name: string): boolean {
  try {
    return normaliseHost(name) === name;
  } catch {
    return false;
  }
}

/** `now`: milliseconds since 1970, as `Date.now()`. */
export function isExpired(config: TenantConfig, now: number): boolean {
  return config.not_after * 1000 < now;
}

function addressOf(raw: Record<string, unknown>, placement: string): DatabaseAddress {
  return {
    host: stringIn(raw, "host", "database."),
    port: integerIn(raw, "port", 1, 65535, "database."),
    name: stringIn(raw, "name", "database."),
    secret: secretOf(raw, placement),
    role: roleOf(raw),
  };
}

function placementOf(payload: Record<string, unknown>): string {
  const key = stringIn(payload, "placement");
  if (!/^[a-z0-9-]{2,63}$/.test(key)) {
    throw new TenantConfigError("placement: expected 2 to 63 of a-z, 0-9 and hyphens");
  }
  return key;
}

function roleOf(raw: Record<string, unknown>): string {
  const role = stringIn(raw, "role", "database.");
  if (!/^arn:aws[a-z-]*:iam::[0-9]{12}:role\/[!-~]{1,512}$/.test(role)) {
    throw new TenantConfigError("database.role: expected the ARN of an IAM role");
  }
  return role;
}

const SECRET = /^arn:aws[a-z-]*:secretsmanager:[a-z0-9-]+:[0-9]{12}:secret:([!-~]{1,512})$/;

/** A part of a secret's name is the id of its placement: `placements/p-x/app`. */
function secretOf(raw: Record<string, unknown>, placement: string): string {
  const secret = stringIn(raw, "secret", "database.");
  const name = SECRET.exec(secret)?.[1];
  if (name === undefined) throw new TenantConfigError("database.secret: expected the ARN of a secret");
  if (!name.split("/").includes(placement)) {
    throw new TenantConfigError(`database.secret: expected one of placement ${placement}`);
  }
  return secret;
}

function stringIn(record: Record<string, unknown>, name: string, within = ""): string {
  const value = record[name];
  if (typeof value !== "string") throw new TenantConfigError(`${within}${name}: expected a string, got ${typeof value}`);
  return value;
}

function integerIn(record: Record<string, unknown>, name: string, least: number, most: number, within = ""): number {
  const value = record[name];
  if (typeof value !== "number" || !Number.isInteger(value) || value < least || value > most) {
    throw new TenantConfigError(`${within}${name}: expected an integer from ${least} to ${most}`);
  }
  return value;
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Buffer.from() skips what it does not know; a signature's text must be read strictly. */
function decode(text: string | undefined): Buffer {
  if (text === undefined || !/^[A-Za-z0-9_-]+$/.test(text) || text.length % 4 === 1) {
    throw new TenantConfigError("entry: not base64url");
  }
  return Buffer.from(text, "base64url");
}

function parse(body: Buffer): unknown {
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(body));
  } catch (error) {
    throw new TenantConfigError("entry: the payload is not JSON", { cause: error });
  }
}
