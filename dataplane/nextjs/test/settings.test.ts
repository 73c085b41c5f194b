import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { test } from "node:test";

import { EndpointMap } from "../src/endpoints.js";
import { parseNotice } from "../src/redis.js";
import { settingsFrom } from "../src/settings.js";

const KEY = Buffer.alloc(32, 3).toString("base64");
const LEAST = { DATAPLANE_CONFIG_KEYS: `k1:${KEY}`, DATAPLANE_CACHE_URL: "redis://127.0.0.1" };

test("what is not said has a safe default", () => {
  const settings = settingsFrom(LEAST);
  assert.deepEqual([...settings.keys.keys()], ["k1"]);
  assert.deepEqual(
    [settings.sslMode, settings.trustedProxies, settings.poolBudget, settings.staleSeconds, settings.endpointMap],
    ["verify-full", 0, 100, 21_600, null],
  );
  assert.deepEqual(
    [settings.clusterBudget, settingsFrom({ ...LEAST, DATAPLANE_CLUSTER_BUDGET: "80" }).clusterBudget],
    [null, 80],
  );
});

test("a wrong variable is named", () => {
  const wrong: [string, string][] = [
    ["DATAPLANE_CONFIG_KEYS", ""],
    ["DATAPLANE_CONFIG_KEYS", "k1:c2hvcnQ="],
    ["DATAPLANE_CONFIG_KEYS", KEY],
    ["DATAPLANE_CACHE_URL", ""],
    ["DATAPLANE_SSLMODE", "prefer"],
    ["DATAPLANE_TRUSTED_PROXIES", "-1"],
    ["DATAPLANE_POOL_BUDGET", "0"],
    ["DATAPLANE_CLUSTER_BUDGET", "0"],
    ["DATAPLANE_CLUSTER_BUDGET", "many"],
    ["DATAPLANE_TENANT_ROLE", "arn:aws:iam::1:role/one-for-all"],
  ];
  for (const [name, value] of wrong) {
    assert.throws(() => settingsFrom({ ...LEAST, [name]: value }), new RegExp(`^Error: ${name}: expected`), name);
  }
  assert.throws(() => settingsFrom({ ...LEAST, DATAPLANE_RESOLVE_URL: "https://x" }), /DATAPLANE_RESOLVE_TOKEN/);
  const uncounted = { DATAPLANE_CACHE_URL: "", DATAPLANE_RESOLVE_URL: "https://x", DATAPLANE_RESOLVE_TOKEN: "t" };
  assert.throws(() => settingsFrom({ ...LEAST, ...uncounted, DATAPLANE_CLUSTER_BUDGET: "8" }), /^Error: DATAPLANE_CACHE_URL/);
});

test("the endpoint map is read anew when it changes, and names what is wrong in it", (t) => {
  const folder = mkdtempSync(path.join(tmpdir(), "endpoints-"));
  t.after(() => rmSync(folder, { recursive: true }));
  const file = path.join(folder, "map.json");
  writeFileSync(file, '{"db.example:5432": "127.0.0.1:6001"}');
  const map = new EndpointMap(file);
  assert.deepEqual(map.resolve("db.example", 5432), { host: "127.0.0.1", port: 6001 });
  assert.deepEqual(map.resolve("db.example", 5433), { host: "db.example", port: 5433 });
  writeFileSync(file, '{"db.example:5432": "127.0.0.1:60022"}');
  assert.deepEqual(map.resolve("db.example", 5432), { host: "127.0.0.1", port: 60022 });
  writeFileSync(file, '{"db.example:5432": "nowhere"}');
  assert.throws(() => map.resolve("db.example", 5432), /db\.example:5432: expected/);
  assert.deepEqual(new EndpointMap(null).resolve("a", 1), { host: "a", port: 1 });
});

test("a notice that this version does not know is passed over", () => {
  const notice = { kind: "config", host: "a.example", epoch: 4, tenant_id: "t-a" };
  assert.deepEqual(parseNotice(JSON.stringify(notice)), notice);
  const credential = { kind: "credential", host: "", epoch: 0, tenant_id: "t-a" };
  assert.deepEqual(parseNotice('{"kind": "credential", "host": null, "tenant_id": "t-a"}'), credential);
  for (const bad of ["", "[]", "null", "7", '{"kind": "new"}', '{"host": 7}', '{"epoch": 1.5}', `"${"x".repeat(5000)}"`]) {
    assert.equal(parseNotice(bad), null, bad);
  }
});
