/**
 * The shared cache as a tier, and the channel that says what changed.
 *
 * Two connections, since one that subscribes may do nothing else. Both fail at once while Redis is
 * away instead of queueing: the resolver then serves what it knows, and a request must not wait for
 * a reconnect. The client tries again by itself, at most two seconds apart, for ever.
 */

import { Redis, type RedisOptions } from "ioredis";

import { cacheKeyOf, INVALIDATION_CHANNEL } from "./tenant-config.js";
import type { Tier, Invalidation } from "./resolve.js";

const MAX_NOTICE_LENGTH = 4096;
const PING_MS = 1_000;

export const OPTIONS = {
  enableOfflineQueue: false,
  maxRetriesPerRequest: 0,
  connectTimeout: 1_000,
  commandTimeout: 500,
  keepAlive: 10_000,
  retryStrategy: (times: number) => Math.min(50 * 2 ** Math.min(times, 6), 2_000),
} satisfies RedisOptions;

export class RedisTier implements Tier {
  readonly name = "redis";
  readonly #redis: Redis;
  readonly #ready: Promise<void>;

  constructor(url: string, warn: (message: string, cause: unknown) => void) {
    this.#redis = new Redis(url, { ...OPTIONS, connectionName: "tenant-config" });
    this.#redis.on("error", (error) => warn("redis: the configuration cache is out of reach", error));
    // The first request of a process may come before the first connect; later ones never wait.
    this.#ready = new Promise((resolve) => {
      this.#redis.once("ready", resolve);
      this.#redis.once("error", () => resolve());
    });
  }

  async entry(host: string): Promise<string | null> {
    await this.#ready;
    return this.#redis.get(cacheKeyOf(host));
  }

  close(): void {
    this.#redis.disconnect();
  }
}

/**
 * Hear change invalidations until `close()`. `heard(true)` comes after every (re)subscription and
 * `heard(false)` when the connection is lost; a cable that was pulled says nothing, so the listener
 * asks every second. A malformed invalidation is reported and skipped.
 */
export class InvalidationListener {
  readonly #redis: Redis;
  readonly #pings: NodeJS.Timeout;

  constructor(
    url: string,
    onNotice: (invalidation: Invalidation) => void,
    onHeard: (listening: boolean) => void,
    warn: (message: string, cause: unknown) => void,
  ) {
    const redis = new Redis(url, {
      ...OPTIONS,
      connectionName: "tenant-invalidations",
      autoResubscribe: false,
      commandTimeout: 2_000,
    });
    this.#redis = redis;
    redis.on("error", (error) => warn("redis: change invalidations are not heard", error));
    redis.on("close", () => onHeard(false));
    redis.on("ready", () => {
      redis.subscribe(INVALIDATION_CHANNEL).then(
        () => onHeard(true),
        (error: unknown) => {
          warn("redis: could not subscribe to change invalidations", error);
          redis.disconnect(true);
        },
      );
    });
    redis.on("message", (_channel, message) => {
      const invalidation = parseInvalidation(message);
      if (invalidation === null) warn("redis: a change invalidation that is not one was skipped", null);
      else onNotice(invalidation);
    });
    this.#pings = setInterval(() => {
      if (redis.status === "ready") redis.ping().catch(() => redis.disconnect(true));
    }, PING_MS);
    this.#pings.unref();
  }

  close(): void {
    clearInterval(this.#pings);
    this.#redis.disconnect();
  }
}

/** Null where it is not an invalidation that this version knows. */
export function parseInvalidation(message: string): Invalidation | null {
  if (message.length > MAX_NOTICE_LENGTH) return null;
  let raw: unknown;
  try {
    raw = JSON.parse(message);
  } catch {
    return null;
  }
  if (typeof raw !== "object" || raw === null || Array.isArray(raw)) return null;
  const { kind = "config", host, epoch, tenant_id: tenant } = raw as Record<string, unknown>;
  if (kind !== "config" && kind !== "credential") return null;
  const invalidation = { kind, host: host ?? "", epoch: epoch ?? 0, tenant_id: tenant ?? "" } as const;
  if (typeof invalidation.host !== "string" || typeof invalidation.tenant_id !== "string") return null;
  if (typeof invalidation.epoch !== "number" || !Number.isSafeInteger(invalidation.epoch)) return null;
  return { kind, host: invalidation.host, epoch: invalidation.epoch, tenant_id: invalidation.tenant_id };
}
