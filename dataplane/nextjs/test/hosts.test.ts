import assert from "node:assert/strict";
import { test } from "node:test";

import { cacheKeyOf } from "../src/tenant-config.js";
import { BadHost, normaliseHost, rawHost, RESERVED, Zones, type BadHostReason, type HostKind } from "../src/hosts.js";
import { vectors } from "./vectors.js";

interface HostVectors {
  normalise: { raw: string; host?: string; key?: string; error?: BadHostReason }[];
  choose: {
    host: string | null;
    forwarded_host: string | null;
    trusted_proxies: number;
    raw?: string;
    error?: BadHostReason;
  }[];
  reserved: string[];
  classify: {
    zones: string[];
    cases: { host: string; kind: HostKind; slug: string | null }[];
  }[];
}

const cases = vectors<HostVectors>("hosts.json");

function outcome(work: () => string): { value?: string; error?: BadHostReason } {
  try {
    return { value: work() };
  } catch (error) {
    if (error instanceof BadHost) return { error: error.reason };
    throw error;
  }
}

test("every shared case is normalised as the Python data plane normalises it", () => {
  assert.ok(cases.normalise.length > 50);
  for (const { raw, host, key, error } of cases.normalise) {
    const got = outcome(() => normaliseHost(raw));
    assert.deepEqual(got, error === undefined ? { value: host } : { error }, JSON.stringify(raw));
    if (host !== undefined) {
      assert.equal(cacheKeyOf(host), key);
      assert.equal(normaliseHost(host), host, "idempotent");
    }
  }
});

test("the header that counts is chosen alike", () => {
  for (const { host, forwarded_host, trusted_proxies, raw, error } of cases.choose) {
    const got = outcome(() => rawHost(host, forwarded_host, trusted_proxies));
    assert.deepEqual(got, error === undefined ? { value: raw } : { error }, JSON.stringify({ host, forwarded_host }));
  }
});

test("zones are classified alike", () => {
  for (const { zones, cases: hosts } of cases.classify) {
    const known = new Zones(zones);
    for (const { host, kind, slug } of hosts) assert.deepEqual(known.classify(host), { kind, slug }, host);
  }
});

test("no reserved label is a tenant's", () => {
  assert.deepEqual([...RESERVED].sort(), cases.reserved);
  const zones = new Zones(["tenants.example.com"]);
  for (const label of cases.reserved) {
    assert.deepEqual(zones.classify(`${label}.tenants.example.com`), { kind: "platform", slug: null }, label);
  }
});

test("what IDNA 2008 has no letter for is refused, though WHATWG's conversion takes it", () => {
  assert.deepEqual(outcome(() => normaliseHost("☃.example")), { error: "idn" });
});
