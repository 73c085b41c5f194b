import assert from "node:assert/strict";
import { test } from "node:test";

import type { ActiveConfig } from "../src/connect.js";
import { isOwn } from "../src/databases.js";
import { configOf } from "../src/tenant-config.js";
import { payloadOf, ROLE, SECRET } from "./entries.js";
import { vectors } from "./vectors.js";

interface IdentityVectors {
  entry: { database: string; placement: string; tenant_id: string };
  cases: { about: string; rows: [string, string, string | null][]; own: boolean }[];
}

const shared = vectors<IdentityVectors>("identity.json");

test("a database is the entry's, or not, as for the Python data plane", () => {
  const { database: name, ...fields } = shared.entry;
  const database = { host: "db.example", port: 5432, name, secret: SECRET, role: ROLE };
  const config = configOf(payloadOf("acme.example", { ...fields, database })) as ActiveConfig;
  assert.deepEqual(new Set(shared.cases.map(({ own }) => own)), new Set([true, false]));
  for (const { about, rows, own } of shared.cases) {
    const found = rows.map(([name, placement, tenant]) => ({ name, placement, tenant }));
    assert.equal(isOwn(found, config), own, about);
  }
});
