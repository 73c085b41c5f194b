import assert from "node:assert/strict";
import { generateKeyPairSync } from "node:crypto";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { test } from "node:test";
import { rootCertificates } from "node:tls";

import { EndpointMap } from "../src/endpoints.js";
import { parseInvalidation } from "../src/redis.js";
import { settingsFrom } from "../src/settings.js";
import { vectors } from "./vectors.js";

const KEY = Buffer.alloc(32, 3).toString("base64");
const LEAST = {
  DATAPLANE_CONFIG_KEYS: `k1:${KEY}`,
  DATAPLANE_CACHE_URL: "redis://127.0.0.1",
  DATAPLANE_SSLROOTCERT: "system",
};
const CERTIFICATE = rootCertificates[0] ?? "";

test("what is not said has a safe default", () => {
  const settings = settingsFrom(LEAST);
  assert.deepEqual([...settings.keys.keys()], ["k1"]);
  assert.deepEqual(
    [settings.sslMode, settings.trustedProxies, settings.poolBudget, settings.staleSeconds, settings.endpointMap],
    ["verify-full", 0, 100, 21_600, null],
  );
  assert.equal(settings.wakeSeconds, 45, "over 30 seconds after a day of sleep, below the 60 of a load balancer");
  assert.deepEqual(
    [settings.clusterBudget, settingsFrom({ ...LEAST, DATAPLANE_CLUSTER_BUDGET: "80" }).clusterBudget],
    [null, 80],
  );
});

function mistakes(environment: Record<string, string>): string[] {
  try {
    settingsFrom(environment);
  } catch (error) {
    return (error as Error).message.split("\n");
  }
  return [];
}

test("all mistakes are reported at once, misspelt names among them", () => {
  const wrong = { DATAPLANE_CONFIG_KEYS: "", DATAPLANE_SSLMODE: "on", DATAPLANE_POOL_BUDGTE: "7", DATAPLANE_SOAK: "1" };
  const found = mistakes({ ...LEAST, ...wrong });
  assert.deepEqual(
    found.map((line) => line.split(":")[0]),
    ["DATAPLANE_CONFIG_KEYS", "DATAPLANE_SSLMODE", "DATAPLANE_POOL_BUDGTE"],
  );
  assert.match(found[2] ?? "", /is it a misspelling of DATAPLANE_POOL_BUDGET\?/);
});

interface TlsCase {
  readonly sslmode: string | null;
  readonly sslrootcert: string | null;
  readonly wrong: "sslmode" | "sslrootcert" | null;
}

test("databases that could not be verified stop the start, as in Python", (t) => {
  const folder = mkdtempSync(path.join(tmpdir(), "tls-"));
  t.after(() => rmSync(folder, { recursive: true }));
  const contents: Record<string, string> = {
    bundle: `# one\n${CERTIFICATE}\n# two\n${rootCertificates[1]}\n`,
    empty: "",
    text: "<html>404</html>\n",
    key: generateKeyPairSync("ec", { namedCurve: "P-256" }).privateKey.export({ type: "pkcs8", format: "pem" }).toString(),
    cut: CERTIFICATE.slice(0, 200),
  };
  for (const [name, content] of Object.entries(contents)) writeFileSync(path.join(folder, name), content);
  mkdirSync(path.join(folder, "folder"));
  const { cases } = vectors<{ cases: TlsCase[] }>("tls.json");
  assert.ok(cases.length > 20);
  for (const { sslmode, sslrootcert, wrong } of cases) {
    const root = sslrootcert === null || sslrootcert === "system" ? sslrootcert : path.join(folder, sslrootcert);
    const found = mistakes({ ...LEAST, DATAPLANE_SSLMODE: sslmode ?? "", DATAPLANE_SSLROOTCERT: root ?? "" });
    const what = `${sslmode} ${sslrootcert}: ${found}`;
    assert.equal(found.length, wrong === null ? 0 : 1, what);
    if (wrong === null) continue;
    assert.match(found[0] ?? "", new RegExp(`^DATAPLANE_${wrong.toUpperCase()}: expected `), what);
    if (wrong === "sslrootcert") assert.match(found[0] ?? "", /truststore\.pki\.rds\.amazonaws\.com\/global\/global-bundle\.pem/);
  }
});

test("a wrong variable is named", () => {
  const wrong: [string, string][] = [
    ["DATAPLANE_CONFIG_KEYS", ""],
    ["DATAPLANE_CONFIG_KEYS", "k1:c2hvcnQ="],
    ["DATAPLANE_CONFIG_KEYS", KEY],
    ["DATAPLANE_CACHE_URL", ""],
    ["DATAPLANE_CACHE_URL", "redis://:canary@h:xyz/0"],
    ["DATAPLANE_CACHE_URL", "redis://:canary@[::1"],
    ["DATAPLANE_CACHE_URL", "redis://h/abc"],
    ["DATAPLANE_CACHE_URL", "127.0.0.1"],
    ["DATAPLANE_RESOLVE_URL", "https://"],
    ["DATAPLANE_RESOLVE_URL", "control.example"],
    ["DATAPLANE_RESOLVE_TOKEN", "canary\nx: y"],
    ["DATAPLANE_PLATFORM_ZONES", "a.example, *.b"],
    ["DATAPLANE_RELEASES", "five"],
    ["DATAPLANE_ENDPOINT_MAP", "/does/not/exist"],
    ["DATAPLANE_TRUSTED_PROXIES", "-1"],
    ["DATAPLANE_POOL_BUDGET", "0"],
    ["DATAPLANE_CLUSTER_BUDGET", "0"],
    ["DATAPLANE_CLUSTER_BUDGET", "many"],
  ];
  for (const [name, value] of wrong) {
    const found = mistakes({ ...LEAST, DATAPLANE_RESOLVE_TOKEN: "t", [name]: value });
    assert.equal(found.length, 1, `${name}=${value}: ${found}`);
    assert.match(found[0] ?? "", new RegExp(`^${name}: `));
    assert.doesNotMatch(found[0] ?? "", /canary/);
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

test("an invalidation that this version does not know is passed over", () => {
  const invalidation = { kind: "config", host: "a.example", epoch: 4, tenant_id: "t-a" };
  assert.deepEqual(parseInvalidation(JSON.stringify(invalidation)), invalidation);
  const credential = { kind: "credential", host: "", epoch: 0, tenant_id: "t-a" };
  assert.deepEqual(parseInvalidation('{"kind": "credential", "host": null, "tenant_id": "t-a"}'), credential);
  for (const bad of ["", "[]", "null", "7", '{"kind": "new"}', '{"host": 7}', '{"epoch": 1.5}', `"${"x".repeat(5000)}"`]) {
    assert.equal(parseInvalidation(bad), null, bad);
  }
});
