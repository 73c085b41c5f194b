import assert from "node:assert/strict";
import { test } from "node:test";

import { isExpired, TenantConfigError, verify, type ConfigKeys } from "../src/tenant-config.js";
import { vectors } from "./vectors.js";

interface EntryVectors {
  keys: Record<string, string>;
  now: number;
  cases: {
    name: string;
    host: string;
    entry: string;
    payload?: Record<string, unknown>;
    expired?: boolean;
    error?: string;
  }[];
}

const { keys: encoded, now, cases } = vectors<EntryVectors>("tenant_config.json");
const keys: ConfigKeys = new Map(Object.entries(encoded).map(([id, key]) => [id, Buffer.from(key, "base64")]));

const FIELDS = [
  "host",
  "tenant_id",
  "slug",
  "status",
  "epoch",
  "plan",
  "pool_size",
  "dedicated",
  "release",
  "placement",
  "database",
  "profile",
  "moved_to",
  "issued_at",
  "not_after",
];

for (const { name, host, entry, payload, expired, error } of cases) {
  test(`entry: ${name}`, () => {
    if (payload === undefined) {
      assert.throws(
        () => verify(entry, host, keys),
        (raised) => raised instanceof TenantConfigError && raised.message.startsWith(`${error}:`),
      );
    } else {
      const expected: Record<string, unknown> = Object.fromEntries(FIELDS.map((field) => [field, payload[field] ?? null]));
      if (payload["database"] === null) expected["placement"] = null;
      const config = verify(entry, host, keys);
      assert.deepEqual({ ...config }, expected);
      assert.equal(isExpired(config, now * 1000), expired);
    }
  });
}
