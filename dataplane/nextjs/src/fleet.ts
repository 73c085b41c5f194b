/**
 * How many connections all processes together hold to one cluster.
 *
 * A cluster takes so many connections and no more, and a process can't see what the others hold. So
 * each writes how many it holds to a hash in Redis, one field a process, and asks before it opens
 * another. Keys, script, leases and what holds during an outage are those of `dataplane/fleet.py`:
 * Python and Node processes of one fleet count in the same place. What a killed process held is free
 * again after `lease`; what was lost with the cache is back after the next beat.
 *
 * With Redis away nobody can be asked: each process then holds at most `share` connections to a
 * cluster, so that the known tenants go on being served.
 */

import { randomBytes } from "node:crypto";
import { hostname } from "node:os";

import { Redis } from "ioredis";

import type { Fleet } from "./pool.js";
import { OPTIONS } from "./redis.js";

export const CONNECTIONS_PREFIX = "dataplane:connections:";

const LEASE_MS = 30_000;
const ANSWER_MS = 300;
/** After a failure Redis is not asked for so long, or each waiter in line would wait for a timeout. */
const PAUSE_MS = 1_000;
const NO_LIMIT = -1;

// KEYS[1] the cluster's hash. ARGV: process, connections wanted in all, limit (-1: just write), lease in ms.
const CLAIM = `
local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
local others = 0
local fields = redis.call('HGETALL', KEYS[1])
for i = 1, #fields, 2 do
  local count, expires = string.match(fields[i + 1], '^(%d+):(%d+)$')
  if not count or tonumber(expires) < now then
    redis.call('HDEL', KEYS[1], fields[i])
  elseif fields[i] ~= ARGV[1] then
    others = others + tonumber(count)
  end
end
local wanted, limit, lease = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
if limit >= 0 and others + wanted > limit then
  return 0
end
if wanted == 0 then
  redis.call('HDEL', KEYS[1], ARGV[1])
else
  redis.call('HSET', KEYS[1], ARGV[1], string.format('%d:%.0f', wanted, now + lease))
  redis.call('PEXPIRE', KEYS[1], lease * 2)
end
return 1
`;

export interface FleetOptions {
  /** Connections to one cluster over all processes. */
  readonly limit: number;
  /** Of this process while Redis is away; a quarter of `limit`, at least 1, unless said otherwise. */
  readonly share?: number;
  /** Milliseconds after which a process that says nothing holds nothing. */
  readonly lease?: number;
  readonly warn: (message: string, cause: unknown) => void;
}

/** Each call takes at most the client's timeout, and during an outage none after the first. */
export class FleetBudget implements Fleet {
  readonly #redis: Redis;
  readonly #tried: Promise<void>;
  readonly #share: number;
  readonly #lease: number;
  readonly #process = `${hostname()}:${process.pid}:${randomBytes(4).toString("hex")}`;
  readonly #held = new Map<string, number>();
  readonly #beats: NodeJS.Timeout;
  #last: Promise<unknown> = Promise.resolve();
  #quietUntil = -Infinity;

  /** @throws RangeError where `limit` is less than 1. */
  constructor(
    url: string,
    private readonly options: FleetOptions,
  ) {
    const { limit, warn } = options;
    if (!(limit >= 1)) throw new RangeError(`limit: expected at least 1, got ${limit}`);
    this.#share = options.share ?? Math.max(1, Math.floor(limit / 4));
    this.#lease = options.lease ?? LEASE_MS;
    this.#redis = new Redis(url, {
      ...OPTIONS,
      commandTimeout: ANSWER_MS,
      connectionName: "tenant-fleet",
      enableReadyCheck: false, // one that is still loading says so, and counts as away
    });
    this.#redis.on("error", (error) => warn("fleet budget: redis is out of reach", error));
    this.#tried = new Promise((resolve) => {
      this.#redis.once("ready", resolve);
      this.#redis.once("error", () => resolve());
    });
    this.#beats = setInterval(() => void this.beat(), this.#lease / 3);
    this.#beats.unref();
  }

  acquire(cluster: string): Promise<boolean> {
    return this.#inTurn(async () => {
      const wanted = this.held(cluster) + 1;
      const granted = (await this.#write(cluster, wanted, this.options.limit)) ?? wanted <= this.#share;
      if (granted) this.#held.set(cluster, wanted);
      return granted;
    });
  }

  release(cluster: string): Promise<void> {
    return this.#inTurn(async () => {
      const left = this.held(cluster) - 1;
      if (left > 0) this.#held.set(cluster, left);
      else this.#held.delete(cluster);
      await this.#write(cluster, left, NO_LIMIT); // where that fails the next beat says it
    });
  }

  /** Say again what is held; done by itself three times a lease. */
  beat(): Promise<void> {
    return this.#inTurn(async () => {
      for (const [cluster, held] of this.#held) await this.#write(cluster, held, NO_LIMIT);
    });
  }

  /** By this process. */
  held(cluster: string): number {
    return this.#held.get(cluster) ?? 0;
  }

  /** After what was asked before. What is still held is free for others when its lease ends. */
  async close(): Promise<void> {
    clearInterval(this.#beats);
    await this.#inTurn(async () => this.#redis.disconnect());
  }

  /** One after the other, since each writes the whole number that it found. */
  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const turn = this.#last.then(work, work);
    this.#last = turn;
    return turn;
  }

  /** Null where nobody can be asked. */
  async #write(cluster: string, wanted: number, limit: number): Promise<boolean | null> {
    await this.#tried;
    if (performance.now() < this.#quietUntil) return null;
    const key = CONNECTIONS_PREFIX + cluster;
    try {
      return (await this.#redis.eval(CLAIM, 1, key, this.#process, wanted, limit, this.#lease)) === 1;
    } catch (error) {
      this.#quietUntil = performance.now() + PAUSE_MS;
      this.options.warn("fleet budget: connections are not counted over the fleet", error);
      return null;
    }
  }
}
