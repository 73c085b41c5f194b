/**
 * Connections of all tenants under one budget.
 *
 * A pool per tenant does not add up: ten thousand tenants with two connections each are more than any
 * server takes, and most of them are asleep. Here one number bounds what the process holds open,
 * connections are opened on first use, and the one that has been idle longest, whosever it is, makes
 * room for the next tenant. A connection counts until the server has seen its end, so the budget is
 * what the server sees and not what we hope for.
 *
 * One tenant may hold `limit` connections and no more, so a tenant whose database is slow or gone
 * takes at most its own share; after a failed connect its requests fail at once for a growing while
 * instead of each waiting for a timeout. Waiters are served first come, first served, except that
 * nobody waits behind a request that could not be served anyway.
 *
 * What one process holds is not all that a cluster sees: `fleet` is asked for room there before a
 * connection is opened, and an idle one of ours to the same cluster makes it.
 */

import { Backoff } from "./backoff.js";
import { DataPlaneError } from "./errors.js";

/** What the pool does with connections it knows nothing else about. Each act bounds its own time. */
export interface Driver<K, C> {
  open(key: K): Promise<C>;
  /** Leave nothing of the last user behind. */
  reset(connection: C): Promise<void>;
  /** Never rejects: what can't be closed politely is cut. */
  close(connection: C): Promise<void>;
}

/** Counts connections to a cluster over all processes. Never rejects; calls take effect in their order. */
export interface Fleet {
  /** May one more be opened? True counts it, until its `release`. */
  acquire(cluster: string): Promise<boolean>;
  release(cluster: string): Promise<void>;
}

export interface PoolLimits {
  /** Connections of all tenants that are not dedicated, open at one moment. */
  readonly budget: number;
  /** Milliseconds after which an unused connection is closed, so that a database can go to sleep. */
  readonly idle: number;
  /** Milliseconds after which a connection is not used again, so that DNS and logins are read anew. */
  readonly age: number;
  /** Milliseconds that a request waits for a connection. */
  readonly wait: number;
  /** Connections of one tenant that may be on their way: what a database that hangs holds of the budget. */
  readonly opening: number;
  /** Requests that may wait at one moment. */
  readonly maxWaiting: number;
  /** Milliseconds for which a tenant's requests fail at once after a failed connect; doubles up to `backoffMost`. */
  readonly backoff: number;
  readonly backoffMost: number;
}

export const POOL_LIMITS: PoolLimits = {
  budget: 100,
  idle: 60_000,
  age: 30 * 60_000,
  wait: 5_000,
  opening: 2,
  maxWaiting: 1_000,
  backoff: 500,
  backoffMost: 15_000,
};

/** Who wants a connection. `key` is whatever the driver opens connections by. */
export interface Claim<K> {
  readonly id: string;
  readonly key: K;
  /** Where the connections lead: what the fleet counts by. */
  readonly cluster: string;
  readonly limit: number;
  /** Stands outside of the shared budget; `limit` alone bounds it. */
  readonly dedicated: boolean;
}

interface Tenant<C> {
  readonly id: string;
  readonly idle: Held<C>[];
  open: number;
  /** Of those, how many are still being opened. */
  opening: number;
  /** Given back a moment ago and being cleaned: sooner to be had than a new one. */
  cleaning: number;
  /** Rises when the tenant's connections must not be used again. */
  generation: number;
}

interface Held<C> {
  readonly connection: C;
  readonly tenant: Tenant<C>;
  readonly cluster: string;
  readonly dedicated: boolean;
  readonly generation: number;
  readonly bornAt: number;
  idleSince: number;
  /** Closing has begun. */
  ended: boolean;
  /** Until the end of its cleaning or closing; null while it is idle or in use. */
  moving: Promise<void> | null;
}

interface Waiter<K, C> {
  readonly claim: Claim<K>;
  readonly timer: NodeJS.Timeout;
  readonly serve: (held: Held<C>) => void;
  readonly fail: (error: unknown) => void;
}

/** One connection, until `release()`. */
export interface Lease<C> {
  readonly connection: C;
  /** Give it back; `broken` closes it. The second call does nothing. */
  release(broken?: boolean): void;
}

export class KeyedPool<K, C extends object> {
  readonly #limits: PoolLimits;
  readonly #tenants = new Map<string, Tenant<C>>();
  /** Idle connections within the budget, the longest unused first. */
  readonly #idle = new Set<Held<C>>();
  readonly #held = new Map<C, Held<C>>();
  readonly #waiting = new Set<Waiter<K, C>>();
  readonly #backoff: Backoff;
  readonly #reaper: NodeJS.Timeout;
  #used = 0;
  #closing = 0;
  #ended = false;

  constructor(
    private readonly driver: Driver<K, C>,
    limits: Partial<PoolLimits> = {},
    private readonly fleet: Fleet | null = null,
    private readonly now: () => number = () => performance.now(),
  ) {
    this.#limits = { ...POOL_LIMITS, ...limits };
    this.#backoff = new Backoff(this.#limits.backoff, this.#limits.backoffMost, now);
    this.#reaper = setInterval(() => this.#reap(), Math.max(100, this.#limits.idle / 4));
    this.#reaper.unref();
  }

  /**
   * @throws DataPlaneError "busy" after `limits.wait`, or where the fleet has no room and we hold nothing
   * that could make it; whatever the driver's `open` throws.
   */
  acquire(claim: Claim<K>): Promise<Lease<C>> {
    if (this.#ended) return Promise.reject(new Error("the pool is closed"));
    const failure = this.#backoff.pending(claim.id);
    if (failure !== null && !this.#tenants.has(claim.id)) return Promise.reject(failure.error);
    if (this.#waiting.size >= this.#limits.maxWaiting) return Promise.reject(this.#busy("too many requests wait"));
    return new Promise<Held<C>>((resolve, reject) => {
      const waiter: Waiter<K, C> = {
        claim,
        serve: resolve,
        fail: reject,
        timer: setTimeout(() => {
          this.#waiting.delete(waiter);
          reject(this.#busy(`no connection became free within ${this.#limits.wait} ms`));
          this.#forgetIfUnused(claim.id);
        }, this.#limits.wait),
      };
      this.#waiting.add(waiter);
      this.#pump();
    }).then((held) => this.#lease(held));
  }

  /** Never again use the tenant's connections that are open now; those in use end at their release. */
  retire(id: string): void {
    this.#backoff.clear(id);
    const tenant = this.#tenants.get(id);
    if (tenant === undefined) return;
    tenant.generation += 1;
    for (const held of tenant.idle.splice(0)) void this.#end(held);
  }

  /** The connection ended by itself. */
  lost(connection: C): void {
    const held = this.#held.get(connection);
    if (held === undefined) return;
    if (!held.tenant.idle.includes(held)) return; // in use: its user finds out, and releases it as broken
    void this.#evict(held);
  }

  /** Whether a connection of the tenant is open, or was asked for and is on its way. */
  has(id: string): boolean {
    return this.#tenants.has(id);
  }

  /** Whether one is open: its database has answered. */
  isOpen(id: string): boolean {
    const tenant = this.#tenants.get(id);
    return tenant !== undefined && tenant.open > tenant.opening;
  }

  get stats(): { readonly used: number; readonly idle: number; readonly waiting: number; readonly tenants: number } {
    return { used: this.#used, idle: this.#idle.size, waiting: this.#waiting.size, tenants: this.#tenants.size };
  }

  /** Resolves when the idle ones are closed; those in use end at their release. */
  async close(): Promise<void> {
    this.#ended = true;
    clearInterval(this.#reaper);
    for (const waiter of this.#waiting) this.#refuse(waiter, new Error("the pool is closed"));
    const held = [...this.#held.values()];
    await Promise.all(held.map((one) => (one.tenant.idle.includes(one) ? this.#evict(one) : one.moving)));
  }

  #lease(held: Held<C>): Lease<C> {
    let released = false;
    return {
      connection: held.connection,
      release: (broken = false) => {
        if (released) return;
        released = true;
        held.moving = this.#checkin(held, broken);
      },
    };
  }

  async #checkin(held: Held<C>, broken: boolean): Promise<void> {
    if (!broken && this.#usable(held)) {
      held.tenant.cleaning += 1;
      try {
        await this.driver.reset(held.connection);
      } catch {
        broken = true; // a connection that can't be cleaned is never used again
      }
      held.tenant.cleaning -= 1;
    }
    if (broken || !this.#usable(held)) {
      await this.#end(held);
      return;
    }
    held.moving = null;
    held.idleSince = this.now();
    held.tenant.idle.push(held);
    if (!held.dedicated) this.#idle.add(held);
    this.#pump();
  }

  #usable(held: Held<C>): boolean {
    return (
      !this.#ended &&
      !held.ended &&
      held.generation === held.tenant.generation &&
      this.now() - held.bornAt < this.#limits.age
    );
  }

  /** Serve every waiter that can be served now, in the order in which they came. */
  #pump(): void {
    let wanting = 0;
    const promised = new Map<Tenant<C>, number>();
    for (const waiter of this.#waiting) {
      const { claim } = waiter;
      const tenant = this.#tenants.get(claim.id);
      const held = tenant?.idle.pop();
      if (held !== undefined) {
        this.#idle.delete(held);
        this.#accept(waiter);
        waiter.serve(held);
      } else if (tenant !== undefined && (promised.get(tenant) ?? 0) < tenant.cleaning) {
        promised.set(tenant, (promised.get(tenant) ?? 0) + 1);
      } else if ((tenant?.open ?? 0) < claim.limit && (tenant?.opening ?? 0) < this.#limits.opening) {
        if (claim.dedicated || this.#used < this.#limits.budget) {
          this.#accept(waiter);
          void this.#open(waiter);
        } else {
          wanting += 1;
        }
      }
    }
    // One connection makes room for each who wants it; those already closing are counted.
    for (const held of this.#idle) {
      if (this.#closing >= wanting) break;
      void this.#evict(held);
    }
  }

  #accept(waiter: Waiter<K, C>): void {
    clearTimeout(waiter.timer);
    this.#waiting.delete(waiter);
  }

  #refuse(waiter: Waiter<K, C>, error: unknown): void {
    this.#accept(waiter);
    waiter.fail(error);
  }

  async #open(waiter: Waiter<K, C>): Promise<void> {
    const { claim } = waiter;
    let tenant = this.#tenants.get(claim.id);
    if (tenant === undefined) {
      tenant = { id: claim.id, idle: [], open: 0, opening: 0, cleaning: 0, generation: 0 };
      this.#tenants.set(claim.id, tenant);
    }
    tenant.open += 1;
    tenant.opening += 1;
    if (!claim.dedicated) this.#used += 1;
    const { generation } = tenant;
    const { cluster, dedicated } = claim;
    if (!(await this.#enter(cluster))) {
      tenant.opening -= 1;
      this.#uncount(tenant, dedicated);
      waiter.fail(this.#busy("its cluster has no connection left for this process"));
      return;
    }
    let connection: C;
    try {
      connection = await this.driver.open(claim.key);
    } catch (error) {
      void this.fleet?.release(cluster);
      tenant.opening -= 1;
      this.#failed(claim.id, error);
      this.#uncount(tenant, dedicated);
      waiter.fail(error);
      return;
    }
    this.#backoff.clear(claim.id);
    const now = this.now();
    const times = { bornAt: now, idleSince: now };
    const held = { connection, tenant, cluster, dedicated, generation, ...times, ended: false, moving: null };
    this.#held.set(connection, held);
    tenant.opening -= 1;
    waiter.serve(held);
    this.#pump(); // the next one of this tenant may open its own
  }

  /** Room on the cluster among all processes. False: there is none, and we can make none. */
  async #enter(cluster: string): Promise<boolean> {
    if (this.fleet === null) return true;
    const until = this.now() + this.#limits.wait;
    while (!(await this.fleet.acquire(cluster))) {
      if (this.now() >= until || !(await this.#makeRoom(cluster))) return false;
    }
    return true;
  }

  /** End the longest idle connection to the cluster, or wait for one that is being cleaned or closed. */
  async #makeRoom(cluster: string): Promise<boolean> {
    let oldest: Held<C> | undefined;
    const moving: Promise<void>[] = [];
    for (const held of this.#held.values()) {
      if (held.cluster !== cluster) continue;
      if (held.moving !== null) moving.push(held.moving);
      else if (held.tenant.idle.includes(held) && held.idleSince < (oldest?.idleSince ?? Infinity)) oldest = held;
    }
    if (oldest !== undefined) await this.#evict(oldest);
    else if (moving.length > 0) await Promise.race(moving);
    else return false;
    return true;
  }

  #failed(id: string, error: unknown): void {
    this.#backoff.failed(id, error);
    // Who waits for this tenant would meet the same end, one timeout after the other.
    for (const waiter of this.#waiting) {
      const tenant = this.#tenants.get(id);
      if (waiter.claim.id === id && (tenant?.open ?? 0) <= 1) this.#refuse(waiter, error);
    }
  }

  /** End one that is idle. */
  #evict(held: Held<C>): Promise<void> {
    held.tenant.idle.splice(held.tenant.idle.indexOf(held), 1);
    return this.#end(held);
  }

  #end(held: Held<C>): Promise<void> {
    if (held.ended && held.moving !== null) return held.moving;
    held.ended = true;
    held.moving = this.#close(held);
    return held.moving;
  }

  async #close(held: Held<C>): Promise<void> {
    this.#idle.delete(held);
    this.#closing += 1;
    await this.driver.close(held.connection);
    await this.fleet?.release(held.cluster);
    this.#closing -= 1;
    this.#held.delete(held.connection);
    this.#uncount(held.tenant, held.dedicated);
  }

  #uncount(tenant: Tenant<C>, dedicated: boolean): void {
    tenant.open -= 1;
    if (!dedicated) this.#used -= 1;
    this.#forgetIfUnused(tenant.id);
    this.#pump();
  }

  #forgetIfUnused(id: string): void {
    if (this.#tenants.get(id)?.open === 0) this.#tenants.delete(id);
  }

  #reap(): void {
    const now = this.now();
    for (const tenant of this.#tenants.values()) {
      // The most recently used are at the end.
      while (tenant.idle[0] !== undefined && now - tenant.idle[0].idleSince >= this.#limits.idle) {
        const held = tenant.idle.shift();
        if (held !== undefined) void this.#end(held);
      }
    }
  }

  #busy(message: string): DataPlaneError {
    return new DataPlaneError("busy", `database: ${message}`, { retryAfter: 1 });
  }
}
