import assert from "node:assert/strict";
import { test } from "node:test";

import { TenantConfigError, verify, type ConfigKeys } from "../src/tenant-config.js";
import { vectors } from "./vectors.js";

interface EntryVectors {
  keys: Record<string, string>;
  cases: { name: string; host: string; entry: string; payload?: Record<string, unknown>; error?: string }[];
}

const { keys: encoded, cases } = vectors<EntryVectors>("tenant_config.json");
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
  "database",
  "profile",
  "moved_to",
];

for (const { name, host, entry, payload, error } of cases) {
  test(`entry: ${name}`, () => {
    if (payload === undefined) {
      assert.throws(
        () => verify(entry, host, keys),
        (raised) => raised instanceof TenantConfigError && raised.message.startsWith(`${error}:`),
      );
    } else {
      const expected = Object.fromEntries(FIELDS.map((field) => [field, payload[field] ?? null]));
      assert.deepEqual({ ...verify(entry, host, keys) }, expected);
    }
  });
}
