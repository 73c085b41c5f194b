import assert from "node:assert/strict";
import { test } from "node:test";

import { Releases } from "../src/releases.js";
import { settingsFrom } from "../src/settings.js";
import { vectors } from "./vectors.js";

interface ReleaseVectors {
  cases: { range: string | null; served: (string | null)[]; refused: (string | null)[] }[];
  errors: string[];
}

const shared = vectors<ReleaseVectors>("releases.json");
const KEY = Buffer.alloc(32, 3).toString("base64");
const LEAST = { DATAPLANE_CONFIG_KEYS: `k1:${KEY}`, DATAPLANE_CACHE_URL: "redis://127.0.0.1", DATAPLANE_SSLROOTCERT: "system" };

test("every shared case is served, or not, as the Python data plane does", () => {
  assert.ok(shared.cases.length > 5);
  for (const { range, served, refused } of shared.cases) {
    const releases = range === null ? Releases.ALL : Releases.parse(range);
    assert.deepEqual(served.filter((release) => !releases.serve(release)), [], `served by ${range}`);
    assert.deepEqual(refused.filter((release) => releases.serve(release)), [], `refused by ${range}`);
  }
});

test("a range that makes no sense is refused with what was expected", () => {
  for (const text of shared.errors) {
    assert.throws(() => Releases.parse(text), /^RangeError: expected releases such as 0003\.\.0005/, JSON.stringify(text));
  }
});

test("the environment says it, and a mistake in it is named", () => {
  assert.equal(settingsFrom(LEAST).releases, Releases.ALL);
  const { least, most } = settingsFrom({ ...LEAST, DATAPLANE_RELEASES: "0002.." }).releases;
  assert.deepEqual([least, most], ["0002", null]);
  assert.throws(() => settingsFrom({ ...LEAST, DATAPLANE_RELEASES: "2.." }), /^Error: DATAPLANE_RELEASES: expected releases/);
});
