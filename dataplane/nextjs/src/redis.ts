/**
 * The shared cache as a tier, and the channel that says what changed.
 *
 * Two connections, since one that subscribes may do nothing else. Both fail at once while Redis is
 * away instead of queueing: the resolver then serves what it knows, and a request must not wait for
 * a reconnect. The client tries again by itself, at most two seconds apart, for ever.
 */

import { Redis, type RedisOptions } from "ioredis";

import { cacheKeyOf, NOTICE_CHANNEL } from "./contract.js";
import type { Tier, Notice } from "./resolve.js";

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
 * Hear change notices until `close()`. `heard(true)` comes after every (re)subscription and
 * `heard(false)` when the connection is lost; a cable that was pulled says nothing, so the listener
 * asks every second. A malformed notice is reported and skipped.
 */
export class NoticeListener {
  readonly #redis: Redis;
  readonly #pings: NodeJS.Timeout;

  constructor(
    url: string,
    onNotice: (notice: Notice) => void,
    onHeard: (listening: boolean) => void,
    warn: (message: string, cause: unknown) => void,
  ) {
    const redis = new Redis(url, {
      ...OPTIONS,
      connectionName: "tenant-notices",
      autoResubscribe: false,
      commandTimeout: 2_000,
    });
    this.#redis = redis;
    redis.on("error", (error) => warn("redis: change notices are not heard", error));
    redis.on("close", () => onHeard(false));
    redis.on("ready", () => {
      redis.subscribe(NOTICE_CHANNEL).then(
        () => onHeard(true),
        (error: unknown) => {
          warn("redis: could not subscribe to change notices", error);
          redis.disconnect(true);
        },
      );
    });
    redis.on("message", (_channel, message) => {
      const notice = parseNotice(message);
      if (notice === null) warn("redis: a change notice that is not one was skipped", null);
      else onNotice(notice);
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

/** Null where it is not a notice that this version knows. */
export function parseNotice(message: string): Notice | null {
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
  const notice = { kind, host: host ?? "", epoch: epoch ?? 0, tenant_id: tenant ?? "" } as const;
  if (typeof notice.host !== "string" || typeof notice.tenant_id !== "string") return null;
  if (typeof notice.epoch !== "number" || !Number.isSafeInteger(notice.epoch)) return null;
  return { kind, host: notice.host, epoch: notice.epoch, tenant_id: notice.tenant_id };
}
