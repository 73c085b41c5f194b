import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";

import { NextRequest } from "next/server.js";

import { isDataPlaneError } from "../src/errors.js";
import { createTenantProxy } from "../src/proxy.js";
import { locationOf } from "../src/redirects.js";
import { Resolver } from "../src/resolve.js";
import { passFor, segmentOf } from "../src/seal.js";
import { tenantFrom } from "../src/server.js";
import { settingsFrom } from "../src/settings.js";
import { entryOf, KEYS, payloadOf } from "./entries.js";
import { vectors } from "./vectors.js";

interface RedirectVectors {
  to: string;
  cases: {
    name: string;
    scheme: string;
    host: string;
    target: string;
    forwarded_proto?: string;
    location: string;
  }[];
}

const { to, cases } = vectors<RedirectVectors>("redirects.json");

for (const { name, scheme, host, target, forwarded_proto: forwardedProto, location } of cases) {
  test(`redirect: ${name}`, () => {
    assert.equal(locationOf(to, { scheme, rawHost: host, target, forwardedProto: forwardedProto ?? null }), location);
  });
}

const ZONE = "tenants.example.com";
const [OLD, NEW] = [`old.${ZONE}`, `new.${ZONE}`];
const moved = { status: "moved", database: null, release: null };
const entries = new Map<string, string>();
const cache = { name: "cache", entry: async (host: string) => entries.get(host) ?? null };
const proxy = createTenantProxy({ cached: ["/board"] });
const now = () => Date.now() / 1000;

/** A process whose settings and cache are these. */
function running(environment: Record<string, string> = {}): void {
  const key = Buffer.from(KEYS.get("k1") ?? []).toString("base64");
  const settings = settingsFrom({
    DATAPLANE_CONFIG_KEYS: `k1:${key}`,
    DATAPLANE_CACHE_URL: "redis://127.0.0.1:1",
    DATAPLANE_SSLMODE: "disable",
    DATAPLANE_PLATFORM_ZONES: ZONE,
    ...environment,
  });
  const resolver = new Resolver({ keys: KEYS, cache });
  const databases = { ready: async () => undefined };
  const holder = globalThis as unknown as Record<symbol, unknown>;
  holder[Symbol.for("tenant-controlplane.nextjs.runtime")] = { settings, resolver, databases };
}

function ask(path: string, headers: Record<string, string>, method = "GET", scheme = "http") {
  return proxy(new NextRequest(`${scheme}://localhost:3000${path}`, { method, headers }));
}

beforeEach(() => {
  entries.clear();
  entries.set(OLD, entryOf(OLD, { ...moved, moved_to: NEW }));
  entries.set(NEW, entryOf(NEW));
  running();
});

for (const method of ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]) {
  test(`a host that has moved leads to the new one: ${method}`, async () => {
    const answer = await ask("/a/b?q=%20x&q=2", { host: `${OLD}:8000`, accept: "text/html" }, method);
    assert.equal(answer.status, 308);
    assert.equal(answer.headers.get("location"), `http://${NEW}:8000/a/b?q=%20x&q=2`);
    assert.equal(answer.headers.get("cache-control"), "no-store");
    assert.equal(answer.headers.get("x-middleware-next"), null, "the application is not asked");
  });
}

test("the port is the visitor's, the scheme that of the outermost connection", async () => {
  const location = async (headers: Record<string, string>, scheme?: string) =>
    (await ask("/board", headers, "GET", scheme)).headers.get("location");
  assert.equal(await location({ host: OLD }), `http://${NEW}/board`);
  assert.equal(await location({ host: OLD }, "https"), `https://${NEW}/board`);
  assert.equal(await location({ host: OLD, "x-forwarded-proto": "https" }), `https://${NEW}/board`);
  assert.equal(await location({ host: OLD, "x-forwarded-host": "evil.example" }), `http://${NEW}/board`);
  running({ DATAPLANE_TRUSTED_PROXIES: "1" });
  const behind = { host: "internal:3000", "x-forwarded-host": `${OLD}:8443`, "x-forwarded-proto": "https" };
  assert.equal(await location(behind), `https://${NEW}:8443/board`);
});

test("a request of Next.js' own, which has only the pass, is led to the host alone", async () => {
  const answer = await ask("/a", { host: "localhost:3000", "x-tenant-pass": passFor(OLD, KEYS, now()) });
  assert.equal(answer.headers.get("location"), `http://${NEW}/a`);
});

test("the new host is served", async () => {
  assert.equal((await ask("/a", { host: NEW })).headers.get("x-middleware-next"), "1");
});

const segment = (host: string, changes: Record<string, unknown> = {}) =>
  segmentOf({ host, tenant_id: payloadOf(host)["tenant_id"], ...changes } as never, KEYS);
const unknown = (error: unknown) => isDataPlaneError(error) && error.code === "unknown-host";

test("a segment of the old host names the same tenant at its new one", async () => {
  assert.equal((await tenantFrom(segment(OLD))).host, NEW);
  assert.equal((await tenantFrom(segment(NEW))).host, NEW);
});

test("a segment leads to no other tenant and never round", async () => {
  entries.set(NEW, entryOf(NEW, { tenant_id: "t-bbbbbbbbbbbb" }));
  await assert.rejects(tenantFrom(segment(OLD)), unknown);
  running();
  entries.set(NEW, entryOf(NEW, { ...moved, moved_to: OLD }));
  await assert.rejects(tenantFrom(segment(OLD)), unknown);
});
