import assert from "node:assert/strict";
import { test } from "node:test";

import { MAX_EPOCH } from "../src/tenant-config.js";
import { isDataPlaneError } from "../src/errors.js";
import { Resolver, RESOLVER_LIMITS, type Tier, type Invalidation } from "../src/resolve.js";
import { entryOf, KEYS } from "./entries.js";

const HOST = "acme.tenants.example.com";

/** Answers by `entries`; counts what it was asked; can be down, and can hold its answers back. */
class Source implements Tier {
  readonly entries = new Map<string, string>();
  asked = 0;
  down = false;
  #gate: Promise<void> | null = null;
  #open: () => void = () => undefined;

  constructor(readonly name = "cache") {}

  hold(): void {
    this.#gate = new Promise((resolve) => (this.#open = resolve));
  }

  letGo(): void {
    this.#open();
    this.#gate = null;
  }

  async entry(host: string): Promise<string | null> {
    this.asked += 1;
    const answer = this.entries.get(host) ?? null; // read before it is held back, as a slow reader does
    await this.#gate;
    if (this.down) throw new Error("down");
    return answer;
  }
}

function setting(authority?: Source) {
  const cache = new Source();
  const clock = { now: 0, date: 0 };
  const limits = { maxLoads: 4, maxTenants: 3, maxUnknown: 5 };
  const resolver = new Resolver({
    keys: KEYS,
    cache,
    ...(authority && { authority }),
    limits,
    now: () => clock.now,
    date: () => clock.date,
    random: () => 0,
  });
  resolver.heard(true);
  return { cache, clock, resolver };
}

const changed = (epoch: number, host = HOST): Invalidation => ({ kind: "config", host, epoch, tenant_id: "t-aaaaaaaaaaaa" });
const epochOf = async (resolver: Resolver, host = HOST) => (await resolver.resolve(host))?.config.epoch;
const settled = () => new Promise((resolve) => setImmediate(resolve));
const unavailable = (error: unknown) => isDataPlaneError(error) && error.status === 503 && error.retryAfter === 1;

test("a thousand requests for one cold host ask once, and warm ones never", async () => {
  const { cache, resolver } = setting();
  cache.entries.set(HOST, entryOf(HOST));
  cache.hold();
  const herd = Array.from({ length: 1000 }, () => epochOf(resolver));
  await settled();
  cache.letGo();
  assert.deepEqual(new Set(await Promise.all(herd)), new Set([10]));
  await epochOf(resolver);
  assert.equal(cache.asked, 1);
});

test("an unknown host is remembered for seconds, and found at once when an invalidation comes", async () => {
  const { cache, clock, resolver } = setting();
  assert.equal(await resolver.resolve(HOST), null);
  assert.equal(await resolver.resolve(HOST), null);
  assert.equal(cache.asked, 1);
  clock.now += RESOLVER_LIMITS.unknown;
  assert.equal(await resolver.resolve(HOST), null);
  assert.equal(cache.asked, 2);
  cache.entries.set(HOST, entryOf(HOST));
  resolver.heed(changed(10));
  assert.equal(await epochOf(resolver), 10);
});

test("made-up hosts do not push tenants out, and both memories are bounded", async () => {
  const { cache, resolver } = setting();
  cache.entries.set(HOST, entryOf(HOST));
  await resolver.resolve(HOST);
  for (let i = 0; i < 50; i += 1) await resolver.resolve(`x${i}.example`);
  assert.deepEqual(resolver.size, { tenants: 1, unknown: 5, loads: 0 });
  assert.equal(resolver.known(HOST)?.config.epoch, 10);
});

test("an outage is 503 for who is not known, never 404", async () => {
  const { cache, resolver } = setting();
  cache.down = true;
  await assert.rejects(resolver.resolve(HOST), unavailable);
  await assert.rejects(resolver.resolve(HOST), unavailable);
  assert.equal(cache.asked, 1, "a tier that failed is left alone for a moment");
});

test("an authority that is down makes a host that the cache lacks unavailable, not unknown", async () => {
  const authority = new Source("control plane");
  const { resolver } = setting(authority);
  authority.down = true;
  await assert.rejects(resolver.resolve(HOST), unavailable);
});

test("known tenants are served through an outage, up to the set age", async () => {
  const { cache, clock, resolver } = setting();
  cache.entries.set(HOST, entryOf(HOST));
  await resolver.resolve(HOST);
  cache.down = true;
  for (; clock.now < RESOLVER_LIMITS.serveStale; clock.now += 60_000) {
    assert.equal(await epochOf(resolver), 10);
    await settled();
  }
  await assert.rejects(resolver.resolve(HOST), unavailable);
});

test("an entry that grew old is served while the new one is fetched behind", async () => {
  const { cache, clock, resolver } = setting();
  cache.entries.set(HOST, entryOf(HOST));
  await resolver.resolve(HOST);
  cache.entries.set(HOST, entryOf(HOST, { epoch: 11 }));
  clock.now += RESOLVER_LIMITS.fresh;
  assert.equal(await epochOf(resolver), 10);
  await settled();
  assert.equal(await epochOf(resolver), 11);
  assert.equal(cache.asked, 2);
});

test("after an invalidation nothing older is served while a newer entry can be had", async () => {
  const { cache, resolver } = setting();
  cache.entries.set(HOST, entryOf(HOST));
  await resolver.resolve(HOST);
  cache.entries.set(HOST, entryOf(HOST, { epoch: 11, status: "suspended", database: null }));
  resolver.heed(changed(11));
  assert.equal((await resolver.resolve(HOST))?.config.status, "suspended");
});

test("a slow reader's copy from before the change loses", async () => {
  const { cache, resolver } = setting();
  cache.entries.set(HOST, entryOf(HOST));
  cache.hold();
  const answer = epochOf(resolver);
  await settled();
  cache.entries.set(HOST, entryOf(HOST, { epoch: 11 }));
  resolver.heed(changed(11));
  cache.letGo();
  assert.equal(await answer, 11);
  assert.equal(cache.asked, 2);
});

test("a stale write-back into the cache loses against what is known, and the authority is asked", async () => {
  const authority = new Source("control plane");
  const { cache, clock, resolver } = setting(authority);
  cache.entries.set(HOST, entryOf(HOST, { epoch: 12 }));
  await resolver.resolve(HOST);
  cache.entries.set(HOST, entryOf(HOST, { epoch: 9 }));
  authority.entries.set(HOST, entryOf(HOST, { epoch: 13 }));
  clock.now += RESOLVER_LIMITS.refresh;
  assert.equal(await epochOf(resolver), 13);
});

test("a forged entry is let go of when the control plane has overwritten it with an older one", async () => {
  const authority = new Source("control plane");
  const { cache, resolver } = setting(authority);
  cache.entries.set(HOST, entryOf(HOST, { epoch: MAX_EPOCH, tenant_id: "t-attackerdb12" }));
  assert.equal(await epochOf(resolver), MAX_EPOCH);
  cache.entries.set(HOST, entryOf(HOST));
  authority.entries.set(HOST, entryOf(HOST));
  resolver.heed(changed(10));
  assert.equal((await resolver.resolve(HOST))?.config.tenant_id, "t-aaaaaaaaaaaa");
  assert.equal(await epochOf(resolver), 10);
  assert.deepEqual([cache.asked, authority.asked], [2, 1]);
});

test("a late invalidation of what was replaced costs nothing", async () => {
  const { cache, resolver } = setting();
  cache.entries.set(HOST, entryOf(HOST));
  await resolver.resolve(HOST);
  resolver.heed(changed(9));
  await resolver.resolve(HOST);
  assert.equal(cache.asked, 1);
});

test("an entry evicted from the cache does not make its tenant unknown", async () => {
  const { cache, clock, resolver } = setting();
  cache.entries.set(HOST, entryOf(HOST));
  await resolver.resolve(HOST);
  cache.entries.clear();
  clock.now += RESOLVER_LIMITS.refresh;
  assert.equal(await epochOf(resolver), 10);
});

test("a forged invalidation costs a load and no more", async () => {
  const authority = new Source("control plane");
  const { cache, resolver } = setting(authority);
  cache.entries.set(HOST, entryOf(HOST));
  authority.entries.set(HOST, entryOf(HOST));
  await resolver.resolve(HOST);
  resolver.heed(changed(Number.MAX_SAFE_INTEGER));
  assert.equal(await epochOf(resolver), 10);
  await resolver.resolve(HOST);
  assert.deepEqual([cache.asked, authority.asked], [2, 1]);
});

test("another tenant's entry under this host's key is refused, and the authority decides", async () => {
  const authority = new Source("control plane");
  const { cache, resolver } = setting(authority);
  cache.entries.set(HOST, entryOf("other.tenants.example.com", { tenant_id: "t-bbbbbbbbbbbb" }));
  authority.entries.set(HOST, entryOf(HOST));
  assert.equal((await resolver.resolve(HOST))?.config.tenant_id, "t-aaaaaaaaaaaa");
  const alone = setting();
  alone.cache.entries.set(HOST, entryOf("other.tenants.example.com"));
  await assert.rejects(alone.resolver.resolve(HOST), unavailable);
});

test("what was loaded while no invalidations were heard is looked at again soon, and anew once they are", async () => {
  const { cache, clock, resolver } = setting();
  resolver.heard(false);
  cache.entries.set(HOST, entryOf(HOST));
  await resolver.resolve(HOST);
  clock.now += RESOLVER_LIMITS.retry;
  await resolver.resolve(HOST);
  await settled();
  assert.equal(cache.asked, 2);
  cache.entries.set(HOST, entryOf(HOST, { epoch: 11 }));
  resolver.heard(true);
  assert.equal(await epochOf(resolver), 11);
});

test("a load that ran while invalidations were missed is run again", async () => {
  const { cache, resolver } = setting();
  cache.entries.set(HOST, entryOf(HOST));
  cache.hold();
  const answer = epochOf(resolver);
  await settled();
  cache.entries.set(HOST, entryOf(HOST, { epoch: 11 }));
  resolver.heard(false);
  resolver.heard(true);
  cache.letGo();
  assert.equal(await answer, 11);
});

test("loads under way are bounded", async () => {
  const { cache, resolver } = setting();
  cache.hold();
  const loads = Array.from({ length: 4 }, (_, i) => resolver.resolve(`x${i}.example`));
  await settled();
  await assert.rejects(resolver.resolve("one-more.example"), unavailable);
  cache.letGo();
  await Promise.all(loads);
});

const kept = (changes: Record<string, unknown> = {}) => entryOf(HOST, { slug: "kept", not_after: 999, ...changes });
const issued = entryOf(HOST, { slug: "issued", not_after: 2_000 });
const slugOf = async (resolver: Resolver) => (await resolver.resolve(HOST))?.config.slug;

test("a cold process takes the control plane's word over an entry that has expired", async () => {
  const authority = new Source("control plane");
  const { cache, clock, resolver } = setting(authority);
  clock.date = 1_000_000;
  cache.entries.set(HOST, kept());
  authority.entries.set(HOST, issued);
  assert.equal(await slugOf(resolver), "issued");
  assert.deepEqual([cache.asked, authority.asked], [1, 1]);
});

test("an entry is believed until its time is over", async () => {
  const authority = new Source("control plane");
  const { cache, clock, resolver } = setting(authority);
  clock.date = 1_000_000;
  cache.entries.set(HOST, kept({ not_after: 1_000 }));
  assert.equal(await slugOf(resolver), "kept");
  assert.equal(authority.asked, 0);
});

test("an expired entry leads nowhere where the control plane knows of none", async () => {
  const { cache, clock, resolver } = setting(new Source("control plane"));
  clock.date = 1_000_000;
  cache.entries.set(HOST, kept());
  assert.equal(await resolver.resolve(HOST), null);
});

test("an expired entry is better than none", async () => {
  const authority = new Source("control plane");
  const { cache, clock, resolver } = setting(authority);
  clock.date = 1_000_000;
  cache.entries.set(HOST, kept());
  authority.entries.set(HOST, issued);
  authority.down = true;
  assert.equal(await slugOf(resolver), "kept");
  authority.down = false;
  clock.now += RESOLVER_LIMITS.refresh;
  assert.equal(await slugOf(resolver), "issued");
  const alone = setting();
  alone.clock.date = 1_000_000;
  alone.cache.entries.set(HOST, kept());
  assert.equal(await slugOf(alone.resolver), "kept", "nobody else could be asked");
});

test("memory does not ask for the time of day", async () => {
  const authority = new Source("control plane");
  const { cache, clock, resolver } = setting(authority);
  cache.entries.set(HOST, kept());
  assert.equal(await slugOf(resolver), "kept");
  cache.down = authority.down = true;
  clock.date = 1e12;
  clock.now += RESOLVER_LIMITS.refresh;
  assert.equal(await slugOf(resolver), "kept");
});
