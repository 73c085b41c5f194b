import assert from "node:assert/strict";
import { test } from "node:test";

import { configOf } from "../src/tenant-config.js";
import { hostOfPass, passFor, readSegment, segmentOf } from "../src/seal.js";
import { KEYS, payloadOf } from "./entries.js";

const HOST = "acme.tenants.example.com";
const OLDER = new Map([["k0", Buffer.alloc(32, 1)]]);

test("a pass brings its host through until it is over", () => {
  const pass = passFor(HOST, KEYS, 1000);
  assert.equal(hostOfPass(pass, KEYS, 1299), HOST);
  assert.equal(hostOfPass(pass, KEYS, 1300), null);
  assert.equal(hostOfPass(pass, OLDER, 1000), null);
  assert.equal(hostOfPass(passFor(HOST, OLDER, 1000), new Map([...KEYS, ...OLDER]), 1000), HOST, "a key is rolled");
});

test("a pass or segment that was touched, or is used as the other, is nobody's", () => {
  const pass = passFor(HOST, KEYS, 1000);
  const segment = segmentOf(configOf(payloadOf(HOST)), KEYS);
  assert.deepEqual(readSegment(segment, KEYS), { host: HOST, tenantId: "t-aaaaaaaaaaaa" });
  assert.equal(readSegment(pass, KEYS), null);
  assert.equal(hostOfPass(segment, KEYS, 0), null);
  for (const bad of ["", "~", "a~b", pass.replace("acme", "evil"), pass.replace("1300", "9300"), `${pass}A`, `x${pass}`]) {
    assert.equal(hostOfPass(bad, KEYS, 1000), null, bad);
  }
  for (let i = 0; i < segment.length; i += 1) {
    const bad = `${segment.slice(0, i)}${segment[i] === "x" ? "y" : "x"}${segment.slice(i + 1)}`;
    // The last character holds bits that base64 does not use.
    if (i < segment.length - 1) assert.equal(readSegment(bad, KEYS), null, bad);
  }
});
