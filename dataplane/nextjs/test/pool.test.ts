import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import { test, type TestContext } from "node:test";

import { isDataPlaneError } from "../src/errors.js";
import { KeyedPool, type Claim, type Driver, type Fleet, type PoolLimits } from "../src/pool.js";

interface Wire {
  readonly key: string;
  uses: number;
}

/** Counts what is open at each moment, as a server would. */
class Server implements Driver<string, Wire> {
  open_ = 0;
  most = 0;
  opened = 0;
  resets = 0;
  readonly dead = new Set<string>();
  dirty = false;

  async open(key: string): Promise<Wire> {
    this.opened += 1;
    this.open_ += 1;
    this.most = Math.max(this.most, this.open_);
    await sleep(1);
    if (this.dead.has(key)) {
      this.open_ -= 1;
      throw new Error(`${key} is dead`);
    }
    return { key, uses: 0 };
  }

  async reset(): Promise<void> {
    this.resets += 1;
    if (this.dirty) throw new Error("can't be cleaned");
  }

  async close(): Promise<void> {
    await sleep(1);
    this.open_ -= 1;
  }
}

function setting(t: TestContext, limits: Partial<PoolLimits> = {}, parts: { fleet?: Fleet; now?: () => number } = {}) {
  const server = new Server();
  const pool = new KeyedPool<string, Wire>(server, { budget: 4, wait: 2_000, ...limits }, parts.fleet, parts.now);
  t.after(() => pool.close());
  return { server, pool };
}

const of = (id: string, changes: Partial<Claim<string>> = {}): Claim<string> => ({
  id,
  key: id,
  cluster: "c.example:5432",
  limit: 2,
  dedicated: false,
  ...changes,
});

const busy = (error: unknown) => isDataPlaneError(error) && error.code === "busy" && error.retryAfter === 1;

test("a connection is opened once and used again, cleaned in between", async (t) => {
  const { server, pool } = setting(t);
  for (let i = 0; i < 5; i += 1) {
    const lease = await pool.acquire(of("a"));
    lease.release();
    lease.release();
  }
  assert.deepEqual([server.opened, server.resets], [1, 5]);
});

test("two thousand requests of fifty tenants stay within the budget and get their own tenant's connection", async (t) => {
  const { server, pool } = setting(t, { wait: 20_000, maxWaiting: 5_000 });
  const one = async (i: number) => {
    const id = `tenant-${(i * 7919) % 50}`;
    const lease = await pool.acquire(of(id));
    assert.equal(lease.connection.key, id);
    lease.connection.uses += 1;
    assert.equal(lease.connection.uses, 1, "nobody else has it");
    await sleep(0);
    lease.connection.uses -= 1;
    lease.release();
  };
  await Promise.all(Array.from({ length: 2_000 }, (_, i) => one(i)));
  assert.ok(server.most <= 4, `${server.most} were open at one moment`);
  assert.ok(pool.stats.used <= 4);
});

test("the longest unused connection makes room for the next tenant", async (t) => {
  const { pool } = setting(t, { budget: 2 });
  for (const id of ["a", "b", "a"]) (await pool.acquire(of(id))).release();
  await sleep(5);
  (await pool.acquire(of("c"))).release();
  assert.deepEqual(["a", "b", "c"].map((id) => pool.has(id)), [true, false, true]);
});

test("a tenant has its limit and not more, and waits in vain for a bounded time", async (t) => {
  const { server, pool } = setting(t, { wait: 30 });
  const leases = [await pool.acquire(of("a")), await pool.acquire(of("a"))];
  await assert.rejects(pool.acquire(of("a")), busy);
  (await pool.acquire(of("b"))).release();
  assert.equal(server.opened, 3);
  for (const lease of leases) lease.release();
});

test("a database that does not answer holds two connections of the budget, and the others are served", async (t) => {
  const asleep: (() => void)[] = [];
  const server = new Server();
  const open = server.open.bind(server);
  server.open = async (key) => {
    if (key === "sleeper") await new Promise<void>((woken) => asleep.push(woken));
    return open(key);
  };
  const pool = new KeyedPool<string, Wire>(server, { budget: 4, wait: 30_000 });
  t.after(() => pool.close());
  const waiting = Array.from({ length: 6 }, () => pool.acquire(of("sleeper", { limit: 6 })));
  for (let i = 0; i < 20; i += 1) (await pool.acquire(of(`other-${i % 3}`))).release();
  assert.deepEqual([asleep.length, pool.isOpen("sleeper"), pool.has("sleeper")], [2, false, true]);
  const wakeUp = setInterval(() => asleep.splice(0).forEach((woken) => void woken()), 1);
  t.after(() => clearInterval(wakeUp));
  for (const lease of await Promise.all(waiting.slice(0, 2))) lease.release();
  assert.ok(pool.isOpen("sleeper"));
  const releasing = waiting.slice(2).map(async (one) => {
    const got = await one;
    got.release();
    return got;
  });
  for (const lease of await Promise.all(releasing)) {
    assert.equal(lease.connection.key, "sleeper");
  }
});

test("dedicated connections stand outside of the budget", async (t) => {
  const { pool } = setting(t, { budget: 1, wait: 30 });
  const held = await pool.acquire(of("a"));
  const own = await pool.acquire(of("b", { dedicated: true }));
  await assert.rejects(pool.acquire(of("c")), busy);
  held.release();
  own.release();
});

test("a full waiting room refuses at once", async (t) => {
  const { pool } = setting(t, { budget: 1, maxWaiting: 1 });
  const held = await pool.acquire(of("a"));
  const waits = pool.acquire(of("b"));
  await assert.rejects(pool.acquire(of("c")), busy);
  held.release();
  (await waits).release();
});

test("what can't be cleaned is closed", async (t) => {
  const { server, pool } = setting(t);
  server.dirty = true;
  (await pool.acquire(of("a"))).release();
  await sleep(5);
  assert.deepEqual([server.open_, pool.stats.used, pool.has("a")], [0, 0, false]);
});

test("after a failed connect requests fail at once, then it is tried again", async (t) => {
  const clock = { now: 0 };
  const { server, pool } = setting(t, { backoff: 40 }, { now: () => clock.now });
  server.dead.add("a");
  await assert.rejects(pool.acquire(of("a")), /dead/);
  await assert.rejects(pool.acquire(of("a")), /dead/);
  assert.equal(server.opened, 1);
  clock.now += 40;
  await assert.rejects(pool.acquire(of("a")), /dead/);
  clock.now += 40;
  await assert.rejects(pool.acquire(of("a")), /dead/);
  assert.equal(server.opened, 2, "the pause doubles");
  server.dead.clear();
  clock.now += 40;
  (await pool.acquire(of("a"))).release();
  assert.equal(pool.stats.used, 1);
});

test("who waits for a tenant whose connect fails learns it at once", async (t) => {
  const { server, pool } = setting(t, { wait: 5_000 });
  server.dead.add("a");
  const claims = Array.from({ length: 5 }, () => pool.acquire(of("a", { limit: 1 })));
  const outcomes = await Promise.allSettled(claims);
  assert.ok(outcomes.every(({ status }) => status === "rejected"));
  assert.ok(server.opened <= 5);
  assert.equal(pool.stats.waiting, 0);
});

test("retired connections are not used again, those in use end at their release", async (t) => {
  const { server, pool } = setting(t);
  const held = await pool.acquire(of("a"));
  (await pool.acquire(of("a"))).release();
  await sleep(5);
  pool.retire("a");
  held.release();
  await sleep(10);
  assert.equal(server.open_, 0);
  (await pool.acquire(of("a"))).release();
  assert.equal(server.opened, 3);
});

test("a connection that ends by itself is not handed out", async (t) => {
  const { server, pool } = setting(t);
  const lease = await pool.acquire(of("a"));
  lease.release();
  await sleep(5);
  pool.lost(lease.connection);
  (await pool.acquire(of("a"))).release();
  assert.equal(server.opened, 2);
});

test("unused connections are closed, so that a database can go to sleep", async (t) => {
  const { server, pool } = setting(t, { idle: 20 });
  (await pool.acquire(of("a"))).release();
  await sleep(250);
  assert.deepEqual([server.open_, pool.stats.tenants], [0, 0]);
});

/** A cluster that takes `limit` connections of all together, and what was counted there. */
class Cluster implements Fleet {
  held = 0;
  most = 0;
  asked = 0;

  constructor(private readonly limit: number) {}

  async acquire(): Promise<boolean> {
    this.asked += 1;
    await sleep(0);
    if (this.held >= this.limit) return false;
    this.held += 1;
    this.most = Math.max(this.most, this.held);
    return true;
  }

  async release(): Promise<void> {
    assert.ok(this.held > 0, "released more often than acquired");
    this.held -= 1;
  }
}

test("a full cluster refuses who comes next, without blocking the tenant", async (t) => {
  const fleet = new Cluster(2);
  const { server, pool } = setting(t, {}, { fleet });
  const leases = [await pool.acquire(of("a")), await pool.acquire(of("b"))];
  await assert.rejects(pool.acquire(of("c")), busy);
  await assert.rejects(pool.acquire(of("c", { dedicated: true })), busy);
  assert.deepEqual([server.opened, pool.stats.used, pool.has("c")], [2, 2, false]);
  leases[0]?.release(true);
  await sleep(10);
  (await pool.acquire(of("c"))).release();
  leases[1]?.release();
  await pool.close();
  assert.equal(fleet.held, 0);
});

test("on a full cluster an idle connection of ours makes room, also a dedicated one, but none of another cluster", async (t) => {
  const fleet = new Cluster(2);
  const { pool } = setting(t, {}, { fleet });
  (await pool.acquire(of("elsewhere", { cluster: "d.example:5432" }))).release();
  (await pool.acquire(of("a", { dedicated: true }))).release();
  await sleep(5);
  (await pool.acquire(of("b"))).release();
  assert.deepEqual(["elsewhere", "a", "b"].map((id) => pool.has(id)), [true, false, true]);
});

test("a connection that was given back this moment makes room as well", async (t) => {
  const fleet = new Cluster(1);
  const { pool } = setting(t, {}, { fleet });
  for (let i = 0; i < 50; i += 1) (await pool.acquire(of(`tenant-${i % 2}`))).release(i % 3 === 0);
  assert.equal(fleet.most, 1);
});

test("the room of a connect that fails, and of a connection that is lost, is given back", async (t) => {
  const fleet = new Cluster(1);
  const { server, pool } = setting(t, {}, { fleet });
  server.dead.add("a");
  await assert.rejects(pool.acquire(of("a")), /dead/);
  assert.equal(fleet.held, 0);
  const asked = fleet.asked;
  await assert.rejects(pool.acquire(of("a")), /dead/);
  assert.equal(fleet.asked, asked, "a blocked tenant asks for no room");
  const lease = await pool.acquire(of("b"));
  lease.release();
  await sleep(5);
  pool.lost(lease.connection);
  await sleep(5);
  assert.equal(fleet.held, 0);
});

test("crowds of many tenants stay within what the cluster takes", async (t) => {
  const fleet = new Cluster(3);
  const { server, pool } = setting(t, { wait: 20_000, budget: 8 }, { fleet });
  let refused = 0;
  const one = async (i: number) => {
    try {
      const lease = await pool.acquire(of(`tenant-${(i * 7919) % 20}`));
      await sleep(1);
      lease.release(i % 11 === 0);
    } catch (error) {
      assert.ok(busy(error), String(error));
      refused += 1;
    }
  };
  await Promise.all(Array.from({ length: 400 }, (_, i) => one(i)));
  assert.ok(server.most <= 3, `${server.most} were open at one moment`);
  assert.ok(refused < 400);
  await pool.close();
  assert.equal(fleet.held, 0);
});
