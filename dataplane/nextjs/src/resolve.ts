/**
 * Host → TenantConfig, through tiers: this process, then the shared cache (Redis), then an authority
 * (the control plane's resolve endpoint). The in-process tier is there for availability rather than
 * for speed: with Redis and the control plane down, every tenant known here is served on, up to a
 * set age.
 *
 * What must hold, and how:
 *
 * - An outage is 503, never 404: "unknown" needs an answer, silence is not one.
 * - One change invalidation is enough. It arrives before, during or after a load: an answer that was asked
 *   for before the invalidation and is older than it (by epoch) loses and is asked for again, so a slow
 *   reader's stale copy never settles here.
 * - An invalidation carries no configuration and no signature, so the worst that a forged one can do is a
 *   load. The epoch it demands is forgotten after a while, and the authority's word stands above it.
 * - An epoch proves nothing, as who can verify can sign. Where the control plane has overwritten a forged
 *   entry with its own, which is older by epoch, the cache's answer is not taken and the authority is asked.
 * - An entry of the cache that has expired is passed over for the authority's word, and served where the
 *   authority does not answer. Memory never asks for the time of day: an outage takes no tenant off the air.
 * - A herd causes one load: single flight per host. All loads together are bounded too.
 * - Made-up hosts never push real tenants out of memory: unknown hosts are kept in a list of their own.
 */

import { LRUCache } from "lru-cache";

import { EPOCH_STEP, isExpired, verify, type ConfigKeys, type TenantConfig } from "./tenant-config.js";
import { DataPlaneError } from "./errors.js";
import type { Releases } from "./releases.js";

/** A source of signed entries. Null: it has none for this host. It throws where it can't answer. */
export interface Tier {
  readonly name: string;
  entry(host: string): Promise<string | null>;
}

/** A configuration with the signed entry that proves it. */
export interface Resolved {
  readonly config: TenantConfig;
  readonly entry: string;
}

/**
 * A change invalidation from the channel `tenant:invalidations`. "config": the entry of `host` changed and is of
 * `epoch` now. "credential": the database login of `tenant_id` changed.
 */
export interface Invalidation {
  readonly kind: "config" | "credential";
  readonly host: string;
  readonly epoch: number;
  readonly tenant_id: string;
}

/** All durations in milliseconds; each is spread by up to a tenth, so that processes do not act in step. */
export interface ResolverLimits {
  /** An entry this old is served while a fresh one is fetched behind it. */
  readonly fresh: number;
  /** An entry this old is waited for instead, and served only if nothing answers. */
  readonly refresh: number;
  /** An entry this old is no longer served, whatever is down. */
  readonly serveStale: number;
  /** How long "unknown" is believed, and that a tenant is still being set up. */
  readonly unknown: number;
  /** How long a tier that failed is not asked again, and an entry is believed while no invalidations are heard. */
  readonly retry: number;
  readonly maxTenants: number;
  readonly maxUnknown: number;
  /** Loads under way at one moment; hosts beyond it are asked to come back. */
  readonly maxLoads: number;
}

export const RESOLVER_LIMITS: ResolverLimits = {
  fresh: 30_000,
  refresh: 300_000,
  serveStale: 6 * 3_600_000,
  unknown: 5_000,
  retry: 1_000,
  maxTenants: 10_000,
  maxUnknown: 10_000,
  maxLoads: 64,
};

export interface ResolverParts {
  readonly keys: ConfigKeys;
  readonly cache?: Tier;
  readonly authority?: Tier;
  readonly limits?: Partial<ResolverLimits>;
  /** Those that the application serves; an entry of another release is looked at again soon. */
  readonly releases?: Releases;
  /** Milliseconds that only rise. */
  readonly now?: () => number;
  /** Milliseconds since 1970. */
  readonly date?: () => number;
  /** From 0 to 1. */
  readonly random?: () => number;
  readonly warn?: (message: string, cause: unknown) => void;
}

interface Slot {
  readonly resolved: Resolved;
  readonly loadedAt: number;
  freshUntil: number;
  refreshUntil: number;
}

interface Load {
  readonly promise: Promise<Resolved | null>;
  /** The highest epoch that an invalidation named while this load was under way. */
  floor: number;
  /** Invalidations may have been missed while this load was under way. */
  doubted: boolean;
}

const ATTEMPTS = 3;

export class Resolver {
  readonly #limits: ResolverLimits;
  readonly #known: LRUCache<string, Slot>;
  readonly #unknown: LRUCache<string, number>;
  readonly #floors: LRUCache<string, { epoch: number; until: number }>;
  readonly #loads = new Map<string, Load>();
  readonly #now: () => number;
  readonly #date: () => number;
  readonly #random: () => number;
  #heard = false;
  readonly #downUntil = new Map<Tier, number>();

  constructor(private readonly parts: ResolverParts) {
    this.#limits = { ...RESOLVER_LIMITS, ...parts.limits };
    this.#known = new LRUCache({ max: this.#limits.maxTenants });
    this.#unknown = new LRUCache({ max: this.#limits.maxUnknown });
    this.#floors = new LRUCache({ max: this.#limits.maxUnknown });
    this.#now = parts.now ?? (() => performance.now());
    this.#date = parts.date ?? Date.now;
    this.#random = parts.random ?? Math.random;
  }

  /**
   * The entry of a *normalised* host; null where nobody lives there.
   * @throws DataPlaneError "routing-unavailable" where that can't be found out.
   */
  async resolve(host: string): Promise<Resolved | null> {
    const now = this.#now();
    const slot = this.#known.get(host);
    if (slot !== undefined) {
      if (now < slot.freshUntil) return slot.resolved;
      if (now < slot.refreshUntil) {
        this.#refreshBehind(host, slot);
        return slot.resolved;
      }
    } else if (now < (this.#unknown.get(host) ?? -1)) {
      return null;
    }
    return this.#loadOrStale(host, slot);
  }

  /** What this process knows about a host at this moment, fresh or not. */
  known(host: string): Resolved | null {
    return this.#known.peek(host)?.resolved ?? null;
  }

  /** Act on a change: what is older than `invalidation.epoch` is not served again while a newer can be had. */
  heed(invalidation: Invalidation): void {
    const { host, epoch, kind } = invalidation;
    if (kind !== "config") return;
    this.#unknown.delete(host);
    const load = this.#loads.get(host);
    if (load !== undefined) load.floor = Math.max(load.floor, epoch);
    const slot = this.#known.peek(host);
    if (slot === undefined) return;
    if (slot.resolved.config.epoch < epoch) {
      slot.freshUntil = slot.refreshUntil = 0;
      this.#floors.set(host, { epoch, until: this.#now() + this.#limits.refresh });
    } else if (epoch > 0 && slot.resolved.config.epoch - epoch > EPOCH_STEP) {
      slot.freshUntil = slot.refreshUntil = 0; // a forged entry was overwritten
    }
  }

  /**
   * Say whether change invalidations are heard. What was loaded before they were (again) may have changed
   * unnoticed: unknown hosts are forgotten, entries are fetched anew before they are next served.
   */
  heard(listening: boolean): void {
    if (!listening && !this.#heard) return;
    this.#heard = listening;
    this.#unknown.clear();
    if (listening) for (const load of this.#loads.values()) load.doubted = true;
    const soon = this.#now() + this.#limits.retry;
    for (const slot of this.#known.values()) {
      if (listening) slot.freshUntil = slot.refreshUntil = 0;
      else slot.freshUntil = Math.min(slot.freshUntil, soon);
    }
  }

  get size(): { readonly tenants: number; readonly unknown: number; readonly loads: number } {
    return { tenants: this.#known.size, unknown: this.#unknown.size, loads: this.#loads.size };
  }

  #refreshBehind(host: string, slot: Slot): void {
    if (this.#loads.has(host)) return;
    slot.freshUntil = this.#now() + this.#spread(this.#limits.retry);
    this.#load(host).catch((error: unknown) => {
      this.parts.warn?.(`routing: ${host} could not be looked up anew; the known entry is served on`, error);
    });
  }

  async #loadOrStale(host: string, slot: Slot | undefined): Promise<Resolved | null> {
    try {
      return await this.#load(host);
    } catch (error) {
      const now = this.#now();
      if (slot !== undefined && now - slot.loadedAt < this.#limits.serveStale) {
        // Waited for once; from here on it is tried behind the requests, so an outage slows none of them.
        slot.freshUntil = now + this.#spread(this.#limits.retry);
        slot.refreshUntil = slot.loadedAt + this.#limits.serveStale;
        return slot.resolved;
      }
      throw error;
    }
  }

  #load(host: string): Promise<Resolved | null> {
    const running = this.#loads.get(host);
    if (running !== undefined) return running.promise;
    if (this.#loads.size >= this.#limits.maxLoads) {
      return Promise.reject(this.#unavailable(`${this.#limits.maxLoads} look-ups are under way already`));
    }
    const load: Load = {
      floor: this.#floor(host),
      doubted: false,
      promise: Promise.resolve().then(async () => {
        try {
          return this.#settle(host, await this.#ask(host, load));
        } finally {
          this.#loads.delete(host);
        }
      }),
    };
    this.#loads.set(host, load);
    return load.promise;
  }

  /** The epoch below which the cache's word does not count. */
  #floor(host: string): number {
    const invalidated = this.#floors.get(host);
    const known = this.#known.peek(host)?.resolved.config.epoch ?? 0;
    return invalidated !== undefined && this.#now() < invalidated.until ? Math.max(invalidated.epoch, known) : known;
  }

  async #ask(host: string, load: Load): Promise<Resolved | null> {
    for (let attempt = 0; attempt < ATTEMPTS; attempt += 1) {
      const asked = load.floor;
      load.doubted = false;
      const found = await this.#askLevels(host, asked);
      // An invalidation that came meanwhile and is newer than the answer means the answer is from before it.
      const newest = load.floor === asked || (found !== null && found.config.epoch >= load.floor);
      if (newest && !load.doubted) return found;
    }
    throw this.#unavailable("the entry changed at every attempt to read it");
  }

  async #askLevels(host: string, floor: number): Promise<Resolved | null> {
    const { cache, authority } = this.parts;
    let failure: unknown = null;
    let expired: Resolved | null = null;
    if (cache !== undefined) {
      try {
        const found = await this.#read(cache, host);
        if (found !== null && found.config.epoch >= floor) {
          if (authority === undefined || !isExpired(found.config, this.#date())) return found;
          expired = found;
        } else if (found !== null) failure = new Error(`${cache.name}: an entry older than what is known`);
        // A tenant that leaves leaves a tombstone: a known host without an entry was merely evicted.
        else if (authority === undefined && !this.#known.has(host)) return null;
      } catch (error) {
        this.parts.warn?.(`${cache.name}: no usable entry for ${host}`, error);
        failure = error;
      }
    }
    if (authority === undefined) throw this.#unavailable("the cache could not answer", failure);
    try {
      return await this.#read(authority, host);
    } catch (error) {
      if (expired !== null) return expired;
      throw this.#unavailable(`${authority.name} could not answer`, error);
    }
  }

  async #read(tier: Tier, host: string): Promise<Resolved | null> {
    if (this.#now() < (this.#downUntil.get(tier) ?? -1)) throw new Error("it did not answer a moment ago");
    let entry: string | null;
    try {
      entry = await tier.entry(host);
    } catch (error) {
      this.#downUntil.set(tier, this.#now() + this.#spread(this.#limits.retry));
      throw error;
    }
    return entry === null ? null : { config: verify(entry, host, this.parts.keys), entry };
  }

  #settle(host: string, found: Resolved | null): Resolved | null {
    const now = this.#now();
    if (found === null) {
      this.#known.delete(host);
      this.#floors.delete(host);
      const believed = this.#heard ? this.#limits.unknown : Math.min(this.#limits.retry, this.#limits.unknown);
      this.#unknown.set(host, now + this.#spread(believed));
      return null;
    }
    // Without invalidations an entry may change unseen, so it is looked at again after `retry` already.
    let fresh = this.#heard ? this.#limits.fresh : Math.min(this.#limits.retry, this.#limits.fresh);
    const { status, release } = found.config;
    const updating = status === "active" && this.parts.releases?.serve(release) === false;
    if (status === "provisioning" || updating) fresh = Math.min(fresh, this.#limits.unknown);
    this.#unknown.delete(host);
    this.#floors.delete(host);
    this.#known.set(host, {
      resolved: found,
      loadedAt: now,
      freshUntil: now + this.#spread(fresh),
      refreshUntil: now + this.#spread(this.#limits.refresh),
    });
    return found;
  }

  #spread(duration: number): number {
    return duration * (1 - 0.1 * this.#random());
  }

  #unavailable(message: string, cause?: unknown): DataPlaneError {
    return new DataPlaneError("routing-unavailable", `routing: ${message}`, {
      retryAfter: this.#limits.retry / 1000,
      ...(cause instanceof Error ? { cause } : {}),
    });
  }
}
